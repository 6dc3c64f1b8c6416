// Kernels that are right, for the tests of the emulator.
#include "common.cuh"

// Sums of 128 values: through shared memory, through shuffles.
KERNEL void test_sum(const float *x, float *out) {
	SHARED float s[128];
	int i = threadIdx.x;
	s[i] = x[blockIdx.x * 128 + i];
	__syncthreads();
	for (int d = 64; d; d >>= 1) {
		if (i < d) s[i] += s[i + d];
		__syncthreads();
	}
	float t = block_sum(x[blockIdx.x * 128 + i]);
	if (i == 0) out[2 * blockIdx.x] = s[0], out[2 * blockIdx.x + 1] = t;
}

// out (16,8) = a (16,16) * b (16,8), bf16, row-major, with tensor cores.
KERNEL void test_mma(const u16 *a, const u16 *b, float *out) {
	DYN_SHARED(u16, s); // a, then b
	for (int i = threadIdx.x; i < 256; i += 32) s[i] = a[i];
	for (int i = threadIdx.x; i < 128; i += 32) s[256 + i] = b[i];
	__syncthreads();
	u32 fa[4], fb[2];
	int l = threadIdx.x, g = l >> 2, t = l & 3;
	ldmatrix_x4(fa, s + (l & 15) * 16 + (l >> 4) * 8);
	ldmatrix_x2_trans(fb, s + 256 + (l & 15) * 8);
	float c[4] = {0, 0, 0, 0};
	mma_m16n8k16_bf16(c, fa, fb);
	out[g * 8 + 2 * t] = c[0], out[g * 8 + 2 * t + 1] = c[1];
	out[(g + 8) * 8 + 2 * t] = c[2], out[(g + 8) * 8 + 2 * t + 1] = c[3];
}

// 32 lanes copy 16 bytes each, the last of them only 4.
KERNEL void test_copy(const u16 *x, u16 *out) {
	DYN_SHARED(u16, s);
	int i = threadIdx.x;
	cp_async16(s + i * 8, x + i * 8, i == 31 ? 4 : 16);
	cp_async_commit();
	cp_async_wait<0>();
	__syncthreads();
	i = 31 - i; // what another lane copied
	for (int k = 0; k < 8; k++) out[i * 8 + k] = s[i * 8 + k];
}

KERNEL void test_ballot(u64 *out) {
	int i = threadIdx.x;
	u32 odd = __ballot_sync(FULL_WARP, i & 1);
	int up = __shfl_up_sync(FULL_WARP, i, 1), down = __shfl_down_sync(FULL_WARP, i, 8), x = __shfl_sync(FULL_WARP, i, 5, 8);
	out[i] = (u64)odd << 32 | (u64)up << 16 | (u64)down << 8 | (u64)x;
}

KERNEL void test_arch(i64 *out) { *out = __CUDA_ARCH__; }
