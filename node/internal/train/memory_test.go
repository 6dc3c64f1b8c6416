package train

import (
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

// TestActivationBytes: a bound on memory changes what is kept, not what is
// computed.
func TestActivationBytes(t *testing.T) {
	dir := t.TempDir()
	m, err := model.New(model.Llama(32, 64, 5, 2, 60, 64), 1, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(dir, safetensors.F32); err != nil {
		t.Fatal(err)
	}
	o := Options{ModelDir: dir, Spec: lora.Spec{Rank: 4, Alpha: 8, Targets: []string{"all-linear"}}, MaxTokens: 32, MicroBatchTokens: 32}
	free, err := EstimateMemory(o)
	if err != nil {
		t.Fatal(err)
	}
	run := func(o Options) []float32 {
		tr, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		ids := []int32{1, 7, 3, 9, 30, 2, 8, 8, 41}
		for range 3 {
			if _, _, err := tr.Step(t.Context(), []Sample{{ids, ids}}, 1e-2); err != nil {
				t.Fatal(err)
			}
		}
		values := make([]float32, tr.Params())
		tr.Adapter(values)
		return values
	}
	want := run(o)
	o.ActivationBytes = free.Activations * 2 / 3
	tight, err := EstimateMemory(o)
	if err != nil {
		t.Fatal(err)
	}
	if tight.Activations > o.ActivationBytes || tight.Weights != free.Weights || tight.Training != free.Training {
		t.Errorf("EstimateMemory() = %+v with a bound of %d, %+v without", tight, o.ActivationBytes, free)
	}
	if !slices.Equal(run(o), want) {
		t.Error("a bound on memory changes results")
	}
	o.ActivationBytes = 1000
	for _, fn := range []func() error{
		func() error { _, err := EstimateMemory(o); return err },
		func() error { _, err := Open(o); return err },
	} {
		if err := fn(); err == nil || !strings.Contains(err.Error(), "smaller micro-batches") {
			t.Errorf("a bound that is too low gave %v", err)
		}
	}
}
