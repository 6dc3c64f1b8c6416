package sim

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/kappa"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/runner"
)

// compareRound measures kappa, as the daemon does.
func (n *node) compareRound(e round.Compare) {
	lacking := len(e.Items) + 1
	here := func() {
		if lacking--; lacking > 0 {
			return
		}
		k, err := n.w.kappaOf(e)
		if err != nil {
			n.w.fail(fmt.Errorf("node %d compares round %d: %w", n.i, e.Round-1, err))
			return
		}
		n.later(auditTime, round.Compared{Record: e.Record, KappaPPM: runner.KappaPPM(k)})
	}
	wanted := n.during(e.Round)
	n.fetch(e.State, wanted, here)
	for _, item := range e.Items {
		n.fetch(item.Delta, wanted, here)
	}
}

// kappaOf is that of a round; all honest nodes come to the same.
func (w *world) kappaOf(e round.Compare) (float64, error) {
	if k, ok := w.kappas[e.Record]; ok {
		return k, nil
	}
	var moves []kappa.Move
	for _, item := range e.Items {
		d, err := w.contents.decoded(item.Delta)
		if err != nil {
			return 0, err
		}
		moves = append(moves, kappa.Move{Delta: d, Weight: item.Weight, ClipQ16: item.ClipQ16})
	}
	k, err := kappa.Of(w.layout, w.contents.stateOf(e.State).Theta, moves, seedOf(e.Record))
	if err == nil {
		w.kappas[e.Record] = k
	}
	return k, err
}

// seedOf is a number that a record draws.
func seedOf(record cid.Cid) uint64 {
	b := record.Bytes()
	return binary.LittleEndian.Uint64(b[len(b)-8:])
}

func tempoScenarios() []Scenario {
	return []Scenario{{
		Name:  "steps",
		About: "eight peers take as many tokens in rounds of 5 to 120 steps, and in rounds that begin with 120 and are steered by kappa; a real model is trained",
		run:   steps,
	}}
}

// steps compares rounds of different lengths at equal tokens.
func steps(t *trial) error {
	const peers, long = 8, 120
	s, err := t.Lab.subject(t.ctx, t.demo)
	if err != nil {
		return err
	}
	usual, err := t.faultless(peers, t.long(100, 40), tuning{})
	if err != nil {
		return err
	}
	t.figure("tokens", float64(usual.tokens))
	t.figure("loss_before", usual.before)
	var losses, kappas []float64
	best := math.Inf(1)
	var loss120 float64
	for _, h := range []uint32{5, s.steps, 30, 60, long} {
		l, err := t.faultless(peers, 1e6, tuning{steps: stepping{h, h, h, usual.tokens}})
		if err != nil {
			return err
		}
		t.figure(fmt.Sprintf("loss_%d_steps", h), l.after)
		t.figure(fmt.Sprintf("kappa_%d_steps", h), l.kappa)
		t.say("%d steps: loss %.4f, kappa %.3f", h, l.after, l.kappa)
		losses, kappas = append(losses, l.after), append(kappas, l.kappa)
		best, loss120 = min(best, l.after), l.after
	}
	steered, err := t.faultless(peers, 1e6, tuning{steps: stepping{5, long, long, usual.tokens}})
	if err != nil {
		return err
	}
	t.figure("loss_steered", steered.after)
	t.figure("kappa_steered", steered.kappa)
	t.figure("steps_at_the_end", steered.steps)
	t.say("steered: loss %.4f, kappa %.3f, at last %v steps", steered.after, steered.kappa, steered.steps)
	t.figure("gap_of_long_rounds", loss120/best-1)
	t.meanAtMost("gap_of_steered_rounds", steered.after/best-1, 0.005)
	t.meanAtLeast("rank_correlation", rankCorrelation(kappas, losses), 0.8)
	return nil
}

// rankCorrelation is Spearman's.
func rankCorrelation(a, b []float64) float64 {
	ranks := func(list []float64) []float64 {
		out := make([]float64, len(list))
		for i, x := range list {
			for _, y := range list {
				if y < x {
					out[i]++
				}
			}
		}
		return out
	}
	x, y, n := ranks(a), ranks(b), float64(len(a))
	var d float64
	for i := range x {
		d += (x[i] - y[i]) * (x[i] - y[i])
	}
	return 1 - 6*d/(n*(n*n-1))
}
