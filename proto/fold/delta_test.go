package fold

import (
	"bytes"
	"errors"
	"math/big"
	"testing"
)

// marshal writes what a decoded delta says, from its values: the inverse of
// Decode.
func (d *Delta) marshal() []byte {
	b := appendDeltaHeader(nil, d.layout, d.bits)
	for _, s := range d.scales {
		sc := nearestScale(s, d.bits)
		b = append(b, byte(sc.mantissa), byte(sc.mantissa>>8), sc.exponent)
	}
	values := make([]int32, d.layout.params)
	d.Values(values)
	for i, c := range d.layout.chunks {
		part := make([]byte, chunkBytes(c.n, d.bits))
		for j, v := range values[c.start:][:c.n] {
			if d.scales[i] != 0 {
				part[j*d.bits/8] |= codeOf(d.bits, int64(v)/d.scales[i]) << (j * d.bits % 8)
			}
		}
		b = append(b, part...)
	}
	return b
}

func TestEncodeError(t *testing.T) {
	l := smallLayout(t)
	// Squared error relative to the values' square, for a normal distribution:
	// the best a scalar quantiser can do is 0.3634, 0.1188, 0.01154, 0.00010.
	for bits, bound := range map[int]float64{1: 0.37, 2: 0.125, 4: 0.0125, 8: 0.00011} {
		values := randomValues(l, 1, 60000)
		decoded := make([]int32, l.params)
		mustDecode(t, l, mustEncode(t, l, bits, values)).Values(decoded)
		var lost, all float64
		for j, v := range values {
			lost += float64(v-decoded[j]) * float64(v-decoded[j])
			all += float64(v) * float64(v)
		}
		if got := lost / all; got > bound || got < bound/2 {
			t.Errorf("%d bits: relative squared error %.5f, want about %.5f", bits, got, bound)
		}
	}
}

// TestEncodeCorners: no code is worse than zeros would be, and a residual is
// what the code lost.
func TestEncodeCorners(t *testing.T) {
	l := newLayout(t, Tensor{"a", 1, 5})
	for _, tt := range []struct {
		name   string
		values []int32
	}{
		{"zeros", []int32{0, 0, 0, 0, 0}},
		{"one unit", []int32{1, 0, 0, 0, 0}},
		{"units", []int32{1, -1, 1, -1, 1}},
		{"the end of the range", []int32{maxValue, -maxValue, maxValue, -maxValue, maxValue}},
		{"below the range", []int32{-maxValue - 1, -maxValue - 1, 0, 0, 0}},
		{"one large, the others small", []int32{maxValue, 1, 2, 3, -4}},
	} {
		for _, bits := range []int{1, 2, 4, 8} {
			residual, decoded := make([]int32, 5), make([]int32, 5)
			b, err := Encode(l, bits, tt.values, residual)
			if err != nil {
				t.Fatal(err)
			}
			mustDecode(t, l, b).Values(decoded)
			zeros, code := new(big.Int), new(big.Int)
			for j, v := range decoded {
				meant := int64(saturate(int64(tt.values[j])))
				if want := saturate(meant - int64(v)); residual[j] != want {
					t.Errorf("%s, %d bits: residual %d is %d, want %d", tt.name, bits, j, residual[j], want)
				}
				addSquare(zeros, meant)
				addSquare(code, meant-int64(v))
			}
			if code.Cmp(zeros) > 0 {
				t.Errorf("%s, %d bits: %v became %v, worse than zeros", tt.name, bits, tt.values, decoded)
			}
			// Once more, from a residual at the end of its range.
			for j := range residual {
				residual[j] = maxValue
			}
			if b, err = Encode(l, bits, tt.values, residual); err != nil {
				t.Fatal(err)
			}
			mustDecode(t, l, b)
		}
	}
}

func addSquare(sum *big.Int, v int64) {
	x := big.NewInt(v)
	sum.Add(sum, x.Mul(x, x))
}

func TestEncodeRefuses(t *testing.T) {
	l := newLayout(t, Tensor{"a", 1, 5})
	five, four := make([]int32, 5), make([]int32, 4)
	if _, err := Encode(l, 3, five, nil); err == nil {
		t.Error("3 bits are accepted")
	}
	if _, err := Encode(l, 2, four, nil); err == nil {
		t.Error("4 values for 5 are accepted")
	}
	if _, err := Encode(l, 2, five, four); err == nil {
		t.Error("4 residuals for 5 are accepted")
	}
}

func TestNorms(t *testing.T) {
	l := smallLayout(t)
	for _, bits := range []int{1, 2, 4, 8} {
		for _, sigma := range []int64{0, 1, 1000, 1 << 24, 1 << 30} {
			d := mustDecode(t, l, mustEncode(t, l, bits, randomValues(l, 3, sigma)))
			values := make([]int32, l.params)
			d.Values(values)
			total := new(big.Int)
			for i, tensor := range l.tensors {
				sum := new(big.Int)
				for _, v := range values[l.offsets[i]:][:tensor.Rows*tensor.Cols] {
					x := big.NewInt(int64(v))
					sum.Add(sum, x.Mul(x, x))
				}
				total.Add(total, sum)
				if got, want := d.TensorNorms()[i], sum.Sqrt(sum).Uint64(); got != want {
					t.Errorf("%d bits, tensor %d: norm %d, want %d", bits, i, got, want)
				}
			}
			if want := total.Sqrt(total).Uint64(); d.Norm() != want {
				t.Errorf("%d bits: norm %d, want %d", bits, d.Norm(), want)
			}
		}
	}
}

// TestDecodeRefuses has one case for each way to write a delta that is none,
// or that could be written differently.
func TestDecodeRefuses(t *testing.T) {
	l := newLayout(t, Tensor{"a", 1, 5}, Tensor{"b", 1, 1})
	one, zero := scale{1, 0}, scale{}
	valid := func(bits int) []byte { return rawDelta(l, bits, []scale{one, zero}, []uint8{1, 0}) }
	change := func(b []byte, at int, v byte) []byte { b[at] = v; return b }
	scales := func(bits int, s scale) []byte { return rawDelta(l, bits, []scale{s, zero}, []uint8{1, 0}) }
	codes := deltaHeaderBytes + 2*scaleBytes
	tests := []struct {
		name string
		b    []byte
		want error
	}{
		{"valid", valid(2), nil},
		{"empty", nil, ErrCodec},
		{"header only", valid(2)[:deltaHeaderBytes], ErrCodec},
		{"one byte short", valid(2)[:len(valid(2))-1], ErrCodec},
		{"one byte long", append(valid(2), 0), ErrCodec},
		{"magic", change(valid(2), 0, 'M'), ErrCodec},
		{"version", change(valid(2), 8, 2), ErrCodec},
		{"0 bits", change(valid(2), 10, 0), ErrCodec},
		{"3 bits", change(valid(2), 10, 3), ErrCodec},
		{"another codec", change(valid(2), 10, 8), ErrCodec},
		{"flags", change(valid(2), 11, 1), ErrCodec},
		{"chunks", change(valid(2), 12, 3), ErrCodec},
		{"layout", change(valid(2), 16, valid(2)[16]+1), ErrCodec},
		{"largest scale, 1 bit", scales(1, scale{0xffff, 15}), nil},
		{"largest scale, 2 bits", scales(2, scale{0xaaaa, 14}), nil},
		{"scale beyond, 2 bits", scales(2, scale{0xaaab, 14}), ErrRange},
		{"largest scale, 8 bits", scales(8, scale{0x8102, 9}), nil},
		{"scale beyond, 8 bits", scales(8, scale{0x8103, 9}), ErrRange},
		{"exponent", scales(1, scale{0x8000, 16}), ErrRange},
		{"exponent far beyond", scales(1, scale{0xffff, 255}), ErrRange},
		{"two ways to write a scale", scales(2, scale{0x4000, 1}), ErrRange},
		{"zero with an exponent", scales(2, scale{0, 1}), ErrRange},
		{"codes under zero", rawDelta(l, 2, []scale{one, zero}, []uint8{1, 2}), ErrRange},
		{"code -128", rawDelta(l, 8, []scale{one, zero}, []uint8{0x80, 0}), ErrRange},
		{"padding, 1 bit", change(valid(1), codes, valid(1)[codes]|1<<5), ErrRange},
		{"padding, 2 bits", change(valid(2), codes+1, valid(2)[codes+1]|1<<7), ErrRange},
		{"padding, 4 bits", change(valid(4), codes+2, valid(4)[codes+2]|1<<4), ErrRange},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Decode(l, tt.b)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Decode() = %v, want %v", err, tt.want)
			}
			if err == nil && !bytes.Equal(d.marshal(), tt.b) {
				t.Error("what was decoded is not encoded as it was")
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	l := newLayout(f, Tensor{"a", 1, 5}, Tensor{"b", 4099, 1})
	for _, bits := range []int{1, 2, 4, 8} {
		f.Add(mustEncode(f, l, bits, randomValues(l, 1, 60000)))
		f.Add(mustEncode(f, l, bits, make([]int32, l.params)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Decode(l, b)
		if err != nil {
			if !errors.Is(err, ErrCodec) && !errors.Is(err, ErrRange) {
				t.Fatalf("Decode() = %v, which is neither of its errors", err)
			}
			return
		}
		if !bytes.Equal(d.marshal(), b) {
			t.Fatal("what was decoded is not encoded as it was")
		}
		next, _, err := Fold(NewState(l), []Input{{d, 1, One}, {d, 2, 0}}, Outer{MaxLearningRateQ16, MaxMomentumQ16})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := UnmarshalState(l, next.Marshal()); err != nil {
			t.Fatal(err)
		}
	})
}
