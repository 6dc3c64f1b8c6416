package round

import (
	"slices"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

func dated(minPeers int) func(*run.Manifest) {
	return func(m *run.Manifest) { m.MinPeers, m.DatedRequests = uint32(minPeers), true }
}

// TestOldRequestsAreVoid: a leave that was taken back before it took effect is in no record,
// and a request of who went long ago in none that is read after a restart. Where requests are
// dated, who says them again to nodes that were all restarted has no effect by it; where they
// are not, it takes a seat away, and gives one to who is gone.
func TestOldRequestsAreVoid(t *testing.T) {
	for name, manifest := range map[string]*run.Manifest{
		"dated": testManifest(dated(4)), "not dated": testManifest(func(m *run.Manifest) { m.MinPeers = 4 }),
	} {
		t.Run(name, func(t *testing.T) {
			s := runningOf(t, 68, 4, manifest, simOpts{}, 2)
			var heard []msg.Signed
			s.overhear = func(m msg.Signed) {
				if j, ok := m.Message.(*msg.JoinRequest); ok {
					heard = append(heard, m)
					if j.Until > 0 != manifest.DatedRequests {
						t.Errorf("a request is until round %d", j.Until)
					}
				}
			}
			head := func() *msg.Record { return s.nodes[0].chain.Head().Record }
			seated := func(n *simNode, seat bool) {
				t.Helper()
				if !s.runUntil(5*time.Minute, func() bool { return (seatOf(head().NextSeats, n.id) >= 0) == seat }) {
					t.Fatalf("node %d does not get what it wants:\n%s", n.i, s.describe())
				}
			}
			back, gone := s.nodes[4], s.nodes[5]
			for _, n := range []*simNode{gone, back} {
				n.start()
				seated(n, true)
			}
			gone.step(Want{Seat: false})
			seated(gone, false)
			gone.stop()
			back.step(Want{Seat: false})
			back.step(Want{Seat: true})
			s.progress(2*time.Hour, rememberDeltas+2, true)
			if seatOf(head().NextSeats, back.id) < 0 {
				t.Fatalf("a leave that was taken back has an effect:\n%s", s.describe())
			}
			// The newest of who is there stands for its wish, and is no old one.
			var leave, join int
			old := slices.DeleteFunc(slices.Clone(heard), func(m msg.Signed) bool {
				j := m.Message.(*msg.JoinRequest)
				switch {
				case m.From == back.id && j.Leave:
					leave++
					return false
				case m.From == gone.id && !j.Leave:
					join++
					return false
				}
				return true
			})
			if leave == 0 || join == 0 {
				t.Fatalf("%d leaves and %d joins were heard", leave, join)
			}
			for _, n := range s.nodes[:5] {
				n.stop()
				n.start()
			}
			from, effects := s.minRound(), 0
			for range 3 {
				for _, m := range old {
					for _, to := range s.nodes[:5] {
						to.step(Received{m})
					}
				}
				s.progress(5*time.Minute, 1, true)
			}
			for _, l := range s.nodes[0].chain.links[from+1:] {
				effects += len(l.Record.Joins)
			}
			if (effects == 0) != manifest.DatedRequests {
				t.Errorf("%d requests took effect that were said again", effects)
			}
		})
	}
}

// TestDatedRequestIsRenewed: who waits for a seat longer than its request lasts asks again in
// time, and gets the first one that is free.
func TestDatedRequestIsRenewed(t *testing.T) {
	s := runningOf(t, 69, 4, testManifest(func(m *run.Manifest) { dated(4)(m); m.Seats = 4 }), simOpts{}, 1)
	waits := s.nodes[4]
	waits.start()
	s.progress(2*time.Hour, 2*joinRounds+3, true)
	asked := map[msg.Round]bool{}
	for _, m := range waits.stored {
		if j, ok := m.Message.(*msg.JoinRequest); ok {
			asked[j.Until] = true
		}
	}
	if len(asked) < 3 || len(asked) > 5 {
		t.Errorf("in %d rounds it asked %d times, want 3 or little more", s.minRound(), len(asked))
	}
	s.nodes[3].step(Want{Seat: false})
	if !s.runUntil(3*time.Minute, func() bool {
		return seatOf(s.nodes[0].chain.Head().Record.NextSeats, waits.id) >= 0
	}) {
		t.Fatalf("who waited gets no seat:\n%s", s.describe())
	}
}

// TestDatedAdmission: a request counts up to the round that it names, a leave too; one that
// names none does not where requests are dated, and one that names one does not elsewhere.
func TestDatedAdmission(t *testing.T) {
	for _, tt := range []struct {
		dated        bool
		until, round msg.Round
		want         bool
	}{
		{true, 7, 7, true},
		{true, 7, 8, false},
		{true, 7, 0, true},
		{true, 0, 7, false},
		{true, 0, 0, false},
		{false, 0, 7, true},
		{false, 7, 7, false},
		{false, 7, 0, false},
	} {
		for _, leave := range []bool{false, true} {
			ru := Rules{manifest: testManifest(func(m *run.Manifest) { m.DatedRequests = tt.dated }), run: testCID("run")}
			j := &msg.JoinRequest{Run: ru.run, Peer: "somebody", Seq: 1, Leave: leave, Until: tt.until}
			if got := ru.Admits(j, tt.round); got != tt.want {
				t.Errorf("dated %v, until %d, leave %v: Admits in round %d = %v", tt.dated, tt.until, leave, tt.round, got)
			}
		}
	}
}

// TestLeaveTakenBack: who takes a leave back before it took effect keeps its seat, also in a run
// that has no other one to give, and if what it says is lost the first time.
func TestLeaveTakenBack(t *testing.T) {
	for _, seats := range []uint32{4, 5} {
		for _, lost := range []bool{false, true} {
			s := runningOf(t, 70, 4, testManifest(func(m *run.Manifest) { dated(4)(m); m.Seats = seats }), simOpts{}, 0)
			n := s.nodes[3]
			n.step(Want{Seat: false})
			s.runFor(100 * time.Millisecond)
			s.blocked = func(a, _ *simNode) bool { return lost && a == n }
			n.step(Want{Seat: true})
			s.blocked = nil
			from := s.minRound()
			s.progress(time.Minute, 4, true)
			for _, l := range s.nodes[0].chain.links[from:] {
				if seatOf(l.Record.NextSeats, n.id) < 0 {
					t.Errorf("of %d seats, lost the first time %v: it has none after round %d", seats, lost, l.Record.Round)
				}
			}
		}
	}
}
