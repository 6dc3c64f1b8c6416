package runner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/ledger"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

const (
	// proofWorth is by how many rounds others have to be ahead for a proof of their
	// head to be asked for in place of all records up to it.
	proofWorth = 64
	// segmentRecords come before a head that was proven: as many as its next round
	// looks at, the traces of the last eight contributions included.
	segmentRecords = 12
	maxProofs      = 64 // requests that one proof is made of
	askedForHead   = 3  // others that are asked whether a head is theirs
	maxDoubts      = 3
	greetings      = 10
	greetEvery     = 2 * time.Second
)

// move is a change of the chain that is none of the round's: to a head that was
// proven, or back from it.
type move struct {
	base    round.Link
	steps   []round.Link // from base on, oldest first
	segment []round.Link // oldest first; none: back to what is here from genesis on
}

// proveHead asks a peer that is far ahead for a proof of its head, and for the few
// records before that which the next round needs. The others are brought later. It
// returns false if there is nothing more to ask that peer for: the chain is moved, or
// the peer has shown a proof that is none.
func (r *Runner) proveHead(ctx context.Context, from peer.ID) bool {
	known, ok := r.lastCertified()
	claims, worth := r.claims(from), r.hub.proofWorth
	if !r.manifest.SkipLinks || !ok || r.whole.Load() || claims > 0 && claims < known.Record.Round+worth {
		return true
	}
	began := time.Now()
	steps, size, err := r.askProof(ctx, from, known, claims)
	if err != nil {
		r.log.WarnContext(ctx, "peer showed a proof that is none", "peer", from, "err", err)
		return false
	}
	if len(steps) == 0 || steps[len(steps)-1].Record.Round < known.Record.Round+worth {
		return true // it may be of an older version, or on another branch
	}
	head := steps[len(steps)-1]
	r.log.InfoContext(ctx, "head was proven", "round", head.Record.Round, "records", len(steps), "bytes", size, "peer", from, "took", time.Since(began))
	if p := r.proven.Load(); p == nil || p.ID != head.ID {
		r.proven.Store(&head)
		r.bringState(ctx, head)
	}
	segment := r.askSegment(ctx, from, head)
	if segment == nil {
		return true
	}
	select {
	case r.moves <- move{base: known, steps: steps[:len(steps)-1], segment: segment}:
	case <-ctx.Done():
	}
	return false
}

// greet asks a member of the run for what follows, without waiting for a heartbeat of
// one that says it is ahead: these are minutes apart.
func (r *Runner) greet(ctx context.Context) {
	r.running.Go(func() {
		for range greetings {
			if v := r.view.Load(); v != nil && len(v.Members) > 0 {
				return
			}
			if list := r.hub.o.Host.Members(r.id.String()); len(list) > 0 {
				r.sync(ctx, round.Sync{From: list[rand.IntN(len(list))]})
			}
			if !wait(ctx, greetEvery) {
				return
			}
		}
	})
}

// ask is a request of records, whose bytes are counted.
func (r *Runner) ask(ctx context.Context, from peer.ID, protocol string, req []byte) ([]byte, error) {
	b, err := r.hub.o.Host.Request(ctx, from, protocol, req, maxSyncResponse)
	r.brought.Add(int64(len(b)))
	return b, err
}

// askProof asks for a proof that begins with a known record, and returns its steps
// and how many bytes they had. An error means that the peer lies.
func (r *Runner) askProof(ctx context.Context, from peer.ID, known round.Link, claims msg.Round) (steps []round.Link, size int, err error) {
	for range maxProofs {
		req := syncRequest{Run: r.id}
		req.Locator = append(req.Locator, known.ID)
		b, err := r.ask(ctx, from, proofProtocol, req.encode())
		if err != nil {
			break // a line that failed is no lie
		}
		items, err := decodeSyncItems(b)
		if err != nil {
			return nil, 0, err
		}
		if len(items) == 0 {
			break
		}
		links, err := r.rules.VerifyProof(known, items)
		if err != nil {
			return nil, 0, err
		}
		steps, size = append(steps, links...), size+len(b)
		if known = links[len(links)-1]; claims > 0 && known.Record.Round+segmentRecords > claims {
			break
		}
	}
	return steps, size, nil
}

// askSegment brings the records before a head that a peer has proven, oldest first
// and with the head, of another peer if one is there: then two of them follow that
// chain. Nil: they do not come, or nobody else knows that head.
func (r *Runner) askSegment(ctx context.Context, from peer.ID, head round.Link) []round.Link {
	denied := false
	for _, id := range append(r.others(from, head.Record.Round), from) {
		if id == from && denied {
			// Others are as far, on another branch. It may be theirs that is wrong: the
			// records will tell.
			if n := r.doubts.Add(1); n >= maxDoubts {
				r.whole.Store(true)
				r.log.WarnContext(ctx, "others do not know the head that was proven: no more proofs are asked for", "round", head.Record.Round, "peer", from)
			}
			return nil
		}
		links, answered, err := r.askBefore(ctx, id, []round.Link{head}, segmentRecords)
		if err != nil {
			r.log.WarnContext(ctx, "records before a proven head are refused", "peer", id, "round", head.Record.Round, "err", err)
			continue
		}
		if want := min(segmentRecords, int(head.Record.Round)-1); len(links) > want {
			links = links[:want+1]
			slices.Reverse(links)
			return links
		}
		denied = denied || answered && len(links) == 1
	}
	return nil
}

// others draws peers that say they are at a round, or beyond.
func (r *Runner) others(but peer.ID, n msg.Round) []peer.ID {
	var list []peer.ID
	if v := r.view.Load(); v != nil {
		for _, m := range v.Members {
			if m.Status.Peer != but && m.Status.Round > n {
				list = append(list, m.Status.Peer)
			}
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(len(list), askedForHead)]
}

// move changes the chain and begins the round after its new head.
func (l *driver) move(ctx context.Context, mv move) error {
	r := l.r
	if len(mv.segment) == 0 {
		if err := r.ledger.Retreat(); err != nil {
			return err
		}
	} else {
		head := mv.segment[len(mv.segment)-1]
		mv.segment = slices.DeleteFunc(mv.segment, func(k round.Link) bool { return k.Record.Round <= mv.base.Record.Round })
		if now := r.ledger.Head().Record.Round; now+r.hub.proofWorth > head.Record.Round {
			return nil // it came so far by itself
		}
		err := r.ledger.Jump(time.Now(), mv.base.ID, mv.steps, mv.segment)
		if errors.Is(err, ledger.ErrChain) {
			r.log.WarnContext(ctx, "head was proven, and is not reached from here", "round", head.Record.Round, "err", err)
			return nil // another branch is followed since
		}
		if err != nil {
			return err
		}
		r.ground.know(head.Record)
		if e, ok := r.ledger.Entry(head.Record.Round); ok {
			desc := r.describe(head, e)
			r.emit(api.Event{Type: api.EventRound, N: uint64(head.Record.Round), Round: &desc, Loss: desc.TrainLoss})
		}
		r.log.InfoContext(ctx, "joined at a head that was proven; older records come later",
			"round", head.Record.Round, "from", mv.segment[0].Record.Round, "bytes", r.brought.Load())
	}
	head := r.ledger.Head()
	r.prefer(head.Record)
	r.scopes.decided(head.Record.Round)
	l.device.stop()
	l.device.dropAudit()
	m, err := l.m.Restart(time.Now(), r.ledger.Own(), r.ledger.Spent())
	if err != nil {
		return fmt.Errorf("go on at round %d: %w", head.Record.Round, err)
	}
	l.m = m
	if len(mv.segment) == 0 && r.states.cached(head.Record.State) == nil {
		r.bringState(ctx, head) // that of a proven one is being brought
	}
	r.fillIn(ctx)
	return nil
}

// lastCertified is the last record of the own chain that has a certificate, or
// the genesis record.
func (r *Runner) lastCertified() (round.Link, bool) {
	for n := r.ledger.Head().Record.Round; ; n-- {
		k, _, ok := r.ledger.At(n)
		if !ok || n == 0 || k.Certificate != nil {
			return k, ok
		}
	}
}

// claims is the round of the head that a peer says it has; 0 if it said nothing.
func (r *Runner) claims(id peer.ID) msg.Round {
	v := r.view.Load()
	if v == nil {
		return 0
	}
	for _, m := range v.Members {
		if m.Status.Peer == id {
			return m.Status.Round - min(m.Status.Round, 1)
		}
	}
	return 0
}
