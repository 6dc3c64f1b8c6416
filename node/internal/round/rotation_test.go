package round

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

func rotating(auditors uint32) *run.Manifest {
	return testManifest(func(m *run.Manifest) {
		m.Seats, m.RotateRounds = 16, 4
		if auditors > 0 {
			m.Trust = run.Trust{Auditors: auditors, AuditSamples: 8, Probation: 3}
		}
	})
}

// peersFrom are the IDs of test peers.
func peersFrom(first, n int) []peer.ID {
	var list []peer.ID
	for i := range n {
		_, id := testKey(first + i)
		list = append(list, id)
	}
	return list
}

func asking(ids []peer.ID) []msg.Signed {
	var list []msg.Signed
	for _, id := range ids {
		list = append(list, msg.Signed{Message: &msg.JoinRequest{Peer: id, Seq: 1}, From: id, CID: testCID(id.String())})
	}
	return list
}

// TestTickets: with equal weights all win as often; twice the weight wins about
// twice as often.
func TestTickets(t *testing.T) {
	const draws = 4000
	ids := peersFrom(0, 3)
	wins := make([]int, 3)
	for k := range draws {
		head := testCID(fmt.Sprint("head ", k))
		best := 0
		var list []contender
		for i, id := range ids {
			list = append(list, contend(head, id, []uint64{1 << 20, 2 << 20, 1 << 20}[i], true))
			if list[i].compare(list[best]) < 0 {
				best = i
			}
		}
		wins[best]++
	}
	for i, want := range []int{draws / 4, draws / 2, draws / 4} {
		if wins[i] < want*85/100 || wins[i] > want*115/100 {
			t.Errorf("peer %d won %d of %d times, want about %d", i, wins[i], draws, want)
		}
	}
}

// TestRotate: at most a quarter of the seats go at a time, and those of peers
// that owe audits stay until they are proven.
func TestRotate(t *testing.T) {
	ru, err := NewRules(rotating(3))
	if err != nil {
		t.Fatal(err)
	}
	seats := testSeats(16)
	s := standings{}
	for i, seat := range seats {
		e := s.at(seat.Peer)
		e.Pace, e.Work = 1000, 5000
		if i == 3 {
			e.Owed = 2
		}
	}
	proven := peersFrom(100, 40)
	for _, id := range proven {
		e := s.at(id)
		e.Pace, e.Work = 1000, 5000
	}
	strangers := peersFrom(300, 400)
	newcomer := msg.Seat{Since: 9, Fresh: true}
	counts := func(who []peer.ID, next []msg.Seat) int {
		n := 0
		for _, id := range who {
			if seatOf(next, id) >= 0 {
				n++
			}
		}
		return n
	}
	total, unproven := 0, 0
	for k := range 50 {
		head := testCID(fmt.Sprint("head ", k))
		next, effective := ru.rotate(ru.newRotation(head, s, seats), seats, asking(append(append([]peer.ID(nil), proven...), strangers...)), newcomer)
		if len(next) != 16 || len(effective) > 4 {
			t.Fatalf("%d seats, %d requests took effect", len(next), len(effective))
		}
		for i := 1; i < len(next); i++ {
			if next[i-1].Peer >= next[i].Peer {
				t.Fatal("seats are not sorted")
			}
		}
		if seatOf(next, seats[3].Peer) < 0 {
			t.Fatal("who owes audits has lost its seat")
		}
		// One of the two places for peers that owe audits is taken.
		if n := counts(strangers, next); n > 1 {
			t.Fatalf("%d strangers have a seat", n)
		}
		total += len(effective)
		unproven += counts(strangers, next)
		if got := counts(proven, next) + counts(strangers, next); got != len(effective) {
			t.Fatalf("%d newcomers, %d requests", got, len(effective))
		}
	}
	if total < 100 || unproven == 0 {
		t.Errorf("%d seats went in 50 rotations, %d to strangers", total, unproven)
	}
	// In a run that is not full nobody has to go.
	few := seats[:10]
	if next, effective := ru.rotate(ru.newRotation(testCID("h"), s, few), few, asking(proven), newcomer); len(next) != 10 || len(effective) != 0 {
		t.Errorf("a run with room rotates %d seats", len(effective))
	}
	// Who works less goes sooner.
	kept := make([]int, 2)
	for k := range 60 {
		s := append(standings(nil), s...)
		for i, seat := range seats {
			s.at(seat.Peer).Pace = uint64(500 + i%2*1500)
		}
		next, _ := ru.rotate(ru.newRotation(testCID(fmt.Sprint("x", k)), s, seats), seats, asking(proven), newcomer)
		for i, seat := range seats {
			if seatOf(next, seat.Peer) >= 0 {
				kept[i%2]++
			}
		}
	}
	if kept[0] >= kept[1] {
		t.Errorf("seats with little work stay %d times, others %d times", kept[0], kept[1])
	}
}

// TestRotationOfARun: more peers than seats all come to train.
func TestRotationOfARun(t *testing.T) {
	m := testManifest(func(m *run.Manifest) { m.Seats, m.RotateRounds, m.MinPeers = 5, 2, 3 })
	s := newSim(t, 3, 9, m, simOpts{})
	s.startAll()
	seated := make(map[peer.ID]bool)
	if !s.runUntil(30*time.Minute, func() bool {
		for _, l := range s.nodes[0].chain.links {
			for _, c := range l.Record.Contributions {
				seated[l.Record.Seats[c.Seat].Peer] = true
			}
		}
		return len(seated) == 9
	}) {
		t.Fatalf("%d of 9 peers trained\n%s", len(seated), s.describe())
	}
	head := s.nodes[0].chain.Head()
	certified := 0
	for _, l := range s.nodes[0].chain.links[1:] {
		if l.Certificate != nil {
			certified++
		}
		if len(l.Record.NextSeats) > 5 {
			t.Errorf("round %d gives %d seats", l.Record.Round, len(l.Record.NextSeats))
		}
		if n := len(l.Record.Joins); l.Record.Round > 6 && l.Record.Round%2 == 1 && n > 0 {
			t.Errorf("%d seats went in round %d, in which none rotate", n, l.Record.Round)
		}
	}
	if certified < int(head.Record.Round)-1 {
		t.Errorf("%d of %d rounds are certified", certified, head.Record.Round)
	}
}
