// attention_f32.cuh: attention with products in float32, for every type and
// every GPU: where values are float32, and where there are no tensor cores.
// attention_mma.cuh is the same in half precision, and says more.
//
// A block has 256 threads, 16 by 16: thread (ty,tx) has rows 4*ty to 4*ty+3 and
// columns tx, tx+16, ... of what the block computes. W is the width of a head,
// rounded up; columns from hd on are zero.
#pragma once
#include "attention.cuh"

#define CHUNK 33 // 32 values of a head, and one so that columns are in other banks

// load_rows copies rows of a head, from column col on, to dst; what does not exist
// is zero. Not inlined: it is called in many places.
static __device__ __noinline__ void load_rows(float *dst, int ld, const matrix m, long long row, int rows, int have, long long head, int col, int cols, int hd) {
	const int groups = m.wide ? cols / 8 : cols;
	for (int i = threadIdx.x; i < rows * groups; i += 256) {
		const int r = i / groups, c = (i - r * groups) * m.step();
		float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
		if (r < have && col + c < hd) get8(v, m, row + r, head + col + c);
		EACH(k, m) dst[r * ld + c + k] = v[k];
	}
}

// products sets s to the products of 64 rows of a and 16*N rows of b.
template <int N>
DEVICE void products(float s[4][N], float *space, const matrix &a, long long arow, int ahave, long long ahead, const matrix &b, long long brow, int bhave, long long bhead, int hd) {
	const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
	float *as = space, *bs = space + 64 * CHUNK;
#pragma unroll
	for (int i = 0; i < 4; i++)
#pragma unroll
		for (int j = 0; j < N; j++) s[i][j] = 0.f;
	for (int col = 0; col < hd; col += 32) {
		__syncthreads();
		load_rows(as, CHUNK, a, arow, 64, ahave, ahead, col, 32, hd);
		load_rows(bs, CHUNK, b, brow, 16 * N, bhave, bhead, col, 32, hd);
		__syncthreads();
#pragma unroll 4
		for (int c = 0; c < 32; c++) {
			float x[4], y[N];
#pragma unroll
			for (int i = 0; i < 4; i++) x[i] = as[(4 * ty + i) * CHUNK + c];
#pragma unroll
			for (int j = 0; j < N; j++) y[j] = bs[(tx + 16 * j) * CHUNK + c];
#pragma unroll
			for (int i = 0; i < 4; i++)
#pragma unroll
				for (int j = 0; j < N; j++) s[i][j] += x[i] * y[j];
		}
	}
}

// accumulate adds the products of 64 rows of p, each of k values, and k rows of
// b to acc.
template <int W>
DEVICE void accumulate(float acc[4][W / 16], const float *p, int ld, int k, float *space, const matrix &b, long long brow, int bhave, long long bhead, int hd) {
	const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
	for (int from = 0; from < k; from += 16) {
		__syncthreads();
		load_rows(space, W, b, brow + from, 16, bhave - from, bhead, 0, W, hd);
		__syncthreads();
#pragma unroll 4
		for (int c = 0; c < 16; c++) {
			float x[4];
#pragma unroll
			for (int i = 0; i < 4; i++) x[i] = p[(4 * ty + i) * ld + from + c];
#pragma unroll
			for (int j = 0; j < W / 16; j++) {
				const float y = space[c * W + tx + 16 * j];
#pragma unroll
				for (int i = 0; i < 4; i++) acc[i][j] += x[i] * y;
			}
		}
	}
}

// write copies 16 rows of space to rows first, first+4, ... of a head.
static __device__ __noinline__ void write(const matrix m, long long row, int first, int have, long long head, int hd, const float *space, int ld) {
	const int groups = m.wide ? hd / 8 : hd;
	for (int i = threadIdx.x; i < 16 * groups; i += 256) {
		const int r = i / groups, c = (i - r * groups) * m.step();
		float v[8];
		EACH(k, m) v[k] = space[r * ld + c + k];
		if (4 * r + first < have) put8(m, row + 4 * r + first, head + c, v);
	}
}

// store_rows writes 64 rows of a head.
template <int W>
DEVICE void store_rows(const matrix &m, long long row, int have, long long head, int hd, const float acc[4][W / 16], const float by[4], float *space) {
	const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__syncthreads();
#pragma unroll
		for (int j = 0; j < W / 16; j++) space[ty * W + tx + 16 * j] = acc[i][j] * by[i];
		__syncthreads();
		write(m, row, i, have, head, hd, space, W);
	}
}

#define SPACE(W) (2 * 64 * CHUNK > 16 * W ? 2 * 64 * CHUNK : 16 * W)

// forward: a block has 64 queries of head blockIdx.y and goes through the keys
// that they see, 64 at a time.
template <int W>
DEVICE void forward(const matrix &q, const matrix &k, const matrix &v, const matrix &out, const matrix &lse, const int *pieces, int group, int hd, float scale, int window, float cap, const float *slopes) {
	SHARED float space[SPACE(W)], ps[64 * 65];
	const piece p = piece_of(pieces);
	const int h = blockIdx.y, tx = threadIdx.x & 15, ty = threadIdx.x >> 4, have = p.qlen - p.first < 64 ? p.qlen - p.first : 64;
	const long long head = (long long)h * hd, khead = (long long)(h / group) * hd;
	const float alibi = slopes ? slopes[h] : 0.f;
	const int last = own_key(p, p.first + have - 1);
	float acc[4][W / 16], s[4][4], most[4], sum[4];
#pragma unroll
	for (int i = 0; i < 4; i++) {
		most[i] = LOWEST;
		sum[i] = 0.f;
#pragma unroll
		for (int j = 0; j < W / 16; j++) acc[i][j] = 0.f;
	}
	for (int k0 = first_key(own_key(p, p.first), window); k0 <= last; k0 += 64) {
		const int keys = last + 1 - k0 < 64 ? last + 1 - k0 : 64;
		products<4>(s, space, q, p.q + p.first, have, head, k, p.k + k0, keys, khead, hd);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			const int own = own_key(p, p.first + 4 * ty + i);
			float top = most[i], slope;
#pragma unroll
			for (int j = 0; j < 4; j++) {
				const int key = k0 + tx + 16 * j;
				s[i][j] = sees(own, key, window) && key <= last ? score(s[i][j], scale, cap, alibi, own, key, slope) : LOWEST;
				top = fmaxf(top, s[i][j]);
			}
			for (int o = 8; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, o));
			const float base = top == LOWEST ? 0.f : top, shrink = expf(most[i] - base);
			most[i] = top;
			sum[i] *= shrink;
#pragma unroll
			for (int j = 0; j < W / 16; j++) acc[i][j] *= shrink;
#pragma unroll
			for (int j = 0; j < 4; j++) {
				const float e = expf(s[i][j] - base);
				sum[i] += e;
				ps[(4 * ty + i) * 65 + tx + 16 * j] = e;
			}
		}
		accumulate<W>(acc, ps, 65, 64, space, v, p.k + k0, keys, khead, hd);
	}
	float by[4];
#pragma unroll
	for (int i = 0; i < 4; i++) {
		for (int o = 8; o; o >>= 1) sum[i] += __shfl_xor_sync(FULL_WARP, sum[i], o);
		by[i] = 1.f / sum[i];
		if (tx == 0 && 4 * ty + i < have) put(lse, p.q + p.first + 4 * ty + i, h, most[i] + logf(sum[i]));
	}
	store_rows<W>(out, p.q + p.first, have, head, hd, acc, by, space);
}

// queries: the derivatives by 64 queries of head blockIdx.y.
template <int W>
DEVICE void queries(const matrix &q, const matrix &k, const matrix &v, const matrix &lse, const int *pieces, int group, int hd, float scale, int window, float cap, const float *slopes, const matrix &dout, const float *dots, int heads, const matrix &dq) {
	SHARED float space[SPACE(W)], ds[64 * 65];
	const piece p = piece_of(pieces);
	const int h = blockIdx.y, tx = threadIdx.x & 15, ty = threadIdx.x >> 4, have = p.qlen - p.first < 64 ? p.qlen - p.first : 64;
	const long long head = (long long)h * hd, khead = (long long)(h / group) * hd;
	const float alibi = slopes ? slopes[h] : 0.f;
	const int last = own_key(p, p.first + have - 1);
	float acc[4][W / 16], s[4][4], d[4][4], by[4], logs[4], dot[4];
#pragma unroll
	for (int i = 0; i < 4; i++) {
		const long long row = p.q + p.first + 4 * ty + i;
		logs[i] = 4 * ty + i < have ? get(lse, row, h) : 0.f;
		dot[i] = 4 * ty + i < have ? dots[row * heads + h] : 0.f;
		by[i] = scale;
#pragma unroll
		for (int j = 0; j < W / 16; j++) acc[i][j] = 0.f;
	}
	for (int k0 = first_key(own_key(p, p.first), window); k0 <= last; k0 += 64) {
		const int keys = last + 1 - k0 < 64 ? last + 1 - k0 : 64;
		products<4>(s, space, q, p.q + p.first, have, head, k, p.k + k0, keys, khead, hd);
		products<4>(d, space, dout, p.q + p.first, have, head, v, p.k + k0, keys, khead, hd);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			const int own = own_key(p, p.first + 4 * ty + i);
#pragma unroll
			for (int j = 0; j < 4; j++) {
				const int key = k0 + tx + 16 * j;
				const bool seen = 4 * ty + i < have && sees(own, key, window);
				float slope;
				const float at = score(s[i][j], scale, cap, alibi, own, key, slope) - logs[i], e = expf(seen ? at : LOWEST);
				ds[(4 * ty + i) * 65 + tx + 16 * j] = seen ? e * (d[i][j] - dot[i]) * slope : 0.f;
			}
		}
		accumulate<W>(acc, ds, 65, 64, space, k, p.k + k0, keys, khead, hd);
	}
	store_rows<W>(dq, p.q + p.first, have, head, hd, acc, by, space);
}

// keys: the derivatives by 64 keys, and their values, of head blockIdx.y of the
// keys. The block goes through the query heads that share it, and for each
// through the queries that see the keys, 32 at a time, so that sums have one
// order.
template <int W>
DEVICE void keys(const matrix &q, const matrix &k, const matrix &v, const matrix &lse, const int *pieces, int group, int hd, float scale, int window, float cap, const float *slopes, const matrix &dout, const float *dots, int heads, const matrix &dk, const matrix &dv) {
	SHARED float space[SPACE(W)], ps[64 * CHUNK], ds[64 * CHUNK];
	const piece p = piece_of(pieces);
	const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4, have = p.klen - p.first < 64 ? p.klen - p.first : 64;
	const long long khead = (long long)blockIdx.y * hd;
	const int ahead = p.klen - p.qlen, begin = p.first > ahead ? p.first - ahead : 0;
	int end = p.qlen; // after the last query that sees a key of the block
	if (window && p.first + have - 1 + window - ahead < end) end = p.first + have - 1 + window - ahead;
	float acck[4][W / 16], accv[4][W / 16], s[4][2], d[4][2], by[4], one[4];
#pragma unroll
	for (int i = 0; i < 4; i++) {
		by[i] = scale;
		one[i] = 1.f;
#pragma unroll
		for (int j = 0; j < W / 16; j++) acck[i][j] = accv[i][j] = 0.f;
	}
	for (int h = (int)blockIdx.y * group; h < ((int)blockIdx.y + 1) * group; h++) {
		const long long head = (long long)h * hd;
		const float alibi = slopes ? slopes[h] : 0.f;
		for (int q0 = begin; q0 < end; q0 += 32) {
			const int n = end - q0 < 32 ? end - q0 : 32;
			products<2>(s, space, k, p.k + p.first, have, khead, q, p.q + q0, n, head, hd);
			products<2>(d, space, v, p.k + p.first, have, khead, dout, p.q + q0, n, head, hd);
#pragma unroll
			for (int j = 0; j < 2; j++) {
				const int i0 = tx + 16 * j;
				const long long row = p.q + q0 + i0;
				const float log = i0 < n ? get(lse, row, h) : 0.f, dot = i0 < n ? dots[row * heads + h] : 0.f;
				const int own = own_key(p, q0 + i0);
#pragma unroll
				for (int i = 0; i < 4; i++) {
					const int key = p.first + 4 * ty + i;
					const bool seen = i0 < n && 4 * ty + i < have && sees(own, key, window);
					float slope;
					const float at = score(s[i][j], scale, cap, alibi, own, key, slope) - log, e = expf(seen ? at : LOWEST);
					ps[(4 * ty + i) * CHUNK + i0] = e;
					ds[(4 * ty + i) * CHUNK + i0] = seen ? e * (d[i][j] - dot) * slope : 0.f;
				}
			}
			accumulate<W>(accv, ps, CHUNK, 32, space, dout, p.q + q0, n, head, hd);
			accumulate<W>(acck, ds, CHUNK, 32, space, q, p.q + q0, n, head, hd);
		}
	}
	store_rows<W>(dk, p.k + p.first, have, khead, hd, acck, by, space);
	store_rows<W>(dv, p.k + p.first, have, khead, hd, accv, one, space);
}

#define OPEN_ATTENTION OPEN(q); OPEN(k); OPEN(v); OPEN(lse)

#define KERNELS(W) \
	KERNEL void __launch_bounds__(256) moot_attention_f32_##W(ATTENTION) { \
		OPEN_ATTENTION; \
		OPEN(out); \
		forward<W>(q, k, v, out, lse, pieces, (int)group, (int)hd, (float)scale, (int)window, (float)cap, slopes); \
	} \
	KERNEL void __launch_bounds__(256) moot_attention_queries_f32_##W(ATTENTION, MATRIX(dout), const float *dots, long long heads, MATRIX(dq)) { \
		OPEN_ATTENTION; \
		OPEN(dout); \
		OPEN(dq); \
		(void)out_at, (void)out_layout; \
		queries<W>(q, k, v, lse, pieces, (int)group, (int)hd, (float)scale, (int)window, (float)cap, slopes, dout, dots, (int)heads, dq); \
	} \
	KERNEL void __launch_bounds__(256) moot_attention_keys_f32_##W(ATTENTION, MATRIX(dout), const float *dots, long long heads, MATRIX(dk), MATRIX(dv)) { \
		OPEN_ATTENTION; \
		OPEN(dout); \
		OPEN(dk); \
		OPEN(dv); \
		(void)out_at, (void)out_layout; \
		keys<W>(q, k, v, lse, pieces, (int)group, (int)hd, (float)scale, (int)window, (float)cap, slopes, dout, dots, (int)heads, dk, dv); \
	}
