package pull

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/shard"
)

// line is one end of a simulated network, with a puller.
type line struct {
	down, up int // Mbit/s
	bs       func() blockstore.Blockstore
	opt      Options
	meter    func() *traffic.Meter // made by bs; may be nil
}

// simulated is what runs there.
type simulated struct {
	h    host.Host
	p    *Puller
	bs   blockstore.Blockstore
	bans *bans
	stop func()
}

// simulate runs body in virtual time, with a puller on each line, all
// connected, 50 ms apart.
func simulate(t *testing.T, lines []line, body func(ctx context.Context, nodes []simulated)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var settings []simlibp2p.NodeLinkSettingsAndCount
		for _, l := range lines {
			settings = append(settings, simlibp2p.NodeLinkSettingsAndCount{
				LinkSettings: simnet.NodeBiDiLinkSettings{
					Downlink: simnet.LinkSettings{BitsPerSecond: l.down * simlibp2p.OneMbps},
					Uplink:   simnet.LinkSettings{BitsPerSecond: l.up * simlibp2p.OneMbps},
				}, Count: 1,
			})
		}
		nw, meta, err := simlibp2p.SimpleLibp2pNetwork(settings, simnet.StaticLatency(50*time.Millisecond), simlibp2p.NetworkSettings{})
		if err != nil {
			t.Fatal(err)
		}
		nw.Start()
		ctx := t.Context()
		var nodes []simulated
		for i, h := range meta.Nodes {
			n := simulated{h: h, bs: lines[i].bs(), bans: &bans{}}
			o := lines[i].opt
			if lines[i].meter != nil {
				o.Meter = lines[i].meter()
			}
			o.Ban = func(p peer.ID, _ string) { n.bans.add(p) }
			if n.p, err = New(h, n.bs, o); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(ctx)
			ended := make(chan error, 1)
			go func() { ended <- n.p.Run(ctx) }()
			n.stop = sync.OnceFunc(func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
			for _, o := range nodes {
				if err := h.Connect(ctx, peer.AddrInfo{ID: o.h.ID(), Addrs: o.h.Addrs()}); err != nil {
					t.Fatal(err)
				}
			}
			nodes = append(nodes, n)
		}
		time.Sleep(2 * time.Second)
		body(ctx, nodes)
		for _, n := range nodes {
			n.stop()
		}
		for _, n := range nodes {
			n.h.Close()
		}
		nw.Close()
	})
}

func same(bs blockstore.Blockstore) func() blockstore.Blockstore {
	return func() blockstore.Blockstore { return bs }
}

// One peer, 100 ms away and back, at 100 Mbit/s: the line is used as well as
// by one stream that does nothing but copy. (That one gets 81 % of it, for QUIC
// backs off when the simulated router drops packets.)
func TestLineIsFilled(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates half a minute of a full line")
	}
	const size = 128 * mib
	bs, root, _ := dagOf(t, 1, size)
	lines := []line{{100, 100, same(bs), Options{}, nil}, {100, 100, memory, Options{}, nil}}
	var raw, took time.Duration
	simulate(t, lines, func(ctx context.Context, nodes []simulated) {
		raw = rawCopy(ctx, t, nodes[0].h, nodes[1].h, size)
	})
	simulate(t, lines, func(ctx context.Context, nodes []simulated) {
		begun := time.Now()
		if err := nodes[1].p.Fetch(ctx, root, FetchOptions{}); err != nil {
			t.Error(err)
		}
		took = time.Since(begun)
		if d := nodes[1].p.Stats().DuplicateBytes; d != 0 {
			t.Errorf("%d bytes came twice", d)
		}
	})
	share := raw.Seconds() / took.Seconds()
	t.Logf("%v, raw copy %v: %.0f %% of it, %.0f %% of the line", took, raw, 100*share, 100*float64(size)*8/100e6/took.Seconds())
	if share < 0.9 {
		t.Errorf("%v for %d MiB at 100 Mbit/s, a raw copy takes %v", took, size/mib, raw)
	}
}

// Four peers on lines of very different speed give what their lines can.
func TestUnequalLines(t *testing.T) {
	const size = 64 * mib
	bs, root, _ := dagOf(t, 2, size)
	lines := []line{
		{100, 100, same(bs), Options{}, nil},
		{100, 20, same(bs), Options{}, nil},
		{100, 20, same(bs), Options{}, nil},
		{100, 5, same(bs), Options{}, nil},
		{400, 100, memory, Options{}, nil},
	}
	simulate(t, lines, func(ctx context.Context, nodes []simulated) {
		begun := time.Now()
		if err := nodes[4].p.Fetch(ctx, root, FetchOptions{}); err != nil {
			t.Error(err)
		}
		took := time.Since(begun)
		ideal := size * 8 / 145e6
		t.Logf("%v, ideal %.1f s, %+v", took, ideal, nodes[4].p.Stats())
		if took.Seconds() > 1.5*ideal {
			t.Errorf("it took %v, at full lines %.1f s", took, ideal)
		}
		if d := nodes[4].p.Stats().DuplicateBytes; d > size/10 {
			t.Errorf("%d bytes came twice", d)
		}
	})
}

// Four peers fetch from one at the same time, and give each other what they
// have: the one sends little more than one copy.
func TestFetchersHelpEachOther(t *testing.T) {
	const size = 64 * mib
	bs, root, _ := dagOf(t, 3, size)
	lines := []line{{100, 50, same(bs), Options{}, nil}}
	for range 4 {
		lines = append(lines, line{200, 50, memory, Options{}, nil})
	}
	simulate(t, lines, func(ctx context.Context, nodes []simulated) {
		begun := time.Now()
		var wg sync.WaitGroup
		for _, n := range nodes[1:] {
			wg.Go(func() {
				if err := n.p.Fetch(ctx, root, FetchOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		took := time.Since(begun)
		copies := float64(nodes[0].p.Stats().SentBytes) / size
		var twice uint64
		for _, n := range nodes[1:] {
			twice += n.p.Stats().DuplicateBytes
		}
		alone := 4 * size * 8 / 50e6
		t.Logf("%v (from the seed alone %.0f s), the seed sent %.2f copies, %.2f copies came twice", took, alone, copies, float64(twice)/size)
		if copies > 1.5 {
			t.Errorf("the seed sent %.2f copies to four", copies)
		}
		if took.Seconds() > alone/2 {
			t.Errorf("it took %v, from the seed alone it would be %.0f s", took, alone)
		}
	})
}

// A peer says that it has everything, and stops to give anything.
func TestStalledPeerIsOvertaken(t *testing.T) {
	const size = 16 * mib
	bs, root, _ := dagOf(t, 4, size)
	var never chan struct{}
	stalls := func() blockstore.Blockstore {
		never = make(chan struct{}) // one from outside would stop the virtual time
		return altered{Blockstore: bs, Alter: func(_ context.Context, c cid.Cid, b blocks.Block) (blocks.Block, error) {
			if c.Prefix().Codec == cid.Raw {
				<-never
			}
			return b, nil
		}}
	}
	lines := []line{{100, 100, stalls, Options{}, nil}, {100, 50, same(bs), Options{}, nil}, {100, 50, memory, Options{}, nil}}
	simulate(t, lines, func(ctx context.Context, nodes []simulated) {
		begun := time.Now()
		if err := nodes[2].p.Fetch(ctx, root, FetchOptions{}); err != nil {
			t.Error(err)
		}
		alone := size * 8 / 50e6
		t.Logf("%v, from the other alone %.1f s", time.Since(begun), alone)
		if d := time.Since(begun).Seconds(); d > alone+stallTime.Seconds()+1 {
			t.Errorf("it took %.1f s", d)
		}
		close(never)
	})
}

// The limit bounds what is sent, and nobody is taken for stalled or slow
// because of it.
func TestLimit(t *testing.T) {
	const size = 8 * mib
	bs, root, _ := dagOf(t, 5, size)
	var meter *traffic.Meter
	limited := func() blockstore.Blockstore {
		var err error
		if meter, err = traffic.New(traffic.Options{Limits: traffic.Limits{UpMbit: 0.5}}); err != nil { // one from outside would stop the virtual time
			t.Fatal(err)
		}
		return bs
	}
	lines := []line{{100, 100, limited, Options{}, nil}, {100, 100, memory, Options{}, nil}}
	lines[0].meter = func() *traffic.Meter { return meter }
	simulate(t, lines, func(ctx context.Context, nodes []simulated) {
		begun := time.Now()
		if err := nodes[1].p.Fetch(ctx, root, FetchOptions{}); err != nil {
			t.Error(err)
		}
		took := time.Since(begun)
		t.Logf("%v", took)
		if want := size * 8 / 0.5e6; took.Seconds() < 0.97*want || took.Seconds() > want+10 {
			t.Errorf("8 MiB at 0.5 Mbit/s took %v, want %.0f s", took, want)
		}
		if s := nodes[0].p.Stats().SentBytes; s > size+mib/2 {
			t.Errorf("%d bytes were sent", s)
		}
	})
}

// Two askers share what a peer gives, though one of them asks on twice the
// streams.
func TestShares(t *testing.T) {
	const size = 16 * mib
	bs, root, _ := dagOf(t, 6, size)
	lines := []line{{100, 20, same(bs), Options{}, nil}, {100, 100, memory, Options{}, nil}, {100, 100, memory, Options{}, nil}}
	simulate(t, lines, func(ctx context.Context, nodes []simulated) {
		c, err := bs.Get(ctx, root)
		if err != nil {
			t.Fatal(err)
		}
		links, err := shard.Links(c)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var greedy atomic.Int64
		var streams []network.Stream
		for range maxBlockStreams {
			s, err := nodes[1].h.NewStream(ctx, nodes[0].h.ID(), Protocol)
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
			ask := []byte{streamBlocks}
			for range maxWindow {
				ask = appendRequest(ask, links[0].CID)
			}
			if _, err := s.Write(ask); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				b := make([]byte, 64<<10)
				for {
					n, err := s.Read(b)
					greedy.Add(int64(n))
					if err != nil {
						return
					}
				}
			})
		}
		time.Sleep(5 * time.Second)
		before := greedy.Load()
		if err := nodes[2].p.Fetch(ctx, root, FetchOptions{Providers: []peer.ID{nodes[0].h.ID()}}); err != nil {
			t.Error(err)
		}
		got := greedy.Load() - before
		t.Logf("the greedy one got %.2f times as much", float64(got)/size)
		if got > 2*size {
			t.Errorf("the greedy one got %d bytes while the other got %d", got, size)
		}
		for _, s := range streams {
			s.Reset()
		}
		wg.Wait()
	})
}

// fallbackFunc is a Fallback.
type fallbackFunc func(ctx context.Context, root cid.Cid, o FetchOptions) error

func (f fallbackFunc) Fetch(ctx context.Context, root cid.Cid, o FetchOptions) error {
	return f(ctx, root, o)
}

// The one peer gives the inner nodes and then nothing for a while. Meanwhile
// the fallback brings half of the leaves; they are not asked for again.
func TestFallbackBringsAPart(t *testing.T) {
	const size = 32 * mib
	bs, root, total := dagOf(t, 7, size)
	var later chan struct{}
	stalls := func() blockstore.Blockstore {
		later = make(chan struct{}) // one from outside would stop the virtual time
		return altered{Blockstore: bs, Alter: func(_ context.Context, c cid.Cid, b blocks.Block) (blocks.Block, error) {
			if c.Prefix().Codec == cid.Raw {
				<-later
			}
			return b, nil
		}}
	}
	dst := memory()
	half := fallbackFunc(func(ctx context.Context, _ cid.Cid, _ FetchOptions) error {
		n := 0
		copySome(t, dst, bs, func(cid.Cid) bool {
			n++
			return n%2 == 0
		})
		close(later)
		<-ctx.Done()
		return ctx.Err()
	})
	simulate(t, []line{{100, 100, stalls, Options{}, nil}, {100, 100, same(dst), Options{Fallback: half}, nil}}, func(ctx context.Context, nodes []simulated) {
		begun := time.Now()
		w := &watcher{T: t}
		if err := nodes[1].p.Fetch(ctx, root, FetchOptions{Progress: w.Progress}); err != nil {
			t.Error(err)
		}
		s := nodes[1].p.Stats()
		t.Logf("%v, %+v", time.Since(begun), s)
		if d := time.Since(begun); d < patience || d > patience+5*time.Second {
			t.Errorf("it took %v; the fallback should have begun after %v", d, patience)
		}
		if s.PulledBytes > size/2+(firstWindow+1)*mib {
			t.Errorf("pulled %d bytes of %d, half of which the fallback brought", s.PulledBytes, size)
		}
		if w.Done != total {
			t.Errorf("progress ended at %d of %d", w.Done, total)
		}
	})
}
