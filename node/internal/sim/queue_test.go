package sim

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestQueue: events come in the order of their times, and those of one time in
// the order in which they were put in.
func TestQueue(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var q queue
	var last event
	for i := range 20000 {
		if rnd.IntN(3) > 0 || len(q.heap) == 0 {
			q.push(last.at+time.Duration(rnd.IntN(50)), func() {})
			continue
		}
		e := q.pop()
		if i > 0 && e.before(&last) {
			t.Fatalf("event %d of %v comes after %d of %v", e.seq, e.at, last.seq, last.at)
		}
		last = e
	}
}
