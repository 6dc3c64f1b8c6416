package ledger

import (
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
)

// maxLeft is of how many records that are not in the chain any more the place in
// chain.log is known.
const maxLeft = 512

// leftEntries are records that were left for another branch. They stay in
// chain.log, so that others can be told what was trained in them.
type leftEntries struct {
	byID  map[cid.Cid]leftEntry
	order []cid.Cid // oldest first
}

type leftEntry struct {
	record, cert span
	parent       cid.Cid
}

func (l *leftEntries) add(e Entry) {
	if l.byID == nil {
		l.byID = make(map[cid.Cid]leftEntry)
	}
	if _, ok := l.byID[e.ID]; !ok {
		l.order = append(l.order, e.ID)
	}
	l.byID[e.ID] = leftEntry{e.record, e.cert, e.parent}
	if len(l.order) > maxLeft {
		delete(l.byID, l.order[0])
		l.order = l.order[1:]
	}
}

// Branch lists the records of a branch that was left, from where it parted from
// the chain to head; nothing if head is not of such a branch, or if they do not
// fit into maxItems and maxBytes.
func (l *Ledger) Branch(head cid.Cid, maxItems, maxBytes int) []round.Item {
	list := l.branch(head, maxItems, maxBytes)
	items := l.items(list)
	if len(items) < len(list) {
		return nil
	}
	return items
}

func (l *Ledger) branch(head cid.Cid, maxItems, maxBytes int) []itemAt {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []leftEntry
	for at := head; ; {
		if _, ok := l.byID[at]; ok {
			break
		}
		e, ok := l.left.byID[at]
		if !ok || len(list) == maxItems {
			return nil
		}
		list = append(list, e)
		at = e.parent
	}
	var out []itemAt
	for _, e := range slices.Backward(list) {
		at := itemAt{e.record, e.cert}
		if !at.fits(&maxBytes) {
			return nil
		}
		out = append(out, at)
	}
	return out
}
