// What matrix products need beside themselves: sums of the parts of a split
// product, matrices rounded to bf16, and the scales of fp16.
#include "gemm.cuh"

// c = alpha * (part[0] + part[1] + ...) + bias + c, in this order.
KERNEL void moot_gemm_reduce(const float *part, i64 parts, i64 m, i64 n, void *c, i64 ldc, i64 flags, double alpha, const float *bias) {
	gemm_args g = {};
	g.c = c, g.ldc = ldc, g.flags = (int)flags, g.alpha = (float)alpha, g.bias = bias;
	const i64 ld = (n + 7) & ~7ll, plane = m * ld, i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= m * n) return;
	const i64 row = i / n, col = i - row * n;
	const float *p = part + row * ld + col;
	float v = 0.f;
	for (i64 z = 0; z < parts; z++) v += p[z * plane];
	put_one(g, v, (int)row, (int)col);
}

// dst = src rounded to bf16; a thread does eight values of a row. ldd is a
// multiple of 8.
KERNEL void moot_gemm_pack(const void *src, i64 lds, i64 bf16, i64 rows, i64 cols, u16 *dst, i64 ldd) {
	const i64 groups = (cols + 7) / 8, i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= rows * groups) return;
	const i64 row = i / groups, col = (i - row * groups) * 8;
	const i64 at = row * lds + col;
	float v[8];
#pragma unroll
	for (int j = 0; j < 8; j++) v[j] = col + j < cols ? bf16 ? bf2f(((const u16 *)src)[at + j]) : ((const float *)src)[at + j] : 0.f;
	*(uint4 *)(dst + row * ldd + col) = make_uint4(f2bf2(v[0], v[1]), f2bf2(v[2], v[3]), f2bf2(v[4], v[5]), f2bf2(v[6], v[7]));
}

DEVICE float largest(const u16 *p, i64 ld, i64 rows, i64 cols) {
	float v = 0.f;
	for (i64 row = blockIdx.x; row < rows; row += gridDim.x)
		for (i64 col = threadIdx.x; col < cols; col += blockDim.x) v = fmaxf(v, fabsf(bf2f(p[row * ld + col])));
	return v;
}

// part[block] is the largest magnitude of the rows of a block, of one or two
// matrices of bf16.
KERNEL void moot_gemm_largest(const u16 *p, i64 ld, i64 rows, i64 cols, const u16 *p2, i64 ld2, i64 rows2, i64 cols2, float *part) {
	float v = largest(p, ld, rows, cols);
	if (p2) v = fmaxf(v, largest(p2, ld2, rows2, cols2));
	v = block_max(v);
	if (threadIdx.x == 0) part[blockIdx.x] = v;
}

// scale is the power of two that brings the largest part to 2^14 or somewhat
// more, below 2^15. One warp.
KERNEL void moot_gemm_scale(const float *part, i64 parts, float *scale) {
	float v = 0.f;
	for (int i = threadIdx.x; i < parts; i += 32) v = fmaxf(v, part[i]);
	v = warp_max(v);
	if (threadIdx.x) return;
	int e = (int)(__float_as_uint(v) >> 23) - 127; // 128: infinite, -127: zero
	e = e == 128 || e == -127 ? 0 : 14 - e;
	e = e > 126 ? 126 : e < -126 ? -126 : e;
	*scale = __uint_as_float((u32)(e + 127) << 23);
}
