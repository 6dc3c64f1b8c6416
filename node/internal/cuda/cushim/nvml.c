/* The few functions of NVML, NVIDIA's library for watching its devices, that
 * tell how a device is. It comes with the driver; without it, or without one of
 * the functions, what it would say is not known. */
#include "nvml.h"

#include "shim.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#ifdef _WIN32
static const char *const names[] = {"nvml.dll"};
#else
static const char *const names[] = {
	"libnvidia-ml.so.1",
	"/usr/lib/wsl/lib/libnvidia-ml.so.1",
	"/usr/local/nvidia/lib64/libnvidia-ml.so.1",
	"/run/opengl-driver/lib/libnvidia-ml.so.1",
};
#endif

typedef struct device *device;

/* nvmlMemory_t, nvmlProcessInfo_v2_t, nvmlProcessUtilizationSample_t */
struct memory {
	unsigned long long total, free, used;
};
struct process {
	unsigned pid;
	unsigned long long used; /* all ones: not known */
	unsigned gpu_instance, compute_instance;
};
struct share {
	unsigned pid;
	unsigned long long time;
	unsigned sm, memory, encoder, decoder;
};

static struct {
	int (*init)(void);
	int (*version)(char *, unsigned);
	int (*device)(const char *, device *);
	int (*temperature)(device, int, unsigned *);
	int (*power)(device, unsigned *);
	int (*limit)(device, unsigned *);
	int (*utilisation)(device, unsigned *);
	int (*fan)(device, unsigned *);
	int (*memory)(device, struct memory *);
	int (*compute)(device, unsigned *, struct process *);
	int (*graphics)(device, unsigned *, struct process *);
	int (*shares)(device, struct share *, unsigned *, unsigned long long);
} nvml;

int moot_nvml_open(const char *path, char *text, int size) {
	void *lib = *path ? moot_library_open(&path, 1, text, size)
					  : moot_library_open(names, (int)(sizeof(names) / sizeof(*names)), text, size);
	if (!lib)
		return MOOT_NO_LIBRARY;
	static const struct {
		const char *name;
		void *at;
	} functions[] = {
		{"nvmlInit_v2", &nvml.init},
		{"nvmlSystemGetDriverVersion", &nvml.version},
		{"nvmlDeviceGetHandleByPciBusId_v2", &nvml.device},
		{"nvmlDeviceGetTemperature", &nvml.temperature},
		{"nvmlDeviceGetPowerUsage", &nvml.power},
		{"nvmlDeviceGetEnforcedPowerLimit", &nvml.limit},
		{"nvmlDeviceGetUtilizationRates", &nvml.utilisation},
		{"nvmlDeviceGetFanSpeed", &nvml.fan},
		{"nvmlDeviceGetMemoryInfo", &nvml.memory},
		/* _v3 and _v2 have the same struct; the first one has another. */
		{"nvmlDeviceGetComputeRunningProcesses_v2", &nvml.compute},
		{"nvmlDeviceGetGraphicsRunningProcesses_v2", &nvml.graphics},
		{"nvmlDeviceGetComputeRunningProcesses_v3", &nvml.compute},
		{"nvmlDeviceGetGraphicsRunningProcesses_v3", &nvml.graphics},
		{"nvmlDeviceGetProcessUtilization", &nvml.shares},
	};
	for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
		void *f = moot_library_symbol(lib, functions[i].name);
		if (f)
			memcpy(functions[i].at, &f, sizeof f);
	}
	if (!nvml.init) {
		snprintf(text, size, "the library has no nvmlInit_v2");
		return MOOT_NO_ENTRY;
	}
	return nvml.init();
}

int moot_nvml_version(char *text, int size) { return nvml.version ? nvml.version(text, size) : MOOT_NO_ENTRY; }

int moot_nvml_read(const char *bus, struct moot_sensors *s) {
	device d;
	unsigned v[2];
	s->celsius = s->milliwatts = s->limit = s->busy = s->fan = -1;
	if (!nvml.device)
		return MOOT_NO_ENTRY;
	int err = nvml.device(bus, &d);
	if (err)
		return err;
	if (nvml.temperature && nvml.temperature(d, 0, v) == 0)
		s->celsius = v[0];
	if (nvml.power && nvml.power(d, v) == 0)
		s->milliwatts = v[0];
	if (nvml.limit && nvml.limit(d, v) == 0)
		s->limit = v[0];
	if (nvml.utilisation && nvml.utilisation(d, v) == 0)
		s->busy = v[0];
	if (nvml.fan && nvml.fan(d, v) == 0)
		s->fan = v[0];
	return 0;
}

/* list adds processes to out, each once with the most that it holds. */
static int list(int (*ask)(device, unsigned *, struct process *), device d, struct moot_process *out, int n, int most) {
	struct process found[MOOT_PROCESSES];
	unsigned count = MOOT_PROCESSES;
	if (!ask || ask(d, &count, found))
		return n;
	for (unsigned i = 0; i < count && i < MOOT_PROCESSES; i++) {
		long long used = found[i].used == ~0ULL ? -1 : (long long)found[i].used;
		int at = 0;
		while (at < n && out[at].pid != found[i].pid)
			at++;
		if (at == most)
			return n;
		if (at == n)
			out[n++] = (struct moot_process){found[i].pid, used, -1};
		else if (used > out[at].used)
			out[at].used = used;
	}
	return n;
}

int moot_nvml_use(const char *bus, unsigned long long since, struct moot_use *u) {
	device d;
	struct memory m;
	u->total = u->used = -1;
	u->processes = -1;
	u->shares = 0;
	u->time = since;
	if (!nvml.device)
		return MOOT_NO_ENTRY;
	int err = nvml.device(bus, &d);
	if (err)
		return err;
	if (nvml.memory && nvml.memory(d, &m) == 0) {
		u->total = (long long)m.total;
		u->used = (long long)m.used;
	}
	if (!nvml.compute && !nvml.graphics)
		return 0;
	u->processes = list(nvml.compute, d, u->process, 0, MOOT_PROCESSES);
	u->processes = list(nvml.graphics, d, u->process, u->processes, MOOT_PROCESSES);
	struct share found[MOOT_PROCESSES];
	unsigned count = MOOT_PROCESSES;
	if (!nvml.shares || (err = nvml.shares(d, found, &count, since)) && err != MOOT_NVML_NOT_FOUND)
		return 0;
	u->shares = 1; /* NOT_FOUND: nobody computed */
	for (unsigned i = 0; !err && i < count && i < MOOT_PROCESSES; i++) {
		if (found[i].time > u->time)
			u->time = found[i].time;
		for (int at = 0; at < u->processes; at++) {
			/* Some drivers give garbage beside the samples that they have. */
			if (u->process[at].pid == found[i].pid && found[i].sm <= 100 && (int)found[i].sm > u->process[at].share)
				u->process[at].share = (int)found[i].sm;
		}
	}
	return 0;
}
