package runner

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/proto/trace"
)

// tracedRun is the manifest of a run that retraces, with nine steps in a round,
// so two in a part.
func tracedRun(m *run.Manifest) {
	m.Inner.MaxSteps, m.Inner.BatchSamples, m.MaxRounds = 9, 4, 4
	m.Trust = run.Trust{Auditors: 1, AuditSamples: 8, RetracePPM: 1e6}
}

// again opens another worker of the same run, as another process.
func (x *testNode) again(t *testing.T, man *run.Manifest) (*worker, job) {
	t.Helper()
	x.hub.runs = map[cid.Cid]*Runner{}
	return openWorker(t, x, man, t.TempDir())
}

// retraced is how a worker finds each part of what another one trained.
func retraced(t *testing.T, w *worker, j job, out outcome, before cid.Cid, maker peer.ID) []uint32 {
	t.Helper()
	b, err := w.store.ReadBytes(t.Context(), out.delta, int64(out.bytes))
	if err != nil {
		t.Fatal(err)
	}
	d, err := fold.Decode(w.layout, b)
	if err != nil {
		t.Fatal(err)
	}
	item := round.RetraceItem{Maker: maker, Delta: out.delta, Trace: out.trace, Steps: out.steps, Tokens: out.tokens, Before: before, Earlier: j.earlier}
	var found []uint32
	for item.Part = range trace.Parts(out.steps, uint64(w.manifest.Inner.MaxSteps)) {
		ppm, err := w.retrace(t.Context(), auditJob{round: j.round + 1, state: j.state, head: j.head, done: j.done}, item, d,
			func(ctx context.Context, id cid.Cid, size int64, _ peer.ID) ([]byte, error) {
				b, err := w.store.ReadBytes(ctx, id, size)
				if err != nil {
					err = errors.Join(err, errWithheld)
				}
				return b, err
			})
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, ppm)
	}
	return found
}

// wide makes the adapter's tensors large enough for moments of eight bits.
func wide(m *run.Manifest) {
	m.LoRA.Rank, m.LoRA.Alpha = 64, 64
	for i := range m.Tensors {
		if t := &m.Tensors[i]; t.Rows == 4 {
			t.Rows = 64
		} else {
			t.Cols = 64
		}
	}
}

// TestRetraceOfHonest: who computes in another way finds what was trained, in
// the first round and in those that go on from it.
func TestRetraceOfHonest(t *testing.T) {
	t.Parallel()
	x, rounds := newNode(t, 50), msg.Round(4)
	if testing.Short() {
		rounds = 2
	}
	for _, tt := range []struct {
		name           string
		maker, auditor cpu.Precision
		threads        int
		change         func(*run.Manifest)
		most           uint32 // measured: about half of it
	}{
		{name: "with three threads", threads: 3, most: 80_000},
		{name: "bfloat16 by float32", maker: cpu.PrecisionBF16, most: 100_000},
		{name: "float32 by bfloat16", auditor: cpu.PrecisionBF16, most: 100_000},
		{name: "moments of eight bits", change: func(m *run.Manifest) {
			wide(m)
			m.Inner.Optimizer = run.OptimizerAdamW8bit
		}, most: 100_000},
		{name: "one bit, beta2 0.999, clipped", change: func(m *run.Manifest) {
			m.CodecBits, m.Inner.Beta2PPM, m.Inner.ClipMilli = 1, 999_000, 10
		}, most: 80_000},
		{name: "sgd", change: func(m *run.Manifest) {
			m.Inner.Optimizer, m.Inner.MomentumPPM, m.Inner.LearningRateNano = run.OptimizerSGD, 9e5, 1e8
		}, most: 160_000},
	} {
		man := launch(t, x, func(m *run.Manifest) {
			tracedRun(m)
			if tt.change != nil {
				tt.change(m)
			}
		})
		x.hub.o.Precision, x.hub.o.Threads = tt.maker, 1
		w, j := x.again(t, man)
		x.hub.o.Precision, x.hub.o.Threads = tt.auditor, max(tt.threads, 1)
		auditor, _ := x.again(t, man)
		before := cid.Undef
		for n := range rounds {
			j.round, j.head, j.before, j.done = n+1, msg.RawCID([]byte{byte(n)}), before, Done{Rounds: uint64(n)}
			out, err := w.train(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			found := retraced(t, auditor, j, out, before, x.hub.self)
			if slices.Max(found) > tt.most {
				t.Errorf("%s: round %d: found %d, want at most %d", tt.name, n, found, tt.most)
			}
			t.Logf("%s: round %d: found %d", tt.name, n, found)
			before = out.trace
		}
	}
}

// otherSamples are drawn by another seed than the run's.
type otherSamples struct{ Samples }

func (o otherSamples) Batch(ctx context.Context, seed [32]byte, position uint64, n int) ([]train.Sample, error) {
	seed[0]++
	return o.Samples.Batch(ctx, seed, position, n)
}

// fewSamples are the first of each batch, again and again: less is computed.
type fewSamples struct{ Samples }

func (f fewSamples) Batch(ctx context.Context, seed [32]byte, position uint64, n int) ([]train.Sample, error) {
	b, err := f.Samples.Batch(ctx, seed, position, n)
	return slices.Repeat(b[:n/2], 2), err
}

// TestRetraceOfLiar: no part of what was not trained as it must be passes.
func TestRetraceOfLiar(t *testing.T) {
	t.Parallel()
	x := newNode(t, 51)
	man := launch(t, x, tracedRun)
	for name, lie := range map[string]func(w *worker){
		"other data":                   func(w *worker) { w.samples = otherSamples{w.samples} },
		"half a batch":                 func(w *worker) { w.samples = fewSamples{w.samples} },
		"the samples of somebody else": func(w *worker) { _, w.self = nodeKey(t, 99) },
	} {
		w, j := x.again(t, man)
		lie(w)
		auditor, _ := x.again(t, man)
		before := cid.Undef
		for n := range msg.Round(3) {
			j.round, j.head, j.before = n+1, msg.RawCID([]byte{byte(n)}), before
			out, err := w.train(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			// Half a batch can have the tokens and much of the gradient of a whole.
			found := retraced(t, auditor, j, out, before, x.hub.self)
			if slices.Min(found) <= 200_000 {
				t.Errorf("%s: round %d: found %d, want more than the tolerance", name, n, found)
			}
			t.Logf("%s: round %d: found %d", name, n, found)
			before = out.trace
		}
	}
}

// TestRetraceOfForgery: a trace that is not one of this delta, of these steps,
// or that goes on from something else.
func TestRetraceOfForgery(t *testing.T) {
	t.Parallel()
	x := newNode(t, 52)
	man := launch(t, x, tracedRun)
	w, j := x.again(t, man)
	first, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	j.round, j.head, j.before = 2, msg.RawCID([]byte("next")), first.trace
	out, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	read := func(id cid.Cid) *trace.Trace {
		b, err := w.store.ReadBytes(t.Context(), id, trace.MaxBytes)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := trace.Unmarshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	put := func(b []byte) cid.Cid {
		id, err := w.store.PutBytes(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	delta := func(change func(i int, v int32) int32) cid.Cid {
		b, err := w.store.ReadBytes(t.Context(), out.delta, int64(out.bytes))
		if err != nil {
			t.Fatal(err)
		}
		d, err := fold.Decode(w.layout, b)
		if err != nil {
			t.Fatal(err)
		}
		values := make([]int32, w.layout.Params())
		d.Values(values)
		for i, v := range values {
			values[i] = change(i, v)
		}
		b, err = fold.Encode(w.layout, int(man.CodecBits), values, nil)
		if err != nil {
			t.Fatal(err)
		}
		return put(b)
	}
	if found := retraced(t, w, j, out, first.trace, x.hub.self); slices.Max(found) > 100_000 {
		t.Fatalf("what was trained: found %d", found)
	}
	for name, forge := range map[string]func(o *outcome, tr *trace.Trace, before *cid.Cid){
		"the opposite": func(o *outcome, _ *trace.Trace, _ *cid.Cid) {
			o.delta = delta(func(_ int, v int32) int32 { return -v })
		},
		"a third of it replaced": func(o *outcome, _ *trace.Trace, _ *cid.Cid) {
			o.delta = delta(func(i int, v int32) int32 {
				if i%3 == 0 {
					return -v
				}
				return v
			})
		},
		"the one before":              func(o *outcome, _ *trace.Trace, _ *cid.Cid) { o.delta = first.delta },
		"the trace of the one before": func(_ *outcome, tr *trace.Trace, _ *cid.Cid) { *tr = *read(first.trace) },
		"more steps claimed":          func(o *outcome, _ *trace.Trace, _ *cid.Cid) { o.steps = 7 },
		"more tokens claimed":         func(o *outcome, _ *trace.Trace, _ *cid.Cid) { o.tokens *= 2 },
		"tokens moved between parts": func(_ *outcome, tr *trace.Trace, _ *cid.Cid) {
			for i := 1; i < len(tr.Boundaries)-1; i++ {
				tr.Boundaries[i].Tokens += uint64(i % 2)
			}
			tr.Boundaries[2].Tokens += 2
			tr.Boundaries[4].Tokens -= 3
		},
		"moments of nobody": func(_ *outcome, _ *trace.Trace, before *cid.Cid) { *before = cid.Undef },
		"forged moments": func(_ *outcome, tr *trace.Trace, _ *cid.Cid) {
			m := trace.Cold(2, w.layout.Params())
			m.Steps, m.Vectors[0][0] = 9, 1
			tr.Boundaries[0].Moments = put(m.Marshal())
		},
		"what was lost is all of it": func(o *outcome, tr *trace.Trace, _ *cid.Cid) {
			o.delta = delta(func(i int, _ int32) int32 { return int32(i%7) - 3 })
			tr.Residual = tr.End().Movement
		},
		"a trace that is not there": func(_ *outcome, tr *trace.Trace, _ *cid.Cid) {
			for i := range tr.Boundaries[1:] {
				tr.Boundaries[i+1].Movement = fold.FileCID([]byte("nowhere"))
			}
		},
		"no movement": func(_ *outcome, tr *trace.Trace, _ *cid.Cid) {
			for i := range tr.Boundaries {
				tr.Boundaries[i].Movement = w.still
			}
		},
		"a movement of two bits": func(o *outcome, tr *trace.Trace, _ *cid.Cid) {
			for i := range tr.Boundaries[1:] {
				tr.Boundaries[i+1].Movement = o.delta
			}
		},
	} {
		o, before := out, first.trace
		tr := read(out.trace)
		forge(&o, tr, &before)
		o.trace = put(tr.Marshal())
		if found := retraced(t, w, j, o, before, x.hub.self); slices.Min(found) <= 200_000 {
			t.Errorf("%s: found %d", name, found)
		}
	}
}

// TestInterruptedTrace: a round that is interrupted after any of its steps has
// the same trace.
func TestInterruptedTrace(t *testing.T) {
	t.Parallel()
	x := newNode(t, 53)
	man := launch(t, x, tracedRun)
	rounds := func(stopAfter uint64) []outcome {
		dir, before := t.TempDir(), cid.Undef
		var outs []outcome
		for n := range msg.Round(2) {
			for {
				x.hub.runs = map[cid.Cid]*Runner{}
				w, j := openWorker(t, x, man, dir)
				j.round, j.head, j.before = n+1, msg.RawCID([]byte{byte(n)}), before
				ctx, cancel := context.WithCancel(t.Context())
				w.onStep = func(_ msg.Round, step uint64, _ float64, _ int, _ time.Duration) {
					if stopAfter > 0 && step%stopAfter == 0 && step < 9 {
						cancel()
					}
				}
				out, err := w.train(ctx, j)
				cancel()
				if errors.Is(err, context.Canceled) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				outs, before = append(outs, out), out.trace
				break
			}
		}
		return outs
	}
	want := rounds(0)
	if !want[0].trace.Defined() || want[0].trace == want[1].trace {
		t.Fatalf("traces %v", want)
	}
	for _, stop := range []uint64{2, 3} {
		if got := rounds(stop); !slices.Equal(got, want) {
			t.Errorf("interrupted after every %d steps: %+v, at one go %+v", stop, got, want)
		}
	}
}

// refusing is a store that ends training whenever something is stored, and refuses
// what comes too late, or each time something else is stored.
type refusing struct {
	Store
	end  func()
	full bool
	n    int
}

func (s *refusing) PutBytes(ctx context.Context, data []byte) (cid.Cid, error) {
	if s.n++; s.full && s.n%3 == 2 {
		return cid.Undef, errors.New("disk is full")
	}
	if s.end != nil {
		s.end()
	}
	if err := ctx.Err(); err != nil {
		return cid.Undef, err
	}
	return s.Store.PutBytes(ctx, data)
}

// TestInterruptedMark: training that ends while a boundary is being stored, or a
// disk that has no room for it, leaves none out.
func TestInterruptedMark(t *testing.T) {
	t.Parallel()
	x := newNode(t, 57)
	man := launch(t, x, tracedRun)
	w, j := x.again(t, man)
	want, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	for _, full := range []bool{false, true} {
		w, j := x.again(t, man)
		store := &refusing{Store: w.store, full: full}
		w.store = store
		var got outcome
		for tries := 0; ; tries++ {
			ctx, cancel := context.WithCancel(t.Context())
			if tries < 8 && !full {
				store.end = cancel
			} else {
				store.end, store.full = nil, tries < 8 && full
			}
			got, err = w.train(ctx, j)
			cancel()
			if err == nil {
				break
			}
			if tries > 20 {
				t.Fatal(err)
			}
		}
		if got != want {
			t.Errorf("disk full %v: %+v, at one go %+v", full, got, want)
		}
	}
}

// retracedIn counts the retraces that records tell of.
func retracedIn(r *Runner) (n int) {
	for at := msg.Round(1); ; at++ {
		k, _, ok := r.ledger.At(at)
		if !ok {
			return n
		}
		for _, j := range k.Record.Judgements {
			n += int(j.Retraced)
		}
	}
}

// foundHonest counts the retraces and contributions of a run, in which all are
// honest and nobody is to be found otherwise.
func foundHonest(t *testing.T, r *Runner) (retraced, contributions int) {
	t.Helper()
	alike := 0
	for n := msg.Round(1); ; n++ {
		k, _, ok := r.ledger.At(n)
		if !ok {
			break
		}
		for _, j := range k.Record.Judgements {
			retraced += int(j.Retraced)
			if j.ErrorPPM > 100_000 || j.Verdict == msg.Damaging {
				t.Errorf("round %d: %+v", n, j)
			}
		}
		for _, x := range k.Record.Refused {
			switch {
			case x.Reason == msg.Timeout || x.Reason == msg.NotHeld: // it was late, as the machine was busy
			case x.Reason == msg.Copy && alike == 0: // it is now and then: proto/README.md, Why
				alike++
			default:
				t.Errorf("round %d refused %+v", n, x)
			}
		}
		contributions += len(k.Record.Contributions)
	}
	return retraced, contributions
}

// The seats of a run retrace each other's deltas, and find what was trained;
// what nobody needs any more goes from their disks.
func TestRetracedRun(t *testing.T) {
	a := newNode(t, 54)
	b := newNode(t, 55, a.addr())
	c := newNode(t, 56, a.addr())
	man := launch(t, a, func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.Inner.MaxSteps, m.Inner.BatchSamples = 3, 1000, 4, 4
		m.PeriodMillis = 60_000 // the machine may be busy: what is retraced is to be there within a quarter
		m.Trust = run.Trust{Auditors: 2, AuditSamples: 8, RetracePPM: 1e6}
	})
	var runs []*Runner
	for _, x := range []*testNode{a, b, c} {
		r, _ := x.takePart(t, man)
		runs = append(runs, r)
	}
	until(t, "eight retraces, two of each contribution", func() bool { return retracedIn(runs[0]) >= 8 })
	endNow(t, runs...)
	retraced, _ := foundHonest(t, runs[0])
	w := worker{dir: runs[0].dir}
	list := w.readTraces()
	if len(list) == 0 || len(list) > keepTraces+2 {
		t.Errorf("traces of %d rounds are kept", len(list))
	}
	t.Logf("%d retraces; kept traces of %d rounds", retraced, len(list))
}
