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
	// checked, not the folds; if one of them is not there, it begins with From.
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
	first := msg.Round(1)
	for n := first; n <= o.From; n++ {
		if _, ok := o.Chain.Record(n); ok {
			continue
		}
		if err := p.begin(ctx); err != nil {
			return p.res, fmt.Errorf("replay: round %d: %w", o.From, err)
		}
		first = o.From + 1
		break
	}
	for n := first; ; n++ {
		k, ok := o.Chain.Record(n)
		if !ok {
			break
		}
		if k.Record.Merge != nil {
			p.bases[k.Record.Merge.Base] = nil
		}
		if t := k.Record.Trend; t != nil && t.Back {
			p.bases[t.BestState] = nil
		}
	}
	if _, ok := p.bases[genesis.State]; ok {
		p.bases[genesis.State] = state
	}
	for n := first; ; n++ {
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
	before round.Link // the parent's parent
	parent round.Link
	state  *fold.State             // after parent; nil before From
	last   *fold.State             // after before, if it was computed here
	bases  map[cid.Cid]*fold.State // that merges and returns need later; nil: not computed here
	res    Result
}

// begin takes the record From as it is: those before it are not there.
func (p *player) begin(ctx context.Context) error {
	k, ok := p.Chain.Record(p.From)
	if !ok {
		return fmt.Errorf("its record is %w", ErrMissing)
	}
	state, err := p.read(ctx, k.Record.State)
	if err != nil {
		return err
	}
	p.parent, p.state = k, state
	if b, ok := p.Chain.Record(p.From - 1); ok && b.ID.Equals(k.Record.Parent) {
		p.before = b
	}
	p.res.Head, p.res.State = k.ID, k.Record.State
	return nil
}

// play checks the record that follows.
func (p *player) play(ctx context.Context, k round.Link) error {
	want, err := p.rules.Verify(p.before, p.parent, k.Record)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if k.Certificate != nil {
		if err := round.VerifyCertificate(k.Certificate, k.ID, k.Record); err != nil {
			return fmt.Errorf("%w: %w", ErrMismatch, err)
		}
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
	p.before, p.parent = p.parent, k
	p.res.Rounds++
	if r.Certified {
		p.res.Certified++
	}
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
	if !want.Folds() {
		if rec.State != p.parent.Record.State {
			return fmt.Errorf("%w: nothing was included, and the state changed", ErrMismatch)
		}
		p.last = p.state
		return nil
	}
	job := want.Fold(p.parent.Record.State)
	next, applied, err := job.Compute(payloads{ctx, p}, p.Manifest.FoldOuter())
	if err != nil {
		if errors.Is(err, ErrMissing) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if err := round.Weigh(rec, round.Folded{State: next.CID(), Applied: applied}); err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	p.last, p.state = p.state, next
	if _, ok := p.bases[rec.State]; ok {
		p.bases[rec.State] = next
	}
	return nil
}

// payloads is what a player reads or has computed.
type payloads struct {
	ctx context.Context
	p   *player
}

// State implements round.Payloads.
func (s payloads) State(id cid.Cid) (*fold.State, error) {
	p := s.p
	switch {
	case id == p.parent.Record.State && p.state != nil:
		return p.state, nil
	case p.before.Record != nil && id == p.before.Record.State && p.last != nil:
		return p.last, nil
	case p.bases[id] != nil:
		return p.bases[id], nil
	}
	return p.read(s.ctx, id)
}

// Delta implements round.Payloads.
func (s payloads) Delta(in round.Input) (*fold.Delta, error) {
	bits := int(s.p.Manifest.CodecBits)
	if in.Bits > 0 {
		bits = int(in.Bits)
	}
	size := fold.EncodedBytes(s.p.layout, bits)
	b, err := s.p.Store.ReadBytes(s.ctx, in.Delta, size)
	if err != nil {
		return nil, fmt.Errorf("delta %s of %s: %w: %w", in.Delta, in.Peer, ErrMissing, err)
	}
	d, err := fold.Decode(s.p.layout, b)
	if err != nil {
		return nil, fmt.Errorf("delta %s of %s: %w: %w", in.Delta, in.Peer, ErrMismatch, err)
	}
	return d, nil
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
