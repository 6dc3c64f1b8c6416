package runner

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// What is sent to a seat of a cell reaches it, from who signed it and from
// nobody else.
func TestTellCell(t *testing.T) {
	t.Parallel()
	a := newNode(t, 71)
	b := newNode(t, 72, a.addr())
	man := launch(t, a, func(m *run.Manifest) { m.Seats, m.MaxRounds = 1, 1000 })
	ra, _ := a.takePart(t, man)
	rb, _ := b.takePart(t, man)
	until(t, "first round", func() bool { return rb.ledger.Head().Record.Round > 0 })
	head := ra.ledger.Head()
	s, err := msg.Seal(a.key, &msg.Status{
		Run: ra.id, Peer: a.hub.self, Seq: 1 << 50, Head: head.ID, Round: head.Record.Round + 1, Device: "told by hand",
	})
	if err != nil {
		t.Fatal(err)
	}
	ra.tellCell(t.Context(), s, []peer.ID{a.hub.self, b.hub.self})
	until(t, "message at the other node", func() bool {
		for _, m := range rb.Detail().Members {
			if m.Device == "told by hand" {
				return true
			}
		}
		return false
	})
	other := *s.Message.(*msg.Status)
	other.Run = rawCID(t, "another run")
	elsewhere, err := msg.Seal(a.key, &other)
	if err != nil {
		t.Fatal(err)
	}
	_, launcher := nodeKey(t, 90)
	_, stranger := nodeKey(t, 91)
	b.host.Prefer("", []peer.ID{launcher})
	for _, tt := range []struct {
		name string
		from peer.ID
		b    []byte
		want string
	}{
		{"somebody else's", launcher, s.Envelope, "not of who brought it"},
		{"of one without a seat", stranger, s.Envelope, "not in that run"},
		{"of another run", a.hub.self, elsewhere.Envelope, "not in that run"},
		{"no message", a.hub.self, []byte("x"), "envelope"},
	} {
		if _, err := b.hub.answerCell(t.Context(), tt.from, tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// The contributions of a round with cells are shares of what the cells gave.
func TestSharesOfCells(t *testing.T) {
	key, self := nodeKey(t, 1)
	rec := &msg.Record{Round: 5, Parent: rawCID(t, "parent")}
	for i := range 50 {
		_, id := nodeKey(t, 1+i)
		rec.Seats = append(rec.Seats, msg.Seat{Peer: id, Since: 1})
	}
	members := round.CellsOf(rec.Parent, rec.Seats)[1]
	sum := msg.CellSummary{
		Run: rawCID(t, "run"), Round: 5, Head: rec.Parent, Cell: 2, Record: rawCID(t, "r"), Aggregate: rawCID(t, "m"), Weight: 900, Tokens: 900,
		Present: make([]byte, 4), Included: make([]byte, 4),
	}
	for _, k := range []int{0, 3, 7} {
		msg.SetBit(sum.Present, k)
		msg.SetBit(sum.Included, k)
	}
	s, err := msg.Seal(key, &msg.CellResult{Summary: sum, Peer: self, Votes: []msg.CellVote{{Seat: 0, Signature: make([]byte, 64)}}})
	if err != nil {
		t.Fatal(err)
	}
	rec.Commits = [][]byte{s.Envelope}
	rec.Contributions = []msg.Contribution{{Seat: 1, Commit: sum.CID(), Delta: sum.Aggregate, Tokens: 900, Weight: 600, ClipQ16: 1 << 16}}
	got := sharesOfCells(nil, rec)
	if len(got) != 3 {
		t.Fatalf("%d shares, want 3", len(got))
	}
	for i, k := range []int{0, 3, 7} {
		if c := got[i]; c.Peer != rec.Seats[members[k]].Peer.String() || c.Tokens != 300 || c.Weight != 200 || c.Clip != 1 {
			t.Errorf("share %d is %+v", i, c)
		}
	}
	if meanLoss(got) != nil {
		t.Error("shares have a loss")
	}
	// With audits it is known what each gave, and why it counts for nothing.
	share := func(k int, tokens uint64, factor uint32, reason msg.Reason) round.Share {
		return round.Share{Seat: uint32(members[k]), Cell: 2, Tokens: tokens, Counted: tokens, FactorQ16: factor, Reason: reason}
	}
	got = sharesOfCells([]round.Share{share(0, 100, 1<<16, 0), share(3, 300, 1<<16, 0), share(7, 500, 0, msg.Probation)}, rec)
	for i, want := range []struct {
		tokens, weight uint64
		reason         string
	}{{100, 150, ""}, {300, 450, ""}, {500, 0, "probation"}} {
		if c := got[i]; c.Tokens != want.tokens || c.Weight != want.weight || c.Reason != want.reason {
			t.Errorf("share %d is %+v, want %+v", i, c, want)
		}
	}
	if comparableDeltas(48) != 48 || comparableDeltas(256) != 32 {
		t.Error("deltas are compared with those of other cells")
	}
}
