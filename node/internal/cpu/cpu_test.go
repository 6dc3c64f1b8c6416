package cpu

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/node/internal/tensor/tensortest"
)

func TestPortable(t *testing.T) {
	tensortest.Backend(t, func(threads int) tensor.Backend {
		return New(Options{Threads: threads, Portable: true})
	})
}

func TestNative(t *testing.T) {
	sets := native()
	if len(sets) == 0 {
		t.Skip("this processor has no kernels in assembly")
	}
	for i := range sets {
		t.Run(sets[i].name, func(t *testing.T) {
			tensortest.Backend(t, func(threads int) tensor.Backend { return with(&sets[i], threads) })
		})
	}
}

// with returns a backend with a set of kernels.
func with(k *kernels, threads int) *Backend {
	b := New(Options{Threads: threads})
	b.k = k
	return b
}

// TestTilesAgree: peers compute each other's training again, so that the kernels
// for newer processors must give the same bits as those for older ones.
func TestTilesAgree(t *testing.T) {
	sets := native()
	if len(sets) < 2 {
		t.Skip("this processor has one set of kernels in assembly")
	}
	r := rand.New(rand.NewPCG(8, 9))
	fill := func(b *Backend, rows, cols int, trans bool) tensor.Mat {
		if trans {
			rows, cols = cols, rows
		}
		m := b.Alloc(rows*cols).Mat(0, rows, cols)
		for i := range m.Host() {
			m.Host()[i] = float32(r.NormFloat64())
		}
		return m
	}
	for _, s := range [][3]int{{4, 16, 9}, {13, 33, 700}, {100, 47, 321}, {31, 1100, 64}, {130, 8, 512}} {
		for i := range 4 {
			o := tensor.MatMul{TransA: i&1 != 0, TransB: i&2 != 0, Alpha: 0.3}
			first := with(&sets[0], 1)
			a, b, want := fill(first, s[0], s[2], o.TransA), fill(first, s[2], s[1], o.TransB), fill(first, s[0], s[1], false)
			first.MatMul(want, a, b, o)
			for n := range sets[1:] {
				got := fill(first, s[0], s[1], false)
				with(&sets[n+1], 2).MatMul(got, a, b, o)
				if !slices.Equal(got.Host(), want.Host()) {
					t.Errorf("%v %+v: %s and %s differ", s, o, sets[n+1].name, sets[0].name)
				}
			}
		}
	}
}
