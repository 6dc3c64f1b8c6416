package runner

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/proto/trace"
)

// overlappedRun takes five of nine steps early.
func overlappedRun(m *run.Manifest) {
	m.Inner.MaxSteps, m.Inner.OverlapSteps, m.Inner.BatchSamples, m.MaxRounds = 9, 5, 4, 4
}

// tracedOverlap is that in a run that retraces.
func tracedOverlap(m *run.Manifest) {
	tracedRun(m)
	overlappedRun(m)
}

// follow returns the next round after one that came to out: its early job, and its
// job, on another state than the guess.
func follow(t *testing.T, w *worker, j job, out outcome) (earlyJob, job) {
	t.Helper()
	e := earlyJob{
		round: j.round + 1, trace: out.trace,
		earlier: round.Earlier{Head: j.head, State: j.state, Delta: out.delta, Bits: w.manifest.CodecBits, Steps: out.steps, Trained: j.done.Rounds, Tokens: j.done.Tokens},
	}
	st, err := w.states.get(t.Context(), j.state)
	if err != nil {
		t.Fatal(err)
	}
	next := fold.NewState(w.layout)
	for i, v := range st.Theta {
		next.Theta[i] = v + int32(i%1000)*40 - 20_000
	}
	next.Momentum[0] = int32(j.round)
	state, err := w.states.put(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	j.round, j.head, j.state, j.before, j.earlier = j.round+1, msg.RawCID([]byte{byte(j.round)}), state, out.trace, e.earlier
	j.done.Rounds++
	j.done.Tokens += out.tokens
	return e, j
}

// TestEarlySteps: what is taken early is taken from the own delta's fold and moved
// to the head's state, at one go as well as in processes that die after each step,
// and with measurements between.
func TestEarlySteps(t *testing.T) {
	t.Parallel()
	x := newNode(t, 60)
	for name, change := range map[string]func(*run.Manifest){"plain": overlappedRun, "traced": tracedOverlap} {
		man := launch(t, x, change)
		dir := t.TempDir()
		rounds := func(dies, measures bool) []outcome {
			if dies {
				dir = t.TempDir()
			}
			var outs []outcome
			var early earlyJob
			w, j := x.againIn(t, man, t.TempDir())
			if dies {
				w, j = x.againIn(t, man, dir)
			}
			// until does something until it is done, each time one step further in
			// another process.
			until := func(do func(ctx context.Context) error) {
				for {
					ctx, cancel := context.WithCancel(t.Context())
					w.onStep = func(msg.Round, uint64, float64, int, time.Duration) {
						if dies {
							cancel()
						}
					}
					err := do(ctx)
					cancel()
					if err == nil {
						return
					}
					if !dies || !errors.Is(err, context.Canceled) {
						t.Fatal(err)
					}
					if measures {
						if _, err := w.evaluate(t.Context(), j.state); err != nil {
							t.Fatal(err)
						}
						if w.pos.Guess != nil {
							continue // the same process goes on
						}
					}
					w, _ = x.againIn(t, man, dir)
				}
			}
			for range 3 {
				if early.round > 0 {
					until(func(ctx context.Context) error { return w.trainEarly(ctx, early) })
					if w.pos.Steps != 5 {
						t.Fatalf("%s: %d early steps, want 5", name, w.pos.Steps)
					}
					if measures {
						if _, err := w.evaluate(t.Context(), early.earlier.State); err != nil {
							t.Fatal(err)
						}
					}
				}
				var out outcome
				until(func(ctx context.Context) (err error) { out, err = w.train(ctx, j); return err })
				outs = append(outs, out)
				early, j = follow(t, w, j, out)
			}
			return outs
		}
		want := rounds(false, false)
		for i, o := range want {
			if o.steps != 9 || o.tokens == 0 {
				t.Errorf("%s: round %d: %+v", name, i, o)
			}
		}
		if want[1].delta == want[2].delta {
			t.Errorf("%s: two rounds have one delta", name)
		}
		if got := rounds(true, false); !slices.Equal(got, want) {
			t.Errorf("%s: in processes that die: %+v, at one go %+v", name, got, want)
		}
		if got := rounds(true, true); !slices.Equal(got, want) {
			t.Errorf("%s: with measurements between: %+v, at one go %+v", name, got, want)
		}
	}
}

// againIn opens another worker of the same run in dir, as another process.
func (x *testNode) againIn(t *testing.T, man *run.Manifest, dir string) (*worker, job) {
	t.Helper()
	x.hub.runs = map[cid.Cid]*Runner{}
	return openWorker(t, x, man, dir)
}

// TestEarlyFromOwnFold: the delta is the movement that the steps give which are
// taken from the fold of the own delta, moved to the head's state.
func TestEarlyFromOwnFold(t *testing.T) {
	t.Parallel()
	x := newNode(t, 61)
	man := launch(t, x, func(m *run.Manifest) {
		overlappedRun(m)
		m.CodecBits = 8
	})
	w, j := x.againIn(t, man, t.TempDir())
	first, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	early, next := follow(t, w, j, first)
	if err := w.trainEarly(t.Context(), early); err != nil {
		t.Fatal(err)
	}
	if _, err := w.train(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	end := make([]float32, w.layout.Params())
	w.trainer.Adapter(end)

	// The same by hand.
	v, j := x.againIn(t, man, t.TempDir())
	if _, err := v.train(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	guess, err := v.guess(t.Context(), early.earlier, v.ownDelta)
	if err != nil {
		t.Fatal(err)
	}
	st, err := v.states.get(t.Context(), next.state)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.trainer.SetAdapter(guess); err != nil {
		t.Fatal(err)
	}
	step := func(seed [32]byte, at int, done Done) {
		batch, err := v.samples.Batch(t.Context(), seed, uint64(at*4), 4)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := v.trainer.Step(t.Context(), batch, learningRate(man, done, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for s := range 5 {
		step(sampleSeed(j.head, v.self), 9+s, j.done)
	}
	moved, start := make([]float32, len(guess)), make([]float32, len(guess))
	v.trainer.Adapter(moved)
	fold.ToFloat32(start, st.Theta)
	for i := range moved {
		moved[i] = start[i] - (guess[i] - moved[i])
	}
	if err := v.trainer.SetAdapter(moved); err != nil {
		t.Fatal(err)
	}
	for s := 5; s < 9; s++ {
		step(sampleSeed(next.head, v.self), s, next.done)
	}
	byHand := make([]float32, len(guess))
	v.trainer.Adapter(byHand)
	if !slices.Equal(byHand, end) {
		t.Error("what was trained is another by hand")
	}
}

// TestEarlyDropped: early steps that the head has no place for cost nothing but
// themselves, and leave nothing on the disk.
func TestEarlyDropped(t *testing.T) {
	t.Parallel()
	x := newNode(t, 62)
	man := launch(t, x, tracedOverlap)
	w, j := x.againIn(t, man, t.TempDir())
	first, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	early, next := follow(t, w, j, first)
	var removed []cid.Cid
	w.remove = func(_ context.Context, list []cid.Cid) { removed = append(removed, list...) }
	want := func() outcome {
		v, j := x.againIn(t, man, t.TempDir())
		if _, err := v.train(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		out, err := v.train(t.Context(), next)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}()
	for name, change := range map[string]func(j *job){
		"none count":                      func(j *job) { j.earlier = round.Earlier{} },
		"another head":                    func(j *job) { j.earlier.Head = msg.RawCID([]byte("other")) },
		"another delta":                   func(j *job) { j.earlier.Delta = fold.FileCID([]byte("other")) },
		"the round has fewer steps":       func(j *job) { j.steps = 4 },
		"the delta is not there any more": nil,
	} {
		removed = nil
		k := next
		if err := w.trainEarly(t.Context(), early); err != nil {
			t.Fatal(err)
		}
		if len(w.pos.Trace) < 3 {
			t.Fatalf("%d boundaries of early steps", len(w.pos.Trace))
		}
		early := w.pos.Trace[1:]
		if change == nil {
			w.pos.Guess.Delta, k.earlier.Delta = fold.FileCID([]byte("gone")), fold.FileCID([]byte("gone"))
		} else {
			change(&k)
		}
		out, err := w.train(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		if k.steps == 0 && out != want || k.steps == 4 && out.steps != 4 {
			t.Errorf("%s: %+v, without early steps %+v", name, out, want)
		}
		for _, e := range early {
			if !slices.Contains(removed, e.Movement) || !slices.Contains(removed, e.Moments) {
				t.Errorf("%s: what was stored of step %d stays", name, e.Steps)
			}
		}
		for _, c := range []cid.Cid{first.trace, w.still} {
			if slices.Contains(removed, c) {
				t.Errorf("%s: %s is gone", name, c)
			}
		}
		w.pos.Head = "" // the round again
	}
}

// TestEarlyDrained: a node that is about to end takes no step of a round that it
// will have no part in.
func TestEarlyDrained(t *testing.T) {
	t.Parallel()
	x := newNode(t, 68)
	w, j := x.againIn(t, launch(t, x, overlappedRun), t.TempDir())
	first, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	early, _ := follow(t, w, j, first)
	w.gate = &Gate{}
	w.onStep = func(_ msg.Round, step uint64, _ float64, _ int, _ time.Duration) { w.gate.Drain(step == 2) }
	if err := w.trainEarly(t.Context(), early); err != nil || w.pos.Steps != 2 {
		t.Errorf("%d early steps, %v; want the end after 2", w.pos.Steps, err)
	}
}

// TestRetraceOfEarly: auditors find what was trained early, and that it is not what
// it must be.
func TestRetraceOfEarly(t *testing.T) {
	t.Parallel()
	x := newNode(t, 63)
	man := launch(t, x, tracedOverlap)
	for _, honest := range []bool{true, false} {
		w, j := x.againIn(t, man, t.TempDir())
		auditor, _ := x.againIn(t, man, t.TempDir())
		out, err := w.train(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			early, next := follow(t, w, j, out)
			if !honest {
				w.samples = otherSamples{w.samples}
			}
			if err := w.trainEarly(t.Context(), early); err != nil {
				t.Fatal(err)
			}
			before := out.trace
			if out, err = w.train(t.Context(), next); err != nil {
				t.Fatal(err)
			}
			found := retraced(t, auditor, next, out, before, x.hub.self)
			t.Logf("honest %v: found %d", honest, found)
			switch {
			case honest && slices.Max(found) > 100_000:
				t.Errorf("what was trained: found %d", found)
			case !honest && slices.Min(found) <= 200_000:
				t.Errorf("of other data: found %d, want more than the tolerance", found)
			}
			j = next
		}
	}
}

// TestForgedEarly: claims of early steps that are not what the run allows, or of
// none where there were some.
func TestForgedEarly(t *testing.T) {
	t.Parallel()
	x := newNode(t, 64)
	man := launch(t, x, tracedOverlap)
	w, j := x.againIn(t, man, t.TempDir())
	first, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	early, next := follow(t, w, j, first)
	if err := w.trainEarly(t.Context(), early); err != nil {
		t.Fatal(err)
	}
	out, err := w.train(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	if found := retraced(t, w, next, out, first.trace, x.hub.self); slices.Max(found) > 100_000 {
		t.Fatalf("what was trained: found %d", found)
	}
	for name, forge := range map[string]struct {
		early uint64
		job   func(j *job)
		parts int // that show it; the others were trained as they say
	}{
		"more than the run allows":  {early: 6, parts: 5},
		"fewer than there were":     {early: 1, parts: 3},
		"none":                      {early: 0, parts: 3},
		"without a delta before it": {early: 5, parts: 5, job: func(j *job) { j.earlier = round.Earlier{} }},
	} {
		b, err := w.store.ReadBytes(t.Context(), out.trace, trace.MaxBytes)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := trace.Unmarshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if tr.Early != 5 {
			t.Fatalf("%d early steps in the trace", tr.Early)
		}
		o, k := out, next
		if tr.Early = forge.early; forge.job != nil {
			forge.job(&k)
		}
		if o.trace, err = w.store.PutBytes(t.Context(), tr.Marshal()); err != nil {
			t.Fatal(err)
		}
		found := retraced(t, w, k, o, first.trace, x.hub.self)
		t.Logf("%s: found %d", name, found)
		if n := len(slices.DeleteFunc(found, func(ppm uint32) bool { return ppm <= 200_000 })); n < forge.parts {
			t.Errorf("%s: %d parts show it, want %d", name, n, forge.parts)
		}
	}
}

// TestOverlappedRun: seats that train while their deltas travel come to one end,
// retrace each other, and did take early steps.
func TestOverlappedRun(t *testing.T) {
	a := newNode(t, 65)
	b := newNode(t, 66, a.addr())
	c := newNode(t, 67, a.addr())
	man := launch(t, a, func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.Inner.MaxSteps, m.Inner.OverlapSteps, m.Inner.BatchSamples = 3, 1000, 8, 6, 4
		m.PeriodMillis = 60_000 // the machine may be busy: what is retraced is to be there within a quarter
		m.Trust = run.Trust{Auditors: 2, AuditSamples: 8, RetracePPM: 1e6}
	})
	var runs []*Runner
	for _, x := range []*testNode{a, b, c} {
		r, _ := x.takePart(t, man)
		runs = append(runs, r)
	}
	until(t, "eight retraces", func() bool { return retracedIn(runs[0]) >= 8 })
	endNow(t, runs...)
	early := 0
	retraced, contributions := foundHonest(t, runs[0])
	for _, r := range runs {
		w := worker{dir: r.dir}
		for _, s := range w.readTraces() {
			b, err := r.store.ReadBytes(t.Context(), s.Trace, trace.MaxBytes)
			if err != nil {
				t.Fatal(err)
			}
			tr, err := trace.Unmarshal(b)
			if err != nil {
				t.Fatal(err)
			}
			if tr.Early > 6 {
				t.Errorf("round %d: %d early steps", s.Round, tr.Early)
			}
			early += int(tr.Early)
		}
	}
	if early == 0 {
		t.Errorf("no early steps in the last rounds, with %d retraces", retraced)
	}
	t.Logf("%d contributions, %d retraces, %d early steps in the traces that are kept", contributions, retraced, early)
}
