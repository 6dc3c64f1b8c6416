// c (m,n) = alpha * (a (m,k) W^T + a2 (m,k2) b2^T) + bias + c for up to 16 rows,
// W being n rows of k weights of four bits: what one token of generated text takes, where reading W is all the work,
// so that it is read once and never written out.
//
// A warp makes 8 columns of c. Of each 128 values of k a lane has 32 that lie
// side by side in one row of W; a sum over k may be made in any order, so mma
// gets them as they lie, and a in the same order.
#include "gemm.cuh"
#include "nf4.cuh"

#define CHUNK 512		   // columns of a in shared memory
#define LINE (CHUNK + 8)   // elements from row to row there

#if __CUDA_ARCH__ >= 800
DEVICE float value(const void *p, i64 i, bool bf16) { return bf16 ? bf2f(((const u16 *)p)[i]) : ((const float *)p)[i]; }

KERNEL void __launch_bounds__(128) moot_nf4_gemm(NF4_PARAMS, const u16 *a, i64 lda, const void *a2, i64 lda2, const void *b2, i64 ldb2, void *c, i64 ldc, i64 m, i64 n, i64 k, i64 k2, i64 flags, double alpha, const float *bias) {
	const nf4_args w = NF4_ARGS;
	gemm_args o = {};
	o.c = c, o.ldc = ldc, o.m = (int)m, o.n = (int)n, o.flags = (int)flags, o.alpha = (float)alpha, o.bias = bias;
	SHARED float code[16];
	SHARED __align__(16) u16 s[16 * LINE];
	if (threadIdx.x < 16) code[threadIdx.x] = w.code[threadIdx.x];
	const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, width = (int)k;
	const int col0 = blockIdx.x * 32 + (threadIdx.x >> 5) * 8, row = col0 + g; // of W
	float acc[4] = {0.f, 0.f, 0.f, 0.f};
	for (int k0 = 0; k0 < width; k0 += CHUNK) {
		// k is a multiple of 32, so what of 8 values begins within it ends there.
		uint4 q[CHUNK / 128];
		float scale[CHUNK / 128];
#pragma unroll
		for (int r = 0; r < CHUNK / 128; r++) {
			const int kk = k0 + 128 * r + 32 * t;
			q[r] = make_uint4(0, 0, 0, 0), scale[r] = 0.f;
			if (row < o.n && kk < width) {
				const u32 i = (u32)row * (u32)width + (u32)kk;
				q[r] = *(const uint4 *)(w.packed + i / 2), scale[r] = nf4_scale(w, i);
			}
		}
		__syncthreads();
		for (int i = threadIdx.x; i < 16 * CHUNK / 8; i += 128) {
			const int r = i / (CHUNK / 8), kk = i % (CHUNK / 8) * 8;
			uint4 v = make_uint4(0, 0, 0, 0);
			if (r < o.m && k0 + kk < width) v = *(const uint4 *)(a + r * lda + k0 + kk);
			*(uint4 *)(s + r * LINE + kk) = v;
		}
		__syncthreads();
#pragma unroll
		for (int r = 0; r < CHUNK / 128; r++) {
			const u32 words[4] = {q[r].x, q[r].y, q[r].z, q[r].w};
			const float x = scale[r];
#pragma unroll
			for (int i = 0; i < 8; i++) {
				const u32 v = words[i / 2] >> (i % 2 * 16); // bytes of four weights
				const u32 fb[2] = {f2bf2(__fmul_rn(code[v >> 4 & 15], x), __fmul_rn(code[v & 15], x)),
								   f2bf2(__fmul_rn(code[v >> 12 & 15], x), __fmul_rn(code[v >> 8 & 15], x))};
				const int kk = 128 * r + 32 * t + 4 * i;
				const uint2 lo = *(const uint2 *)(s + g * LINE + kk), hi = *(const uint2 *)(s + (g + 8) * LINE + kk);
				const u32 fa[4] = {lo.x, hi.x, lo.y, hi.y};
				mma_m16n8k16_bf16(acc, fa, fb);
			}
		}
	}
#pragma unroll
	for (int r = 0; r < 4; r++) {
		const int i = g + r / 2 * 8, j = col0 + 2 * t + r % 2;
		if (i >= o.m || j >= o.n) continue;
		float v = acc[r]; // LoRA's share is little work
		for (int l = 0; l < (int)k2; l++) v = fmaf(value(a2, i * lda2 + l, flags & A2_BF16), value(b2, j * ldb2 + l, flags & B2_BF16), v);
		put_one(o, v, i, j);
	}
}
#endif
