// What all kernels share: types, conversions, reductions, and the few
// instructions that C++ has no word for. The same source is compiled by NVRTC to
// PTX and by g++ to run on the CPU (HOST_EMU, see ../emu/src/cuemu.h); nothing else
// may differ between the two.
//
// Rules for kernels: extern "C" __global__ void moot_NAME(...); every argument
// takes 8 bytes (a pointer, i64, u64 or double), because gorgonia.org/cu copies 8
// bytes of each; no headers of CUDA; no atomics on floats.
#pragma once
#ifdef HOST_EMU
#include "cuemu.h"
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__
#define SHARED __shared__
#define FULL_WARP 0xffffffffu

// DYN_SHARED(T, name) is the dynamic shared memory of a block, as T *name.
#ifndef HOST_EMU
#define DYN_SHARED(T, name)                                                                                                               \
	extern __shared__ __align__(128) unsigned char moot_dyn_shared[];                                                                     \
	T *name = (T *)moot_dyn_shared
#endif

#define NEG_INF (__int_as_float(0xff800000))

// ---- bfloat16 is the upper half of a float32

DEVICE float bf2f(u16 v) { return __uint_as_float((u32)v << 16); }

// f2bf rounds to nearest, ties to even; NaN stays NaN.
DEVICE u16 f2bf(float f) {
	u32 u = __float_as_uint(f);
	if ((u & 0x7fffffffu) > 0x7f800000u) return (u16)((u >> 16) | 64);
	return (u16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// f2bf2 packs two values, lo in the low half.
DEVICE u32 f2bf2(float lo, float hi) {
#if !defined(HOST_EMU) && __CUDA_ARCH__ >= 800
	u32 r;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
	return r;
#else
	return (u32)f2bf(lo) | (u32)f2bf(hi) << 16;
#endif
}
DEVICE float bf_lo(u32 v) { return __uint_as_float(v << 16); }
DEVICE float bf_hi(u32 v) { return __uint_as_float(v & 0xffff0000u); }

// ---- float16

DEVICE u16 f2h(float f) {
#ifdef HOST_EMU
	return cuemu::float_half(f);
#else
	u16 r;
	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(f));
	return r;
#endif
}
DEVICE float h2f(u16 h) {
#ifdef HOST_EMU
	return cuemu::half_float(h);
#else
	float r;
	asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(h));
	return r;
#endif
}

// ---- elements of activations: float or u16 (bf16)

template <class T> DEVICE float load(const T *p);
template <> DEVICE float load<float>(const float *p) { return *p; }
template <> DEVICE float load<u16>(const u16 *p) { return bf2f(*p); }
template <class T> DEVICE void store(T *p, float v);
template <> DEVICE void store<float>(float *p, float v) { *p = v; }
template <> DEVICE void store<u16>(u16 *p, float v) { *p = f2bf(v); }

// ---- reductions, in an order that does not depend on timing

DEVICE float warp_sum(float v) {
	for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(FULL_WARP, v, o);
	return v;
}
DEVICE float warp_max(float v) {
	for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, o));
	return v;
}
// block_sum and block_max give each thread of a block the result; blockDim.x is
// a multiple of 32, and all threads take part.
DEVICE float block_sum(float v) {
	SHARED float part[32];
	int lane = threadIdx.x & 31, w = threadIdx.x >> 5, nw = blockDim.x >> 5;
	v = warp_sum(v);
	__syncthreads();
	if (lane == 0) part[w] = v;
	__syncthreads();
	return warp_sum(lane < nw ? part[lane] : 0.f);
}
DEVICE float block_max(float v) {
	SHARED float part[32];
	int lane = threadIdx.x & 31, w = threadIdx.x >> 5, nw = blockDim.x >> 5;
	v = warp_max(v);
	__syncthreads();
	if (lane == 0) part[w] = v;
	__syncthreads();
	return warp_max(lane < nw ? part[lane] : NEG_INF);
}

// ---- tensor cores

#ifndef HOST_EMU
DEVICE u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }
#endif

// mma_m16n8k16_bf16 is c (16,8) += a (16,16) * b (16,8), spread over the lanes
// as the PTX manual draws it.
DEVICE void mma_m16n8k16_bf16(float c[4], const u32 a[4], const u32 b[2]) {
#ifdef HOST_EMU
	cuemu::mma_frame f = {c, a, b};
	cuemu::together(cuemu::MMA, cuemu::mma_all<16, false>, &f);
#elif __CUDA_ARCH__ >= 800
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
				 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// mma_m16n8k8_f16 is for sm_75; its fragments are the first halves, and the
// second ones, of those of m16n8k16.
DEVICE void mma_m16n8k8_f16(float c[4], const u32 a[2], const u32 b[1]) {
#ifdef HOST_EMU
	cuemu::mma_frame f = {c, a, b};
	cuemu::together(cuemu::MMA, cuemu::mma_all<8, true>, &f);
#elif __CUDA_ARCH__ >= 750
	asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
				 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
				 : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#endif
}
DEVICE void mma_m16n8k16_f16(float c[4], const u32 a[4], const u32 b[2]) {
#ifdef HOST_EMU
	cuemu::mma_frame f = {c, a, b};
	cuemu::together(cuemu::MMA, cuemu::mma_all<16, true>, &f);
#elif __CUDA_ARCH__ >= 800
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
				 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif __CUDA_ARCH__ >= 750
	mma_m16n8k8_f16(c, a, b);
	mma_m16n8k8_f16(c, a + 2, b + 1);
#endif
}

// ldmatrix_x4 loads four 8x8 matrices of 16-bit elements from shared memory: lane
// l gives the address of row l%8 of matrix l/8 and gets elements (l/4, 2(l%4))
// and the next one of each; with _trans those of the transposed matrices. sm_75
// and newer.
DEVICE void ldmatrix_x4(u32 r[4], const void *row) {
#ifdef HOST_EMU
	cuemu::ldmatrix_frame f = {r, row};
	cuemu::together(cuemu::LDMATRIX, cuemu::ldmatrix_all<4, false>, &f);
#elif __CUDA_ARCH__ >= 750
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
				 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
				 : "r"(shared_address(row))
				 : "memory");
#endif
}
DEVICE void ldmatrix_x4_trans(u32 r[4], const void *row) {
#ifdef HOST_EMU
	cuemu::ldmatrix_frame f = {r, row};
	cuemu::together(cuemu::LDMATRIX, cuemu::ldmatrix_all<4, true>, &f);
#elif __CUDA_ARCH__ >= 750
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
				 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
				 : "r"(shared_address(row))
				 : "memory");
#endif
}
// The x2 forms take their addresses from lanes 0 to 15.
DEVICE void ldmatrix_x2(u32 r[2], const void *row) {
#ifdef HOST_EMU
	cuemu::ldmatrix_frame f = {r, row};
	cuemu::together(cuemu::LDMATRIX, cuemu::ldmatrix_all<2, false>, &f);
#elif __CUDA_ARCH__ >= 750
	asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
				 : "=r"(r[0]), "=r"(r[1])
				 : "r"(shared_address(row))
				 : "memory");
#endif
}
DEVICE void ldmatrix_x2_trans(u32 r[2], const void *row) {
#ifdef HOST_EMU
	cuemu::ldmatrix_frame f = {r, row};
	cuemu::together(cuemu::LDMATRIX, cuemu::ldmatrix_all<2, true>, &f);
#elif __CUDA_ARCH__ >= 750
	asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
				 : "=r"(r[0]), "=r"(r[1])
				 : "r"(shared_address(row))
				 : "memory");
#endif
}

// ---- asynchronous copies from global to shared memory (sm_80)

// cp_async16 copies valid bytes, 0 to 16, and sets the rest of 16 to zero; both
// addresses are multiples of 16. Where there is no cp.async it copies at once.
DEVICE void cp_async16(void *shared, const void *global, int valid = 16) {
#ifdef HOST_EMU
#if __CUDA_ARCH__ >= 800
	cuemu::async_copy(shared, global, 16, valid);
#else
	cuemu::async_copy(shared, global, 16, valid), cuemu::async_commit(), cuemu::async_wait(0);
#endif
#elif __CUDA_ARCH__ >= 800
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid) : "memory");
#else
	uint4 v = make_uint4(0, 0, 0, 0);
	if (valid == 16) {
		v = *(const uint4 *)global;
	} else {
		u8 *b = (u8 *)&v;
#pragma unroll
		for (int i = 0; i < 16; i++)
			if (i < valid) b[i] = ((const u8 *)global)[i];
	}
	*(uint4 *)shared = v;
#endif
}
DEVICE void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
#ifdef HOST_EMU
	cuemu::async_commit();
#else
	asm volatile("cp.async.commit_group;" ::: "memory");
#endif
#endif
}
// cp_async_wait waits for all groups but the N newest; other threads see what
// was copied after the next barrier.
template <int N> DEVICE void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
#ifdef HOST_EMU
	cuemu::async_wait(N);
#else
	asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
#endif
}
