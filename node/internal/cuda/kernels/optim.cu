// optim.cu: optimizers, over all values of a vector in one pass. Products are
// not fused with sums where package train computes the same on the host, so
// that both give the same bits.
#include "view.cuh"

// moot_adamw is AdamW as PyTorch has it, a value a thread; all are float32.
KERNEL void moot_adamw(float *p, const float *g, float *m, float *v, long long n, double grad_scale, double decay, double beta1, double beta2, double step, double root, double epsilon) {
	const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n) return;
	const float d = g[i] * (float)grad_scale;
	const float mi = (float)beta1 * m[i] + (float)(1 - beta1) * d, vi = (float)beta2 * v[i] + (float)(1 - beta2) * d * d;
	m[i] = mi;
	v[i] = vi;
	p[i] = p[i] * (float)decay - (float)step * mi / (sqrtf(vi) * (float)root + (float)epsilon);
}

// moot_sgd is gradient descent; mean is 0 without momentum.
KERNEL void moot_sgd(float *p, const float *g, float *mean, long long n, double rate, double grad_scale, double decay, double momentum) {
	const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n) return;
	float d = __fmul_rn(g[i], (float)grad_scale);
	if (decay != 0) d = __fadd_rn(d, __fmul_rn(p[i], (float)decay));
	if (mean) mean[i] = d = __fadd_rn(__fmul_rn(mean[i], (float)momentum), d);
	p[i] = __fadd_rn(p[i], __fmul_rn(d, (float)-rate));
}

// nearest returns the index of the value of a rising map that is nearest to x,
// the lower one of two.
DEVICE int nearest(const float *map, float x) {
	int lo = 0, hi = 255;
	while (lo + 1 < hi) {
		const int mid = (lo + hi) >> 1;
		if (map[mid] <= x) lo = mid;
		else hi = mid;
	}
	return map[hi] - x < x - map[lo] ? hi : lo;
}

// block_most returns the largest v of the block's 256 threads.
DEVICE float block_most(float v, float *scratch) {
	for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, o));
	if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = v;
	__syncthreads();
	v = scratch[0];
	for (int i = 1; i < 8; i++) v = fmaxf(v, scratch[i]);
	return v;
}

// moot_adam8 is AdamW with moments in eight bits: a block of threads has the
// 256 values that share two scales. maps holds the 256 values of the signed
// map, then those of the unsigned one.
KERNEL void moot_adam8(float *p, const float *g, unsigned char *m_code, float *m_scale, unsigned char *v_code, float *v_scale, const float *maps, long long n, double grad_scale, double decay, double beta1, double beta2, double step, double epsilon) {
	SHARED float map[512], mosts[8], vosts[8];
	const int t = threadIdx.x;
	const long long block = blockIdx.x, i = block * 256 + t;
	map[t] = maps[t];
	map[t + 256] = maps[t + 256];
	const float ms = m_scale[block], vs = v_scale[block];
	__syncthreads(); // the scales were read by all
	float m = 0.f, v = 0.f;
	if (i < n) {
		const float d = __fmul_rn(g[i], (float)grad_scale);
		m = __fadd_rn(__fmul_rn((float)beta1, __fmul_rn(map[m_code[i]], ms)), __fmul_rn((float)(1 - beta1), d));
		v = __fadd_rn(__fmul_rn((float)beta2, __fmul_rn(map[256 + v_code[i]], vs)), __fmul_rn((float)(1 - beta2), __fmul_rn(d, d)));
		const float change = __fdiv_rn(__fmul_rn((float)step, m), __fadd_rn(__fsqrt_rn(v), (float)epsilon));
		p[i] = __fadd_rn(__fmul_rn(p[i], (float)decay), -change);
	}
	const float most = block_most(fabsf(m), mosts), vost = block_most(v, vosts);
	if (t == 0) {
		m_scale[block] = most;
		v_scale[block] = vost;
	}
	if (i >= n) return;
	int code = 127;
	if (most != 0.f) {
		code = nearest(map, __fdiv_rn(m, most));
		if (m < 0.f && map[code] >= 0.f) code--; // a small negative moment does not become zero
	}
	m_code[i] = (unsigned char)code;
	v_code[i] = (unsigned char)(vost != 0.f ? nearest(map + 256, __fdiv_rn(v, vost)) : 0);
}
