package fold

import (
	"errors"
	"math"
	"testing"
)

func TestFloats(t *testing.T) {
	unit := float32(1.0 / (1 << 26))
	in := []float32{0, float32(math.Copysign(0, -1)), unit, -unit, unit / 2, 1.5 * unit, 1, -31.999998, 32, -32, math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32}
	want := []int32{0, 0, 1, -1, 0, 2, 1 << 26, -2147483520, maxValue, -maxValue, maxValue, -maxValue, 0}
	got := make([]int32, len(in))
	if err := FromFloat32(got, in); err != nil {
		t.Fatal(err)
	}
	for i := range in {
		if got[i] != want[i] {
			t.Errorf("%v is %d units, want %d", in[i], got[i], want[i])
		}
	}
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		if err := FromFloat32(got[:1], []float32{bad}); !errors.Is(err, ErrNotFinite) {
			t.Errorf("%v: %v, want ErrNotFinite", bad, err)
		}
		if err := PseudoGradient(got[:1], []float32{0}, []float32{bad}); !errors.Is(err, ErrNotFinite) {
			t.Errorf("end %v: %v, want ErrNotFinite", bad, err)
		}
		if err := PseudoGradient(got[:1], []float32{bad}, []float32{0}); !errors.Is(err, ErrNotFinite) {
			t.Errorf("start %v: %v, want ErrNotFinite", bad, err)
		}
	}
}

// TestFloatsRoundTrip: what a float32 can hold survives, the rest is rounded
// to 24 bits.
func TestFloatsRoundTrip(t *testing.T) {
	r := prng(1)
	for range 10_000 {
		v := []int32{int32(r.next() >> (33 + r.next()%30))}
		f, back := make([]float32, 1), make([]int32, 1)
		ToFloat32(f, v)
		if err := FromFloat32(back, f); err != nil {
			t.Fatal(err)
		}
		if d := int64(back[0]) - int64(v[0]); v[0] < 1<<24 && d != 0 || d > 64 || d < -64 {
			t.Errorf("%d came back as %d", v[0], back[0])
		}
	}
}

func TestPseudoGradient(t *testing.T) {
	got := make([]int32, 4)
	// Start minus end; what did not move is 0 even where float32 is coarse.
	if err := PseudoGradient(got, []float32{1, 0.5, 31.9, 31}, []float32{0.5, 1, 31.9, -31}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int32{1 << 25, -1 << 25, 0, maxValue} {
		if got[i] != want {
			t.Errorf("value %d is %d, want %d", i, got[i], want)
		}
	}
}
