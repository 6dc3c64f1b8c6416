package train

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	files "github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

// TestGoldenQLoRA trains on base weights in four bits, quantised here, and
// compares with training on such weights elsewhere.
func TestGoldenQLoRA(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(golden(t), "nf4", "qlora_*.json"))
	if err != nil || len(paths) == 0 {
		t.Skip("no reference results of training on four bits")
	}
	for _, path := range paths {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "qlora_"), ".json")
		t.Run(name, func(t *testing.T) {
			base := openResults(t, filepath.Join(golden(t), "models", name))
			r := &results{t: t, dir: t.TempDir()}
			if r.tensors, err = safetensors.Open(strings.TrimSuffix(path, ".json") + ".safetensors"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.tensors.Close() })
			readJSON(t, path, &r.scalars)
			if err := files.Quantize(t.Context(), base.dir, r.dir, files.QuantizeOptions{}, nil); err != nil {
				t.Fatal(err)
			}
			qlora(t, base, r)
		})
	}
}

// qlora compares with r on the inputs and from the adapter of base.
func qlora(t *testing.T, base, r *results) {
	a := base.scalars.AdamW
	adapter := filepath.Join(base.dir, "adapter_init")
	start := func() *Trainer {
		tr, err := Open(Options{
			ModelDir: r.dir, Threads: 2, Backend: goldenBackend(t), Spec: specOf(t, base.dir, adapter),
			Adam: Adam{Beta1: a.Beta1, Beta2: a.Beta2, Epsilon: a.Eps, WeightDecay: a.WeightDecay},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.LoadAdapter(adapter); err != nil {
			t.Fatal(err)
		}
		return tr
	}
	tr := start()
	packed := 0
	for _, p := range tr.Model().Params() {
		if p.Value.Buf.Packed != nil {
			packed++
		}
	}
	if _, host := tr.b.(*cpu.Backend); host && packed == 0 {
		t.Fatal("no weights are in four bits")
	}
	logits, err := tr.Model().Logits(batchOf(t, base.samples("main")))
	if err != nil {
		t.Fatal(err)
	}
	nearAll(t, "main.logits", logits, r.floats("main.logits"), logitsTolerance)
	if _, _, err := tr.Step(t.Context(), base.samples("main"), 0); err != nil {
		t.Fatal(err)
	}
	grad := make([]float32, tr.Params())
	tr.Gradient(grad)
	for name, g := range byName(tr.Layout(), grad) {
		want := r.floats("grad." + name)
		most := 0.0
		for _, w := range want {
			most = max(most, math.Abs(float64(w)))
		}
		nearAll(t, "grad."+name, g, want, gradTolerance*most)
	}

	tr = start()
	var losses []float64
	r.scalar("train.loss", &losses)
	batches := slices.Collect(slices.Chunk(base.samples("train"), 2))
	for step, want := range losses {
		sum, tokens, err := tr.Step(t.Context(), batches[step%len(batches)], a.LR)
		if err != nil {
			t.Fatal(err)
		}
		near(t, fmt.Sprintf("train.loss of step %d", step), sum/float64(tokens), want, trainTolerance)
	}
	final := make([]float32, tr.Params())
	tr.Adapter(final)
	nearFinal(t, "final", byName(tr.Layout(), final), func(name string) []float32 { return r.floats("final." + name) })
}

func specOf(t *testing.T, modelDir, adapter string) lora.Spec {
	t.Helper()
	c, err := model.ReadConfig(modelDir)
	if err != nil {
		t.Fatal(err)
	}
	a, err := lora.Read(adapter, modules(c))
	if err != nil {
		t.Fatal(err)
	}
	return a.Spec()
}
