// attention.cu: what attention needs beside products of tiles.
#include "attention.cuh"

// moot_attention_most sets parts to the largest magnitudes of a part of m each,
// a block each: blockIdx.x columns, blockIdx.y rows.
KERNEL void moot_attention_most(float *parts, MATRIX(m), long long rows, long long cols) {
	OPEN(m);
	SHARED float scratch[8];
	float most = 0.f, v[8];
	for (long long row = blockIdx.x; row < rows; row += gridDim.x)
		for (long long c = threadIdx.x * m.step(); c < cols; c += 256 * m.step()) {
			get8(v, m, row, c);
			EACH(i, m) most = fmaxf(most, fabsf(v[i]));
		}
	for (int o = 16; o; o >>= 1) most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, o));
	if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = most;
	__syncthreads();
	if (threadIdx.x) return;
	for (int i = 1; i < 8; i++) most = fmaxf(most, scratch[i]);
	parts[blockIdx.x] = most;
}

// moot_attention_scale sets scale to the power of two that brings the largest
// of n values to 1 to 2.
KERNEL void moot_attention_scale(float *scale, const float *parts, long long n) {
	float most = 0.f;
	for (long long i = 0; i < n; i++) most = fmaxf(most, parts[i]);
	const int exponent = (int)(__float_as_uint(most) >> 23) & 255;
	*scale = exponent == 0 || exponent == 255 ? 1.f : __uint_as_float((u32)(exponent > 253 ? 1 : 254 - exponent) << 23);
}

// moot_attention_dots sets dots (rows,heads) to the products of out and dout,
// a warp each.
KERNEL void moot_attention_dots(float *dots, MATRIX(out), MATRIX(dout), long long rows, long long heads, long long hd) {
	OPEN(out);
	OPEN(dout);
	const long long i = (long long)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
	if (i >= rows * heads) return;
	const long long row = i / heads, head = (i - row * heads) * hd;
	float s = 0.f;
	for (long long c = (threadIdx.x & 31) * out.step(); c < hd; c += 32 * out.step()) {
		float a[8], b[8];
		get8(a, out, row, head + c);
		get8(b, dout, row, head + c);
		EACH(k, out) s += a[k] * b[k];
	}
	s = warp_sum(s);
	if ((threadIdx.x & 31) == 0) dots[i] = s;
}

// get_some is get8, where not, of the first n of 8 values; the others are 0.
DEVICE void get_some(float v[8], const matrix &m, long long row, long long col, int n) {
	if (m.wide) {
		get8(v, m, row, col);
		return;
	}
#pragma unroll
	for (int i = 0; i < 8; i++) v[i] = i < n ? get(m, row, col + i) : 0.f;
}

// moot_attention_one: a block has one query (piece.first) of head blockIdx.y and
// the keys of a part, blockIdx.z: attention while text is generated, where there
// are many keys and few queries. Lanes have 8 columns each, so that a warp has
// one key or several at a time. parts holds for each query, head and part the
// weighted sum of values, the largest score and the sum of exponentials.
KERNEL void __launch_bounds__(128) moot_attention_one(ATTENTION, float *parts, long long part) {
	OPEN(q);
	OPEN(k);
	OPEN(v);
	(void)out_at, (void)out_layout, (void)lse_at, (void)lse_layout;
	SHARED float sums[128 * 8], mosts[128], totals[128];
	const piece p = piece_of(pieces);
	const int h = blockIdx.y, lane = threadIdx.x & 31, own = own_key(p, p.first), width = (int)hd;
	int share = 1; // lanes of a key
	while (share * 8 < width) share *= 2;
	const int sets = 128 / share, set = threadIdx.x / share, c = (lane & (share - 1)) * 8;
	const long long head = (long long)h * width + c, khead = (long long)(h / (int)group) * width + c, row = p.q + p.first;
	const float alibi = slopes ? slopes[h] : 0.f;
	float x[8] = {0, 0, 0, 0, 0, 0, 0, 0}, acc[8] = {0, 0, 0, 0, 0, 0, 0, 0}, y[8];
	if (c < width) get_some(x, q, row, head, width - c);
	float most = LOWEST, total = 0.f;
	const int start = first_key(own, (int)window), from = start + (int)(blockIdx.z * part), to = from + (int)part < own + 1 ? from + (int)part : own + 1;
	for (int base = from; base < to; base += sets) { // the same for all, because of shuffles
		const int key = base + set;
		float s = 0.f, slope;
		if (key < to && c < width) {
			get_some(y, k, p.k + key, khead, width - c);
#pragma unroll
			for (int i = 0; i < 8; i++) s += x[i] * y[i];
		}
		for (int o = share / 2; o; o >>= 1) s += __shfl_xor_sync(FULL_WARP, s, o);
		if (key >= to) continue;
		s = score(s, (float)scale, (float)cap, alibi, own, key, slope);
		const float top = fmaxf(most, s), shrink = expf(most - top), e = expf(s - top);
		most = top;
		total = total * shrink + e;
		if (c < width) get_some(y, v, p.k + key, khead, width - c);
		else
			for (int i = 0; i < 8; i++) y[i] = 0.f;
#pragma unroll
		for (int i = 0; i < 8; i++) acc[i] = acc[i] * shrink + e * y[i];
	}
#pragma unroll
	for (int i = 0; i < 8; i++) sums[threadIdx.x * 8 + i] = acc[i];
	mosts[threadIdx.x] = most;
	totals[threadIdx.x] = total;
	__syncthreads();
	if (set || c >= width) return;
	float *to_part = parts + (((long long)blockIdx.x * gridDim.y + h) * gridDim.z + blockIdx.z) * (width + 2);
	for (int i = 1; i < sets; i++) most = fmaxf(most, mosts[i * share]);
	total = 0.f;
#pragma unroll
	for (int i = 0; i < 8; i++) acc[i] = 0.f;
	for (int i = 0; i < sets; i++) {
		const int other = i * share + (lane & (share - 1));
		if (mosts[other] == LOWEST) continue;
		const float e = expf(mosts[other] - most);
		total += e * totals[other];
#pragma unroll
		for (int j = 0; j < 8; j++) acc[j] += e * sums[other * 8 + j];
	}
	for (int i = 0; i < 8 && c + i < width; i++) to_part[c + i] = acc[i];
	if (c == 0) {
		to_part[width] = most;
		to_part[width + 1] = total;
	}
}

// moot_attention_join puts n parts together: a block has a query and a head. A
// part may have no keys: its sums are 0, its largest score is LOWEST.
KERNEL void moot_attention_join(MATRIX(out), MATRIX(lse), const float *parts, const int *pieces, long long n, long long hd) {
	OPEN(out);
	OPEN(lse);
	const piece p = piece_of(pieces);
	const int h = blockIdx.y;
	const float *from = parts + ((long long)blockIdx.x * gridDim.y + h) * n * (hd + 2);
	float most = LOWEST, total = 0.f;
	for (int i = 0; i < n; i++) most = fmaxf(most, from[i * (hd + 2) + hd]);
	for (int i = 0; i < n; i++) total += from[i * (hd + 2) + hd + 1] * expf(from[i * (hd + 2) + hd] - most);
	for (int c = threadIdx.x; c < hd; c += blockDim.x) {
		float s = 0.f;
		for (int i = 0; i < n; i++) s += from[i * (hd + 2) + c] * expf(from[i * (hd + 2) + hd] - most);
		put(out, p.q + p.first, (long long)h * hd + c, s / total);
	}
	if (threadIdx.x == 0) put(lse, p.q + p.first, h, most + logf(total));
}
