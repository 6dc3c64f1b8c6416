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
	defer l.mu.Unlock()
	first, ok := l.byID[from]
	last := len(l.entries) - 1
	for last > 0 && l.entries[last].cert.n == 0 {
		last--
	}
	if !ok || last <= first {
		return nil
	}
	if p := &l.proven; p.from != from || p.to != l.entries[last].ID {
		*p = provenSteps{from, l.entries[last].ID, round.Prove(msg.Round(first), msg.Round(last), maxProof, func(n msg.Round) (round.Link, bool) {
			if uint64(n) >= uint64(len(l.entries)) {
				return round.Link{}, false
			}
			return l.link(int(n))
		})}
	}
	var out []round.Item
	for _, n := range l.proven.rounds {
		e := l.entries[n]
		if maxBytes -= e.record.n + e.cert.n + 8; maxBytes < 0 {
			break
		}
		item, err := l.item(e.record, e.cert)
		if err != nil {
			break
		}
		out = append(out, item)
	}
	return out
}

// item reads a record and its certificate, if there is one. It is called with mu
// held.
func (l *Ledger) item(record, cert span) (item round.Item, err error) {
	if item.Record, err = l.chain.read(record.off, record.n); err != nil || cert.n == 0 {
		return item, err
	}
	item.Certificate, err = l.chain.read(cert.off, cert.n)
	return item, err
}
