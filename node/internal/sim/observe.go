package sim

import (
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// observations are what somebody sees who sees everything.
type observations struct {
	certified map[cid.Cid]cid.Cid // record by parent
	verified  map[cid.Cid]bool    // records of which a certificate was verified
	forks     int                 // heads on which two records were certified
	evidence  map[int]bool        // nodes that contradicted themselves
	reorgs    int                 // times that a node left a branch
	// Merges that a node measured, and the losses (ours, theirs, merged) of the
	// last one that did not pass.
	gatesPassed, gatesFailed int
	gateLosses               [3]float64
	// firstAt and certifiedAt are when a record was adopted first, and when a
	// certificate for it was.
	firstAt, certifiedAt map[cid.Cid]time.Duration
	// onAdopt, if not nil, is told of each adopted record.
	onAdopt func(n *node, l round.Link)
	// onPublish, if not nil, is told of each message.
	onPublish func(n *node, s msg.Signed)
}

func newObservations() observations {
	return observations{
		certified: make(map[cid.Cid]cid.Cid), verified: make(map[cid.Cid]bool), evidence: make(map[int]bool),
		firstAt: make(map[cid.Cid]time.Duration), certifiedAt: make(map[cid.Cid]time.Duration),
	}
}

func (w *world) sawAdopt(n *node, links []round.Link) {
	w.changes++
	for _, l := range links {
		w.note('a', n, l.ID)
		if _, ok := w.seen.firstAt[l.ID]; !ok {
			w.seen.firstAt[l.ID] = w.now
		}
		if l.Certificate != nil {
			w.sawCertificate(l.ID, l.Record, l.Certificate)
		}
		if w.seen.onAdopt != nil {
			w.seen.onAdopt(n, l)
		}
	}
}

func (w *world) sawCertificate(id cid.Cid, r *msg.Record, c *msg.Certificate) {
	if !w.seen.verified[id] {
		if err := round.VerifyCertificate(c, id, r); err != nil {
			w.fail(err)
			return
		}
		w.seen.verified[id] = true
		w.seen.certifiedAt[id] = w.now
	}
	old, ok := w.seen.certified[r.Parent]
	if !ok {
		w.seen.certified[r.Parent] = id
	} else if !old.Equals(id) {
		w.seen.forks++
	}
}

// tally is what a chain says of a span of rounds.
type tally struct {
	rounds, certified int
	honestSeats       int    // seat-rounds of honest nodes in rounds that train
	included          int    // of their contributions
	excluded          int    // of their commits that were refused or judged damaging
	takenForCopies    int    // of those
	uncounted         int    // of their contributions that were worth nothing, or harmful, in the run's eyes
	liarWeight        uint64 // less what was taken back
	weight            uint64
	contributions     int
	merged            int
	mergedTokens      uint64
}

// tally counts what is in the chain of a node after a round, up to another one.
func (w *world) tally(n *node, after, to msg.Round) tally {
	var t tally
	for r := after + 1; r <= to; r++ {
		l, ok := n.chain.Record(r)
		if !ok {
			break
		}
		parent, _ := n.chain.Record(r - 1)
		t.rounds++
		if l.Certificate != nil {
			t.certified++
		}
		if m := l.Record.Merge; m != nil {
			t.merged++
			t.mergedTokens += m.Tokens
		}
		w.tallyRound(&t, parent, l, n.takenBack(r))
	}
	return t
}

// takenBack are the seats of a round whose contributions were undone by the
// record after it.
func (n *node) takenBack(r msg.Round) map[uint32]bool {
	gone := make(map[uint32]bool)
	if next, ok := n.chain.Record(r + 1); ok {
		for _, j := range next.Record.Judgements {
			if j.TakenBack {
				gone[j.Seat] = true
			}
		}
	}
	return gone
}

func (w *world) tallyRound(t *tally, parent, l round.Link, gone map[uint32]bool) {
	rec := l.Record
	is := func(s msg.Seat) bool { return w.nodes[w.index[s.Peer]].fault == honest }
	if !w.rules.Assembly(parent.Record) {
		for _, s := range rec.Seats {
			if is(s) {
				t.honestSeats++
			}
		}
	}
	cells := round.Cells(len(rec.Seats)) > 0
	if cells {
		w.tallyCells(t, parent, l)
	}
	for _, c := range rec.Contributions {
		if cells {
			break // they are of cells
		}
		t.contributions++
		weight := c.Weight
		if gone[c.Seat] {
			weight = 0
		}
		t.weight += weight
		if is(rec.Seats[c.Seat]) {
			t.included++
			if c.Reason == msg.Worthless || c.Reason == msg.Harmful {
				t.uncounted++
			}
		} else {
			t.liarWeight += weight
		}
	}
	for _, c := range rec.Refused {
		if !cells && is(rec.Seats[c.Seat]) && c.Reason != msg.NotHeld && c.Reason != msg.Timeout {
			t.excluded++
			if c.Reason == msg.Copy {
				t.takenForCopies++
			}
		}
	}
	for _, j := range rec.Judgements {
		if is(parent.Record.Seats[j.Seat]) && j.Verdict == msg.Damaging {
			t.excluded++
		}
	}
}

// tallyCells counts what the seats of a round with cells gave. What a cell has
// refused shows only in that a seat that was there is not included.
func (w *world) tallyCells(t *tally, parent, l round.Link) {
	rec := l.Record
	shares := w.rules.Shares(parent.Record, rec)
	gave := make(map[uint32]bool)
	for _, s := range shares {
		t.contributions++
		gave[s.Seat] = true
		weight := s.Counted * uint64(s.FactorQ16) >> 16
		t.weight += weight
		if w.nodes[w.index[rec.Seats[s.Seat].Peer]].fault == honest {
			t.included++
		} else {
			t.liarWeight += weight
		}
	}
	cells := round.CellsOf(rec.Parent, rec.Seats)
	for i, c := range rec.Contributions {
		res, _, err := msg.OpenAs[*msg.CellResult](rec.Commits[i])
		if err != nil {
			w.fail(err)
			return
		}
		for k, seat := range cells[c.Seat] {
			if msg.Has(res.Summary.Present, k) && !gave[uint32(seat)] && w.nodes[w.index[rec.Seats[seat].Peer]].fault == honest {
				t.excluded++
			}
		}
	}
}
