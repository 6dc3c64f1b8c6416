package sim

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/kappa"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/msg"
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
		About: "eight peers take as many tokens in rounds of 15 (the short form: 5) to 120 steps, and in rounds that begin with 120 and are steered by kappa; a real model is trained",
		run:   steps,
	}, {
		Name: "deadlines", Quick: true,
		About: "16 seats, fast, slow, mixed, with seats that vanish, and with liars: how long the fast wait, with deadlines that follow arrivals and without",
		run:   deadlines,
	}}
}

// swarmOf is a mix of 16 seats. The usual one trains for 0.4 of a period.
type swarmOf struct {
	name  string
	speed func(i int) float64
	liars bool
	// every so many rounds one of the seats vanishes for good, and another one comes.
	vanish int
}

func swarms() []swarmOf {
	always := func(v float64) func(int) float64 { return func(int) float64 { return v } }
	some := func(slow int) func(int) float64 {
		return func(i int) float64 {
			if i > 0 && i <= slow {
				return 0.1
			}
			return 4
		}
	}
	return []swarmOf{
		{name: "fast", speed: always(4)},
		{name: "slow", speed: always(0.2)},
		{name: "few_slow", speed: some(2)},
		{name: "many_slow", speed: some(6)},
		{name: "few_slow_liars", speed: some(2), liars: true},
		{name: "many_slow_liars", speed: some(6), liars: true},
		{name: "vanishing", speed: always(4), vanish: 3},
	}
}

// deadlines measures what seats do with their time.
func deadlines(t *trial) error {
	for _, s := range swarms() {
		var idle, tokens [2]float64
		for i, follow := range []bool{false, true} {
			w, u, err := t.used(s, follow)
			if err != nil {
				return err
			}
			idle[i], tokens[i] = u.idle, u.tokens
			mode := map[bool]string{false: "period", true: "arrivals"}[follow]
			t.figure(fmt.Sprintf("%s_idle_%s", s.name, mode), u.idle)
			t.figure(fmt.Sprintf("%s_tokens_%s", s.name, mode), u.tokens)
			t.figure(fmt.Sprintf("%s_round_%s", s.name, mode), u.round)
			t.say("%s, by %s: idle %.3f, %.0f tokens in a period, rounds of %.3f periods, %.3f of the slow are in", s.name, mode, u.idle, u.tokens, u.round, u.slow)
			if follow {
				t.atLeast(s.name+"_slow_included", u.slow, 0.95)
				t.atLeast(s.name+"_least_deadline", u.least, 0.5)
				t.atMost(s.name+"_longest_deadline", u.longest, 1.2)
			}
			t.safety(w)
		}
		t.atMost(s.name+"_idle_more", idle[1]-idle[0], 0.02)
		t.atLeast(s.name+"_tokens_kept", tokens[1]/tokens[0], 0.97)
	}
	return nil
}

// usage is what was done with the time of seats, in parts of a period.
type usage struct {
	idle           float64 // part of the time
	tokens         float64 // of all in a period
	round          float64 // how long one lasts
	slow           float64 // part of the slow seats' rounds in which they contributed
	least, longest float64 // deadline
}

func (t *trial) used(s swarmOf, follow bool) (*world, usage, error) {
	const seats = 16
	rounds, warm := msg.Round(t.long(100, 30)), msg.Round(6)
	nodes := 2 * seats
	if s.vanish > 0 {
		nodes = max(nodes, seats+int(rounds+warm)/s.vanish+1) // one comes for each that vanishes
	}
	w, err := t.quickWorld(nodes, wide())
	if err != nil {
		return nil, usage{}, err
	}
	m := *w.manifest
	m.MinPeers, m.FollowArrivals, m.Seats = seats, follow, seats
	if w, err = newWorld(t.ctx, worldOptions{seed: t.Seed, nodes: nodes, net: wide(), manifest: &m, task: w.task}); err != nil {
		return nil, usage{}, err
	}
	for i, n := range w.nodes {
		n.speed = s.speed(i)
		if s.liars && i >= seats-seats/4 && i < seats {
			n.fault = lyingAuditor
		}
	}
	spare := w.nodes[seats:]
	w.start(w.nodes[:seats]...)
	leaving := slices.Concat(w.nodes[2:seats], spare) // in turn, but for two that stay
	slices.Reverse(leaving[:seats-2])
	told := msg.Round(0)
	w.seen.onAdopt = func(n *node, l round.Link) {
		if r := l.Record.Round; s.vanish > 0 && n.i == 0 && r > told && int(r)%s.vanish == 0 && len(spare) > 0 {
			told = r
			w.after(w.period()/10, func() {
				leaving[0].stop()
				w.start(spare[0])
				leaving, spare = leaving[1:], spare[1:]
			})
		}
	}
	if _, err := w.runUntil(20*w.period(), func() bool { return w.lowest() >= warm }); err != nil {
		return nil, usage{}, err
	}
	began, from := w.now, w.lowest()
	for _, n := range w.nodes {
		n.busy = 0
	}
	first := w.nodes[0].chain.Head().Record
	if ok, err := w.runUntil(4*time.Duration(rounds)*w.period(), func() bool { return roundOf(w.nodes[0]) >= from+rounds }); err != nil || !ok {
		return nil, usage{}, cause(err, "%s: no %d rounds in %d periods", s.name, rounds, 4*rounds)
	}
	return w, w.usage(s, first, began), nil
}

func (w *world) usage(s swarmOf, first *msg.Record, began time.Duration) usage {
	var busy time.Duration
	for _, n := range w.nodes {
		busy += n.busy
	}
	n := w.nodes[0]
	last := n.chain.Head().Record
	took, period := (w.now - began).Seconds(), w.period().Seconds()
	u := usage{
		tokens: float64(last.Tokens-first.Tokens) / took * period, round: took / float64(last.Round-first.Round) / period,
		least: math.Inf(1), slow: 1,
	}
	in, all, seats := 0, 0, 0
	for r := first.Round + 1; r <= last.Round; r++ {
		l, _ := n.chain.Record(r)
		parent, _ := n.chain.Record(r - 1)
		seats += len(l.Record.Seats)
		d := w.rules.DeadlineAfter(parent.Record).Seconds() / period
		u.least, u.longest = min(u.least, d), max(u.longest, d)
		for i, seat := range l.Record.Seats {
			if s.speed(w.index[seat.Peer]) >= 1 {
				continue
			}
			all++
			for _, c := range l.Record.Contributions {
				if int(c.Seat) == i {
					in++
				}
			}
		}
	}
	if all > 0 {
		u.slow = float64(in) / float64(all)
	}
	mean := float64(seats) / float64(last.Round-first.Round)
	u.idle = 1 - busy.Seconds()/took/mean
	return u
}

// steps compares rounds of different lengths at equal tokens.
func steps(t *trial) error {
	const peers, long = 8, 120
	s, err := t.Lab.subject(t.ctx, t.demo)
	if err != nil {
		return err
	}
	// About as many as in 100 rounds of the usual steps, or 40.
	tokens := uint64(t.long(1_200_000, 480_000))
	var losses, kappas []float64
	best := math.Inf(1)
	var last float64
	for _, h := range []uint32{5, s.steps, 30, 60, long}[t.long(1, 0):] {
		l, err := t.faultless(peers, 1e6, tuning{steps: stepping{h, h, h, tokens}})
		if err != nil {
			return err
		}
		t.figure(fmt.Sprintf("loss_%d_steps", h), l.after)
		t.figure(fmt.Sprintf("kappa_%d_steps", h), l.kappa)
		t.say("%d steps: loss %.4f, kappa %.3f", h, l.after, l.kappa)
		losses, kappas = append(losses, l.after), append(kappas, l.kappa)
		best, last = min(best, l.after), l.after
	}
	steered, err := t.faultless(peers, 1e6, tuning{steps: stepping{5, long, long, tokens}})
	if err != nil {
		return err
	}
	t.figure("loss_steered", steered.after)
	t.figure("kappa_steered", steered.kappa)
	t.figure("steps_at_the_end", steered.steps)
	t.say("steered: loss %.4f, kappa %.3f, at last %v steps", steered.after, steered.kappa, steered.steps)
	t.figure("loss_floor", t.floor())
	t.figure("gap_of_long_rounds", last/best-1)
	t.meanAtMost("gap_of_steered_rounds", steered.after/best-1, 0.005)
	t.because("of %d tokens %d are trained before the first kappa can change anything: two rounds of %d steps", tokens, 2*peers*long*100, long)
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
