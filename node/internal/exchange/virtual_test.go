package exchange

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/moot-net/moot/node/internal/fetchtest"
)

// simulated is an exchange on a simulated line.
type simulated struct {
	h  host.Host
	e  *Exchange
	bs blockstore.Blockstore
}

// simulate runs body in virtual time, with an exchange for each store of fill,
// all connected, 50 ms apart, on lines of 100 Mbit/s down and up Mbit/s up.
func simulate(t *testing.T, up int, fill func() []blockstore.Blockstore, body func(ctx context.Context, nodes []simulated)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		stores := fill()
		nw, meta, err := simlibp2p.SimpleLibp2pNetwork([]simlibp2p.NodeLinkSettingsAndCount{{
			LinkSettings: simnet.NodeBiDiLinkSettings{
				Downlink: simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps},
				Uplink:   simnet.LinkSettings{BitsPerSecond: up * simlibp2p.OneMbps},
			}, Count: len(stores),
		}}, simnet.StaticLatency(50*time.Millisecond), simlibp2p.NetworkSettings{})
		if err != nil {
			t.Fatal(err)
		}
		nw.Start()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, len(stores))
		var nodes []simulated
		for i, h := range meta.Nodes {
			e, err := New(h, stores[i], Options{})
			if err != nil {
				t.Fatal(err)
			}
			go func() { ended <- e.Run(ctx) }()
			for _, o := range nodes {
				if err := h.Connect(ctx, peer.AddrInfo{ID: o.h.ID(), Addrs: o.h.Addrs()}); err != nil {
					t.Fatal(err)
				}
			}
			nodes = append(nodes, simulated{h, e, stores[i]})
		}
		time.Sleep(2 * time.Second)
		body(ctx, nodes)
		cancel()
		for range nodes {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		for _, n := range nodes {
			n.h.Close()
		}
		nw.Close()
	})
}

// One peer, 100 ms away and back: the line is used.
func TestLineIsFilled(t *testing.T) {
	const size = 24 * mib
	bs, root, _ := dag(t, 1, size)
	simulate(t, 100, func() []blockstore.Blockstore { return []blockstore.Blockstore{bs, memory()} }, func(ctx context.Context, nodes []simulated) {
		begun := time.Now()
		if err := nodes[1].e.Fetch(ctx, root, FetchOptions{}); err != nil {
			t.Error(err)
		}
		took := time.Since(begun)
		share := float64(size) * 8 / 100e6 / took.Seconds()
		t.Logf("%v, %.0f %% of the line", took, 100*share)
		if share < 0.5 { // measured 0.7; bitswap's defaults reach 0.2 to 0.45
			t.Errorf("%v for %d MiB at 100 Mbit/s, %.0f %% of the line", took, size/mib, 100*share)
		}
	})
}

// Four peers fetch from one at the same time, and give each other what they
// have: in the end the one has sent less than four copies.
func TestFetchersHelpEachOther(t *testing.T) {
	const size = 16 * mib
	bs, root, _ := dag(t, 2, size)
	stores := func() []blockstore.Blockstore {
		return []blockstore.Blockstore{bs, memory(), memory(), memory(), memory()}
	}
	simulate(t, 50, stores, func(ctx context.Context, nodes []simulated) {
		begun := time.Now()
		var wg sync.WaitGroup
		for _, n := range nodes[1:] {
			wg.Go(func() {
				if err := n.e.Fetch(ctx, root, FetchOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		copies := float64(nodes[0].e.Stats().SentBytes) / size
		t.Logf("%v, the seed sent %.2f copies", time.Since(begun), copies)
		if copies > 3.8 { // 2.9 to 3.6 measured; 4 without help
			t.Errorf("the seed sent %.2f copies to four", copies)
		}
	})
}

// A peer says that it has the blocks, and never gives them.
func TestStalledPeerIsOvertaken(t *testing.T) {
	bs, root, _ := dag(t, 3, 16*mib)
	var never chan struct{}
	stores := func() []blockstore.Blockstore {
		never = make(chan struct{}) // one from outside would stop the virtual time
		stalls := fetchtest.Altered{Blockstore: bs, Alter: func(_ context.Context, _ cid.Cid, b blocks.Block) (blocks.Block, error) {
			<-never
			return b, nil
		}}
		return []blockstore.Blockstore{stalls, bs, memory()}
	}
	simulate(t, 50, stores, func(ctx context.Context, nodes []simulated) {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
		defer cancel()
		o := FetchOptions{Providers: []peer.ID{nodes[0].h.ID()}}
		if err := nodes[2].e.Fetch(ctx, root, o); err != nil {
			t.Error(err)
		}
		t.Logf("%v", time.Since(begun))
		if d := time.Since(begun); d > time.Minute {
			t.Errorf("it took %v", d)
		}
		close(never)
	})
}
