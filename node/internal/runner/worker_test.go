package runner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/demo"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// openWorker makes the worker of a run in dir, as a process that just started.
func openWorker(t *testing.T, x *testNode, man *run.Manifest, dir string) (*worker, job) {
	t.Helper()
	r, err := x.hub.Open(dir, man)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	d, err := r.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	st, err := r.states.put(t.Context(), r.genesis)
	if err != nil {
		t.Fatal(err)
	}
	return d.w, job{round: 1, head: r.ledger.Head().ID, state: st, until: time.Now().Add(time.Hour)}
}

// A round that is interrupted after any of its steps, and goes on in another
// process, gives the same delta, bit by bit.
func TestInterruptedRound(t *testing.T) {
	t.Parallel()
	x := newNode(t, 20)
	man := launch(t, x, func(m *run.Manifest) { m.Inner.MaxSteps = 5 })
	w, j := openWorker(t, x, man, t.TempDir())
	want, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if want.steps != 5 || want.tokens == 0 || want.lossMicro == 0 {
		t.Fatalf("uninterrupted: %+v", want)
	}
	fewer := j
	fewer.head, fewer.steps = msg.RawCID([]byte("another")), 2
	if got, err := w.train(t.Context(), fewer); err != nil || got.steps != 2 {
		t.Errorf("a round of two steps: %+v, %v", got, err)
	}
	x2 := newNode(t, 20) // the same identity draws the same samples
	man2 := launch(t, x2, func(m *run.Manifest) { m.Inner.MaxSteps = 5 })
	dir := t.TempDir()
	for steps := 1; steps <= 5; steps++ {
		w, j := openWorker(t, x2, man2, dir)
		ctx, cancel := context.WithCancel(t.Context())
		w.onStep = func(_ msg.Round, _ uint64, _ float64, _ int, _ time.Duration) {
			if steps < 5 {
				cancel()
			}
		}
		got, err := w.train(ctx, j)
		cancel()
		x2.hub.runs = map[cid.Cid]*Runner{} // the process is gone
		if steps < 5 {
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("interrupted after step %d: %v", steps, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("interrupted four times: %+v, at one go %+v", got, want)
		}
	}
}

// At the end of its time a round has what it has; and the node's end comes
// after the step that is under way.
func TestEndOfTraining(t *testing.T) {
	t.Parallel()
	x := newNode(t, 21)
	man := launch(t, x, func(m *run.Manifest) { m.Inner.MinSteps, m.Inner.MaxSteps = 2, 100000 })
	w, j := openWorker(t, x, man, t.TempDir())
	j.until = time.Now()
	out, err := w.train(t.Context(), j)
	if err != nil || out.steps != 2 {
		t.Fatalf("without time: %+v, %v; want the 2 steps that are the least", out, err)
	}
	ending := make(chan struct{})
	w.ending = ending
	steps := 0
	w.onStep = func(msg.Round, uint64, float64, int, time.Duration) {
		if steps++; steps == 3 {
			close(ending)
		}
	}
	j.head, j.until = msg.RawCID([]byte("another head")), time.Now().Add(time.Hour)
	if _, err := w.train(t.Context(), j); !errors.Is(err, errEnding) || steps != 3 {
		t.Errorf("%v after %d steps, want the end after 3", err, steps)
	}
}

// Damaged files cost the round's work and no more.
func TestDamagedCheckpoint(t *testing.T) {
	t.Parallel()
	x := newNode(t, 22)
	man := launch(t, x, nil)
	dir := t.TempDir()
	w, j := openWorker(t, x, man, dir)
	if _, err := w.train(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	x.hub.runs = map[cid.Cid]*Runner{}
	damaged := 0
	for _, pattern := range []string{"checkpoint/*", residualFile} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
			damaged++
		}
	}
	if damaged < 2 {
		t.Fatalf("found %d files to damage", damaged)
	}
	w, j = openWorker(t, x, man, dir)
	out, err := w.train(t.Context(), j)
	if err != nil || out.steps != 3 {
		t.Errorf("%+v, %v; want all 3 steps again", out, err)
	}
}

// A run of all parameters trains and encodes as another does.
func TestWorkerFull(t *testing.T) {
	t.Parallel()
	x := newNode(t, 23)
	man := launch(t, x, func(m *run.Manifest) {
		m.Mode, m.LoRA, m.Tensors = run.ModeFull, run.LoRA{}, nil
		cfg, err := model.ReadConfig(modelDirOf(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range train.FullLayout(cfg) {
			m.Tensors = append(m.Tensors, run.Tensor{Name: p.Name, Rows: uint32(p.Rows), Cols: uint32(p.Cols)})
		}
		m.Inner.LearningRateNano, m.CodecBits = 1e5, 8
	})
	w, j := openWorker(t, x, man, t.TempDir())
	before, err := w.evaluate(t.Context(), j.state)
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.train(t.Context(), j)
	if err != nil || out.steps != 3 || out.norm == 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	// The fold of that delta alone is a better model.
	st, err := w.states.get(t.Context(), j.state)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x.store.ReadBytes(t.Context(), out.delta, int64(out.bytes))
	if err != nil {
		t.Fatal(err)
	}
	d, err := fold.Decode(w.layout, b)
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := fold.Fold(st, []fold.Input{{Delta: d, Tokens: out.tokens, FactorQ16: fold.FactorFull}}, fold.Outer{LearningRateQ16: fold.One})
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, len(next.Theta))
	fold.ToFloat32(values, next.Theta)
	if err := w.trainer.SetAdapter(values); err != nil {
		t.Fatal(err)
	}
	held, err := w.samples.HeldOut(t.Context(), 8)
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := w.trainer.Eval(t.Context(), held)
	if err != nil || !(after < before) {
		t.Errorf("loss went from %v to %v (%v)", before, after, err)
	}
}

// modelDirOf is the folder of the bundled model.
func modelDirOf(t *testing.T) string {
	t.Helper()
	a, err := demo.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a.ModelDir
}
