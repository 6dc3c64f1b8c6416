package runner

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// drawn makes deltas of which two have the cosine alike when they are trained,
// and mix of another where they are copies.
type drawn struct {
	t      *testing.T
	layout *fold.Layout
	rnd    *rand.Rand
	common []float64
	alike  float64
}

func newDrawn(t *testing.T, alike float64) *drawn {
	t.Helper()
	layout, err := fold.NewLayout([]fold.Tensor{{Name: "a", Rows: 64, Cols: 512}})
	if err != nil {
		t.Fatal(err)
	}
	d := &drawn{t: t, layout: layout, rnd: rand.New(rand.NewPCG(7, 7)), alike: alike}
	d.common = d.noise()
	return d
}

func (d *drawn) noise() []float64 {
	v := make([]float64, d.layout.Params())
	for i := range v {
		v[i] = d.rnd.NormFloat64()
	}
	return v
}

// trained is a delta whose cosine with the others is alike.
func (d *drawn) trained() []float64 {
	own := d.noise()
	for i := range own {
		own[i] = own[i]*math.Sqrt(1-d.alike) + d.common[i]*math.Sqrt(d.alike)
	}
	return own
}

// noisy is a copy with so much noise.
func (d *drawn) noisy(of []float64, part float64) []float64 {
	v := d.noise()
	for i := range v {
		v[i] = of[i] + part*v[i]
	}
	return v
}

func (d *drawn) encode(v []float64) *fold.Delta {
	d.t.Helper()
	values := make([]int32, len(v))
	for i := range v {
		values[i] = int32(v[i] * 1000)
	}
	b, err := fold.Encode(d.layout, 2, values, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := fold.Decode(d.layout, b)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// copied announces deltas in their order, and returns which are found to be
// copies when they arrive in the order given.
func (d *drawn) copied(list [][]float64, arrival []int) []int {
	var k copies
	ids := make([]cid.Cid, len(list))
	for i := range list {
		ids[i] = msg.RawCID([]byte(fmt.Sprint(i)))
		k.announce(3, ids[i])
	}
	found := map[int]bool{}
	for _, i := range arrival {
		for _, id := range k.found(3, ids[i], d.encode(list[i]), d.layout.Params(), len(list)) {
			found[slices.Index(ids, id)] = true
		}
	}
	var out []int
	for i := range list {
		if found[i] {
			out = append(out, i)
		}
	}
	return out
}

// A copy, also with noise, is told from what was trained, whether trained ones
// are nearly orthogonal or nearly the same, and whichever arrives first.
func TestCopies(t *testing.T) {
	for _, alike := range []float64{0.03, 0.3, 0.7, 0.95} {
		for _, n := range []int{3, 8, 16} {
			t.Run(fmt.Sprintf("alike %v, %d seats", alike, n), func(t *testing.T) {
				d := newDrawn(t, alike)
				var list [][]float64
				for range n {
					list = append(list, d.trained())
				}
				forth, back := make([]int, n), make([]int, n)
				for i := range n {
					forth[i], back[i] = i, n-1-i
				}
				if got := d.copied(list, forth); len(got) > 0 {
					t.Errorf("trained deltas %v are called copies", got)
				}
				for _, noise := range []float64{0, 0.2, 0.4} {
					if alike > 0.9 && noise > 0 {
						continue // more noise than what trained ones differ by: useless
					}
					copies := slices.Clone(list)
					copies[n-1] = d.noisy(list[0], noise)
					for _, order := range [][]int{forth, back} {
						if got := d.copied(copies, order); !slices.Equal(got, []int{n - 1}) {
							t.Errorf("with noise %v in order %v: %v are called copies, want %d alone", noise, order, got, n-1)
						}
					}
				}
			})
		}
	}
}

// Deltas that point elsewhere, or against the others, make no copies of those
// that were trained, in whatever order they come.
func TestLiarsMakeNoCopies(t *testing.T) {
	for _, alike := range []float64{0.3, 0.7, 0.9} {
		for _, n := range []int{4, 5, 8, 16, 31} {
			d := newDrawn(t, alike)
			liars := (n - 1) / 3
			var list [][]float64
			for i := range n {
				v := d.trained()
				if i < liars {
					for j := range v {
						v[j] *= -1
					}
				}
				list = append(list, v)
			}
			first, last := make([]int, n), make([]int, n)
			for i := range n {
				first[i], last[i] = i, n-1-i
			}
			for _, order := range [][]int{first, last} {
				got := slices.DeleteFunc(d.copied(list, order), func(i int) bool { return i < liars })
				if len(got) > 0 {
					t.Errorf("alike %v, %d of %d against the others: trained deltas %v are called copies", alike, liars, n, got)
				}
			}
		}
	}
}

// Several copies of one delta do not hide each other.
func TestManyCopies(t *testing.T) {
	d := newDrawn(t, 0.05)
	var list [][]float64
	order := []int{}
	for i := range 12 {
		order = append(order, i)
		if i < 7 {
			list = append(list, d.trained())
		} else {
			list = append(list, d.noisy(list[2], 0.3))
		}
	}
	if got := d.copied(list, order); !slices.Equal(got, []int{7, 8, 9, 10, 11}) {
		t.Errorf("%v are called copies", got)
	}
}
