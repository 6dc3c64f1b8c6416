package sim

import (
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

func agreementScenarios() []Scenario {
	return []Scenario{
		{
			Name: "loss-reorder", Quick: true,
			About: "16 peers, 200 rounds, delays of 0 to 30 s, 5 % of messages lost, 5 % doubled",
			run:   func(t *trial) error { return hardNetwork(t, false) },
		},
		{
			Name: "clock-skew", Quick: true,
			About: "the same, and the clocks of a third are up to 10 minutes wrong",
			run:   func(t *trial) error { return hardNetwork(t, true) },
		},
		{
			Name: "launcher-gone", Quick: true,
			About: "launcher and bootstrap nodes are killed; ten newcomers know one volunteer",
			run:   launcherGone,
		},
		{
			Name: "half-vanish", Quick: true,
			About: "half of 16 peers vanish when all haves are given and no vote is",
			run:   halfVanish,
		},
	}
}

// wide is a network of home lines all over the world.
func wide() network {
	return network{minDelay: 10 * time.Millisecond, maxDelay: 150 * time.Millisecond, upBits: 10e6, downBits: 50e6, degree: 8}
}

// quickWorld is a world with a task that costs nothing.
func (t *trial) quickWorld(nodes int, net network) (*world, error) {
	m := quickManifest()
	m.MinPeers = uint32(min(nodes, 4))
	layout, err := m.Layout()
	if err != nil {
		return nil, err
	}
	return newWorld(t.ctx, worldOptions{seed: t.Seed, nodes: nodes, net: net, manifest: m, task: newQuickTask(layout, t.Seed)})
}

// makeRounds plays until all honest nodes that are up have made so many rounds.
func (t *trial) makeRounds(w *world, rounds msg.Round, within time.Duration) (bool, error) {
	target := w.highest() + rounds
	told := msg.Round(0)
	return w.runUntil(within, w.onChange(func() bool {
		r := w.lowest()
		if r >= told+10 {
			told = r
			t.say("round %d", r)
		}
		return r >= target
	}))
}

// agreement counts the rounds on which all honest nodes that are up have one
// record, and of those the certified ones.
func (w *world) agreement(after, to msg.Round) (agreed, certified int) {
	for r := after + 1; r <= to; r++ {
		var id cid.Cid
		same, cert := true, false
		for _, n := range w.nodes {
			if !n.up || n.fault != honest {
				continue
			}
			l, ok := n.chain.Record(r)
			if !ok || id.Defined() && !l.ID.Equals(id) {
				same = false
				break
			}
			id = l.ID
			cert = cert || l.Certificate != nil
		}
		if same {
			agreed++
			if cert {
				certified++
			}
		}
	}
	return agreed, certified
}

func hardNetwork(t *trial, skewed bool) error {
	const peers = 16
	w, err := t.quickWorld(peers, network{maxDelay: 30 * time.Second, loss: 0.05, dup: 0.05})
	if err != nil {
		return err
	}
	var wrong []*node
	if skewed {
		for k, i := range w.rnd.Perm(peers)[:peers/3] {
			n := w.nodes[i]
			// Slow and fast ones by turns, by 5 to 10 minutes.
			n.skew = 5*time.Minute + time.Duration(w.rnd.Int64N(int64(5*time.Minute)))
			n.drift = 200e-6
			if k%2 == 0 {
				n.skew, n.drift = -n.skew, -n.drift
			}
			wrong = append(wrong, n)
		}
	}
	w.start(w.nodes...)
	rounds := msg.Round(t.long(200, 20))
	// The first rounds let peers in; all are seated then.
	seated := func() bool { return w.lowest() > 0 && len(w.nodes[0].chain.Head().Record.NextSeats) == peers }
	if ok, err := w.runUntil(6*time.Hour, seated); err != nil || !ok {
		return cause(err, "not all peers were seated after 6 hours")
	}
	from := w.highest()
	ok, err := t.makeRounds(w, rounds, time.Duration(rounds)*2*w.period())
	if err != nil {
		return err
	}
	if !ok {
		t.because("only %d rounds were made in the time of %d", w.lowest()-from, 2*rounds)
	}
	// Of the last round not everybody has heard yet.
	if err := w.runFor(2 * w.period()); err != nil {
		return err
	}
	agreed, certified := w.agreement(from, from+rounds)
	t.atLeast("heights_agreed", float64(agreed)/float64(rounds), 1)
	t.atLeast("heights_certified", float64(certified)/float64(rounds), 1)
	if certified < agreed {
		t.because("%d rounds went on without a certificate: a proposal and its votes take up to 60 s, an attempt has 30", agreed-certified)
	}
	n := w.nodes[0]
	s := w.tally(n, from, from+rounds)
	t.figure("contributions_included", float64(s.included)/float64(max(s.honestSeats, 1)))
	if skewed {
		got, want := 0, 0
		for r := from + 1; r <= from+rounds; r++ {
			l, ok := n.chain.Record(r)
			if !ok {
				break
			}
			for _, x := range wrong {
				want++
				for _, c := range l.Record.Contributions {
					if l.Record.Seats[c.Seat].Peer == x.id {
						got++
					}
				}
			}
		}
		t.atLeast("wrong_clocks_included", float64(got)/float64(max(want, 1)), 0.9)
	}
	t.figure("branches_left", float64(w.seen.reorgs))
	t.safety(w)
	return nil
}

// cause is err, or what happened if there is none.
func cause(err error, what string, args ...any) error {
	if err != nil {
		return err
	}
	return fmt.Errorf(what, args...)
}

func launcherGone(t *trial) error {
	const (
		bootstraps = 3 // the launcher among them
		volunteers = 10
		newcomers  = 10
	)
	m := quickManifest()
	m.MinPeers, m.MaxRounds = 4, uint64(t.long(30, 15))
	layout, err := m.Layout()
	if err != nil {
		return err
	}
	w, err := newWorld(t.ctx, worldOptions{
		seed: t.Seed, nodes: bootstraps + volunteers + newcomers, net: wide(), manifest: m, task: newQuickTask(layout, t.Seed),
	})
	if err != nil {
		return err
	}
	w.start(w.nodes[:bootstraps+volunteers]...)
	if err := w.runFor(time.Minute); err != nil {
		return err
	}
	for _, n := range w.nodes[:bootstraps] {
		n.stop()
	}
	friend := w.nodes[bootstraps+w.rnd.IntN(volunteers)]
	for _, n := range w.nodes[bootstraps+volunteers:] {
		n.start()
		n.connect(friend)
		if err := w.runFor(time.Duration(1+w.rnd.IntN(60)) * time.Second); err != nil {
			return err
		}
	}
	final := func() bool {
		for _, n := range w.up() {
			if !n.chain.Head().Record.Final {
				return false
			}
		}
		return true
	}
	ok, err := w.runUntil(time.Duration(m.MaxRounds)*3*w.period(), final)
	if err != nil {
		return err
	}
	finished := 0.0
	if ok && w.oneHead() {
		finished = 1
	}
	joined := 0
	for _, n := range w.nodes[bootstraps+volunteers:] {
		if w.contributed(friend, n) {
			joined++
		}
	}
	t.atLeast("finished_on_one_head", finished, 1)
	t.atLeast("newcomers_that_contributed", float64(joined), newcomers)
	t.figure("rounds", float64(roundOf(friend)))
	t.safety(w)
	return nil
}

// contributed reports whether a delta of n is in the chain of o.
func (w *world) contributed(o, n *node) bool {
	for _, l := range o.chain.links {
		for _, c := range l.Record.Contributions {
			if l.Record.Seats[c.Seat].Peer == n.id {
				return true
			}
		}
	}
	return false
}

func halfVanish(t *trial) error {
	const peers = 16
	worst, worstCertified := 0.0, 0.0
	times := t.long(10, 3)
	for i := range times {
		o := *t
		o.Seed = t.Seed*1000 + uint64(i)
		w, err := o.quickWorld(peers, wide())
		if err != nil {
			return err
		}
		next, certified, err := vanish(&o, w)
		if err != nil {
			return err
		}
		worst, worstCertified = max(worst, next), max(worstCertified, certified)
		t.say("after %.2f periods the next round, after %.2f a certified one", next, certified)
		t.safety(w)
	}
	t.figure("times", float64(times))
	t.atMost("next_round_after_periods", worst, 2)
	t.atMost("certified_after_periods", worstCertified, 4)
	return nil
}

// vanish stops half of the seats between have and vote, and returns how many
// periods it takes the others until the next round, and until a certified one.
func vanish(t *trial, w *world) (next, certified float64, err error) {
	w.start(w.nodes...)
	peers := len(w.nodes)
	ready := func() bool {
		h := w.nodes[0].chain.Head().Record
		return len(h.NextSeats) == peers && h.TrainedRounds >= 2
	}
	if ok, err := w.runUntil(4*time.Hour, ready); err != nil || !ok {
		return 0, 0, cause(err, "not all peers were seated after 4 hours")
	}
	haves := make(map[cid.Cid]int)
	gone := false
	w.seen.onPublish = func(n *node, s msg.Signed) {
		h, ok := s.Message.(*msg.Have)
		if !ok || gone {
			return
		}
		if haves[h.Head]++; haves[h.Head] == peers {
			gone = true
			w.after(0, func() {
				for _, i := range w.rnd.Perm(peers)[:peers/2] {
					w.nodes[i].stop()
				}
			})
		}
	}
	if ok, err := w.runUntil(2*time.Hour, func() bool { return gone && len(w.up()) == peers/2 }); err != nil || !ok {
		return 0, 0, cause(err, "no round came to its haves in 2 hours")
	}
	began, at := w.now, w.highest()
	period := w.period().Seconds()
	if _, err := w.runUntil(10*w.period(), func() bool { return w.lowest() > at }); err != nil {
		return 0, 0, err
	}
	next = (w.now - began).Seconds() / period
	done := func() bool {
		for _, n := range w.up() {
			h := n.chain.Head()
			if h.Certificate == nil || h.Record.Round <= at {
				return false
			}
		}
		return true
	}
	if _, err := w.runUntil(10*w.period(), done); err != nil {
		return 0, 0, err
	}
	return next, (w.now - began).Seconds() / period, nil
}
