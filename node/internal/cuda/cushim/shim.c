/* Every function of the CUDA driver API that this program is linked with, each
 * a jump to where moot_cuda_open found it in the driver's library. So the
 * program needs no library to start.
 *
 * Before moot_cuda_open, and where a driver lacks a function, it returns an
 * error; cuInit alone, which gorgonia.org/cu calls as it is loaded and ends the
 * process if it fails, does nothing and reports success. */
#include "shim.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#ifdef _WIN32

#include <windows.h>
#define USED __attribute__((used))

static void *library(const char *name) {
	return (void *)LoadLibraryExA(name, NULL, strpbrk(name, "/\\") ? 0 : LOAD_LIBRARY_SEARCH_SYSTEM32);
}

static void *symbol(void *lib, const char *name) { return (void *)GetProcAddress((HMODULE)lib, name); }

static void reason(const char *name, char *text, int size) { snprintf(text, size, "%s: error %lu", name, GetLastError()); }

static const char *const usual[] = {"nvcuda.dll"};

#else

#include <dlfcn.h>
#define USED __attribute__((visibility("hidden"), used))

static void *library(const char *name) { return dlopen(name, RTLD_NOW | RTLD_LOCAL); }

static void *symbol(void *lib, const char *name) { return dlsym(lib, name); }

static void reason(const char *name, char *text, int size) {
	const char *why = dlerror();
	snprintf(text, size, "%s", why ? why : name);
}

/* Windows' Linux, containers and NixOS keep it outside the linker's path. */
static const char *const usual[] = {
	"libcuda.so.1",
	"/usr/lib/wsl/lib/libcuda.so.1",
	"/usr/local/nvidia/lib64/libcuda.so.1",
	"/run/opengl-driver/lib/libcuda.so.1",
};

#endif

#define COUNT(list) ((int)(sizeof(list) / sizeof(*(list))))

void *moot_library_open(const char *const *names, int n, char *text, int size) {
	for (int i = 0; i < n; i++) {
		void *lib = library(names[i]);
		if (lib)
			return lib;
		if (i == 0) /* the others are guesses */
			reason(names[i], text, size);
	}
	return NULL;
}

void *moot_library_symbol(void *lib, const char *name) { return symbol(lib, name); }

static int closed = 3; /* CUDA_ERROR_NOT_INITIALIZED */

static int unopened(void) { return closed; }

static int absent(void) { return 500; } /* CUDA_ERROR_NOT_FOUND */

#define X(name) USED void *moot_at_##name = (void *)unopened;
#include "symbols.h"
#undef X

#if defined(__x86_64__)
#define JUMP(name) "\tjmp *moot_at_" #name "(%rip)\n"
#elif defined(__aarch64__)
#define JUMP(name) "\tadrp x16, moot_at_" #name "\n\tldr x16, [x16, :lo12:moot_at_" #name "]\n\tbr x16\n"
#else
#error "cushim: no jump for this processor"
#endif

#define X(name) __asm__(".text\n.p2align 4\n.globl " #name "\n" #name ":\n" JUMP(name));
#include "symbols.h"
#undef X

static const struct {
	const char *name;
	void **at;
} functions[] = {
#define X(name) {#name, &moot_at_##name},
#include "symbols.h"
#undef X
};

int cuInit(unsigned int flags) {
	(void)flags;
	return 0;
}

int moot_cuda_open(const char *path, char *text, int size) {
	text[0] = 0;
	void *lib = *path ? moot_library_open(&path, 1, text, size) : moot_library_open(usual, COUNT(usual), text, size);
	if (!lib)
		return MOOT_NO_LIBRARY;
	int (*init)(unsigned int) = (int (*)(unsigned int))symbol(lib, "cuInit");
	if (!init) {
		snprintf(text, size, "the library has no cuInit");
		return MOOT_NO_ENTRY;
	}
	int result = init(0);
	if (result != 0)
		return closed = result;
	for (int i = 0; i < COUNT(functions); i++) {
		void *f = symbol(lib, functions[i].name);
		*functions[i].at = f ? f : (void *)absent;
	}
	return 0;
}
