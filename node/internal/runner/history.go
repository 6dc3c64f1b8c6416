package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/ledger"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// Older records are brought with a quarter of the line at most: who joined late
// trains meanwhile.
const (
	fillShare = 3 // times as long as a request took, it is waited before the next
	fillPause = time.Second
	fillWait  = 10 * time.Second // when nobody has them
	// fillRecords come in an answer at most, so that what the round needs is not
	// behind them for long.
	fillRecords = 64
)

// answerBefore answers a request of beforeProtocol.
func (h *Hub) answerBefore(ctx context.Context, from peer.ID, b []byte) ([]byte, error) {
	req, err := decodeBeforeRequest(b)
	if err != nil {
		return nil, err
	}
	r, err := h.member(req.Run, from)
	if err != nil {
		return nil, err
	}
	return h.tellItems(ctx, from, func() []syncItem {
		return r.ledger.Before(req.Record, int(min(req.Most, maxSyncRecords)), maxSyncResponse)
	})
}

// askBefore asks a peer for records before the last of known, which are newest
// first, and returns known with those that are right. answered: the peer said
// something. An error that does not wrap round.ErrRefuted is the peer's lie.
func (r *Runner) askBefore(ctx context.Context, from peer.ID, known []round.Link, most int) (links []round.Link, answered bool, err error) {
	req := beforeRequest{Run: r.id, Record: known[len(known)-1].ID, Most: uint64(most)}
	b, err := r.ask(ctx, from, beforeProtocol, req.encode())
	if err != nil {
		return known, false, nil // a line that failed is no lie
	}
	items, err := decodeSyncItems(b)
	if err != nil {
		return known, true, err
	}
	links, err = r.rules.VerifyBefore(known, items)
	return links, true, err
}

// fillIn begins to bring the records that are missing, if any are, and it was not
// begun yet.
func (r *Runner) fillIn(ctx context.Context) {
	if _, _, ok := r.ledger.Gap(); !ok || !r.filling.CompareAndSwap(false, true) {
		return
	}
	r.running.Go(func() {
		defer func() {
			r.filling.Store(false)
			// A jump that came before the Store began nothing.
			if ctx.Err() == nil && !r.whole.Load() {
				r.fillIn(ctx)
			}
		}()
		began, n := time.Now(), 0
		asked := make(map[peer.ID]bool) // for a proof, as they do not have our records
		for {
			if _, _, ok := r.ledger.Gap(); !ok {
				r.log.InfoContext(ctx, "all records of the run are here", "records", n, "took", time.Since(began))
				return
			}
			at := time.Now()
			got, err := r.fillOnce(ctx, asked)
			n += got
			if errors.Is(err, round.ErrRefuted) && ctx.Err() == nil {
				r.refute(ctx, err)
				return
			}
			if err != nil && ctx.Err() == nil {
				r.log.WarnContext(ctx, "older records were not brought", "err", err)
			}
			pause := max(r.hub.fillPause, fillShare*time.Since(at))
			if got == 0 {
				pause = max(pause, r.hub.fillWait)
			}
			if !wait(ctx, pause) {
				return
			}
		}
	})
}

// wholeFile is there when a chain of the run that was proven has been refuted: as long
// as the run's files are, its records are all brought.
const wholeFile = "all-records"

func isWhole(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, wholeFile))
	return err == nil
}

func markWhole(dir string) error {
	f, err := os.Create(filepath.Join(dir, wholeFile))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// refute leaves a chain that was proven and is none, and follows the run by all
// its records.
func (r *Runner) refute(ctx context.Context, why error) {
	r.whole.Store(true)
	if err := markWhole(r.dir); err != nil {
		r.log.WarnContext(ctx, "that the chain was left is not known after a restart", "err", err)
	}
	r.log.ErrorContext(ctx, "the chain that was joined breaks the rules, and is left: too many of its seats lied", "err", why)
	r.emit(api.Event{Type: api.EventAlert, Text: "the chain of the run that was proven to this node breaks the rules: more of its seats lied than may. It is left, and all records are brought"})
	select {
	case r.moves <- move{}:
	case <-ctx.Done():
	}
}

// fillOnce asks one peer for records that are missing, and returns how many it
// brought.
func (r *Runner) fillOnce(ctx context.Context, asked map[peer.ID]bool) (int, error) {
	floor, _, ok := r.ledger.Gap()
	if !ok {
		return 0, nil
	}
	if may := r.hub.o.MayPull; may != nil && !may().IsZero() {
		return 0, nil
	}
	from, ok := r.drawOther(floor)
	if !ok {
		return 0, nil
	}
	var known []round.Link
	for _, n := range []msg.Round{floor + 1, floor} {
		if k, _, ok := r.ledger.At(n); ok {
			known = append(known, k)
		}
	}
	if len(known) == 0 {
		return 0, fmt.Errorf("record of round %d cannot be read", floor)
	}
	links, answered, err := r.askBefore(ctx, from, known, fillRecords)
	links = links[len(known):]
	if len(links) > 0 {
		if ferr := r.keepOlder(links); ferr != nil {
			return 0, ferr
		}
		r.postOlder(ctx, links)
	}
	if err == nil && answered && len(links) == 0 && !asked[from] {
		asked[from] = true
		err = r.contradicts(ctx, from)
	}
	if err != nil {
		err = fmt.Errorf("of %s: %w", from, err)
	}
	return len(links), err
}

// keepOlder stores records that follow back from those that are here, newest
// first. Where they meet records that were here before, what follows those is
// checked as well.
func (r *Runner) keepOlder(links []round.Link) error {
	switch err := r.ledger.Fill(time.Now(), links); {
	case errors.Is(err, ledger.ErrOther):
		return fmt.Errorf("%w: %w", round.ErrRefuted, err)
	case errors.Is(err, ledger.ErrChain):
		return nil // the chain was moved meanwhile
	case err != nil:
		return err
	}
	last := links[len(links)-1].Record.Round
	if floor, _, ok := r.ledger.Gap(); ok && floor == last {
		return nil
	}
	for n := last; n <= last+1; n++ {
		if err := r.verifyAt(n); err != nil {
			return fmt.Errorf("%w: %w", round.ErrRefuted, err)
		}
	}
	return nil
}

// verifyAt checks a record after genesis, if it is here with the two before it.
func (r *Runner) verifyAt(n msg.Round) error {
	var links [3]round.Link // the first record has but one before it
	for i := range min(msg.Round(len(links)), n+1) {
		k, _, ok := r.ledger.At(n - i)
		if !ok {
			return nil
		}
		links[i] = k
	}
	_, err := r.rules.Verify(links[2], links[1], links[0].Record)
	return err
}

// postOlder tells the round of records that it still looks at.
func (r *Runner) postOlder(ctx context.Context, links []round.Link) {
	ev := round.Older{}
	for _, l := range links {
		ev.Records = append(ev.Records, l.Record)
	}
	r.post(ctx, ev)
}

// drawOther draws a peer that says it is beyond a round.
func (r *Runner) drawOther(n msg.Round) (peer.ID, bool) {
	if list := r.others("", n); len(list) > 0 {
		return list[0], true
	}
	return "", false
}

// contradicts asks a peer that does not have our records for a proof of its head. An
// error that wraps round.ErrRefuted says that it proves another chain than was
// proven to us.
func (r *Runner) contradicts(ctx context.Context, from peer.ID) error {
	base, ok := r.wholeUpTo()
	if !ok {
		return nil
	}
	theirs, _, err := r.askProof(ctx, from, base, r.claims(from))
	if err != nil || len(theirs) == 0 {
		return err
	}
	var ours []round.Link
	head := r.ledger.Head().Record.Round
	for n := base.Record.Round + 1; n <= head; n++ {
		if e, ok := r.ledger.Entry(n); ok && e.ID.Defined() {
			if k, _, ok := r.ledger.At(n); ok && k.Certificate != nil {
				// What it names is all that is compared: the whole of each would be much.
				ours = append(ours, round.Link{ID: k.ID, Record: &msg.Record{Round: n, Parent: k.Record.Parent, Skips: k.Record.Skips}})
			}
		}
	}
	if n, ok := round.Contradiction(ours, theirs); ok {
		return fmt.Errorf("%w: it has another record of round %d that is certified as well", round.ErrRefuted, n)
	}
	return nil
}

// wholeUpTo is the last record up to which none is missing from genesis on.
func (r *Runner) wholeUpTo() (round.Link, bool) {
	last, _, ok := r.ledger.At(0)
	for n := msg.Round(1); ok; n++ {
		k, _, here := r.ledger.At(n)
		if !here || k.Record.Parent != last.ID {
			break
		}
		last = k
	}
	return last, ok
}
