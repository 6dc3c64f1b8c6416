// An emulated libcuda.so.1. Device memory is host memory; kernels run on the
// CPU (cuemu.h). It is stricter than a device where that finds mistakes.
//
// The environment says what it pretends to be; it is read at each call:
//
//	MOOT_EMU_CC    compute capability, "8.0"; decides which modules load
//	MOOT_EMU_MEM   memory of the device in MiB, 8192
//	MOOT_EMU_SMS   multiprocessors, 4
//	MOOT_EMU_COUNT devices, 1
//	MOOT_EMU_SEED  not 0: threads and blocks run in an order drawn from it
//	MOOT_EMU_LAZY  1: what is asynchronous happens when it is waited for
//	MOOT_EMU_FAIL  "cuMemAlloc_v2:3:2": the third call from now gives error 2
//	MOOT_EMU_TRACE 1: each launch is written to stderr
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))
typedef unsigned long long DP;
typedef std::lock_guard<std::recursive_mutex> guard;

enum {
	OK = 0,
	INVALID_VALUE = 1,
	OUT_OF_MEMORY = 2,
	INVALID_DEVICE = 101,
	INVALID_IMAGE = 200,
	INVALID_CONTEXT = 201,
	NO_BINARY = 209,
	INVALID_PTX = 218,
	INVALID_HANDLE = 400,
	NOT_FOUND = 500,
	ILLEGAL_ADDRESS = 700,
	OUT_OF_RESOURCES = 701,
};

static long env(const char *name, long value) {
	const char *s = getenv(name);
	return s && *s ? atol(s) : value;
}
static int cc() {
	const char *s = getenv("MOOT_EMU_CC");
	int major = 8, minor = 0;
	if (s && *s) sscanf(s, "%d.%d", &major, &minor);
	return major * 10 + minor;
}
static int max_shared() { // what a block may ask for, on the smallest card of a generation
	return cc() < 70 ? 49152 : cc() < 80 ? 65536 : 101376;
}

static const unsigned char CANARY = 0xc5, GARBAGE = 0xff; // 0xff.. is NaN in every format

struct allocation {
	char *base; // of the mapping
	size_t mapped, size;
};
struct kernel_library {
	void *(*find)(const char *);
	int (*run)(void *, const unsigned *, const unsigned *, size_t, void **, uint32_t, char *, size_t);
};
struct entry {
	int params = 0;
	unsigned max_threads = 0;
};
struct function {
	std::string name;
	void *kernel;
	kernel_library *lib;
	int args;
	unsigned max_threads;
	int dynamic = 49152; // cuFuncSetAttribute raises it
};
struct module {
	std::map<std::string, entry> entries;
	bool any = false; // no PTX, for tests of kernels before there is one
	kernel_library *lib;
	std::vector<function *> functions;
};
typedef std::vector<std::function<int()>> work;
struct stream {
	work *capture = nullptr;
};
struct event {
	double t = -1;
};

static std::recursive_mutex mu;
static std::map<DP, allocation> device_memory;
static std::map<void *, size_t> host_memory;
static std::map<std::string, kernel_library> libraries; // by target, "sm80"
static std::map<void *, int> live;						// streams, events, modules, graphs
static work queue;
static size_t used, peak, host_used, launches, errors;
static int sticky; // after a fault every call gives it
static char why[600];
static thread_local void *current; // context

static int fault(int rc, const char *msg) {
	fprintf(stderr, "%s (CUresult %d)\n", msg, rc);
	errors++;
	return sticky = rc;
}

// injected says which error MOOT_EMU_FAIL asks for, counting calls.
static int injected(const char *name) {
	static std::string seen;
	static long left;
	const char *s = getenv("MOOT_EMU_FAIL");
	if (!s || !*s) {
		seen.clear();
		return 0;
	}
	char fn[64];
	long nth = 1;
	int rc = 2;
	sscanf(s, "%63[^:]:%ld:%d", fn, &nth, &rc);
	if (seen != s) seen = s, left = nth;
	if (strcmp(fn, name) || left == 0) return 0;
	return --left == 0 ? rc : 0;
}

#define ENTER                                                                                                                             \
	guard lock(mu);                                                                                                                       \
	if (sticky) return sticky;                                                                                                            \
	if (int rc = injected(__func__)) return rc
#define ENTER_CONTEXT                                                                                                                     \
	ENTER;                                                                                                                                \
	if (!current) return INVALID_CONTEXT

static double now() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

static int drain() {
	work w;
	w.swap(queue);
	for (auto &f : w)
		if (int rc = f()) return rc;
	return sticky;
}

static int submit(void *s, std::function<int()> f) {
	stream *st = (stream *)s;
	if (st && !live.count(st)) return INVALID_HANDLE;
	if (st && st->capture) {
		st->capture->push_back(f);
		return OK;
	}
	queue.push_back(f);
	return env("MOOT_EMU_LAZY", 0) ? OK : drain();
}

// inside reports whether n bytes at p belong to one allocation of the device.
static bool inside(DP p, size_t n) {
	auto it = device_memory.upper_bound(p);
	if (it == device_memory.begin()) return false;
	--it;
	return p + n <= it->first + it->second.size;
}

// ---- what kernels were doing, for tests

API long cuemu_stat(const char *what) {
	guard lock(mu);
	std::string w = what;
	if (w == "bytes") return used;
	if (w == "peak") return peak;
	if (w == "allocations") return device_memory.size();
	if (w == "host") return host_used;
	if (w == "handles") return live.size();
	if (w == "launches") return launches;
	if (w == "pending") return queue.size();
	if (w == "errors") return errors;
	return -1;
}
// cuemu_reset ends a fault, as a new process would.
API void cuemu_reset() {
	guard lock(mu);
	sticky = 0, errors = 0, launches = 0, peak = used;
	queue.clear();
}
API const char *cuemu_why() { return why; }
// cuemu_repair lets memory be freed that something wrote behind the end of.
API void cuemu_repair() {
	guard lock(mu);
	for (auto &a : device_memory)
		for (size_t i = a.second.size; i % 256; i++) ((unsigned char *)a.first)[i] = CANARY;
}

// ---- devices and contexts

API int cuInit(unsigned) {
	guard lock(mu);
	return injected(__func__);
}
API int cuDriverGetVersion(int *v) {
	*v = (int)env("MOOT_EMU_DRIVER", 12080);
	return OK;
}
API int cuGetErrorName(int rc, const char **s) {
	static const std::map<int, const char *> names = {{0, "CUDA_SUCCESS"},
													  {1, "CUDA_ERROR_INVALID_VALUE"},
													  {2, "CUDA_ERROR_OUT_OF_MEMORY"},
													  {3, "CUDA_ERROR_NOT_INITIALIZED"},
													  {100, "CUDA_ERROR_NO_DEVICE"},
													  {101, "CUDA_ERROR_INVALID_DEVICE"},
													  {200, "CUDA_ERROR_INVALID_IMAGE"},
													  {201, "CUDA_ERROR_INVALID_CONTEXT"},
													  {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
													  {218, "CUDA_ERROR_INVALID_PTX"},
													  {400, "CUDA_ERROR_INVALID_HANDLE"},
													  {500, "CUDA_ERROR_NOT_FOUND"},
													  {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
													  {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
													  {716, "CUDA_ERROR_MISALIGNED_ADDRESS"},
													  {719, "CUDA_ERROR_LAUNCH_FAILED"}};
	auto it = names.find(rc);
	*s = it == names.end() ? nullptr : it->second;
	return *s ? OK : INVALID_VALUE;
}
API int cuGetErrorString(int rc, const char **s) { return cuGetErrorName(rc, s); }
API int cuDeviceGetCount(int *n) {
	ENTER;
	*n = (int)env("MOOT_EMU_COUNT", 1);
	return OK;
}
API int cuDeviceGet(int *d, int i) {
	ENTER;
	*d = i;
	return i >= 0 && i < env("MOOT_EMU_COUNT", 1) ? OK : INVALID_DEVICE;
}
API int cuDeviceGetName(char *b, int n, int) {
	ENTER;
	snprintf(b, n, "moot emulated device");
	return OK;
}
API int cuDeviceGetUuid(char *u, int d) {
	ENTER;
	memset(u, 0, 16);
	u[15] = (char)d;
	return OK;
}
API int cuDeviceGetUuid_v2(char *u, int d) { return cuDeviceGetUuid(u, d); }
API int cuDeviceGetPCIBusId(char *b, int n, int d) {
	ENTER;
	snprintf(b, n, "0000:%02x:00.0", d + 1);
	return OK;
}
static size_t total() { return (size_t)env("MOOT_EMU_MEM", 8192) << 20; }
API int cuDeviceTotalMem_v2(size_t *b, int) {
	ENTER;
	*b = total();
	return OK;
}
API int cuDeviceGetAttribute(int *v, int a, int) {
	ENTER;
	switch (a) {
	case 1: *v = 1024; break;							   // threads per block
	case 2: case 3: *v = 1024; break;
	case 4: *v = 64; break;
	case 5: *v = 0x7fffffff; break;						   // grid
	case 6: case 7: *v = 65535; break;
	case 8: *v = 49152; break;							   // shared memory per block
	case 10: *v = 32; break;							   // warp
	case 12: *v = 65536; break;							   // registers per block
	case 13: *v = 1500000; break;						   // clock, kHz
	case 16: *v = (int)env("MOOT_EMU_SMS", 4); break;
	case 31: *v = 1; break;								   // concurrent kernels
	case 33: *v = 1; break;								   // PCI bus
	case 36: *v = 7000000; break;						   // memory clock, kHz
	case 37: *v = 192; break;							   // bus width
	case 38: *v = 3 << 20; break;						   // L2
	case 39: *v = 1536; break;							   // threads per multiprocessor
	case 40: *v = 2; break;								   // copy engines
	case 41: *v = 1; break;								   // unified addressing
	case 75: *v = cc() / 10; break;
	case 76: *v = cc() % 10; break;
	case 81: *v = cc() < 80 ? 98304 : 102400; break;	   // shared memory per multiprocessor
	case 82: *v = 65536; break;							   // registers per multiprocessor
	case 97: *v = max_shared(); break;					   // shared memory per block, opt-in
	default: *v = 0;
	}
	return OK;
}
API int cuDevicePrimaryCtxRetain(void **c, int d) {
	ENTER;
	*c = (void *)(uintptr_t)(0x1000 + d);
	return OK;
}
API int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
API int cuDevicePrimaryCtxReset_v2(int) { return OK; }
API int cuDevicePrimaryCtxSetFlags_v2(int, unsigned) { return OK; }
API int cuDevicePrimaryCtxGetState(int, unsigned *flags, int *active) {
	*flags = 0, *active = 1;
	return OK;
}
API int cuCtxSetCurrent(void *c) {
	ENTER;
	current = c;
	return OK;
}
API int cuCtxGetCurrent(void **c) {
	*c = current;
	return OK;
}
API int cuCtxPushCurrent_v2(void *c) { return cuCtxSetCurrent(c); }
API int cuCtxPopCurrent_v2(void **c) {
	*c = current;
	current = nullptr;
	return OK;
}
API int cuCtxGetDevice(int *d) {
	ENTER_CONTEXT;
	*d = (int)((uintptr_t)current - 0x1000);
	return OK;
}
API int cuCtxGetStreamPriorityRange(int *low, int *high) {
	*low = 0, *high = -1;
	return OK;
}
API int cuCtxSynchronize() {
	ENTER_CONTEXT;
	return drain();
}

// ---- memory. An allocation ends, but for 256 bytes of alignment, where an
// unmapped page begins; what lies between is checked when it is freed.


API int cuMemGetInfo_v2(size_t *f, size_t *t) {
	ENTER_CONTEXT;
	*t = total(), *f = *t > used ? *t - used : 0;
	return OK;
}
API int cuMemAlloc_v2(DP *p, size_t n) {
	ENTER_CONTEXT;
	if (n == 0) return INVALID_VALUE;
	if (used + n > total()) return OUT_OF_MEMORY;
	size_t span = (n + 255) & ~255ull, pages = (span + 4095) & ~4095ull;
	char *m = (char *)mmap(nullptr, pages + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m == MAP_FAILED) return OUT_OF_MEMORY;
	mprotect(m + 4096, pages, PROT_READ | PROT_WRITE);
	char *at = m + 4096 + pages - span;
	// Large allocations stay untouched until they are used.
	memset(at, GARBAGE, std::min(n, (size_t)64 << 20));
	memset(at + n, CANARY, span - n);
	*p = (DP)at;
	device_memory[*p] = {m, pages + 8192, n};
	used += n, peak = std::max(peak, used);
	return OK;
}
API int cuMemFree_v2(DP p) {
	ENTER_CONTEXT;
	int rc = drain();
	auto it = device_memory.find(p);
	if (it == device_memory.end()) return INVALID_VALUE;
	size_t n = it->second.size, span = (n + 255) & ~255ull;
	for (size_t i = n; i < span; i++)
		if (((unsigned char *)p)[i] != CANARY) {
			snprintf(why, sizeof why, "cuemu: something wrote %zu bytes behind the end of %zu bytes of device memory", i - n, n);
			return fault(ILLEGAL_ADDRESS, why);
		}
	munmap(it->second.base, it->second.mapped);
	used -= n;
	device_memory.erase(it);
	return rc;
}
API int cuMemAllocAsync(DP *p, size_t n, void *) { return cuMemAlloc_v2(p, n); }
API int cuMemFreeAsync(DP p, void *) { return cuMemFree_v2(p); }
API int cuMemGetAddressRange_v2(DP *base, size_t *n, DP p) {
	ENTER_CONTEXT;
	auto it = device_memory.upper_bound(p);
	if (it == device_memory.begin()) return INVALID_VALUE;
	--it;
	if (base) *base = it->first;
	if (n) *n = it->second.size;
	return p < it->first + it->second.size ? OK : INVALID_VALUE;
}
API int cuMemHostAlloc(void **p, size_t n, unsigned) {
	ENTER_CONTEXT;
	*p = aligned_alloc(4096, (n + 4095) & ~4095ull);
	if (!*p) return OUT_OF_MEMORY;
	memset(*p, GARBAGE, std::min(n, (size_t)64 << 20));
	host_memory[*p] = n, host_used += n;
	return OK;
}
API int cuMemAllocHost_v2(void **p, size_t n) { return cuMemHostAlloc(p, n, 0); }
API int cuMemFreeHost(void *p) {
	ENTER_CONTEXT;
	int rc = drain();
	auto it = host_memory.find(p);
	if (it == host_memory.end()) return INVALID_VALUE;
	host_used -= it->second;
	host_memory.erase(it);
	free(p);
	return rc;
}
API int cuMemHostRegister_v2(void *, size_t, unsigned) { return OK; }
API int cuMemHostUnregister(void *) {
	guard lock(mu);
	return drain();
}
API int cuMemHostGetDevicePointer_v2(DP *d, void *p, unsigned) {
	*d = (DP)p;
	return OK;
}

static int transfer(void *s, bool wait, void *dst, const void *src, size_t n, bool dst_device, bool src_device) {
	if (n && ((dst_device && !inside((DP)dst, n)) || (src_device && !inside((DP)src, n)))) return INVALID_VALUE;
	int rc = submit(s, [=] {
		memmove(dst, src, n);
		return OK;
	});
	return rc || !wait ? rc : drain();
}
API int cuMemcpyHtoD_v2(DP d, const void *s, size_t n) {
	ENTER_CONTEXT;
	return transfer(nullptr, true, (void *)d, s, n, true, false);
}
API int cuMemcpyDtoH_v2(void *d, DP s, size_t n) {
	ENTER_CONTEXT;
	return transfer(nullptr, true, d, (void *)s, n, false, true);
}
API int cuMemcpyDtoD_v2(DP d, DP s, size_t n) {
	ENTER_CONTEXT;
	return transfer(nullptr, false, (void *)d, (void *)s, n, true, true);
}
API int cuMemcpyHtoDAsync_v2(DP d, const void *s, size_t n, void *st) {
	ENTER_CONTEXT;
	// From pageable memory the driver takes a copy before it returns.
	auto it = host_memory.upper_bound((void *)s);
	bool pinned = it != host_memory.begin() && (--it, (const char *)s < (char *)it->first + it->second);
	if (pinned) return transfer(st, false, (void *)d, s, n, true, false);
	if (n && !inside(d, n)) return INVALID_VALUE;
	std::string copy((const char *)s, n);
	return submit(st, [=] {
		memcpy((void *)d, copy.data(), n);
		return OK;
	});
}
API int cuMemcpyDtoHAsync_v2(void *d, DP s, size_t n, void *st) {
	ENTER_CONTEXT;
	return transfer(st, false, d, (void *)s, n, false, true);
}
API int cuMemcpyDtoDAsync_v2(DP d, DP s, size_t n, void *st) {
	ENTER_CONTEXT;
	return transfer(st, false, (void *)d, (void *)s, n, true, true);
}
API int cuMemcpy(DP d, DP s, size_t n) {
	ENTER_CONTEXT;
	return transfer(nullptr, true, (void *)d, (void *)s, n, false, false);
}
API int cuMemcpyAsync(DP d, DP s, size_t n, void *st) {
	ENTER_CONTEXT;
	return transfer(st, false, (void *)d, (void *)s, n, false, false);
}

struct copy2d { // CUDA_MEMCPY2D
	size_t srcX, srcY;
	unsigned srcType;
	const void *srcHost;
	DP srcDevice;
	void *srcArray;
	size_t srcPitch, dstX, dstY;
	unsigned dstType;
	void *dstHost;
	DP dstDevice;
	void *dstArray;
	size_t dstPitch, width, height;
};
static int transfer2d(const copy2d *p, void *st, bool wait) {
	copy2d c = *p; // types: 1 host, 2 device
	if (c.srcType < 1 || c.srcType > 2 || c.dstType < 1 || c.dstType > 2) return INVALID_VALUE;
	if (c.srcPitch < c.width || c.dstPitch < c.width) return INVALID_VALUE;
	const char *s = (c.srcType == 1 ? (const char *)c.srcHost : (const char *)c.srcDevice) + c.srcY * c.srcPitch + c.srcX;
	char *d = (c.dstType == 1 ? (char *)c.dstHost : (char *)c.dstDevice) + c.dstY * c.dstPitch + c.dstX;
	if (c.height == 0 || c.width == 0) return OK;
	if (c.srcType == 2 && !inside((DP)s, (c.height - 1) * c.srcPitch + c.width)) return INVALID_VALUE;
	if (c.dstType == 2 && !inside((DP)d, (c.height - 1) * c.dstPitch + c.width)) return INVALID_VALUE;
	int rc = submit(st, [=] {
		for (size_t i = 0; i < c.height; i++) memmove(d + i * c.dstPitch, s + i * c.srcPitch, c.width);
		return OK;
	});
	return rc || !wait ? rc : drain();
}
API int cuMemcpy2D_v2(const copy2d *p) {
	ENTER_CONTEXT;
	return transfer2d(p, nullptr, true);
}
API int cuMemcpy2DUnaligned_v2(const copy2d *p) {
	ENTER_CONTEXT;
	return transfer2d(p, nullptr, true);
}
API int cuMemcpy2DAsync_v2(const copy2d *p, void *st) {
	ENTER_CONTEXT;
	return transfer2d(p, st, false);
}

template <class T> static int fill(DP d, size_t pitch, T v, size_t w, size_t h, void *st) {
	if (d % sizeof(T)) return INVALID_VALUE;
	if (w && h && !inside(d, (h - 1) * pitch + w * sizeof(T))) return INVALID_VALUE;
	return submit(st, [=] {
		for (size_t i = 0; i < h; i++) std::fill_n((T *)(d + i * pitch), w, v);
		return OK;
	});
}
#define MEMSET(bits, T)                                                                                                                   \
	API int cuMemsetD##bits##_v2(DP d, T v, size_t n) {                                                                                   \
		ENTER_CONTEXT;                                                                                                                    \
		return fill<T>(d, 0, v, n, 1, nullptr);                                                                                           \
	}                                                                                                                                     \
	API int cuMemsetD##bits##Async(DP d, T v, size_t n, void *st) {                                                                       \
		ENTER_CONTEXT;                                                                                                                    \
		return fill<T>(d, 0, v, n, 1, st);                                                                                                \
	}                                                                                                                                     \
	API int cuMemsetD2D##bits##_v2(DP d, size_t pitch, T v, size_t w, size_t h) {                                                         \
		ENTER_CONTEXT;                                                                                                                    \
		return fill<T>(d, pitch, v, w, h, nullptr);                                                                                       \
	}                                                                                                                                     \
	API int cuMemsetD2D##bits##Async(DP d, size_t pitch, T v, size_t w, size_t h, void *st) {                                             \
		ENTER_CONTEXT;                                                                                                                    \
		return fill<T>(d, pitch, v, w, h, st);                                                                                            \
	}
MEMSET(8, unsigned char)
MEMSET(16, unsigned short)
MEMSET(32, unsigned)

// ---- streams, events, graphs: one queue in the order of submission

template <class T> static int make(void **p) {
	*p = new T;
	live[*p] = 1;
	return OK;
}
template <class T> static int destroy(void *p) {
	if (!live.erase(p)) return INVALID_HANDLE;
	delete (T *)p;
	return OK;
}
API int cuStreamCreate(void **s, unsigned) {
	ENTER_CONTEXT;
	return make<stream>(s);
}
API int cuStreamCreateWithPriority(void **s, unsigned, int) {
	ENTER_CONTEXT;
	return make<stream>(s);
}
API int cuStreamDestroy_v2(void *s) {
	ENTER_CONTEXT;
	int rc = drain();
	return rc ? rc : destroy<stream>(s);
}
API int cuStreamSynchronize(void *s) {
	ENTER_CONTEXT;
	if (s && !live.count(s)) return INVALID_HANDLE;
	if (s && ((stream *)s)->capture) return 900; // CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
	return drain();
}
API int cuStreamQuery(void *) {
	ENTER_CONTEXT;
	return drain();
}
API int cuStreamWaitEvent(void *, void *, unsigned) {
	ENTER_CONTEXT;
	return OK;
}
API int cuStreamGetPriority(void *, int *p) {
	*p = 0;
	return OK;
}
API int cuStreamGetFlags(void *, unsigned *f) {
	*f = 1;
	return OK;
}
API int cuLaunchHostFunc(void *s, void (*f)(void *), void *arg) {
	ENTER_CONTEXT;
	return submit(s, [=] {
		f(arg);
		return OK;
	});
}
API int cuEventCreate(void **e, unsigned) {
	ENTER_CONTEXT;
	return make<event>(e);
}
API int cuEventDestroy_v2(void *e) {
	ENTER_CONTEXT;
	int rc = drain();
	return rc ? rc : destroy<event>(e);
}
API int cuEventRecord(void *e, void *s) {
	ENTER_CONTEXT;
	if (!live.count(e)) return INVALID_HANDLE;
	return submit(s, [=] {
		((event *)e)->t = now();
		return OK;
	});
}
API int cuEventSynchronize(void *e) {
	ENTER_CONTEXT;
	if (!live.count(e)) return INVALID_HANDLE;
	return drain();
}
API int cuEventQuery(void *e) {
	ENTER_CONTEXT;
	if (!live.count(e)) return INVALID_HANDLE;
	return drain();
}
API int cuEventElapsedTime(float *ms, void *a, void *b) {
	ENTER_CONTEXT;
	if (!live.count(a) || !live.count(b)) return INVALID_HANDLE;
	if (((event *)a)->t < 0 || ((event *)b)->t < 0) return queue.empty() ? INVALID_HANDLE : 600; // NOT_READY
	*ms = (float)(((event *)b)->t - ((event *)a)->t);
	return OK;
}
API int cuStreamBeginCapture_v2(void *s, int) {
	ENTER_CONTEXT;
	if (!s || !live.count(s)) return INVALID_HANDLE;
	if (((stream *)s)->capture) return 901;
	((stream *)s)->capture = new work;
	return OK;
}
API int cuStreamIsCapturing(void *s, int *status) {
	ENTER_CONTEXT;
	*status = s && ((stream *)s)->capture ? 1 : 0;
	return OK;
}
API int cuStreamEndCapture(void *s, void **g) {
	ENTER_CONTEXT;
	if (!s || !live.count(s) || !((stream *)s)->capture) return 901;
	*g = ((stream *)s)->capture;
	((stream *)s)->capture = nullptr;
	live[*g] = 1;
	return OK;
}
API int cuGraphInstantiateWithFlags(void **x, void *g, unsigned long long) {
	ENTER_CONTEXT;
	if (!live.count(g)) return INVALID_HANDLE;
	*x = new work(*(work *)g);
	live[*x] = 1;
	return OK;
}
API int cuGraphInstantiate_v2(void **x, void *g, void **, char *, size_t) { return cuGraphInstantiateWithFlags(x, g, 0); }
API int cuGraphLaunch(void *x, void *s) {
	ENTER_CONTEXT;
	if (!live.count(x)) return INVALID_HANDLE;
	work w = *(work *)x;
	return submit(s, [w] {
		for (auto &f : w)
			if (int rc = f()) return rc;
		return (int)OK;
	});
}
API int cuGraphDestroy(void *g) {
	ENTER_CONTEXT;
	return destroy<work>(g);
}
API int cuGraphExecDestroy(void *x) {
	ENTER_CONTEXT;
	return destroy<work>(x);
}

// ---- modules and launches

// library_for opens the kernels compiled for a target, which lie beside this
// library.
static kernel_library *library_for(const std::string &target) {
	auto it = libraries.find(target);
	if (it != libraries.end()) return it->second.find ? &it->second : nullptr;
	Dl_info me;
	dladdr((void *)cuInit, &me);
	std::string path = me.dli_fname;
	path = path.substr(0, path.rfind('/') + 1) + target + ".so";
	kernel_library &l = libraries[target];
	void *h = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
	if (!h) {
		fprintf(stderr, "cuemu: %s\n", dlerror());
		return nullptr;
	}
	l.run = (decltype(l.run))dlsym(h, "cuemu_run");
	l.find = (decltype(l.find))dlsym(h, "cuemu_find");
	return l.find ? &l : nullptr;
}

// parse finds the kernels of a PTX module, their parameters and the size of
// block that they were compiled for.
static void parse(const char *ptx, module *m) {
	for (const char *p = ptx; (p = strstr(p, ".entry ")); p++) {
		p += 7;
		std::string name(p, strcspn(p, "( \t\n"));
		entry e;
		const char *end = strchr(p, ')'), *open = strchr(p, '{');
		for (const char *q = p; (q = strstr(q, ".param")) && end && q < end; q++) e.params++;
		const char *mt = strstr(p, ".maxntid");
		if (mt && open && mt < open) {
			unsigned x = 1, y = 1, z = 1;
			sscanf(mt, ".maxntid %u, %u, %u", &x, &y, &z);
			e.max_threads = x * y * z;
		}
		m->entries[name] = e;
	}
}

// cuModuleLoadData takes PTX, or the words "cuemu sm80" for all kernels of that
// target.
API int cuModuleLoadData(void **out, const void *image) {
	ENTER_CONTEXT;
	const char *s = (const char *)image;
	int target = 0;
	bool any = sscanf(s, "cuemu sm%d", &target) == 1;
	if (!any) {
		const char *t = strstr(s, ".target sm_");
		if (!strstr(s, ".version") || !t) return INVALID_PTX;
		target = atoi(t + 11);
	}
	if (target > cc()) return any ? NO_BINARY : INVALID_PTX;
	kernel_library *lib = library_for("sm" + std::to_string(target));
	if (!lib) return NO_BINARY;
	module *m = new module;
	m->any = any, m->lib = lib;
	if (!any) parse(s, m);
	live[m] = 1;
	*out = m;
	return OK;
}
API int cuModuleLoadDataEx(void **m, const void *image, unsigned, int *, void **) { return cuModuleLoadData(m, image); }
API int cuModuleUnload(void *p) {
	ENTER_CONTEXT;
	if (!live.count(p)) return INVALID_HANDLE;
	int rc = drain();
	for (auto f : ((module *)p)->functions) delete f;
	destroy<module>(p);
	return rc;
}
struct found_kernel { // begins like cuemu::kernel
	const char *name;
	void *run;
	int args;
};
API int cuModuleGetFunction(void **out, void *p, const char *name) {
	ENTER_CONTEXT;
	if (!live.count(p)) return INVALID_HANDLE;
	module *m = (module *)p;
	auto it = m->entries.find(name);
	if (!m->any && it == m->entries.end()) return NOT_FOUND;
	found_kernel *k = (found_kernel *)m->lib->find(name);
	if (!k) return NOT_FOUND;
	if (!m->any && it->second.params != k->args) {
		fprintf(stderr, "cuemu: %s has %d parameters in the PTX and %d in the source: generate the PTX again\n", name, it->second.params, k->args);
		return NOT_FOUND;
	}
	function *f = new function{name, k, m->lib, k->args, m->any ? 0 : it->second.max_threads};
	m->functions.push_back(f);
	*out = f;
	return OK;
}
API int cuFuncSetAttribute(void *f, int a, int v) {
	ENTER_CONTEXT;
	if (a == 8) { // max dynamic shared memory
		if (v < 0 || v > max_shared()) return INVALID_VALUE;
		((function *)f)->dynamic = v;
	}
	return OK;
}
API int cuFuncGetAttribute(int *v, int a, void *f) {
	ENTER_CONTEXT;
	unsigned n = ((function *)f)->max_threads;
	*v = a == 0 ? (n ? (int)n : 1024) : a == 8 ? ((function *)f)->dynamic : 0;
	return OK;
}
API int cuFuncSetCacheConfig(void *, int) { return OK; }
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *, int threads, size_t shared) {
	int by_threads = 1536 / std::max(threads, 1), by_shared = shared ? 102400 / (int)(shared + 1024) : 16;
	*n = std::max(0, std::min(std::min(by_threads, by_shared), 16));
	return OK;
}
API int cuLaunchKernel(void *p, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *st,
					   void **args, void **extra) {
	ENTER_CONTEXT;
	if (!p || extra) return INVALID_VALUE;
	function *f = (function *)p;
	unsigned long threads = (unsigned long)bx * by * bz;
	if (!gx || !gy || !gz || !threads || gx > 0x7fffffffu || gy > 65535 || gz > 65535 || threads > 1024) return INVALID_VALUE;
	if (f->max_threads && threads > f->max_threads) return INVALID_VALUE;
	if ((int)shared > f->dynamic || (int)shared > max_shared()) return INVALID_VALUE;
	launches++;
	std::vector<uint64_t> slots(f->args);
	for (int i = 0; i < f->args; i++) slots[i] = *(uint64_t *)args[i];
	return submit(st, [=]() mutable {
		std::vector<void *> a(slots.size());
		for (size_t i = 0; i < a.size(); i++) a[i] = &slots[i];
		unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
		static uint32_t n;
		uint32_t seed = (uint32_t)env("MOOT_EMU_SEED", 0);
		if (seed) seed = seed * 2654435761u ^ ++n * 40503u, seed = seed ? seed : 1;
		if (env("MOOT_EMU_TRACE", 0)) fprintf(stderr, "cuemu: %s grid %u,%u,%u block %u,%u,%u shared %u\n", f->name.c_str(), gx, gy, gz, bx, by, bz, shared);
		int rc = f->lib->run(f->kernel, grid, block, shared, a.data(), seed, why, sizeof why);
		return rc ? fault(rc, why) : OK;
	});
}
