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

static struct {
	int (*init)(void);
	int (*version)(char *, unsigned);
	int (*device)(const char *, device *);
	int (*temperature)(device, int, unsigned *);
	int (*power)(device, unsigned *);
	int (*limit)(device, unsigned *);
	int (*utilisation)(device, unsigned *);
	int (*fan)(device, unsigned *);
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
	};
	for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
		void *f = moot_library_symbol(lib, functions[i].name);
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
