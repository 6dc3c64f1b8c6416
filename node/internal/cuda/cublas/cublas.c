/* The six functions of cuBLAS that are used. Their prototypes and constants are
 * the same in cuBLAS 11 and 12; cublas_api.h is not needed. */
#include "cublas.h"

#include "../cushim/shim.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#ifdef _WIN32
static const char *const names[] = {"cublas64_13.dll", "cublas64_12.dll", "cublas64_11.dll"};
#else
static const char *const names[] = {
	"libcublas.so.13",
	"libcublas.so.12",
	"libcublas.so.11",
	"/usr/local/cuda/lib64/libcublas.so.13",
	"/usr/local/cuda/lib64/libcublas.so.12",
	"/usr/local/cuda/lib64/libcublas.so.11",
};
#endif

enum { OP_N = 0, OP_T = 1, REAL_32F = 0, REAL_16BF = 14, COMPUTE_32F = 68, ALGO_DEFAULT = -1, NO_REDUCED_PRECISION = 16 };

static struct {
	int (*create)(void **);
	int (*destroy)(void *);
	int (*version)(void *, int *);
	int (*stream)(void *, void *);
	int (*workspace)(void *, void *, size_t);
	int (*math)(void *, int);
	int (*gemm)(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int, const void *, void *, int,
				int, int, int);
} blas;

int moot_cublas_open(const char *path, char *text, int size) {
	static const struct {
		const char *name;
		void *at;
	} functions[] = {
		{"cublasCreate_v2", &blas.create},		 {"cublasDestroy_v2", &blas.destroy},
		{"cublasGetVersion_v2", &blas.version},	 {"cublasSetStream_v2", &blas.stream},
		{"cublasSetWorkspace_v2", &blas.workspace}, {"cublasSetMathMode", &blas.math},
		{"cublasGemmEx", &blas.gemm},
	};
	const char *const *list = *path ? &path : names;
	int n = *path ? 1 : (int)(sizeof(names) / sizeof(*names));
	void *lib = NULL;
	for (int i = 0; i < n && !lib; i++) {
		/* Only what is said of the first one is kept: the others are guesses. */
		lib = moot_library_open(list + i, 1, text, i == 0 ? size : 0);
		if (lib)
			snprintf(text, size, "%s", list[i]);
	}
	if (!lib)
		return MOOT_NO_LIBRARY;
	for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
		void *f = moot_library_symbol(lib, functions[i].name);
		memcpy(functions[i].at, &f, sizeof f);
		if (!f) {
			snprintf(text, size, "the library has no %s", functions[i].name);
			return MOOT_NO_ENTRY;
		}
	}
	return 0;
}

int moot_cublas_new(void **handle, void *stream, unsigned long long workspace, unsigned long long bytes, int *version) {
	int rc = blas.create(handle);
	if (rc)
		return rc;
	rc = blas.stream(*handle, stream);
	if (!rc) /* after SetStream, which takes the workspace away */
		rc = blas.workspace(*handle, (void *)(size_t)workspace, (size_t)bytes);
	if (!rc)
		rc = blas.math(*handle, NO_REDUCED_PRECISION);
	if (!rc)
		rc = blas.version(*handle, version);
	if (rc)
		blas.destroy(*handle);
	return rc;
}

int moot_cublas_free(void *handle) { return blas.destroy(handle); }

/* cuBLAS has columns one after the other, so that it sees the transpose of each
 * matrix: c^T = op(b)^T op(a)^T. */
int moot_cublas_gemm(void *handle, const struct moot_gemm *g) {
	return blas.gemm(handle, g->trans_b ? OP_T : OP_N, g->trans_a ? OP_T : OP_N, g->n, g->m, g->k, &g->alpha, (const void *)(size_t)g->b,
					 REAL_16BF, g->ldb, (const void *)(size_t)g->a, REAL_16BF, g->lda, &g->beta, (void *)(size_t)g->c,
					 g->c_bf16 ? REAL_16BF : REAL_32F, g->ldc, COMPUTE_32F, ALGO_DEFAULT);
}
