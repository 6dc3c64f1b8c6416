/* moot_nvml_open loads NVML, as moot_cuda_open loads the driver's library. */
int moot_nvml_open(const char *path, char *text, int size);
int moot_nvml_version(char *text, int size);

/* What could not be read is -1. */
struct moot_sensors {
	int celsius, milliwatts, limit, busy, fan;
};
int moot_nvml_read(const char *bus, struct moot_sensors *s);

/* What processes do on a device. */
#define MOOT_PROCESSES 128
#define MOOT_NVML_NOT_FOUND 6
struct moot_process {
	unsigned pid;
	long long used; /* bytes, -1: not known */
	int share;      /* percent of the time since the last question, -1: none */
};
struct moot_use {
	long long total, used;   /* bytes, -1: not known */
	int processes;           /* -1: not known */
	int shares;              /* whether shares are known */
	unsigned long long time; /* of the newest sample, for the next question */
	struct moot_process process[MOOT_PROCESSES];
};
int moot_nvml_use(const char *bus, unsigned long long since, struct moot_use *u);
