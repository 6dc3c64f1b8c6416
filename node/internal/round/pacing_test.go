package round

import (
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
)

// saidAgain counts the messages of a kind that a time of ticks publishes.
func saidAgain[M msg.Message](b *bench, d, tick time.Duration) int {
	n := 0
	for range d / tick {
		b.step(tick, Tick{})
		for _, e := range effects[Publish](b) {
			if _, ok := e.Signed.Message.(M); ok {
				n++
			}
		}
	}
	return n
}

// TestHeartbeatsShareARate: the more seats, the rarer is each one's heartbeat,
// and a head that is new to all is not told by all at once.
func TestHeartbeatsShareARate(t *testing.T) {
	b := newBench(t, 4, 3)
	m := b.node.m
	period := m.timing.Deadline
	for _, seats := range []int{4, 32, 48} {
		m.head.Record = &msg.Record{Round: 3, NextSeats: testSeats(seats), State: m.head.Record.State}
		every := m.heartbeatEvery(m.head.Record.NextSeats[0].Peer)
		if n := int(period/every) * seats; n > heartbeatsPerPeriod+seats {
			t.Errorf("%d seats say %d heartbeats in a period, want at most %d", seats, n, heartbeatsPerPeriod)
		}
		if every < m.timing.Status {
			t.Errorf("%d seats: a heartbeat every %v, must not be below %v", seats, every, m.timing.Status)
		}
	}
	turns := make(map[time.Duration]bool)
	for _, s := range testSeats(32) {
		turn := part(period, b.head().ID, s.Peer)
		if turn < 0 || turn >= period {
			t.Errorf("turn is %v of %v", turn, period)
		}
		turns[turn.Round(period/64)] = true
	}
	if len(turns) < 16 {
		t.Errorf("32 peers have %d turns", len(turns))
	}
}

func testSeats(n int) []msg.Seat {
	var list []msg.Seat
	for i := range n {
		_, id := testKey(i)
		at, _ := standings(nil).find(id)
		for at < len(list) && list[at].Peer < id {
			at++
		}
		list = append(list[:at], append([]msg.Seat{{Peer: id, Since: 1}}, list[at:]...)...)
	}
	return list
}

// TestPassesOn: with many peers the heartbeats of those without a seat stay with
// their neighbours, and what belongs to a certified round is not passed on.
func TestPassesOn(t *testing.T) {
	_, stranger := testKey(99)
	_, seated := testKey(1)
	head := Link{Record: &msg.Record{Round: 7, NextSeats: testSeats(4)}, Certificate: &msg.Certificate{}}
	provisional := Link{Record: head.Record}
	for _, tt := range []struct {
		name    string
		head    Link
		members int
		m       msg.Message
		want    bool
	}{
		{"a seat's heartbeat", head, 500, &msg.Status{Peer: seated}, true},
		{"a stranger's heartbeat", head, 500, &msg.Status{Peer: stranger}, false},
		{"a stranger's heartbeat among few", head, 5, &msg.Status{Peer: stranger}, true},
		{"a vote of the round under way", head, 5, &msg.Vote{Round: 8}, true},
		{"a vote of a certified round", head, 5, &msg.Vote{Round: 7}, false},
		{"a vote of a provisional round", provisional, 5, &msg.Vote{Round: 7}, true},
		{"a proposal of a round before", provisional, 5, &msg.Proposal{Round: 6}, false},
		{"a request", head, 500, &msg.JoinRequest{Peer: stranger}, true},
	} {
		if got := passesOn(tt.head, tt.members, msg.Signed{Message: tt.m, From: tt.m.Signer()}); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestRepeats: an own message is published again until others show that they
// have it, a commit rarely before haves are given.
func TestRepeats(t *testing.T) {
	b := newBench(t, 4, 3)
	m := b.node.m
	repeat := m.timing.Repeat
	b.train()
	if n := saidAgain[*msg.Commit](b, 3*repeat/2, repeat/2); n != 0 {
		t.Errorf("a commit that nobody waits for was published again %d times", n)
	}
	if n := saidAgain[*msg.Commit](b, repeat, repeat/2); n != 1 {
		t.Errorf("a commit was published again %d times, want once", n)
	}
	// The deadline brings the have; nobody answers.
	b.step(b.node.m.cur.began.Add(m.timing.Deadline).Sub(b.now), Tick{})
	if _, ok := sent[*msg.Have](b); !ok {
		t.Fatal("no have at the deadline")
	}
	if n := saidAgain[*msg.Have](b, 2*repeat, repeat/2); n != 2 {
		t.Errorf("a have without an answer was published again %d times, want twice", n)
	}
	if n := saidAgain[*msg.Commit](b, 2*repeat, repeat/2); n != 2 {
		t.Errorf("a commit that haves wait for was published again %d times, want twice", n)
	}
	h := m.cur
	own := *m.own.at(h.parent.ID).have
	for _, o := range b.others() {
		b.receive(o, &msg.Have{Run: b.runID, Round: h.round, Head: h.parent.ID, Peer: o.id})
	}
	if n := saidAgain[*msg.Commit](b, 4*repeat, repeat/2); n != 0 {
		t.Errorf("a commit was published again %d times when all haves are given", n)
	}
	if h.heard(own) {
		t.Error("the have was heard, before any record rests on it")
	}
	h.candidates = append(h.candidates, &candidate{record: &msg.Record{Haves: [][]byte{own.Envelope}}, state: bad})
	if !h.heard(own) {
		t.Error("the have was not heard, though a record rests on it")
	}
}

// TestRequestsInTurn: of many who want one seat, only those that would get it
// tell everybody.
func TestRequestsInTurn(t *testing.T) {
	b := newBench(t, 4, 3)
	m := b.node.m
	h := m.cur
	room := int(b.manifest.Seats) - len(h.seats)
	told := 0
	const all = 200
	for i := range all {
		_, id := testKey(1000 + i)
		m.joins.add(msg.Signed{Message: &msg.JoinRequest{Peer: id, Seq: 1}, From: id, CID: testCID(id.String())})
	}
	self := m.cfg.Self
	for i := range all {
		_, m.cfg.Self = testKey(1000 + i)
		if m.wins(h) {
			told++
		}
	}
	if told < room || told > room+2 {
		t.Errorf("%d of %d tell, for %d seats", told, all, room)
	}
	// A full run has no room for anybody.
	full := *b.manifest
	full.Seats = uint32(len(h.seats))
	m.cfg.Manifest, m.rules.manifest, m.cfg.Self = &full, &full, self
	if m.wins(h) {
		t.Error("a request was told though there is no seat")
	}
}
