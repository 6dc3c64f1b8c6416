package round

import (
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// skipsAfter are the skips of the record that follows parent: for each power of
// two the last record before it whose round is a multiple of that.
func skipsAfter(parent Link) []cid.Cid {
	n := msg.SkipCount(parent.Record.Round + 1)
	list := make([]cid.Cid, n)
	for i := range list {
		if parent.Record.Round%(2<<i) == 0 {
			list[i] = parent.ID
		} else {
			list[i] = parent.Record.Skips[i]
		}
	}
	return list
}

// linked reports whether r names the record known as one before it. All records
// name their run, and with it the genesis record.
func linked(known Link, r *msg.Record) bool {
	return known.Record.Round == 0 || r.Parent.Equals(known.ID) || slices.ContainsFunc(r.Skips, known.ID.Equals)
}

// step checks one step of a proof: from a record that is known to be of the
// run's chain to a later one. The later one names the earlier one, a quorum of
// its own seats voted for it, and so did more than half of the witnesses among the
// earlier one's next seats; of its parent, the seats are those that follow.
func step(known, next Link) error {
	if err := mayFollow(known, next); err != nil {
		return err
	}
	return verifyCertificate(next.Certificate, next.ID, next.Record, msg.Open)
}

// mayFollow is step without the signatures, for certificates that were checked.
func mayFollow(known, next Link) error {
	r := next.Record
	fail := func(format string, args ...any) error {
		return fmt.Errorf("record %v of round %d: %s", next.ID, r.Round, fmt.Sprintf(format, args...))
	}
	switch {
	case !r.Run.Equals(known.Record.Run):
		return fail("is of run %v, must be of %v", r.Run, known.Record.Run)
	case r.Round <= known.Record.Round:
		return fail("must be after round %d", known.Record.Round)
	case !linked(known, r):
		return fail("does not name the record of round %d", known.Record.Round)
	case next.Certificate == nil:
		return fail("has no certificate")
	case r.Round == known.Record.Round+1 && !slices.Equal(r.Seats, known.Record.NextSeats):
		return fail("has other seats than follow from its parent")
	}
	seats, n := known.Record.NextSeats, 0
	voters := next.Certificate.Voters()
	for _, s := range seats {
		if !s.Trainee && slices.Contains(voters, s.Peer) {
			n++
		}
	}
	if half := Witnesses(seats) / 2; n <= half {
		return fail("has votes of %d witnesses of round %d, must have more than %d", n, known.Record.Round+1, half)
	}
	return nil
}

// VerifyProof checks a proof that a record is of the chain of a run, without the
// records between: each step follows the one before, the first one known. It
// returns the steps; the last is the record.
func (ru *Rules) VerifyProof(known Link, steps []Item) ([]Link, error) {
	if !known.Record.Run.Equals(ru.run) {
		return nil, fmt.Errorf("proof of head: the known record is of run %v, not %v", known.Record.Run, ru.run)
	}
	var links []Link
	for _, item := range steps {
		next, err := item.link()
		if err != nil {
			return nil, fmt.Errorf("proof of head: %w", err)
		}
		if err := step(known, next); err != nil {
			return nil, fmt.Errorf("proof of head: %w", err)
		}
		links, known = append(links, next), next
	}
	return links, nil
}

// link decodes an item. What it says is not checked.
func (i Item) link() (Link, error) {
	r, err := msg.DecodeRecord(i.Record)
	if err != nil {
		return Link{}, err
	}
	l := Link{ID: msg.RawCID(i.Record), Record: r}
	if len(i.Certificate) > 0 {
		l.Certificate, err = msg.DecodeCertificate(i.Certificate)
	}
	return l, err
}

// Prove returns the rounds of a proof that leads from the record of round from to
// that of round to, or as near to it as there is one of at most so many steps; at
// gives the records, whose certificates were checked. It looks at a few records for
// each step.
func Prove(from, to msg.Round, most int, at func(msg.Round) (Link, bool)) []msg.Round {
	known, ok := at(from)
	if !ok {
		return nil
	}
	var steps []msg.Round
	for known.Record.Round < to && len(steps) < most {
		next, ok := farthest(known, to, at)
		if !ok {
			break
		}
		steps = append(steps, next.Record.Round)
		known = next
	}
	return steps
}

// farthest is the last record to which there is a step, of those from which the
// next steps are long.
func farthest(known Link, to msg.Round, at func(msg.Round) (Link, bool)) (Link, bool) {
	n := known.Record.Round
	reach := n & -n // the largest power of two of which n is a multiple
	if n == 0 {
		reach = 1
		for n+reach < to {
			reach *= 2
		}
	}
	may := func(r msg.Round) (Link, bool) {
		next, ok := at(r)
		return next, ok && mayFollow(known, next) == nil
	}
	if to <= n+reach {
		if next, ok := may(to); ok {
			return next, true
		}
	}
	for ; reach > 0; reach /= 2 {
		if n+reach >= to {
			continue
		}
		if next, ok := may(n + reach); ok {
			return next, true
		}
	}
	return Link{}, false
}
