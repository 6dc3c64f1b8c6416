package round

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// proof is two messages of one peer that no honest peer signs both of.
type proof struct{ first, second msg.Signed }

func (p proof) peer() peer.ID { return p.first.From }

func (p proof) message() msg.Proof {
	return msg.Proof{First: p.first.Envelope, Second: p.second.Envelope}
}

// newProof orders two messages; not ok if they prove nothing that a record can
// hold. Proposals are too large for it; their pledges are not.
func newProof(a, b msg.Signed) (proof, bool) {
	if compareCIDs(a.CID, b.CID) > 0 {
		a, b = b, a
	}
	p := proof{a, b}
	return p, p.valid() == nil
}

// valid checks what two messages prove: one kind of message, said once for each
// head, said twice.
func (p proof) valid() error {
	a, b := p.first, p.second
	if a.From != b.From || compareCIDs(a.CID, b.CID) >= 0 {
		return fmt.Errorf("a proof is of two messages of one peer, in order")
	}
	same := false
	switch a.Message.(type) {
	case *msg.Commit:
		_, same = b.Message.(*msg.Commit)
	case *msg.Have:
		_, same = b.Message.(*msg.Have)
	case *msg.Vote:
		_, same = b.Message.(*msg.Vote)
	case *msg.Pledge:
		return contradicting(a.Message.(*msg.Pledge), b.Message)
	}
	if !same {
		return fmt.Errorf("a proof is of two commits, haves, votes or pledges")
	}
	x, m, _ := slotOf(a.Message)
	y, n, _ := slotOf(b.Message)
	if !x.Equals(y) || m != n || !a.Message.RunID().Equals(b.Message.RunID()) {
		return fmt.Errorf("a proof is of two messages for one head")
	}
	return nil
}

// contradicting checks what two pledges prove: that somebody proposed two records in
// one attempt.
func contradicting(a *msg.Pledge, other msg.Message) error {
	b, ok := other.(*msg.Pledge)
	switch {
	case !ok:
		return fmt.Errorf("a proof is of two messages of one kind")
	case !a.Run.Equals(b.Run) || a.Round != b.Round || !a.Head.Equals(b.Head) || a.Attempt != b.Attempt || (a.Cell > 0) != (b.Cell > 0):
		return fmt.Errorf("a proof is of two pledges for one attempt")
	case a.Record.Equals(b.Record):
		return fmt.Errorf("a proof is of two pledges for different records")
	}
	return nil
}

// openProofs opens the proofs of a record. They are against seats of the round
// that are not banned yet, one for each.
func (ru *Rules) openProofs(parent *msg.Record, r *msg.Record, open opener) ([]proof, error) {
	var list []proof
	for _, e := range r.Proofs {
		first, err := open(e.First)
		if err != nil {
			return nil, err
		}
		second, err := open(e.Second)
		if err != nil {
			return nil, err
		}
		p := proof{first, second}
		if err := p.valid(); err != nil {
			return nil, err
		}
		_, pledges := first.Message.(*msg.Pledge)
		switch n := len(list); {
		case pledges && !ru.manifest.Pledges:
			return nil, fmt.Errorf("a proof is of pledges, which this run does not have")
		case !first.Message.RunID().Equals(ru.run):
			return nil, fmt.Errorf("a proof is of another run")
		case seatOf(r.Seats, p.peer()) < 0 || standings(parent.Standings).banned(p.peer()):
			return nil, fmt.Errorf("a proof is against %v, who has no seat or is banned already", p.peer())
		case n > 0 && bytes.Compare([]byte(list[n-1].peer()), []byte(p.peer())) >= 0:
			return nil, fmt.Errorf("the proof against %v is out of order", p.peer())
		}
		list = append(list, p)
	}
	return list, nil
}

// ban notes what proofs bring.
func (s *standings) ban(proofs []proof) {
	for _, p := range proofs {
		e := s.at(p.peer())
		e.Until, e.Reason = msg.MaxRound, msg.Equivocation
	}
}

const maxProofs = 64

// proofBook is the proofs that this peer knows of, one for each peer.
type proofBook struct{ list []proof } // sorted by peer

// add keeps a proof. When the book is full, one goes that the record after head
// has no use for: of a peer that is banned, or else of one without a seat.
func (b *proofBook) add(x, y msg.Signed, head *msg.Record) {
	p, ok := newProof(x, y)
	if !ok {
		return
	}
	if _, found := b.find(p); found {
		return
	}
	if len(b.list) >= maxProofs {
		i := slices.IndexFunc(b.list, func(o proof) bool { return standings(head.Standings).banned(o.peer()) })
		if i < 0 {
			i = slices.IndexFunc(b.list, func(o proof) bool { return seatOf(head.NextSeats, o.peer()) < 0 })
		}
		if i < 0 {
			return
		}
		b.list = slices.Delete(b.list, i, i+1)
	}
	i, _ := b.find(p)
	b.list = slices.Insert(b.list, i, p)
}

func (b *proofBook) find(p proof) (int, bool) {
	return slices.BinarySearchFunc(b.list, p, func(a, b proof) int {
		return bytes.Compare([]byte(a.peer()), []byte(b.peer()))
	})
}

// against returns the proofs that the next record can hold.
func (b *proofBook) against(parent *msg.Record) []proof {
	var out []proof
	for _, p := range b.list {
		if len(out) < msg.MaxProofs && seatOf(parent.NextSeats, p.peer()) >= 0 && !standings(parent.Standings).banned(p.peer()) {
			out = append(out, p)
		}
	}
	return out
}
