package sim

import (
	"fmt"
	"math"
	"time"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

func churnScenarios() []Scenario {
	return []Scenario{
		{
			Name: "churn30", Quick: true,
			About: "30 % of 20 seats crash or leave and as many come back every round, 100 rounds",
			run:   churn,
		},
		{
			Name: "partition-60-40", Quick: true,
			About: "the network is cut 12 to 8 for 20 rounds, then heals; a real model is trained",
			run:   func(t *trial) error { return partition(t, 12, 8, 3) },
		},
		{
			Name: "partition-50-50", Quick: true,
			About: "the network is cut 10 to 10 for 20 rounds, then heals; a real model is trained",
			run:   func(t *trial) error { return partition(t, 10, 10, 5) },
		},
	}
}

// churn has a pool of twice as many nodes as are up: who goes comes back later,
// as itself.
func churn(t *trial) error {
	const seats = 20
	rounds := t.long(100, 12)
	quickLoss := func(stir bool) (float64, *world, time.Duration, error) {
		w, err := t.quickWorld(2*seats, wide())
		if err != nil {
			return 0, nil, 0, err
		}
		w.start(w.nodes[:seats]...)
		ready := func() bool { return len(w.nodes[0].chain.Head().Record.NextSeats) == seats }
		if ok, err := w.runUntil(4*time.Hour, ready); err != nil || !ok {
			return 0, nil, 0, cause(err, "not all peers were seated after 4 hours")
		}
		slowest, last := time.Duration(0), w.now
		stirred := w.highest()
		w.seen.onAdopt = func(_ *node, l round.Link) {
			if l.Record.Round <= stirred {
				return
			}
			stirred = l.Record.Round
			slowest, last = max(slowest, w.now-last), w.now
			if stir {
				w.after(time.Duration(w.rnd.Int64N(int64(w.period()/2))), func() { w.stir(seats * 3 / 10) })
			}
		}
		from := stirred
		_, err = w.runUntil(time.Duration(4*rounds)*w.period(), func() bool { return w.highest() >= from+msg.Round(rounds) })
		if err != nil {
			return 0, nil, 0, err
		}
		slowest = max(slowest, w.now-last)
		best := w.nodes[0]
		for _, n := range w.up() {
			if !best.up || roundOf(n) > roundOf(best) {
				best = n
			}
		}
		loss, err := w.lossOf(best.chain.Head().Record.State)
		if err != nil {
			return 0, nil, 0, err
		}
		s := w.tally(best, from, roundOf(best))
		t.figure("rounds", float64(s.rounds))
		t.figure("rounds_certified", float64(s.certified)/float64(max(s.rounds, 1)))
		t.figure("contributions_a_round", float64(s.contributions)/float64(max(s.rounds, 1)))
		return loss, w, slowest, nil
	}
	clean, _, _, err := quickLoss(false)
	if err != nil {
		return err
	}
	loss, w, slowest, err := quickLoss(true)
	if err != nil {
		return err
	}
	t.figure("loss_clean", clean)
	t.figure("loss", loss)
	t.atLeast("rounds", float64(t.figures["rounds"]), float64(rounds))
	t.atMost("slowest_round_periods", slowest.Seconds()/w.period().Seconds(), 2)
	t.meanAtMost("loss_over_clean", loss/clean-1, 0.015)
	untrained, err := w.lossOf(w.genesis.Record.State)
	if err != nil {
		return err
	}
	t.meanAtLeast("loss_reduction_kept", (untrained-loss)/(untrained-clean), 0.95)
	t.safety(w)
	return nil
}

// stir stops some nodes, half of them without a word, and starts as many that
// are down. Node 0 stays, so that the measured chain is that of one node.
func (w *world) stir(n int) {
	stopped, started := 0, 0
	for _, i := range w.rnd.Perm(len(w.nodes)) {
		x := w.nodes[i]
		switch {
		case i == 0:
		case x.up && stopped < n:
			stopped++
			if stopped%2 == 0 {
				x.step(round.Want{Seat: false}) // it says that it goes
				life := x.life
				w.after(time.Minute, func() {
					if x.life == life {
						x.stop()
					}
				})
				continue
			}
			x.stop()
		case !x.up && started < n:
			started++
			w.start(x)
		}
	}
}

// partition cuts the network in two for 20 rounds of the larger part.
func partition(t *trial, large, small int, within float64) error {
	const before = 5 // later, so that the loss does not fall as steeply any more
	cutRounds := t.long(20, 4)
	nodes := large + small
	w, err := t.realWorld(nodes, before+2*cutRounds+20, wide(), tuning{})
	if err != nil {
		return err
	}
	w.start(w.nodes...)
	ready := func() bool {
		h := w.nodes[0].chain.Head().Record
		return len(h.NextSeats) == nodes && h.TrainedRounds >= uint64(before) && w.oneHead()
	}
	if ok, err := w.runUntil(8*time.Hour, ready); err != nil || !ok {
		return cause(err, "not all peers were seated after 8 hours")
	}
	a, b := w.nodes[0], w.nodes[large]
	fork := roundOf(a)
	w.cut = func(x, y *node) bool { return (x.i < large) != (y.i < large) }
	target := w.highest() + msg.Round(cutRounds)
	if ok, err := w.runUntil(time.Duration(4*cutRounds)*w.period(), func() bool { return roundOf(a) >= target }); err != nil || !ok {
		return cause(err, "the larger part made only %d of %d rounds", roundOf(a)-fork, cutRounds)
	}
	healed := w.now
	left, right := a.chain.Head(), b.chain.Head()
	lossA, err := w.lossOf(left.Record.State)
	if err != nil {
		return err
	}
	lossB, err := w.lossOf(right.Record.State)
	if err != nil {
		return err
	}
	t.say("after the cut: round %d, loss %.4f; round %d, loss %.4f", left.Record.Round, lossA, right.Record.Round, lossB)
	w.cut = nil
	if _, err := w.runUntil(20*w.period(), w.oneHead); err != nil {
		return err
	}
	together := w.now - healed
	// The rounds that those made who did not have to change.
	rounds := float64(w.highest()) - float64(max(left.Record.Round, right.Record.Round))
	if !w.oneHead() {
		rounds = math.Inf(1)
	}
	merged := func() bool { return w.tally(a, fork, roundOf(a)).merged > 0 }
	if _, err := w.runUntil(10*w.period(), merged); err != nil {
		return err
	}
	s := w.tally(a, fork, roundOf(a))
	best := min(lossA, lossB)
	after, err := w.lossOf(a.chain.Head().Record.State)
	if err != nil {
		return err
	}
	for r := fork + 1; r <= roundOf(a); r++ {
		l, _ := a.chain.Record(r)
		if l.Record.Merge == nil {
			continue
		}
		parent, _ := a.chain.Record(r - 1)
		x, err := w.lossOf(parent.Record.State)
		if err != nil {
			return err
		}
		y, err := w.lossOf(l.Record.State)
		if err != nil {
			return err
		}
		t.figure("loss_before_merge", x)
		t.figure("loss_after_merge", y)
		t.figure("merged_after_rounds", float64(r)-float64(max(left.Record.Round, right.Record.Round)))
	}
	lost := right
	if _, ok := a.chain.Link(right.ID); ok {
		lost = left
	}
	forked, _ := a.chain.Record(fork)
	branch := float64(lost.Record.Tokens - forked.Record.Tokens)
	t.figure("loss_larger_part", lossA)
	t.figure("loss_smaller_part", lossB)
	t.figure("loss_merged", after)
	t.atMost("one_head_after_rounds", rounds, within)
	t.figure("one_head_after_periods", together.Seconds()/w.period().Seconds())
	t.meanAtMost("merged_over_best", after/best-1, 0.005)
	untrained, err := w.lossOf(w.genesis.Record.State)
	if err != nil {
		return err
	}
	t.meanAtLeast("loss_reduction_kept", (untrained-after)/(untrained-best), 0.95)
	t.figure("tokens_of_lost_branch", branch)
	t.atLeast("tokens_credited", float64(s.mergedTokens)/max(branch, 1), 1)
	t.figure("merges_measured", float64(w.seen.gatesPassed+w.seen.gatesFailed))
	t.figure("merges_that_passed", float64(w.seen.gatesPassed))
	if s.merged == 0 {
		t.because("no merge was recorded within 10 periods after the network healed; %d of %d measured ones passed the gate", w.seen.gatesPassed, w.seen.gatesPassed+w.seen.gatesFailed)
		if l := w.seen.gateLosses; l[0] > 0 {
			t.because("the last that did not had a loss of %.4f, from %.4f and %.4f", l[2], l[0], l[1])
		}
	}
	curve := func(n *node) []Point {
		l, err := w.learned(n, max(cutRounds/4, 1))
		if err != nil {
			return nil
		}
		return l.curve
	}
	t.charts = append(t.charts, Chart{
		Name: "loss", Title: fmt.Sprintf("network cut %d to %d for %d rounds", large, small, cutRounds),
		X: "trained rounds", Y: "held-out loss", Lines: []Line{{"chain that stayed", curve(a)}},
	})
	t.safety(w)
	return nil
}
