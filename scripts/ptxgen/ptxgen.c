/* ptxgen LIBRARY SOURCE.cu OUTPUT.ptx OPTION...: compiles CUDA C++ to PTX with
 * NVRTC, which is one library: no toolkit, no header of it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct program *program;

static void *library;

static void *need(const char *name) {
	void *f = dlsym(library, name);
	if (!f) {
		fprintf(stderr, "ptxgen: %s\n", dlerror());
		exit(1);
	}
	return f;
}

static char *slurp(const char *path) {
	FILE *f = fopen(path, "rb");
	char *text = NULL;
	size_t n = 0, got;
	if (!f) {
		perror(path);
		exit(1);
	}
	do {
		text = realloc(text, n + 65537);
		got = fread(text + n, 1, 65536, f);
		n += got;
	} while (got > 0);
	fclose(f);
	text[n] = 0;
	return text;
}

int main(int argc, char **argv) {
	if (argc < 4) {
		fprintf(stderr, "usage: ptxgen LIBRARY SOURCE.cu OUTPUT.ptx OPTION...\n");
		return 2;
	}
	library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
	if (!library) {
		fprintf(stderr, "ptxgen: %s\n", dlerror());
		return 1;
	}
	int (*create)(program *, const char *, const char *, int, const char *const *, const char *const *) = need("nvrtcCreateProgram");
	int (*compile)(program, int, const char *const *) = need("nvrtcCompileProgram");
	int (*size)(program, size_t *) = need("nvrtcGetPTXSize"), (*get)(program, char *) = need("nvrtcGetPTX");
	int (*log_size)(program, size_t *) = need("nvrtcGetProgramLogSize"), (*get_log)(program, char *) = need("nvrtcGetProgramLog");

	const char *name = strrchr(argv[2], '/');
	program p;
	size_t n;
	int err = create(&p, slurp(argv[2]), name ? name + 1 : argv[2], 0, NULL, NULL);
	if (err == 0)
		err = compile(p, argc - 4, (const char *const *)argv + 4);
	if (log_size(p, &n) == 0 && n > 1) {
		char *text = calloc(1, n + 1);
		if (get_log(p, text) == 0)
			fprintf(stderr, "%s\n", text);
	}
	if (err != 0 || size(p, &n) != 0) {
		fprintf(stderr, "ptxgen: %s: NVRTC error %d\n", argv[2], err);
		return 1;
	}
	char *ptx = calloc(1, n + 1);
	FILE *out = fopen(argv[3], "wb");
	if (!out || get(p, ptx) != 0 || fwrite(ptx, 1, n - 1, out) != n - 1 || fclose(out) != 0) {
		perror(argv[3]);
		return 1;
	}
	return 0;
}
