package round

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// TestPlaces: a witness lists requests of one network only up to its share, with
// the seats that it has already; it does not touch those seats, and lists whom
// it cannot see up to a larger share.
func TestPlaces(t *testing.T) {
	b := newBench(t, 4, 0)
	m := *b.node.m.cfg.Manifest
	b.node.m.cfg.Manifest, b.node.m.rules.manifest = &m, &m
	m.Seats = 32 // a share of 4, and of 8 for all whose network is not known
	var ids []peer.ID
	for i := range 40 {
		priv, id := testKey(200 + i)
		s, err := msg.Seal(priv, &msg.JoinRequest{Run: b.node.m.rules.run, Peer: id, Seq: 1})
		if err != nil {
			t.Fatal(err)
		}
		b.node.m.joins.add(s)
		ids = append(ids, id)
	}
	place := func(network func(i int) string, seats ...string) Seen {
		var ev Seen
		for i, id := range ids {
			ev.Places = append(ev.Places, Place{id, network(i)})
		}
		for i, n := range seats {
			ev.Places = append(ev.Places, Place{b.node.m.cur.seats[i].Peer, n})
		}
		return ev
	}
	for _, tt := range []struct {
		name string
		ev   Seen
		want int
	}{
		{"all of one network", place(func(int) string { return "10.9.8.0/24" }, Exempt, Exempt, Exempt, Exempt), 4},
		{"which has seats", place(func(int) string { return "10.9.8.0/24" }, "10.9.8.0/24", Exempt, Exempt, "10.9.8.0/24"), 2},
		{"and more than its share", place(func(int) string { return "a" }, "a", "a", "a", "a"), 0},
		{"of two", place(func(i int) string { return fmt.Sprint(i % 2) }, Exempt, Exempt, Exempt, Exempt), 8},
		{"unknown", place(func(int) string { return "" }, Exempt, Exempt, Exempt, Exempt), 8},
		{"unknown, like two seats", place(func(int) string { return "" }, Exempt, Exempt, "", ""), 6},
		{"of the own network", place(func(int) string { return Exempt }, Exempt, Exempt, Exempt, Exempt), 28},
		{"each of its own", place(func(i int) string { return fmt.Sprint(i) }, Exempt, Exempt, Exempt, Exempt), 28},
	} {
		changes := b.node.m.joins.changes
		b.node.m.seen(tt.ev)
		if b.node.m.joins.changes == changes {
			t.Errorf("%s: nothing is looked at again", tt.name)
		}
		if changes = b.node.m.joins.changes; true {
			b.node.m.seen(tt.ev)
		}
		if b.node.m.joins.changes != changes {
			t.Errorf("%s: the same changes something", tt.name)
		}
		joins, seats := b.node.m.useful(b.node.m.cur)
		if got := len(seats) - len(b.node.m.cur.seats); got != tt.want || len(joins) < tt.want {
			t.Errorf("%s: %d requests are useful, %d of them take effect; want %d", tt.name, len(joins), got, tt.want)
		}
	}
	b.node.m.places = nil
	if _, seats := b.node.m.useful(b.node.m.cur); len(seats) != 32 {
		t.Errorf("without places: %d seats", len(seats))
	}
}

// TestCrowd: a crowd of one network, which a liar among the witnesses lists too,
// gets no more than its share of a run; others come in beside it.
func TestCrowd(t *testing.T) {
	const n, crowd, seats = 4, 20, 16
	man := testManifest(func(m *run.Manifest) { m.MinPeers, m.Seats = n, seats })
	s := newSim(t, 3, n+crowd+4, man, simOpts{})
	for _, x := range s.nodes[:n] {
		x.start()
	}
	s.progress(time.Minute, 3, true)
	var ev Seen
	for i, x := range s.nodes {
		network := fmt.Sprint("home ", i)
		if i >= n && i < n+crowd {
			network = "hall"
		}
		ev.Places = append(ev.Places, Place{x.id, network})
	}
	for _, x := range s.nodes[:n-1] { // the last one lists everybody
		x.step(ev)
	}
	for _, x := range s.nodes[n : n+crowd] {
		x.start()
		x.step(ev)
	}
	s.progress(2*time.Minute, 4, false)
	for _, x := range s.nodes[n+crowd:] {
		x.start()
		x.step(ev)
	}
	s.progress(2*time.Minute, 4, false)
	of := make(map[bool]int)
	for _, seat := range s.nodes[0].chain.Head().Record.NextSeats {
		i := slices.IndexFunc(s.nodes, func(x *simNode) bool { return x.id == seat.Peer })
		of[i >= n && i < n+crowd]++
	}
	if of[true] != leastShare || of[false] != n+4 {
		t.Errorf("%d seats of the crowd, %d of others, want %d and %d", of[true], of[false], leastShare, n+4)
	}
}

// TestIdleLeave: who has no seat and asked for none cannot fill the pool of requests
// by leaving.
func TestIdleLeave(t *testing.T) {
	b := newBench(t, 4, 0)
	send := func(k int, leave bool) {
		priv, id := testKey(k)
		s, err := msg.Seal(priv, &msg.JoinRequest{Run: b.node.m.rules.run, Peer: id, Seq: uint64(k), Leave: leave})
		if err != nil {
			t.Fatal(err)
		}
		b.step(time.Millisecond, Received{s})
	}
	send(300, false)
	for k := range maxRequests + 10 {
		send(400+k, true)
	}
	if n := len(b.node.m.joins.peers); n != 1 {
		t.Errorf("%d requests are kept, want the one for a seat", n)
	}
	send(300, true)
	if s, ok := b.node.m.joins.byPeer[b.node.m.joins.peers[0]]; !ok || s.Message.(*msg.JoinRequest).Leave {
		t.Error("a lower number replaced the request")
	}
}
