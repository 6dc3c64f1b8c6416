// The tensor core products, by size of tile and by transposition: nt is a b^T,
// nn a b, tn a^T b, tt a^T b^T. large: for many rows and columns; small: where
// large tiles are too few; tall and wide: for LoRA's ranks.
#include "gemm_mma.cuh"

#if __CUDA_ARCH__ >= 750
#if __CUDA_ARCH__ >= 800
#define STAGES_LARGE 3
#define STAGES_SMALL 4
#define WARP_LARGE 64 // columns of a warp; four warps in a block, two blocks at a time
#else
#define STAGES_LARGE 2
#define STAGES_SMALL 2
#define WARP_LARGE 32 // eight warps, because the next tile takes registers
#endif

#define GEMM(name, BM, BN, WM, WN, STAGES, BLOCKS)                                                                                        \
	ONE(name##_nt, BM, BN, WM, WN, STAGES, BLOCKS, false, true)                                                                           \
	ONE(name##_nn, BM, BN, WM, WN, STAGES, BLOCKS, false, false)                                                                          \
	ONE(name##_tn, BM, BN, WM, WN, STAGES, BLOCKS, true, false)                                                                           \
	ONE(name##_tt, BM, BN, WM, WN, STAGES, BLOCKS, true, true)
#define ONE(name, BM, BN, WM, WN, STAGES, BLOCKS, TA, TB)                                                                                 \
	KERNEL void __launch_bounds__(BM / WM *(BN / WN) * 32, BLOCKS) moot_gemm_##name(GEMM_PARAMS) {                                        \
		const gemm_args g = GEMM_ARGS;                                                                                                    \
		gemm_mma<BM, BN, WM, WN, STAGES, TA, TB>(g);                                                                                      \
	}

GEMM(large, 128, 128, 64, WARP_LARGE, STAGES_LARGE, WARP_LARGE / 32)
GEMM(small, 64, 64, 32, 32, STAGES_SMALL, 3)
GEMM(tall, 128, 32, 32, 32, STAGES_SMALL, 2)
GEMM(wide, 32, 128, 32, 32, STAGES_SMALL, 2)
#endif
