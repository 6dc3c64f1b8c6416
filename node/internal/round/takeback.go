package round

import (
	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// takeBack says which of the parent's contributions are taken back: those that
// counted and that this round's verdicts call damaging. It marks their
// judgements, and returns what that does to the state and by how many tokens
// the run shrinks. ok is false if the record before the parent is needed and
// not here.
func (ru *Rules) takeBack(b Basis, judgements []msg.Judgement) (back *Back, tokens uint64, ok bool) {
	if !ru.manifest.Trust.TakeBack {
		return nil, 0, true
	}
	parent := b.Parent.Record
	gone := make([]bool, len(parent.Seats))
	some := false
	for i := range judgements {
		j := &judgements[i]
		if j.Verdict == msg.Damaging && weightOf(parent, j.Seat) > 0 {
			j.TakenBack, gone[j.Seat], some = true, true, true
		}
	}
	if !some {
		return nil, 0, true
	}
	before := b.Before.Record
	if before == nil {
		return nil, 0, false
	}
	back = &Back{State: before.State}
	var stay []msg.Contribution
	for i, in := range ru.inputsOf(b.Before, parent) {
		c := parent.Contributions[i]
		if !gone[c.Seat] {
			stay = append(stay, c)
		}
		// What has no weight has no part in the fold, and gets none by it that
		// others are taken back.
		if c.Weight > 0 {
			back.With = append(back.With, in)
			if !gone[c.Seat] {
				back.Keep = append(back.Keep, in)
			}
		}
	}
	all := creditedTokens(parent.Contributions)
	return back, all - min(creditedTokens(stay), all), true
}

// weightOf is with which weight the contribution of a seat entered its round.
func weightOf(r *msg.Record, seat uint32) uint64 {
	for _, c := range r.Contributions {
		if c.Seat == seat {
			return c.Weight
		}
	}
	return 0
}

// inputsOf returns the inputs of the fold of r, which was checked; before is its
// parent.
func (ru *Rules) inputsOf(before Link, r *msg.Record) []Input {
	s := ru.standingsAfter(before.Record, r.Round, ru.judgedIn(before, r))
	var proofs []proof
	for _, p := range r.Proofs {
		if first, err := msg.Open(p.First); err == nil { // it was opened when r was checked
			proofs = append(proofs, proof{first: first})
		}
	}
	s.ban(proofs)
	var list []Input
	for _, c := range r.Contributions {
		seat := r.Seats[c.Seat]
		factor, tokens, _ := ru.counts(s, seat, c.Tokens)
		list = append(list, Input{Peer: seat.Peer, Delta: c.Delta, Tokens: tokens, FactorQ16: factor})
	}
	return list
}

// judgedIn is what r says of the contributions of the record before it, judged
// again from its haves and reports: the judgements alone do not say everything
// that standings follow from.
func (ru *Rules) judgedIn(before Link, r *msg.Record) []measured {
	b := Basis{Parent: before, Haves: opened(r.Haves), reports: opened(r.Reports)}
	list := ru.measure(b)
	ru.judge(list, before.Record.Judgements)
	return list
}

// opened opens the envelopes of a record that was checked.
func opened(envelopes [][]byte) []msg.Signed {
	var list []msg.Signed
	for _, e := range envelopes {
		if s, err := msg.Open(e); err == nil {
			list = append(list, s)
		}
	}
	return list
}

// Payloads gives the states and deltas that a Fold is made of.
type Payloads interface {
	State(id cid.Cid) (*fold.State, error)
	Delta(in Input) (*fold.Delta, error)
}

// Compute carries a Fold out.
func (f *Fold) Compute(p Payloads, outer fold.Outer) (*fold.State, []fold.Applied, error) {
	state, err := p.State(f.State)
	if err != nil {
		return nil, nil, err
	}
	if f.Rest {
		out := fold.NewState(state.Layout)
		copy(out.Theta, state.Theta)
		return out, nil, nil
	}
	if f.Back != nil {
		if state, err = f.Back.undo(state, p, outer); err != nil {
			return nil, nil, err
		}
	}
	next, applied, err := foldInputs(state, f.Inputs, p, outer)
	if err != nil || f.Merge == nil {
		return next, applied, err
	}
	base, err := p.State(f.Merge.Base)
	if err != nil {
		return nil, nil, err
	}
	other, err := p.State(f.Merge.State)
	if err != nil {
		return nil, nil, err
	}
	next, err = fold.Merge(next, base, other, f.Merge.WeightQ16)
	return next, applied, err
}

// ComputeCell carries the Fold of a cell out.
func (f *Fold) ComputeCell(p Payloads) (*fold.Cell, error) {
	inputs, err := inputsFrom(f.Inputs, p)
	if err != nil {
		return nil, err
	}
	return fold.NewCell(inputs)
}

// undo moves a state from what its round gave to what it gives without what is
// taken back.
func (b *Back) undo(state *fold.State, p Payloads, outer fold.Outer) (*fold.State, error) {
	start, err := p.State(b.State)
	if err != nil {
		return nil, err
	}
	with, _, err := foldInputs(start, b.With, p, outer)
	if err != nil {
		return nil, err
	}
	without, _, err := foldInputs(start, b.Keep, p, outer)
	if err != nil {
		return nil, err
	}
	return fold.Merge(state, with, without, fold.One)
}

func foldInputs(state *fold.State, list []Input, p Payloads, outer fold.Outer) (*fold.State, []fold.Applied, error) {
	inputs, err := inputsFrom(list, p)
	if err != nil {
		return nil, nil, err
	}
	return fold.Fold(state, inputs, outer)
}

func inputsFrom(list []Input, p Payloads) ([]fold.Input, error) {
	inputs := make([]fold.Input, len(list))
	for i, in := range list {
		d, err := p.Delta(in)
		if err != nil {
			return nil, err
		}
		inputs[i] = fold.Input{Delta: d, Tokens: in.Tokens, FactorQ16: in.FactorQ16}
	}
	return inputs, nil
}

// States are those that Compute asks for.
func (f *Fold) States() []cid.Cid {
	if f.Cell {
		return nil
	}
	list := []cid.Cid{f.State}
	if f.Back != nil {
		list = append(list, f.Back.State)
	}
	if f.Merge != nil {
		list = append(list, f.Merge.Base, f.Merge.State)
	}
	return list
}

// Deltas are those that Compute asks for.
func (f *Fold) Deltas() []Input {
	if f.Back == nil {
		return f.Inputs
	}
	return append(append([]Input(nil), f.Inputs...), f.Back.With...)
}
