package round

import (
	"bytes"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// opener opens an envelope; it may know the message already.
type opener func(envelope []byte) (msg.Signed, error)

// VerifyCertificate checks that c is a certificate of the record r with CID id:
// votes for it of at least a quorum of its seats, sorted by seat.
func VerifyCertificate(c *msg.Certificate, id cid.Cid, r *msg.Record) error {
	return verifyCertificate(c, id, r, msg.Open)
}

func verifyCertificate(c *msg.Certificate, id cid.Cid, r *msg.Record, open opener) error {
	if !c.Record.Equals(id) {
		return fmt.Errorf("certificate is of record %v, must be of %v", c.Record, id)
	}
	q, _ := Quorum(Witnesses(r.Seats))
	if len(c.Votes) < q || r.Round == 0 {
		return fmt.Errorf("certificate of record %v: %d votes, must be at least %d", id, len(c.Votes), q)
	}
	last := -1
	for _, e := range c.Votes {
		s, err := open(e)
		if err != nil {
			return fmt.Errorf("certificate of record %v: %w", id, err)
		}
		v, ok := s.Message.(*msg.Vote)
		if !ok || !v.Run.Equals(r.Run) || v.Round != r.Round || !v.Head.Equals(r.Parent) || !v.Record.Equals(id) {
			return fmt.Errorf("certificate of record %v: a vote for something else", id)
		}
		seat := seatOf(r.Seats, s.From)
		if seat <= last || r.Seats[seat].Trainee {
			return fmt.Errorf("certificate of record %v: the vote of %v is out of order or of no witness", id, s.From)
		}
		last = seat
	}
	return nil
}

// Verify checks a record that follows parent, which follows before, by all that it says itself: who
// proposed it, the messages it rests on, and that all else is their
// consequence. It returns that consequence. What is left is the fold of its
// Inputs, for Weigh to compare.
func (ru *Rules) Verify(before, parent Link, r *msg.Record) (*Consequence, error) {
	v, err := ru.verify(before, parent, r, msg.Open)
	if err != nil {
		return nil, err
	}
	return v.Consequence, nil
}

// verified is a record that keeps the rules, as far as can be told without the
// fold, and the messages inside.
type verified struct {
	*Consequence
	haves, commits, joins, orders, reports []msg.Signed
	proofs                                 []proof
}

func (ru *Rules) verify(before, parent Link, r *msg.Record, open opener) (*verified, error) {
	v, err := ru.unpack(before, parent, r, open)
	if err != nil {
		return nil, fmt.Errorf("record of round %d: %w", r.Round, err)
	}
	return v, nil
}

func (ru *Rules) unpack(before, parent Link, r *msg.Record, open opener) (*verified, error) {
	if err := ru.verifyFrame(parent, r, open); err != nil {
		return nil, err
	}
	v := &verified{}
	inside := make(map[cid.Cid]msg.Signed, len(r.Commits)+len(r.Joins))
	for i, list := range [][][]byte{r.Haves, r.Commits, r.Joins, r.Orders, r.Reports} {
		into := []*[]msg.Signed{&v.haves, &v.commits, &v.joins, &v.orders, &v.reports}[i]
		for _, e := range list {
			s, err := open(e)
			if err != nil {
				return nil, err
			}
			*into = append(*into, s)
			inside[s.CID] = s
			if res, ok := s.Message.(*msg.CellResult); ok {
				inside[res.Summary.CID()] = s
			}
		}
	}
	last := -1
	for _, s := range v.haves {
		h, ok := s.Message.(*msg.Have)
		if !ok || !ru.isHave(h, r.Round, r.Parent, slots(r.Seats), r.Cell) {
			return nil, fmt.Errorf("rests on a message of %v that is no have of this round", s.From)
		}
		seat := seatOf(r.Seats, s.From)
		if seat <= last {
			return nil, fmt.Errorf("the have of %v is out of order or of no seat", s.From)
		}
		last = seat
	}
	witnesses := len(ofWitnesses(v.haves, r.Seats))
	if q, _ := Quorum(Witnesses(r.Seats)); r.Attempt < msg.MaxAttempt && witnesses < q {
		return nil, fmt.Errorf("haves of witnesses are %d, must be at least %d", witnesses, q)
	}
	proofs, err := ru.openProofs(parent.Record, r, open)
	if err != nil {
		return nil, err
	}
	v.proofs = proofs
	v.Consequence = ru.consequenceOf(Basis{
		Fallback: r.Attempt == msg.MaxAttempt, Before: before, Parent: parent, Haves: v.haves, Proofs: proofs,
		Find:   func(id cid.Cid) (msg.Signed, bool) { s, ok := inside[id]; return s, ok },
		Report: reportIn(v.reports),
	})
	return v, v.matches(r)
}

// verifyFrame checks what is not the consequence of the haves.
func (ru *Rules) verifyFrame(parent Link, r *msg.Record, open opener) error {
	p := parent.Record
	switch {
	case !r.Run.Equals(ru.run):
		return fmt.Errorf("is of run %v, must be of %v", r.Run, ru.run)
	case !r.Parent.Equals(parent.ID) || r.Round != p.Round+1:
		return fmt.Errorf("parent is %v, must be %v of round %d", r.Parent, parent.ID, p.Round)
	case r.Cell != p.Cell:
		return fmt.Errorf("is of cell %d, must be of %d", r.Cell, p.Cell)
	case r.Cell > 0 && (r.ParentCertificate != nil || r.Attempt == msg.MaxAttempt):
		return fmt.Errorf("a cell's record has a certificate or is of the fallback, must not")
	case p.Final:
		return fmt.Errorf("the parent is final, must have no successor")
	case len(r.Seats) != len(p.NextSeats):
		return fmt.Errorf("seats are %d, must be the parent's next seats, %d", len(r.Seats), len(p.NextSeats))
	}
	for i, s := range r.Seats {
		if s != p.NextSeats[i] {
			return fmt.Errorf("seat %d is not that of the parent's next seats", i)
		}
	}
	if r.Attempt < msg.MaxAttempt {
		order := Proposers(parent.ID, r.Seats)
		if want := r.Seats[order[int(r.Attempt)%len(order)]].Peer; r.Proposer != want {
			return fmt.Errorf("proposer is %v, must be %v in attempt %d", r.Proposer, want, r.Attempt)
		}
	}
	if c := r.ParentCertificate; c != nil && !sameCertificate(c, parent.Certificate) {
		return verifyCertificate(c, parent.ID, p, open)
	}
	return nil
}

func sameCertificate(a, b *msg.Certificate) bool {
	if a == nil || b == nil || !a.Record.Equals(b.Record) || len(a.Votes) != len(b.Votes) {
		return false
	}
	for i := range a.Votes {
		if !bytes.Equal(a.Votes[i], b.Votes[i]) {
			return false
		}
	}
	return true
}

// isHave reports whether h may be among the haves of a round on head.
func (ru *Rules) isHave(h *msg.Have, round msg.Round, head cid.Cid, seats int, cell uint32) bool {
	n := len(h.Entries)
	return h.Run.Equals(ru.run) && h.Cell == cell && h.Round == round && h.Head.Equals(head) &&
		(n == 0 || int(h.Entries[n-1].Seat) < seats)
}

// matches compares r with the consequence, but for what the fold gives.
func (v *verified) matches(r *msg.Record) error {
	if len(v.Missing) > 0 {
		return fmt.Errorf("a report that must be included is not there or not valid")
	}
	if len(v.Blocked) > 0 {
		return fmt.Errorf("%v, a commit that must be included or the record before the parent, is not there or not valid", v.Blocked[0])
	}
	want := *v.Record
	want.ParentCertificate, want.Attempt, want.Proposer = r.ParentCertificate, r.Attempt, r.Proposer
	if len(want.Contributions) != len(r.Contributions) {
		return fmt.Errorf("contributions are %d, must be %d", len(r.Contributions), len(want.Contributions))
	}
	if v.Folds() {
		want.State = r.State
	}
	want.Contributions = append([]msg.Contribution(nil), want.Contributions...)
	for i, e := range r.Contributions {
		want.Contributions[i].Weight, want.Contributions[i].ClipQ16 = e.Weight, e.ClipQ16
	}
	got, err := r.Encode()
	if err != nil {
		return err
	}
	if b, err := want.Encode(); err != nil || !bytes.Equal(got, b) {
		return fmt.Errorf("is not the consequence of its haves")
	}
	return nil
}

// weigh completes the consequence by what the fold gave.
func (c *Consequence) weigh(f Folded) *msg.Record {
	r := *c.Record
	r.State = f.State
	r.Contributions = append([]msg.Contribution(nil), r.Contributions...)
	for i, a := range f.Applied {
		r.Contributions[i].Weight, r.Contributions[i].ClipQ16 = a.Weight, a.ClipQ16
	}
	return &r
}

// Weigh checks that r says of state, weights and clips what the fold gave.
func Weigh(r *msg.Record, f Folded) error {
	if !r.State.Equals(f.State) {
		return fmt.Errorf("record of round %d: state is %v, must be %v", r.Round, r.State, f.State)
	}
	if len(f.Applied) != len(r.Contributions) {
		return fmt.Errorf("record of round %d: %d contributions, must be %d", r.Round, len(r.Contributions), len(f.Applied))
	}
	for i, a := range f.Applied {
		if e := r.Contributions[i]; e.Weight != a.Weight || e.ClipQ16 != a.ClipQ16 {
			return fmt.Errorf("record of round %d: weight or clip of seat %d is not that of the fold", r.Round, e.Seat)
		}
	}
	return nil
}
