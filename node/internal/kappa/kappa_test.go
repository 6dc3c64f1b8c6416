package kappa

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/moot-net/moot/proto/fold"
)

// layout is of two modules of rank 2.
func layout(t testing.TB, in, out int) *fold.Layout {
	t.Helper()
	l, err := fold.NewLayout([]fold.Tensor{
		{Name: "a.lora_A", Rows: 2, Cols: in},
		{Name: "a.lora_B", Rows: out, Cols: 2},
		{Name: "b.lora_A", Rows: 2, Cols: 2 * in},
		{Name: "b.lora_B", Rows: out, Cols: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func move(t testing.TB, l *fold.Layout, values []int32, weight uint64, clip uint32) Move {
	t.Helper()
	b, err := fold.Encode(l, 8, values, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := fold.Decode(l, b)
	if err != nil {
		t.Fatal(err)
	}
	return Move{d, weight, clip}
}

// exact is kappa by its definition, with all matrices formed.
func exact(l *fold.Layout, theta []int32, moves []Move) float64 {
	var lost, update float64
	for m := 0; m < l.Len(); m += 2 {
		a, b := l.Tensor(m), l.Tensor(m+1)
		var all float64
		meanA, meanB := make([]float64, a.Rows*a.Cols), make([]float64, b.Rows*b.Cols)
		meanBA := make([]float64, b.Rows*a.Cols)
		times := func(x, y []float64) []float64 {
			out := make([]float64, b.Rows*a.Cols)
			for i := range b.Rows {
				for j := range a.Cols {
					for k := range a.Rows {
						out[i*a.Cols+j] += x[i*b.Cols+k] * y[k*a.Cols+j]
					}
				}
			}
			return out
		}
		at := func(values []int32, offset, n int) []float64 {
			out := make([]float64, n)
			for i := range out {
				out[i] = float64(values[offset+i])
			}
			return out
		}
		startA, startB := at(theta, l.Offset(m), len(meanA)), at(theta, l.Offset(m+1), len(meanB))
		for _, v := range moves {
			all += float64(v.Weight)
		}
		for _, v := range moves {
			values := make([]int32, l.Params())
			v.Delta.Values(values)
			da, db := at(values, l.Offset(m), len(meanA)), at(values, l.Offset(m+1), len(meanB))
			part, clip := float64(v.Weight)/all, float64(v.ClipQ16)/fold.One
			for i := range da {
				da[i] = startA[i] - clip*da[i]
				meanA[i] += part * da[i]
			}
			for i := range db {
				db[i] = startB[i] - clip*db[i]
				meanB[i] += part * db[i]
			}
			for i, x := range times(db, da) {
				meanBA[i] += part * x
			}
		}
		first, naive := times(startB, startA), times(meanB, meanA)
		for i, x := range meanBA {
			lost += (x - naive[i]) * (x - naive[i])
			update += (x - first[i]) * (x - first[i])
		}
	}
	return math.Sqrt(lost / update)
}

func drawnValues(rnd *rand.Rand, n int, size float64, common []int32, share float64) []int32 {
	v := make([]int32, n)
	for i := range v {
		x := size * rnd.NormFloat64()
		if common != nil {
			x = share*float64(common[i]) + (1-share)*x
		}
		v[i] = int32(x)
	}
	return v
}

// TestOf: the estimate is what the definition gives, for weights, clips and
// deltas that agree more or less.
func TestOf(t *testing.T) {
	l := layout(t, 24, 30)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, share := range []float64{0, 0.5, 0.95} {
		theta, common := drawnValues(rnd, l.Params(), 1e7, nil, 0), drawnValues(rnd, l.Params(), 4e6, nil, 0)
		var moves []Move
		for i := range 8 {
			moves = append(moves, move(t, l, drawnValues(rnd, l.Params(), 4e6, common, share), uint64(100+50*i), uint32(fold.One-4000*i)))
		}
		want := exact(l, theta, moves)
		got, err := estimate(l, theta, moves, 7, 4096)
		if err != nil || math.Abs(got/want-1) > 0.03 {
			t.Errorf("deltas that share %v: kappa is %v, %v, want %v", share, got, err, want)
		}
		few, err := Of(l, theta, moves, 8)
		if err != nil || math.Abs(few/want-1) > 0.3 {
			t.Errorf("deltas that share %v: kappa is about %v, %v, want %v", share, few, err, want)
		}
	}
}

// TestOfOne: who is alone, or moves like all others, loses nothing.
func TestOfOne(t *testing.T) {
	l := layout(t, 24, 30)
	rnd := rand.New(rand.NewPCG(1, 3))
	theta, values := drawnValues(rnd, l.Params(), 1e7, nil, 0), drawnValues(rnd, l.Params(), 4e6, nil, 0)
	one := move(t, l, values, 10, fold.One)
	for _, moves := range [][]Move{{one}, {one, one, one}} {
		if k, err := Of(l, theta, moves, 1); err != nil || k > 1e-3 {
			t.Errorf("%d deltas that are the same: kappa is %v, %v, want 0", len(moves), k, err)
		}
	}
	if _, err := Of(l, theta, []Move{{one.Delta, 0, fold.One}}, 1); err == nil {
		t.Error("deltas without weight have a kappa")
	}
	odd, err := fold.NewLayout([]fold.Tensor{{Name: "w", Rows: 2, Cols: 3}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Of(odd, make([]int32, 6), nil, 1); err == nil {
		t.Error("a layout without pairs has a kappa")
	}
}

// BenchmarkOf is of 8 deltas of 2.6 million values.
func BenchmarkOf(b *testing.B) {
	const rank, width = 16, 4096
	var tensors []fold.Tensor
	for i := range 20 {
		name := string(rune('a' + i))
		tensors = append(tensors, fold.Tensor{Name: name + ".lora_A", Rows: rank, Cols: width}, fold.Tensor{Name: name + ".lora_B", Rows: width, Cols: rank})
	}
	l, err := fold.NewLayout(tensors)
	if err != nil {
		b.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 4))
	theta := drawnValues(rnd, l.Params(), 1e7, nil, 0)
	var moves []Move
	for range 8 {
		moves = append(moves, move(b, l, drawnValues(rnd, l.Params(), 4e6, nil, 0), 1, fold.One))
	}
	for b.Loop() {
		if _, err := Of(l, theta, moves, 1); err != nil {
			b.Fatal(err)
		}
	}
}
