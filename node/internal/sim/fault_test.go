package sim

import (
	"context"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
)

// small is a world of quick peers on which a round trains.
func small(t *testing.T, seed uint64, peers int, net network, change func(w *world)) *world {
	t.Helper()
	tr := &trial{ctx: t.Context(), Options: Options{Seed: seed}}
	w, err := tr.quickWorld(peers, net)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(w)
	}
	w.start(w.nodes...)
	play(t, w, 2*time.Hour, func() bool {
		h := w.nodes[0].chain.Head().Record
		return len(h.NextSeats) == peers && h.TrainedRounds >= 1
	})
	return w
}

func play(t *testing.T, w *world, within time.Duration, done func() bool) {
	t.Helper()
	ok, err := w.runUntil(within, done)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		t.Fatalf("not done after %v: rounds %d to %d", within, w.lowest(), w.highest())
	}
}

// TestFaults: what a liar publishes is refused for the reason that the protocol
// has for it, and the chain can be computed again.
func TestFaults(t *testing.T) {
	for fault, want := range map[Fault]msg.Reason{garbage: msg.BadRange, stale: msg.Replayed} {
		t.Run(fault.String(), func(t *testing.T) {
			w := small(t, 1, 7, wide(), func(w *world) { w.nodes[3].fault = fault })
			n := w.nodes[0]
			from := roundOf(n)
			play(t, w, 2*time.Hour, func() bool { return w.lowest() >= from+3 })
			refused := 0
			for r := from + 1; r <= from+3; r++ {
				l, _ := n.chain.Record(r)
				for _, c := range l.Record.Refused {
					if l.Record.Seats[c.Seat].Peer == w.nodes[3].id && c.Reason == want {
						refused++
					}
				}
			}
			if refused < 2 {
				t.Errorf("%d of 3 deltas were refused as %v", refused, want)
			}
			if err := w.replay(n); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCut: across a cut nothing arrives, and afterwards all have one head.
func TestCut(t *testing.T) {
	w := small(t, 1, 6, wide(), nil)
	play(t, w, time.Hour, w.oneHead)
	w.cut = func(a, b *node) bool { return (a.i < 2) != (b.i < 2) }
	from := w.highest()
	if err := w.runFor(time.Hour); err != nil {
		t.Fatal(err)
	}
	a, _ := w.nodes[0].chain.Record(from + 2)
	b, _ := w.nodes[5].chain.Record(from + 2)
	if a.Record == nil || b.Record == nil || a.ID.Equals(b.ID) {
		t.Fatalf("both sides of the cut have one record of round %d", from+2)
	}
	w.cut = nil
	play(t, w, time.Hour, w.oneHead)
}

// TestLosses: without neighbours that pass on, a loss is one; and bytes are
// counted on both sides.
func TestLosses(t *testing.T) {
	w := small(t, 1, 4, network{minDelay: time.Millisecond, maxDelay: 2 * time.Millisecond}, nil)
	sent, got := uint64(0), uint64(0)
	w.net.loss = 1
	before := make([]traffic, len(w.nodes))
	if err := w.runFor(time.Second); err != nil { // what is on its way
		t.Fatal(err)
	}
	for i, n := range w.nodes {
		before[i] = n.traffic
	}
	if err := w.runFor(time.Minute); err != nil {
		t.Fatal(err)
	}
	for i, n := range w.nodes {
		d := n.traffic.minus(before[i])
		sent += d.controlUp
		got += d.controlDown
	}
	if sent == 0 || got != 0 {
		t.Errorf("%d bytes were sent and %d received, want some and none", sent, got)
	}
}

// TestClock: a node's deadline comes when its own clock shows it.
func TestClock(t *testing.T) {
	n := &node{w: &world{now: time.Hour}, skew: -10 * time.Minute, drift: -200e-6}
	at := n.clock().Add(time.Minute)
	n.w.now += n.until(at)
	if d := n.clock().Sub(at); d < 0 || d > time.Microsecond {
		t.Errorf("the clock is %v past the deadline", d)
	}
}

// contrary is a task that one node learns the wrong way round.
type contrary struct{ *quickTask }

func (t contrary) train(ctx context.Context, a assignment) (learned, error) {
	l, err := t.quickTask.train(ctx, a)
	if a.node == 7 {
		l.values = scaled(l.values, -1)
	}
	return l, err
}

// TestFirstDeltas: in the first round in which all train, whose parent had one
// seat, deltas that are alike are no copies because another points elsewhere.
func TestFirstDeltas(t *testing.T) {
	for seed := range uint64(8) {
		w := small(t, seed, 8, wide(), func(w *world) { w.task = contrary{w.task.(*quickTask)} })
		if s := w.tally(w.nodes[0], 0, roundOf(w.nodes[0])); s.takenForCopies > 0 || s.included < 8 {
			t.Errorf("seed %d: of %d deltas %d were taken for copies", seed, s.included+s.excluded, s.takenForCopies)
		}
	}
}
