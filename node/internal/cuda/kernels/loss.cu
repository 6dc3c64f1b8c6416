// loss.cu: cross-entropy and sums of squares.
#include "view.cuh"

// running is what a thread knows of a row: the largest value, its first column,
// and the sum of the exponentials of the values less the largest.
struct running {
	float most, sum;
	int at;
};

DEVICE running joined(running a, running b) {
	if (b.most > a.most || (b.most == a.most && b.at < a.at)) {
		const running t = a;
		a = b;
		b = t;
	}
	if (b.most > LOWEST) a.sum += b.sum * expf(b.most - a.most);
	return a;
}

// moot_cross_entropy: a block has one row.
KERNEL void moot_cross_entropy(MATRIX(logits), const int *labels, float *nll, int *top, long long cols, double grad_scale) {
	OPEN(logits);
	SHARED float mosts[32], sums[32];
	SHARED int ats[32];
	const long long row = blockIdx.x;
	const int label = labels[row];
	const float own = get(logits, row, label), scale = (float)grad_scale;
	float v[8];
	running r = {LOWEST, 0.f, 0x7fffffff};
	for (long long c = threadIdx.x * logits.step(); c < cols; c += blockDim.x * logits.step()) {
		get8(v, logits, row, c);
		float most = v[0];
		int at = (int)c;
		EACH(i, logits)
			if (v[i] > most) {
				most = v[i];
				at = (int)c + i;
			}
		if (most > r.most) {
			r.sum *= expf(r.most - most);
			r.most = most;
			r.at = at;
		}
		EACH(i, logits)
			if (v[i] > LOWEST) r.sum += expf(v[i] - r.most);
	}
	for (int o = 16; o; o >>= 1) {
		running b;
		b.most = __shfl_xor_sync(FULL_WARP, r.most, o);
		b.sum = __shfl_xor_sync(FULL_WARP, r.sum, o);
		b.at = __shfl_xor_sync(FULL_WARP, r.at, o);
		r = joined(r, b);
	}
	if ((threadIdx.x & 31) == 0) {
		mosts[threadIdx.x >> 5] = r.most;
		sums[threadIdx.x >> 5] = r.sum;
		ats[threadIdx.x >> 5] = r.at;
	}
	__syncthreads(); // now own was read by all, too
	r.most = mosts[0];
	r.sum = sums[0];
	r.at = ats[0];
	for (int i = 1; i < (int)blockDim.x >> 5; i++) {
		const running b = {mosts[i], sums[i], ats[i]};
		r = joined(r, b);
	}
	if (threadIdx.x == 0) {
		nll[row] = logf(r.sum) - (own - r.most);
		top[row] = r.at == 0x7fffffff ? 0 : r.at;
	}
	if (scale == 0.f) return;
	const float factor = scale / r.sum;
	for (long long c = threadIdx.x * logits.step(); c < cols; c += blockDim.x * logits.step()) {
		get8(v, logits, row, c);
		EACH(i, logits) v[i] = expf(v[i] - r.most) * factor - (c + i == label ? scale : 0.f);
		put8(logits, row, c, v);
	}
}

// block_total adds a double over a block of 256 threads, in a fixed order; the
// first thread gets the sum.
DEVICE double block_total(double v, double *scratch) {
	scratch[threadIdx.x] = v;
	for (int n = 128; n; n >>= 1) {
		__syncthreads();
		if ((int)threadIdx.x < n) scratch[threadIdx.x] += scratch[threadIdx.x + n];
	}
	return scratch[0];
}

// moot_sum_squares: a block adds 8192 values of a row to one part.
KERNEL void moot_sum_squares(double *parts, MATRIX(m), long long cols) {
	OPEN(m);
	SHARED double scratch[256];
	const long long from = blockIdx.x * 8192LL;
	double s = 0;
	for (int k = 0; k < 32 / m.step(); k++) {
		const long long c = from + (k * 256 + threadIdx.x) * m.step();
		if (c >= cols) break;
		float v[8];
		get8(v, m, blockIdx.y, c);
		EACH(i, m) s += (double)v[i] * v[i];
	}
	s = block_total(s, scratch);
	if (threadIdx.x == 0) parts[(long long)blockIdx.y * gridDim.x + blockIdx.x] = s;
}

// moot_sum_doubles: one block adds n parts.
KERNEL void moot_sum_doubles(double *sum, const double *parts, long long n) {
	SHARED double scratch[256];
	double s = 0;
	for (long long i = threadIdx.x; i < n; i += 256) s += parts[i];
	s = block_total(s, scratch);
	if (threadIdx.x == 0) *sum = s;
}
