// attention.cuh: what the kernels of attention have in common.
//
// A block works on a piece of a span, some of its queries or of its keys, and
// one head. The pieces are an array of 8 ints for each block (see pieces in
// attention.go), longest first.
#pragma once
#include "view.cuh"

struct piece {
	int first;      // query or key of the span that the piece begins with
	int q, qlen;    // rows of the span's queries
	int k, klen;    // and of its keys
};

DEVICE piece piece_of(const int *list) {
	const int *p = list + 8LL * blockIdx.x;
	const piece r = {p[0], p[1], p[2], p[3], p[4]};
	return r;
}

// own is the key at the position of a query.
DEVICE int own_key(const piece &p, int query) { return p.klen - p.qlen + query; }

// sees reports whether a query whose own key is own sees a key.
DEVICE bool sees(int own, int key, int window) { return key <= own && (!window || key > own - window); }

// first_key is the first key that a query sees.
DEVICE int first_key(int own, int window) { return window && own >= window ? own - window + 1 : 0; }

// capped is not inlined: tanhf is long.
static __device__ __noinline__ float capped(float s) { return tanhf(s); }

// score is what softmax is taken of; slope is the derivative of the soft cap.
DEVICE float score(float s, float scale, float cap, float alibi, int own, int key, float &slope) {
	s *= scale;
	slope = 1.f;
	if (cap != 0.f) {
		const float t = capped(s / cap);
		s = cap * t;
		slope = 1.f - t * t;
	}
	return s + alibi * (float)(key - own);
}

#define ATTENTION MATRIX(q), MATRIX(k), MATRIX(v), MATRIX(out), MATRIX(lse), const int *pieces, long long group, long long hd, double scale, long long window, double cap, const float *slopes
