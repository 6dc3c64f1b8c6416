// attention_mma.cuh: attention on tensor cores, for bfloat16 in memory: products of
// bfloat16 (sm_80) or float16 (sm_75), sums in float32. Scores are never in
// memory (FlashAttention-2): a block of threads has a tile of queries, goes
// through the keys that they see, and keeps of the softmax the largest score
// and the sum of exponentials, by which what it has added up is corrected.
//
// The backward pass computes the scores again, twice: once for the derivatives
// by queries, going through keys, and once for those by keys and values, going
// through queries. That is two products of seven more than with atomic
// additions, and gives the same bits each time.
//
// W is the width of a head, rounded up; columns from hd on are zero. A warp has
// 16 rows of what its block computes. The lanes have the elements that mma
// wants: lane 4g+t rows g and g+8, columns 2t and 2t+1 of each 8. The result of
// one product is, so, the left operand of the next one without being moved.
//
// Float16 has a smaller range. Q, K and V are limited to it; dOut is multiplied
// by a power of two, grad_scale, that makes its largest value about 1.
#pragma once
#include "attention.cuh"

#if __CUDA_ARCH__ >= 750

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

#if __CUDA_ARCH__ >= 800
DEVICE u32 pack(float lo, float hi) { return f2bf2(lo, hi); }
DEVICE void mma(float c[4], const u32 a[4], const u32 b[2]) { mma_m16n8k16_bf16(c, a, b); }
#else
DEVICE float limited(float v) { return fminf(fmaxf(v, -65504.f), 65504.f); }
DEVICE u32 pack(float lo, float hi) { return (u32)f2h(limited(lo)) | (u32)f2h(limited(hi)) << 16; }
DEVICE void mma(float c[4], const u32 a[4], const u32 b[2]) { mma_m16n8k16_f16(c, a, b); }
#endif

// power is 2 to the x, to 2^-22 of itself.
DEVICE float power(float x) {
#ifdef HOST_EMU
	return exp2f(x);
#else
	float r;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
	return r;
#endif
}

// A tile is some rows of a head in shared memory, and known by the byte that it
// begins with: addresses of 32 bits, most of which are known when this is
// compiled, are half of the instructions.
//
// at is the byte of 8 values of a row. The places are exchanged, or rows are 8
// values apart, so that the same columns of 8 rows are in different banks.
template <int W> DEVICE u32 at(u32 row, u32 group) {
	return W % 64 == 0 ? row * (2 * W) + ((group ^ (row & 7)) << 4) : row * (2 * W + 16) + (group << 4);
}
template <int W> DEVICE constexpr u32 bytes(u32 rows) { return rows * (W % 64 == 0 ? 2 * W : 2 * W + 16); }

// fragments loads 4 matrices of 8x8 values, see ldmatrix_x4; turned: transposed.
template <bool turned> DEVICE void fragments(u32 r[4], const char *space, u32 from) {
#ifdef HOST_EMU
	if (turned) ldmatrix_x4_trans(r, space + from);
	else ldmatrix_x4(r, space + from);
#else
	from += shared_address(space);
	if (turned)
		asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
	else
		asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
#endif
}

// converted makes of 8 values of bfloat16 what products are made of.
DEVICE quad converted(quad q, float by) {
#if __CUDA_ARCH__ < 800
#pragma unroll
	for (int k = 0; k < 4; k++) q.v[k] = pack(bf_lo(q.v[k]) * by, bf_hi(q.v[k]) * by);
#endif
	return q;
}

// some returns the first n of 8 values at from, and zeros.
static __device__ __noinline__ quad some(const u16 *from, int n) {
	quad q = {{0, 0, 0, 0}};
#pragma unroll
	for (int k = 0; k < 8; k++)
		if (k < n) q.v[k >> 1] |= (u32)from[k] << ((k & 1) * 16);
	return q;
}

// load8 begins to copy 8 values, or sets them to zero.
DEVICE void load8(char *to, const u16 *from, bool there, float by) {
#if __CUDA_ARCH__ >= 800
	cp_async16(to, from, there ? 16 : 0);
#else
	quad q = {{0, 0, 0, 0}};
	if (there) q = *(const quad *)from;
	*(quad *)to = converted(q, by);
#endif
}

// load_rows begins to copy rows of a head to a tile; by multiplies them, in
// float16.
template <int W, int ROWS, int THREADS>
DEVICE void load_rows(char *space, u32 tile, const matrix &m, long long row, int have, long long head, int hd, float by) {
	const u16 *first = (const u16 *)m.at + row * m.stride + head;
	if (!m.wide) {
#pragma unroll 1
		for (int i = threadIdx.x; i < ROWS * (W / 8); i += THREADS) {
			const int r = i / (W / 8), c = (i - r * (W / 8)) * 8;
			*(quad *)(space + tile + at<W>(r, c >> 3)) = converted(some(first + r * m.stride + c, r < have ? hd - c : 0), by);
		}
		return;
	}
	constexpr int G = W / 8;
	int r = threadIdx.x / G;
	[[maybe_unused]] const int c = (threadIdx.x - r * G) * 8;
	if constexpr (THREADS % G == 0) { // a thread has one column
		const u16 *from = first + r * m.stride + c;
		const long long step = THREADS / G * m.stride;
		if (c >= hd) have = 0;
#pragma unroll 8
		for (int k = 0; k < ROWS * G / THREADS; k++) {
			load8(space + tile + at<W>(r, c >> 3), from, r < have, by);
			r += THREADS / G;
			from += step;
		}
	} else {
#pragma unroll 4
		for (int i = threadIdx.x; i < ROWS * G; i += THREADS) {
			r = i / G;
			const int c = (i - r * G) * 8;
			load8(space + tile + at<W>(r, c >> 3), first + r * m.stride + c, r < have && c < hd, by);
		}
	}
}

// arrived waits until what all threads have begun to copy is there, but for the
// last N groups of it.
template <int N> DEVICE void arrived() {
	cp_async_wait<N>();
	__syncthreads();
}

// products sets s to the products of 16 rows of tile a from row on and N rows of
// tile b. Rows of fragments are 8 or 16 apart, so that what exchanges places
// depends on the lane alone.
template <int W, int N> DEVICE void products(float s[N / 8][4], const char *space, u32 a, int row, u32 b) {
	const u32 lane = threadIdx.x & 31;
	const u32 arow = lane & 15, brow = (lane & 7) + ((lane >> 4) << 3);
	a += bytes<W>(row);
#pragma unroll
	for (int j = 0; j < N / 8; j++)
#pragma unroll
		for (int i = 0; i < 4; i++) s[j][i] = 0.f;
#pragma unroll
	for (int c = 0; c < W / 16; c++) {
		u32 x[4], y[4];
		fragments<false>(x, space, a + at<W>(arow, 2 * c + (lane >> 4)));
#pragma unroll
		for (int j = 0; j < N / 16; j++) {
			fragments<false>(y, space, b + bytes<W>(16 * j) + at<W>(brow, 2 * c + ((lane >> 3) & 1)));
			mma(s[2 * j], x, y);
			mma(s[2 * j + 1], x, y + 2);
		}
	}
}

// accumulate adds the products of p, 16 rows of N values, and columns of N rows
// of tile b to acc; the columns are C from group col on.
template <int W, int N, int C> DEVICE void accumulate(float acc[C / 8][4], const float p[N / 8][4], const char *space, u32 b, int col) {
	const u32 lane = threadIdx.x & 31;
#pragma unroll
	for (int k = 0; k < N / 16; k++) {
		const u32 x[4] = {pack(p[2 * k][0], p[2 * k][1]), pack(p[2 * k][2], p[2 * k][3]), pack(p[2 * k + 1][0], p[2 * k + 1][1]), pack(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
		for (int j = 0; j < C / 16; j++) {
			u32 y[4];
			fragments<true>(y, space, b + bytes<W>(16 * k) + at<W>(lane & 15, col + 2 * j + (lane >> 4)));
			mma(acc[2 * j], x, y);
			mma(acc[2 * j + 1], x, y + 2);
		}
	}
}

// rule is how scores are made of products; all is times log2(e), so that
// powers of two are taken.
struct rule {
	float scale, cap, to_cap, slope;
	int window;
};

DEVICE rule rule_of(double scale, double cap, const float *slopes, int head, long long window) {
	const rule r = {(float)scale * LOG2E, (float)cap * LOG2E, cap != 0 ? (float)(scale / cap) * 2.f * LOG2E : 0.f, slopes ? slopes[head] * LOG2E : 0.f, (int)window};
	return r;
}

// scores turns products into the scores of N columns; row and column c of the
// lane are apart(row, c) keys away from each other. d, unless it is null, is
// multiplied by the derivative of the soft cap.
template <int N, class F> DEVICE void scores(float s[N / 8][4], float (*d)[4], const rule &r, F apart) {
	if (r.cap != 0.f) {
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 4; i++) {
				const float t = 1.f - __fdividef(2.f, 1.f + power(fminf(s[j][i] * r.to_cap, 126.f))); // tanh
				s[j][i] = r.cap * t;
				if (d) d[j][i] *= 1.f - t * t;
			}
	} else {
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 4; i++) s[j][i] *= r.scale;
	}
	if (r.slope != 0.f) {
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 4; i++) s[j][i] += r.slope * (float)apart(i >> 1, 8 * j + (i & 1));
	}
}

// store_rows writes 16 rows, C columns from head+col on, through the warp's own rows
// of a tile.
template <int W, int C>
DEVICE void store_rows(const matrix &m, long long row, int have, long long head, int col, int hd, const float acc[C / 8][4], float by0, float by1, char *tile) {
	const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
	for (int j = 0; j < C / 8; j++) {
		*(u32 *)(tile + at<C>(g, j) + 4 * t) = f2bf2(acc[j][0] * by0, acc[j][1] * by0);
		*(u32 *)(tile + at<C>(g + 8, j) + 4 * t) = f2bf2(acc[j][2] * by1, acc[j][3] * by1);
	}
	__syncwarp();
	for (int i = lane; i < 16 * (C / 8); i += 32) {
		const int r = i / (C / 8), c = (i - r * (C / 8)) * 8;
		if (r >= have || col + c >= hd) continue;
		const u16 *from = (const u16 *)(tile + at<C>(r, c >> 3));
		u16 *to = (u16 *)m.at + (row + r) * m.stride + head + col + c;
		if (m.wide) {
			*(quad *)to = *(const quad *)from;
		} else {
			for (int k = 0; k < 8 && col + c + k < hd; k++) to[k] = from[k];
		}
	}
}

// forward: 4 warps have 64 queries of head blockIdx.y, and N keys at a time.
// While scores are made of keys, values are on their way, and while those are
// added up, the next keys.
template <int W, int N>
DEVICE void forward(const matrix &q, const matrix &k, const matrix &v, const matrix &out, const matrix &lse, const int *pieces, int group, int hd, const rule &r) {
	DYN_SHARED(char, space);
	const u32 qs = 0, ks = qs + bytes<W>(64), vs = ks + bytes<W>(N);
	const piece p = piece_of(pieces);
	const int h = blockIdx.y, warp = threadIdx.x >> 5, g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
	const int have = p.qlen - p.first < 64 ? p.qlen - p.first : 64, last = own_key(p, p.first + have - 1);
	const long long head = (long long)h * hd, khead = (long long)(h / group) * hd;
	const int own0 = own_key(p, p.first + 16 * warp + g), own1 = own0 + 8;
	float acc[W / 8][4], s[N / 8][4], most0 = LOWEST, most1 = LOWEST, sum0 = 0.f, sum1 = 0.f;
#pragma unroll
	for (int j = 0; j < W / 8; j++)
#pragma unroll
		for (int i = 0; i < 4; i++) acc[j][i] = 0.f;
	int k0 = first_key(own_key(p, p.first), r.window);
	load_rows<W, 64, 128>(space, qs, q, p.q + p.first, have, head, hd, 1.f);
	load_rows<W, N, 128>(space, ks, k, p.k + k0, last + 1 - k0, khead, hd, 1.f);
	cp_async_commit();
	for (; k0 <= last; k0 += N) {
		arrived<0>(); // and all have done with the last values
		load_rows<W, N, 128>(space, vs, v, p.k + k0, last + 1 - k0, khead, hd, 1.f);
		cp_async_commit();
		products<W, N>(s, space, qs, 16 * warp, ks);
		arrived<0>(); // and all have done with these keys
		if (k0 + N <= last) {
			load_rows<W, N, 128>(space, ks, k, p.k + k0 + N, last + 1 - k0 - N, khead, hd, 1.f);
			cp_async_commit();
		}
		const bool all = k0 + N - 1 <= own_key(p, p.first) && (!r.window || k0 > last - r.window); // seen by all queries
		const int key0 = k0 + 2 * t;
		scores<N>(s, nullptr, r, [&](int row, int c) { return key0 + c - (row ? own1 : own0); });
		if (!all) {
#pragma unroll
			for (int j = 0; j < N / 8; j++)
#pragma unroll
				for (int i = 0; i < 4; i++)
					if (!sees(i < 2 ? own0 : own1, key0 + 8 * j + (i & 1), r.window)) s[j][i] = LOWEST;
		}
		float top0 = most0, top1 = most1;
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 2; i++) {
				top0 = fmaxf(top0, s[j][i]);
				top1 = fmaxf(top1, s[j][i + 2]);
			}
		for (int o = 2; o; o >>= 1) {
			top0 = fmaxf(top0, __shfl_xor_sync(FULL_WARP, top0, o));
			top1 = fmaxf(top1, __shfl_xor_sync(FULL_WARP, top1, o));
		}
		const float base0 = top0 == LOWEST ? 0.f : top0, base1 = top1 == LOWEST ? 0.f : top1;
		const float shrink0 = power(most0 - base0), shrink1 = power(most1 - base1);
		most0 = top0;
		most1 = top1;
		sum0 *= shrink0;
		sum1 *= shrink1;
#pragma unroll
		for (int j = 0; j < W / 8; j++) {
			acc[j][0] *= shrink0;
			acc[j][1] *= shrink0;
			acc[j][2] *= shrink1;
			acc[j][3] *= shrink1;
		}
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 2; i++) {
				sum0 += s[j][i] = power(s[j][i] - base0);
				sum1 += s[j][i + 2] = power(s[j][i + 2] - base1);
			}
		accumulate<W, N, W>(acc, s, space, vs, 0);
	}
	for (int o = 2; o; o >>= 1) {
		sum0 += __shfl_xor_sync(FULL_WARP, sum0, o);
		sum1 += __shfl_xor_sync(FULL_WARP, sum1, o);
	}
	const long long row = p.q + p.first + 16 * warp;
	if (t == 0) {
		float *logs = (float *)lse.at + row * lse.stride + h;
		if (16 * warp + g < have) logs[g * lse.stride] = (most0 + log2f(sum0)) * LN2;
		if (16 * warp + g + 8 < have) logs[(g + 8) * lse.stride] = (most1 + log2f(sum1)) * LN2;
	}
	store_rows<W, W>(out, row, have - 16 * warp, head, 0, hd, acc, 1.f / sum0, 1.f / sum1, space + qs + bytes<W>(16 * warp));
}

// queries: the derivatives by 16*WARPS queries of head blockIdx.y, N keys at a
// time. The next values and keys are on their way while the rest is computed.
template <int W, int WARPS, int N>
DEVICE void queries(const matrix &q, const matrix &k, const matrix &v, const matrix &lse, const int *pieces, int group, int hd, const rule &r, const matrix &dout, const float *dots, int heads, const matrix &dq, float scale, float up) {
	DYN_SHARED(char, space);
	const int Q = 16 * WARPS;
	const u32 qs = 0, ds = qs + bytes<W>(Q), ks = ds + bytes<W>(Q), vs = ks + bytes<W>(N);
	const piece p = piece_of(pieces);
	const int h = blockIdx.y, warp = threadIdx.x >> 5, g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
	const int have = p.qlen - p.first < Q ? p.qlen - p.first : Q, last = own_key(p, p.first + have - 1);
	const long long head = (long long)h * hd, khead = (long long)(h / group) * hd, row = p.q + p.first + 16 * warp;
	const bool there0 = 16 * warp + g < have, there1 = 16 * warp + g + 8 < have;
	const int own0 = there0 ? own_key(p, p.first + 16 * warp + g) : -1, own1 = there1 ? own_key(p, p.first + 16 * warp + g + 8) : -1;
	const float *logs = (const float *)lse.at + row * lse.stride + h;
	dots += row * heads + h;
	const float log0 = there0 ? logs[g * lse.stride] * LOG2E : 0.f, log1 = there1 ? logs[(g + 8) * lse.stride] * LOG2E : 0.f;
	const float dot0 = there0 ? dots[g * heads] * up : 0.f, dot1 = there1 ? dots[(g + 8) * heads] * up : 0.f;
	float acc[W / 8][4], s[N / 8][4], d[N / 8][4];
#pragma unroll
	for (int j = 0; j < W / 8; j++)
#pragma unroll
		for (int i = 0; i < 4; i++) acc[j][i] = 0.f;
	int k0 = first_key(own_key(p, p.first), r.window);
	load_rows<W, Q, 32 * WARPS>(space, ds, dout, p.q + p.first, have, head, hd, up);
	load_rows<W, N, 32 * WARPS>(space, vs, v, p.k + k0, last + 1 - k0, khead, hd, 1.f);
	cp_async_commit();
	load_rows<W, Q, 32 * WARPS>(space, qs, q, p.q + p.first, have, head, hd, 1.f);
	load_rows<W, N, 32 * WARPS>(space, ks, k, p.k + k0, last + 1 - k0, khead, hd, 1.f);
	cp_async_commit();
	for (; k0 <= last; k0 += N) {
		const bool more = k0 + N <= last;
		arrived<1>(); // values
		products<W, N>(d, space, ds, 16 * warp, vs);
		arrived<0>(); // keys, and all have done with the values
		if (more) {
			load_rows<W, N, 32 * WARPS>(space, vs, v, p.k + k0 + N, last + 1 - k0 - N, khead, hd, 1.f);
			cp_async_commit();
		}
		products<W, N>(s, space, qs, 16 * warp, ks);
		const int key0 = k0 + 2 * t;
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 4; i++) d[j][i] -= i < 2 ? dot0 : dot1;
		scores<N>(s, d, r, [&](int row, int c) { return key0 + c - (row ? own1 : own0); });
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 4; i++) {
				const bool seen = sees(i < 2 ? own0 : own1, key0 + 8 * j + (i & 1), r.window);
				s[j][i] = seen ? power(s[j][i] - (i < 2 ? log0 : log1)) * d[j][i] : 0.f;
			}
		accumulate<W, N, W>(acc, s, space, ks, 0);
		if (more) {
			__syncthreads();
			load_rows<W, N, 32 * WARPS>(space, ks, k, p.k + k0 + N, last + 1 - k0 - N, khead, hd, 1.f);
			cp_async_commit();
		}
	}
	store_rows<W, W>(dq, row, have - 16 * warp, head, 0, hd, acc, scale / up, scale / up, space + qs + bytes<W>(16 * warp));
}

// keys: the derivatives by keys and values, of head blockIdx.y of the keys. 4
// warps have 16 keys each, or, with PARTS 2, two of them have the same keys and
// half the columns each, because no more fit into registers. They go through
// the query heads that share the keys and through the queries, N at a time, in
// one order.
template <int W, int PARTS, int N>
DEVICE void keys(const matrix &q, const matrix &k, const matrix &v, const matrix &lse, const int *pieces, int group, int hd, double scale, double cap, const float *slopes, long long window, const matrix &dout, const float *dots, int heads, const matrix &dk, const matrix &dv, float up) {
	DYN_SHARED(char, space);
	const int K = 64 / PARTS, C = W / PARTS;
	const u32 ks = 0, vs = ks + bytes<W>(K), qs = vs + bytes<W>(K), ds = qs + bytes<W>(N);
	const piece p = piece_of(pieces);
	const int warp = threadIdx.x >> 5, own_rows = 16 * (warp / PARTS), part = warp % PARTS, g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
	const int have = p.klen - p.first < K ? p.klen - p.first : K;
	const long long khead = (long long)blockIdx.y * hd;
	const int ahead = p.klen - p.qlen, start = p.first > ahead ? p.first - ahead : 0, w = (int)window;
	int end = p.qlen; // after the last query that sees a key of the block
	if (w && p.first + have - 1 + w - ahead < end) end = p.first + have - 1 + w - ahead;
	const int key0 = p.first + own_rows + g, key1 = key0 + 8;
	float acck[C / 8][4], accv[C / 8][4], s[N / 8][4], d[N / 8][4];
#pragma unroll
	for (int j = 0; j < C / 8; j++)
#pragma unroll
		for (int i = 0; i < 4; i++) acck[j][i] = accv[j][i] = 0.f;
	load_rows<W, K, 128>(space, ks, k, p.k + p.first, have, khead, hd, 1.f);
	load_rows<W, K, 128>(space, vs, v, p.k + p.first, have, khead, hd, 1.f);
	const float *all_lse = (const float *)lse.at + p.q * lse.stride;
	dots += (long long)p.q * heads;
	int h = blockIdx.y * group, q0 = start;
	const int heads_end = h + group;
	if (start < end) load_rows<W, N, 128>(space, ds, dout, p.q + q0, end - q0, (long long)h * hd, hd, up);
	cp_async_commit();
	if (start < end) load_rows<W, N, 128>(space, qs, q, p.q + q0, end - q0, (long long)h * hd, hd, 1.f);
	cp_async_commit();
	while (start < end && h < heads_end) {
		const rule r = rule_of(scale, cap, slopes, h, window);
		const int next_q = q0 + N < end ? q0 + N : start, next_h = q0 + N < end ? h : h + 1;
		arrived<1>(); // derivatives by the output
		products<W, N>(d, space, vs, own_rows, ds);
		arrived<0>(); // queries
		products<W, N>(s, space, ks, own_rows, qs);
		float logs[N / 8][2];
		int owns[N / 8][2];
		const float *from_lse = all_lse + h, *from_dots = dots + h;
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 2; i++) {
				const int query = q0 + 8 * j + 2 * t + i;
				const bool there = query < end;
				owns[j][i] = there ? own_key(p, query) : -1; // sees nothing
				logs[j][i] = there ? from_lse[query * (int)lse.stride] * LOG2E : 0.f;
				const float dot = there ? from_dots[query * heads] * up : 0.f;
				d[j][i] -= dot;
				d[j][i + 2] -= dot;
			}
		const int own0 = own_key(p, q0 + 2 * t);
		scores<N>(s, d, r, [&](int row, int c) { return (row ? key1 : key0) - own0 - c; });
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 4; i++) {
				s[j][i] = sees(owns[j][i & 1], i < 2 ? key0 : key1, w) ? power(s[j][i] - logs[j][i & 1]) : 0.f;
				d[j][i] *= s[j][i];
			}
		accumulate<W, N, C>(accv, s, space, ds, part * (C / 8));
		__syncthreads();
		if (next_h < heads_end) {
			load_rows<W, N, 128>(space, ds, dout, p.q + next_q, end - next_q, (long long)next_h * hd, hd, up);
			cp_async_commit();
		}
		accumulate<W, N, C>(acck, d, space, qs, part * (C / 8));
		__syncthreads();
		if (next_h < heads_end) {
			load_rows<W, N, 128>(space, qs, q, p.q + next_q, end - next_q, (long long)next_h * hd, hd, 1.f);
			cp_async_commit();
		}
		q0 = next_q;
		h = next_h;
	}
	arrived<0>(); // keys and values, where no query came, and all have done with them
	const long long row = p.k + p.first + own_rows;
	char *tile = space + ks + bytes<C>(16 * warp);
	const float by = (float)scale / up;
	store_rows<W, C>(dk, row, have - own_rows, khead, part * C, hd, acck, by, by, tile);
	__syncwarp();
	store_rows<W, C>(dv, row, have - own_rows, khead, part * C, hd, accv, 1.f / up, 1.f / up, tile);
}

// N: keys at a time in the forward pass; WARPS and NQ: of the pass through keys;
// PARTS and NK: of the pass through queries.
#define KERNELS(W, N, WARPS, NQ, PARTS, NK) \
	KERNEL void __launch_bounds__(128) moot_attention_##W(ATTENTION) { \
		OPEN(q); \
		OPEN(k); \
		OPEN(v); \
		OPEN(out); \
		OPEN(lse); \
		forward<W, N>(q, k, v, out, lse, pieces, (int)group, (int)hd, rule_of(scale, cap, slopes, blockIdx.y, window)); \
	} \
	KERNEL void __launch_bounds__(32 * WARPS) moot_attention_queries_##W(ATTENTION, MATRIX(dout), const float *dots, long long heads, MATRIX(dq), const float *grad_scale) { \
		OPEN(q); \
		OPEN(k); \
		OPEN(v); \
		OPEN(lse); \
		OPEN(dout); \
		OPEN(dq); \
		(void)out_at, (void)out_layout; \
		queries<W, WARPS, NQ>(q, k, v, lse, pieces, (int)group, (int)hd, rule_of(scale, cap, slopes, blockIdx.y, window), dout, dots, (int)heads, dq, (float)scale, grad_scale ? *grad_scale : 1.f); \
	} \
	KERNEL void __launch_bounds__(128) moot_attention_keys_##W(ATTENTION, MATRIX(dout), const float *dots, long long heads, MATRIX(dk), MATRIX(dv), const float *grad_scale) { \
		OPEN(q); \
		OPEN(k); \
		OPEN(v); \
		OPEN(lse); \
		OPEN(dout); \
		OPEN(dk); \
		OPEN(dv); \
		(void)out_at, (void)out_layout; \
		keys<W, PARTS, NK>(q, k, v, lse, pieces, (int)group, (int)hd, scale, cap, slopes, window, dout, dots, (int)heads, dk, dv, grad_scale ? *grad_scale : 1.f); \
	}

#else
#define KERNELS(W, N, WARPS, NQ, PARTS, NK)
#endif
