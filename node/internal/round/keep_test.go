package round

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

func keeping(seats int, rounds uint32) *run.Manifest {
	return testManifest(func(m *run.Manifest) {
		m.Seats, m.KeepRounds = uint32(seats), rounds
		m.Trust = run.Trust{Auditors: 3, AuditSamples: 8, Probation: 3, Judgement: run.NewestJudgement}
	})
}

// worked gives peers the standing of who has worked for long.
func worked(s *standings, ids ...peer.ID) {
	for _, id := range ids {
		e := s.at(id)
		e.Pace, e.Work = 1000, 5000
	}
}

// TestKeep: a seat is kept for who loses it by being absent, has worked, and has
// contributed since it came; not for who leaves, owes audits, is worth nothing or banned.
func TestKeep(t *testing.T) {
	ru, err := NewRules(keeping(16, 8))
	if err != nil {
		t.Fatal(err)
	}
	seats := testSeats(8)
	for _, tt := range []struct {
		name   string
		change func(*msg.Seat, *msg.Standing)
		want   bool
	}{
		{"worked", func(*msg.Seat, *msg.Standing) {}, true},
		{"strikes that are paid for", func(_ *msg.Seat, e *msg.Standing) { e.StrikesQ8 = 300 }, true},
		{"fresh", func(s *msg.Seat, _ *msg.Standing) { s.Fresh = true }, false},
		{"no work", func(_ *msg.Seat, e *msg.Standing) { e.Work = 0 }, false},
		{"owes audits", func(_ *msg.Seat, e *msg.Standing) { e.Owed = 1 }, false},
		{"worthless", func(_ *msg.Seat, e *msg.Standing) { e.LackQ16 = fold.One }, false},
		{"banned", func(_ *msg.Seat, e *msg.Standing) { e.Until, e.Reason = 90, msg.Harmful }, false},
	} {
		var s standings
		r := &msg.Record{Round: 20, Seats: append([]msg.Seat(nil), seats...)}
		for i := range r.Seats {
			worked(&s, r.Seats[i].Peer)
		}
		tt.change(&r.Seats[2], s.at(r.Seats[2].Peer))
		stay := append(append([]msg.Seat(nil), r.Seats[:2]...), r.Seats[3:]...)
		ru.keep(&s, r, stay)
		for i, seat := range r.Seats {
			want := msg.Round(0)
			if i == 2 && tt.want {
				want = 28
			}
			if got := s.of(seat.Peer).Kept; got != want {
				t.Errorf("%s: seat %d is kept until round %d, want %d", tt.name, i, got, want)
			}
		}
		// What it sent before it went is found out later.
		s.at(r.Seats[2].Peer).Owed = 2
		ru.keep(&s, &msg.Record{Round: 21, Seats: stay}, stay)
		if got := s.of(r.Seats[2].Peer).Kept; got != 0 {
			t.Errorf("%s: a seat is kept for who owes audits", tt.name)
		}
	}
}

// TestAdmitInOrder: a seat that is kept goes to its owner alone, at most a quarter
// of the seats are kept, and of others who has worked comes first.
func TestAdmitInOrder(t *testing.T) {
	ru, err := NewRules(keeping(16, 8))
	if err != nil {
		t.Fatal(err)
	}
	owners, proven, strangers := peersFrom(100, 6), peersFrom(200, 6), peersFrom(300, 60)
	for _, tt := range []struct {
		taken, owners           int // owners of all that are away
		ask                     []peer.ID
		owner, proven, stranger int // that get in
	}{
		{15, 1, strangers, 0, 0, 0},
		{15, 1, append(owners[:1:1], strangers...), 1, 0, 0},
		{13, 1, append(owners[:1:1], strangers...), 1, 0, 2},
		{13, 1, append(append(owners[:1:1], proven...), strangers...), 1, 2, 0},
		{13, 0, append(proven[:2:2], strangers...), 0, 2, 1},
		{10, 6, strangers, 0, 0, 2}, // four are kept, for six
		{10, 6, append(owners[:3:3], strangers...), 3, 0, 0},
		{10, 6, append(owners[:6:6], strangers...), 6, 0, 0},
		{16, 1, owners[:1], 0, 0, 0},
	} {
		var s standings
		worked(&s, owners...)
		worked(&s, proven...)
		for _, id := range owners[:tt.owners] {
			s.at(id).Kept = 30
		}
		for k := range 20 {
			d := ru.newDoor(testCID(fmt.Sprint("head ", k)), s)
			next, effective := admit(&d, testSeats(tt.taken), asking(tt.ask), msg.Seat{Since: 9, Fresh: true})
			count := func(ids []peer.ID) (n int) {
				for _, id := range ids {
					if seatOf(next, id) >= 0 {
						n++
					}
				}
				return n
			}
			if a, b, c := count(owners), count(proven), count(strangers); a != tt.owner || b != tt.proven || c != tt.stranger || len(effective) != a+b+c {
				t.Fatalf("%d taken, %d kept: %d owners, %d proven ones, %d strangers and %d requests, want %d, %d, %d", tt.taken, tt.owners, a, b, c, len(effective), tt.owner, tt.proven, tt.stranger)
			}
		}
	}
}

// TestRelease: a seat is kept for so many rounds, or until its owner has one.
func TestRelease(t *testing.T) {
	seats := testSeats(2)
	_, gone := testKey(9)
	var s standings
	worked(&s, gone, seats[0].Peer)
	for _, id := range []peer.ID{gone, seats[0].Peer} {
		s.at(id).Kept = 28
	}
	s.release(&msg.Record{Round: 27, NextSeats: seats})
	if s.of(seats[0].Peer).Kept != 0 || s.of(gone).Kept != 28 {
		t.Errorf("after round 27: %+v", s)
	}
	if s.release(&msg.Record{Round: 28, NextSeats: seats}); s.of(gone).Kept != 0 {
		t.Errorf("after round 28: %+v", s)
	}
}

// TestAwayFromAFullRun: strangers wait for a seat of a run that is full. Who is away
// for some rounds comes back to its own and counts again two rounds later; without keeping
// it waits. Who stays away makes room for a stranger, who comes to count.
func TestAwayFromAFullRun(t *testing.T) {
	for _, rounds := range []uint32{6, 0} {
		t.Run(fmt.Sprintf("keep %d", rounds), func(t *testing.T) {
			const n, strangers = 6, 5
			m := keeping(n, rounds)
			m.MinPeers = n
			s := newSim(t, 5, n+strangers, m, simOpts{})
			s.opts.gain = func(auditor *simNode, _ int) int64 { return honestGain(s, auditor) }
			for _, x := range s.nodes[:n] {
				x.start()
			}
			if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= 5 }) {
				t.Fatalf("stuck:\n%s", s.describe())
			}
			for _, x := range s.nodes[n:] {
				x.start()
			}
			away := s.nodes[3]
			away.stop()
			s.progress(5*time.Minute, 4, true)
			head := s.nodes[0].chain.Head().Record
			if got := s.seatedOf(head, n); rounds > 0 && (len(head.NextSeats) != n-1 || got != 0) {
				t.Fatalf("%d seats, %d of strangers\n%s", len(head.NextSeats), got, s.describe())
			} else if rounds == 0 && got != 1 {
				t.Fatalf("%d strangers have a seat of a run that keeps none", got)
			}
			away.start()
			s.progress(5*time.Minute, 4, true)
			head = s.nodes[0].chain.Head().Record
			seat := seatOf(head.NextSeats, away.id)
			if rounds == 0 {
				if seat >= 0 {
					t.Error("who comes back has a seat where none was free")
				}
				return
			}
			if seat < 0 || head.NextSeats[seat].Fresh || standings(head.Standings).of(away.id).Kept > 0 {
				t.Fatalf("who came back has seat %d\n%s", seat, s.describe())
			}
			counted, _ := s.weights(s.nodes[0].chain, head.Round-1)
			if counted[3] == 0 {
				t.Error("who came back does not count")
			}
			away.stop()
			s.progress(5*time.Minute, 4, true)
			if got := s.seatedOf(s.nodes[0].chain.Head().Record, n); got != 0 {
				t.Errorf("%d strangers have a seat after a few rounds", got)
			}
			if !s.runUntil(10*time.Minute, func() bool {
				counted, _ = s.weights(s.nodes[0].chain, head.Round)
				sum := 0
				for i := n; i < n+strangers; i++ {
					sum += counted[i]
				}
				return sum > 0
			}) {
				t.Errorf("no stranger counts %d rounds after a seat was left\n%s", s.minRound()-head.Round, s.describe())
			}
			if took := s.minRound() - head.Round; took > 6+2+3+6 {
				t.Errorf("it took %d rounds until a stranger counts", took)
			}
		})
	}
}

// seatedOf is how many of the nodes from a number on have a seat.
func (s *sim) seatedOf(r *msg.Record, from int) (n int) {
	for _, seat := range r.NextSeats {
		if s.indexOf(seat) >= from {
			n++
		}
	}
	return n
}

// TestFloodOfRequests: a crowd that asks for seats does not push the request of a peer
// that has worked out of memory.
func TestFloodOfRequests(t *testing.T) {
	p := newJoinPool()
	known := peersFrom(1000, 3)
	p.known = func(id peer.ID) bool { return id == known[0] || id == known[1] || id == known[2] }
	for _, s := range asking(known) {
		p.add(s)
	}
	for _, s := range asking(peersFrom(2000, 3*maxRequests)) {
		p.add(s)
	}
	if len(p.all()) != maxRequests {
		t.Errorf("%d requests, want %d", len(p.all()), maxRequests)
	}
	for _, id := range known {
		if !p.has(id) {
			t.Errorf("the request of %v is gone", id)
		}
	}
	p.known = func(peer.ID) bool { return true }
	if last := peersFrom(9000, 1); true {
		if p.add(asking(last)[0]); !p.has(last[0]) {
			t.Error("where all are known, the last one has no place")
		}
	}
}

// TestRotateWithKeptSeats: a run whose only empty seats are kept is full.
func TestRotateWithKeptSeats(t *testing.T) {
	ru, err := NewRules(rotating(0))
	if err != nil {
		t.Fatal(err)
	}
	for kept, rotates := range []bool{false, true} {
		went := 0
		for k := range 20 {
			r := ru.newRotation(testCID(fmt.Sprint("head ", k)), nil, testSeats(15))
			r.kept = kept
			next, effective := ru.rotate(r, testSeats(15), asking(peersFrom(100, 20)), msg.Seat{Since: 9})
			if went += len(effective); len(next) != 15 {
				t.Fatalf("%d seats, want the 15 there were", len(next))
			}
		}
		if (went > 0) != rotates {
			t.Errorf("%d seats are kept: %d went in 20 rotations", kept, went)
		}
	}
}

// TestOwnersAsk: who has a seat that is kept tells everybody that it wants it, wherever it
// ranks, and a stranger that it does only if there is another one.
func TestOwnersAsk(t *testing.T) {
	b := newBench(t, 4, 3)
	m, h := b.node.m, b.node.m.cur
	changed := *b.manifest
	changed.Seats, changed.KeepRounds = uint32(len(h.seats))+1, 8
	m.cfg.Manifest, m.rules.manifest = &changed, &changed
	crowd := peersFrom(1000, 200)
	for _, s := range asking(crowd) {
		m.joins.add(s)
	}
	record := *h.parent.Record
	var s standings
	for _, id := range crowd[:20] {
		worked(&s, id)
		s.at(id).Kept = h.round + 5
	}
	tell := func() (owners, others int) {
		for i, id := range crowd {
			if m.cfg.Self = id; m.wins(h) {
				if i < 20 {
					owners++
				} else {
					others++
				}
			}
		}
		return owners, others
	}
	if owners, others := tell(); owners+others != 1+spareRequests {
		t.Errorf("%d tell that they want the free seat", owners+others)
	}
	record.Standings = s
	h.parent.Record = &record
	if owners, others := tell(); owners != 1+spareRequests || others != 0 {
		t.Errorf("%d owners and %d others tell that they want the seat that is kept", owners, others)
	}
	changed.Seats += 2 // of seven, one at most is kept
	if owners, others := tell(); owners != 3+spareRequests || others != 2+spareRequests {
		t.Errorf("%d owners and %d others tell that they want one of three seats", owners, others)
	}
}
