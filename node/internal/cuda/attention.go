//go:build cuda && cgo

package cuda

import (
	"fmt"
	"slices"

	"github.com/moot-net/moot/node/internal/tensor"
)

// attention are the arguments of tensor.Attention. lse is float32.
type attention struct {
	q, k, v, out, lse view
	heads, kvHeads    int
	scale             float32
	window            int
	softCap           float32
	slopes            []float32
	spans             []tensor.Span
}

// attentionBackward are those of the backward pass.
type attentionBackward struct {
	attention
	dOut, dQ, dK, dV view
}

// maxHead is the widest head that there are kernels for.
const maxHead = 256

// attentionHead checks the arguments and returns the width of a head. It is not
// ok where there is no kernel.
func (d *device) attentionHead(p *attention) (hd int, ok bool) {
	if p.heads <= 0 || p.kvHeads <= 0 || p.heads%p.kvHeads != 0 || p.q.cols%p.heads != 0 {
		panic(fmt.Sprintf("bug: %d and %d heads of %d columns", p.heads, p.kvHeads, p.q.cols))
	}
	hd = p.q.cols / p.heads
	mustShape("V", p.v, p.k.rows, p.kvHeads*hd)
	mustShape("K", p.k, p.k.rows, p.kvHeads*hd)
	mustShape("Out", p.out, p.q.rows, p.q.cols)
	mustShape("LSE", p.lse, p.q.rows, p.heads)
	if p.lse.bf16 {
		panic("bug: LSE in 16 bits")
	}
	if p.slopes != nil && len(p.slopes) != p.heads {
		panic(fmt.Sprintf("bug: %d slopes for %d heads", len(p.slopes), p.heads))
	}
	for _, s := range p.spans {
		if s.QLen > s.KLen || s.Q+s.QLen > p.q.rows || s.K+s.KLen > p.k.rows {
			panic(fmt.Sprintf("bug: span %+v of %d queries and %d keys", s, p.q.rows, p.k.rows))
		}
	}
	if hd > maxHead {
		d.fail(fmt.Errorf("attention with heads of %d values: a GPU computes heads of up to %d: train on the CPU", hd, maxHead))
		return hd, false
	}
	return hd, true
}

// keysSeen is how many keys query i of a span sees.
func (p *attention) keysSeen(s tensor.Span, i int) int {
	n := s.KLen - s.QLen + i + 1
	if p.window > 0 {
		n = min(n, p.window)
	}
	return n
}

// pieces divides what is computed into pieces of n queries, or of n keys: what
// a block of threads does for one head. Those that take longest come first.
func (p *attention) pieces(n int, ofKeys bool) []int32 {
	type piece struct {
		s           tensor.Span
		first, cost int
	}
	var list []piece
	for _, s := range p.spans {
		length := s.QLen
		if ofKeys {
			length = s.KLen
		}
		for first := 0; first < length; first += n {
			x := piece{s, first, 0}
			if ofKeys {
				from := max(0, first-(s.KLen-s.QLen)) // the first query that sees it
				to := s.QLen
				if p.window > 0 {
					to = min(to, first+n-1+p.window-(s.KLen-s.QLen))
				}
				x.cost = to - from
			} else {
				x.cost = p.keysSeen(s, min(first+n, length)-1)
			}
			list = append(list, x)
		}
	}
	slices.SortStableFunc(list, func(a, b piece) int { return b.cost - a.cost })
	out := make([]int32, 0, 8*len(list))
	for _, x := range list {
		out = append(out, int32(x.first), int32(x.s.Q), int32(x.s.QLen), int32(x.s.K), int32(x.s.KLen), 0, 0, 0)
	}
	return out
}

// tiles are the sizes that a kernel of attention_mma.cuh was made with.
type tiles struct {
	width                 int // of a head, rounded up
	keys                  int // at a time in the forward pass
	queryWarps, queryKeys int // of the pass for derivatives by queries
	keyRows, keyQueries   int // of that for those by keys
}

// tilesFor is the table of KERNELS in attention_*.cu.
func tilesFor(hd, capability int) tiles {
	switch {
	case hd <= 64:
		return tiles{64, 64, 4, 64, 64, 32}
	case hd <= 96:
		return tiles{96, 64, 4, 32, 64, 32}
	case hd <= 128:
		return tiles{128, 64, 4, 32, 64, 32}
	case capability >= 80:
		return tiles{256, 64, 4, 32, 32, 32}
	}
	return tiles{256, 32, 2, 32, 32, 32}
}

// shared is the shared memory of rows of a head.
func (t tiles) shared(rows int) int {
	pitch := t.width
	if pitch%64 != 0 {
		pitch += 8
	}
	return 2 * rows * pitch
}

// floatWidth is the width of a kernel of attention_f32.cuh.
func floatWidth(hd int) int {
	switch {
	case hd <= 64:
		return 64
	case hd <= 128:
		return 128
	}
	return 256
}

// tensorCores reports whether all are in 16 bits and the device has tensor
// cores.
func (d *device) tensorCores(list ...view) bool {
	for _, v := range list {
		if !v.bf16 {
			return false
		}
	}
	return d.capability >= 75
}

// args are what all kernels of attention begin with.
func (d *device) attentionArgs(p *attention, pieces uint64, hd int, wide bool) []uint64 {
	args := make([]uint64, 0, 32)
	args = matrix(args, wide, p.q, p.k, p.v, p.out, p.lse)
	return append(args, pieces, num(p.heads/p.kvHeads), num(hd), double(float64(p.scale)), num(p.window), double(float64(p.softCap)), send(d, p.slopes))
}

// fewQueries is the number of queries of a span up to which each of them is
// computed by itself, its keys divided between blocks of threads.
const fewQueries = 8

// generating reports whether all spans have few queries and many more keys.
func (p *attention) generating() bool {
	for _, s := range p.spans {
		if s.QLen > fewQueries || s.KLen < 8*s.QLen {
			return false
		}
	}
	return len(p.spans) > 0
}

// attend is tensor.Backend's Attention.
func (d *device) attend(p attention) {
	hd, ok := d.attentionHead(&p)
	if !ok {
		return
	}
	w := wide(hd, p.q, p.k, p.v, p.out)
	if p.generating() {
		d.attendOne(p, hd, w)
		return
	}
	list := p.pieces(64, false)
	grid := [3]int{len(list) / 8, p.heads, 1}
	args := d.attentionArgs(&p, send(d, list), hd, w)
	if d.tensorCores(p.q, p.k, p.v, p.out) {
		t := tilesFor(hd, d.capability)
		d.launch(d.kernel(fmt.Sprintf("moot_attention_%d", t.width)), grid, [3]int{128, 1, 1}, t.shared(64+2*t.keys), args...)
		return
	}
	d.launch(d.kernel(fmt.Sprintf("moot_attention_f32_%d", floatWidth(hd))), grid, [3]int{256, 1, 1}, 0, args...)
}

// attendOne computes each query by itself. Into how many parts its keys are
// divided depends on the shapes only, so that the result does.
func (d *device) attendOne(p attention, hd int, w bool) {
	list := p.pieces(1, false)
	n, most := len(list)/8, 0
	for _, s := range p.spans {
		most = max(most, p.keysSeen(s, s.QLen-1))
	}
	if n == 0 {
		return
	}
	parts := max(1, min(blocks(512, n*p.heads), blocks(most, 128)))
	part := blocks(most, parts)
	at := d.workspace(n * p.heads * parts * (hd + 2) * 4)
	pieces := send(d, list)
	args := append(d.attentionArgs(&p, pieces, hd, w), uint64(at), num(part))
	d.launch(d.kernel("moot_attention_one"), [3]int{n, p.heads, parts}, [3]int{128, 1, 1}, 0, args...)
	var space [24]uint64
	join := append(matrix(space[:0], false, p.out, p.lse), uint64(at), pieces, num(parts), num(hd))
	d.launch(d.kernel("moot_attention_join"), [3]int{n, p.heads, 1}, [3]int{128, 1, 1}, 0, join...)
}

// attendBackward is tensor.Backend's AttentionBackward.
func (d *device) attendBackward(p attentionBackward) {
	hd, ok := d.attentionHead(&p.attention)
	if !ok {
		return
	}
	mustShape("dOut", p.dOut, p.out.rows, p.out.cols)
	mustShape("dQ", p.dQ, p.q.rows, p.q.cols)
	mustShape("dK", p.dK, p.k.rows, p.k.cols)
	mustShape("dV", p.dV, p.v.rows, p.v.cols)
	rows := p.q.rows
	const maxParts = 256
	dots := d.workspace((rows*p.heads + 1 + maxParts) * 4)
	scale := dots + uintptr(rows*p.heads*4)
	w := wide(hd, p.q, p.k, p.v, p.out, p.dOut, p.dQ, p.dK, p.dV)

	var space [24]uint64
	args := append(space[:0], uint64(dots))
	args = append(matrix(args, w, p.out, p.dOut), num(rows), num(p.heads), num(hd))
	d.launch(d.kernel("moot_attention_dots"), [3]int{blocks(rows*p.heads, 8), 1, 1}, [3]int{256, 1, 1}, 0, args...)

	fast := d.tensorCores(p.q, p.k, p.v, p.out, p.dOut, p.dQ, p.dK, p.dV)
	t := tilesFor(hd, d.capability)
	queries, keys := 64, 64
	if fast {
		queries, keys = 16*t.queryWarps, t.keyRows
	}
	ofQueries, ofKeys := p.pieces(queries, false), p.pieces(keys, true)
	qGrid, kGrid := [3]int{len(ofQueries) / 8, p.heads, 1}, [3]int{len(ofKeys) / 8, p.kvHeads, 1}
	both := func(pieces []int32, of ...view) []uint64 {
		args := matrix(d.attentionArgs(&p.attention, send(d, pieces), hd, w), w, p.dOut)
		return matrix(append(args, uint64(dots), num(p.heads)), w, of...)
	}
	qArgs, kArgs := both(ofQueries, p.dQ), both(ofKeys, p.dK, p.dV)
	if !fast {
		width := floatWidth(hd)
		d.launch(d.kernel(fmt.Sprintf("moot_attention_queries_f32_%d", width)), qGrid, [3]int{256, 1, 1}, 0, qArgs...)
		d.launch(d.kernel(fmt.Sprintf("moot_attention_keys_f32_%d", width)), kGrid, [3]int{256, 1, 1}, 0, kArgs...)
		return
	}
	gradScale := uint64(0)
	if d.capability < 80 { // float16
		gradScale = uint64(scale)
		n := min(maxParts, rows)
		most := append(space[:0], uint64(scale)+4)
		most = append(matrix(most, wide(p.dOut.cols, p.dOut), p.dOut), num(rows), num(p.dOut.cols))
		d.launch(d.kernel("moot_attention_most"), [3]int{n, 1, 1}, [3]int{256, 1, 1}, 0, most...)
		d.launch(d.kernel("moot_attention_scale"), [3]int{1, 1, 1}, [3]int{1, 1, 1}, 0, gradScale, uint64(scale)+4, num(n))
	}
	d.launch(d.kernel(fmt.Sprintf("moot_attention_queries_%d", t.width)), qGrid, [3]int{32 * t.queryWarps, 1, 1},
		t.shared(2*16*t.queryWarps+2*t.queryKeys), append(qArgs, gradScale)...)
	d.launch(d.kernel(fmt.Sprintf("moot_attention_keys_%d", t.width)), kGrid, [3]int{128, 1, 1},
		t.shared(2*t.keyRows+2*t.keyQueries), append(kArgs, gradScale)...)
}
