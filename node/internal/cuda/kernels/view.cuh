// view.cuh: matrices as the kernels get them, and sums in a fixed order.
//
// A matrix is two arguments: the address of element (0,0), 0 for none, and a
// layout, which is the distance of two rows in elements times 4, plus 2 for
// wide, plus 1 if the values are bfloat16 and not float32. All threads agree on
// both, so that asking costs nothing beside the memory; one kernel serves every
// mixture of types.
//
// Wide is the same for all matrices of a launch: the rows of all of them begin
// at multiples of 16 bytes and have a multiple of 8 columns, and a thread reads
// 8 values at a time. Otherwise it reads one.
#pragma once
#include "common.cuh"

#define MATRIX(m) char *m##_at, long long m##_layout
#define OPEN(m) const matrix m = {m##_at, m##_layout >> 2, (m##_layout & 1) != 0, (m##_layout & 2) != 0}
// EACH goes through the values that a thread has read of a matrix.
#define EACH(i, m) _Pragma("unroll") for (int i = 0; i < 8 && (i == 0 || m.wide); i++)

#define LOWEST (__uint_as_float(0xff800000u)) // minus infinity

struct matrix {
	char *at;
	long long stride;
	bool half, wide;
	DEVICE int step() const { return wide ? 8 : 1; }
};

struct alignas(16) quad { u32 v[4]; };

DEVICE float get(const matrix &m, long long row, long long col) {
	const long long i = row * m.stride + col;
	return m.half ? bf2f(((const u16 *)m.at)[i]) : ((const float *)m.at)[i];
}

DEVICE void put(const matrix &m, long long row, long long col, float v) {
	const long long i = row * m.stride + col;
	if (m.half) ((u16 *)m.at)[i] = f2bf(v);
	else ((float *)m.at)[i] = v;
}

// get8 reads 8 values of a row, or one.
DEVICE void get8(float v[8], const matrix &m, long long row, long long col) {
	if (!m.wide) {
		v[0] = get(m, row, col);
		return;
	}
	const long long i = row * m.stride + col;
	if (m.half) {
		const quad q = *(const quad *)((const u16 *)m.at + i);
#pragma unroll
		for (int k = 0; k < 4; k++) {
			v[2 * k] = bf_lo(q.v[k]);
			v[2 * k + 1] = bf_hi(q.v[k]);
		}
	} else {
		const quad a = *(const quad *)((const float *)m.at + i), b = *(const quad *)((const float *)m.at + i + 4);
#pragma unroll
		for (int k = 0; k < 4; k++) {
			v[k] = __uint_as_float(a.v[k]);
			v[k + 4] = __uint_as_float(b.v[k]);
		}
	}
}

// put8 writes what get8 reads.
DEVICE void put8(const matrix &m, long long row, long long col, const float v[8]) {
	if (!m.wide) {
		put(m, row, col, v[0]);
		return;
	}
	const long long i = row * m.stride + col;
	if (m.half) {
		quad q;
#pragma unroll
		for (int k = 0; k < 4; k++) q.v[k] = f2bf2(v[2 * k], v[2 * k + 1]);
		*(quad *)((u16 *)m.at + i) = q;
	} else {
		quad a, b;
#pragma unroll
		for (int k = 0; k < 4; k++) {
			a.v[k] = __float_as_uint(v[k]);
			b.v[k] = __float_as_uint(v[k + 4]);
		}
		*(quad *)((float *)m.at + i) = a;
		*(quad *)((float *)m.at + i + 4) = b;
	}
}

// place finds the values of a (rows,cols) matrix that belong to a thread of an
// elementwise kernel; false: none do.
DEVICE bool place(const matrix &m, long long rows, long long cols, long long &row, long long &col) {
	const u32 groups = (u32)(m.wide ? cols >> 3 : cols);
	const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= rows * groups) return false;
	if (i >> 32) { // rare: division of 64 bits is slow
		row = i / groups;
		col = i - row * groups;
	} else {
		row = (u32)i / groups;
		col = (u32)i - (u32)row * groups;
	}
	if (m.wide) col <<= 3;
	return true;
}

// rows_sum adds v over the threads of a row, which are one warp each, or the
// whole block; each of them gets the sum. scratch holds 32 values.
DEVICE float rows_sum(float v, bool whole, float *scratch) {
	v = warp_sum(v);
	if (!whole) return v;
	__syncthreads(); // scratch may still be read
	if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = v;
	__syncthreads();
	const u32 lane = threadIdx.x & 31;
	return warp_sum(lane < blockDim.x >> 5 ? scratch[lane] : 0.f);
}
