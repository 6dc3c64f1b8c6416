package round

import (
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

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

// follows checks that a record of a proof goes on from the one before it: it is of
// the same run, later, and names that; and if it is the next one, its seats are those
// that the other says.
func follows(before, next Link) error {
	r := next.Record
	fail := func(format string, args ...any) error {
		return fmt.Errorf("record %v of round %d: %s", next.ID, r.Round, fmt.Sprintf(format, args...))
	}
	switch {
	case !r.Run.Equals(before.Record.Run):
		return fail("is of run %v, must be of %v", r.Run, before.Record.Run)
	case r.Round <= before.Record.Round:
		return fail("must be after round %d", before.Record.Round)
	case !linked(before, r):
		return fail("does not name the record of round %d", before.Record.Round)
	case r.Round == before.Record.Round+1 && !slices.Equal(r.Seats, before.Record.NextSeats):
		return fail("has other seats than follow from its parent")
	}
	return nil
}

// voucher is who voted for records of a proof. One of them that is honest has
// computed the chain up to the record that it voted for, and with it all that are
// before that in the proof.
type voucher map[peer.ID]bool

func (v voucher) add(c *msg.Certificate) {
	for _, id := range c.Voters() {
		v[id] = true
	}
}

// of checks that more than half of the witnesses among a record's next seats
// vouch for what follows it.
func (v voucher) of(l Link) error {
	n := 0
	for _, s := range l.Record.NextSeats {
		if !s.Trainee && v[s.Peer] {
			n++
		}
	}
	if half := Witnesses(l.Record.NextSeats) / 2; n <= half {
		return fmt.Errorf("record %v of round %d: what follows has votes of %d of its next witnesses, must have more than %d", l.ID, l.Record.Round, n, half)
	}
	return nil
}

// MaxProofSteps is how many records a proof has at most.
const MaxProofSteps = 64

// VerifyProof checks a proof that a record is of the chain of a run, without the
// records between: each step names the one before, the first one known. Of the known
// one, and of each that has a certificate, more than half of the next witnesses voted
// for later steps. It returns the steps; the last is the record. Signatures, which take
// the most time, come last.
func (ru *Rules) VerifyProof(known Link, steps []Item) ([]Link, error) {
	if !known.Record.Run.Equals(ru.run) {
		return nil, fmt.Errorf("proof of head: the known record is of run %v, not %v", known.Record.Run, ru.run)
	}
	if n := len(steps); n > MaxProofSteps {
		return nil, fmt.Errorf("proof of head: %d records, must be at most %d", n, MaxProofSteps)
	}
	var links []Link
	for before := known; len(links) < len(steps); before = links[len(links)-1] {
		next, err := steps[len(links)].link()
		if err == nil {
			err = follows(before, next)
		}
		if err != nil {
			return nil, fmt.Errorf("proof of head: %w", err)
		}
		links = append(links, next)
	}
	if err := vouchedFor(known, links); err != nil {
		return nil, fmt.Errorf("proof of head: %w", err)
	}
	for _, l := range links {
		if l.Certificate == nil {
			continue
		}
		if err := verifyCertificate(l.Certificate, l.ID, l.Record, msg.Open); err != nil {
			return nil, fmt.Errorf("proof of head: %w", err)
		}
	}
	return links, nil
}

// vouchedFor is VerifyProof for who is said to have voted.
func vouchedFor(known Link, steps []Link) error {
	v := make(voucher)
	for i := len(steps) - 1; i >= 0; i-- {
		switch l := steps[i]; {
		case l.Certificate != nil:
			if i < len(steps)-1 {
				if err := v.of(l); err != nil {
					return err
				}
			}
			v.add(l.Certificate)
		case i == len(steps)-1:
			return fmt.Errorf("record %v of round %d: is the last one, and has no certificate", l.ID, l.Record.Round)
		}
	}
	if len(steps) == 0 {
		return nil
	}
	return v.of(known)
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

// ProofStep is a record of a proof by its round.
type ProofStep struct {
	Round msg.Round
	Bare  bool // without its certificate: it leads on to those before it, and nothing else
}

// Prove returns the steps of a proof that leads from the record of round from to
// that of round to, or as near to it as there is one that fits; at gives the records,
// whose certificates were checked. It looks at some records for each step.
func Prove(from, to msg.Round, fits func([]ProofStep) bool, at func(msg.Round) (Link, bool)) []ProofStep {
	known, ok := at(from)
	if !ok {
		return nil
	}
	read := make(map[msg.Round]Link)
	once := func(n msg.Round) (Link, bool) {
		l, ok := read[n]
		if !ok {
			if l, ok = at(n); !ok {
				return Link{}, false
			}
			if len(read) == maxOutlines {
				clear(read)
			}
			l = l.outline()
			read[n] = l
		}
		return l, true
	}
	for tries := 0; to > from; {
		s := prover{known: known, at: once, fits: fits, votes: make(voucher)}
		if last, ok := once(to); ok && last.Certificate != nil {
			if s.from(last) {
				slices.Reverse(s.steps)
				return s.steps
			}
			tries++
		}
		if to--; s.long || tries == maxEnds {
			to, tries = nearer(from, to+1), 0
		}
	}
	return nil
}

// maxEnds is how many certified records, one after the other, are tried as the end of
// a proof, if too few who vote for them had part in the rounds before.
const maxEnds = 32

// outline is a record with what a proof depends on, which is little.
func (l Link) outline() Link {
	r := l.Record
	l.Record = &msg.Record{Run: r.Run, Round: r.Round, Parent: r.Parent, Skips: r.Skips, NextSeats: r.NextSeats}
	return l
}

// nearer is a round about halfway back, of those to which steps are long.
func nearer(from, to msg.Round) msg.Round {
	n, least := from+(to-from)/2, from+(to-from)/4
	for p := msg.Round(2); n/p*p > least; p *= 2 {
		n = n / p * p
	}
	if n == from || n == to {
		return to - 1
	}
	return n
}

// prover looks for a proof from its end to its beginning: the more votes there are,
// the longer the steps can be.
type prover struct {
	known Link
	at    func(msg.Round) (Link, bool)
	fits  func([]ProofStep) bool
	votes voucher
	steps []ProofStep // newest first
	long  bool        // they do not fit
}

func (s *prover) take(l Link, bare bool) {
	s.steps = append(s.steps, ProofStep{Round: l.Record.Round, Bare: bare})
	if !bare {
		s.votes.add(l.Certificate)
	}
}

// from finds the way back from a certified record to the known one.
func (s *prover) from(l Link) bool {
	s.take(l, false)
	for s.fits(s.steps) {
		if s.votes.of(s.known) == nil {
			return s.back(l)
		}
		way := s.certified(l)
		if way == nil {
			return false
		}
		for i, k := range way {
			s.take(k, i < len(way)-1)
		}
		l = way[len(way)-1]
	}
	s.long = true
	return false
}

// maxOutlines is how many records are remembered while a proof is looked for.
const maxOutlines = 4096

// maxLooked is how many records are looked at for a step.
const maxLooked = 256

// certified finds a record with a certificate, for which those after it vouch, that
// is as few steps as can be before l, and as far as can be with so many. It returns
// what leads there from l on.
func (s *prover) certified(l Link) []Link {
	type place struct {
		Link
		after int // index of what names it
	}
	queue, seen := []place{{l, -1}}, make(map[msg.Round]bool)
	for i := 0; i < len(queue) && i < maxLooked; i++ {
		at := queue[i]
		if i > 0 && at.Certificate != nil && s.votes.of(at.Link) == nil {
			var way []Link
			for k := i; k > 0; k = queue[k].after {
				way = append(way, queue[k].Link)
			}
			slices.Reverse(way)
			return way
		}
		for _, k := range s.named(at.Link) {
			if !seen[k.Record.Round] {
				seen[k.Record.Round] = true
				queue = append(queue, place{k, i})
			}
		}
	}
	return nil
}

// back goes back in steps that need no votes.
func (s *prover) back(l Link) bool {
	for !linked(s.known, l.Record) {
		list := s.named(l)
		if len(list) == 0 {
			return false
		}
		l = list[0]
		s.take(l, true)
		if s.long = !s.fits(s.steps); s.long {
			return false
		}
	}
	return true
}

// named returns the records between the known one and l that l names, the
// farthest first.
func (s *prover) named(l Link) []Link {
	var list []Link
	last := l.Record.Round
	for p := msg.Round(1); p < last; p *= 2 {
		n := (last - 1) / p * p
		if n <= s.known.Record.Round {
			break
		}
		if k, ok := s.at(n); ok && linked(k, l.Record) && (len(list) == 0 || list[len(list)-1].Record.Round != n) {
			list = append(list, k)
		}
	}
	slices.Reverse(list)
	return list
}
