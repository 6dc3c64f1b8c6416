package runner

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// differenceProtocol answers with the CID of the difference between the states
// before and after a record (fold.Difference), and makes it available; with
// nothing, if both are not here. The request is that of syncProtocol, with the
// record's CID.
const differenceProtocol = "/moot/difference/1"

const (
	maxDifferenceResponse = 64
	askedForDifference    = 3 // seats, one after the other
	differencePatience    = 20 * time.Second
	keepDifferences       = 4
)

// differences are those that were asked for, by record.
type differences struct {
	mu   sync.Mutex
	list []differenceOf // guarded by mu; newest last
}

type differenceOf struct {
	record, file cid.Cid
}

func (d *differences) of(record cid.Cid) (cid.Cid, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.list {
		if e.record == record {
			return e.file, true
		}
	}
	return cid.Undef, false
}

// add returns what is too old to be kept.
func (d *differences) add(record, file cid.Cid) cid.Cid {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, differenceOf{record, file})
	if len(d.list) <= keepDifferences {
		return cid.Undef
	}
	old := d.list[0].file
	d.list = d.list[1:]
	return old
}

// answerDifference answers a request of differenceProtocol.
func (h *Hub) answerDifference(ctx context.Context, from peer.ID, b []byte) ([]byte, error) {
	r, req, err := h.asked(from, b)
	switch {
	case err != nil:
		return nil, err
	case len(req.Locator) != 1:
		return nil, fmt.Errorf("%w: %d records, must be 1", errSyncFrame, len(req.Locator))
	}
	id, err := r.difference(ctx, req.Locator[0])
	if err != nil || !id.Defined() {
		return nil, err
	}
	return id.Bytes(), nil
}

// difference makes the difference of a record available; Undef: its states are
// not at hand. One is computed at a time.
func (r *Runner) difference(ctx context.Context, record cid.Cid) (cid.Cid, error) {
	r.differing.Lock()
	defer r.differing.Unlock()
	if id, ok := r.differences.of(record); ok {
		return id, nil
	}
	link, ok := r.ledger.Link(record)
	if !ok {
		return cid.Undef, nil
	}
	parent, ok := r.ledger.Link(link.Record.Parent)
	if !ok {
		return cid.Undef, nil
	}
	prev, next := r.states.cached(parent.Record.State), r.states.cached(link.Record.State)
	if prev == nil || next == nil {
		return cid.Undef, nil
	}
	id, err := r.states.store.PutBytes(ctx, fold.Difference(prev, next, r.manifest.FoldOuter()))
	if err != nil {
		return cid.Undef, fmt.Errorf("store a difference: %w", err)
	}
	r.keepDifference(ctx, record, id)
	return id, nil
}

// keepDifference remembers a difference that is here, and removes an old one.
func (r *Runner) keepDifference(ctx context.Context, record, id cid.Cid) {
	if _, ok := r.differences.of(record); ok {
		return
	}
	if old := r.differences.add(record, id); old.Defined() && old != id {
		r.removeFiles(ctx, []cid.Cid{old})
	}
}

// bringStateOf brings the state after a record: by its difference from the one
// before, if that is here and somebody gives it, else as a whole.
func (r *Runner) bringStateOf(ctx context.Context, k round.Link) error {
	if r.states.cached(k.Record.State) != nil {
		return nil
	}
	if parent, ok := r.ledger.Link(k.Record.Parent); ok {
		if prev := r.states.cached(parent.Record.State); prev != nil {
			err := r.followDifference(ctx, prev, k)
			if err == nil || ctx.Err() != nil {
				return err
			}
			r.log.DebugContext(ctx, "state is brought as a whole", "round", k.Record.Round, "err", err)
		}
	}
	_, err := r.states.get(ctx, k.Record.State)
	return err
}

var errNoDifference = errors.New("no seat has the difference")

// followDifference asks seats of the round for the difference. What it leads to
// is the state, or it is not used.
func (r *Runner) followDifference(ctx context.Context, prev *fold.State, k round.Link) error {
	last := errNoDifference
	for _, from := range r.differenceFrom(k) {
		file, err := r.askDifference(ctx, from, k.ID)
		if err == nil && file.Defined() {
			err = r.applyDifference(ctx, prev, k, file, from)
			if err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			last = err
		}
	}
	return last
}

// differenceFrom draws seats to ask: others draw others.
func (r *Runner) differenceFrom(k round.Link) []peer.ID {
	key := sha256.Sum256(append(k.ID.Bytes(), r.hub.self...))
	n := len(k.Record.Seats)
	at := (int(key[0])<<8 | int(key[1])) % n
	var list []peer.ID
	for i := range min(n, askedForDifference) {
		if id := k.Record.Seats[(at+i)%n].Peer; id != r.hub.self {
			list = append(list, id)
		}
	}
	return list
}

func (r *Runner) askDifference(ctx context.Context, from peer.ID, record cid.Cid) (cid.Cid, error) {
	ctx, cancel := context.WithTimeout(ctx, differencePatience)
	defer cancel()
	req := syncRequest{Run: r.id, Locator: []cid.Cid{record}}
	b, err := r.hub.o.Host.Request(ctx, from, differenceProtocol, req.encode(), maxDifferenceResponse)
	if err != nil || len(b) == 0 {
		return cid.Undef, err
	}
	id, err := cid.Cast(b)
	if err != nil || !msg.IsFileCID(id) {
		return cid.Undef, fmt.Errorf("%w: the answer of %s is no CID", errSyncFrame, from)
	}
	return id, nil
}

func (r *Runner) applyDifference(ctx context.Context, prev *fold.State, k round.Link, file cid.Cid, from peer.ID) error {
	limit := fold.MaxDifferenceBytes(r.layout)
	if err := r.states.fetcher.Fetch(ctx, file, limit+dagOverhead(limit), []peer.ID{from}); err != nil {
		return fmt.Errorf("fetch difference %s: %w", file, err)
	}
	b, err := r.states.store.ReadBytes(ctx, file, limit)
	if err != nil {
		return fmt.Errorf("read difference %s: %w", file, err)
	}
	next, err := fold.ApplyDifference(prev, b, r.manifest.FoldOuter())
	if err != nil {
		return err
	}
	if got := next.CID(); got != k.Record.State {
		return fmt.Errorf("difference %s of %s leads to another state than round %d has", file, from, k.Record.Round)
	}
	if _, err := r.states.put(ctx, next); err != nil {
		return err
	}
	r.keepDifference(ctx, k.ID, file)
	return nil
}
