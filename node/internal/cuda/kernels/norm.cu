// norm.cu: RMS norm and layer norm. A row is worked on by one warp where it is
// short (the norms of heads have many short rows), else by the whole block.
//
// The derivatives by weights are sums along rows. They are made in two stages,
// both in a fixed order: parts of rows, by moot_sum_*, into memory of
// (parts,cols), and the sum of those, by moot_sum_parts.
#include "view.cuh"

// row_place finds the row of a thread, and which of the row's threads it is. Rows
// that do not exist have threads too: those of a warp leave together.
DEVICE bool row_place(long long rows, bool whole, long long &row, int &i, int &step) {
	row = whole ? (long long)blockIdx.x : (long long)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
	i = whole ? threadIdx.x : threadIdx.x & 31;
	step = whole ? blockDim.x : 32;
	return row < rows;
}

KERNEL void moot_rmsnorm(MATRIX(out), MATRIX(inv), MATRIX(x), MATRIX(w), long long rows, long long cols, double eps, long long plus_one, long long whole) {
	OPEN(out);
	OPEN(inv);
	OPEN(x);
	OPEN(w);
	SHARED float scratch[32];
	long long row;
	int lane, step;
	if (!row_place(rows, whole, row, lane, step)) return;
	float v[8], s = 0.f;
	for (long long c = lane * x.step(); c < cols; c += step * x.step()) {
		get8(v, x, row, c);
		EACH(i, x) s += v[i] * v[i];
	}
	const float r = 1.f / sqrtf(rows_sum(s, whole, scratch) / (float)cols + (float)eps);
	if (lane == 0) put(inv, row, 0, r);
	const float one = plus_one ? 1.f : 0.f;
	for (long long c = lane * x.step(); c < cols; c += step * x.step()) {
		float u[8];
		get8(v, x, row, c);
		get8(u, w, 0, c);
		EACH(i, x) v[i] = v[i] * r * (u[i] + one);
		put8(out, row, c, v);
	}
}

// With xh = x*inv and g = dout*w, dx gets inv * (g - xh * mean(g*xh)) more.
KERNEL void moot_rmsnorm_back(MATRIX(dx), MATRIX(dout), MATRIX(x), MATRIX(inv), MATRIX(w), long long rows, long long cols, long long plus_one, long long whole) {
	OPEN(dx);
	OPEN(dout);
	OPEN(x);
	OPEN(inv);
	OPEN(w);
	SHARED float scratch[32];
	long long row;
	int lane, step;
	if (!row_place(rows, whole, row, lane, step)) return;
	const float r = get(inv, row, 0), one = plus_one ? 1.f : 0.f;
	float v[8], g[8], u[8], s = 0.f;
	for (long long c = lane * x.step(); c < cols; c += step * x.step()) {
		get8(v, x, row, c);
		get8(g, dout, row, c);
		get8(u, w, 0, c);
		EACH(i, x) s += g[i] * (u[i] + one) * v[i];
	}
	const float mean = rows_sum(s, whole, scratch) * r / (float)cols;
	for (long long c = lane * x.step(); c < cols; c += step * x.step()) {
		float d[8];
		get8(v, x, row, c);
		get8(g, dout, row, c);
		get8(u, w, 0, c);
		get8(d, dx, row, c);
		EACH(i, x) d[i] += r * (g[i] * (u[i] + one) - v[i] * r * mean);
		put8(dx, row, c, d);
	}
}

KERNEL void moot_layernorm(MATRIX(out), MATRIX(stats), MATRIX(x), MATRIX(w), MATRIX(bias), long long rows, long long cols, double eps, long long whole) {
	OPEN(out);
	OPEN(stats);
	OPEN(x);
	OPEN(w);
	OPEN(bias);
	SHARED float scratch[32];
	long long row;
	int lane, step;
	if (!row_place(rows, whole, row, lane, step)) return;
	float v[8], s = 0.f;
	for (long long c = lane * x.step(); c < cols; c += step * x.step()) {
		get8(v, x, row, c);
		EACH(i, x) s += v[i];
	}
	const float mean = rows_sum(s, whole, scratch) / (float)cols;
	s = 0.f; // of differences from the mean: nothing cancels
	for (long long c = lane * x.step(); c < cols; c += step * x.step()) {
		get8(v, x, row, c);
		EACH(i, x) s += (v[i] - mean) * (v[i] - mean);
	}
	const float r = 1.f / sqrtf(rows_sum(s, whole, scratch) / (float)cols + (float)eps);
	if (lane == 0) {
		put(stats, row, 0, mean);
		put(stats, row, 1, r);
	}
	for (long long c = lane * x.step(); c < cols; c += step * x.step()) {
		float u[8], b[8] = {0, 0, 0, 0, 0, 0, 0, 0};
		get8(v, x, row, c);
		get8(u, w, 0, c);
		if (bias.at) get8(b, bias, 0, c);
		EACH(i, x) v[i] = (v[i] - mean) * r * u[i] + b[i];
		put8(out, row, c, v);
	}
}

// With xh = (x-mean)*inv and g = dout*w, dx gets
// inv * (g - mean(g) - xh * mean(g*xh)) more.
KERNEL void moot_layernorm_back(MATRIX(dx), MATRIX(dout), MATRIX(x), MATRIX(stats), MATRIX(w), long long rows, long long cols, long long whole) {
	OPEN(dx);
	OPEN(dout);
	OPEN(x);
	OPEN(stats);
	OPEN(w);
	SHARED float scratch[32];
	long long row;
	int lane, step;
	if (!row_place(rows, whole, row, lane, step)) return;
	const float mean = get(stats, row, 0), r = get(stats, row, 1);
	float v[8], g[8], u[8], s = 0.f, p = 0.f;
	for (long long c = lane * x.step(); c < cols; c += step * x.step()) {
		get8(v, x, row, c);
		get8(g, dout, row, c);
		get8(u, w, 0, c);
		EACH(i, x) {
			s += g[i] * u[i];
			p += g[i] * u[i] * (v[i] - mean);
		}
	}
	const float shift = rows_sum(s, whole, scratch) / (float)cols, slope = rows_sum(p, whole, scratch) / (float)cols * r * r;
	for (long long c = lane * x.step(); c < cols; c += step * x.step()) {
		float d[8];
		get8(v, x, row, c);
		get8(g, dout, row, c);
		get8(u, w, 0, c);
		get8(d, dx, row, c);
		EACH(i, x) d[i] += r * (g[i] * u[i] - shift - (v[i] - mean) * slope);
		put8(dx, row, c, d);
	}
}

// A block adds the rows of part blockIdx.y in 32 columns: 8 threads a column,
// each every eighth row, and then those 8 sums.
template <class F> DEVICE void sum_part(float *parts, long long rows, long long cols, long long part, F value) {
	SHARED float sums[8][33];
	const int tx = threadIdx.x & 31, ty = threadIdx.x >> 5;
	const long long col = (long long)blockIdx.x * 32 + tx, from = blockIdx.y * part, to = from + part < rows ? from + part : rows;
	float s = 0.f;
	if (col < cols)
		for (long long row = from + ty; row < to; row += 8) s += value(row, col);
	sums[ty][tx] = s;
	__syncthreads();
	if (ty || col >= cols) return;
	for (int i = 1; i < 8; i++) s += sums[i][tx];
	parts[blockIdx.y * cols + col] = s;
}

KERNEL void moot_sum_rows(float *parts, MATRIX(m), long long rows, long long cols, long long part) {
	OPEN(m);
	sum_part(parts, rows, cols, part, [&](long long row, long long col) { return get(m, row, col); });
}

KERNEL void moot_sum_rmsnorm(float *parts, MATRIX(dout), MATRIX(x), MATRIX(inv), long long rows, long long cols, long long part) {
	OPEN(dout);
	OPEN(x);
	OPEN(inv);
	sum_part(parts, rows, cols, part, [&](long long row, long long col) { return get(dout, row, col) * (get(x, row, col) * get(inv, row, 0)); });
}

KERNEL void moot_sum_layernorm(float *parts, MATRIX(dout), MATRIX(x), MATRIX(stats), long long rows, long long cols, long long part) {
	OPEN(dout);
	OPEN(x);
	OPEN(stats);
	sum_part(parts, rows, cols, part, [&](long long row, long long col) {
		return get(dout, row, col) * ((get(x, row, col) - get(stats, row, 0)) * get(stats, row, 1));
	});
}

// moot_sum_parts adds the sum of n parts to row r.
KERNEL void moot_sum_parts(MATRIX(r), const float *parts, long long n, long long cols) {
	OPEN(r);
	const long long col = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (col >= cols) return;
	float s = 0.f;
	for (long long i = 0; i < n; i++) s += parts[i * cols + col];
	put(r, 0, col, get(r, 0, col) + s);
}
