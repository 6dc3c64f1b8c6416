package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The instructions of AVX512_BF16, which neither avo nor Go's assembler knows.
const (
	vdpbf16ps     = 0x52
	vcvtneps2bf16 = 0x72
)

var z = []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10,
	reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21,
	reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}

// evex emits EVEX.512.F3.0F38.W0 op /r with three registers; where an
// instruction has no second one it is 0.
func evex(op byte, dst, second, third int) {
	inverted := func(n, bit, at int) byte { return byte(1-n>>bit&1) << at }
	p0 := inverted(dst, 3, 7) | inverted(third, 4, 6) | inverted(third, 3, 5) | inverted(dst, 4, 4) | 2
	p1 := byte(^second&15)<<3 | 1<<2 | 2
	p2 := byte(2<<5) | inverted(second, 4, 3)
	modrm := byte(0xc0 | dst&7<<3 | third&7)
	Instruction(&ir.Instruction{Opcode: "LONG", Operands: []operand.Op{operand.U32(0x62 | uint32(p0)<<8 | uint32(p1)<<16 | uint32(p2)<<24)}})
	Instruction(&ir.Instruction{Opcode: "WORD", Operands: []operand.Op{operand.U16(uint16(op) | uint16(modrm)<<8)}})
}

const halfTileSignature = "func(k int, a []uint16, rsa int, b []uint16, c []float32, ldc int, alpha float32, add bool)"

// halfTile is the inner loop of products of bfloat16 values with the instruction
// made for it. The registers are assigned by hand, because avo does not look
// into the bytes that evex emits: 0 and 1 hold b, 2 to 7 values of a, the rest
// the result.
func halfTile(rows, cols int) {
	name, width := fmt.Sprintf("halfTile%dx%d", rows, cols), cols/16
	begin(name, halfTileSignature, fmt.Sprintf("%s is halfTile.fn for tiles of %d by %d, for AVX512_BF16.", name, rows, cols))
	acc := make([][]reg.VecPhysical, rows)
	number := func(i, j int) int { return 8 + i*width + j }
	for i := range acc {
		for j := range width {
			acc[i] = append(acc[i], z[number(i, j)])
		}
	}
	turn := 0
	halfLoop(name, cols, acc, func(b reg.Register, a rowsOf) {
		for j := range width {
			VMOVUPS(operand.Mem{Base: b, Disp: 64 * j}, z[j])
		}
		for i := range rows {
			x := 2 + turn%6
			turn++
			VPBROADCASTD(a.at(i, 0), z[x])
			for j := range width {
				evex(vdpbf16ps, number(i, j), x, j)
			}
		}
	})
	halfStore(name, z[0], acc)
}

// halfTileEmulated does the same, to the bit, without that instruction: it adds
// the products of the second values of the pairs, then those of the first ones,
// and takes denormal numbers as zeros.
func halfTileEmulated(name string, rows, cols int, vector func() reg.VecVirtual) {
	begin(name, halfTileSignature, fmt.Sprintf("%s is halfTile.fn for tiles of %d by %d.", name, rows, cols))
	wide := vector().Size() == 64
	and := VPAND
	if wide {
		and = func(x, y, to operand.Op) { VPANDD(x, y, to) }
	}
	modes := GLOBL(name+"Mode", attr.RODATA|attr.NOPTR)
	DATA(0, operand.U32(0x9fc0)) // all exceptions masked, flush to zero, denormals are zeros
	saved := AllocLocal(8)
	STMXCSR(saved)
	LDMXCSR(modes)
	width := cols * 4 / int(vector().Size())
	acc := make([][]reg.VecVirtual, rows)
	for i := range acc {
		for range width {
			acc[i] = append(acc[i], vector())
		}
	}
	mask := vector()
	if wide {
		VPTERNLOGD(operand.Imm(255), mask, mask, mask)
	} else {
		VPCMPEQD(mask, mask, mask)
	}
	VPSLLD(operand.Imm(16), mask, mask)
	halfLoop(name, cols, acc, func(b reg.Register, a rowsOf) {
		split := func(x reg.VecVirtual) (first, second reg.VecVirtual) {
			second = vector()
			and(mask, x, second)
			VPSLLD(operand.Imm(16), x, x)
			return x, second
		}
		var first, second []reg.VecVirtual
		for j := range width {
			x := vector()
			VMOVUPS(operand.Mem{Base: b, Disp: int(vector().Size()) * j}, x)
			f, s := split(x)
			first, second = append(first, f), append(second, s)
		}
		for i := range rows {
			x := vector()
			VPBROADCASTD(a.at(i, 0), x)
			f, s := split(x)
			for j := range width {
				VFMADD231PS(s, second[j], acc[i][j])
			}
			for j := range width {
				VFMADD231PS(f, first[j], acc[i][j])
			}
		}
	})
	LDMXCSR(saved)
	halfStore(name, vector(), acc)
}

// halfLoop sets acc to 0 and emits step for each pair of k.
func halfLoop[V reg.Register](name string, cols int, acc [][]V, step func(b reg.Register, a rowsOf)) {
	c, ldc := Load(Param("c").Base(), GP64()), Load(Param("ldc"), GP64())
	SHLQ(operand.Imm(2), ldc)
	result := newRows(c, ldc, len(acc))
	for i := range acc {
		PREFETCHT0(result.at(i, 0))
		PREFETCHT0(result.at(i, 4*cols-4))
	}
	k := Load(Param("k"), GP64())
	base, rsa := Load(Param("a").Base(), GP64()), Load(Param("rsa"), GP64())
	SHLQ(operand.Imm(1), rsa)
	b := Load(Param("b").Base(), GP64())
	a := newRows(base, rsa, len(acc))
	for i := range acc {
		for _, x := range acc[i] {
			if x.Size() == 64 {
				VPXORD(x, x, x)
			} else {
				VXORPS(x, x, x)
			}
		}
	}
	next := func() {
		step(b, a)
		ADDQ(operand.Imm(4), base)
		ADDQ(operand.Imm(uint64(4*cols)), b)
	}
	const unroll = 4
	Label(name + "_blocks")
	CMPQ(k, operand.Imm(unroll))
	JL(operand.LabelRef(name + "_loop"))
	for range unroll {
		next()
	}
	SUBQ(operand.Imm(unroll), k)
	JMP(operand.LabelRef(name + "_blocks"))
	Label(name + "_loop")
	TESTQ(k, k)
	JZ(operand.LabelRef(name + "_store"))
	next()
	DECQ(k)
	JMP(operand.LabelRef(name + "_loop"))
	Label(name + "_store")
}

// halfStore multiplies acc by alpha and stores it, or adds it.
func halfStore[V reg.Register](name string, alpha reg.Register, acc [][]V) {
	c, ldc := Load(Param("c").Base(), GP64()), Load(Param("ldc"), GP64())
	SHLQ(operand.Imm(2), ldc)
	result := newRows(c, ldc, len(acc))
	at, err := Param("alpha").Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(at.Addr, alpha)
	each := func(fn func(x V, m operand.Mem)) {
		for i := range acc {
			for j, x := range acc[i] {
				fn(x, result.at(i, int(alpha.Size())*j))
			}
		}
	}
	each(func(x V, _ operand.Mem) { VMULPS(alpha, x, x) })
	flag := Load(Param("add"), GP8())
	TESTB(flag, flag)
	JZ(operand.LabelRef(name + "_set"))
	each(func(x V, m operand.Mem) { VADDPS(m, x, x) })
	Label(name + "_set")
	each(func(x V, m operand.Mem) { VMOVUPS(x, m) })
	end()
}

// interleave makes pairs of the values of two rows.
func interleave() {
	begin("interleaveAVX2", "func(dst []uint16, ldd int, src []uint16, ld, k int)", "interleaveAVX2 is kernels.interleave.")
	dst, src := Load(Param("dst").Base(), GP64()), Load(Param("src").Base(), GP64())
	ldd, ld, k := Load(Param("ldd"), GP64()), Load(Param("ld"), GP64()), Load(Param("k"), GP64())
	SHLQ(operand.Imm(1), ldd)
	SHLQ(operand.Imm(1), ld)
	Label("interleave_loop")
	TESTQ(k, k)
	JZ(operand.LabelRef("interleave_done"))
	for j := range 2 {
		x, y := YMM(), YMM()
		VPMOVZXWD(operand.Mem{Base: src, Disp: 16 * j}, x)
		VPMOVZXWD(operand.Mem{Base: src, Index: ld, Scale: 1, Disp: 16 * j}, y)
		VPSLLD(operand.Imm(16), y, y)
		VPOR(x, y, y)
		VMOVDQU(y, operand.Mem{Base: dst, Disp: 32 * j})
	}
	LEAQ(operand.Mem{Base: src, Index: ld, Scale: 2}, src)
	ADDQ(ldd, dst)
	DECQ(k)
	JMP(operand.LabelRef("interleave_loop"))
	Label("interleave_done")
	end()
}

// narrow rounds to bfloat16 with the instruction made for it.
func narrow() {
	begin("narrowBF16", "func(dst []uint16, src []float32)", "narrowBF16 is kernels.narrow for a multiple of 16 values, for AVX512_BF16.")
	narrowLoop("narrowBF16", func(src, dst reg.Register) {
		VMOVUPS(operand.Mem{Base: src}, reg.Z0)
		evex(vcvtneps2bf16, 1, 0, 0)
		VMOVDQU(reg.Y1, operand.Mem{Base: dst})
	})
}

// narrowAVX2 does the same by steps: rounding is an addition to the bits; what
// is no number becomes a quiet one, denormal numbers become zeros.
func narrowAVX2() {
	begin("narrowAVX2", "func(dst []uint16, src []float32)", "narrowAVX2 is kernels.narrow for a multiple of 16 values.")
	constant := func(v uint32) reg.VecVirtual {
		g, x, y := GP32(), XMM(), YMM()
		MOVL(operand.U32(v), g)
		VMOVD(g, x)
		VPBROADCASTD(x, y)
		return y
	}
	one, half, quiet, exponent, sign := constant(1), constant(0x7fff), constant(0x40), constant(0x7f800000), constant(0x8000)
	none := zero()
	round := func(at operand.Mem) reg.VecVirtual {
		x, up, r := YMM(), YMM(), YMM()
		VMOVUPS(at, x)
		VPSRLD(operand.Imm(16), x, up)
		top := YMM()
		VMOVDQA(up, top)
		VPAND(one, up, r)
		VPADDD(half, r, r)
		VPADDD(x, r, r)
		VPSRLD(operand.Imm(16), r, r)
		nan, quieted := YMM(), YMM()
		VCMPPS(operand.Imm(3), x, x, nan)
		VPOR(quiet, top, quieted)
		VBLENDVPS(nan, quieted, r, r)
		small, signed := YMM(), YMM()
		VPAND(exponent, x, small)
		VPCMPEQD(none, small, small)
		VPAND(sign, top, signed)
		VBLENDVPS(small, signed, r, r)
		return r
	}
	narrowLoop("narrowAVX2", func(src, dst reg.Register) {
		x, y := round(operand.Mem{Base: src}), round(operand.Mem{Base: src, Disp: 32})
		VPACKUSDW(y, x, x)
		VPERMQ(operand.Imm(0xd8), x, x)
		VMOVDQU(x, operand.Mem{Base: dst})
	})
}

func narrowLoop(name string, body func(src, dst reg.Register)) {
	dst, src := Load(Param("dst").Base(), GP64()), Load(Param("src").Base(), GP64())
	n := Load(Param("src").Len(), GP64())
	Label(name + "_loop")
	CMPQ(n, operand.Imm(16))
	JL(operand.LabelRef(name + "_done"))
	body(src, dst)
	ADDQ(operand.Imm(64), src)
	ADDQ(operand.Imm(32), dst)
	SUBQ(operand.Imm(16), n)
	JMP(operand.LabelRef(name + "_loop"))
	Label(name + "_done")
	end()
}
