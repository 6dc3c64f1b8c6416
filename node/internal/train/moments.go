package train

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

// MomentVectors is how many vectors of Params values the optimizer remembers:
// two of AdamW, the first and the second moments, and one of SGD with momentum.
func (t *Trainer) MomentVectors() int { return t.optimizer.vectors() }

// Moments returns what the optimizer remembers. The steps that go with it are
// Steps.
func (t *Trainer) Moments() ([][]float32, error) {
	m := t.optimizer.moments()
	return m, t.b.Err()
}

// SetMoments replaces what the optimizer remembers, as after so many steps. An
// optimizer that keeps less precise moments keeps the nearest ones.
func (t *Trainer) SetMoments(steps int, m [][]float32) error {
	if len(m) != t.MomentVectors() || steps < 0 {
		return fmt.Errorf("set moments: %d vectors after %d steps, must be %d after at least 0", len(m), steps, t.MomentVectors())
	}
	for k, v := range m {
		if len(v) != t.values.Cols {
			return fmt.Errorf("set moments: vector %d has %d values, must have %d", k, len(v), t.values.Cols)
		}
		for i, x := range v {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) || k == 1 && x < 0 {
				return fmt.Errorf("set moments: value %d of vector %d is %v: %w", i, k, x, ErrNotFinite)
			}
		}
	}
	t.optimizer.setMoments(m)
	t.steps = steps
	return t.b.Err()
}

func downloaded(b tensor.Backend, m tensor.Mat) []float32 {
	v := make([]float32, m.Cols)
	b.Download(v, m)
	return v
}

func (o *adamW) vectors() int { return 2 }

func (o *adamW) moments() [][]float32 {
	return [][]float32{downloaded(o.b, o.m), downloaded(o.b, o.v)}
}

func (o *adamW) setMoments(m [][]float32) {
	o.b.Upload(o.m, m[0])
	o.b.Upload(o.v, m[1])
}

func (o *sgd) vectors() int {
	if o.mean.None() {
		return 0
	}
	return 1
}

func (o *sgd) moments() [][]float32 {
	if o.mean.None() {
		return nil
	}
	return [][]float32{downloaded(o.b, o.mean)}
}

func (o *sgd) setMoments(m [][]float32) {
	if !o.mean.None() {
		o.b.Upload(o.mean, m[0])
	}
}

func (o *adam8) vectors() int { return 2 }

func (o *adam8) moments() [][]float32 {
	o.far.pull(o)
	n := o.groups[len(o.groups)-1].to
	out := [][]float32{make([]float32, n), make([]float32, n)}
	var small [][]float32
	if o.small != nil {
		small = o.small.moments()
	}
	o.each(func(r group, code, scale, at int) {
		if !r.large() {
			copy(out[0][r.from:r.to], small[0][at:])
			copy(out[1][r.from:r.to], small[1][at:])
			return
		}
		for i := range r.to - r.from {
			b := scale + i/adam8Block
			out[0][r.from+i] = nf4.DynamicMap[o.m.code[code+i]] * o.m.scale[b]
			out[1][r.from+i] = unsignedMap[o.v.code[code+i]] * o.v.scale[b]
		}
	})
	return out
}

func (o *adam8) setMoments(m [][]float32) {
	var small [][]float32
	if o.small != nil {
		small = [][]float32{make([]float32, o.small.m.Cols), make([]float32, o.small.m.Cols)}
	}
	o.each(func(r group, code, scale, at int) {
		if !r.large() {
			copy(small[0][at:], m[0][r.from:r.to])
			copy(small[1][at:], m[1][r.from:r.to])
			return
		}
		for from := 0; from < r.to-r.from; from += adam8Block {
			to := min(from+adam8Block, r.to-r.from)
			first, second := m[0][r.from+from:r.from+to], m[1][r.from+from:r.from+to]
			var mMost, vMost float32
			for i := range first {
				mMost, vMost = max(mMost, first[i], -first[i]), max(vMost, second[i])
			}
			b := scale + from/adam8Block
			o.m.scale[b], o.v.scale[b] = mMost, vMost
			for i := range first {
				o.m.code[code+from+i] = signedCode(first[i], mMost)
				o.v.code[code+from+i] = nearest(&unsignedMap, second[i], vMost, unsignedZero)
			}
		}
	})
	if o.far != nil {
		o.far.push(o)
	}
	if o.small != nil {
		o.small.setMoments(small)
	}
}

// each calls f for each tensor, with where its codes and scales begin, or, of a
// small one, its values among the small ones.
func (o *adam8) each(f func(r group, code, scale, at int)) {
	code, scale, small := 0, 0, 0
	for _, r := range o.groups {
		f(r, code, scale, small)
		if size := r.to - r.from; r.large() {
			code, scale = code+size, scale+blocksOf(size)
		} else {
			small += size
		}
	}
}
