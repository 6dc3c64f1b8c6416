/* An NVML with one device, for tests. */
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
