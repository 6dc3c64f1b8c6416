package fold

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/moot-net/moot/proto/internal/vectors"
)

// naiveCell is proto/README.md word by word: the mean is what a fold with the
// learning rate 1 and no momentum subtracts from a state of zeros.
func naiveCell(l *Layout, inputs []Input) (delta []byte, applied []Applied) {
	next, applied := naiveFold(NewState(l), inputs, Outer{One, 0})
	delta = appendDeltaHeader(nil, l, 8)
	var codes []byte
	for _, c := range l.chunks {
		g := next.Theta[c.start : c.start+c.n]
		largest := int64(0)
		for _, v := range g {
			largest = max(largest, int64(v), -int64(v))
		}
		// Every scale there is, from below.
		var s scale
		for exponent := uint8(0); exponent <= 15; exponent++ {
			least := int64(0)
			if exponent > 0 {
				least = 1 << 15
			}
			found := false
			for mantissa := max(least, largest/127>>exponent-1); mantissa < 1<<16; mantissa++ {
				try := scale{uint16(mantissa), exponent}
				if try.value()*127 > maxValue {
					break
				}
				if s = try; try.value()*127 >= largest {
					found = true
					break
				}
			}
			if found {
				break
			}
		}
		delta = append(delta, byte(s.mantissa), byte(s.mantissa>>8), s.exponent)
		for _, v := range g {
			if s.value() == 0 {
				codes = append(codes, 0)
				continue
			}
			// To the nearest, halves away from zero.
			x := new(big.Int).Mul(big.NewInt(2), big.NewInt(max(int64(v), -int64(v))))
			x.Add(x, big.NewInt(s.value()))
			level := min(floorDiv(x, big.NewInt(2*s.value())), 127)
			if v > 0 { // theta is minus the mean
				level = -level
			}
			codes = append(codes, byte(int8(level)))
		}
	}
	return append(delta, codes...), applied
}

func cellInputs(t *testing.T, l *Layout, n int, seed uint64) []Input {
	t.Helper()
	r := prng(seed)
	var list []Input
	for range n {
		bits := []int{1, 2, 2, 2, 4, 8}[r.next()%6]
		sigma := int64(1) << (r.next() % 28)
		list = append(list, Input{
			Delta:  mustDecode(t, l, mustEncode(t, l, bits, randomValues(l, r.next(), sigma))),
			Tokens: 1 + r.next()%(1<<(1+r.next()%39)), FactorQ16: []uint32{FactorFull, FactorFull, FactorStale, FactorFresh}[r.next()%4],
		})
	}
	return list
}

// TestFoldCell: what a cell publishes is the mean that the specification says,
// to the byte, in any order and with any number of goroutines.
func TestFoldCell(t *testing.T) {
	l := newLayout(t, Tensor{"a", 3, 7}, Tensor{"b", 4100, 1})
	for seed := range uint64(24) {
		inputs := cellInputs(t, l, 1+int(seed%7), seed)
		want, applied := naiveCell(l, inputs)
		for workers := 1; workers <= 3; workers++ {
			c, err := newCellOn(workers, inputs)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(c.Delta, want) || !slices.Equal(c.Applied, applied) {
				t.Fatalf("seed %d, %d goroutines: not what the specification says", seed, workers)
			}
			d := mustDecode(t, l, c.Delta)
			if _, _, err := Fold(randomState(l, 1), []Input{c.Input(d)}, outerStep); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			slices.Reverse(inputs)
			slices.Reverse(applied)
		}
	}
}

// TestFoldCellEnds: the largest values there are stay in range, and a cell of
// nothing is zeros.
func TestFoldCellEnds(t *testing.T) {
	l := newLayout(t, Tensor{"a", 1, 5})
	for _, bits := range []int{1, 2, 4, 8} {
		s := nearestScale(maxValue, bits)
		d := mustDecode(t, l, rawDelta(l, bits, []scale{s}, []uint8{codeOf(bits, maxCode(bits))}))
		c, err := NewCell([]Input{{d, 1, One}})
		if err != nil {
			t.Fatal(err)
		}
		values, want := make([]int32, 5), make([]int32, 5)
		mustDecode(t, l, c.Delta).Values(values)
		d.Values(want)
		for j, v := range values {
			if diff := int64(want[j]) - int64(v); max(diff, -diff) > s.value()*maxCode(bits)/200 {
				t.Errorf("%d bits: value %d is %d, want about %d", bits, j, v, want[j])
			}
		}
	}
	for _, largest := range []int64{0, 1, 126, 127, 128, 127 * 65535, 127*65535 + 1, 127 * 65536, maxValue - 1, maxValue} {
		s := reachingScale(largest)
		if !s.valid(CellBits) {
			t.Errorf("the scale for %d is %+v, which is none", largest, s)
		}
		if reach := s.value() * 127; reach < largest && largest-reach > largest>>14 {
			t.Errorf("the scale for %d reaches %d", largest, reach)
		}
	}
	zero := mustDecode(t, l, mustEncode(t, l, 2, make([]int32, 5)))
	c, err := NewCell([]Input{{zero, 7, One}})
	if err != nil || mustDecode(t, l, c.Delta).Norm() != 0 || c.Tokens != 7 {
		t.Errorf("a cell of zeros is %+v, %v", c, err)
	}
	if _, err := NewCell(nil); err == nil {
		t.Error("a cell without inputs was folded")
	}
}

// TestTwoLevelsNearOne: the fold in two levels comes to nearly the state of the
// flat one where all deltas are honest.
func TestTwoLevelsNearOne(t *testing.T) {
	l := smallLayout(t)
	const cells, seats = 4, 8
	prev := randomState(l, 3)
	var all, top []Input
	for c := range cells {
		var inputs []Input
		for s := range seats {
			inputs = append(inputs, Input{mustDecode(t, l, mustEncode(t, l, 2, randomValues(l, uint64(c*seats+s), 60000))), 1000, One})
		}
		all = append(all, inputs...)
		cell, err := NewCell(inputs)
		if err != nil {
			t.Fatal(err)
		}
		top = append(top, cell.Input(mustDecode(t, l, cell.Delta)))
	}
	flat, _, err := Fold(prev, all, outerStep)
	if err != nil {
		t.Fatal(err)
	}
	levels, _, err := Fold(prev, top, outerStep)
	if err != nil {
		t.Fatal(err)
	}
	var moved, apart float64
	for i, v := range flat.Theta {
		m, a := float64(v)-float64(prev.Theta[i]), float64(v)-float64(levels.Theta[i])
		moved += m * m
		apart += a * a
	}
	if apart > moved*0.01*0.01*25 { // 5 % of the movement: clips to two medians, and 8 bits
		t.Errorf("the two are apart by %.3g of the movement", apart/moved)
	}
}

type cellVector struct {
	Name    string
	Layout  []Tensor
	Outer   Outer
	Prev    string // canonical bytes of the state, hexadecimal
	Cells   []cellOf
	Applied []Applied // of the cells
	Next    string
	NextCID string
}

type cellOf struct {
	Inputs    []foldInput
	Applied   []Applied
	Delta     string // of the cell, hexadecimal
	CID       string
	Tokens    uint64
	FactorQ16 uint32
}

func TestVectorsCells(t *testing.T) {
	l := newLayout(t, Tensor{"m.lora_A.weight", 2, 5}, Tensor{"m.lora_B.weight", 3, 2})
	var list []cellVector
	for _, tt := range []struct {
		name  string
		sizes []int
		sigma int64
		fresh int // a cell in which nothing counts
	}{
		{"two cells", []int{3, 2}, 60000, -1},
		{"three cells, one of them without any that counts", []int{2, 3, 1}, 60000, 2},
		{"small values", []int{2, 2}, 3, -1},
		{"cells of all codecs", []int{4, 4}, 50000, -1},
		{"large values", []int{2, 3}, 1 << 29, -1},
	} {
		prev := randomState(l, uint64(len(tt.sizes)))
		v := cellVector{Name: tt.name, Layout: l.tensors, Outer: outerStep, Prev: hex.EncodeToString(prev.Marshal())}
		var top []Input
		seed := uint64(0)
		for k, n := range tt.sizes {
			var inputs []Input
			var e cellOf
			for i := range n {
				seed++
				bits := 2
				if n == 4 {
					bits = 1 << i
				}
				factor := uint32(One)
				if k == tt.fresh {
					factor = FactorFresh
				}
				b := mustEncode(t, l, bits, randomValues(l, seed, tt.sigma*int64(1+i)))
				e.Inputs = append(e.Inputs, foldInput{hex.EncodeToString(b), 100 * seed, factor})
				inputs = append(inputs, Input{mustDecode(t, l, b), 100 * seed, factor})
			}
			c, err := NewCell(inputs)
			if err != nil {
				t.Fatal(fmt.Errorf("%s: %w", tt.name, err))
			}
			e.Applied, e.Delta, e.CID, e.Tokens, e.FactorQ16 = c.Applied, hex.EncodeToString(c.Delta), FileCID(c.Delta).String(), c.Tokens, c.FactorQ16
			v.Cells = append(v.Cells, e)
			top = append(top, c.Input(mustDecode(t, l, c.Delta)))
		}
		next, applied, err := Fold(prev, top, outerStep)
		if err != nil {
			t.Fatal(err)
		}
		v.Applied, v.Next, v.NextCID = applied, hex.EncodeToString(next.Marshal()), next.CID().String()
		list = append(list, v)
	}
	vectors.Check(t, "fold_cells.json", list)
}
