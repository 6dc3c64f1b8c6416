package sim

import (
	"fmt"
	"time"

	"github.com/moot-net/moot/proto/msg"
)

func strangerScenarios() []Scenario {
	return []Scenario{
		{
			Name: "free-rider", Quick: true,
			About: "3 of 12 seats do not train: noise, the delta of the round before, the delta of another; credit after 3 rounds",
			run:   freeRiders,
		},
		{
			Name: "sybil-1000", Quick: true,
			About: "a thousand identities with a tenth of the compute come to a run of 32, as soon as a seat is free",
			run:   sybils,
		},
	}
}

func freeRiders(t *trial) error {
	const peers, patience = 12, 3
	rounds := t.long(12, 7)
	w, err := t.realWorld(peers, rounds, wide(), tuning{})
	if err != nil {
		return err
	}
	riders := []Fault{noise, stale, copies}
	for k, i := range w.rnd.Perm(peers - 1)[:len(riders)] {
		w.nodes[i+1].fault = riders[k]
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
	credit := make(map[Fault]uint64)
	var all uint64
	for _, l := range n.chain.links {
		gone := n.takenBack(l.Record.Round)
		for _, c := range l.Record.Contributions {
			if l.Record.TrainedRounds <= patience || gone[c.Seat] {
				continue
			}
			all += c.Weight
			credit[w.nodes[w.index[l.Record.Seats[c.Seat].Peer]].fault] += c.Weight
		}
	}
	for _, f := range riders {
		// As a part of what a seat that trains gets.
		fair := float64(all-credit[f]) / float64(peers-1)
		part := float64(credit[f]) / max(fair, 1)
		t.atMost("credit_"+f.String(), part, 0)
		if part > 0 {
			t.because("%v still has %.0f %% of a seat's weight after %d rounds: a delta counts until audits judged it, one round later, and weight follows worth slowly", f, 100*part, patience)
		}
	}
	s := w.tally(n, 0, roundOf(n))
	t.exclusions(s, true)
	t.safety(w)
	return nil
}

func sybils(t *trial) error {
	const honestPeers = 32
	count := t.long(1000, 30)
	m := quickManifest()
	m.MinPeers, m.KeepRounds = 4, 8 // as run files have it
	layout, err := m.Layout()
	if err != nil {
		return err
	}
	w, err := newWorld(t.ctx, worldOptions{
		seed: t.Seed, nodes: honestPeers + count, net: wide(), manifest: m, task: newQuickTask(layout, t.Seed),
	})
	if err != nil {
		return err
	}
	w.quiet = true
	for _, n := range w.nodes[honestPeers:] {
		n.fault = sybil
	}
	// Honest nodes take their steps in half of the time there is; the others
	// get the whole of a tenth of that.
	w.sybilSpeed = honestPeers * 0.1 / 0.9 / 2
	w.start(w.nodes[:honestPeers]...)
	for _, n := range w.nodes[:honestPeers] { // of all nodes few are there, so few have met
		for len(n.links) <= w.net.degree/2 {
			n.connect(w.nodes[w.rnd.IntN(honestPeers)])
		}
	}
	ready := func() bool {
		h := w.nodes[0].chain.Head().Record
		return len(h.NextSeats) == honestPeers && h.TrainedRounds >= 2
	}
	if ok, err := w.runUntil(4*time.Hour, ready); err != nil || !ok {
		return cause(err, "not all honest peers were seated after 4 hours")
	}
	w.start(w.nodes[honestPeers:]...)
	rounds := t.long(30, 10) // more than the probation
	n := w.nodes[0]
	var weights, witnesses []Point
	from := roundOf(n)
	for r := range rounds {
		// One honest peer in each round is away for two; its seat may be taken.
		away := w.nodes[1+(r*7)%(honestPeers-1)]
		away.stop()
		w.after(2*w.period(), func() {
			if !away.up {
				w.start(away)
			}
		})
		at := roundOf(n)
		if ok, err := w.runUntil(4*w.period(), func() bool { return roundOf(n) > at }); err != nil || !ok {
			return cause(err, "round %d did not end in 4 periods", at+1)
		}
		l := n.chain.Head()
		s := w.tally(n, at, roundOf(n))
		weights = append(weights, Point{float64(r + 1), float64(s.liarWeight) / float64(max(s.weight, 1))})
		witnesses = append(witnesses, Point{float64(r + 1), w.witnessShare(l.Record.NextSeats)})
		if r%10 == 9 {
			t.say("round %d: weight %.3f, witnesses %.3f", r+1, weights[r].Y, witnesses[r].Y)
		}
	}
	worst := func(points []Point) float64 {
		most := 0.0
		for _, p := range points {
			most = max(most, p.Y)
		}
		return most
	}
	s := w.tally(n, from, roundOf(n))
	seats := 0
	for _, seat := range n.chain.Head().Record.NextSeats {
		if w.nodes[w.index[seat.Peer]].fault == sybil {
			seats++
		}
	}
	t.figure("identities", float64(count))
	t.figure("seats_taken", float64(seats)/float64(len(n.chain.Head().Record.NextSeats)))
	t.figure("weight_share", float64(s.liarWeight)/float64(max(s.weight, 1)))
	t.atMost("weight_share_worst_round", worst(weights), 0.12)
	t.atMost("witness_share_worst_round", worst(witnesses), 0.12)
	t.because("seats: %.0f %% of those at the end are Sybils', beside a tenth of the compute", 100*float64(t.figures["seats_taken"]))
	t.charts = append(t.charts, Chart{
		Name: "influence", Title: fmt.Sprintf("%d Sybil identities with a tenth of the compute", count), X: "rounds", Y: "share",
		Lines: []Line{{"weight", weights}, {"witnesses", witnesses}},
	})
	t.safety(w)
	return nil
}

// witnessShare is the part of the witnesses that are no honest peers.
func (w *world) witnessShare(seats []msg.Seat) float64 {
	all, bad := 0, 0
	for _, s := range seats {
		if s.Trainee {
			continue
		}
		all++
		if w.nodes[w.index[s.Peer]].fault != honest {
			bad++
		}
	}
	return float64(bad) / float64(max(all, 1))
}

// pace is how fast a node trains now. Sybils divide what they have among those
// of them that have a seat.
func (n *node) pace() float64 {
	if n.fault != sybil {
		return n.speed
	}
	seats := 0
	for _, s := range n.chain.Head().Record.NextSeats {
		if n.w.nodes[n.w.index[s.Peer]].fault == sybil {
			seats++
		}
	}
	return n.w.sybilSpeed / float64(max(seats, 1))
}
