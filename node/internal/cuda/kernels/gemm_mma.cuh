// Matrix products of bf16 on tensor cores: bf16 mma on sm_80, fp16 mma on sm_75.
//
// A block computes a tile of BM x BN, a warp WM x WN of it, 32 columns of k at a
// time. Tiles lie in shared memory as in global memory, k along the rows or
// across, and ldmatrix turns them where needed; the 16-byte pieces of a row are
// permuted so that eight rows of a piece are in different banks. All rows in
// memory begin at multiples of 16 bytes; what is not so is copied first.
//
// sm_80 keeps STAGES tiles of k in flight with cp.async. sm_75 has no cp.async
// and no bf16: it keeps the next tile in registers, and turns bf16 into fp16 on
// the way to shared memory. fp16 has less range, so a and b are multiplied by
// powers of two that bring their largest magnitude to 2^14 (see gemm_scale.cu),
// and the sum is divided by both: nothing overflows, and what is 2^-28 of the
// largest or less loses bits, which is far below the error of bf16.
#pragma once
#include "gemm.cuh"

#define BK 32

// swizzle is where piece of row lies, in rows of PIECES pieces of 16 bytes.
template <int PIECES> DEVICE int swizzle(int row, int piece) {
	if (PIECES >= 8) return row * PIECES + (piece ^ (row & 7));
	if (PIECES == 4) return row * PIECES + (piece ^ (row >> 1 & 3));
	return row * PIECES + (piece ^ (row >> 2 & 1));
}

// operand is op(a) or op(b)^T: R rows of a tile by BK columns of k. ACROSS: k
// is the slow index in memory.
template <int R, bool ACROSS, int THREADS> struct operand {
	static const int PIECES = ACROSS ? R / 8 : BK / 8;		  // in a row in shared memory
	static const int EACH = R * BK / 8 / THREADS;			  // pieces for a thread
	static const int BYTES = R * BK * 2;

	// piece finds the global and shared places of a thread's piece i, and how
	// many of its 8 elements exist.
	static DEVICE int piece(const u16 *p, i64 ld, int row0, int rows, int k0, int k, int i, const u16 *&at, int &to) {
		int id = i * THREADS + threadIdx.x, row = id / PIECES, pc = id % PIECES, n;
		to = swizzle<PIECES>(row, pc) * 8;
		if (ACROSS) {
			n = k0 + row < k ? rows - row0 - pc * 8 : 0;
			at = p + (i64)(k0 + row) * ld + row0 + pc * 8;
		} else {
			n = row0 + row < rows ? k - k0 - pc * 8 : 0;
			at = p + (i64)(row0 + row) * ld + k0 + pc * 8;
		}
		n = n < 0 ? 0 : n > 8 ? 8 : n;
		if (n == 0) at = p;
		return n;
	}

	// fill copies the tile to shared memory; cp_async_commit follows.
	static DEVICE void fill(u16 *s, const u16 *p, i64 ld, int row0, int rows, int k0, int k) {
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			const u16 *at;
			int to, n = piece(p, ld, row0, rows, k0, k, i, at, to);
			cp_async16(s + to, at, n * 2);
		}
	}

	// fetch and put are fill in two steps, for sm_75.
	static DEVICE void fetch(uint4 *v, const u16 *p, i64 ld, int row0, int rows, int k0, int k) {
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			const u16 *at;
			int to, n = piece(p, ld, row0, rows, k0, k, i, at, to);
			uint4 u = *(const uint4 *)at;
			u.x &= mask(n), u.y &= mask(n - 2), u.z &= mask(n - 4), u.w &= mask(n - 6);
			v[i] = u;
		}
	}
	static DEVICE u32 mask(int n) { return n >= 2 ? 0xffffffffu : n == 1 ? 0xffffu : 0u; }
	static DEVICE u32 half2(u32 v, float scale) { return (u32)f2h(bf_lo(v) * scale) | (u32)f2h(bf_hi(v) * scale) << 16; }
	static DEVICE void put(u16 *s, const uint4 *v, float scale) {
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			int id = i * THREADS + threadIdx.x, to = swizzle<PIECES>(id / PIECES, id % PIECES) * 8;
			*(uint4 *)(s + to) = make_uint4(half2(v[i].x, scale), half2(v[i].y, scale), half2(v[i].z, scale), half2(v[i].w, scale));
		}
	}

	// a_fragment loads rows row to row+15, columns kk to kk+15 of k, as the first
	// factor of mma; b_fragment the same as two second factors.
	static DEVICE void a_fragment(u32 f[4], const u16 *s, int row, int kk) {
		int l = threadIdx.x & 31;
		if (ACROSS)
			ldmatrix_x4_trans(f, s + swizzle<PIECES>(kk + (l & 7) + (l >> 4) * 8, row / 8 + (l >> 3 & 1)) * 8);
		else
			ldmatrix_x4(f, s + swizzle<PIECES>(row + (l & 15), kk / 8 + (l >> 4)) * 8);
	}
	static DEVICE void b_fragment(u32 f[4], const u16 *s, int row, int kk) {
		int l = threadIdx.x & 31;
		if (ACROSS)
			ldmatrix_x4_trans(f, s + swizzle<PIECES>(kk + (l & 15), row / 8 + (l >> 4)) * 8);
		else
			ldmatrix_x4(f, s + swizzle<PIECES>(row + (l & 7) + (l >> 4) * 8, kk / 8 + (l >> 3 & 1)) * 8);
	}
};

template <int BM, int BN, int WM, int WN, int STAGES, bool TA, bool TB> DEVICE void gemm_mma(const gemm_args &g) {
	const int THREADS = BM / WM * (BN / WN) * 32;
	typedef operand<BM, TA, THREADS> A;
	typedef operand<BN, !TB, THREADS> B;
	DYN_SHARED(u16, smem);
	u16 *sa = smem, *sb = smem + STAGES * BM * BK;

	int tm, tn;
	tile_of(blockIdx.x, (g.m + BM - 1) / BM, (g.n + BN - 1) / BN, tm, tn);
	const int row0 = tm * BM, col0 = tn * BN;
	const int tiles1 = (g.k + BK - 1) / BK, tiles = tiles1 + (g.k2 + BK - 1) / BK;
	const int from = g.part ? blockIdx.z * g.per : 0, to = g.part ? min(tiles, from + g.per) : tiles;
	const int warp = threadIdx.x >> 5, wrow = warp / (BN / WN) * WM, wcol = warp % (BN / WN) * WN;

	float acc[WM / 16][WN / 8][4];
#pragma unroll
	for (int i = 0; i < WM / 16; i++)
#pragma unroll
		for (int j = 0; j < WN / 8; j++)
#pragma unroll
			for (int r = 0; r < 4; r++) acc[i][j][r] = 0.f;

#define SOURCE(tile)                                                                                                                      \
	const bool second = (tile) >= tiles1;                                                                                                 \
	const int k = second ? g.k2 : g.k, k0 = ((tile) - (second ? tiles1 : 0)) * BK;                                                        \
	const u16 *pa = (const u16 *)(second ? g.a2 : g.a), *pb = (const u16 *)(second ? g.b2 : g.b);                                         \
	const i64 lda = second ? g.lda2 : g.lda, ldb = second ? g.ldb2 : g.ldb

#if __CUDA_ARCH__ >= 800
#define FILL(tile)                                                                                                                        \
	if ((tile) < to) {                                                                                                                    \
		SOURCE(tile);                                                                                                                     \
		const int slot = ((tile) - from) % STAGES;                                                                                        \
		A::fill(sa + slot * (BM * BK), pa, lda, row0, g.m, k0, k);                                                                    \
		B::fill(sb + slot * (BN * BK), pb, ldb, col0, g.n, k0, k);                                                                    \
	}                                                                                                                                     \
	cp_async_commit()
#pragma unroll 1
	for (int s = 0; s < STAGES - 1; s++) {
		FILL(from + s);
	}
#else
	uint4 va[A::EACH], vb[B::EACH];
	const float scale_a = *g.scale_a, scale_b = *g.scale_b;
	if (from < to) {
		SOURCE(from);
		A::fetch(va, pa, lda, row0, g.m, k0, k);
		B::fetch(vb, pb, ldb, col0, g.n, k0, k);
	}
#endif
	for (int tile = from; tile < to; tile++) {
		const int slot = (tile - from) % STAGES;
#if __CUDA_ARCH__ >= 800
		cp_async_wait<STAGES - 2>();
		__syncthreads(); // tile has landed, and all have done with the slot that is filled now
		FILL(tile + STAGES - 1);
#else
		A::put(sa + slot * (BM * BK), va, scale_a);
		B::put(sb + slot * (BN * BK), vb, scale_b);
		__syncthreads();
		if (tile + 1 < to) {
			SOURCE(tile + 1);
			A::fetch(va, pa, lda, row0, g.m, k0, k);
			B::fetch(vb, pb, ldb, col0, g.n, k0, k);
		}
#endif
		const u16 *ta = sa + slot * (BM * BK), *tb = sb + slot * (BN * BK);
#pragma unroll
		for (int kk = 0; kk < BK; kk += 16) {
			u32 fa[WM / 16][4], fb[WN / 16][4];
#pragma unroll
			for (int i = 0; i < WM / 16; i++) A::a_fragment(fa[i], ta, wrow + 16 * i, kk);
#pragma unroll
			for (int j = 0; j < WN / 16; j++) B::b_fragment(fb[j], tb, wcol + 16 * j, kk);
#pragma unroll
			for (int i = 0; i < WM / 16; i++)
#pragma unroll
				for (int j = 0; j < WN / 8; j++) {
#if __CUDA_ARCH__ >= 800
					mma_m16n8k16_bf16(acc[i][j], fa[i], fb[j / 2] + j % 2 * 2);
#else
					mma_m16n8k16_f16(acc[i][j], fa[i], fb[j / 2] + j % 2 * 2);
#endif
				}
		}
	}
#undef FILL
#undef SOURCE
#if __CUDA_ARCH__ >= 800
	cp_async_wait<0>();
	const float unscale = 1.f;
#else
	const float unscale = 1.f / scale_a / scale_b;
#endif
	__syncthreads(); // the tiles make room for the sums

	// Through shared memory, so that c is read and written in whole lines. 32
	// rows of a warp at a time.
	const gemm_args o = unfinished(g);
	const int LD = WN + 4, lane = threadIdx.x & 31;
	float *sums = (float *)smem + warp * 32 * LD;
#pragma unroll
	for (int i = 0; i < WM / 16; i += 2) {
#pragma unroll
		for (int h = 0; h < 4; h++)
#pragma unroll
			for (int j = 0; j < WN / 8; j++) {
				const float *v = acc[i + h / 2][j] + h % 2 * 2;
				*(float2 *)(sums + (8 * h + lane / 4) * LD + 8 * j + lane % 4 * 2) = make_float2(v[0] * unscale, v[1] * unscale);
			}
		__syncwarp();
		flush<32, WN, LD>(o, sums, row0 + wrow + 16 * i, col0 + wcol, lane, 32);
		__syncwarp();
	}
}
