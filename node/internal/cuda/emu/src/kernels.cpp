// The end of a library of kernels: what the emulated driver calls in it.
#include "cuemu.h"
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#define API extern "C" __attribute__((visibility("default")))

API const cuemu::kernel *cuemu_find(const char *name) {
	for (auto &k : cuemu::registry)
		if (!strcmp(k.name, name)) return &k;
	return nullptr;
}

// A fault in a kernel ends the kernel, not the process.
static struct sigaction old_segv, old_bus, old_fpe;
static pthread_t running;
static void *fault_address;
static int fault_signal;

static void faulted() {
	if (fault_signal == SIGFPE) cuemu::fail(719, "integer division by zero");
	cuemu::fail(700, "illegal address %p", fault_address);
}

static void on_fault(int sig, siginfo_t *info, void *context) {
	if (!pthread_equal(pthread_self(), running)) {
		struct sigaction &old = sig == SIGSEGV ? old_segv : sig == SIGBUS ? old_bus : old_fpe;
		if (old.sa_flags & SA_SIGINFO)
			old.sa_sigaction(sig, info, context);
		else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN)
			old.sa_handler(sig);
		return;
	}
	fault_address = info->si_addr, fault_signal = sig;
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	uintptr_t sp = ((uintptr_t)r[REG_RSP] - 512) & ~(uintptr_t)15; // below the red zone
	r[REG_RSP] = (greg_t)(sp - 8);								   // as after a call
	r[REG_RIP] = (greg_t)faulted;
}

API int cuemu_run(const cuemu::kernel *k, const unsigned *grid, const unsigned *block, size_t shared, void **args, uint32_t seed, char *why,
				  size_t size) {
	struct sigaction sa = {};
	sa.sa_sigaction = on_fault, sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	running = pthread_self();
	sigaction(SIGSEGV, &sa, &old_segv), sigaction(SIGBUS, &sa, &old_bus), sigaction(SIGFPE, &sa, &old_fpe);
	cuemu::S.seed = seed;
	int rc = k->run(k->name, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, args);
	sigaction(SIGSEGV, &old_segv, nullptr), sigaction(SIGBUS, &old_bus, nullptr), sigaction(SIGFPE, &old_fpe, nullptr);
	if (rc) snprintf(why, size, "%s", cuemu::S.why);
	return rc;
}

// -fsanitize=alignment calls this instead of going on, as a device would not
// either.
struct ubsan_type {
	uint16_t kind, info;
	char name[1];
};
struct ubsan_mismatch {
	const char *file;
	uint32_t line, column;
	const ubsan_type *type;
	uint8_t log_align, check;
};
API void __ubsan_handle_type_mismatch_v1(ubsan_mismatch *m, uintptr_t p) {
	cuemu::fail(716, "%s:%u: misaligned address %#lx of %s, which needs %d", m->file, m->line, (unsigned long)p, m->type->name, 1 << m->log_align);
}
API void __ubsan_handle_type_mismatch_v1_abort(ubsan_mismatch *m, uintptr_t p) { __ubsan_handle_type_mismatch_v1(m, p); }
