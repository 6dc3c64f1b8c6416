package runner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// maxLeftovers is how many deltas are remembered for their removal, of the rounds
// that stay on the disk: more than seats send in these, but for small ones.
const maxLeftovers = 1 << 16

// leftoversFile lists them in the run's folder, for when the node was ended before
// their removal: a CID and its round on each line, of which the last one counts.
const leftoversFile = "leftovers"

// leftovers are what was pulled as deltas, whatever it was, and what this node made
// as such. Those that a record includes are removed with its round. The others, which
// came late, could not be used, or went into the mean of a cell, would stay for ever,
// and a seat could fill disks with them. Of what was pulled only that is in it whose
// root was not here before: a peer may call a model's CID its delta.
type leftovers struct {
	path string // of the file; constant after open

	mu    sync.Mutex
	fresh map[cid.Cid]bool      // guarded by mu; the round is not told yet
	list  map[cid.Cid]msg.Round // guarded by mu
	lines int                   // guarded by mu; of the file
}

// open reads the file of a run's folder, for what is still here.
func (l *leftovers) open(ctx context.Context, dir string, has func(context.Context, cid.Cid) (bool, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.path, l.list = filepath.Join(dir, leftoversFile), make(map[cid.Cid]msg.Round)
	b, err := os.ReadFile(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1] // the last line may not have been written to its end
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var name string
		var n msg.Round
		if _, err := fmt.Sscan(s.Text(), &name, &n); err != nil {
			continue
		}
		root, err := cid.Decode(name)
		if err != nil {
			continue
		}
		if ok, err := has(ctx, root); err != nil || ok {
			l.list[root] = n
		}
	}
	return l.rewrite()
}

// rewrite is called with mu held.
func (l *leftovers) rewrite() error {
	var b strings.Builder
	for root, n := range l.list {
		fmt.Fprintln(&b, root, n)
	}
	l.lines = len(l.list)
	if err := os.WriteFile(l.path+".tmp", []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(l.path+".tmp", l.path)
}

// put is called with mu held. What cannot be written down is not removed if the node
// ends before.
func (l *leftovers) put(root cid.Cid, n msg.Round) {
	l.list[root] = n
	if l.path == "" {
		return
	}
	if l.lines > 2*len(l.list)+1024 {
		_ = l.rewrite()
		return
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	_, _ = fmt.Fprintln(f, root, n)
	_ = f.Close()
	l.lines++
}

// made notes a DAG of a round that this node made.
func (l *leftovers) made(root cid.Cid, n msg.Round) {
	l.add(root)
	l.of(root, n)
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
		l.put(root, n)
	}
	if !l.fresh[root] {
		return
	}
	delete(l.fresh, root)
	if l.list == nil {
		l.list = make(map[cid.Cid]msg.Round)
	}
	if _, had := l.list[root]; !had && len(l.list) < maxLeftovers {
		l.put(root, n)
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

// drop forgets one. If it is still here, that is so until the next start.
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
	// Most were removed with the record that includes them.
	list = slices.DeleteFunc(list, func(id cid.Cid) bool {
		if ok, err := r.hub.o.Store.Has(ctx, id); err != nil || ok {
			return false
		}
		r.deltas.leftovers.drop(id)
		r.ground.Release(id)
		return true
	})
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
		if slices.ContainsFunc(keep, id.Equals) {
			r.deltas.leftovers.drop(id) // it stays, and is not for everybody because of that
			continue
		}
		if _, err := r.hub.o.Store.Delete(ctx, id, keep...); err != nil {
			r.log.DebugContext(ctx, "delta was not removed", "delta", id, "err", err)
			continue
		}
		r.deltas.leftovers.drop(id)
		r.ground.Release(id)
	}
}
