package pull

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
)

// peeked is a stream whose first byte was read.
type peeked struct {
	network.Stream
	first []byte
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Stream.Read(b)
}

// watchParts counts the streams for parts that a puller is asked for, and has them
// handled by another than the puller if one is given.
func watchParts(h host.Host, p *Puller, instead func(network.Stream)) *atomic.Int32 {
	count := new(atomic.Int32)
	h.SetStreamHandler(Protocol, func(s network.Stream) {
		b := make([]byte, 1)
		if _, err := io.ReadFull(s, b); err != nil {
			s.Reset()
			return
		}
		if b[0] == streamParts {
			count.Add(1)
			if instead != nil {
				instead(s)
				return
			}
		}
		p.handle(&peeked{s, b})
	})
	return count
}

// Peers on slow lines are asked for parts, and for whole blocks if they know no
// parts, as an older one does.
func TestSlowLines(t *testing.T) {
	const size = 12 * mib
	bs, root, _ := dagOf(t, 40, size)
	fetch := func(instead func(network.Stream)) (took time.Duration, parts int32) {
		lines := []line{
			{100, 8, same(bs), Options{}, nil},
			{100, 2, same(bs), Options{}, nil},
			{100, 2, same(bs), Options{}, nil},
			{100, 1, same(bs), Options{}, nil},
			{400, 100, memory, Options{}, nil},
		}
		simulate(t, lines, func(ctx context.Context, nodes []simulated) {
			var counts []*atomic.Int32
			for _, n := range nodes[:4] {
				counts = append(counts, watchParts(n.h, n.p, instead))
			}
			begun := time.Now()
			if err := nodes[4].p.Fetch(ctx, root, FetchOptions{}); err != nil {
				t.Error(err)
			}
			took = time.Since(begun)
			for _, c := range counts {
				parts += c.Load()
			}
			t.Logf("%v, %d streams for parts, %+v", took, parts, nodes[4].p.Stats())
			if got := nodes[4].bans.list(); len(got) > 0 {
				t.Errorf("banned %v", got)
			}
			if left := nodes[4].p.begun.Load(); left != 0 || !nodes[4].p.buffers.left.TryAcquire(maxBuffered) {
				t.Errorf("%d blocks are begun, or memory was not given back", left)
			}
			wantAll(t, nodes[4].bs, bs)
		})
		return took, parts
	}
	refuse := func(s network.Stream) { s.Reset() }
	with, parts := fetch(nil)
	without, asked := fetch(refuse)
	if parts == 0 || asked == 0 {
		t.Errorf("%d and %d streams for parts", parts, asked)
	}
	ideal := size * 8 / 13e6
	t.Logf("with parts %v, without %v, at full lines %.1f s", with, without, ideal)
	if with > without {
		t.Errorf("it took %v with parts, %v without", with, without)
	}
}

// Two give parts of one block, and one of them lies. The right block shows which.
func TestPartsOfALiar(t *testing.T) {
	for name, to := range map[string]func() blockstore.Blockstore{
		"memory": memory,
		"disk":   func() blockstore.Blockstore { return openShard(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			bs, root, _ := dagOf(t, 41, 6*mib)
			lines := []line{{100, 8, same(bs), Options{}, nil}, {100, 6, same(bs), Options{}, nil}, {400, 100, to, Options{}, nil}}
			simulate(t, lines, func(ctx context.Context, nodes []simulated) {
				good, bad, n := nodes[0], nodes[1], nodes[2]
				gave := watchParts(good.h, good.p, nil)
				lied := watchParts(bad.h, bad.p, func(s network.Stream) {
					bad.p.handle(&peeked{&flipping{Stream: s}, []byte{streamParts}})
				})
				if err := n.p.Fetch(ctx, root, FetchOptions{}); err != nil {
					t.Error(err)
				}
				wantAll(t, n.bs, bs)
				n.p.mu.Lock()
				struckGood, struckBad := n.p.struck[good.h.ID()], n.p.struck[bad.h.ID()]
				n.p.mu.Unlock()
				if struckGood || !struckBad || gave.Load() == 0 || lied.Load() == 0 {
					t.Errorf("the good one is suspected: %v, the liar: %v; streams for parts %d and %d", struckGood, struckBad, gave.Load(), lied.Load())
				}
				for _, p := range n.bans.list() {
					if p != bad.h.ID() {
						t.Errorf("banned %s", p)
					}
				}
				if left := n.p.begun.Load(); left != 0 || !n.p.buffers.left.TryAcquire(maxBuffered) {
					t.Errorf("%d blocks are begun, or memory was not given back", left)
				}
			})
		})
	}
}

// flipping changes a byte of what is written in pieces of some size.
type flipping struct{ network.Stream }

func (f *flipping) Write(b []byte) (int, error) {
	if len(b) > 1000 {
		b = append([]byte(nil), b...)
		b[len(b)/2] ^= 1
	}
	return f.Stream.Write(b)
}
