/* moot_cublas_open loads cuBLAS (path, or with "" the newest of the usual
 * ones). It returns 0, or MOOT_NO_LIBRARY or MOOT_NO_ENTRY of shim.h; text is
 * what was loaded, or says more. */
int moot_cublas_open(const char *path, char *text, int size);

/* The others return a cublasStatus_t, which is 0 for success. A stream is a
 * CUstream, a handle a cublasHandle_t. */
int moot_cublas_new(void **handle, void *stream, unsigned long long workspace, unsigned long long bytes, int *version);
int moot_cublas_free(void *handle);

/* moot_cublas_gemm is c (m,n) = alpha op(a) op(b) + beta c, with rows one after
 * the other, a and b in bf16, c in bf16 or float32, sums in float32. */
struct moot_gemm {
	int trans_a, trans_b, m, n, k, c_bf16;
	float alpha, beta;
	unsigned long long a, b, c;
	int lda, ldb, ldc;
};
int moot_cublas_gemm(void *handle, const struct moot_gemm *g);
