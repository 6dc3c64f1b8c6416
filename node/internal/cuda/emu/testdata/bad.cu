// Kernels with the mistakes that the emulator is there to find.
#include "common.cuh"

KERNEL void test_no_barrier(const float *x, float *out) {
	SHARED float s[128];
	s[threadIdx.x] = x[threadIdx.x];
	__syncwarp(); // __syncthreads
	out[threadIdx.x] = s[127 - threadIdx.x];
}

KERNEL void test_no_wait(const u16 *x, u16 *out) {
	DYN_SHARED(u16, s);
	cp_async16(s + threadIdx.x * 8, x + threadIdx.x * 8);
	cp_async_commit();
	cp_async_wait<1>(); // 0
	__syncthreads();
	for (int k = 0; k < 8; k++) out[threadIdx.x * 8 + k] = s[threadIdx.x * 8 + k];
}

KERNEL void test_uninitialised(const float *, float *out) {
	DYN_SHARED(float, s);
	out[threadIdx.x] = s[threadIdx.x];
}

KERNEL void test_deadlock(const float *, float *out) {
	if (threadIdx.x < 32) {
		__syncthreads();
		__syncthreads();
	}
	else
		__syncthreads(), out[threadIdx.x] = __shfl_xor_sync(FULL_WARP, 1.f, threadIdx.x == 40 ? 1 : 2);
	if (threadIdx.x == 40) __syncthreads();
	else __syncwarp();
}

KERNEL void test_diverged(const float *, float *out) {
	if (threadIdx.x & 1)
		out[threadIdx.x] = __shfl_xor_sync(FULL_WARP, 1.f, 2);
	else
		__syncwarp();
}

KERNEL void test_mask(const float *, float *out) { out[threadIdx.x] = __shfl_xor_sync(0xffff, 1.f, 2); }

KERNEL void test_misaligned(const float *x, float *out) {
	float4 v = *(const float4 *)(x + threadIdx.x);
	out[threadIdx.x] = v.x;
}

KERNEL void test_null(const float *, float *out) {
	if (threadIdx.x == 7) *(volatile float *)16 = 1;
	out[threadIdx.x] = 0;
}

KERNEL void test_behind(const float *, float *out) { out[threadIdx.x + 100] = 1; }

KERNEL void test_far_behind(const float *, float *out) { out[threadIdx.x + 4096] = 1; }
