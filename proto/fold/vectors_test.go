package fold

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/moot-net/moot/proto/internal/vectors"
)

// The vectors are computed here and compared with the files in proto/testdata,
// so a change of either is seen. Their inputs are in the files as well.

// drawnDelta draws a delta from splitmix64, without the help of Encode, which
// an implementation need not copy: for each chunk one output x for the scale,
// largest/2 + x mod largest, rounded as nearestScale does; after all scales one
// output for each byte of codes, its low byte. Where that would be a code of
// -128, it is 0, and the bits after the last code are 0.
func drawnDelta(l *Layout, bits int, seed uint64, largest int64) []byte {
	r := prng(seed)
	b := appendDeltaHeader(nil, l, bits)
	for range l.chunks {
		s := nearestScale(largest/2+int64(r.next()%uint64(largest)), bits)
		b = append(b, byte(s.mantissa), byte(s.mantissa>>8), s.exponent)
	}
	for _, c := range l.chunks {
		n := chunkBytes(c.n, bits)
		for range n {
			code := byte(r.next())
			if bits == 8 && code == 0x80 {
				code = 0
			}
			b = append(b, code)
		}
		b[len(b)-1] &= 0xff >> (n*8 - c.n*bits)
	}
	return b
}

type codecVector struct {
	Name        string
	Layout      []Tensor
	Bits        int
	Delta       string  // hexadecimal
	Error       string  `json:",omitempty"` // "codec" or "range": must be refused
	Values      []int32 `json:",omitempty"`
	Norm        uint64
	TensorNorms []uint64 `json:",omitempty"`
	CID         string
}

func codecVectorOf(t *testing.T, name string, l *Layout, bits int, b []byte) codecVector {
	t.Helper()
	v := codecVector{Name: name, Layout: l.tensors, Bits: bits, Delta: hex.EncodeToString(b), CID: FileCID(b).String()}
	d, err := Decode(l, b)
	switch {
	case errors.Is(err, ErrCodec):
		v.Error = "codec"
	case errors.Is(err, ErrRange):
		v.Error = "range"
	case err != nil:
		t.Fatal(err)
	default:
		v.Values = make([]int32, l.params)
		d.Values(v.Values)
		v.Norm, v.TensorNorms = d.Norm(), d.TensorNorms()
	}
	return v
}

func TestVectorsCodec(t *testing.T) {
	l := newLayout(t, Tensor{"m.lora_A.weight", 2, 5}, Tensor{"m.lora_B.weight", 3, 2})
	long := newLayout(t, Tensor{"long", 4099, 1})
	var list []codecVector
	for _, bits := range []int{1, 2, 4, 8} {
		name := func(s string) string { return fmt.Sprintf("%d bits, %s", bits, s) }
		list = append(list,
			codecVectorOf(t, name("drawn"), l, bits, drawnDelta(l, bits, uint64(bits), 60000)),
			codecVectorOf(t, name("zeros"), l, bits, mustEncode(t, l, bits, make([]int32, l.params))),
			codecVectorOf(t, name("largest"), l, bits, rawDelta(l, bits,
				slices.Repeat([]scale{nearestScale(maxValue, bits)}, 2), slices.Repeat([]uint8{codeOf(bits, maxCode(bits))}, 2))),
			codecVectorOf(t, name("lowest"), l, bits, rawDelta(l, bits,
				slices.Repeat([]scale{nearestScale(maxValue, bits)}, 2), slices.Repeat([]uint8{codeOf(bits, -maxCode(bits))}, 2))),
			codecVectorOf(t, name("scale too large"), l, bits, rawDelta(l, bits, []scale{{1, 0}, {0xffff, 15 + uint8(bits)/2}}, []uint8{0, 0})),
			codecVectorOf(t, name("scale not canonical"), l, bits, rawDelta(l, bits, []scale{{0x7fff, 1}, {1, 0}}, []uint8{0, 0})),
			codecVectorOf(t, name("code under a scale of zero"), l, bits, rawDelta(l, bits, []scale{{1, 0}, {}}, []uint8{0, 1})),
			codecVectorOf(t, name("cut short"), l, bits, mustEncode(t, l, bits, make([]int32, l.params))[:deltaHeaderBytes+5]),
		)
	}
	minus128 := rawDelta(l, 8, []scale{{1, 0}, {1, 0}}, []uint8{0x80, 0})
	padded := rawDelta(l, 1, []scale{{1, 0}, {1, 0}}, []uint8{0, 0})
	padded[len(padded)-1] |= 1 << 6
	otherLayout := mustEncode(t, newLayout(t, Tensor{"m.lora_A.weight", 2, 5}, Tensor{"m.lora_B.weight", 2, 3}), 2, make([]int32, 16))
	list = append(list,
		codecVectorOf(t, "code -128", l, 8, minus128),
		codecVectorOf(t, "a bit after the last code", l, 1, padded),
		codecVectorOf(t, "another layout", l, 2, otherLayout),
		codecVectorOf(t, "two chunks", long, 1, drawnDelta(long, 1, 5, 60000)),
	)
	vectors.Check(t, "codec.json", list)
}

type foldVector struct {
	Name    string
	Layout  []Tensor
	Outer   Outer
	Prev    string // canonical bytes of the state, hexadecimal
	Inputs  []foldInput
	Applied []Applied
	Next    string
	NextCID string
}

type foldInput struct {
	Delta     string // hexadecimal
	Tokens    uint64
	FactorQ16 uint32
}

func TestVectorsFold(t *testing.T) {
	l := newLayout(t, Tensor{"m.lora_A.weight", 2, 5}, Tensor{"m.lora_B.weight", 3, 2})
	enc := func(bits int, seed uint64, sigma int64) []byte {
		return mustEncode(t, l, bits, randomValues(l, seed, sigma))
	}
	huge := func(bits int, level int64) []byte {
		s := nearestScale(maxValue, bits)
		c := codeOf(bits, level)
		return rawDelta(l, bits, []scale{s, s}, []uint8{c, c})
	}
	type in struct {
		b      []byte
		tokens uint64
		factor uint32
	}
	var list []foldVector
	for _, tt := range []struct {
		name   string
		prev   *State
		outer  Outer
		inputs []in
	}{
		{"one delta from zero", NewState(l), outerStep, []in{{enc(2, 1, 60000), 100, One}}},
		{"nothing", randomState(l, 1), outerStep, nil},
		{"weights", randomState(l, 1), outerStep, []in{{enc(2, 1, 60000), 100, One}, {enc(2, 2, 60000), 5000, One}, {enc(2, 3, 60000), 300, One}}},
		{"stale and fresh", randomState(l, 2), outerStep, []in{{enc(2, 1, 60000), 100, One}, {enc(2, 2, 60000), 100, FactorStale}, {enc(2, 3, 900000), 100, FactorFresh}}},
		{"all fresh", randomState(l, 2), outerStep, []in{{enc(2, 1, 60000), 100, FactorFresh}, {enc(2, 2, 60000), 100, FactorFresh}}},
		{"clip", randomState(l, 3), outerStep, []in{{enc(2, 1, 60000), 100, One}, {enc(2, 2, 50000), 100, One}, {enc(2, 3, 70000), 100, One}, {huge(2, 3), 100, One}}},
		{"clip, two inputs", randomState(l, 3), outerStep, []in{{enc(4, 1, 60000), 100, One}, {huge(4, -15), 100, One}}},
		{"all codecs", randomState(l, 4), outerStep, []in{{enc(1, 1, 60000), 100, One}, {enc(2, 2, 60000), 110, One}, {enc(4, 3, 60000), 120, One}, {enc(8, 4, 60000), 130, One}}},
		{"zeros", randomState(l, 5), outerStep, []in{{enc(2, 1, 0), 100, One}, {enc(2, 1, 0), 100, One}, {enc(2, 2, 60000), 100, One}}},
		{"all zeros", randomState(l, 5), outerStep, []in{{enc(2, 1, 0), 100, One}}},
		{"most tokens", randomState(l, 6), outerStep, []in{{enc(2, 1, 60000), MaxInputTokens, One}, {enc(2, 2, 60000), MaxInputTokens, One}, {enc(2, 3, 60000), 1, One}}},
		{
			"ends of the range", &State{l, slices.Repeat([]int32{-maxValue, maxValue}, 8), slices.Repeat([]int32{maxValue, -maxValue}, 8)},
			Outer{MaxLearningRateQ16, MaxMomentumQ16},
			[]in{{huge(8, 127), 1, One}},
		},
	} {
		v := foldVector{Name: tt.name, Layout: l.tensors, Outer: tt.outer, Prev: hex.EncodeToString(tt.prev.Marshal())}
		var inputs []Input
		for _, i := range tt.inputs {
			v.Inputs = append(v.Inputs, foldInput{hex.EncodeToString(i.b), i.tokens, i.factor})
			inputs = append(inputs, Input{mustDecode(t, l, i.b), i.tokens, i.factor})
		}
		next, applied, err := Fold(tt.prev, inputs, tt.outer)
		if err != nil {
			t.Fatal(err)
		}
		v.Applied, v.Next, v.NextCID = applied, hex.EncodeToString(next.Marshal()), next.CID().String()
		list = append(list, v)
	}
	vectors.Check(t, "fold.json", list)
}

// TestVectorsLarge has a state of several megabytes, of which the file has the
// CID only. The deltas are those of drawnDelta.
func TestVectorsLarge(t *testing.T) {
	l := newLayout(t, Tensor{"m.lora_A.weight", 16, 4000}, Tensor{"m.lora_B.weight", 11008, 16})
	type large struct {
		Layout         []Tensor
		Outer          Outer
		Bits           int
		Seeds          []uint64
		LargestScale   int64
		Tokens         []uint64
		DeltaCIDs      []string
		Norms          []uint64
		Applied        []Applied
		Rounds         int
		StateCIDs      []string
		LastTheta      int32
		LastMomentum   int32
		StateFileBytes int64
	}
	var list []large
	for _, bits := range []int{1, 2, 4, 8} {
		v := large{
			Layout: l.tensors, Outer: outerStep, Bits: bits, Seeds: []uint64{1, 2, 3, 4, 5}, LargestScale: 60000,
			Tokens: []uint64{1000, 2000, 1500, 9000, 10}, Rounds: 3, StateFileBytes: StateBytes(l),
		}
		var inputs []Input
		for k, seed := range v.Seeds {
			b := drawnDelta(l, bits, seed, v.LargestScale)
			d := mustDecode(t, l, b)
			v.DeltaCIDs = append(v.DeltaCIDs, FileCID(b).String())
			v.Norms = append(v.Norms, d.Norm())
			inputs = append(inputs, Input{d, v.Tokens[k], One})
		}
		state := NewState(l)
		for range v.Rounds {
			var err error
			if state, v.Applied, err = Fold(state, inputs, v.Outer); err != nil {
				t.Fatal(err)
			}
			v.StateCIDs = append(v.StateCIDs, state.CID().String())
		}
		v.LastTheta, v.LastMomentum = state.Theta[l.params-1], state.Momentum[l.params-1]
		list = append(list, v)
	}
	vectors.Check(t, "fold_large.json", list)
}

func TestVectorsIntegers(t *testing.T) {
	type root struct {
		Hi, Lo, Root uint64
	}
	type product struct {
		Value   int64
		Q16     uint32
		Rounded int64
	}
	type step struct {
		Outer                   Outer
		Theta, Momentum         int32
		G                       int64
		NextTheta, NextMomentum int32
	}
	type file struct {
		IntegerSquareRoots []root
		ProductsQ16        []product
		OuterSteps         []step
	}
	var f file
	r := prng(11)
	for _, a := range []wide{{0, 0}, {0, 1}, {0, 3}, {0, 4}, {0, 1 << 52}, {0, ^uint64(0)}, {1, 0}, {1 << 62, 0}, {^uint64(0), ^uint64(0)}, {r.next(), r.next()}, {0, r.next()}} {
		f.IntegerSquareRoots = append(f.IntegerSquareRoots, root{a.hi, a.lo, isqrt(a)})
	}
	for _, v := range []int64{0, 1, -1, 2, -2, 3, -3, 12345, -12345, maxValue, -maxValue, 1 << 33, -1 << 33} {
		for _, q := range []uint32{0, 1, One / 2, 39322, 45875, One, MaxLearningRateQ16} {
			f.ProductsQ16 = append(f.ProductsQ16, product{v, q, mulQ16(v, q)})
		}
	}
	for _, o := range []Outer{outerStep, {One, 0}, {MaxLearningRateQ16, MaxMomentumQ16}} {
		for _, x := range [][3]int64{{0, 0, 0}, {100, -50, 7}, {-100, 50, -7}, {1 << 20, -1 << 18, 60001}, {maxValue, maxValue, -maxValue}, {-maxValue, maxValue, maxValue}} {
			theta, momentum := []int32{int32(x[0])}, []int32{int32(x[1])}
			o.step(theta, momentum, x[2:])
			f.OuterSteps = append(f.OuterSteps, step{o, int32(x[0]), int32(x[1]), x[2], theta[0], momentum[0]})
		}
	}
	vectors.Check(t, "integers.json", f)
}

func TestVectorsFileCID(t *testing.T) {
	type file struct {
		Size int
		CID  string
	}
	type content struct {
		Content string
		Files   []file
	}
	v := content{Content: "byte i is the low byte of i*i + i/251"}
	b := make([]byte, 3*leafBytes+12345)
	for i := range b {
		b[i] = byte(i*i + i/251)
	}
	for _, size := range []int{0, 1, 1000, leafBytes - 1, leafBytes, leafBytes + 1, len(b)} {
		v.Files = append(v.Files, file{size, FileCID(b[:size]).String()})
	}
	vectors.Check(t, "file_cid.json", v)
}
