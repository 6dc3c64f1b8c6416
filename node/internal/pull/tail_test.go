package pull

import (
	"testing"
	"time"
)

// At the end a source gets no more than it can give before the others have given
// all the rest: not all of a block, and then no part of one.
func TestTail(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, tt := range []struct {
		name         string
		slow, fast   float64 // bytes per second
		leaves       int
		part, refuse bool
	}{
		{"much is left", 2e6, 12e6, maxTail, false, false},
		{"less than it takes for a block", 2e6, 12e6, 4, true, false},
		{"less than it takes for a part", 2e6, 12e6, 1, false, true},
		{"equals", 2e6, 2e6, 2, false, false},
		{"the other is not known", 2e6, 0, 1, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, ss := asked(tt.leaves, 2)
			for i, rate := range []float64{tt.slow, tt.fast} {
				ss[i].rate, ss[i].delay[0] = rate, time.Second
			}
			r := f.next(ss[0], now)
			if (r == nil) != tt.refuse {
				t.Fatalf("next() = %+v", r)
			}
			if r != nil && (r.part.n > 0) != tt.part {
				t.Errorf("it is asked for %v", r.part)
			}
			if r == nil && f.next(ss[1], now) == nil {
				t.Error("nor is the other one asked")
			}
		})
	}
}

// Whom nobody can help is asked, however slow it is; so is who was refused, when
// the other leaves or stalls.
func TestTailAlone(t *testing.T) {
	now := time.Unix(1e9, 0)
	t.Run("fetches itself", func(t *testing.T) {
		f, ss := asked(1, 2)
		ss[0].rate, ss[1].rate = 2e6, 200e6
		ss[0].had = false
		if f.next(ss[0], now) == nil {
			t.Error("it is not asked for what it has")
		}
	})
	for name, hinder := range map[string]func(*fetch, *source){
		"has it not": func(_ *fetch, s *source) { s.has.clear(0) },
		"left":       func(f *fetch, s *source) { f.leave(s) },
		"stalls":     func(_ *fetch, s *source) { s.stall = true },
		"is busy":    func(_ *fetch, s *source) { s.paused = now.Add(busyTime) },
	} {
		t.Run(name, func(t *testing.T) {
			f, ss := asked(1, 2)
			ss[0].rate, ss[1].rate = 2e6, 200e6
			if r := f.next(ss[0], now); r != nil {
				t.Fatalf("the slow one is asked for %+v", r)
			}
			hinder(f, ss[1])
			if f.next(ss[0], now) == nil {
				t.Error("nobody is asked")
			}
		})
	}
}

// However many would have given the last leaf together before one of them gives
// anything of it, one is asked.
func TestTailOfEquals(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, tt := range []struct {
		sources int
		size    int64
	}{{6, mib}, {3, 200 << 10}, {24, mib}} {
		f, ss := asked(1, tt.sources)
		f.leaves[0].size = tt.size
		for _, s := range ss {
			s.rate, s.delay[0] = 2e6, time.Second
		}
		requests := 0
		for _, s := range ss {
			if f.next(s, now) != nil {
				requests++
			}
		}
		if requests != 1 || len(f.todo) != 0 {
			t.Errorf("of %d sources %d were asked for the last leaf of %d bytes", tt.sources, requests, tt.size)
		}
	}
}

// Nor is one that is near refused for those that are far, which are not asked for
// what it has while it gives enough.
func TestTailNear(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, tt := range []struct {
		name   string
		rate   float64 // of the near one
		refuse bool
	}{
		{"gives enough", 5e6, false},
		{"gives little", 2e6, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, ss := asked(1, 2)
			ss[0].near, f.leaves[0].near = true, 1
			ss[0].rate, ss[1].rate = tt.rate, 200e6
			if r := f.next(ss[0], now); (r == nil) != tt.refuse {
				t.Errorf("the near one is asked for %+v", r)
			}
		})
	}
}
