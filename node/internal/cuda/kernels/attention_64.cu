// A file for each width of heads: a driver compiles only what is used.
#include "attention_mma.cuh"

KERNELS(64, 64, 4, 64, 1, 32)
