package nf4_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/goldentest"
	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/shard/safetensors"
)

// golden opens the reference results of this package.
func golden(t *testing.T) *safetensors.File {
	t.Helper()
	path := goldentest.Dir(t, "nf4", "nf4.safetensors")
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func floats(t *testing.T, f *safetensors.File, name string) ([]float32, safetensors.Info) {
	t.Helper()
	v, info, err := f.ReadTensor(name)
	if err != nil {
		t.Fatal(err)
	}
	return v, info
}

func raw(t *testing.T, f *safetensors.File, name string) []byte {
	t.Helper()
	b, _, err := f.ReadRaw(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Errorf("%s: value %d is %v, want %v", what, i, got[i], want[i])
			return
		}
	}
}

func TestGoldenTables(t *testing.T) {
	f := golden(t)
	code, _ := floats(t, f, "nf4_code")
	dynamic, _ := floats(t, f, "dynamic_code")
	sameBits(t, "Code", nf4.Code[:], code)
	sameBits(t, "DynamicMap", nf4.DynamicMap[:], dynamic)
}

func TestGoldenQuantise(t *testing.T) {
	f := golden(t)
	cases := 0
	for _, info := range f.Header().Tensors {
		name, ok := strings.CutSuffix(info.Name, ".input")
		if !ok {
			continue
		}
		cases++
		t.Run(name, func(t *testing.T) { goldenCase(t, f, name) })
	}
	if cases == 0 {
		t.Error("no cases")
	}
}

func goldenCase(t *testing.T, f *safetensors.File, name string) {
	input, info := floats(t, f, name+".input")
	w, err := nf4.New(input, int(info.Shape[0]), int(info.Shape[1]))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Validate(); err != nil {
		t.Error(err)
	}
	want := raw(t, f, name+".packed")
	got := bytes.Clone(w.Packed)
	if len(input)%2 == 1 && len(got) == len(want) { // the padding is free
		got[len(got)-1] = got[len(got)-1]&0xf0 | want[len(want)-1]&0xf
	}
	if !bytes.Equal(got, want) {
		t.Error("packed bytes differ")
	}

	plain := *w
	plain.Nested, plain.Scales = nil, make([]float32, nf4.Blocks(len(input), nf4.BlockSize))
	if err := nf4.AbsMax(plain.Scales, input, nf4.BlockSize); err != nil {
		t.Fatal(err)
	}
	absmax, _ := floats(t, f, name+".absmax")
	sameBits(t, "absmax", plain.Scales, absmax)

	offset, _ := floats(t, f, name+".dq.offset")
	nested, _ := floats(t, f, name+".dq.nested_absmax")
	sameBits(t, "offset", []float32{w.Nested.Offset}, offset)
	sameBits(t, "nested absmax", w.Nested.Scales, nested)
	if !bytes.Equal(w.Nested.Q, raw(t, f, name+".dq.absmax_q")) {
		t.Error("quantised scales differ")
	}

	values := make([]float32, len(input))
	plain.Dequant(values)
	dequant, _ := floats(t, f, name+".dequant")
	near(t, "dequantised", values, dequant, info.DType)
	w.Dequant(values)
	dequant, _ = floats(t, f, name+".dq.dequant")
	near(t, "dequantised twice", values, dequant, info.DType)
}

// near compares with values of type d, which for half types come from rounding
// the code, the product or both: one unit in the last place.
func near(t *testing.T, what string, got, want []float32, d safetensors.DType) {
	t.Helper()
	if d == safetensors.F32 {
		sameBits(t, what, got, want)
		return
	}
	ulp := map[safetensors.DType]float64{safetensors.BF16: 0x1p-7, safetensors.F16: 0x1p-10}[d]
	for i := range got {
		x, y := float64(got[i]), float64(want[i])
		if _, e := math.Frexp(y); math.Abs(x-y) > ulp*math.Ldexp(1, e-1) {
			t.Errorf("%s: value %d is %v, want %v", what, i, x, y)
			return
		}
	}
}
