// A file for each width of heads: a driver compiles only what is used.
#include "attention_mma.cuh"

#if __CUDA_ARCH__ >= 800
KERNELS(256, 64, 4, 32, 2, 32)
#else
KERNELS(256, 32, 2, 32, 2, 32) // what fits into 64 KiB
#endif
