/* moot_nvml_open loads NVML, as moot_cuda_open loads the driver's library. */
int moot_nvml_open(const char *path, char *text, int size);
int moot_nvml_version(char *text, int size);

/* What could not be read is -1. */
struct moot_sensors {
	int celsius, milliwatts, limit, busy, fan;
};
int moot_nvml_read(const char *bus, struct moot_sensors *s);
