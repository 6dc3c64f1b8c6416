// cuemu.h runs CUDA kernels on the CPU: each CUDA thread is a fibre, one block
// runs after the other, all on one thread of the machine.
//
// What it checks beyond the results: fibres run in any order that the barriers
// allow (a seed chooses it, which brings missing barriers to light), lanes of a
// warp meet in the same operation, nobody waits for a barrier that others never
// reach, asynchronous copies land only when they are waited for, dynamic shared
// memory and, with a seed, variables start as NaN, addresses are aligned and
// allocated. What it cannot show: speed, registers, real races, fast-math rounding.
//
// The same .cu file is compiled by g++ with HOST_EMU and, by NVRTC, to PTX;
// kernels/common.cuh holds what differs.
#pragma once
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef CUEMU_SCAN // the preprocessor's output is searched for this word
#define __global__ CUEMU_GLOBAL
#else
#define __global__
#endif
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static
#define __constant__ static const
#define __align__(n) __attribute__((aligned(n)))
#define DYN_SHARED(T, name) T *name = (T *)cuemu::S.dyn

struct dim3 {
	unsigned x, y, z;
};
struct alignas(8) float2 {
	float x, y;
};
struct alignas(16) float4 {
	float x, y, z, w;
};
struct alignas(8) uint2 {
	unsigned x, y;
};
struct alignas(16) uint4 {
	unsigned x, y, z, w;
};
struct alignas(8) int2 {
	int x, y;
};
struct alignas(16) int4 {
	int x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

namespace cuemu {

struct copy {
	void *dst;
	const void *src;
	int bytes, valid; // valid bytes are copied, the rest is zeroed
};

struct fiber {
	void *sp;
	dim3 tid;
	unsigned lin;
	bool done;
	void *frame; // arguments of the warp operation this lane waits in
	// asynchronous copies: those of ended[i] to ended[i+1] are group i
	std::vector<copy> copies;
	std::vector<size_t> ended;
};

enum op { NONE, SYNC, SHUFFLE, BALLOT, MMA, LDMATRIX };
static const char *const op_names[] = {"nothing", "__syncwarp", "a shuffle", "a ballot", "mma", "ldmatrix"};

struct warp {
	unsigned live, arrived;
	op kind;
	const void *code; // distinguishes operations of a kind
};

const unsigned MAX_THREADS = 1024;
const size_t STACK = 64 << 10;

struct state {
	fiber f[MAX_THREADS];
	char *stack[MAX_THREADS];
	warp w[MAX_THREADS / 32];
	unsigned ready[MAX_THREADS], head, nready; // ring
	unsigned parked[MAX_THREADS], nparked;	   // at __syncthreads
	unsigned n, live;
	void *main_sp;
	void (*body)(void *);
	void *arg;
	fiber *cur;
	char *dyn;
	dim3 bid, bdim, gdim;
	uint32_t seed; // not zero: random order
	bool ahead;	   // and in this block warps run as far ahead as they can
	const char *kernel;
	int failed; // CUresult
	char why[512];
};
inline state S;

// cuemu_swap saves the callee-saved registers on the old stack and goes on on
// the new one.
extern "C" __attribute__((visibility("hidden"))) void cuemu_swap(void **save, void *load);
#if defined(__x86_64__)
__asm__(".text\n.weak cuemu_swap\n.hidden cuemu_swap\ncuemu_swap:\n"
	" push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
	" mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
	" pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
#else
#error "cuemu: port cuemu_swap to this processor"
#endif

// fail ends the launch with a CUresult, as a fault on a device does.
[[noreturn]] static void fail(int rc, const char *format, ...) {
	char msg[256];
	va_list ap;
	va_start(ap, format);
	vsnprintf(msg, sizeof msg, format, ap);
	va_end(ap);
	dim3 t = S.cur->tid;
	snprintf(S.why, sizeof S.why, "cuemu: %s: block (%u,%u,%u), thread (%u,%u,%u): %s", S.kernel, S.bid.x, S.bid.y, S.bid.z, t.x, t.y,
			 t.z, msg);
	S.failed = rc;
	void *dead;
	cuemu_swap(&dead, S.main_sp);
	abort();
}

inline void make_ready(unsigned i) {
	S.ready[(S.head + S.nready++) % MAX_THREADS] = i;
}

inline uint32_t draw() {
	S.seed ^= S.seed << 13, S.seed ^= S.seed >> 17, S.seed ^= S.seed << 5;
	return S.seed;
}

// park runs another fibre that is ready; it returns when this one's turn comes.
inline void park() {
	fiber *me = S.cur;
	if (S.nready == 0) {
		if (S.live == 0) {
			cuemu_swap(&me->sp, S.main_sp);
			abort();
		}
		for (unsigned i = 0; i < (S.n + 31) / 32; i++)
			if (S.w[i].arrived)
				fail(719, "deadlock: %u of %u threads are at __syncthreads, %u of %u lanes of warp %u at %s", S.nparked, S.live,
					 S.w[i].arrived, S.w[i].live, i, op_names[S.w[i].kind]);
		fail(719, "deadlock: %u of %u threads are at __syncthreads", S.nparked, S.live);
	}
	unsigned at = S.head;
	if (S.seed) {
		// The last one that became ready is of the warp that ran just now.
		unsigned k = S.ahead ? S.nready - 1 : draw() % S.nready;
		at = (S.head + k) % MAX_THREADS;
	}
	fiber *to = &S.f[S.ready[at]];
	S.nready--;
	if (S.ahead) {
		S.ready[at] = S.ready[(S.head + S.nready) % MAX_THREADS];
	} else {
		S.ready[at] = S.ready[S.head];
		S.head = (S.head + 1) % MAX_THREADS;
	}
	if (to == me) return;
	S.cur = to;
	cuemu_swap(&me->sp, to->sp);
}

inline void release_block() {
	if (S.nparked == 0 || S.nparked < S.live) return;
	unsigned n = S.nparked;
	S.nparked = 0;
	for (unsigned i = 0; i < n; i++) make_ready(S.parked[i]);
}

inline void syncthreads() {
	S.parked[S.nparked++] = S.cur->lin;
	release_block();
	park();
}

typedef void (*resolver)(fiber *lanes, unsigned n);

inline void release_warp(unsigned wi) {
	warp &w = S.w[wi];
	if (w.arrived == 0 || w.arrived < w.live) return;
	unsigned n = S.n - wi * 32 < 32 ? S.n - wi * 32 : 32;
	if (w.code) ((resolver)w.code)(&S.f[wi * 32], n);
	w.arrived = 0;
	for (unsigned i = 0; i < n; i++) {
		fiber &f = S.f[wi * 32 + i];
		if (f.done || !f.frame) continue;
		f.frame = nullptr;
		make_ready(f.lin);
	}
}

// together waits until all lanes of the warp that still run have come here; the
// last of them computes the result of all of them from their frames.
inline void together(op kind, resolver code, void *frame, unsigned mask = ~0u) {
	unsigned wi = S.cur->lin / 32;
	warp &w = S.w[wi];
	for (unsigned i = 0; mask != ~0u && i < 32 && wi * 32 + i < S.n; i++)
		if (!(mask >> i & 1) && !S.f[wi * 32 + i].done) fail(719, "%s with a mask (%08x) that leaves out lane %u", op_names[kind], mask, i);
	if (w.arrived == 0)
		w.kind = kind, w.code = (const void *)code;
	else if (w.kind != kind || w.code != (const void *)code)
		fail(719, "the warp diverged: this lane is at %s, others are at %s", op_names[kind], op_names[w.kind]);
	S.cur->frame = frame;
	w.arrived++;
	release_warp(wi);
	park();
}

inline void entry() {
	S.body(S.arg);
	fiber *me = S.cur;
	me->done = true;
	me->copies.clear(), me->ended.clear();
	S.live--;
	S.w[me->lin / 32].live--;
	release_warp(me->lin / 32);
	release_block();
	park();
	abort();
}

inline void syncwarp(unsigned mask) {
	char here;
	together(SYNC, nullptr, &here, mask);
}

struct shuffle_frame {
	uint64_t v, r;
	unsigned src;
};
inline void shuffle_all(fiber *f, unsigned n) {
	for (unsigned i = 0; i < n; i++) {
		if (f[i].done) continue;
		shuffle_frame *me = (shuffle_frame *)f[i].frame;
		bool gone = me->src >= n || f[me->src].done;
		me->r = gone ? ~0ull : ((shuffle_frame *)f[me->src].frame)->v;
	}
}
template <class T> inline T shuffle(T v, unsigned src, unsigned mask) {
	static_assert(sizeof v <= 8, "shuffle of more than 8 bytes");
	shuffle_frame me = {0, 0, src & 31};
	memcpy(&me.v, &v, sizeof v);
	together(SHUFFLE, shuffle_all, &me, mask);
	memcpy(&v, &me.r, sizeof v);
	return v;
}

struct ballot_frame {
	bool p;
	unsigned r;
};
inline void ballot_all(fiber *f, unsigned n) {
	unsigned r = 0;
	for (unsigned i = 0; i < n; i++)
		if (!f[i].done && ((ballot_frame *)f[i].frame)->p) r |= 1u << i;
	for (unsigned i = 0; i < n; i++)
		if (!f[i].done) ((ballot_frame *)f[i].frame)->r = r;
}
inline unsigned ballot(bool p, unsigned mask) {
	ballot_frame me = {p, 0};
	together(BALLOT, ballot_all, &me, mask);
	return me.r;
}

inline float bits_float(uint32_t u) {
	float f;
	memcpy(&f, &u, 4);
	return f;
}
inline float half_float(uint16_t h) {
	_Float16 v;
	memcpy(&v, &h, 2);
	return (float)v;
}
inline uint16_t float_half(float f) {
	_Float16 v = (_Float16)f;
	uint16_t h;
	memcpy(&h, &v, 2);
	return h;
}

// mma.sync.m16n8kK with the fragment layout of the hardware: lane 4g+t holds
// A[g][2t], A[g][2t+1], then rows g+8, then columns 8 further; B[2t][g],
// B[2t+1][g], then rows 8 further; C[g][2t], C[g][2t+1], then row g+8.
struct mma_frame {
	float *c;
	const uint32_t *a, *b;
};
template <bool HALF> inline float element(uint32_t pair, int odd) {
	if (HALF) return half_float((uint16_t)(pair >> 16 * odd));
	return bits_float(odd ? pair & 0xffff0000u : pair << 16);
}
template <int K, bool HALF> __attribute__((no_sanitize("alignment"))) void mma_all(fiber *f, unsigned n) {
	typedef float row __attribute__((vector_size(32))); // of B and C
	if (n < 32) fail(719, "mma in a warp of %u lanes", n);
	typedef uint32_t pairs __attribute__((vector_size(32)));
	uint32_t A[16][K / 2];
	pairs B[K / 2]; // two values of K in each
	row C[16];
	for (unsigned l = 0; l < 32; l++) {
		if (f[l].done) fail(719, "mma after lane %u has returned", l);
		const mma_frame *me = (mma_frame *)f[l].frame;
		unsigned g = l / 4, t = l % 4;
#pragma GCC unroll 4
		for (int r = 0; r < K / 4; r++) A[g + (r & 1) * 8][t + (r >> 1) * 4] = me->a[r];
#pragma GCC unroll 4
		for (int r = 0; r < K / 8; r++) B[t + r * 4][g] = me->b[r];
#pragma GCC unroll 4
		for (int r = 0; r < 4; r++) C[g + (r >> 1) * 8][2 * t + (r & 1)] = me->c[r];
	}
	row b[K];
	for (int k = 0; k < K; k++)
		if (HALF)
			for (int j = 0; j < 8; j++) b[k][j] = element<HALF>(B[k / 2][j], k & 1);
		else
			b[k] = (row)(k & 1 ? B[k / 2] & 0xffff0000u : B[k / 2] << 16);
	for (int i = 0; i < 16; i++) {
		row c = C[i];
#pragma GCC unroll 16
		for (int k = 0; k < K; k++) c += element<HALF>(A[i][k / 2], k & 1) * b[k];
		C[i] = c;
	}
	for (unsigned l = 0; l < 32; l++)
#pragma GCC unroll 4
		for (int r = 0; r < 4; r++) ((mma_frame *)f[l].frame)->c[r] = C[l / 4 + (r >> 1) * 8][2 * (l % 4) + (r & 1)];
}

// ldmatrix: lane l gives the address of row l%8 of matrix l/8 and gets of each
// matrix the elements (l/4, 2(l%4)) and the next one of the row (of the column,
// if transposed).
struct ldmatrix_frame {
	uint32_t *r;
	const void *p;
};
template <int N, bool TRANS> __attribute__((no_sanitize("alignment"))) void ldmatrix_all(fiber *f, unsigned n) {
	if (n < 32) fail(719, "ldmatrix in a warp of %u lanes", n);
	for (unsigned l = 0; l < 32; l++)
		if (f[l].done) fail(719, "ldmatrix after lane %u has returned", l);
	for (unsigned l = 0; l < 8 * N; l++)
		if ((uintptr_t)((ldmatrix_frame *)f[l].frame)->p & 15) fail(716, "ldmatrix: the address of lane %u is not a multiple of 16", l);
	for (int m = 0; m < N; m++) {
		uint16_t a[8][8];
		for (int i = 0; i < 8; i++) memcpy(a[i], ((ldmatrix_frame *)f[m * 8 + i].frame)->p, 16);
		for (unsigned l = 0; l < 32; l++) {
			unsigned i = l / 4, j = 2 * (l % 4);
			uint32_t lo = TRANS ? a[j][i] : a[i][j], hi = TRANS ? a[j + 1][i] : a[i][j + 1];
			((ldmatrix_frame *)f[l].frame)->r[m] = lo | hi << 16;
		}
	}
}

inline void async_copy(void *dst, const void *src, int bytes, int valid) {
	if (((uintptr_t)dst | (valid ? (uintptr_t)src : 0)) & (bytes - 1)) fail(716, "cp.async of %d bytes: misaligned address", bytes);
	if (valid < 0 || valid > bytes) fail(719, "cp.async of %d bytes, %d of them valid", bytes, valid);
	S.cur->copies.push_back({dst, src, bytes, valid});
}
inline void async_commit() { S.cur->ended.push_back(S.cur->copies.size()); }
inline void async_wait(size_t newest) { // all groups but the newest ones
	fiber *f = S.cur;
	if (f->ended.size() <= newest) return;
	size_t groups = f->ended.size() - newest, k = f->ended[groups - 1];
	for (size_t i = 0; i < k; i++) {
		copy &c = f->copies[i];
		memset(c.dst, 0, c.bytes);
		memcpy(c.dst, c.src, c.valid);
	}
	f->copies.erase(f->copies.begin(), f->copies.begin() + k);
	f->ended.erase(f->ended.begin(), f->ended.begin() + groups);
	for (auto &e : f->ended) e -= k;
}

template <class F> int launch(const char *name, dim3 g, dim3 b, size_t shared, F &&body) {
	unsigned n = b.x * b.y * b.z;
	static std::vector<char> pool;
	if (pool.size() < shared + 128) pool.resize(shared + 128);
	S.dyn = (char *)(((uintptr_t)pool.data() + 127) & ~(uintptr_t)127);
	for (unsigned i = 0; i < n; i++)
		if (!S.stack[i]) S.stack[i] = (char *)aligned_alloc(64, STACK);
	S.n = n, S.kernel = name, S.bdim = b, S.gdim = g, S.failed = 0;
	S.body = [](void *p) { (*(std::remove_reference_t<F> *)p)(); };
	S.arg = (void *)&body;
	// Which block comes first must not matter either.
	unsigned long blocks = (unsigned long)g.x * g.y * g.z;
	bool backwards = S.seed && draw() & 1;
	for (unsigned long k = 0; k < blocks; k++) {
		unsigned long i = backwards ? blocks - 1 - k : k;
		S.bid = {(unsigned)(i % g.x), (unsigned)(i / g.x % g.y), (unsigned)(i / g.x / g.y)};
		memset(S.dyn, 0xff, shared);
		S.live = n, S.nready = S.head = S.nparked = 0;
		memset(S.w, 0, sizeof(warp) * ((n + 31) / 32));
		for (unsigned i = 0; i < n; i++) {
			fiber &t = S.f[i];
			S.w[i / 32].live++;
			t.tid = {i % b.x, i / b.x % b.y, i / b.x / b.y}, t.lin = i, t.done = false, t.frame = nullptr;
			t.copies.clear(), t.ended.clear();
			// What is not initialised is NaN, and not what the block before left.
			if (S.seed) memset(S.stack[i] + STACK - 4096, 0xff, 4096);
			void **sp = (void **)(S.stack[i] + STACK - 64);
			*sp = (void *)entry, sp -= 6; // ret goes to entry
			t.sp = sp;
			make_ready(i);
		}
		S.ahead = S.seed && draw() & 1;
		if (S.seed) {
			for (unsigned i = n - 1; i; i--) std::swap(S.ready[i], S.ready[draw() % (i + 1)]);
		}
		S.cur = &S.f[S.ready[S.head]];
		S.head = (S.head + 1) % MAX_THREADS, S.nready--;
		cuemu_swap(&S.main_sp, S.cur->sp);
		if (S.failed) return S.failed;
	}
	return 0;
}

// The registry calls a kernel with an array of pointers to its arguments, as
// cuLaunchKernel gets it.
typedef int (*thunk)(const char *, dim3, dim3, size_t, void **);
struct kernel {
	const char *name;
	thunk run;
	int args;
};
inline std::vector<kernel> registry;

template <auto K, class... A, size_t... I>
int call(const char *name, dim3 g, dim3 b, size_t s, void **a, void (*)(A...), std::index_sequence<I...>) {
	static_assert(((sizeof(std::decay_t<A>) == 8) && ...), "every argument of a kernel takes 8 bytes");
	return launch(name, g, b, s, [a] { K(*(std::decay_t<A> *)a[I]...); });
}
template <class... A> constexpr auto indices(void (*)(A...)) { return std::index_sequence_for<A...>{}; }
template <class... A> constexpr int count(void (*)(A...)) { return sizeof...(A); }
template <auto K> int run(const char *name, dim3 g, dim3 b, size_t s, void **a) { return call<K>(name, g, b, s, a, K, indices(K)); }
struct registrar {
	registrar(const char *name, thunk t, int args) { registry.push_back({name, t, args}); }
};

} // namespace cuemu
#define CUEMU_REGISTER(k) static cuemu::registrar cuemu_reg_##k(#k, cuemu::run<k>, cuemu::count(k));

#define threadIdx (cuemu::S.cur->tid)
#define blockIdx (cuemu::S.bid)
#define blockDim (cuemu::S.bdim)
#define gridDim (cuemu::S.gdim)

static inline void __syncthreads() { cuemu::syncthreads(); }
static inline void __syncwarp(unsigned mask = ~0u) { cuemu::syncwarp(mask); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline unsigned cuemu_lane() { return cuemu::S.cur->lin & 31; }
template <class T> static inline T __shfl_sync(unsigned m, T v, int lane, int width = 32) {
	unsigned l = cuemu_lane();
	return cuemu::shuffle(v, (l & ~(width - 1)) | (lane & (width - 1)), m);
}
template <class T> static inline T __shfl_xor_sync(unsigned m, T v, int x, int width = 32) {
	unsigned l = cuemu_lane(), s = l ^ x;
	return cuemu::shuffle(v, (s & ~(width - 1)) == (l & ~(width - 1)) ? s : l, m);
}
template <class T> static inline T __shfl_down_sync(unsigned m, T v, unsigned d, int width = 32) {
	unsigned l = cuemu_lane();
	return cuemu::shuffle(v, (l & (width - 1)) + d < (unsigned)width ? l + d : l, m);
}
template <class T> static inline T __shfl_up_sync(unsigned m, T v, unsigned d, int width = 32) {
	unsigned l = cuemu_lane();
	return cuemu::shuffle(v, (l & (width - 1)) >= d ? l - d : l, m);
}
static inline unsigned __ballot_sync(unsigned m, int p) { return cuemu::ballot(p != 0, m); }
static inline int __any_sync(unsigned m, int p) { return cuemu::ballot(p != 0, m) != 0; }
static inline int __all_sync(unsigned m, int p) { return cuemu::ballot(p == 0, m) == 0; }

static inline float __uint_as_float(unsigned u) { return cuemu::bits_float(u); }
static inline float __int_as_float(int u) { return cuemu::bits_float((unsigned)u); }
static inline unsigned __float_as_uint(float f) {
	unsigned u;
	memcpy(&u, &f, 4);
	return u;
}
static inline int __float_as_int(float f) { return (int)__float_as_uint(f); }
static inline double __longlong_as_double(long long u) {
	double d;
	memcpy(&d, &u, 8);
	return d;
}
static inline long long __double_as_longlong(double d) {
	long long u;
	memcpy(&u, &d, 8);
	return u;
}
// The *_rn functions are never fused with an addition.
static inline __attribute__((noinline)) float __fmul_rn(float a, float b) { return a * b; }
static inline __attribute__((noinline)) float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frcp_rn(float a) { return 1.f / a; }
#define __expf expf
#define __logf logf
#define __log2f log2f
static inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
static inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
static inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
static inline long long min(long long a, long long b) { return a < b ? a : b; }
static inline long long max(long long a, long long b) { return a > b ? a : b; }
template <class T> static inline T __ldg(const T *p) { return *p; }

// Integers only: the order of float additions would show in the results.
#define CUEMU_ATOMIC(name, T, expr)                                                                                                       \
	static inline T name(T *p, T v) {                                                                                                     \
		T old = *p;                                                                                                                       \
		*p = expr;                                                                                                                        \
		return old;                                                                                                                       \
	}
CUEMU_ATOMIC(atomicAdd, int, old + v)
CUEMU_ATOMIC(atomicAdd, unsigned, old + v)
CUEMU_ATOMIC(atomicAdd, unsigned long long, old + v)
CUEMU_ATOMIC(atomicMax, int, old > v ? old : v)
CUEMU_ATOMIC(atomicMax, unsigned, old > v ? old : v)
CUEMU_ATOMIC(atomicMin, int, old < v ? old : v)
CUEMU_ATOMIC(atomicOr, unsigned, old | v)
CUEMU_ATOMIC(atomicExch, unsigned, v)
#undef CUEMU_ATOMIC
