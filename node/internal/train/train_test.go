package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

func tinyConfig() model.Config {
	c := model.Llama(24, 40, 2, 4, 50, 64)
	c.KVHeads, c.InitRange = 2, 0.3
	return c
}

var tinySpec = lora.Spec{Rank: 4, Alpha: 8, Targets: allLinear}

// tiny returns a trainer with an adapter that is not zero.
func tiny(t testing.TB, o Options) *Trainer {
	t.Helper()
	m, err := model.New(tinyConfig(), 1, model.Options{Threads: max(1, o.Threads)})
	if err != nil {
		t.Fatal(err)
	}
	o.Spec = tinySpec
	tr, err := New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, tr.Params())
	for i := range values {
		values[i] = float32(i%17-8) / 40
	}
	if err := tr.SetAdapter(values); err != nil {
		t.Fatal(err)
	}
	return tr
}

func values(t *Trainer) []float32 {
	v := make([]float32, t.Params())
	t.Adapter(v)
	return v
}

func ragged(lengths ...int) []Sample {
	var list []Sample
	for i, n := range lengths {
		s := randomSamples(50, i+1, n)[i]
		s.Labels = slices.Clone(s.Labels)
		for j := 0; j < n/2; j++ {
			s.Labels[j] = NotCounted
		}
		list = append(list, s)
	}
	return list
}

func step(t testing.TB, tr *Trainer, batch []Sample) float64 {
	t.Helper()
	sum, tokens, err := tr.Step(t.Context(), batch, 1e-2)
	if err != nil {
		t.Fatal(err)
	}
	return sum / float64(tokens)
}

// TestAccumulation: how a batch is cut into micro-batches does not matter.
func TestAccumulation(t *testing.T) {
	batch := ragged(9, 20, 3, 14, 31, 5)
	var want []float32
	var wantLoss float64
	for _, micro := range []int{1000, 1, 24, 40} {
		tr := tiny(t, Options{MicroBatchTokens: micro})
		loss := step(t, tr, batch)
		grad := make([]float32, tr.Params())
		tr.Gradient(grad)
		if want == nil {
			want, wantLoss = grad, loss
			continue
		}
		if math.Abs(loss-wantLoss) > 1e-6 {
			t.Errorf("micro-batches of %d tokens: loss %v, want %v", micro, loss, wantLoss)
		}
		nearAll(t, fmt.Sprintf("gradient with micro-batches of %d tokens", micro), grad, want, 1e-6)
	}
}

// TestThreads: the number of threads changes no bit.
func TestThreads(t *testing.T) {
	var want []float32
	for _, threads := range []int{1, 2, 5} {
		tr := tiny(t, Options{Threads: threads})
		for range 3 {
			step(t, tr, randomSamples(50, 20, 40))
		}
		if want == nil {
			want = values(tr)
		} else if !slices.Equal(values(tr), want) {
			t.Errorf("%d threads train another adapter than one", threads)
		}
	}
}

func TestStepLearns(t *testing.T) {
	tr := tiny(t, Options{Adam: Adam{ClipNorm: 1}})
	batch := ragged(12, 20)
	first := step(t, tr, batch)
	for range 300 {
		step(t, tr, batch)
	}
	score, err := tr.Evaluate(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	if score.Loss() > 0.2 || score.Accuracy() != 1 || first < 2 {
		t.Errorf("loss went from %v to %v, accuracy %v", first, score.Loss(), score.Accuracy())
	}
	// What was learnt can be generated.
	for _, s := range batch {
		half := len(s.IDs) / 2
		got, err := tr.Generate(t.Context(), s.IDs[:half], GenerateOptions{MaxTokens: len(s.IDs) - half})
		if err != nil || !slices.Equal(got, s.IDs[half:]) {
			t.Errorf("Generate() = %v, %v, want %v", got, err, s.IDs[half:])
		}
	}
}

// TestNewAdapter: a new adapter changes no bit of the base model, and learns.
func TestNewAdapter(t *testing.T) {
	base, err := model.New(tinyConfig(), 1, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.New(tinyConfig(), 1, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := New(m, Options{Spec: tinySpec, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	b := batchOf(t, ragged(10))
	got, err := tr.Model().Logits(b)
	if err != nil {
		t.Fatal(err)
	}
	want, err := base.Logits(b)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("a new adapter changes logits (%v)", err)
	}
	batch := ragged(12)
	first := step(t, tr, batch)
	for range 30 {
		step(t, tr, batch)
	}
	if last := step(t, tr, batch); last > first/2 {
		t.Errorf("loss went from %v to %v only", first, last)
	}
}

func TestStepChangesNothing(t *testing.T) {
	tr := tiny(t, Options{MicroBatchTokens: 8, MaxTokens: 32})
	step(t, tr, ragged(8)) // moments are not zero
	before, steps := values(tr), tr.Steps()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	none := ragged(8)
	for i := range none[0].Labels {
		none[0].Labels[i] = NotCounted
	}
	none[0].Labels[0] = 3 // the first token is never counted
	for _, tt := range []struct {
		name  string
		ctx   context.Context
		batch []Sample
		fails bool
		want  error // nil: any
	}{
		{"cancelled", cancelled, ragged(8), true, context.Canceled},
		{"cancelled in the middle", &expiring{Context: t.Context(), after: 2}, ragged(8, 8, 8), true, context.Canceled},
		{"nothing counted", t.Context(), none, false, nil},
		{"empty", t.Context(), nil, false, nil},
		{"lengths differ", t.Context(), []Sample{{[]int32{1, 2}, []int32{1}}}, true, nil},
		{"too long", t.Context(), ragged(33), true, nil},
		{"token outside", t.Context(), []Sample{{[]int32{1, 50}, []int32{1, 2}}}, true, nil},
		{"label outside", t.Context(), append(ragged(8), Sample{[]int32{1, 2}, []int32{1, 50}}), true, nil},
	} {
		sum, tokens, err := tr.Step(tt.ctx, tt.batch, 1e-2)
		if sum != 0 || tokens != 0 || (err != nil) != tt.fails || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: Step() = %v, %v, %v", tt.name, sum, tokens, err)
		}
		if !slices.Equal(values(tr), before) || tr.Steps() != steps {
			t.Errorf("%s: the adapter was changed", tt.name)
		}
	}
}

var errAny = errors.New("any error")

// expiring is done after its error was asked for a number of times.
type expiring struct {
	context.Context
	after int
}

func (e *expiring) Err() error {
	if e.after--; e.after < 0 {
		return context.Canceled
	}
	return nil
}

func TestNotFinite(t *testing.T) {
	tr := tiny(t, Options{})
	v := values(tr)
	v[7] = float32(math.NaN())
	if err := tr.SetAdapter(v); !errors.Is(err, ErrNotFinite) {
		t.Errorf("SetAdapter with a NaN: %v", err)
	}
	if err := tr.SetAdapter(v[1:]); err == nil {
		t.Error("SetAdapter with too few values gave no error")
	}
	for i := range v {
		v[i] = 1e30 // finite, but not what comes out of it
	}
	if err := tr.SetAdapter(v); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tr.Step(t.Context(), ragged(9), 1e-2); !errors.Is(err, ErrNotFinite) {
		t.Errorf("a step that overflows: %v", err)
	}
	if !slices.Equal(values(tr), v) || tr.Steps() != 0 {
		t.Error("a step that overflows changed something")
	}
}

func TestClip(t *testing.T) {
	for _, tt := range []struct{ norm, limit, want float64 }{
		{5, 0, 1}, {0.5, 1, 1}, {4, 1, 1 / (4 + 1e-6)}, {1, 1, 1 / (1 + 1e-6)}, {0, 1, 1},
	} {
		if got := clip(tt.norm, tt.limit); math.Abs(got-tt.want) > 1e-12 {
			t.Errorf("clip(%v, %v) = %v, want %v", tt.norm, tt.limit, got, tt.want)
		}
	}
}

// TestResume: a killed process goes on bit by bit.
func TestResume(t *testing.T) {
	batches := [][]Sample{ragged(9, 5), ragged(14), ragged(3, 3, 8)}
	straight := tiny(t, Options{})
	for i := range 8 {
		step(t, straight, batches[i%3])
	}
	dir := filepath.Join(t.TempDir(), "checkpoints")
	for _, stop := range []int{1, 2, 5} {
		first := tiny(t, Options{CheckpointDir: dir})
		for i := range stop {
			step(t, first, batches[i%3])
			if err := first.Save(fmt.Appendf(nil, "next %d", i+1)); err != nil {
				t.Fatal(err)
			}
		}
		second := tiny(t, Options{CheckpointDir: dir})
		position, ok, err := second.Load()
		if err != nil || !ok || string(position) != fmt.Sprintf("next %d", stop) {
			t.Fatalf("Load() = %q, %v, %v", position, ok, err)
		}
		for i := stop; i < 8; i++ {
			step(t, second, batches[i%3])
		}
		if !slices.Equal(values(second), values(straight)) {
			t.Errorf("resumed after %d steps, the adapter is another one", stop)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestResetOptimizer(t *testing.T) {
	fresh, used := tiny(t, Options{}), tiny(t, Options{})
	start := values(fresh)
	step(t, used, ragged(9))
	used.ResetOptimizer()
	if err := used.SetAdapter(start); err != nil {
		t.Fatal(err)
	}
	step(t, fresh, ragged(14))
	step(t, used, ragged(14))
	if !slices.Equal(values(fresh), values(used)) {
		t.Error("ResetOptimizer left something behind")
	}
}

// TestTornCheckpoint: whatever is left of a save that was cut off, the one
// before it is found.
func TestTornCheckpoint(t *testing.T) {
	dir := t.TempDir()
	tr := tiny(t, Options{CheckpointDir: dir})
	if _, ok, err := tr.Load(); ok || err != nil {
		t.Fatalf("Load of an empty folder = %v, %v", ok, err)
	}
	for _, p := range []string{"a", "b"} {
		step(t, tr, ragged(9))
		if err := tr.Save([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	older := filepath.Join(dir, slotNames[1]) // saves count from 1
	newer := filepath.Join(dir, slotNames[0])
	a, errA := os.ReadFile(older)
	b, errB := os.ReadFile(newer)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	expect := func(what, want string) {
		t.Helper()
		other := tiny(t, Options{CheckpointDir: dir})
		position, ok, err := other.Load()
		if string(position) != want || ok != (want != "") || (err != nil) != (want == "") {
			t.Errorf("%s: Load() = %q, %v, %v, want %q", what, position, ok, err, want)
		}
	}
	expect("both whole", "b")
	third := bytes.Repeat([]byte{1}, len(b)) // what a third save would write
	for _, cut := range []int{0, 1, 8, 60, len(b) / 2, len(b) - 33, len(b) - 1} {
		if err := os.WriteFile(newer, b[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		expect(fmt.Sprintf("newer one cut at %d", cut), "a")
		if err := os.WriteFile(newer, append(bytes.Clone(third[:cut]), b[cut:]...), 0o600); err != nil {
			t.Fatal(err)
		}
		if cut > 0 {
			expect(fmt.Sprintf("newer one overwritten to %d", cut), "a")
		}
	}
	if err := os.WriteFile(newer, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(b); at += 997 {
		flipped := bytes.Clone(b)
		flipped[at] ^= 4
		if err := os.WriteFile(newer, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		expect(fmt.Sprintf("bit flipped at %d", at), "a")
	}
	if err := os.WriteFile(older, a[:5], 0o600); err != nil {
		t.Fatal(err)
	}
	expect("none whole", "")
	if _, _, err := tiny(t, Options{CheckpointDir: dir}).Load(); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("Load of a folder with nothing whole: %v", err)
	}
	// And a new save makes it usable again.
	again := tiny(t, Options{CheckpointDir: dir})
	if err := again.Save([]byte("c")); err != nil {
		t.Fatal(err)
	}
	expect("after a new save", "c")
}

func TestCheckpointOfAnotherAdapter(t *testing.T) {
	dir := t.TempDir()
	m, err := model.New(tinyConfig(), 1, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// As many values under other names.
	spec := lora.Spec{Rank: 4, Alpha: 8, Targets: []string{"gate_proj"}}
	tr, err := New(m, Options{Spec: spec, CheckpointDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Save(nil); err != nil {
		t.Fatal(err)
	}
	if err := tr.Save(nil); err != nil { // both slots
		t.Fatal(err)
	}
	if m, err = model.New(tinyConfig(), 1, model.Options{}); err != nil {
		t.Fatal(err)
	}
	spec.Targets = []string{"up_proj"}
	tr, err = New(m, Options{Spec: spec, CheckpointDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := tr.Load(); ok || !errors.Is(err, ErrCheckpoint) {
		t.Errorf("Load of a checkpoint of another adapter = %v, %v", ok, err)
	}
	if err := tiny(t, Options{CheckpointDir: dir}).Save(make([]byte, MaxPositionBytes+1)); err == nil {
		t.Error("a position that is too long was saved")
	}
	if err := tiny(t, Options{}).Save(nil); err == nil {
		t.Error("a save without a folder gave no error")
	}
}

func TestRunSteps(t *testing.T) {
	next := func(_ context.Context, step int) ([]Sample, float64, error) { return ragged(5 + step), 1e-2, nil }
	want := tiny(t, Options{})
	for i := range 6 {
		step(t, want, ragged(5+i))
	}
	dir := t.TempDir()
	tr := tiny(t, Options{CheckpointDir: dir})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := RunOptions{Next: next, MaxSteps: 6, Position: func(next int) []byte { return []byte{byte(next)} }}
	o.OnStep = func(s StepResult) {
		if s.Step == 3 {
			cancel()
		}
	}
	r, err := tr.RunSteps(ctx, o)
	if !errors.Is(err, context.Canceled) || r.Steps != 4 || r.Tokens == 0 || r.LossSum <= 0 {
		t.Fatalf("RunSteps() = %+v, %v", r, err)
	}
	tr = tiny(t, Options{CheckpointDir: dir})
	position, ok, err := tr.Load()
	if err != nil || !ok || position[0] != 4 {
		t.Fatalf("Load() = %v, %v, %v", position, ok, err)
	}
	o.FirstStep, o.OnStep = 4, nil
	if r, err = tr.RunSteps(t.Context(), o); err != nil || r.Steps != 2 {
		t.Fatalf("RunSteps() = %+v, %v", r, err)
	}
	if !slices.Equal(values(tr), values(want)) {
		t.Error("a run that was cancelled and resumed trains another adapter")
	}
	// The time is up: only the steps that must be taken are.
	late := RunOptions{Next: next, MaxSteps: 6, MinSteps: 2, Until: time.Now().Add(-time.Second)}
	if r, err = tiny(t, Options{}).RunSteps(t.Context(), late); err != nil || r.Steps != 2 {
		t.Errorf("RunSteps() after its time = %+v, %v", r, err)
	}
	late.Next = func(context.Context, int) ([]Sample, float64, error) { return nil, 0, errAny }
	if _, err = tiny(t, Options{}).RunSteps(t.Context(), late); !errors.Is(err, errAny) {
		t.Errorf("RunSteps() without a batch: %v", err)
	}
}

// TestExport: what is exported is read back, the same values and bytes.
func TestExport(t *testing.T) {
	dir := t.TempDir()
	m, err := model.New(tinyConfig(), 1, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, "base")
	if err := m.Save(base, safetensors.F32); err != nil {
		t.Fatal(err)
	}
	tr, err := Open(Options{ModelDir: base, Spec: tinySpec, BaseName: "tiny"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.SetAdapter(values(tiny(t, Options{}))); err != nil {
		t.Fatal(err)
	}
	step(t, tr, ragged(9))
	for _, name := range []string{"a", "b"} {
		if err := tr.ExportAdapter(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{lora.ConfigFile, lora.WeightsFile} {
		a, errA := os.ReadFile(filepath.Join(dir, "a", name))
		b, errB := os.ReadFile(filepath.Join(dir, "b", name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s written twice differs (%v, %v)", name, errA, errB)
		}
	}
	again, err := Open(Options{ModelDir: base, Spec: tinySpec})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.LoadAdapter(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(values(again), values(tr)) {
		t.Error("the adapter read back is another one")
	}
	layout, err := Layout(base, tinySpec)
	if err != nil || !slices.Equal(layout, tr.Layout()) {
		t.Errorf("Layout() = %v, %v", layout, err)
	}
	other := tinySpec
	other.Alpha = 16
	if tr, err = Open(Options{ModelDir: base, Spec: other}); err != nil {
		t.Fatal(err)
	}
	if err := tr.LoadAdapter(filepath.Join(dir, "a")); err == nil {
		t.Error("an adapter with another alpha was loaded")
	}
}

func TestFull(t *testing.T) {
	build := func() *Trainer {
		m, err := model.New(tinyConfig(), 3, model.Options{})
		if err != nil {
			t.Fatal(err)
		}
		tr, err := NewFull(FullOptions{Model: m, Adam: Adam{ClipNorm: 1, WeightDecay: 0.01}})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	a, b := build(), build()
	batch := randomSamples(50, 3, 16)
	first := step(t, a, batch)
	step(t, b, batch)
	for range 60 {
		step(t, a, batch)
		step(t, b, batch)
	}
	if !slices.Equal(values(a), values(b)) {
		t.Error("training all parameters twice gives other weights")
	}
	loss, _, err := a.Eval(t.Context(), batch)
	if err != nil || loss > first/10 {
		t.Errorf("loss went from %v to %v (%v)", first, loss, err)
	}
	dir := t.TempDir()
	if err := a.Model().Save(dir, safetensors.F32); err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(dir, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	flat, _ := m.Flat()
	if !slices.Equal(flat.Host, values(a)) {
		t.Error("the saved model has other weights")
	}
	if err := a.ExportAdapter(dir); err == nil {
		t.Error("an adapter was exported of a trainer without one")
	}
	if _, err := NewFull(FullOptions{}); err == nil {
		t.Error("a trainer without a model was made")
	}
}

func TestEstimateMemory(t *testing.T) {
	dir := t.TempDir()
	m, err := model.New(tinyConfig(), 1, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(dir, safetensors.BF16); err != nil {
		t.Fatal(err)
	}
	small, err := EstimateMemory(Options{ModelDir: dir, Spec: tinySpec, MicroBatchTokens: 64})
	if err != nil {
		t.Fatal(err)
	}
	large, err := EstimateMemory(Options{ModelDir: dir, Spec: tinySpec, MicroBatchTokens: 128})
	if err != nil {
		t.Fatal(err)
	}
	weights := int64(0)
	for _, p := range m.Params() { // norms are expanded, matrices are not
		weights += int64(2 * p.Value.Rows * p.Value.Cols)
		if len(p.Shape) == 1 {
			weights += int64(2 * p.Value.Cols)
		}
	}
	if small.Weights != weights || small.Training != 20*int64(tiny(t, Options{}).Params()) {
		t.Errorf("EstimateMemory() = %+v", small)
	}
	if large.Activations <= small.Activations || large.Total()-large.Activations != small.Total()-small.Activations {
		t.Errorf("EstimateMemory() = %+v and %+v", small, large)
	}
	if _, err := EstimateMemory(Options{ModelDir: t.TempDir(), Spec: tinySpec}); err == nil {
		t.Error("a folder without a model has an estimate")
	}
}

// TestStepAllocations: a step allocates nothing once everything has its size.
func TestStepAllocations(t *testing.T) {
	tr := tiny(t, Options{})
	batch := ragged(9, 20)
	ctx := t.Context()
	run := func() {
		if _, _, err := tr.Step(ctx, batch, 1e-3); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if n := testing.AllocsPerRun(10, run); n != 0 {
		t.Errorf("a step makes %v allocations", n)
	}
}
