package runner

import (
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/run"
)

// A node without a seat has the state of each round by differences, the same
// bytes as the seat.
func TestFollowerByDifferences(t *testing.T) {
	t.Parallel()
	a := newNode(t, 61)
	b := newNode(t, 62, a.addr())
	man := launch(t, a, func(m *run.Manifest) { m.Seats, m.MaxRounds = 1, 8 })
	rb, _ := b.takePart(t, man)
	ra, _ := a.takePart(t, man)
	sameEnd(t, ra, rb)
	head := ra.ledger.Head()
	until(t, "state of the last round", func() bool { return rb.states.cached(head.Record.State) != nil })
	rb.differences.mu.Lock()
	defer rb.differences.mu.Unlock()
	if len(rb.differences.list) == 0 {
		t.Error("no round was followed by its difference")
	}
	for _, d := range rb.differences.list {
		if _, ok := ra.ledger.Link(d.record); !ok {
			t.Errorf("a difference of record %s, which the run has not", d.record)
		}
	}
	// What is not known is no difference.
	if id, err := ra.difference(t.Context(), cid.MustParse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")); err != nil || id.Defined() {
		t.Errorf("the difference of an unknown record is %v, %v", id, err)
	}
}
