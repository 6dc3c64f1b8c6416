// elementwise.cu: operations on each value alone, 8 values a thread. They take
// as long as their memory traffic, so each is one pass over its operands.
#include "view.cuh"

KERNEL void moot_zero(MATRIX(m), long long rows, long long cols) {
	OPEN(m);
	long long row, col;
	if (!place(m, rows, cols, row, col)) return;
	const float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
	put8(m, row, col, v);
}

// moot_copy also converts, to the nearest bfloat16, the even one of two.
KERNEL void moot_copy(MATRIX(dst), MATRIX(src), long long rows, long long cols) {
	OPEN(dst);
	OPEN(src);
	long long row, col;
	if (!place(dst, rows, cols, row, col)) return;
	float v[8];
	get8(v, src, row, col);
	put8(dst, row, col, v);
}

KERNEL void moot_add(MATRIX(dst), MATRIX(src), long long rows, long long cols) {
	OPEN(dst);
	OPEN(src);
	long long row, col;
	if (!place(dst, rows, cols, row, col)) return;
	float v[8], w[8];
	get8(v, dst, row, col);
	get8(w, src, row, col);
	EACH(i, dst) v[i] += w[i];
	put8(dst, row, col, v);
}

KERNEL void moot_add_row(MATRIX(m), MATRIX(r), long long rows, long long cols) {
	OPEN(m);
	OPEN(r);
	long long row, col;
	if (!place(m, rows, cols, row, col)) return;
	float v[8], w[8];
	get8(v, m, row, col);
	get8(w, r, 0, col);
	EACH(i, m) v[i] += w[i];
	put8(m, row, col, v);
}

KERNEL void moot_scale(MATRIX(m), long long rows, long long cols, double by) {
	OPEN(m);
	long long row, col;
	if (!place(m, rows, cols, row, col)) return;
	float v[8];
	get8(v, m, row, col);
	EACH(i, m) v[i] *= (float)by;
	put8(m, row, col, v);
}

KERNEL void moot_clamp(MATRIX(m), long long rows, long long cols, double limit) {
	OPEN(m);
	long long row, col;
	if (!place(m, rows, cols, row, col)) return;
	const float most = (float)limit;
	float v[8];
	get8(v, m, row, col);
	EACH(i, m) v[i] = v[i] > most ? most : v[i] < -most ? -most : v[i]; // NaN stays
	put8(m, row, col, v);
}

// moot_clamp_back: what was limited holds the limit as y's type rounds it.
KERNEL void moot_clamp_back(MATRIX(d), MATRIX(y), long long rows, long long cols, double limit) {
	OPEN(d);
	OPEN(y);
	long long row, col;
	if (!place(d, rows, cols, row, col)) return;
	const float most = y.half ? bf2f(f2bf((float)limit)) : (float)limit;
	float v[8], w[8];
	get8(v, d, row, col);
	get8(w, y, row, col);
	EACH(i, d)
		if (w[i] <= -most || w[i] >= most) v[i] = 0.f;
	put8(d, row, col, v);
}

KERNEL void moot_soft_cap(MATRIX(m), long long rows, long long cols, double limit) {
	OPEN(m);
	long long row, col;
	if (!place(m, rows, cols, row, col)) return;
	const float most = (float)limit, inv = 1.f / most;
	float v[8];
	get8(v, m, row, col);
	EACH(i, m) v[i] = most * tanhf(v[i] * inv);
	put8(m, row, col, v);
}

KERNEL void moot_soft_cap_back(MATRIX(d), MATRIX(y), long long rows, long long cols, double limit) {
	OPEN(d);
	OPEN(y);
	long long row, col;
	if (!place(d, rows, cols, row, col)) return;
	const float inv = 1.f / (float)limit;
	float v[8], w[8];
	get8(v, d, row, col);
	get8(w, y, row, col);
	EACH(i, d) {
		const float t = w[i] * inv;
		v[i] *= 1.f - t * t;
	}
	put8(d, row, col, v);
}

KERNEL void moot_swiglu(MATRIX(out), MATRIX(gate), MATRIX(up), long long rows, long long cols) {
	OPEN(out);
	OPEN(gate);
	OPEN(up);
	long long row, col;
	if (!place(out, rows, cols, row, col)) return;
	float g[8], u[8];
	get8(g, gate, row, col);
	get8(u, up, row, col);
	EACH(i, out) u[i] *= g[i] / (1.f + expf(-g[i]));
	put8(out, row, col, u);
}

KERNEL void moot_swiglu_back(MATRIX(dout), MATRIX(gate), MATRIX(up), long long rows, long long cols) {
	OPEN(dout);
	OPEN(gate);
	OPEN(up);
	long long row, col;
	if (!place(dout, rows, cols, row, col)) return;
	float d[8], g[8], u[8];
	get8(d, dout, row, col);
	get8(g, gate, row, col);
	get8(u, up, row, col);
	EACH(i, dout) {
		const float s = 1.f / (1.f + expf(-g[i])), x = g[i];
		g[i] = d[i] * u[i] * (s * (1.f + x * (1.f - s)));
		u[i] = d[i] * (x * s);
	}
	put8(gate, row, col, g);
	put8(up, row, col, u);
}

// Both functions are x times a distribution function: the normal one, or the
// logistic one of geluA*x + geluB*x^3.
#define geluA 1.5957691216057308f
#define geluB 0.07135481282580394f

DEVICE float normal(float x) { return 0.5f * erfcf(x * -0.7071067811865476f); }
DEVICE float logistic(float x) { return 1.f / (1.f + expf(-x * (geluA + geluB * x * x))); }

KERNEL void moot_gelu(MATRIX(out), MATRIX(x), MATRIX(up), long long rows, long long cols, long long tanh) {
	OPEN(out);
	OPEN(x);
	OPEN(up);
	long long row, col;
	if (!place(out, rows, cols, row, col)) return;
	float v[8];
	get8(v, x, row, col);
	EACH(i, out) v[i] *= tanh ? logistic(v[i]) : normal(v[i]);
	if (up.at) {
		float u[8];
		get8(u, up, row, col);
		EACH(i, out) v[i] *= u[i];
	}
	put8(out, row, col, v);
}

KERNEL void moot_gelu_back(MATRIX(dout), MATRIX(x), MATRIX(up), long long rows, long long cols, long long tanh) {
	OPEN(dout);
	OPEN(x);
	OPEN(up);
	long long row, col;
	if (!place(dout, rows, cols, row, col)) return;
	float d[8], v[8], u[8];
	get8(d, dout, row, col);
	get8(v, x, row, col);
	if (up.at) get8(u, up, row, col);
	EACH(i, dout) {
		const float y = v[i];
		float p, slope;
		if (tanh) {
			p = logistic(y);
			slope = p * (1.f - p);
			slope = slope > 0.f ? p + y * slope * (geluA + 3.f * geluB * y * y) : p; // y*y may be infinite
		} else {
			p = normal(y);
			slope = p + y * (0.3989422804014327f * expf(-0.5f * y * y));
		}
		v[i] = d[i] * slope;
		if (up.at) {
			v[i] *= u[i];
			u[i] = d[i] * (y * p);
		}
	}
	put8(x, row, col, v);
	if (up.at) put8(up, row, col, u);
}
