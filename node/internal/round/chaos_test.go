package round

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// converge heals the network, starts everybody again, and holds that all honest
// nodes come to one head and that certified rounds follow.
func (s *sim) converge(within time.Duration) {
	s.t.Helper()
	s.isCalm, s.blocked = true, nil
	s.opts.loss, s.opts.dup = 0, 0
	for _, n := range s.nodes {
		n.crashAt = -1
		if !n.up {
			n.start()
		}
	}
	same := func() bool {
		for _, n := range s.nodes {
			if !s.liars[n.i] && !n.chain.Head().ID.Equals(s.nodes[0].chain.Head().ID) {
				return false
			}
		}
		return true
	}
	if !s.runUntil(within, same) {
		s.t.Fatalf("no common head after %v:\n%s", within, s.describe())
	}
	s.progress(within, 3, true)
}

// progress holds that all honest nodes that are up make so many more rounds, of
// which the last are certified and the same for all.
func (s *sim) progress(within time.Duration, rounds msg.Round, certified bool) {
	s.t.Helper()
	most := msg.Round(0)
	for _, n := range s.nodes {
		if n.up && !s.liars[n.i] {
			most = max(most, n.chain.Head().Record.Round)
		}
	}
	target := most + rounds
	ok := s.runUntil(within, func() bool {
		r := s.minRound()
		if r < target {
			return false
		}
		for _, n := range s.nodes {
			if n.up && !s.liars[n.i] && certified && n.chain.links[target].Certificate == nil {
				return false
			}
		}
		return s.agree(target) == nil
	})
	if !ok {
		s.t.Fatalf("no agreement on round %d after %v: %v\n%s", target, within, s.agree(target), s.describe())
	}
}

// restless crashes and restarts random nodes, at most f at a time, and cuts the
// network now and then.
func (s *sim) restless(f int, partitions bool) {
	if s.isCalm {
		return
	}
	down := 0
	for _, n := range s.nodes {
		if !n.up || n.crashAt >= 0 {
			down++
		}
	}
	i := s.rnd.IntN(len(s.nodes))
	n := s.nodes[i]
	switch {
	case !n.up:
		n.start()
	case down < f:
		n.crashAt = s.rnd.IntN(12)
	}
	if partitions && s.blocked == nil && s.rnd.IntN(4) == 0 {
		side := make([]bool, len(s.nodes))
		for i := range side {
			side[i] = s.rnd.IntN(2) == 0
		}
		s.blocked = func(a, b *simNode) bool { return side[a.i] != side[b.i] }
		s.after(time.Duration(s.rnd.IntN(100))*time.Second, func() { s.blocked = nil })
	}
	s.after(time.Duration(1+s.rnd.IntN(15))*time.Second, func() { s.restless(f, partitions) })
}

var seedCount = flag.Int("seeds", 0, "networks in each test of faults; 0: a few")

func seeds(n int) int {
	if *seedCount > 0 {
		return *seedCount
	}
	if testing.Short() {
		return max(n/10, 2)
	}
	return n
}

// TestChaos: crashes at any effect, restarts, losses, doubles and partitions
// never make two certificates of one head, nor two messages of an honest peer
// for one head; and when they are over, all agree and go on.
func TestChaos(t *testing.T) {
	for seed := range seeds(24) {
		n := []int{1, 2, 3, 4, 5, 7}[seed%6]
		t.Run(fmt.Sprintf("%d/n=%d", seed, n), func(t *testing.T) {
			t.Parallel()
			opts := simOpts{loss: 20 * (seed % 7), dup: 50, trainTime: func(i int) time.Duration {
				return time.Duration(2+2*i) * time.Second
			}}
			s := newSim(t, uint64(seed), n, testManifest(func(m *run.Manifest) { m.MinPeers = uint32(1 + seed%n) }), opts)
			s.startAll()
			s.after(10*time.Second, func() { s.restless(n, true) })
			s.runFor(4 * time.Minute)
			s.converge(10 * time.Minute)
			if len(s.evidence) > 0 {
				t.Errorf("evidence against %v", s.evidence)
			}
			for _, n := range s.nodes {
				if len(n.misbehaved) > 0 {
					t.Errorf("node %d blames %v", n.i, n.misbehaved)
				}
			}
		})
	}
}

// TestLosses: a network of 16 with losses goes on.
func TestLosses(t *testing.T) {
	s := newSim(t, 3, 16, testManifest(func(m *run.Manifest) { m.MinPeers = 16 }), simOpts{loss: 50, dup: 20})
	s.startAll()
	if !s.runUntil(10*time.Minute, func() bool { return s.minRound() >= 20 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	if err := s.agree(20); err != nil {
		t.Fatal(err)
	}
	certified, contributions := 0, 0
	for _, l := range s.nodes[0].chain.links[1:21] {
		if l.Certificate != nil {
			certified++
		}
		contributions += len(l.Record.Contributions)
	}
	if certified < 19 || contributions < 16*17 {
		t.Errorf("%d of 20 rounds certified with %d contributions", certified, contributions)
	}
}
