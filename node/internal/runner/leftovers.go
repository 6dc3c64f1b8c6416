package runner

import (
	"context"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// maxLeftovers is how many deltas are remembered for their removal, of the rounds
// that stay on the disk: more than seats send in these, but for small ones.
const maxLeftovers = 1 << 16

// leftovers are what was pulled as deltas, whatever it was. Those that a record
// includes are removed with its round. The others, which came late or could not be
// used, would stay for ever, and a seat could fill disks with them. Only that
// whose root was not here before is in it: a peer may call a model's CID its delta.
type leftovers struct {
	mu    sync.Mutex
	fresh map[cid.Cid]bool      // guarded by mu; the round is not told yet
	list  map[cid.Cid]msg.Round // guarded by mu
}

// add notes a DAG that is about to come, whose root is not here.
func (l *leftovers) add(root cid.Cid) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fresh == nil || len(l.fresh) >= maxLeftovers { // those of branches never get a round
		l.fresh = make(map[cid.Cid]bool)
	}
	l.fresh[root] = true
}

// of says of which round a DAG is that may have been added.
func (l *leftovers) of(root cid.Cid, n msg.Round) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if had, ok := l.list[root]; ok && had < n {
		l.list[root] = n
	}
	if !l.fresh[root] {
		return
	}
	delete(l.fresh, root)
	if l.list == nil {
		l.list = make(map[cid.Cid]msg.Round)
	}
	if len(l.list) < maxLeftovers {
		l.list[root] = n
	}
}

// upTo lists those of a round and of all before it.
func (l *leftovers) upTo(n msg.Round) (list []cid.Cid) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, of := range l.list {
		if of <= n {
			list = append(list, id)
		}
	}
	return list
}

func (l *leftovers) drop(root cid.Cid) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.list, root)
}

// beginsDelta is told what is about to be fetched as a delta.
func (r *Runner) beginsDelta(ctx context.Context, root cid.Cid) {
	if ok, err := r.hub.o.Store.Has(ctx, root); err == nil && !ok {
		r.deltas.leftovers.add(root)
	}
}

// lastStates are those of all runs.
func (h *Hub) lastStates() (list []cid.Cid) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.runs {
		head := r.ledger.Head().Record.Round
		for n := head - min(head, keepRounds); n <= head; n++ {
			if e, ok := r.ledger.Entry(n); ok {
				list = append(list, e.State)
			}
		}
	}
	return list
}

// removeLeftovers removes what came as deltas of a round, and of all before it, and
// is not in use by anything else. What cannot be removed now is tried again.
func (r *Runner) removeLeftovers(ctx context.Context, upTo msg.Round, keep []cid.Cid) {
	list := r.deltas.leftovers.upTo(upTo)
	if len(list) == 0 {
		return
	}
	for _, root := range r.hub.o.Store.Roots() {
		keep = append(keep, root.CID)
	}
	for _, c := range r.hub.lastStates() {
		// One that is not local (whole) cannot be walked, and gets what it loses again.
		if missing, _, _, err := r.hub.o.Store.Missing(ctx, c); err == nil && len(missing) == 0 {
			keep = append(keep, c)
		}
	}
	for _, id := range list {
		if _, err := r.hub.o.Store.Delete(ctx, id, keep...); err != nil {
			r.log.DebugContext(ctx, "delta was not removed", "delta", id, "err", err)
			continue
		}
		r.deltas.leftovers.drop(id)
		r.ground.Release(id)
	}
}
