//go:build cuda && cgo

package cuda

import (
	"fmt"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Benchmarks of kernels, for a real device: what the emulated one takes says
// nothing. Matrices have the shapes of a model of 8 billion parameters.

// benchDevice opens the device; memory from it is given back at the end.
func benchDevice(b *testing.B) *device {
	b.Helper()
	if emulated != nil {
		b.Skip("no device")
	}
	d, err := newDevice(0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		d.release()
		if err := d.close(); err != nil {
			b.Error(err)
		}
	})
	return d
}

// zeros is a matrix of zeros; how long a kernel takes does not depend on values.
func (d *device) zeros(b *testing.B, rows, cols int, half bool) view {
	b.Helper()
	v := view{rows: rows, cols: cols, stride: cols, bf16: half}
	var err error
	if v.ptr, err = d.alloc(rows * cols * v.elem()); err != nil {
		b.Fatal(err)
	}
	d.zero(v)
	return v
}

// measure reports what fn does in bytes and operations for each second.
func (d *device) measure(b *testing.B, bytes, operations float64, fn func()) {
	b.Helper()
	fn()
	d.sync()
	b.ResetTimer()
	for range b.N {
		fn()
	}
	d.sync()
	seconds := b.Elapsed().Seconds() / float64(b.N)
	if bytes > 0 {
		b.ReportMetric(bytes/seconds/1e9, "GB/s")
	}
	if operations > 0 {
		b.ReportMetric(operations/seconds/1e12, "TFLOP/s")
	}
	if err := d.err(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkAttention(b *testing.B) {
	for _, c := range []struct{ heads, kv, hd, tokens int }{{32, 8, 64, 2048}, {32, 8, 128, 2048}, {32, 8, 128, 4096}, {8, 4, 256, 2048}} {
		for _, half := range []bool{true, false} {
			d := (*device)(nil)
			setup := func(b *testing.B) attentionBackward {
				d = benchDevice(b)
				m := func(heads int) view { return d.zeros(b, c.tokens, heads*c.hd, half) }
				return attentionBackward{
					attention: attention{
						q: m(c.heads), k: m(c.kv), v: m(c.kv), out: m(c.heads), lse: d.zeros(b, c.tokens, c.heads, false),
						heads: c.heads, kvHeads: c.kv, scale: 0.1, spans: []tensor.Span{{QLen: c.tokens, KLen: c.tokens}},
					},
					dOut: m(c.heads), dQ: m(c.heads), dK: m(c.kv), dV: m(c.kv),
				}
			}
			// Two products of 2*T*T*hd operations each, half of which causality
			// leaves out; five in the backward pass, as is usual to count.
			operations := 2 * float64(c.tokens) * float64(c.tokens) * float64(c.hd*c.heads)
			name := fmt.Sprintf("heads=%d,%d/width=%d/tokens=%d/bf16=%v", c.heads, c.kv, c.hd, c.tokens, half)
			b.Run(name+"/forward", func(b *testing.B) {
				p := setup(b)
				d.measure(b, 0, operations, func() { d.attend(p.attention) })
			})
			b.Run(name+"/backward", func(b *testing.B) {
				p := setup(b)
				d.measure(b, 0, 2.5*operations, func() { d.attendBackward(p) })
			})
		}
	}
}

// BenchmarkGenerate is attention of one query to many keys.
func BenchmarkGenerate(b *testing.B) {
	d := benchDevice(b)
	const heads, kv, hd, keys = 32, 8, 128, 4096
	p := attention{
		q: d.zeros(b, 1, heads*hd, true), k: d.zeros(b, keys, kv*hd, true), v: d.zeros(b, keys, kv*hd, true),
		out: d.zeros(b, 1, heads*hd, true), lse: d.zeros(b, 1, heads, false),
		heads: heads, kvHeads: kv, scale: 0.1, spans: []tensor.Span{{QLen: 1, KLen: keys}},
	}
	d.measure(b, 2*2*keys*kv*hd, 0, func() { d.attend(p) })
}

func BenchmarkOperations(b *testing.B) {
	const tokens, hidden, inner, vocab = 2048, 4096, 14336, 128256
	for _, c := range []struct {
		name  string
		bytes float64
		setup func(b *testing.B, d *device) func()
	}{
		{"RMSNorm", 2 * 2 * tokens * hidden, func(b *testing.B, d *device) func() {
			x, out, inv, w := d.zeros(b, tokens, hidden, true), d.zeros(b, tokens, hidden, true), d.zeros(b, tokens, 1, false), d.zeros(b, 1, hidden, false)
			return func() { d.rmsNorm(out, inv, x, w, tensor.RMSNorm{Eps: 1e-5}) }
		}},
		{"RMSNormBackward", 4 * 2 * tokens * hidden, func(b *testing.B, d *device) func() {
			x, dx, dout := d.zeros(b, tokens, hidden, true), d.zeros(b, tokens, hidden, true), d.zeros(b, tokens, hidden, true)
			inv, w := d.zeros(b, tokens, 1, false), d.zeros(b, 1, hidden, false)
			return func() { d.rmsNormBackward(dx, view{}, dout, x, inv, w, tensor.RMSNorm{}) }
		}},
		{"SwiGLU", 3 * 2 * tokens * inner, func(b *testing.B, d *device) func() {
			out, gate, up := d.zeros(b, tokens, inner, true), d.zeros(b, tokens, inner, true), d.zeros(b, tokens, inner, true)
			return func() { d.swiGLU(out, gate, up) }
		}},
		{"SwiGLUBackward", 5 * 2 * tokens * inner, func(b *testing.B, d *device) func() {
			out, gate, up := d.zeros(b, tokens, inner, true), d.zeros(b, tokens, inner, true), d.zeros(b, tokens, inner, true)
			return func() { d.swiGLUBackward(out, gate, up) }
		}},
		{"Rope", 2 * 2 * tokens * hidden, func(b *testing.B, d *device) func() {
			x, cos, sin := d.zeros(b, tokens, hidden, true), d.zeros(b, tokens, 64, false), d.zeros(b, tokens, 64, false)
			pos := make([]int32, tokens)
			for i := range pos {
				pos[i] = int32(i)
			}
			return func() { d.rope(x, cos, sin, 128, pos, false) }
		}},
		{"CrossEntropy", 3 * 4 * 512 * vocab, func(b *testing.B, d *device) func() {
			logits, results := d.zeros(b, 512, vocab, false), d.zeros(b, 2, 512, false)
			labels := make([]int32, 512)
			return func() { d.crossEntropy(logits, labels, 1, results.ptr, results.at(1, 0)) }
		}},
		{"AdamW", 7 * 4 * 42_000_000, func(b *testing.B, d *device) func() {
			p, g, m, v := d.zeros(b, 1, 42_000_000, false), d.zeros(b, 1, 42_000_000, false), d.zeros(b, 1, 42_000_000, false), d.zeros(b, 1, 42_000_000, false)
			return func() {
				d.adamW(p, g, m, v, tensor.AdamW{LearningRate: 1e-4, Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, Step: 1, GradScale: 1})
			}
		}},
		{"SumSquares", 4 * 42_000_000, func(b *testing.B, d *device) func() {
			g, sum := d.zeros(b, 1, 42_000_000, false), d.zeros(b, 1, 2, false)
			return func() { d.sumSquares(sum.ptr, g) }
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := benchDevice(b)
			d.measure(b, c.bytes, 0, c.setup(b, d))
		})
	}
}
