package round

import (
	"fmt"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/run"
)

// TestFollowerTakesAQuorumsWord: a peer without a seat follows the records of a
// full run, and computes few of them; the seats compute all.
func TestFollowerTakesAQuorumsWord(t *testing.T) {
	s := newSim(t, 11, 6, testManifest(func(m *run.Manifest) { m.Seats, m.MinPeers = 4, 4 }), simOpts{})
	follower := s.nodes[5]
	s.nodes[4].wants, follower.wants = false, false
	s.startAll()
	if !s.runUntil(20*time.Minute, func() bool { return s.minRound() >= 60 }) {
		t.Fatalf("no 60 rounds\n%s", s.describe())
	}
	for r := range s.minRound() {
		if err := s.agree(r + 1); err != nil {
			t.Fatal(err)
		}
	}
	if follower.folds > 8 {
		t.Errorf("a follower computed %d of 60 rounds, want about 1", follower.folds)
	}
	computed := 0
	for k := range 1000 {
		if follower.m.computes(&height{parent: Link{ID: testCID(fmt.Sprint(k))}, self: -1}) {
			computed++
		}
	}
	if computed < 1 || computed > 15 {
		t.Errorf("a follower computes %d of 1000 rounds, want about 4", computed)
	}
	if s.nodes[0].folds < 55 {
		t.Errorf("a seat computed %d of 60 rounds", s.nodes[0].folds)
	}
}

// TestFollowerPullsNoDeltas: who neither has a seat nor computes a round asks for
// no delta of it.
func TestFollowerPullsNoDeltas(t *testing.T) {
	b := newBench(t, 4, 3)
	for _, seated := range []bool{true, false} {
		h := b.node.m.cur
		if !seated {
			h.self = -1
			if b.node.m.computes(h) {
				t.Skip("this head draws the peer")
			}
		}
		from := b.others()[0]
		if !seated {
			from = b.others()[1]
		}
		b.receive(from, b.commitOf(from, 10))
		if n := len(effects[Check](b)); n > 0 != seated {
			t.Errorf("with a seat %v: %d deltas are asked for", seated, n)
		}
	}
}
