// An emulated libcublas.so.12: the functions that package cublas uses, computed
// on the CPU, in the order of the emulated driver's queue. It computes as the
// manual says, columns first, and checks what the real one checks.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>

#define API extern "C" __attribute__((visibility("default")))

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

struct handle {
	void *stream, *workspace;
	size_t bytes;
};
static int (*host_func)(void *, void (*)(void *), void *);
static long handles, products;

static float bf(uint16_t v) {
	uint32_t u = (uint32_t)v << 16;
	float f;
	memcpy(&f, &u, 4);
	return f;
}
static uint16_t round_bf(float f) {
	uint32_t u;
	memcpy(&u, &f, 4);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

API long cuemu_blas_stat(const char *what) { return !strcmp(what, "handles") ? handles : products; }

API int cublasCreate_v2(void **h) {
	void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
	if (!driver) return NOT_INITIALIZED;
	int (*current)(void **) = (int (*)(void **))dlsym(driver, "cuCtxGetCurrent");
	void *context = nullptr;
	if (!current || current(&context) || !context) return NOT_INITIALIZED;
	host_func = (int (*)(void *, void (*)(void *), void *))dlsym(driver, "cuLaunchHostFunc");
	*h = new handle();
	handles++;
	return SUCCESS;
}
API int cublasDestroy_v2(void *h) {
	delete (handle *)h;
	handles--;
	return SUCCESS;
}
API int cublasGetVersion_v2(void *, int *v) {
	*v = 120500;
	return SUCCESS;
}
API int cublasSetStream_v2(void *h, void *s) {
	((handle *)h)->stream = s, ((handle *)h)->workspace = nullptr;
	return SUCCESS;
}
API int cublasSetWorkspace_v2(void *h, void *w, size_t n) {
	if ((uintptr_t)w % 256) return INVALID_VALUE;
	((handle *)h)->workspace = w, ((handle *)h)->bytes = n;
	return SUCCESS;
}
API int cublasSetMathMode(void *, int) { return SUCCESS; }

struct call {
	int ta, tb, m, n, k, lda, ldb, ldc;
	float alpha, beta;
	const uint16_t *a, *b;
	void *c;
	bool bf16;
};
static void compute(void *p) {
	call *g = (call *)p;
	for (int j = 0; j < g->n; j++)
		for (int i = 0; i < g->m; i++) {
			float s = 0;
			for (int l = 0; l < g->k; l++) {
				float x = bf(g->ta ? g->a[l + (size_t)i * g->lda] : g->a[i + (size_t)l * g->lda]);
				float y = bf(g->tb ? g->b[j + (size_t)l * g->ldb] : g->b[l + (size_t)j * g->ldb]);
				s += x * y;
			}
			s *= g->alpha;
			size_t at = i + (size_t)j * g->ldc;
			if (g->bf16) {
				uint16_t *c = (uint16_t *)g->c + at;
				*c = round_bf(g->beta != 0 ? s + g->beta * bf(*c) : s);
			} else {
				float *c = (float *)g->c + at;
				*c = g->beta != 0 ? s + g->beta * *c : s;
			}
		}
	delete g;
}
API int cublasGemmEx(void *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at, int lda, const void *b, int bt,
					 int ldb, const void *beta, void *c, int ct, int ldc, int compute_type, int) {
	if (at != 14 || bt != 14 || (ct != 14 && ct != 0) || compute_type != 68) return NOT_SUPPORTED;
	if (m < 0 || n < 0 || k < 0 || lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m || lda < 1 || ldb < 1 || ldc < 1) return INVALID_VALUE;
	products++;
	call *g = new call{ta,	tb,	 m,	 n,	 k, lda, ldb, ldc, *(const float *)alpha, *(const float *)beta, (const uint16_t *)a, (const uint16_t *)b, c, ct == 14};
	return host_func(((handle *)h)->stream, compute, g) ? NOT_INITIALIZED : SUCCESS;
}
