package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/trace"
)

// In a run that retraces, a seat keeps where its training stood between the
// parts of a round, and commits to it with its delta: an auditor can do any part
// again. What it goes on from, moments and error feedback, is what its last
// contribution ended with, as that trace has it, or nothing: else a seat could
// claim moments that lead anywhere.

// traces reports whether the run asks for traces.
func (w *worker) traces() bool { return w.manifest.Trust.RetracePPM > 0 }

// beginTrace makes the moments and the error feedback what a round begins with
// that goes on from the trace before, and marks its beginning. What is not here any
// more is nothing.
func (w *worker) beginTrace(ctx context.Context, before cid.Cid) error {
	if !w.traces() {
		return nil
	}
	m, id, residual, err := w.traced(ctx, before)
	if err != nil {
		w.log.WarnContext(ctx, "trace of the last contribution was not usable, the optimizer starts cold", "err", err)
	}
	if m == nil {
		m, id = trace.Cold(w.trainer.MomentVectors(), w.layout.Params()), w.cold()
	}
	if err := w.trainer.SetMoments(int(m.Steps), m.Vectors); err != nil {
		return err
	}
	clear(w.residual)
	if residual != nil {
		residual.Values(w.residual)
	}
	w.pos.Warm = m.Steps
	w.pos.Trace = []boundary{{Movement: w.still, Moments: id}}
	return nil
}

// resumesTrace reports whether the round that was begun goes on from the trace
// before, and makes the error feedback what it began with.
func (w *worker) resumesTrace(ctx context.Context, before cid.Cid) bool {
	switch {
	case !w.traces():
		return true
	case len(w.pos.Trace) == 0:
		return false
	case w.pos.Trace[0].Moments == w.cold():
		clear(w.residual)
		return true
	}
	m, id, residual, err := w.traced(ctx, before)
	if err != nil || m == nil || id != w.pos.Trace[0].Moments {
		return false
	}
	residual.Values(w.residual)
	return true
}

// traced reads what training goes on from, and says under which CID the moments
// are stored; nothing with cid.Undef.
func (w *worker) traced(ctx context.Context, before cid.Cid) (*trace.Moments, cid.Cid, *fold.Delta, error) {
	if !before.Defined() {
		return nil, cid.Undef, nil, nil
	}
	b, err := w.store.ReadBytes(ctx, before, trace.MaxBytes)
	if err != nil {
		return nil, cid.Undef, nil, err
	}
	t, err := trace.Unmarshal(b)
	if err != nil {
		return nil, cid.Undef, nil, err
	}
	vectors := w.trainer.MomentVectors()
	b, err = w.store.ReadBytes(ctx, t.End().Moments, trace.MomentsBytes(vectors, w.layout.Params()))
	if err != nil {
		return nil, cid.Undef, nil, err
	}
	m, err := trace.UnmarshalMoments(b, vectors, w.layout.Params())
	if err != nil {
		return nil, cid.Undef, nil, err
	}
	b, err = w.store.ReadBytes(ctx, t.Residual, fold.EncodedBytes(w.layout, trace.MovementBits))
	if err != nil {
		return nil, cid.Undef, nil, err
	}
	residual, err := fold.Decode(w.layout, b)
	if err != nil {
		return nil, cid.Undef, nil, err
	}
	return m, t.End().Moments, residual, nil
}

// mark adds a boundary to the trace, if the round is at one: after each part,
// and at the end. Movements are from origin.
func (w *worker) mark(ctx context.Context, origin []float32, end bool) error {
	last := len(w.pos.Trace) - 1
	part := trace.PartSteps(uint64(w.manifest.Inner.MaxSteps))
	if !w.traces() || w.pos.Trace[last].Steps == w.pos.Steps || !end && w.pos.Steps%part != 0 {
		return nil
	}
	now, values := make([]float32, len(origin)), make([]int32, len(origin))
	w.trainer.Adapter(now)
	if err := fold.PseudoGradient(values, origin, now); err != nil {
		return fmt.Errorf("training diverged: %w", err)
	}
	movement, err := w.putDelta(ctx, values)
	if err != nil {
		return err
	}
	vectors, err := w.trainer.Moments()
	if err != nil {
		return fmt.Errorf("read moments: %w", err)
	}
	m := trace.Moments{Steps: uint64(w.trainer.Steps()), Vectors: vectors}
	moments, err := w.store.PutBytes(ctx, m.Marshal())
	if err != nil {
		return fmt.Errorf("store moments: %w", err)
	}
	w.pos.Trace = append(w.pos.Trace, boundary{w.pos.Steps, w.pos.Tokens, movement, moments})
	return nil
}

// putDelta stores values as movements are.
func (w *worker) putDelta(ctx context.Context, values []int32) (cid.Cid, error) {
	b, err := fold.Encode(w.layout, trace.MovementBits, values, nil)
	if err != nil {
		return cid.Undef, fmt.Errorf("encode movement: %w", err)
	}
	id, err := w.store.PutBytes(ctx, b)
	if err != nil {
		return cid.Undef, fmt.Errorf("store movement: %w", err)
	}
	return id, nil
}

// endTrace stores the trace of the round, whose delta was encoded.
func (w *worker) endTrace(ctx context.Context, j job) (cid.Cid, error) {
	if !w.traces() {
		return cid.Undef, nil
	}
	residual, err := w.putDelta(ctx, w.residual)
	if err != nil {
		return cid.Undef, err
	}
	t := trace.Trace{Early: w.pos.Early, Residual: residual}
	for _, e := range w.pos.Trace {
		t.Boundaries = append(t.Boundaries, trace.Boundary(e))
	}
	id, err := w.store.PutBytes(ctx, t.Marshal())
	if err != nil {
		return cid.Undef, fmt.Errorf("store trace: %w", err)
	}
	return id, w.rememberTrace(j, id, &t)
}

// boundary is a trace.Boundary in a position.
type boundary struct {
	Steps    uint64  `json:"steps"`
	Tokens   uint64  `json:"tokens"`
	Movement cid.Cid `json:"movement"`
	Moments  cid.Cid `json:"moments"`
}

// tracesFile lists the own traces that are stored.
const tracesFile = "traces.json"

// keepTraces is for how many rounds a whole trace is kept: it is retraced in the
// round after its own.
const keepTraces = 2

// storedTrace is a trace and what of it is stored.
type storedTrace struct {
	Round msg.Round `json:"round"`
	Trace cid.Cid   `json:"trace"`
	// Before is the trace that it goes on from, if any.
	Before cid.Cid   `json:"before"`
	Parts  []cid.Cid `json:"parts"` // what only an auditor needs
	Ends   []cid.Cid `json:"ends"`  // what the next trace goes on from
}

func (w *worker) rememberTrace(j job, id cid.Cid, t *trace.Trace) error {
	s := storedTrace{Round: j.round, Trace: id, Before: j.before, Ends: []cid.Cid{id, t.End().Moments, t.Residual}}
	for i, e := range t.Boundaries[1:] {
		s.Parts = append(s.Parts, e.Movement)
		if i+2 < len(t.Boundaries) {
			s.Parts = append(s.Parts, e.Moments)
		}
	}
	list := slices.DeleteFunc(w.readTraces(), func(e storedTrace) bool { return e.Trace == id })
	return w.writeTraces(append(list, s))
}

// forgetTraces removes what nobody needs any more.
func (w *worker) forgetTraces(ctx context.Context, j job) {
	if !w.traces() || w.remove == nil {
		return
	}
	list := w.readTraces()
	goesOn := []cid.Cid{j.before} // what something goes on from that is kept
	for _, s := range list {
		if s.Round+keepTraces > j.round {
			goesOn = append(goesOn, s.Before)
		}
	}
	var keep []storedTrace
	var gone, needed []cid.Cid
	for _, s := range list {
		switch {
		case s.Round+keepTraces > j.round:
			needed = append(append(needed, s.Parts...), s.Ends...)
		case slices.Contains(goesOn, s.Trace):
			gone, s.Parts = append(gone, s.Parts...), nil
			needed = append(needed, s.Ends...)
		default:
			gone = append(append(gone, s.Parts...), s.Ends...)
			continue
		}
		keep = append(keep, s)
	}
	gone = slices.DeleteFunc(gone, func(c cid.Cid) bool { return c == w.still || slices.Contains(needed, c) })
	if err := w.writeTraces(keep); err != nil {
		w.log.WarnContext(ctx, "traces were not removed", "err", err)
		return
	}
	w.remove(ctx, gone)
}

// readTraces returns the list; what cannot be read is as if it was not there,
// and stays in the store.
func (w *worker) readTraces() []storedTrace {
	b, err := os.ReadFile(filepath.Join(w.dir, tracesFile))
	if err != nil {
		return nil
	}
	var list []storedTrace
	if json.Unmarshal(b, &list) != nil {
		return nil
	}
	return list
}

func (w *worker) writeTraces(list []storedTrace) error {
	b, err := json.Marshal(list)
	if err != nil {
		return errors.Join(errors.New("encode the list of traces"), err)
	}
	path := filepath.Join(w.dir, tracesFile)
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
