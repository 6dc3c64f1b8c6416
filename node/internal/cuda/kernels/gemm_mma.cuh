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
// is the slow index in memory. A thread copies EACH pieces of 16 bytes of a tile,
// GAP lines of memory apart.
template <int R, bool ACROSS, int THREADS> struct operand {
	static const int PIECES = ACROSS ? R / 8 : BK / 8; // in a line
	static const int EACH = R * BK / 8 / THREADS;
	static const int GAP = THREADS / PIECES;
	static const int SIZE = R * BK; // elements of a tile

	const u16 *at, *safe; // the thread's first piece in the next tile; any valid place
	i64 gap, advance;	  // elements from piece to piece, from tile to tile
	int left;			  // of k from the first piece on
	int rows;			  // from the first piece on
	int to;				  // where the first piece goes in shared memory

	DEVICE void begin(const u16 *p, i64 ld, int row0, int rows_, int k0, int k) {
		static_assert(THREADS % PIECES == 0 && GAP % 8 == 0 || EACH == 1, "pieces of a thread are swizzled alike");
		const int line = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
		to = swizzle<PIECES>(line, piece) * 8;
		safe = p;
		gap = GAP * ld;
		if (ACROSS) {
			at = p + (i64)(k0 + line) * ld + row0 + piece * 8;
			advance = BK * ld, left = k - k0 - line, rows = rows_ - row0 - piece * 8;
		} else {
			at = p + (i64)(row0 + line) * ld + k0 + piece * 8;
			advance = BK, left = k - k0 - piece * 8, rows = rows_ - row0 - line;
		}
	}
	// valid is how many elements exist of a piece of which any do.
	DEVICE int valid() const { return min(max(ACROSS ? rows : left, 0), 8); }
	DEVICE bool any(int i) const { return (ACROSS ? left : rows) > i * GAP; }
	DEVICE void next() { at += advance, left -= BK; }

	// fill copies the next tile to shared memory; cp_async_commit follows.
	DEVICE void fill(u16 *s) {
		const int n = valid() * 2;
#pragma unroll
		for (int i = 0; i < EACH; i++) cp_async16(s + to + i * GAP * PIECES * 8, at + i * gap, any(i) ? n : 0);
		next();
	}

	// fetch and put are fill in two steps, for sm_75.
	static DEVICE u32 mask(int n) { return n >= 2 ? 0xffffffffu : n == 1 ? 0xffffu : 0u; }
	DEVICE void fetch(uint4 v[EACH]) {
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			const int n = any(i) ? valid() : 0;
			uint4 u = *(const uint4 *)(n > 0 ? at + i * gap : safe);
			u.x &= mask(n), u.y &= mask(n - 2), u.z &= mask(n - 4), u.w &= mask(n - 6);
			v[i] = u;
		}
		next();
	}
	static DEVICE u32 half2(u32 v, float scale) { return (u32)f2h(bf_lo(v) * scale) | (u32)f2h(bf_hi(v) * scale) << 16; }
	DEVICE void put(u16 *s, const uint4 v[EACH], float scale) const {
#pragma unroll
		for (int i = 0; i < EACH; i++)
			*(uint4 *)(s + to + i * GAP * PIECES * 8) =
				make_uint4(half2(v[i].x, scale), half2(v[i].y, scale), half2(v[i].z, scale), half2(v[i].w, scale));
	}
};

// fragments are where a warp finds the 16x16 pieces of its W rows of an operand,
// as the first factor of mma, or as two second factors (SECOND).
template <int R, int W, bool ACROSS, bool SECOND> struct fragments {
	static const int PIECES = ACROSS ? R / 8 : BK / 8;
	static const int N = ACROSS ? W / 16 : BK / 16;
	int at[N]; // of the rows from 16*i on; or, k lying along the rows, of the columns from 16*i on

	DEVICE void begin(int row) {
		const int l = threadIdx.x & 31, low = l & 7, mid = l >> 3 & 1, high = l >> 4;
#pragma unroll
		for (int i = 0; i < N; i++)
			if (ACROSS)
				at[i] = swizzle<PIECES>(low + 8 * (SECOND ? mid : high), row / 8 + 2 * i + (SECOND ? high : mid)) * 8;
			else
				at[i] = swizzle<PIECES>(row + low + 8 * (SECOND ? high : mid), 2 * i + (SECOND ? mid : high)) * 8;
	}
	// load gets rows from 16*i on, columns of k from 16*kk on.
	DEVICE void load(u32 f[4], const u16 *s, int i, int kk) const {
		if (ACROSS)
			ldmatrix_x4_trans(f, s + at[i] + kk * 16 * PIECES * 8);
		else
			ldmatrix_x4(f, s + at[kk] + i * 16 * PIECES * 8);
	}
};

template <int BM, int BN, int WM, int WN, int STAGES, bool TA, bool TB> DEVICE void gemm_mma(const gemm_args &g) {
	const int THREADS = BM / WM * (BN / WN) * 32;
	DYN_SHARED(u16, smem);
	u16 *const sa = smem, *const sb = smem + STAGES * BM * BK;

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

	fragments<BM, WM, TA, false> fa;
	fragments<BN, WN, !TB, true> fb;
	fa.begin(wrow), fb.begin(wcol);
	operand<BM, TA, THREADS> a;
	operand<BN, !TB, THREADS> b;
	int ahead = from; // the tile that a and b are at
	if (from < tiles1) {
		a.begin((const u16 *)g.a, g.lda, row0, g.m, from * BK, g.k);
		b.begin((const u16 *)g.b, g.ldb, col0, g.n, from * BK, g.k);
	}
// The second pair begins at tile tiles1, or, if the sum is split, before from.
#define SECOND_PAIR                                                                                                                       \
	if (ahead == tiles1 || (ahead == from && from > tiles1)) {                                                                            \
		a.begin((const u16 *)g.a2, g.lda2, row0, g.m, (ahead - tiles1) * BK, g.k2);                                                       \
		b.begin((const u16 *)g.b2, g.ldb2, col0, g.n, (ahead - tiles1) * BK, g.k2);                                                       \
	}

#if __CUDA_ARCH__ >= 800
	int filled = 0, slot = 0; // places of the next tile to copy, and of the one to use
#define FILL                                                                                                                              \
	if (ahead < to) {                                                                                                                     \
		SECOND_PAIR                                                                                                                       \
		a.fill(sa + filled * (BM * BK)), b.fill(sb + filled * (BN * BK));                                                                 \
		ahead++, filled = filled == STAGES - 1 ? 0 : filled + 1;                                                                          \
	}                                                                                                                                     \
	cp_async_commit()
#pragma unroll 1
	for (int s = 0; s < STAGES - 1; s++) {
		FILL;
	}
#else
	int slot = 0;
	uint4 va[operand<BM, TA, THREADS>::EACH], vb[operand<BN, !TB, THREADS>::EACH];
	const float scale_a = *g.scale_a, scale_b = *g.scale_b;
#define FETCH                                                                                                                             \
	if (ahead < to) {                                                                                                                     \
		SECOND_PAIR                                                                                                                       \
		a.fetch(va), b.fetch(vb);                                                                                                         \
		ahead++;                                                                                                                          \
	}
	FETCH
#endif
#pragma unroll 1
	for (int tile = from; tile < to; tile++) {
		const u16 *ta = sa + slot * (BM * BK), *tb = sb + slot * (BN * BK);
#if __CUDA_ARCH__ >= 800
		cp_async_wait<STAGES - 2>();
		__syncthreads(); // tile has landed, and all have done with the slot that is filled now
		FILL;
#else
		a.put(sa + slot * (BM * BK), va, scale_a);
		b.put(sb + slot * (BN * BK), vb, scale_b);
		__syncthreads();
		FETCH
#endif
		slot = slot == STAGES - 1 ? 0 : slot + 1;
#pragma unroll
		for (int kk = 0; kk < BK / 16; kk++) {
			u32 x[WM / 16][4], y[WN / 16][4];
#pragma unroll
			for (int i = 0; i < WM / 16; i++) fa.load(x[i], ta, i, kk);
#pragma unroll
			for (int j = 0; j < WN / 16; j++) fb.load(y[j], tb, j, kk);
#pragma unroll
			for (int i = 0; i < WM / 16; i++)
#pragma unroll
				for (int j = 0; j < WN / 8; j++) {
#if __CUDA_ARCH__ >= 800
					mma_m16n8k16_bf16(acc[i][j], x[i], y[j / 2] + j % 2 * 2);
#else
					mma_m16n8k16_f16(acc[i][j], x[i], y[j / 2] + j % 2 * 2);
#endif
				}
		}
	}
#undef FILL
#undef FETCH
#undef SECOND_PAIR
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
