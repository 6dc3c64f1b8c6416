#include "attention_f32.cuh"

KERNELS(128)
