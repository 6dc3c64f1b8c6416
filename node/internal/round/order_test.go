package round

import (
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// order is one of the peer with a key.
func (s *scene) order(key int, seq uint64, change func(*msg.Order)) cid.Cid {
	priv, id := testKey(key)
	o := &msg.Order{Run: s.rules.run, Peer: id, Seq: seq, Action: msg.ActionPause}
	if change != nil {
		change(o)
	}
	return s.seal(priv, o).CID
}

// TestOrdered: which orders take effect, and what they make of the run.
func TestOrdered(t *testing.T) {
	stop := func(o *msg.Order) { o.Action = msg.ActionStop }
	extend := func(o *msg.Order) { o.Action, o.MaxRounds, o.RatePermille = msg.ActionSet, 99, 250 }
	paused := msg.Course{Seq: 1, Paused: true}
	for _, tt := range []struct {
		name   string
		work   []uint64 // of keys 1, 2, …
		before *msg.Course
		orders func(s *scene) []cid.Cid
		want   *msg.Course
		gave   int
	}{
		{"none", nil, nil, func(*scene) []cid.Cid { return nil }, nil, 0},
		{"none after one", nil, &paused, func(*scene) []cid.Cid { return nil }, &paused, 0},
		{"launcher", nil, nil, func(s *scene) []cid.Cid { return []cid.Cid{s.order(0, 1, nil)} }, &paused, 1},
		{"launcher resumes", nil, &paused, func(s *scene) []cid.Cid {
			return []cid.Cid{s.order(0, 2, func(o *msg.Order) { o.Action = msg.ActionResume })}
		}, &msg.Course{Seq: 2}, 1},
		{"an old one", nil, &paused, func(s *scene) []cid.Cid { return []cid.Cid{s.order(0, 1, stop)} }, &paused, 0},
		{"the higher of two", nil, nil, func(s *scene) []cid.Cid {
			return []cid.Cid{s.order(0, 3, stop), s.order(0, 2, nil)}
		}, &msg.Course{Seq: 3, Stopped: true}, 1},
		{
			"what is set stays", nil, &paused, func(s *scene) []cid.Cid { return []cid.Cid{s.order(0, 5, extend)} },
			&msg.Course{Seq: 5, Paused: true, MaxRounds: 99, RatePermille: 250}, 1,
		},
		{"a peer without work", []uint64{0, 7}, nil, func(s *scene) []cid.Cid { return []cid.Cid{s.order(1, 1, nil)} }, nil, 0},
		{"too little work", []uint64{100, 100, 101}, nil, func(s *scene) []cid.Cid {
			return []cid.Cid{s.order(1, 1, nil), s.order(2, 1, nil)}
		}, nil, 0},
		{"two thirds of the work", []uint64{100, 100, 100}, nil, func(s *scene) []cid.Cid {
			return []cid.Cid{s.order(1, 1, nil), s.order(2, 1, nil)}
		}, &paused, 2},
		{"not the same", []uint64{100, 100, 100}, nil, func(s *scene) []cid.Cid {
			return []cid.Cid{s.order(1, 1, nil), s.order(2, 1, stop), s.order(3, 2, nil)}
		}, nil, 0},
		{"for other reasons", []uint64{100, 100, 100}, nil, func(s *scene) []cid.Cid {
			return []cid.Cid{s.order(1, 1, func(o *msg.Order) { o.Note = "rain" }), s.order(2, 1, nil)}
		}, &paused, 2},
		{"one that says it twice", []uint64{100, 100, 100}, nil, func(s *scene) []cid.Cid {
			return []cid.Cid{s.order(1, 1, func(o *msg.Order) { o.Note = "rain" }), s.order(1, 1, nil)}
		}, nil, 0},
		{"very much work", []uint64{1 << 60, 1 << 60, 1 << 60}, nil, func(s *scene) []cid.Cid { return []cid.Cid{s.order(1, 1, nil)} }, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, 1, func(_ *run.Manifest, r *msg.Record) {
				r.Course = tt.before
				for i, w := range tt.work {
					_, id := testKey(i + 1)
					r.Standings = append(r.Standings, msg.Standing{Peer: id, Work: w})
				}
				slices.SortFunc(r.Standings, func(a, b msg.Standing) int { return comparePeers(a.Peer, b.Peer) })
			})
			ids := tt.orders(s)
			slices.SortFunc(ids, compareCIDs)
			have := s.seal(s.keys[0], &msg.Have{Run: s.rules.run, Round: 9, Head: s.parent.ID, Peer: s.seat(0), Orders: ids})
			r := s.record(s.consequence(have))
			switch {
			case (r.Course == nil) != (tt.want == nil), r.Course != nil && *r.Course != *tt.want:
				t.Errorf("course is %+v, want %+v", r.Course, tt.want)
			case len(r.Orders) != tt.gave:
				t.Errorf("%d orders took effect, want %d", len(r.Orders), tt.gave)
			case r.Final != (tt.want != nil && tt.want.Stopped):
				t.Errorf("final is %v", r.Final)
			}
			if _, err := s.rules.Verify(Link{}, s.parent, r); err != nil {
				t.Error(err)
			}
			r.Course = &msg.Course{Seq: 9, Stopped: true}
			if _, err := s.rules.Verify(Link{}, s.parent, r); err == nil {
				t.Error("a record with a course that nobody ordered is valid")
			}
		})
	}
}

// TestOrderOfMany: with four witnesses an order that one lists has no effect.
func TestOrderOfMany(t *testing.T) {
	s := newScene(t, 4, nil)
	id := s.order(0, 1, nil)
	have := func(seat int, orders ...cid.Cid) msg.Signed {
		return s.seal(s.keys[seat], &msg.Have{Run: s.rules.run, Round: 9, Head: s.parent.ID, Peer: s.seat(seat), Orders: orders})
	}
	if c := s.consequence(have(0, id), have(1), have(2)); c.Record.Course != nil {
		t.Error("what one of four lists took effect")
	}
	c := s.consequence(have(0, id), have(1, id), have(2))
	if c.Record.Course == nil || !c.Record.Course.Paused {
		t.Fatal("what two of four list took no effect")
	}
	// Who does not know the order cannot tell what it does, and says so.
	delete(s.known, id)
	if c := s.consequence(have(0, id), have(1, id), have(2)); c.Record.Course != nil || len(c.Unknown) != 1 {
		t.Errorf("an unknown order: course %+v, unknown %v", c.Record.Course, c.Unknown)
	}
}

func (n *simNode) give(o msg.Order) { n.step(Give{Order: o}) }

// head is that of the first node which is up.
func (s *sim) someHead() *msg.Record {
	for _, n := range s.nodes {
		if n.up {
			return n.chain.Head().Record
		}
	}
	s.t.Fatal("nobody is up")
	return nil
}

// TestPause: an order pauses a run until another one, also after the launcher
// has gone; meanwhile nothing trains and few records are made.
func TestPause(t *testing.T) {
	s := running(t, 31, 4, simOpts{}, 1)
	s.nodes[0].give(msg.Order{Action: msg.ActionPause})
	if !s.runUntil(time.Minute, func() bool { return Paused(s.someHead()) }) {
		t.Fatalf("not paused:\n%s", s.describe())
	}
	s.runFor(5 * time.Second)
	trained, round := s.someHead().TrainedRounds, s.someHead().Round
	s.runFor(10 * time.Minute) // 60 periods
	if h := s.someHead(); h.TrainedRounds != trained || h.Round > round+11 || h.Round < round+5 {
		t.Errorf("after ten minutes of pause: round %d and %d trained, before %d and %d", h.Round, h.TrainedRounds, round, trained)
	}
	// Peers come and go meanwhile.
	s.nodes[4].start()
	if !s.runUntil(time.Minute, func() bool { return seatOf(s.someHead().NextSeats, s.nodes[4].id) >= 0 }) {
		t.Errorf("nobody is let in while the run is paused\n%s", s.describe())
	}
	// Another than the launcher has no say without audited work.
	s.nodes[1].give(msg.Order{Action: msg.ActionResume})
	s.runFor(time.Minute)
	if !Paused(s.someHead()) {
		t.Fatal("somebody resumed the run")
	}
	s.nodes[0].give(msg.Order{Action: msg.ActionResume})
	s.nodes[0].stop()
	s.nodes[0].start() // it gave the order before it was killed
	if !s.runUntil(20*time.Second, func() bool { return !Paused(s.someHead()) }) {
		t.Fatalf("not resumed:\n%s", s.describe())
	}
	s.progress(time.Minute, 3, true)
	if h := s.someHead(); h.TrainedRounds < trained+2 {
		t.Errorf("%d rounds trained, before the pause %d", h.TrainedRounds, trained)
	}
}

// TestOrdersStop: a run is over when an order says so, or later than its
// manifest says.
func TestOrdersStop(t *testing.T) {
	t.Run("stop", func(t *testing.T) {
		s := running(t, 33, 4, simOpts{}, 1)
		s.nodes[0].give(msg.Order{Action: msg.ActionStop, Note: "enough"})
		final := func() bool {
			return !slices.ContainsFunc(s.nodes[:4], func(n *simNode) bool { return !n.chain.Head().Record.Final })
		}
		if !s.runUntil(time.Minute, final) {
			t.Fatalf("not final:\n%s", s.describe())
		}
		s.nodes[4].start()
		s.runFor(time.Minute)
		if h := s.nodes[4].chain.Head().Record; !h.Final || !h.Course.Stopped || len(h.Orders) != 1 {
			t.Errorf("who comes later is at round %d with %+v", h.Round, h.Course)
		}
	})
	t.Run("extend", func(t *testing.T) {
		s := newSim(t, 35, 3, testManifest(func(m *run.Manifest) { m.MinPeers, m.MaxRounds = 3, 3 }), simOpts{})
		s.startAll()
		s.runUntil(time.Minute, func() bool { return s.someHead().TrainedRounds == 1 })
		s.nodes[0].give(msg.Order{Action: msg.ActionSet, MaxRounds: 6})
		if !s.runUntil(3*time.Minute, func() bool { return s.someHead().Final }) {
			t.Fatalf("not final:\n%s", s.describe())
		}
		if n := s.someHead().TrainedRounds; n != 6 {
			t.Errorf("%d rounds trained, want 6", n)
		}
	})
}

// TestOrderOfTheWork: when the launcher has gone, who did two thirds of the work
// can change the course.
func TestOrderOfTheWork(t *testing.T) {
	s := newSim(t, 37, 4, testManifest(func(m *run.Manifest) {
		m.MinPeers, m.Trust = 4, run.Trust{Auditors: 3, AuditSamples: 1}
	}), simOpts{})
	s.startAll()
	worked := func() bool {
		r := s.someHead()
		return len(orderWork(r)) == 4 && r.TrainedRounds > 3
	}
	if !s.runUntil(3*time.Minute, worked) {
		t.Fatalf("no audited work:\n%s", s.describe())
	}
	s.nodes[0].stop()
	s.progress(2*time.Minute, 3, true)
	s.nodes[1].give(msg.Order{Action: msg.ActionPause})
	s.runFor(time.Minute)
	if s.someHead().Course != nil || Paused(s.nodes[2].chain.Head().Record) {
		t.Fatal("one of four paused the run")
	}
	// Everybody sees who gave it, and how much that is of the work.
	for _, n := range s.nodes[1:] {
		list := n.m.View().Orders
		if len(list) != 1 || list[0].Order.Action != msg.ActionPause || !slices.Equal(list[0].Peers, []peer.ID{s.nodes[1].id}) || list[0].Launcher ||
			list[0].Work == 0 || 3*list[0].Work >= 2*list[0].Total {
			t.Errorf("pending are %+v", list)
		}
	}
	s.nodes[2].give(msg.Order{Action: msg.ActionPause, Note: "the launcher has gone"})
	s.nodes[3].give(msg.Order{Action: msg.ActionPause})
	if !s.runUntil(time.Minute, func() bool { return Paused(s.nodes[1].chain.Head().Record) }) {
		t.Fatalf("not paused by three of four:\n%s", s.describe())
	}
	if n := len(s.nodes[1].chain.Head().Record.Orders); n < 2 {
		t.Errorf("%d orders are in the record", n)
	}
	if list := s.nodes[1].m.View().Orders; len(list) != 0 {
		t.Errorf("still pending: %+v", list)
	}
}

// TestPendingOrders: the same order of several is one, with the work of all who
// give it; the launcher's needs none.
func TestPendingOrders(t *testing.T) {
	s := newScene(t, 1, func(_ *run.Manifest, r *msg.Record) {
		for i, w := range []uint64{100, 30, 70} {
			_, id := testKey(i + 1)
			r.Standings = append(r.Standings, msg.Standing{Peer: id, Work: w})
		}
		slices.SortFunc(r.Standings, func(a, b msg.Standing) int { return comparePeers(a.Peer, b.Peer) })
	})
	m := &Machine{rules: s.rules, head: s.parent}
	for key, change := range []func(*msg.Order){
		func(o *msg.Order) { o.Action = msg.ActionStop },
		func(o *msg.Order) { o.Note = "rain" }, nil,
		func(o *msg.Order) { o.Action, o.MaxRounds = msg.ActionSet, 9 },
	} {
		m.addOrder(s.known[s.order(key, 1, change)])
	}
	_, launcher := testKey(0)
	list := m.pending()
	if len(list) != 3 || len(list[0].Peers) != 2 || list[0].Work != 130 || list[0].Total != 200 || !slices.Contains(list[0].Notes, "rain") {
		t.Fatalf("pending are %+v", list)
	}
	if p := list[1]; p.Order.MaxRounds != 9 || p.Work != 70 || p.Launcher {
		t.Errorf("second is %+v", p)
	}
	if p := list[2]; p.Order.Action != msg.ActionStop || p.Work != 0 || !p.Launcher || p.Peers[0] != launcher {
		t.Errorf("third is %+v", p)
	}
}
