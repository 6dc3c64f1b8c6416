package lora

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/shard/safetensors"
)

func look(t *testing.T, src, dst string) *MergedFolder {
	t.Helper()
	v, err := LookAtMerged(t.Context(), src, dst)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestLookAtQuantised: a folder in four bits is compared by its values.
func TestLookAtQuantised(t *testing.T) {
	for _, d := range []safetensors.DType{safetensors.BF16, safetensors.F16, safetensors.F32} {
		src, four, merged := base(t, d, false), t.TempDir(), t.TempDir()
		if err := checkpoint.Quantize(t.Context(), src, four, checkpoint.QuantizeOptions{}, nil); err != nil {
			t.Fatal(err)
		}
		if v := look(t, four, four); len(v.Changed)+len(v.Wrong) > 0 {
			t.Errorf("%s: beside itself %+v", d, v)
		}
		a := full(t, Spec{Rank: 2, Alpha: 3, Targets: []string{"up_proj"}})
		if err := a.MergeFolder(t.Context(), four, merged, MergeOptions{}); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, p := range a.Parts() {
			want = append(want, p.Path+".weight")
		}
		slices.Sort(want)
		for _, folders := range [][2]string{{four, merged}, {merged, four}} {
			v := look(t, folders[0], folders[1])
			slices.Sort(v.Changed)
			if !slices.Equal(v.Changed, want) || len(v.Wrong) > 0 {
				t.Errorf("%s: beside the merged one %v changed, want %v; wrong %v", d, v.Changed, want, v.Wrong)
			}
		}
	}
}

// TestLookAtOverflow: what four bits come to may be more than the type holds from
// which they were made. A folder is itself nevertheless; what is merged from it as that
// type is not finite, and the error says of which tensor.
func TestLookAtOverflow(t *testing.T) {
	const name = "model.layers.0.mlp.wide_proj.weight"
	wide := safetensors.Tensor{Name: name, DType: safetensors.F16, Shape: []int64{256, 64}}
	for row := range 256 { // a block each, whose greatest value is rounded too
		most := 65504 - 10*float32(row)
		if row == 255 {
			most = 1000
		}
		wide.Values = append(wide.Values, slices.Repeat([]float32{most}, 64)...)
	}
	src, four := base(t, safetensors.F16, false, wide), t.TempDir()
	if err := checkpoint.Quantize(t.Context(), src, four, checkpoint.QuantizeOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if v := look(t, four, four); len(v.Changed)+len(v.Wrong) > 0 {
		t.Errorf("beside itself %+v", v)
	}
	// Beside the folder of 16 bits it has other values, and ones that do not fit.
	v := look(t, src, four)
	if len(v.Wrong) != 1 || !strings.HasPrefix(v.Wrong[0].String(), name+": value ") || !strings.HasSuffix(v.Wrong[0].String(), " is +Inf as F16, not finite") {
		t.Errorf("beside the one in 16 bits %v", v.Wrong)
	}
	err := full(t, Spec{Rank: 2, Alpha: 3, Targets: []string{"up_proj"}}).MergeFolder(t.Context(), four, t.TempDir(), MergeOptions{})
	if !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), "tensor "+name+": the value 65") || !strings.Contains(err.Error(), "is +Inf as F16") {
		t.Errorf("merged: %v", err)
	}
}

// TestLookAtOwnOutput: an output layer that the base model lacks is looked at.
func TestLookAtOwnOutput(t *testing.T) {
	src := base(t, safetensors.BF16, false)
	head := func(v float32) safetensors.Tensor {
		return safetensors.Tensor{Name: "lm_head.weight", DType: safetensors.BF16, Shape: []int64{1, 3}, Values: []float32{1, v, 2}}
	}
	if v := look(t, src, base(t, safetensors.BF16, false, head(5))); len(v.Changed)+len(v.Wrong) > 0 {
		t.Errorf("%+v", v)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
		v := look(t, src, base(t, safetensors.BF16, false, head(float32(bad))))
		if len(v.Wrong) != 1 || !strings.Contains(v.Wrong[0].String(), "lm_head.weight: value 1 is") {
			t.Errorf("%v: %+v", bad, v)
		}
	}
}

func TestDifferencesOfMagnitudes(t *testing.T) {
	dora := Spec{Rank: 2, Alpha: 3, Targets: []string{"q_proj"}, DoRA: true}
	plain := dora
	plain.DoRA = false
	a, b := full(t, dora), full(t, dora)
	if list := a.Differences(b); len(list) > 0 {
		t.Errorf("of the same: %v", list)
	}
	p := b.Parts()[0]
	b.Magnitude(p)[1]++
	for _, x := range [][2]*Adapter{{a, b}, {b, a}} {
		if list := x[0].Differences(x[1]); !slices.Equal(list, []Difference{{p.Path, "has other magnitudes (DoRA)"}}) {
			t.Errorf("of another one: %v", list)
		}
	}
	c := full(t, plain)
	copy(c.Values(), a.Values())
	for _, x := range [][2]*Adapter{{a, c}, {c, a}} {
		if list := x[0].Differences(x[1]); len(list) != len(a.Parts()) {
			t.Errorf("with and without: %v", list)
		}
	}
}
