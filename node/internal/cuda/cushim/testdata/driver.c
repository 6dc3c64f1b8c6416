/* A driver for tests: cuInit returns FAKE_INIT, and there is little else. */
#include <stdlib.h>

int cuInit(unsigned flags) { return atoi(getenv("FAKE_INIT")); }

int cuDeviceGetCount(int *n) {
	*n = 3;
	return 0;
}
