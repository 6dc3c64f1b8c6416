// Matrix products: c (m,n) = alpha * (op(a) op(b) + op(a2) op(b2)) + bias + c.
//
// The second pair is LoRA's: its k2 columns follow the k columns of the first in
// the same loop, so that x W^T + h B^T is one pass over c, rounded once.
//
// What all variants share: arguments, tiles and their order, and what happens to
// a finished sum. A product with few tiles and a long k is split: part z of the
// grid adds up its share of k into part[z], and moot_gemm_reduce adds the parts
// in order, so that results do not depend on timing.
#pragma once
#include "common.cuh"

// Flags of a product.
enum {
	A_BF16 = 1, // else float32; the tensor core kernels take bf16 only
	B_BF16 = 2,
	C_BF16 = 4,
	ADD = 8,	 // add to c
	A_WIDE = 16, // rows begin at multiples of 16 bytes, as they must for tensor cores
	B_WIDE = 32,
	A2_WIDE = 64,
	B2_WIDE = 128,
	C_WIDE = 256,
	A_TRANS = 512, // where the kernel does not say it
	B_TRANS = 1024,
	A2_BF16 = 2048,
	B2_BF16 = 4096,
};

// One argument is 8 bytes. m, n, k, k2 are numbers of elements; lda.. are the
// distances of rows. per is how many tiles of k a part of the grid adds up.
#define GEMM_PARAMS                                                                                                                       \
	const void *a_, i64 lda_, const void *b_, i64 ldb_, const void *a2_, i64 lda2_, const void *b2_, i64 ldb2_, void *c_, i64 ldc_,       \
		i64 m_, i64 n_, i64 k_, i64 k2_, i64 flags_, double alpha_, const float *bias_, float *part_, i64 per_, const float *scale_a_,    \
		const float *scale_b_
#define GEMM_ARGS                                                                                                                         \
	{a_, b_, a2_, b2_, lda_, ldb_, lda2_, ldb2_, c_, ldc_, (int)m_, (int)n_, (int)k_, (int)k2_, (int)flags_, (float)alpha_, bias_,        \
	 part_, (int)per_, scale_a_, scale_b_}

struct gemm_args {
	const void *a, *b, *a2, *b2;
	i64 lda, ldb, lda2, ldb2;
	void *c;
	i64 ldc;
	int m, n, k, k2, flags;
	float alpha;
	const float *bias;
	float *part;
	int per;
	const float *scale_a, *scale_b; // fp16: powers of two that a and b are multiplied by
};

// tile_of gives a block its tile: eight rows of tiles are walked column by
// column, so that blocks that run together share rows of a and columns of b in
// the cache.
DEVICE void tile_of(u32 id, u32 rows, u32 cols, int &row, int &col) {
	const u32 group = 8, band = id / (group * cols), first = band * group;
	const u32 high = rows - first < group ? rows - first : group, within = id - band * group * cols;
	row = (int)(first + within % high);
	col = (int)(within / high);
}

DEVICE float finish(const gemm_args &g, float v, int row, int col) {
	v *= g.alpha;
	if (g.bias) v += g.bias[col];
	return v;
}

// put_one writes one finished element.
DEVICE void put_one(const gemm_args &g, float v, int row, int col) {
	v = finish(g, v, row, col);
	i64 i = (i64)row * g.ldc + col;
	if (g.flags & C_BF16) {
		u16 *c = (u16 *)g.c + i;
		*c = f2bf(g.flags & ADD ? v + bf2f(*c) : v);
	} else {
		float *c = (float *)g.c + i;
		*c = g.flags & ADD ? v + *c : v;
	}
}

// flush writes ROWS x COLS sums, that lie in shared memory LD floats from row to
// row, to c from (row0,col0) on. threads work on it, this is number id of them.
template <int ROWS, int COLS, int LD> DEVICE void flush(const gemm_args &g, const float *s, int row0, int col0, int id, int threads) {
#pragma unroll 1
	for (int i = id; i < ROWS * COLS / 8; i += threads) {
		const int r = i / (COLS / 8), q = i % (COLS / 8) * 8, row = row0 + r, col = col0 + q;
		const float *from = s + r * LD + q;
		if (row >= g.m) break;
		if (!(g.flags & C_WIDE) || col + 8 > g.n) {
#pragma unroll 1
			for (int j = 0; j < 8 && col + j < g.n; j++) put_one(g, from[j], row, col + j);
			continue;
		}
		const float4 x = *(const float4 *)from, y = *(const float4 *)(from + 4);
		float v[8] = {x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w};
#pragma unroll
		for (int j = 0; j < 8; j++) v[j] = finish(g, v[j], row, col + j);
		const i64 at = (i64)row * g.ldc + col;
		if (g.flags & C_BF16) {
			uint4 *c = (uint4 *)((u16 *)g.c + at);
			if (g.flags & ADD) {
				const uint4 o = *c;
				v[0] += bf_lo(o.x), v[1] += bf_hi(o.x), v[2] += bf_lo(o.y), v[3] += bf_hi(o.y);
				v[4] += bf_lo(o.z), v[5] += bf_hi(o.z), v[6] += bf_lo(o.w), v[7] += bf_hi(o.w);
			}
			*c = make_uint4(f2bf2(v[0], v[1]), f2bf2(v[2], v[3]), f2bf2(v[4], v[5]), f2bf2(v[6], v[7]));
		} else {
			float4 *c = (float4 *)((float *)g.c + at);
			if (g.flags & ADD) {
				const float4 o = c[0], p = c[1];
				v[0] += o.x, v[1] += o.y, v[2] += o.z, v[3] += o.w, v[4] += p.x, v[5] += p.y, v[6] += p.z, v[7] += p.w;
			}
			c[0] = make_float4(v[0], v[1], v[2], v[3]), c[1] = make_float4(v[4], v[5], v[6], v[7]);
		}
	}
}

// unfinished replaces c by this block's plane of part, where the product is split.
DEVICE gemm_args unfinished(const gemm_args &g) {
	gemm_args o = g;
	if (g.part) {
		o.ldc = (g.n + 7) & ~7;
		o.c = g.part + (i64)blockIdx.z * g.m * o.ldc;
		o.flags = C_WIDE, o.alpha = 1.f, o.bias = nullptr;
	}
	return o;
}
