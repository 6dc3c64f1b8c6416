package app

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/train"
)

// How far logits may be off, as a share of their spread.
const (
	exactTolerance = 1e-5
	f16Tolerance   = 0.01
)

// checkAdapter tests a file of an adapter: with what is read back from it the
// base model in dir must give the logits that it gives with the live adapter,
// which must not be those that it gives alone.
func checkAdapter(ctx context.Context, dir string, live *lora.Adapter, threads int, tolerance float64, read func(model.Config) (*lora.Adapter, error)) (*api.ExportTest, error) {
	m, err := model.Load(dir, model.Options{Threads: threads})
	if err != nil {
		return nil, err
	}
	var b model.Batch
	if err := b.Add(probe(m.Config()), nil); err != nil {
		return nil, err
	}
	logits := func(a *lora.Adapter) ([]float32, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if a != nil {
			if err := train.Apply(m, a); err != nil {
				return nil, err
			}
		}
		l, err := m.Logits(&b)
		return slices.Clone(l), err
	}
	alone, err := logits(nil)
	if err != nil {
		return nil, err
	}
	want, err := logits(live)
	if err != nil {
		return nil, err
	}
	back, err := read(m.Config())
	if err != nil {
		return nil, api.Errorf(api.CodeVerify, "read the export back: %w", err)
	}
	got, err := logits(back)
	if err != nil {
		return nil, err
	}
	t, err := compareLogits(alone, want, got, tolerance)
	if err == nil && t.Effect == 0 && !doesNothing(live) {
		return t, api.Errorf(api.CodeVerify, "the adapter is not zero, but changes no logit of the base model")
	}
	return t, err
}

func compareLogits(alone, want, got []float32, tolerance float64) (*api.ExportTest, error) {
	t := &api.ExportTest{Difference: logitDistance(got, want), Effect: logitDistance(alone, want), Tolerance: tolerance}
	switch {
	case math.IsInf(t.Difference, 0) || math.IsInf(t.Effect, 0):
		return t, api.Errorf(api.CodeVerify, "with the adapter the model gives logits that are not finite").
			WithHint("export an earlier round with --round")
	case t.Difference > t.Tolerance:
		return t, api.Errorf(api.CodeVerify, "what was written gives logits that differ by %.2g from those of the adapter, at most %.2g is expected", t.Difference, t.Tolerance)
	case t.Difference > exactTolerance && t.Difference > t.Effect/2:
		return t, api.Errorf(api.CodeVerify, "what was written gives logits that differ by %.2g from those of the adapter, which differ by %.2g from the base model's", t.Difference, t.Effect).
			WithHint("rounding takes away what the adapter does: export it with --dtype f32")
	}
	return t, nil
}

// probe is the tokens of which logits are compared.
func probe(c model.Config) []int32 {
	ids := make([]int32, min(48, c.Context))
	for i := range ids {
		ids[i] = int32((i*7919 + 13) % c.Vocab)
	}
	return ids
}

// logitDistance is the root of the mean square of the difference, as a share of
// that of want around its mean. It is infinite when a value is not finite.
func logitDistance(got, want []float32) float64 {
	mean, square, off := 0.0, 0.0, 0.0
	for _, v := range want {
		mean += float64(v) / float64(len(want))
	}
	for i, v := range want {
		square += (float64(v) - mean) * (float64(v) - mean)
		off += (float64(got[i]) - float64(v)) * (float64(got[i]) - float64(v))
	}
	if d := math.Sqrt(off / square); len(got) == len(want) && !math.IsNaN(d) {
		return d
	}
	return math.Inf(1)
}

// doesNothing reports whether an adapter is as it was before the first step.
func doesNothing(a *lora.Adapter) bool {
	for _, p := range a.Parts() {
		for _, v := range a.Tensor(p.B) {
			if v != 0 {
				return false
			}
		}
	}
	return true
}

// readGGUF reads a GGUF file back as llama.cpp does, and checks that it adds to
// each layer what the adapter adds; tolerance is a share of a tensor's largest
// value.
func readGGUF(path string, base lora.GGUFBase, modules []lora.Module, live *lora.Adapter, tolerance float64) (*lora.Adapter, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	back, err := lora.ReadGGUF(b, base, modules)
	if err != nil {
		return nil, err
	}
	parts := make(map[string]lora.Part)
	for _, p := range back.Parts() {
		parts[p.Path] = p
	}
	for _, p := range live.Parts() {
		q, ok := parts[p.Path]
		delete(parts, p.Path)
		if !ok || q.Rank != p.Rank || !near(back.Tensor(q.A), live.Tensor(p.A), 1, tolerance) ||
			!near(back.Tensor(q.B), live.Tensor(p.B), float64(p.Scale)/float64(q.Scale), tolerance) {
			return nil, fmt.Errorf("%s: what it adds to %s is not what the adapter adds", path, p.Path)
		}
	}
	if len(parts) > 0 {
		return nil, fmt.Errorf("%s: it adapts %d layers more than the adapter", path, len(parts))
	}
	return back, nil
}

// near reports whether got is want times factor.
func near(got, want []float32, factor, tolerance float64) bool {
	most := 0.0
	for _, v := range want {
		most = max(most, math.Abs(float64(v)*factor))
	}
	for i, v := range want {
		if !(math.Abs(float64(got[i])-float64(v)*factor) <= tolerance*most) {
			return false
		}
	}
	return true
}
