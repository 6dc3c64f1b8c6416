package ledger

import (
	"context"
	"math"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// maxProofReads is how many records are read at most to find a proof: who asks for one
// waits no longer, and neither do others.
const maxProofReads = 1 << 12

// provenSteps is the last proof that was asked for: it is nearly always the one
// from genesis, and takes a while to find.
type provenSteps struct {
	from, to cid.Cid
	maxBytes int
	steps    []round.ProofStep
}

// Proof lists records of the chain by which somebody who knows the record from
// can tell that the last certified one is of the same chain; nothing if from is
// not in it, or is the last itself. If that does not fit into maxBytes the proof is of
// an earlier record. Nothing, too, if ctx is done, or if it takes too long to find.
func (l *Ledger) Proof(ctx context.Context, from cid.Cid, maxBytes int) []round.Item {
	l.mu.Lock()
	first, ok := l.byID[from]
	last := l.lastCertified()
	to, proven := l.entries[last].ID, l.proven
	l.mu.Unlock()
	if !ok || last <= first {
		return nil
	}
	if proven.from != from || proven.to != to || proven.maxBytes != maxBytes {
		// Without the lock: it may have to read many records.
		reads := 0
		at := func(n msg.Round) (round.Link, bool) {
			if reads == maxProofReads || ctx.Err() != nil {
				return round.Link{}, false
			}
			reads++
			k, _, ok := l.At(n)
			return k, ok
		}
		fits := func(steps []round.ProofStep) bool {
			return len(steps) <= round.MaxProofSteps && l.bytesOf(steps) <= maxBytes
		}
		proven = provenSteps{from, to, maxBytes, round.Prove(msg.Round(first), msg.Round(last), fits, at)}
		if ctx.Err() != nil {
			return nil // it may be another the next time
		}
	}
	list := l.provenItems(proven, first, last, maxBytes)
	items := l.items(list)
	if len(items) < len(list) {
		return nil // a part of a proof is none
	}
	return items
}

func (l *Ledger) provenItems(proven provenSteps, first, last, maxBytes int) []itemAt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.byID[proven.from]; !ok || at != first || len(l.entries) <= last || l.entries[last].ID != proven.to {
		return nil // another branch is followed since
	}
	l.proven = proven
	var out []itemAt
	for _, step := range proven.steps {
		e := l.entries[step.Round]
		at := itemAt{e.record, e.cert}
		if step.Bare {
			at.cert = span{}
		}
		if !at.fits(&maxBytes) {
			return nil // a part of a proof is none
		}
		out = append(out, at)
	}
	return out
}

// bytesOf is how much an answer with these records has.
func (l *Ledger) bytesOf(steps []round.ProofStep) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range steps {
		if int(s.Round) >= len(l.entries) {
			return math.MaxInt // another branch is followed since
		}
		e := l.entries[s.Round]
		n += e.record.n + 8
		if !s.Bare {
			n += e.cert.n
		}
	}
	return n
}

// lastCertified is the index of the last record with a certificate, 0 if there
// is none. It is called with mu held.
func (l *Ledger) lastCertified() int {
	last := len(l.entries) - 1
	for last > 0 && l.entries[last].cert.n == 0 {
		last--
	}
	return last
}

// itemAt is where a record and its certificate are, if there is one.
type itemAt struct{ record, cert span }

// fits takes the bytes of an item from left, those that an answer may still have;
// false: it has no room for them.
func (i itemAt) fits(left *int) bool {
	*left -= i.record.n + i.cert.n + 8
	return *left >= 0
}

// items reads records and their certificates, up to one that cannot be read. It is
// called without mu: others are not to wait for what somebody asks for.
func (l *Ledger) items(list []itemAt) []round.Item {
	var out []round.Item
	for _, at := range list {
		var item round.Item
		var err error
		if item.Record, err = l.chain.read(at.record.off, at.record.n); err == nil && at.cert.n > 0 {
			item.Certificate, err = l.chain.read(at.cert.off, at.cert.n)
		}
		if err != nil {
			break
		}
		out = append(out, item)
	}
	return out
}
