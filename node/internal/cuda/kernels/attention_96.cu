// A file for each width of heads: a driver compiles only what is used.
#include "attention_mma.cuh"

KERNELS(96, 64, 4, 32, 1, 32)
