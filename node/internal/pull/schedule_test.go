package pull

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// asked is a fetch of n leaves with sources that have them all; nothing was
// asked for yet.
func asked(n, sources int) (*fetch, []*source) {
	f := newFetch(&Puller{host: nil}, leaf(nil).Cid(), FetchOptions{})
	f.dag, f.scanned = &dag{}, true
	for i := range n {
		q := &piece{leaf: i, size: mib, todo: -1}
		f.leaves = append(f.leaves, q)
		f.addTodo(q)
	}
	var ss []*source
	for i := range sources {
		s := newSource(peer.ID(fmt.Sprint(i)))
		f.sources[s.id] = s
		have := newBitset(n)
		for j := range n {
			have.set(j)
		}
		f.learn(s, have)
		ss = append(ss, s)
	}
	return f, ss
}

// What fewest have, and then what fewest have asked for, comes first.
func TestRarestFirst(t *testing.T) {
	for range 50 {
		f, ss := asked(4, 1)
		f.leaves[0].holder, f.leaves[1].holder, f.leaves[2].holder, f.leaves[3].holder = 3, 2, 2, 4
		f.leaves[1].askers = 1
		ss[0].rate, ss[0].delay[0] = 100e6, time.Second
		for i, want := range []int{2, 1, 0, 3} {
			r := f.next(ss[0], time.Unix(1e9, 0))
			if r == nil || r.piece.leaf != want {
				t.Fatalf("request %d is %+v, want leaf %d", i, r, want)
			}
		}
	}
}

// Nobody knows yet how fast the second is; what the first holds up is asked
// from it all the same, and what comes from the first after all is taken.
func TestOvertake(t *testing.T) {
	now := time.Unix(1e9, 0)
	f, ss := asked(3, 2)
	for _, s := range ss {
		s.near = true // and so asked for whole blocks
	}
	var rs []*request
	for range 3 {
		rs = append(rs, f.next(ss[0], now))
	}
	if r := f.next(ss[1], now.Add(stallTime/2)); r != nil {
		t.Fatalf("asked twice after %v", stallTime/2)
	}
	now = now.Add(stallTime)
	f.overtake(now)
	if r := f.next(ss[0], now); r != nil {
		t.Error("the one that stalls was asked for more")
	}
	for range 3 {
		if r := f.next(ss[1], now); r == nil {
			t.Fatal("the other was not asked")
		}
	}
	if r := f.next(ss[1], now); r != nil {
		t.Error("a fourth of three leaves was asked for")
	}
	if !f.claim(rs[0].piece) || f.claim(rs[0].piece) {
		t.Error("a late answer was not taken once")
	}
	f.finished(rs[0])
	f.leave(ss[1])
	f.leave(ss[0])
	if len(f.todo) != 2 {
		t.Errorf("%d leaves are to do when all have left, want 2", len(f.todo))
	}
	for _, q := range f.leaves {
		if q.holder != 0 || q.copies != 0 {
			t.Errorf("leaf %d: %d holders, %d requests", q.leaf, q.holder, q.copies)
		}
	}
}

func TestWindow(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, tt := range []struct {
		rate  float64
		delay time.Duration
		want  int
	}{
		{0, 0, firstWindow},
		{1, time.Second, 2},                    // parts; the third when the first has come
		{100e6 / 8, 100 * time.Millisecond, 3}, // 12.5 MB/s for 0.21 s
		{1e9 / 8, 20 * time.Millisecond, 6},    // 125 MB/s for 0.05 s
		{1 << 40, time.Millisecond, maxWindow},
	} {
		f, ss := asked(200, 1)
		ss[0].rate, ss[0].delay = tt.rate, [2]time.Duration{0, tt.delay}
		n := 0
		for f.next(ss[0], now) != nil {
			n++
		}
		if n != tt.want {
			t.Errorf("at %.0f bytes per second and %v %d blocks are asked for, want %d", tt.rate, tt.delay, n, tt.want)
		}
	}
}

// Peers on slow lines share the parts of a block; a fast one gets what is left of
// it in one piece, and one that knows no parts gets another block.
func TestParts(t *testing.T) {
	now := time.Unix(1e9, 0)
	f, ss := asked(2, 4)
	f.leaves[0].size, f.leaves[1].size = mib-100, mib-100
	for i, rate := range []float64{1e6, 1e6, 2e6, 2e6} {
		ss[i].rate, ss[i].delay[0] = rate, time.Second
	}
	ss[3].whole = true
	a, b, rest := f.next(ss[0], now), f.next(ss[1], now), f.next(ss[2], now)
	if a.piece != b.piece || a.part != (span{0, partBytes}) || b.part != (span{partBytes, partBytes}) {
		t.Errorf("the slow ones are asked for %v of leaf %d and %v of leaf %d", a.part, a.piece.leaf, b.part, b.piece.leaf)
	}
	if rest.piece != a.piece || rest.part != (span{2 * partBytes, mib - 100 - 2*partBytes}) {
		t.Errorf("the fast one is asked for %v of leaf %d", rest.part, rest.piece.leaf)
	}
	if r := f.next(ss[3], now); r == nil || r.piece == a.piece || r.part != (span{}) {
		t.Errorf("the old one is asked for %+v", r)
	}
	if len(f.todo) != 0 {
		t.Errorf("%d leaves are to do", len(f.todo))
	}
	// What a peer did not give after all is asked from others.
	f.finished(b)
	if r := f.next(ss[2], now); r == nil || r.part != b.part {
		t.Errorf("after one left, %+v is asked for", r)
	}
}

// The delay of a line is the shortest of the last periods, not of all times.
func TestDelayIsForgotten(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newSource("p")
	s.answered(&request{at: now.Add(-10 * time.Millisecond)}, now)
	for range 3 {
		now = now.Add(delayTime + time.Second)
		s.answered(&request{at: now.Add(-200 * time.Millisecond)}, now)
		s.answered(&request{at: now.Add(-100 * time.Millisecond)}, now)
	}
	if want := [2]time.Duration{100 * time.Millisecond, 100 * time.Millisecond}; s.delay != want {
		t.Errorf("delay is %v, want %v", s.delay, want)
	}
}

// A peer on the LAN that gives enough is asked alone for what it has; what it
// lacks, and all when it becomes slow, is asked from the other too.
func TestNearFirst(t *testing.T) {
	now := time.Now()
	f, ss := asked(8, 0)
	for i, near := range []bool{true, false} {
		s := newSource(peer.ID(fmt.Sprint(i)))
		s.near = near
		f.enter(s)
		have := newBitset(8)
		for j := range 8 {
			if !near || j < 4 {
				have.set(j)
			}
		}
		f.learn(s, have)
		ss = append(ss, s)
	}
	near, far := ss[0], ss[1]
	far.rate, far.delay[0] = 100e6, time.Second
	for range 4 {
		if r := f.next(far, now); r == nil || r.piece.leaf < 4 {
			t.Fatalf("the far one was asked for %+v, which the near one has", r)
		}
	}
	if r := f.next(far, now); r != nil {
		t.Fatalf("the far one was asked for leaf %d, which the near one has", r.piece.leaf)
	}
	near.rate = nearEnough / 2
	if r := f.next(far, now); r == nil {
		t.Error("a slow LAN keeps the line idle")
	}
	near.rate = nearEnough
	if r := f.next(near, now); r == nil || r.piece.leaf >= 4 {
		t.Errorf("the near one was asked for %+v", r)
	}
}
