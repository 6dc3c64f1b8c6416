/* An NVML with one device, for tests. */
#include <stdlib.h>
#include <string.h>

int nvmlInit_v2(void) { return 0; }

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
	strncpy(text, "599.1", size);
	return 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
	*device = (void *)bus;
	return strcmp(bus, "00000000:01:00.0") ? 6 : 0;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *value) {
	*value = 61;
	return sensor;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *value) {
	*value = 123400;
	return 0;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *value) {
	value[0] = 87;
	value[1] = 12;
	return 0;
}

int nvmlDeviceGetFanSpeed(void *device, unsigned *value) { return 3; /* not supported */ }

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *value) {
	value[0] = 8ULL << 30;
	value[1] = 5ULL << 30;
	value[2] = 3ULL << 30;
	return 0;
}

struct process {
	unsigned pid;
	unsigned long long used;
	unsigned gpu_instance, compute_instance;
};

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *list) {
	if (*count < 2)
		return 7; /* too small */
	list[0] = (struct process){4000, 1ULL << 30};
	list[1] = (struct process){4001, getenv("FAKE_NVML_KNOWN") ? 7 : ~0ULL}; /* all ones: not known */
	*count = 2;
	return 0;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process *list) {
	list[0] = (struct process){4000, 2ULL << 30}; /* does both */
	list[1] = (struct process){4002, 5};
	*count = 2;
	return 0;
}

struct share {
	unsigned pid;
	unsigned long long time;
	unsigned sm, memory, encoder, decoder;
};

int nvmlDeviceGetProcessUtilization(void *device, struct share *list, unsigned *count, unsigned long long since) {
	if (since >= 1000)
		return 6; /* nothing since then */
	list[0] = (struct share){4000, 900, 40};
	list[1] = (struct share){4000, 1000, 55};
	list[2] = (struct share){4002, 950, 4000000}; /* garbage, as some drivers give it */
	list[3] = (struct share){9999, 980, 50};
	*count = 4;
	return 0;
}
