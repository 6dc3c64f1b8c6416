package sim

import (
	"fmt"
	"slices"
)

func learningScenarios() []Scenario {
	list := []Scenario{{
		Name: "quality-8", Quick: true,
		About: "eight peers beside the best tuned single node with as many tokens; a real model is trained",
		run:   quality,
	}}
	for _, part := range []int{25, 33} {
		for f := honest + 1; f < lastFault; f++ {
			list = append(list, Scenario{
				Name:  fmt.Sprintf("byzantine-%d-%v", part, f),
				Quick: part == 25 || f == signFlip1000 || f == alie || f == cabal, // the others would take too long
				About: fmt.Sprintf("%d %% of 12 seats lie: %v; a real model is trained", part, f),
				run:   func(t *trial) error { return byzantine(t, part, f, byzantinePeers, t.long(100, 20)) },
			})
		}
	}
	for f := honest + 1; f < lastFault; f++ {
		list = append(list, Scenario{
			Name:  fmt.Sprintf("cells-25-%v", f), // minutes each
			About: fmt.Sprintf("25 %% of 64 seats, in two cells, lie: %v; a real model is trained", f),
			run:   func(t *trial) error { return byzantine(t, 25, f, cellPeers, t.long(40, 12)) },
		})
	}
	for _, s := range []string{"quality-8", "byzantine-25-sign-flip-1", "byzantine-25-alie"} {
		i := slices.IndexFunc(list, func(o Scenario) bool { return o.Name == s })
		list = append(list, list[i].onDemo())
	}
	return list
}

// onDemo is the scenario with the demo's model and data, whose loss goes to zero.
func (s Scenario) onDemo() Scenario {
	return Scenario{
		Name: "demo-" + s.Name, About: s.About + ", the demo's",
		run: func(t *trial) error { t.demo = true; return s.run(t) },
	}
}

const (
	byzantinePeers = 12
	cellPeers      = 64 // are in two cells
)

func byzantine(t *trial, part int, f Fault, peers, rounds int) error {
	clean, err := t.cleanRun(peers, rounds)
	if err != nil {
		return err
	}
	w, err := t.realWorld(peers, rounds, wide(), tuning{})
	if err != nil {
		return err
	}
	liars := peers * part / 100
	if part == 33 {
		liars = peers / 3
	}
	// Not the launcher: it makes the first rounds alone.
	for _, i := range w.rnd.Perm(peers - 1)[:liars] {
		w.nodes[i+1].fault = f
	}
	w.start(w.nodes...)
	ok, err := t.finish(w, 4*rounds)
	if err != nil {
		return err
	}
	if !ok {
		t.because("the run did not end in %d periods", 4*rounds)
	}
	n := w.nodes[0]
	got, err := w.learned(n, max(rounds/6, 1))
	if err != nil {
		return err
	}
	limit := 0.01
	if part == 33 {
		limit = 0.03
	}
	t.figure("loss_floor", t.floor())
	t.figure("loss_before", clean.before)
	t.figure("loss_clean", clean.after)
	t.meanAtMost("honest_without_weight_clean", clean.withoutWeight, 0.02)
	t.figure("loss", got.after)
	t.meanAtMost("loss_over_clean", got.after/clean.after-1, limit)
	alone, err := t.cleanRun(peers-liars, rounds)
	if err != nil {
		return err
	}
	// Without the liars' seats there is less training, whatever they do.
	t.figure("loss_of_the_honest_alone", alone.after)
	t.figure("loss_over_the_honest_alone", got.after/alone.after-1)
	t.because("%d seats of %d that do not train make the loss %.1f %% higher by themselves", liars, peers, 100*(alone.after/clean.after-1))
	t.meanAtLeast("loss_reduction_kept", (clean.before-got.after)/(clean.before-clean.after), 0.95)
	s := w.tally(n, 0, roundOf(n))
	t.figure("liars", float64(liars))
	t.figure("liars_weight_share", float64(s.liarWeight)/float64(max(s.weight, 1)))
	t.exclusions(s, part == 25 || f == lyingAuditor || f == cabal)
	t.charts = append(t.charts, Chart{
		Name: "loss", Title: fmt.Sprintf("%d %% %v", part, f), X: "trained rounds", Y: "held-out loss",
		Lines: []Line{{"without liars", clean.curve}, {"with liars", got.curve}},
	})
	t.safety(w)
	return nil
}
