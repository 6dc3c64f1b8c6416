// Command asm writes the kernels in assembly of package cpu, for amd64 with
// AVX2 and FMA, and tiles for AVX-512. Run it with "go generate" in that
// package.
package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	makeTables()
	tile()
	for _, rows := range []int{4, 8, 12} {
		for _, cols := range []int{8, 16, 32} {
			tile512(rows, cols)
		}
	}
	transpose("transposeAVX2", "func(dst []float32, ldd int, src []float32, ld, k int)",
		"transposeAVX2 is kernels.transpose; k is a multiple of 8.", 2)
	packRows()
	widen()
	dot()
	dot3()
	maximum()
	add()
	axpy()
	scale()
	mulScale()
	normBack()
	expSum()
	softmaxBack()
	swiglu()
	swigluBack()
	normal()
	logistic()
	rotate()
	adamw()
	for _, rows := range []int{4, 8, 12} {
		for _, cols := range []int{16, 32} {
			halfTile(rows, cols)
		}
	}
	halfTileEmulated("halfTileAVX2", 4, 16, YMM)
	for _, rows := range []int{4, 8} {
		for _, cols := range []int{16, 32} {
			halfTileEmulated(fmt.Sprintf("halfTile%dx%dAVX512", rows, cols), rows, cols, ZMM)
		}
	}
	transpose("transposePairsAVX2", "func(dst []uint16, ldd int, src []uint16, ld, k int)",
		"transposePairsAVX2 is kernels.transposePairs; k is a multiple of 8.", 1)
	interleave()
	narrow()
	narrowAVX2()
	Generate()
}

// lanes is how many float32 a register holds.
const lanes = 8

var (
	masks     operand.Mem // 8 words of ones, 8 of zeros: word 8-n on masks n lanes
	constants = map[string]operand.Mem{}
)

// makeTables writes the read-only data: constants in all lanes, so that they
// can be operands.
func makeTables() {
	masks = GLOBL("avxMasks", attr.RODATA|attr.NOPTR)
	for i := range 16 {
		v := uint32(0)
		if i < lanes {
			v = math.MaxUint32
		}
		DATA(4*i, operand.U32(v))
	}
	table := GLOBL("avxConstants", attr.RODATA|attr.NOPTR)
	for i, c := range []struct {
		name string
		bits uint32
	}{
		{"low", math.Float32bits(-87.33654)},
		{"high", math.Float32bits(88.37626)},
		{"log2e", math.Float32bits(1.44269504)},
		{"ln2hi", math.Float32bits(0.693359375)},
		{"ln2lo", math.Float32bits(-2.12194440e-4)},
		{"c0", math.Float32bits(1.9875691500e-4)},
		{"c1", math.Float32bits(1.3981999507e-3)},
		{"c2", math.Float32bits(8.3334519073e-3)},
		{"c3", math.Float32bits(4.1665795894e-2)},
		{"c4", math.Float32bits(1.6666665459e-1)},
		{"c5", math.Float32bits(5.0000001201e-1)},
		{"one", math.Float32bits(1)},
		{"bias", 127},
		{"sign", 1 << 31},
		{"half", math.Float32bits(0.5)},
		{"-half", math.Float32bits(-0.5)},
		{"root", math.Float32bits(1 / math.Sqrt2)},
		{"density", math.Float32bits(0.3989422804014327)},
		{"n0", math.Float32bits(0.3275911)},
		{"n1", math.Float32bits(1.061405429)},
		{"n2", math.Float32bits(-1.453152027)},
		{"n3", math.Float32bits(1.421413741)},
		{"n4", math.Float32bits(-0.284496736)},
		{"n5", math.Float32bits(0.254829592)},
		{"geluA", math.Float32bits(geluA)},
		{"geluB", math.Float32bits(geluB)},
		{"geluB3", math.Float32bits(3 * geluB)},
		{"-inf", math.Float32bits(float32(math.Inf(-1)))},
	} {
		for j := range lanes {
			DATA(4*(lanes*i+j), operand.U32(c.bits))
		}
		constants[c.name] = table.Offset(4 * lanes * i)
	}
}

// begin starts a function that an amd64 processor without AVX2 must not call.
func begin(name, signature, doc string) {
	TEXT(name, attr.NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc)
}

// vectors is a loop over slices, 8 values at a time, the last ones masked.
type vectors struct {
	n, i reg.GPVirtual
	base []reg.Register
	mask reg.VecVirtual // of the tail, nil in the main loop
}

// over prepares a loop over the named slice parameters, which have the length
// of the first.
func over(slices ...string) *vectors {
	v := &vectors{n: GP64(), i: GP64()}
	Load(Param(slices[0]).Len(), v.n)
	for _, s := range slices {
		v.base = append(v.base, Load(Param(s).Base(), GP64()))
	}
	XORQ(v.i, v.i)
	return v
}

// at is the address of the current values of slice s, off values further on.
func (v *vectors) at(s, off int) operand.Mem {
	return operand.Mem{Base: v.base[s], Index: v.i, Scale: 4, Disp: 4 * off}
}

// load reads the current values of slice s; masked lanes are 0.
func (v *vectors) load(s int) reg.VecVirtual {
	x := YMM()
	if v.mask == nil {
		VMOVUPS(v.at(s, 0), x)
	} else {
		VMASKMOVPS(v.at(s, 0), v.mask, x)
	}
	return x
}

func (v *vectors) store(x reg.VecVirtual, s int) {
	if v.mask == nil {
		VMOVUPS(x, v.at(s, 0))
	} else {
		VMASKMOVPS(x, v.mask, v.at(s, 0))
	}
}

// each emits body for full registers in a loop and for the tail.
func (v *vectors) each(label string, body func()) {
	left := GP64()
	Label(label + "_loop")
	MOVQ(v.n, left)
	SUBQ(v.i, left)
	CMPQ(left, operand.Imm(lanes))
	JL(operand.LabelRef(label + "_tail"))
	body()
	ADDQ(operand.Imm(lanes), v.i)
	JMP(operand.LabelRef(label + "_loop"))
	Label(label + "_tail")
	TESTQ(left, left)
	JZ(operand.LabelRef(label + "_done"))
	table, mask := GP64(), YMM()
	LEAQ(masks, table)
	NEGQ(left)
	VMOVDQU(operand.Mem{Base: table, Index: left, Scale: 4, Disp: 4 * lanes}, mask)
	v.mask = mask
	body()
	v.mask = nil
	Label(label + "_done")
}

// blocks emits body in a loop of unroll registers at a time; each does the
// rest.
func (v *vectors) blocks(label string, unroll int, body func(j int)) {
	left := GP64()
	Label(label + "_blocks")
	MOVQ(v.n, left)
	SUBQ(v.i, left)
	CMPQ(left, operand.Imm(uint64(unroll*lanes)))
	JL(operand.LabelRef(label + "_loop"))
	for j := range unroll {
		body(j)
	}
	ADDQ(operand.Imm(uint64(unroll*lanes)), v.i)
	JMP(operand.LabelRef(label + "_blocks"))
}

func broadcast(name string) reg.VecVirtual {
	x := YMM()
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(a.Addr, x)
	return x
}

func zero() reg.VecVirtual {
	x := YMM()
	VXORPS(x, x, x)
	return x
}

// total adds the lanes of x and returns the sum from the function.
func total(x reg.VecVirtual) {
	h := XMM()
	VEXTRACTF128(operand.Imm(1), x, h)
	s := XMM()
	VADDPS(h, x.AsX(), s)
	VMOVHLPS(s, s, h)
	VADDPS(h, s, s)
	VMOVSHDUP(s, h)
	VADDSS(h, s, s)
	finish(s)
}

func finish(s reg.VecVirtual) {
	VZEROUPPER()
	Store(s, ReturnIndex(0))
	RET()
}

func end() {
	VZEROUPPER()
	RET()
}

// exp returns e^x, by the same steps as exp32. x is destroyed.
func exp(x reg.VecVirtual) reg.VecVirtual {
	VMAXPS(x, loaded("low"), x) // the first operand is the result if one is NaN
	VMINPS(x, loaded("high"), x)
	n, y := YMM(), YMM()
	VMULPS(constants["log2e"], x, n)
	VROUNDPS(operand.Imm(8), n, n) // nearest even, no exception
	VFNMADD231PS(constants["ln2hi"], n, x)
	VFNMADD231PS(constants["ln2lo"], n, x)
	VMOVUPS(constants["c0"], y)
	for _, c := range []string{"c1", "c2", "c3", "c4", "c5"} {
		VFMADD213PS(constants[c], x, y)
	}
	square := YMM()
	VMULPS(x, x, square)
	VFMADD213PS(x, square, y)
	VADDPS(constants["one"], y, y)
	VCVTPS2DQ(n, n)
	VPADDD(constants["bias"], n, n)
	VPSLLD(operand.Imm(23), n, n)
	VMULPS(n, y, y)
	return y
}

func loaded(name string) reg.VecVirtual {
	x := YMM()
	VMOVUPS(constants[name], x)
	return x
}

// sigmoid returns 1 / (1 + e^-x). x is kept.
func sigmoid(x reg.VecVirtual) reg.VecVirtual {
	m := YMM()
	VXORPS(constants["sign"], x, m)
	e := exp(m)
	VADDPS(constants["one"], e, e)
	VDIVPS(e, loaded("one"), e)
	return e
}

// tile is the inner loop of the matrix product: 12 registers hold a 6 by 16
// tile of the result, two a row of b, two a value of a in all lanes.
func tile() {
	begin("tileAVX2", "func(k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, alpha float32, add bool)",
		"tileAVX2 is kernels.tile for tiles of 6 by 16.")
	k := Load(Param("k"), GP64())
	a0 := Load(Param("a").Base(), GP64())
	rsa, csa := Load(Param("rsa"), GP64()), Load(Param("csa"), GP64())
	b, ldb := Load(Param("b").Base(), GP64()), Load(Param("ldb"), GP64())
	c, ldc := Load(Param("c").Base(), GP64()), Load(Param("ldc"), GP64())
	for _, stride := range []reg.Register{rsa, csa, ldb, ldc} {
		SHLQ(operand.Imm(2), stride)
	}
	a3, c3 := GP64(), GP64()
	LEAQ(operand.Mem{Base: rsa, Index: rsa, Scale: 2}, a3)
	ADDQ(a0, a3)
	LEAQ(operand.Mem{Base: ldc, Index: ldc, Scale: 2}, c3)
	ADDQ(c, c3)
	row := func(first, fourth, stride reg.Register, i, disp int) operand.Mem {
		base := first
		if i >= 3 {
			base = fourth
		}
		if i%3 == 0 {
			return operand.Mem{Base: base, Disp: disp}
		}
		return operand.Mem{Base: base, Index: stride, Scale: uint8(i % 3), Disp: disp}
	}
	for i := range 6 {
		PREFETCHT0(row(c, c3, ldc, i, 0))
		PREFETCHT0(row(c, c3, ldc, i, 60))
	}
	var acc [6][2]reg.VecVirtual
	for i := range acc {
		acc[i] = [2]reg.VecVirtual{zero(), zero()}
	}
	step := func() {
		b0, b1 := YMM(), YMM()
		VMOVUPS(operand.Mem{Base: b}, b0)
		VMOVUPS(operand.Mem{Base: b, Disp: 32}, b1)
		for i := range acc {
			x := YMM()
			VBROADCASTSS(row(a0, a3, rsa, i, 0), x)
			VFMADD231PS(x, b0, acc[i][0])
			VFMADD231PS(x, b1, acc[i][1])
		}
		ADDQ(csa, a0)
		ADDQ(csa, a3)
		ADDQ(ldb, b)
	}
	const unroll = 4
	Label("tile_blocks")
	CMPQ(k, operand.Imm(unroll))
	JL(operand.LabelRef("tile_loop"))
	for range unroll {
		step()
	}
	SUBQ(operand.Imm(unroll), k)
	JMP(operand.LabelRef("tile_blocks"))
	Label("tile_loop")
	TESTQ(k, k)
	JZ(operand.LabelRef("tile_store"))
	step()
	DECQ(k)
	JMP(operand.LabelRef("tile_loop"))

	Label("tile_store")
	alpha := broadcast("alpha")
	for i := range acc {
		for j := range 2 {
			VMULPS(alpha, acc[i][j], acc[i][j])
		}
	}
	flag := Load(Param("add"), GP8())
	TESTB(flag, flag)
	JZ(operand.LabelRef("tile_set"))
	for i := range acc {
		for j := range 2 {
			VADDPS(row(c, c3, ldc, i, 32*j), acc[i][j], acc[i][j])
		}
	}
	Label("tile_set")
	for i := range acc {
		for j := range 2 {
			VMOVUPS(acc[i][j], row(c, c3, ldc, i, 32*j))
		}
	}
	end()
}

// rowsOf addresses up to 12 rows by one pointer and multiples of their stride.
type rowsOf struct {
	base      reg.Register
	multiples map[int]reg.Register // odd ones
}

func newRows(base, stride reg.Register, n int) rowsOf {
	r := rowsOf{base, map[int]reg.Register{1: stride}}
	for m := 3; m < n; m += 2 {
		x := GP64()
		LEAQ(operand.Mem{Base: r.multiples[m-2], Index: stride, Scale: 2}, x)
		r.multiples[m] = x
	}
	return r
}

func (r rowsOf) at(i, disp int) operand.Mem {
	if i == 0 {
		return operand.Mem{Base: r.base, Disp: disp}
	}
	scale := 1
	for i%2 == 0 {
		i, scale = i/2, 2*scale
	}
	return operand.Mem{Base: r.base, Index: r.multiples[i], Scale: uint8(scale), Disp: disp}
}

// tile512 is the inner loop of the matrix product for tiles of other sizes: with
// 12 by 32, 24 registers hold the result. Each element is summed in the order in
// which tile sums it, so that both give the same bits.
func tile512(rows, cols int) {
	name := fmt.Sprintf("tile%dx%d", rows, cols)
	vector, bytes, width := ZMM, 64, cols/16
	if cols == 8 {
		vector, bytes, width = YMM, 32, 1
	}
	begin(name, "func(k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, alpha float32, add bool)",
		fmt.Sprintf("%s is kernels.tile for tiles of %d by %d, for AVX-512.", name, rows, cols))
	result := func() rowsOf {
		c, ldc := Load(Param("c").Base(), GP64()), Load(Param("ldc"), GP64())
		SHLQ(operand.Imm(2), ldc)
		return newRows(c, ldc, rows)
	}
	c := result()
	for i := range rows {
		PREFETCHT0(c.at(i, 0))
		PREFETCHT0(c.at(i, 4*cols-4))
	}
	k := Load(Param("k"), GP64())
	base, rsa := Load(Param("a").Base(), GP64()), Load(Param("rsa"), GP64())
	b, ldb, csa := Load(Param("b").Base(), GP64()), Load(Param("ldb"), GP64()), Load(Param("csa"), GP64())
	for _, stride := range []reg.Register{rsa, csa, ldb} {
		SHLQ(operand.Imm(2), stride)
	}
	a := newRows(base, rsa, rows)
	acc := make([][]reg.VecVirtual, rows)
	for i := range acc {
		for range width {
			x := vector()
			if cols == 8 {
				VXORPS(x, x, x)
			} else {
				VPXORD(x, x, x)
			}
			acc[i] = append(acc[i], x)
		}
	}
	step := func() {
		var row []reg.VecVirtual
		for j := range width {
			x := vector()
			VMOVUPS(operand.Mem{Base: b, Disp: bytes * j}, x)
			row = append(row, x)
		}
		for i := range acc {
			if cols == 16 {
				VFMADD231PS_BCST(a.at(i, 0), row[0], acc[i][0])
				continue
			}
			x := vector()
			VBROADCASTSS(a.at(i, 0), x)
			for j := range row {
				VFMADD231PS(x, row[j], acc[i][j])
			}
		}
		ADDQ(csa, base)
		ADDQ(ldb, b)
	}
	const unroll = 4
	Label(name + "_blocks")
	CMPQ(k, operand.Imm(unroll))
	JL(operand.LabelRef(name + "_loop"))
	for range unroll {
		step()
	}
	SUBQ(operand.Imm(unroll), k)
	JMP(operand.LabelRef(name + "_blocks"))
	Label(name + "_loop")
	TESTQ(k, k)
	JZ(operand.LabelRef(name + "_store"))
	step()
	DECQ(k)
	JMP(operand.LabelRef(name + "_loop"))

	Label(name + "_store")
	c = result()
	alpha := vector()
	at, err := Param("alpha").Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(at.Addr, alpha)
	for i := range acc {
		for j := range acc[i] {
			VMULPS(alpha, acc[i][j], acc[i][j])
		}
	}
	flag := Load(Param("add"), GP8())
	TESTB(flag, flag)
	JZ(operand.LabelRef(name + "_set"))
	for i := range acc {
		for j := range acc[i] {
			VADDPS(c.at(i, bytes*j), acc[i][j], acc[i][j])
		}
	}
	Label(name + "_set")
	for i := range acc {
		for j := range acc[i] {
			VMOVUPS(acc[i][j], c.at(i, bytes*j))
		}
	}
	end()
}

// packRows copies rows of 16 values.
func packRows() {
	begin("packRowsAVX2", "func(dst []float32, ldd int, src []float32, ld, k int)",
		"packRowsAVX2 is kernels.packRows.")
	dst, src := Load(Param("dst").Base(), GP64()), Load(Param("src").Base(), GP64())
	ldd, ld, k := Load(Param("ldd"), GP64()), Load(Param("ld"), GP64()), Load(Param("k"), GP64())
	SHLQ(operand.Imm(2), ldd)
	SHLQ(operand.Imm(2), ld)
	Label("pack_loop")
	TESTQ(k, k)
	JZ(operand.LabelRef("pack_done"))
	x, y := YMM(), YMM()
	VMOVUPS(operand.Mem{Base: src}, x)
	VMOVUPS(operand.Mem{Base: src, Disp: 32}, y)
	VMOVUPS(x, operand.Mem{Base: dst})
	VMOVUPS(y, operand.Mem{Base: dst, Disp: 32})
	ADDQ(ld, src)
	ADDQ(ldd, dst)
	DECQ(k)
	JMP(operand.LabelRef("pack_loop"))
	Label("pack_done")
	end()
}

// widen puts 16 zero bits behind each bfloat16.
func widen() {
	begin("widenAVX2", "func(dst []float32, src []uint16)",
		"widenAVX2 is kernels.widen for a multiple of 8 values.")
	dst, src := Load(Param("dst").Base(), GP64()), Load(Param("src").Base(), GP64())
	n := Load(Param("src").Len(), GP64())
	Label("widen_loop")
	CMPQ(n, operand.Imm(8))
	JL(operand.LabelRef("widen_done"))
	x := YMM()
	VPMOVZXWD(operand.Mem{Base: src}, x)
	VPSLLD(operand.Imm(16), x, x)
	VMOVUPS(x, operand.Mem{Base: dst})
	ADDQ(operand.Imm(16), src)
	ADDQ(operand.Imm(32), dst)
	SUBQ(operand.Imm(8), n)
	JMP(operand.LabelRef("widen_loop"))
	Label("widen_done")
	end()
}

// transpose turns 16 rows of 32-bit values into columns, 8 by 8 at a time. Strides
// are in units of 1<<shift bytes.
func transpose(name, signature, doc string, shift uint64) {
	begin(name, signature, doc)
	dst, src := Load(Param("dst").Base(), GP64()), Load(Param("src").Base(), GP64())
	ld, k := Load(Param("ld"), GP64()), Load(Param("k"), GP64())
	ldd := Load(Param("ldd"), GP64())
	SHLQ(operand.Imm(shift), ld)
	SHLQ(operand.Imm(shift), ldd)
	half := GP64() // the second 8 rows
	MOVQ(ld, half)
	SHLQ(operand.Imm(3), half)
	ADDQ(src, half)
	ld3 := GP64()
	LEAQ(operand.Mem{Base: ld, Index: ld, Scale: 2}, ld3)
	Label(name + "_loop")
	TESTQ(k, k)
	JZ(operand.LabelRef(name + "_done"))
	for h, base := range []reg.Register{src, half} {
		fourth := GP64()
		LEAQ(operand.Mem{Base: base, Index: ld, Scale: 4}, fourth)
		var r [8]reg.VecVirtual
		for i := range r {
			from := base
			if i >= 4 {
				from = fourth
			}
			at := operand.Mem{Base: from}
			switch i % 4 {
			case 1, 2:
				at.Index, at.Scale = ld, uint8(i%4)
			case 3:
				at.Index, at.Scale = ld3, 1
			}
			r[i] = YMM()
			VMOVUPS(at, r[i])
		}
		to := GP64()
		MOVQ(dst, to)
		for _, x := range transpose8(r) {
			VMOVUPS(x, operand.Mem{Base: to, Disp: 32 * h})
			ADDQ(ldd, to)
		}
	}
	ADDQ(operand.Imm(32), src)
	ADDQ(operand.Imm(32), half)
	LEAQ(operand.Mem{Base: dst, Index: ldd, Scale: 8}, dst)
	SUBQ(operand.Imm(8), k)
	JMP(operand.LabelRef(name + "_loop"))
	Label(name + "_done")
	end()
}

func transpose8(r [8]reg.VecVirtual) (out [8]reg.VecVirtual) {
	var t, s [8]reg.VecVirtual
	for i := 0; i < 8; i += 2 {
		t[i], t[i+1] = YMM(), YMM()
		VUNPCKLPS(r[i+1], r[i], t[i])
		VUNPCKHPS(r[i+1], r[i], t[i+1])
	}
	for i := 0; i < 8; i += 4 {
		for j := range 2 {
			s[i+2*j], s[i+2*j+1] = YMM(), YMM()
			VSHUFPS(operand.Imm(0x44), t[i+2+j], t[i+j], s[i+2*j])
			VSHUFPS(operand.Imm(0xee), t[i+2+j], t[i+j], s[i+2*j+1])
		}
	}
	for i := range 4 {
		out[i], out[i+4] = YMM(), YMM()
		VPERM2F128(operand.Imm(0x20), s[i+4], s[i], out[i])
		VPERM2F128(operand.Imm(0x31), s[i+4], s[i], out[i+4])
	}
	return out
}

func dot() {
	begin("dotAVX2", "func(x, y []float32) float32", "dotAVX2 is kernels.dot.")
	v := over("x", "y")
	acc := []reg.VecVirtual{zero(), zero(), zero(), zero()}
	v.blocks("dot", len(acc), func(j int) {
		x := YMM()
		VMOVUPS(v.at(0, lanes*j), x)
		VFMADD231PS(v.at(1, lanes*j), x, acc[j])
	})
	v.each("dot", func() { VFMADD231PS(v.load(0), v.load(1), acc[0]) })
	VADDPS(acc[1], acc[0], acc[0])
	VADDPS(acc[3], acc[2], acc[2])
	VADDPS(acc[2], acc[0], acc[0])
	total(acc[0])
}

func dot3() {
	begin("dot3AVX2", "func(x, y, z []float32) float32", "dot3AVX2 is kernels.dot3.")
	v := over("x", "y", "z")
	acc := []reg.VecVirtual{zero(), zero(), zero(), zero()}
	v.blocks("dot3", len(acc), func(j int) {
		x := YMM()
		VMOVUPS(v.at(0, lanes*j), x)
		VMULPS(v.at(1, lanes*j), x, x)
		VFMADD231PS(v.at(2, lanes*j), x, acc[j])
	})
	v.each("dot3", func() {
		x := v.load(0)
		VMULPS(v.load(1), x, x)
		VFMADD231PS(v.load(2), x, acc[0])
	})
	VADDPS(acc[1], acc[0], acc[0])
	VADDPS(acc[3], acc[2], acc[2])
	VADDPS(acc[2], acc[0], acc[0])
	total(acc[0])
}

// maximum keeps a NaN: a value that is not equal to itself replaces the
// maximum, and is kept because it is the operand that VMAXPS returns.
func maximum() {
	begin("maximumAVX2", "func(x []float32) float32", "maximumAVX2 is kernels.maximum.")
	v := over("x")
	most, nan := loaded("-inf"), zero()
	v.each("maximum", func() {
		x := v.load(0)
		if v.mask != nil {
			VBLENDVPS(v.mask, x, loaded("-inf"), x)
		}
		VMAXPS(x, most, most)
		bad := YMM()
		VCMPPS(operand.Imm(3), x, x, bad) // unordered
		VORPS(bad, nan, nan)
	})
	VORPS(nan, most, most) // all ones is a NaN
	h := XMM()
	s := most.AsX()
	fold := func() {
		bad := XMM()
		VCMPPS(operand.Imm(3), h, s, bad)
		VMAXPS(h, s, s)
		VORPS(bad, s, s)
	}
	VEXTRACTF128(operand.Imm(1), most, h)
	fold()
	VMOVHLPS(s, s, h)
	fold()
	VMOVSHDUP(s, h)
	fold()
	out := XMM()
	VMOVAPS(s, out)
	finish(out)
}

func add() {
	begin("addAVX2", "func(dst, src []float32)", "addAVX2 is kernels.add.")
	v := over("dst", "src")
	v.each("add", func() {
		x := v.load(0)
		VADDPS(v.load(1), x, x)
		v.store(x, 0)
	})
	end()
}

func axpy() {
	begin("axpyAVX2", "func(dst, src []float32, a float32)", "axpyAVX2 is kernels.axpy.")
	v := over("dst", "src")
	a := broadcast("a")
	v.each("axpy", func() {
		x := v.load(0)
		VFMADD231PS(v.load(1), a, x)
		v.store(x, 0)
	})
	end()
}

func scale() {
	begin("scaleAVX2", "func(dst []float32, a float32)", "scaleAVX2 is kernels.scale.")
	v := over("dst")
	a := broadcast("a")
	v.each("scale", func() {
		x := v.load(0)
		VMULPS(a, x, x)
		v.store(x, 0)
	})
	end()
}

func mulScale() {
	begin("mulScaleAVX2", "func(dst, x, y []float32, a float32)", "mulScaleAVX2 is kernels.mulScale.")
	v := over("dst", "x", "y")
	a := broadcast("a")
	v.each("mulScale", func() {
		x := v.load(1)
		VMULPS(a, x, x)
		VMULPS(v.load(2), x, x)
		v.store(x, 0)
	})
	end()
}

func normBack() {
	begin("normBackAVX2", "func(dx, dy, w, x []float32, a, b float32)", "normBackAVX2 is kernels.normBack.")
	v := over("dx", "dy", "w", "x")
	a, b := broadcast("a"), broadcast("b")
	v.each("normBack", func() {
		d, y := v.load(0), v.load(1)
		VMULPS(v.load(2), y, y)
		VFMADD231PS(a, y, d)
		VFNMADD231PS(v.load(3), b, d)
		v.store(d, 0)
	})
	end()
}

func expSum() {
	begin("expSumAVX2", "func(dst, src []float32, shift float32) float32", "expSumAVX2 is kernels.expSum.")
	v := over("dst", "src")
	shift, sum := broadcast("shift"), zero()
	v.each("expSum", func() {
		x := v.load(1)
		VSUBPS(shift, x, x)
		e := exp(x)
		if v.mask != nil {
			VANDPS(v.mask, e, e)
		}
		v.store(e, 0)
		VADDPS(e, sum, sum)
	})
	total(sum)
}

func softmaxBack() {
	begin("softmaxBackAVX2", "func(d, p []float32, mean, scale float32)", "softmaxBackAVX2 is kernels.softmaxBack.")
	v := over("d", "p")
	mean, scale := broadcast("mean"), broadcast("scale")
	v.each("softmaxBack", func() {
		d := v.load(0)
		VSUBPS(mean, d, d)
		VMULPS(v.load(1), d, d)
		VMULPS(scale, d, d)
		v.store(d, 0)
	})
	end()
}

func swiglu() {
	begin("swigluAVX2", "func(out, gate, up []float32)", "swigluAVX2 is kernels.swiglu.")
	v := over("out", "gate", "up")
	v.each("swiglu", func() {
		g := v.load(1)
		s := sigmoid(g)
		VMULPS(g, s, s)
		VMULPS(v.load(2), s, s)
		v.store(s, 0)
	})
	end()
}

func swigluBack() {
	begin("swigluBackAVX2", "func(dout, gate, up []float32)", "swigluBackAVX2 is kernels.swigluBack.")
	v := over("dout", "gate", "up")
	v.each("swigluBack", func() {
		g := v.load(1)
		s := sigmoid(g)
		d, u := v.load(0), v.load(2)
		VMULPS(d, u, u) // d*u
		VMULPS(s, u, u) // d*u*s
		t := loaded("one")
		VSUBPS(s, t, t)
		VMULPS(g, t, t)
		VFMADD213PS(u, u, t) // u*t + u
		v.store(t, 1)
		VMULPS(g, d, d)
		VMULPS(s, d, d)
		v.store(d, 2)
	})
	end()
}

// Those of package cpu.
const (
	geluA = 2 * 0.7978845608028654
	geluB = geluA * 0.044715
)

// normal takes the steps of normalGo.
func normal() {
	begin("normalAVX2", "func(p, q, x []float32)", "normalAVX2 is kernels.normal.")
	v := over("p", "q", "x")
	v.each("normal", func() {
		x := v.load(2)
		e := YMM()
		VMULPS(x, x, e)
		VMULPS(constants["-half"], e, e)
		e = exp(e)
		z, t := YMM(), YMM()
		VMOVUPS(constants["sign"], t)
		VANDNPS(x, t, z) // |x|
		VMULPS(constants["root"], z, z)
		VMOVUPS(constants["n0"], t)
		VFMADD213PS(constants["one"], z, t)
		VDIVPS(t, loaded("one"), t)
		tail := loaded("n1")
		for _, c := range []string{"n2", "n3", "n4", "n5"} {
			VFMADD213PS(constants[c], t, tail)
		}
		VMULPS(t, tail, tail)
		VMULPS(e, tail, tail)
		VMULPS(constants["half"], tail, tail)
		rest := YMM()
		VSUBPS(tail, loaded("one"), rest)
		above := YMM()
		VCMPPS(operand.Imm(14), zero(), x, above) // x > 0
		VBLENDVPS(above, rest, tail, tail)
		v.store(tail, 0)
		VMULPS(constants["density"], e, e)
		VMULPS(x, e, e)
		v.store(e, 1)
	})
	end()
}

// logistic takes the steps of logisticGo.
func logistic() {
	begin("logisticAVX2", "func(p, q, x []float32)", "logisticAVX2 is kernels.logistic.")
	v := over("p", "q", "x")
	v.each("logistic", func() {
		x := v.load(2)
		square, z := YMM(), YMM()
		VMULPS(x, x, square)
		VMOVUPS(constants["geluB"], z)
		VFMADD213PS(constants["geluA"], square, z)
		VMULPS(x, z, z)
		s := sigmoid(z)
		v.store(s, 0)
		rest := YMM()
		VSUBPS(s, loaded("one"), rest)
		VMULPS(s, rest, rest)
		VMULPS(x, rest, rest)
		slope := YMM()
		VMOVUPS(constants["geluB3"], slope)
		VFMADD213PS(constants["geluA"], square, slope)
		VMULPS(slope, rest, rest)
		v.store(rest, 1)
	})
	end()
}

func rotate() {
	begin("rotateAVX2", "func(x, y, cos, sin []float32, sign float32)", "rotateAVX2 is kernels.rotate.")
	v := over("x", "y", "cos", "sin")
	sign := broadcast("sign")
	v.each("rotate", func() {
		x, y, c, s := v.load(0), v.load(1), v.load(2), v.load(3)
		VMULPS(sign, s, s)
		x2, y2 := YMM(), YMM()
		VMULPS(c, x, x2)
		VFNMADD231PS(s, y, x2)
		VMULPS(c, y, y2)
		VFMADD231PS(s, x, y2)
		v.store(x2, 0)
		v.store(y2, 1)
	})
	end()
}

func adamw() {
	begin("adamwAVX2", "func(p, g, m, v []float32, c *[9]float32)", "adamwAVX2 is kernels.adamw.")
	v := over("p", "g", "m", "v")
	consts := Load(Param("c"), GP64())
	constant := func(i int) reg.VecVirtual {
		x := YMM()
		VBROADCASTSS(operand.Mem{Base: consts, Disp: 4 * i}, x)
		return x
	}
	gradScale, decay, beta1, rest1, beta2, rest2 := constant(0), constant(1), constant(2), constant(3), constant(4), constant(5)
	step, root, epsilon := constant(6), constant(7), constant(8)
	v.each("adamw", func() {
		g := v.load(1)
		VMULPS(gradScale, g, g)
		m := v.load(2)
		VMULPS(beta1, m, m)
		VFMADD231PS(g, rest1, m)
		v.store(m, 2)
		VMULPS(g, g, g)
		s := v.load(3)
		VMULPS(beta2, s, s)
		VFMADD231PS(g, rest2, s)
		v.store(s, 3)
		VSQRTPS(s, s)
		VFMADD213PS(epsilon, root, s)
		VDIVPS(s, m, m)
		p := v.load(0)
		VMULPS(decay, p, p)
		VFNMADD231PS(m, step, p)
		v.store(p, 0)
	})
	end()
}
