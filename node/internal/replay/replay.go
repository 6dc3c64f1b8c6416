// Package replay computes a run once more, from its manifest and the records
// and deltas in a folder, and compares every state, weight and certificate
// with what the records say. It needs no network and no other peer's word.
package replay

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// ErrMissing is wrapped by the error for a delta or state that is not in the
// folder: the run can be replayed where it is.
var ErrMissing = errors.New("not in this folder")

// ErrMismatch is wrapped by the error for a record that does not say what
// follows from the one before.
var ErrMismatch = errors.New("does not follow from the record before")

// Chain gives the records of a run by round, from genesis (0) to the last.
type Chain interface {
	Record(n msg.Round) (round.Link, bool)
}

// Store gives the bytes of deltas and states. It fails for what is not local.
type Store interface {
	ReadBytes(ctx context.Context, root cid.Cid, limit int64) ([]byte, error)
}

// Options say what to replay.
type Options struct {
	Manifest *run.Manifest
	Chain    Chain
	Store    Store
	// From is the record from whose state the replay begins; 0, the genesis,
	// needs nobody's word. Of the records before From only the form is
	// checked, not the folds.
	From msg.Round
	// Progress, if not nil, is told of each record that was checked.
	Progress func(r Round)
}

// Round is a record that was checked.
type Round struct {
	Round         msg.Round
	Record        cid.Cid
	State         cid.Cid
	Contributions int
	Refused       int
	Certified     bool
	Folded        bool // the state was computed, not taken over
}

// Result is what a replay came to.
type Result struct {
	Rounds        int // records after genesis
	Folded        int // of them computed
	Certified     int
	Contributions int
	Refused       int
	Head          cid.Cid
	State         cid.Cid // after the head, as computed
	Tokens        uint64
	Final         bool
}

// Run replays. On an error the Result is that of the records before it.
func Run(ctx context.Context, o Options) (Result, error) {
	rules, err := round.NewRules(o.Manifest)
	if err != nil {
		return Result{}, fmt.Errorf("replay: %w", err)
	}
	layout, err := o.Manifest.Layout()
	if err != nil {
		return Result{}, fmt.Errorf("replay: %w", err)
	}
	state, genesis, err := run.Genesis(o.Manifest)
	if err != nil {
		return Result{}, fmt.Errorf("replay: %w", err)
	}
	id, err := genesis.CID()
	if err != nil {
		return Result{}, fmt.Errorf("replay: %w", err)
	}
	p := &player{Options: o, rules: rules, layout: layout, parent: round.Link{ID: id, Record: genesis}, state: state, bases: make(map[cid.Cid]*fold.State)}
	if got := state.CID(); got != genesis.State {
		return Result{}, fmt.Errorf("replay: genesis state is %s, its record says %s: %w", got, genesis.State, ErrMismatch)
	}
	p.res.Head, p.res.State = id, genesis.State
	for n := msg.Round(1); ; n++ {
		k, ok := o.Chain.Record(n)
		if !ok {
			break
		}
		if k.Record.Merge != nil {
			p.bases[k.Record.Merge.Base] = nil
		}
	}
	if _, ok := p.bases[genesis.State]; ok {
		p.bases[genesis.State] = state
	}
	for n := msg.Round(1); ; n++ {
		k, ok := o.Chain.Record(n)
		if !ok {
			break
		}
		if err := ctx.Err(); err != nil {
			return p.res, err
		}
		if err := p.play(ctx, k); err != nil {
			return p.res, fmt.Errorf("replay: round %d, record %s: %w", n, k.ID, err)
		}
	}
	if o.From > p.parent.Record.Round {
		return p.res, fmt.Errorf("replay: from round %d: the last is %d", o.From, p.parent.Record.Round)
	}
	return p.res, nil
}

type player struct {
	Options
	rules  *round.Rules
	layout *fold.Layout
	parent round.Link
	state  *fold.State             // after parent; nil before From
	bases  map[cid.Cid]*fold.State // that merges need later; nil: not computed here
	res    Result
}

// play checks the record that follows.
func (p *player) play(ctx context.Context, k round.Link) error {
	want, err := p.rules.Verify(p.parent, k.Record)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if k.Certificate != nil {
		if err := round.VerifyCertificate(k.Certificate, k.ID, k.Record); err != nil {
			return fmt.Errorf("%w: %w", ErrMismatch, err)
		}
		p.res.Certified++
	}
	r := Round{
		Round: k.Record.Round, Record: k.ID, State: k.Record.State, Certified: k.Certificate != nil,
		Contributions: len(k.Record.Contributions), Refused: len(k.Record.Refused), Folded: k.Record.Round > p.From,
	}
	switch {
	case r.Folded:
		if err := p.fold(ctx, k.Record, want); err != nil {
			return err
		}
		p.res.Folded++
	case k.Record.Round == p.From:
		if p.state, err = p.read(ctx, k.Record.State); err != nil {
			return err
		}
	}
	p.parent = k
	p.res.Rounds++
	p.res.Contributions += r.Contributions
	p.res.Refused += r.Refused
	p.res.Head, p.res.State = k.ID, k.Record.State
	p.res.Tokens, p.res.Final = k.Record.Tokens, k.Record.Final
	if p.Progress != nil {
		p.Progress(r)
	}
	return nil
}

// fold computes the state after rec and compares.
func (p *player) fold(ctx context.Context, rec *msg.Record, want *round.Consequence) error {
	inputs := want.Inputs
	if !want.Folds() {
		if rec.State != p.parent.Record.State {
			return fmt.Errorf("%w: nothing was included, and the state changed", ErrMismatch)
		}
		return nil
	}
	in := make([]fold.Input, len(inputs))
	for i, c := range inputs {
		size := fold.EncodedBytes(p.layout, int(p.Manifest.CodecBits))
		b, err := p.Store.ReadBytes(ctx, c.Delta, size)
		if err != nil {
			return fmt.Errorf("delta %s of %s: %w: %w", c.Delta, c.Peer, ErrMissing, err)
		}
		d, err := fold.Decode(p.layout, b)
		if err != nil {
			return fmt.Errorf("delta %s of %s: %w: %w", c.Delta, c.Peer, ErrMismatch, err)
		}
		in[i] = fold.Input{Delta: d, Tokens: c.Tokens, FactorQ16: c.FactorQ16}
	}
	next, applied, err := fold.Fold(p.state, in, p.Manifest.FoldOuter())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if m := rec.Merge; m != nil {
		base, ok := p.bases[m.Base]
		if !ok || base == nil {
			if base, err = p.read(ctx, m.Base); err != nil {
				return err
			}
		}
		other, err := p.read(ctx, m.State)
		if err != nil {
			return err
		}
		if next, err = fold.Merge(next, base, other, m.WeightQ16); err != nil {
			return fmt.Errorf("%w: %w", ErrMismatch, err)
		}
	}
	if err := round.Weigh(rec, round.Folded{State: next.CID(), Applied: applied}); err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	p.state = next
	if _, ok := p.bases[rec.State]; ok {
		p.bases[rec.State] = next
	}
	return nil
}

func (p *player) read(ctx context.Context, id cid.Cid) (*fold.State, error) {
	b, err := p.Store.ReadBytes(ctx, id, fold.StateBytes(p.layout))
	if err != nil {
		return nil, fmt.Errorf("state %s: %w: %w", id, ErrMissing, err)
	}
	st, err := fold.UnmarshalState(p.layout, b)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w: %w", id, ErrMismatch, err)
	}
	return st, nil
}
