//go:build cuda && cgo

package cuda

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/cuda/cublas"
	"github.com/moot-net/moot/node/internal/tensor"
)

// openBLAS returns a device with cuBLAS, the real or an emulated one.
func openBLAS(t *testing.T) *device {
	t.Helper()
	if emulated != nil {
		t.Setenv(cublas.Env, emulated.CUBLAS)
	}
	d := openDevice(t)
	if err := d.openBLAS(); err != nil {
		if emulated == nil {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.dropBLAS()
		d.release()
	})
	return d
}

// Where cuBLAS was chosen it gives the same values as our own kernels.
func TestCUBLAS(t *testing.T) {
	t.Setenv("MOOT_EMU_LAZY", "1")
	t.Setenv(gemmEnv, "cublas")
	d := openBLAS(t)
	for _, odd := range []bool{false, true} {
		for _, cHalf := range []bool{false, true} {
			transpositions(func(transA, transB bool) {
				l := newLab(t, d, "bfloat16", odd)
				const m, n, k, k2 = 33, 29, 70, 5
				ar, ac := turned(transA, m, k)
				br, bc := turned(transB, k, n)
				ar2, ac2 := turned(transA, m, k2)
				br2, bc2 := turned(transB, k2, n)
				a, b, a2, b2, bias := l.matrix(ar, ac), l.matrix(br, bc), l.matrix(ar2, ac2), l.typed(br2, bc2, false), l.floats(1, n)
				b2.set(func(i int) float32 { return float32(i % 7) }) // exact in bf16
				c := l.typed(m, n, cHalf)
				p := product{
					c: c.v, a: a.v, b: b.v, a2: a2.v, b2: b2.v, transA: transA, transB: transB, alpha: 0.5, add: true, bias: bias.v,
				}
				if method := d.plan(p).method; method != byCuBLAS {
					t.Fatalf("method is %v, want cuBLAS", method)
				}
				naive(c.Mat, a.Mat, b.Mat, a2.Mat, b2.Mat, transA, transB, 0.5, bias.Mat, true)
				d.matMul(p)
				tolerance := 1e-5
				if cHalf {
					tolerance = 0.2 // two more roundings of values of 10 and more
				}
				c.check("product", tolerance)
			})
		}
	}
	d.dropBLAS()
	if d.blas.handle != nil {
		t.Error("there is a handle after dropBLAS")
	}
	l := newLab(t, d, "bfloat16", false)
	a, b, c := l.matrix(8, 8), l.matrix(8, 8), l.floats(8, 8)
	naive(c.Mat, a.Mat, b.Mat, tensor.Mat{}, tensor.Mat{}, false, false, 1, tensor.Mat{}, false)
	d.matMul(product{c: c.v, a: a.v, b: b.v})
	c.check("product after dropBLAS", 1e-5)
}

func TestTune(t *testing.T) {
	d := openBLAS(t)
	shapeOf := func(rows, cols int, half bool) view { return view{rows: rows, cols: cols, bf16: half} }
	list := []product{
		{c: shapeOf(40, 48, true), a: shapeOf(40, 64, true), b: shapeOf(48, 64, true), transB: true},
		{c: shapeOf(40, 48, true), a: shapeOf(40, 63, true), b: shapeOf(48, 63, true), transB: true}, // the same class
		{c: shapeOf(64, 8, false), a: shapeOf(40, 64, true), b: shapeOf(40, 8, true), transA: true},
		{c: shapeOf(40, 48, true), a: shapeOf(40, 64, true), b: shapeOf(48, 64, true), a2: shapeOf(40, 8, true), b2: shapeOf(48, 8, false), transB: true},
		{c: shapeOf(40, 48, false), a: shapeOf(40, 64, false), b: shapeOf(48, 64, false), transB: true}, // float32
	}
	var text bytes.Buffer
	if err := d.tune(list, nil, slog.New(slog.NewTextHandler(&text, nil))); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text.String(), "products measured"); n != 3 || !strings.Contains(text.String(), `product="nt 64x64x64 lora"`) {
		t.Errorf("%d measurements, want 3:\n%s", n, &text)
	}
	choices := d.blas.choices()
	if len(choices) != 3 {
		t.Errorf("choices are %v, want 3", choices)
	}
	// What was chosen before is not measured again.
	for c, who := range choices {
		choices[c] = map[string]string{"own": "cublas", "cublas": "own"}[who]
	}
	text.Reset()
	if err := d.tune(list, choices, slog.New(slog.NewTextHandler(&text, nil))); err != nil {
		t.Fatal(err)
	}
	if text.Len() > 0 {
		t.Errorf("measured again:\n%s", &text)
	}
	for c, who := range d.blas.choices() {
		if choices[c] != who {
			t.Errorf("class %s is computed by %s, want %s", c, who, choices[c])
		}
	}
	// A class that nobody measured is left to cuBLAS.
	v := view{ptr: 1 << 20, rows: 3000, cols: 3000, stride: 3000, bf16: true}
	if got := d.plan(product{c: v, a: v, b: v}).method; got != byCuBLAS {
		t.Errorf("method is %v, want cuBLAS", got)
	}
}

func TestWithoutCUBLAS(t *testing.T) {
	for _, tt := range []struct{ name, library, force, capability, want string }{
		{"off", "off", "", "8.0", "turned off by " + cublas.Env},
		{"own", "", "own", "8.0", "turned off by " + gemmEnv},
		{"unknown", "", "mine", "8.0", "must be own or cublas"},
		{"old", "", "", "7.5", "7.5, which has no bf16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if emulated == nil && tt.name == "old" {
				t.Skip("the device is real")
			}
			t.Setenv(cublas.Env, tt.library)
			t.Setenv(gemmEnv, tt.force)
			t.Setenv("MOOT_EMU_CC", tt.capability)
			d := openDevice(t)
			if err := d.openBLAS(); err == nil || !strings.Contains(err.Error(), tt.want) || d.blas != nil {
				t.Errorf("error is %v, want %q", err, tt.want)
			}
		})
	}
}

// Errors of cuBLAS end the device with a name.
func TestCUBLASErrors(t *testing.T) {
	t.Setenv(gemmEnv, "cublas")
	if emulated == nil {
		t.Skip("needs an emulated driver to fail")
	}
	t.Setenv(cublas.Env, emulated.CUBLAS)
	t.Setenv("MOOT_EMU_MEM", "12")
	d, err := newDevice(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.openBLAS(); err != nil {
		t.Fatal(err)
	}
	p, err := d.alloc(1 << 20) // and 8 MiB are too many for what is left
	if err != nil {
		t.Fatal(err)
	}
	v := view{ptr: p, rows: 8, cols: 8, stride: 8, bf16: true}
	d.matMul(product{c: v, a: v.rowRange(0, 8), b: v})
	d.sync()
	if err := d.err(); err == nil || !strings.Contains(err.Error(), "workspace of cuBLAS") {
		t.Errorf("error is %v", err)
	}
	d.dropBLAS()
	d.release()
	if err := d.close(); err == nil {
		t.Error("the error was forgotten")
	}
	checkLeaks(t)
}
