//go:build !lean

package fold

import (
	"fmt"
	"testing"
)

// loraLayout returns about n parameters in tensors of the shapes of rank 16.
func loraLayout(t testing.TB, n int) *Layout {
	t.Helper()
	const width = 2048
	var tensors []Tensor
	for i := 0; n > 0; i++ {
		tensors = append(tensors,
			Tensor{fmt.Sprintf("base_model.model.layers.%04d.lora_A.weight", i), 16, width},
			Tensor{fmt.Sprintf("base_model.model.layers.%04d.lora_B.weight", i), width, 16})
		n -= 2 * 16 * width
	}
	l, err := NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// randomInputs returns deltas of about normal distribution.
func randomInputs(t testing.TB, l *Layout, bits, count int) []Input {
	t.Helper()
	inputs := make([]Input, count)
	values := make([]int32, l.Params())
	for k := range inputs {
		r := prng(uint64(k) + 1)
		for i := range values {
			values[i] = r.normal(60000)
		}
		b, err := Encode(l, bits, values, nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Decode(l, b)
		if err != nil {
			t.Fatal(err)
		}
		inputs[k] = Input{Delta: d, Tokens: 40000 + uint64(k)*1000, FactorQ16: FactorFull}
	}
	return inputs
}

// BenchmarkFold folds 32 deltas of 10 million parameters on one goroutine, and
// hashes the state.
func BenchmarkFold(b *testing.B) {
	l := loraLayout(b, 10_000_000)
	for _, bits := range []int{1, 2, 4, 8} {
		inputs := randomInputs(b, l, bits, 4)
		for len(inputs) < 32 {
			inputs = append(inputs, inputs[len(inputs)-4])
		}
		prev := NewState(l)
		b.Run(fmt.Sprintf("%dbit", bits), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := foldOn(1, prev, inputs, outerStep); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkStateCID(b *testing.B) {
	s := NewState(loraLayout(b, 10_000_000))
	b.SetBytes(StateBytes(s.Layout))
	for b.Loop() {
		s.CID()
	}
}

func BenchmarkEncode(b *testing.B) {
	l := loraLayout(b, 1_000_000)
	values, residual := make([]int32, l.Params()), make([]int32, l.Params())
	r := prng(1)
	for i := range values {
		values[i] = r.normal(60000)
	}
	for _, bits := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("%dbit", bits), func(b *testing.B) {
			b.SetBytes(int64(4 * len(values)))
			for b.Loop() {
				if _, err := Encode(l, bits, values, residual); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	l := loraLayout(b, 10_000_000)
	raw, err := Encode(l, 2, make([]int32, l.Params()), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := Decode(l, raw); err != nil {
			b.Fatal(err)
		}
	}
}
