/* moot_cuda_open loads the driver's library (path, or with "" the usual ones)
 * and starts it. It returns 0, or the CUresult of what failed, MOOT_NO_LIBRARY,
 * or MOOT_NO_ENTRY; text says more. */
#define MOOT_NO_LIBRARY -1
#define MOOT_NO_ENTRY -2
int moot_cuda_open(const char *path, char *text, int size);

/* moot_library_open returns the first of n libraries that is there, or NULL. */
void *moot_library_open(const char *const *names, int n, char *text, int size);
void *moot_library_symbol(void *library, const char *name);
