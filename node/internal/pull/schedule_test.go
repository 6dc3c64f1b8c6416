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
	f := newFetch(&Puller{}, leaf(nil).Cid(), FetchOptions{})
	f.dag = &dag{}
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
		rate float64
		want int
	}{{0, firstWindow}, {1, minWindow}, {8 * mib, 6}, {1 << 40, maxWindow}} {
		f, ss := asked(200, 1)
		ss[0].rate = tt.rate
		n := 0
		for f.next(ss[0], now) != nil {
			n++
		}
		if n != tt.want {
			t.Errorf("at %.0f bytes per second %d blocks are asked for, want %d", tt.rate, n, tt.want)
		}
	}
}
