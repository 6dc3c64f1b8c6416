package ledger

import (
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
)

// Locator lists records of the chain by which another peer can tell where its
// own parted: the last ones, then ever fewer, and the genesis record; at most
// limit, newest first.
func (l *Ledger) Locator(limit int) []cid.Cid {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []cid.Cid
	step := 1
	for i := len(l.entries) - 1; i > 0 && len(out) < limit-1; i -= step {
		if l.entries[i].here() {
			out = append(out, l.entries[i].ID)
		}
		if len(out) >= 8 {
			step *= 2
		}
	}
	return append(out, l.entries[0].ID)
}

// After lists the records that follow the first of locator that is in the
// chain, as many as fit into maxItems and maxBytes. Without any in common it
// lists nothing.
func (l *Ledger) After(locator []cid.Cid, maxItems, maxBytes int) []round.Item {
	return l.items(l.after(locator, maxItems, maxBytes))
}

func (l *Ledger) after(locator []cid.Cid, maxItems, maxBytes int) []itemAt {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.IndexFunc(locator, func(c cid.Cid) bool { _, ok := l.byID[c]; return ok })
	if at < 0 {
		return nil
	}
	var out []itemAt
	for i := l.byID[locator[at]] + 1; i < len(l.entries) && len(out) < maxItems; i++ {
		e := l.entries[i]
		at := itemAt{e.record, e.cert}
		if !e.here() || !at.fits(&maxBytes) {
			break
		}
		out = append(out, at)
	}
	return out
}
