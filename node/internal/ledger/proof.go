package ledger

import (
	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// maxProof is how many records a proof has at most.
const maxProof = 64

// provenSteps is the last proof that was asked for: it is nearly always the one
// from genesis, and takes a while to find.
type provenSteps struct {
	from, to cid.Cid
	rounds   []msg.Round
}

// Proof lists records of the chain by which somebody who knows the record from
// can tell that the last certified one is of the same chain; nothing if from is
// not in it, or is the last itself. What does not fit into maxBytes is left out:
// then the proof ends earlier.
func (l *Ledger) Proof(from cid.Cid, maxBytes int) []round.Item {
	l.mu.Lock()
	first, ok := l.byID[from]
	last := l.lastCertified()
	to, proven := l.entries[last].ID, l.proven
	l.mu.Unlock()
	if !ok || last <= first {
		return nil
	}
	if proven.from != from || proven.to != to {
		// Without the lock: it may have to read many records.
		proven = provenSteps{from, to, round.Prove(msg.Round(first), msg.Round(last), maxProof, func(n msg.Round) (round.Link, bool) {
			k, _, ok := l.At(n)
			return k, ok
		})}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.byID[from]; !ok || at != first || len(l.entries) <= last || l.entries[last].ID != to {
		return nil // another branch is followed since
	}
	l.proven = proven
	var out []round.Item
	for _, n := range proven.rounds {
		e := l.entries[n]
		item, ok := l.item(e.record, e.cert, &maxBytes)
		if !ok {
			break
		}
		out = append(out, item)
	}
	return out
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

// item reads a record and its certificate, if there is one, and takes their bytes
// from left, those that an answer may still have; false: it has no room for them,
// or they cannot be read. It is called with mu held.
func (l *Ledger) item(record, cert span, left *int) (item round.Item, ok bool) {
	if *left -= record.n + cert.n + 8; *left < 0 {
		return item, false
	}
	var err error
	if item.Record, err = l.chain.read(record.off, record.n); err == nil && cert.n > 0 {
		item.Certificate, err = l.chain.read(cert.off, cert.n)
	}
	return item, err == nil
}
