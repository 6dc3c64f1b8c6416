package model

import (
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/shard/safetensors"
)

// TestPackedWeights: with weights in less memory a model computes the same, to
// the bit, as with their values in float32.
func TestPackedWeights(t *testing.T) {
	for name, c := range familyConfigs() {
		m, err := lively(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		dirs := map[string]string{"BF16": t.TempDir(), "NF4": t.TempDir()}
		if err := m.Save(dirs["BF16"], safetensors.BF16); err != nil {
			t.Fatal(err)
		}
		if c.family().transposed { // there are no such checkpoints in four bits
			delete(dirs, "NF4")
		} else if err := checkpoint.Quantize(t.Context(), dirs["BF16"], dirs["NF4"], checkpoint.QuantizeOptions{}, nil); err != nil {
			t.Fatal(err)
		}
		for kind, dir := range dirs {
			small := mustLoad(t, dir)
			plain := t.TempDir()
			if err := small.Save(plain, safetensors.F32); err != nil {
				t.Fatal(err)
			}
			large := mustLoad(t, plain)
			if v, _ := large.Flat(); v.Len != c.Params() {
				t.Fatalf("%s: %d of %d parameters are float32", name, v.Len, c.Params())
			}
			if v, _ := small.Flat(); v.Len >= c.Params() {
				t.Errorf("%s %s: %d of %d parameters are float32", name, kind, v.Len, c.Params())
			}
			checkWeightBytes(t, dir, small)
			checkWeightBytes(t, plain, large)
			if !slices.Equal(mustLogits(t, small), mustLogits(t, large)) {
				t.Errorf("%s %s: other logits than in float32", name, kind)
			}
			if !slices.Equal(adapterGradients(t, small), adapterGradients(t, large)) {
				t.Errorf("%s %s: other derivatives than in float32", name, kind)
			}
			a, b := fullGradients(t, small), fullGradients(t, large)
			if !slices.Equal(a, b) {
				t.Errorf("%s %s: other derivatives of all parameters than in float32", name, kind)
			}
		}
	}
}

// checkWeightBytes compares WeightBytes with the memory of a loaded model.
func checkWeightBytes(t *testing.T, dir string, m *Model) {
	t.Helper()
	got, err := WeightBytes(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := int64(4 * m.flat.Len)
	scales := 0 // of blocks that are not full, and the map of a weight's scales
	for _, p := range m.params {
		switch v := p.Value.Buf.Packed.(type) {
		case tensor.BF16:
			want += int64(2 * v.Len())
		case *nf4.Weight:
			want += int64(v.Bytes())
			scales += 4 + 4*256 + 4*len(v.Nested.Scales)
		}
	}
	if got > want || got < want-int64(scales) {
		t.Errorf("WeightBytes() = %d, loading takes %d", got, want)
	}
}

func mustLoad(t *testing.T, dir string) *Model {
	t.Helper()
	m, err := Load(dir, Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// adapterGradients puts adapters on all linear layers and returns the
// derivatives.
func adapterGradients(t *testing.T, m *Model) []float32 {
	t.Helper()
	const rank = 3
	n := 0
	for _, mod := range m.cfg.Modules() {
		n += rank * (mod.In + mod.Out)
	}
	values, grads := m.b.Alloc(n), m.b.Alloc(n)
	for i := range values.Host {
		values.Host[i] = float32(i%7-3) / 16
	}
	adapters, at := map[string]LowRank{}, 0
	for _, mod := range m.cfg.Modules() {
		end := at + rank*mod.In
		adapters[mod.Path] = LowRank{
			A: values.Mat(at, rank, mod.In), DA: grads.Mat(at, rank, mod.In),
			B: values.Mat(end, mod.Out, rank), DB: grads.Mat(end, mod.Out, rank), Scale: 0.5,
		}
		at = end + rank*mod.Out
	}
	if err := m.Attach(adapters); err != nil {
		t.Fatal(err)
	}
	accumulate(t, m)
	if err := m.Attach(nil); err != nil {
		t.Fatal(err)
	}
	return grads.Host
}

func fullGradients(t *testing.T, m *Model) []float32 {
	t.Helper()
	m.EnableFullGradients()
	accumulate(t, m)
	_, grads := m.Flat()
	return grads.Host
}

func accumulate(t *testing.T, m *Model) {
	t.Helper()
	ids := []int32{1, 5, 2, 8, 3, 3, 7}
	var b Batch
	if err := b.Add(ids, ids); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Accumulate(&b, 0.25); err != nil {
		t.Fatal(err)
	}
}
