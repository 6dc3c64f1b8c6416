package train

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	files "github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/goldentest"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

// half writes the model in dir with weights of bfloat16 and returns where.
func half(t *testing.T, dir string) string {
	t.Helper()
	m, err := model.Load(dir, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if err := m.Save(to, safetensors.BF16); err != nil {
		t.Fatal(err)
	}
	return to
}

// curve is what training comes to.
type curve struct {
	losses                    []float64
	gradient, adapter, origin []float32 // of the first step; after the last one; before
}

// trainHalf trains the model in dir on the batches of base, from its adapter.
func trainHalf(t *testing.T, base *results, dir string, p cpu.Precision) curve {
	t.Helper()
	return trainCurve(t, base, Options{ModelDir: dir, Threads: 2, Precision: p}, 20)
}

func trainCurve(t *testing.T, base *results, o Options, steps int) (c curve) {
	t.Helper()
	a, adapter := base.scalars.AdamW, filepath.Join(base.dir, "adapter_init")
	o.Spec = specOf(t, base.dir, adapter)
	o.Adam = Adam{Beta1: a.Beta1, Beta2: a.Beta2, Epsilon: a.Eps, WeightDecay: a.WeightDecay}
	tr, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Close() }()
	if err := tr.LoadAdapter(adapter); err != nil {
		t.Fatal(err)
	}
	values := func(get func([]float32)) []float32 {
		v := make([]float32, tr.Params())
		get(v)
		return v
	}
	c.origin = values(tr.Adapter)
	batches := slices.Collect(slices.Chunk(base.samples("train"), 2))
	for i := range steps {
		sum, tokens, err := tr.Step(t.Context(), batches[i%len(batches)], a.LR)
		if err != nil {
			t.Fatal(err)
		}
		c.losses = append(c.losses, sum/float64(tokens))
		if i == 0 {
			c.gradient = values(tr.Gradient)
			if _, err := tr.Model().Evaluate(batchOf(t, base.samples("main"))); err != nil { // steps after it are as before
				t.Fatal(err)
			}
		}
	}
	c.adapter = values(tr.Adapter)
	return c
}

// away returns how far v is from want, relative to how far that is from from,
// or from 0.
func away(v, want, from []float32) float64 {
	var d, size float64
	for i, w := range want {
		x := float64(w)
		d += (float64(v[i]) - x) * (float64(v[i]) - x)
		if from != nil {
			x -= float64(from[i])
		}
		size += x * x
	}
	return math.Sqrt(d / size)
}

// torchBF16 is how far PyTorch's bfloat16 is from its float32.
type torchBF16 struct {
	F32      []float64 `json:"loss_f32"`
	BF16     []float64 `json:"loss_bf16"`
	Gradient float64   `json:"gradient_error"`
	Adapter  float64   `json:"adapter_error"`
}

func readTorchBF16(t *testing.T) (r torchBF16) {
	t.Helper()
	readJSON(t, filepath.Join("testdata", "bf16_torch.json"), &r)
	return r
}

// TestBF16 trains a model with weights of bfloat16 in float32 and in bfloat16,
// and compares the difference with that which PyTorch makes on the same model
// (scripts/golden/bf16_torch.py).
func TestBF16(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "llama2-mha"))
	torch := readTorchBF16(t)
	dir := half(t, base.dir)
	exact := trainHalf(t, base, dir, cpu.PrecisionF32)
	for i, want := range torch.F32 {
		near(t, "loss in float32", exact.losses[i], want, trainTolerance)
	}
	rounded := trainHalf(t, base, dir, cpu.PrecisionBF16)
	worst, worstTorch := 0., 0.
	for i, want := range exact.losses {
		worst = max(worst, math.Abs(rounded.losses[i]-want))
		worstTorch = max(worstTorch, math.Abs(torch.BF16[i]-torch.F32[i]))
	}
	for _, c := range []struct {
		name        string
		ours, other float64
	}{
		{"loss", worst, worstTorch},
		{"gradient", away(rounded.gradient, exact.gradient, nil), torch.Gradient},
		{"adapter", away(rounded.adapter, exact.adapter, exact.origin), torch.Adapter},
	} {
		t.Logf("%s: bfloat16 is off by %.2g, PyTorch's by %.2g", c.name, c.ours, c.other)
		if !(c.ours <= c.other) {
			t.Errorf("%s: bfloat16 is off by %.2g, more than PyTorch's, %.2g", c.name, c.ours, c.other)
		}
		if c.ours == 0 {
			t.Errorf("%s: bfloat16 is not used", c.name)
		}
	}
}

// TestBF16Evaluation: losses do not depend on how a peer trains.
func TestBF16Evaluation(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "llama2-mha"))
	dir := half(t, base.dir)
	var sums []float64
	for _, p := range []cpu.Precision{cpu.PrecisionF32, cpu.PrecisionBF16} {
		m, err := model.Load(dir, model.Options{Precision: p})
		if err != nil {
			t.Fatal(err)
		}
		l, err := m.Evaluate(batchOf(t, base.samples("main")))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, l.Sum)
	}
	if sums[0] != sums[1] {
		t.Errorf("the loss is %v in float32 and %v in bfloat16", sums[0], sums[1])
	}
}

// TestBF16OnNF4: training on four bits is training on what bfloat16 keeps of
// their values, to the bit.
func TestBF16OnNF4(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "llama2-mha"))
	four := t.TempDir()
	if err := files.Quantize(t.Context(), half(t, base.dir), four, files.QuantizeOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	got, want := trainHalf(t, base, four, cpu.PrecisionBF16), trainHalf(t, base, half(t, four), cpu.PrecisionBF16)
	if !slices.Equal(got.losses, want.losses) || !slices.Equal(got.adapter, want.adapter) {
		t.Error("training on four bits differs from training on their values")
	}
	if exact := trainHalf(t, base, four, cpu.PrecisionF32); slices.Equal(exact.adapter, got.adapter) {
		t.Error("bfloat16 is not used")
	}
}
