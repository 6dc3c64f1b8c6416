// Weights of four bits, as package nf4 and bitsandbytes store them: two a byte,
// the first in the high half; the values of a block share a scale, which is a
// float32, or a byte that stands for one (double quantisation).
#pragma once
#include "common.cuh"

#define NF4_PARAMS                                                                                                                        \
	const u8 *packed_, const float *code_, const float *scales_, const u8 *nested_, const float *nested_map_, const float *nested_scales_, \
		double offset_, i64 block_shift_, i64 nested_shift_
#define NF4_ARGS                                                                                                                          \
	{packed_, code_, scales_, nested_, nested_map_, nested_scales_, (float)offset_, (int)block_shift_, (int)nested_shift_}

struct nf4_args {
	const u8 *packed;
	const float *code;	 // 16 values
	const float *scales; // or, if null:
	const u8 *nested;
	const float *nested_map; // 256 values
	const float *nested_scales;
	float offset;
	int block_shift, nested_shift;
};

// nf4_scale is the scale of the block of value i. Products and sums are rounded
// one by one, as on the CPU.
DEVICE float nf4_scale(const nf4_args &w, u32 i) {
	u32 b = i >> w.block_shift;
	if (w.scales) return w.scales[b];
	return __fadd_rn(__fmul_rn(w.nested_map[w.nested[b]], w.nested_scales[b >> w.nested_shift]), w.offset);
}
