// Matrix products in float32, by fused multiply-add: for float32 matrices, and
// for GPUs without tensor cores. Matrices may be bf16 (flags); a sum is made in
// the same order whatever the types, so bf16 and float32 of the same values give
// the same bits.
#include "gemm.cuh"

// FK columns of k are worked on at a time. Shared tiles are turned so that k is
// the slow index, padded against bank conflicts.

// source reads four elements that lie side by side in memory, n of which exist.
DEVICE float4 four(const void *p, i64 i, bool half, bool wide, int n) {
	float v[4] = {0.f, 0.f, 0.f, 0.f};
	if (wide && n >= 4) {
		if (!half) return *(const float4 *)((const float *)p + i);
		uint2 u = *(const uint2 *)((const u16 *)p + i);
		return make_float4(bf_lo(u.x), bf_hi(u.x), bf_lo(u.y), bf_hi(u.y));
	}
#pragma unroll
	for (int j = 0; j < 4; j++)
		if (j < n) v[j] = half ? bf2f(((const u16 *)p)[i + j]) : ((const float *)p)[i + j];
	return make_float4(v[0], v[1], v[2], v[3]);
}

// fetch reads a thread's part of R rows by FK columns of k. across: k is the
// slow index in memory.
template <int R, int FK> DEVICE void fetch(float4 *v, const void *p, i64 ld, bool half, bool wide, bool across, int row0, int rows, int k0, int k) {
#pragma unroll
	for (int i = 0; i < R * FK / 4 / 256; i++) {
		int id = i * 256 + threadIdx.x, n;
		i64 at;
		if (across) {
			int kk = id / (R / 4), r = id % (R / 4) * 4;
			n = k0 + kk < k ? rows - row0 - r : 0;
			at = (i64)(k0 + kk) * ld + row0 + r;
		} else {
			int r = id / (FK / 4), kk = id % (FK / 4) * 4;
			n = row0 + r < rows ? k - k0 - kk : 0;
			at = (i64)(row0 + r) * ld + k0 + kk;
		}
		v[i] = four(p, at, half, wide, n);
	}
}

template <int R, int FK> DEVICE void place(float (*s)[R + 4], const float4 *v, bool across) {
#pragma unroll
	for (int i = 0; i < R * FK / 4 / 256; i++) {
		int id = i * 256 + threadIdx.x;
		if (across) {
			*(float4 *)&s[id / (R / 4)][id % (R / 4) * 4] = v[i];
		} else {
			int r = id / (FK / 4), kk = id % (FK / 4) * 4;
			s[kk][r] = v[i].x, s[kk + 1][r] = v[i].y, s[kk + 2][r] = v[i].z, s[kk + 3][r] = v[i].w;
		}
	}
}

// A thread computes Q*Q pieces of 4x4: rows 4*ty + 64*i, columns 4*tx + 64*j.
template <int Q> DEVICE void gemm_f32(const gemm_args &g) {
	const int R = 64 * Q, FK = 16 / Q, F4 = R * FK / 1024; // F4: vectors for a thread
	typedef float tile_t[FK][R + 4];
	SHARED __align__(16) float smem[4 * FK * (R + 4)];
	tile_t *sa = (tile_t *)smem, *sb = sa + 2;
	int tm, tn;
	tile_of(blockIdx.x, (g.m + R - 1) / R, (g.n + R - 1) / R, tm, tn);
	const int row0 = tm * R, col0 = tn * R, tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
	const int tiles1 = (g.k + FK - 1) / FK, tiles = tiles1 + (g.k2 + FK - 1) / FK;
	const int from = g.part ? blockIdx.z * g.per : 0, to = g.part ? min(tiles, from + g.per) : tiles;
	const bool ta = g.flags & A_TRANS, tb = !(g.flags & B_TRANS);

	float acc[4 * Q][4 * Q];
#pragma unroll
	for (int i = 0; i < 4 * Q; i++)
#pragma unroll
		for (int j = 0; j < 4 * Q; j++) acc[i][j] = 0.f;

	float4 va[F4], vb[F4];
#define FETCH(tile)                                                                                                                       \
	{                                                                                                                                     \
		const bool second = (tile) >= tiles1;                                                                                             \
		const int k = second ? g.k2 : g.k, k0 = ((tile) - (second ? tiles1 : 0)) * FK;                                                    \
		fetch<R, FK>(va, second ? g.a2 : g.a, second ? g.lda2 : g.lda, g.flags & (second ? A2_BF16 : A_BF16), g.flags & (second ? A2_WIDE : A_WIDE), ta, row0, g.m, k0, k);      \
		fetch<R, FK>(vb, second ? g.b2 : g.b, second ? g.ldb2 : g.ldb, g.flags & (second ? B2_BF16 : B_BF16), g.flags & (second ? B2_WIDE : B_WIDE), tb, col0, g.n, k0, k);      \
	}
	if (from < to) FETCH(from);
	for (int tile = from; tile < to; tile++) {
		const int slot = (tile - from) & 1;
		place<R, FK>(sa[slot], va, ta);
		place<R, FK>(sb[slot], vb, tb);
		__syncthreads(); // the other slot is free too: all have come here
		if (tile + 1 < to) FETCH(tile + 1);
#pragma unroll
		for (int kk = 0; kk < FK; kk++) {
			float x[4 * Q], y[4 * Q];
#pragma unroll
			for (int q = 0; q < Q; q++) {
				float4 u = *(const float4 *)&sa[slot][kk][4 * ty + 64 * q], w = *(const float4 *)&sb[slot][kk][4 * tx + 64 * q];
				x[4 * q] = u.x, x[4 * q + 1] = u.y, x[4 * q + 2] = u.z, x[4 * q + 3] = u.w;
				y[4 * q] = w.x, y[4 * q + 1] = w.y, y[4 * q + 2] = w.z, y[4 * q + 3] = w.w;
			}
#pragma unroll
			for (int i = 0; i < 4 * Q; i++)
#pragma unroll
				for (int j = 0; j < 4 * Q; j++) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
		}
	}
#undef FETCH

	// Through shared memory, so that c is read and written in whole lines.
	const gemm_args o = unfinished(g);
#pragma unroll
	for (int q = 0; q < 2 * Q; q++) { // 32 rows at a time
		__syncthreads();
		if (ty / 8 == (q & 1)) {
#pragma unroll
			for (int i = 0; i < 4; i++)
#pragma unroll
				for (int j = 0; j < Q; j++) {
					const float *v = acc[4 * (q / 2) + i] + 4 * j;
					*(float4 *)(smem + (4 * (ty & 7) + i) * (R + 4) + 4 * tx + 64 * j) = make_float4(v[0], v[1], v[2], v[3]);
				}
		}
		__syncthreads();
		flush<32, R, R + 4>(o, smem, row0 + 32 * q, col0, threadIdx.x, 256);
	}
}

KERNEL void __launch_bounds__(256, 2) moot_gemm_f32_large(GEMM_PARAMS) {
	const gemm_args g = GEMM_ARGS;
	gemm_f32<2>(g);
}
KERNEL void __launch_bounds__(256, 3) moot_gemm_f32_small(GEMM_PARAMS) {
	const gemm_args g = GEMM_ARGS;
	gemm_f32<1>(g);
}
