// Weights of four bits to bf16 or float32, the values of package nf4 to the bit.
//
// A thread makes eight values of four bytes at a time, so that a warp reads and
// writes whole lines. The sixteen values of the code are in sixteen banks.
#include "nf4.cuh"

KERNEL void __launch_bounds__(256) moot_nf4_dequant(NF4_PARAMS, i64 rows, i64 cols, void *dst, i64 ldd, i64 bf16) {
	const nf4_args w = NF4_ARGS;
	SHARED float code[16];
	if (threadIdx.x < 16) code[threadIdx.x] = w.code[threadIdx.x];
	__syncthreads();
	const u32 total = (u32)(rows * cols), width = (u32)cols;
	const u32 first = (blockIdx.x * 1024 + threadIdx.x) * 8;
	if ((cols & 7) || (ldd & 7)) { // rows that do not begin at whole words
#pragma unroll 1
		for (u32 r = 0; r < 32; r++) {
			const u32 i = first + r / 8 * 2048 + r % 8;
			if (i >= total) continue;
			const float v = __fmul_rn(code[w.packed[i / 2] >> (i & 1 ? 0 : 4) & 15], nf4_scale(w, i));
			const i64 at = (i64)(i / width) * ldd + i % width;
			if (bf16)
				((u16 *)dst)[at] = f2bf(v);
			else
				((float *)dst)[at] = v;
		}
		return;
	}
#pragma unroll
	for (int r = 0; r < 4; r++) {
		const u32 i = first + r * 2048;
		if (i >= total) return;
		const u32 q = *(const u32 *)(w.packed + i / 2);
		const float s = nf4_scale(w, i); // a block is 32 values or more
		float v[8];
#pragma unroll
		for (int j = 0; j < 4; j++) {
			const u32 b = q >> 8 * j;
			v[2 * j] = __fmul_rn(code[b >> 4 & 15], s), v[2 * j + 1] = __fmul_rn(code[b & 15], s);
		}
		const i64 at = (i64)(i / width) * ldd + i % width;
		if (bf16) {
			*(uint4 *)((u16 *)dst + at) = make_uint4(f2bf2(v[0], v[1]), f2bf2(v[2], v[3]), f2bf2(v[4], v[5]), f2bf2(v[6], v[7]));
		} else {
			float4 *d = (float4 *)((float *)dst + at);
			d[0] = make_float4(v[0], v[1], v[2], v[3]), d[1] = make_float4(v[4], v[5], v[6], v[7]);
		}
	}
}
