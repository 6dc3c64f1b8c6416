// Kernels for arm64, whose NEON instructions every such processor has. What Go's
// assembler does not know is written as numbers.

#include "textflag.h"

#define FMUL4(m, n, d) WORD $(0x6E20DC00 | (m)<<16 | (n)<<5 | (d))
#define FADD4(m, n, d) WORD $(0x4E20D400 | (m)<<16 | (n)<<5 | (d))

// ROW adds x times the row of b in V0 to V3 to a row of the result.
#define ROW(x, r0, r1, r2, r3) \
	VFMLA x.S4, V0.S4, r0.S4; \
	VFMLA x.S4, V1.S4, r1.S4; \
	VFMLA x.S4, V2.S4, r2.S4; \
	VFMLA x.S4, V3.S4, r3.S4

// STEP is one value of k: R1 to R6 are the rows of a, R9 is b.
#define STEP \
	VLD1.P (R9)(R10), [V0.S4, V1.S4, V2.S4, V3.S4]; \
	VLD1R.P (R1)(R8), [V4.S4]; \
	VLD1R.P (R2)(R8), [V5.S4]; \
	VLD1R.P (R3)(R8), [V6.S4]; \
	VLD1R.P (R4)(R8), [V7.S4]; \
	ROW(V4, V8, V9, V10, V11); \
	VLD1R.P (R5)(R8), [V4.S4]; \
	ROW(V5, V12, V13, V14, V15); \
	VLD1R.P (R6)(R8), [V5.S4]; \
	ROW(V6, V16, V17, V18, V19); \
	ROW(V7, V20, V21, V22, V23); \
	ROW(V4, V24, V25, V26, V27); \
	ROW(V5, V28, V29, V30, V31)

// ADDROW adds a row of c to a row of the result.
#define ADDROW(r0, r1, r2, r3) \
	VLD1.P (R11)(R12), [V0.S4, V1.S4, V2.S4, V3.S4]; \
	FADD4(0, r0, r0); \
	FADD4(1, r1, r1); \
	FADD4(2, r2, r2); \
	FADD4(3, r3, r3)

// func tileNEON(k int, a []float32, rsa int, csa int, b []float32, ldb int, c []float32, ldc int, alpha float32, add bool)
TEXT ·tileNEON(SB), NOSPLIT, $0-117
	MOVD k+0(FP), R0
	MOVD a_base+8(FP), R1
	MOVD rsa+32(FP), R7
	MOVD csa+40(FP), R8
	MOVD b_base+48(FP), R9
	MOVD ldb+72(FP), R10
	LSL  $2, R7
	LSL  $2, R8
	LSL  $2, R10
	ADD  R7, R1, R2
	ADD  R7, R2, R3
	ADD  R7, R3, R4
	ADD  R7, R4, R5
	ADD  R7, R5, R6
	VEOR V8.B16, V8.B16, V8.B16
	VEOR V9.B16, V9.B16, V9.B16
	VEOR V10.B16, V10.B16, V10.B16
	VEOR V11.B16, V11.B16, V11.B16
	VEOR V12.B16, V12.B16, V12.B16
	VEOR V13.B16, V13.B16, V13.B16
	VEOR V14.B16, V14.B16, V14.B16
	VEOR V15.B16, V15.B16, V15.B16
	VEOR V16.B16, V16.B16, V16.B16
	VEOR V17.B16, V17.B16, V17.B16
	VEOR V18.B16, V18.B16, V18.B16
	VEOR V19.B16, V19.B16, V19.B16
	VEOR V20.B16, V20.B16, V20.B16
	VEOR V21.B16, V21.B16, V21.B16
	VEOR V22.B16, V22.B16, V22.B16
	VEOR V23.B16, V23.B16, V23.B16
	VEOR V24.B16, V24.B16, V24.B16
	VEOR V25.B16, V25.B16, V25.B16
	VEOR V26.B16, V26.B16, V26.B16
	VEOR V27.B16, V27.B16, V27.B16
	VEOR V28.B16, V28.B16, V28.B16
	VEOR V29.B16, V29.B16, V29.B16
	VEOR V30.B16, V30.B16, V30.B16
	VEOR V31.B16, V31.B16, V31.B16

pairs:
	CMP  $2, R0
	BLT  last
	STEP
	STEP
	SUB  $2, R0
	B    pairs

last:
	CBZ  R0, scale
	STEP

scale:
	FMOVS alpha+112(FP), F0
	VDUP  V0.S[0], V0.S4
	FMUL4(0, 8, 8)
	FMUL4(0, 9, 9)
	FMUL4(0, 10, 10)
	FMUL4(0, 11, 11)
	FMUL4(0, 12, 12)
	FMUL4(0, 13, 13)
	FMUL4(0, 14, 14)
	FMUL4(0, 15, 15)
	FMUL4(0, 16, 16)
	FMUL4(0, 17, 17)
	FMUL4(0, 18, 18)
	FMUL4(0, 19, 19)
	FMUL4(0, 20, 20)
	FMUL4(0, 21, 21)
	FMUL4(0, 22, 22)
	FMUL4(0, 23, 23)
	FMUL4(0, 24, 24)
	FMUL4(0, 25, 25)
	FMUL4(0, 26, 26)
	FMUL4(0, 27, 27)
	FMUL4(0, 28, 28)
	FMUL4(0, 29, 29)
	FMUL4(0, 30, 30)
	FMUL4(0, 31, 31)
	MOVD  ldc+104(FP), R12
	LSL   $2, R12
	MOVBU add+116(FP), R13
	CBZ   R13, store
	MOVD  c_base+80(FP), R11
	ADDROW(8, 9, 10, 11)
	ADDROW(12, 13, 14, 15)
	ADDROW(16, 17, 18, 19)
	ADDROW(20, 21, 22, 23)
	ADDROW(24, 25, 26, 27)
	ADDROW(28, 29, 30, 31)

store:
	MOVD c_base+80(FP), R11
	VST1.P [V8.S4, V9.S4, V10.S4, V11.S4], (R11)(R12)
	VST1.P [V12.S4, V13.S4, V14.S4, V15.S4], (R11)(R12)
	VST1.P [V16.S4, V17.S4, V18.S4, V19.S4], (R11)(R12)
	VST1.P [V20.S4, V21.S4, V22.S4, V23.S4], (R11)(R12)
	VST1.P [V24.S4, V25.S4, V26.S4, V27.S4], (R11)(R12)
	VST1.P [V28.S4, V29.S4, V30.S4, V31.S4], (R11)(R12)
	RET

// func widenNEON(dst []float32, src []uint16)
TEXT ·widenNEON(SB), NOSPLIT, $0-48
	MOVD dst_base+0(FP), R0
	MOVD src_base+24(FP), R1
	MOVD src_len+32(FP), R2
	VEOR V3.B16, V3.B16, V3.B16

widen:
	CMP   $8, R2
	BLT   done
	VLD1.P 16(R1), [V0.H8]
	VZIP1 V0.H8, V3.H8, V1.H8
	VZIP2 V0.H8, V3.H8, V2.H8
	VST1.P [V1.S4, V2.S4], 32(R0)
	SUB   $8, R2
	B     widen

done:
	RET
