// rows.cu: rotary positions, and rows picked by index. src of moot_gather may
// be pinned memory of the host, which a kernel reads over the bus: only the
// rows that are asked for cross it.
#include "view.cuh"

// moot_rope turns pairs (x[j], x[j+half]) of each head, which is width columns
// wide; sign -1 turns back. Wide includes that half is a multiple of 8.
KERNEL void moot_rope(MATRIX(x), MATRIX(cosines), MATRIX(sines), const int *pos, long long rows, long long heads, long long width, long long half, double sign) {
	OPEN(x);
	OPEN(cosines);
	OPEN(sines);
	long long row, col;
	if (!place(x, rows, heads * half, row, col)) return;
	const long long head = (u32)col / (u32)half, j = col - head * half, at = head * width + j, p = pos[row];
	float a[8], b[8], c[8], s[8];
	get8(a, x, row, at);
	get8(b, x, row, at + half);
	get8(c, cosines, p, j);
	get8(s, sines, p, j);
	EACH(i, x) {
		const float u = a[i], v = b[i], t = s[i] * (float)sign;
		a[i] = u * c[i] - v * t;
		b[i] = v * c[i] + u * t;
	}
	put8(x, row, at, a);
	put8(x, row, at + half, b);
}

KERNEL void moot_gather(MATRIX(dst), MATRIX(src), const int *idx, long long rows, long long cols) {
	OPEN(dst);
	OPEN(src);
	long long row, col;
	if (!place(dst, rows, cols, row, col)) return;
	float v[8];
	get8(v, src, idx[row], col);
	put8(dst, row, col, v);
}

KERNEL void moot_scatter(MATRIX(dst), MATRIX(src), const int *idx, long long rows, long long cols) {
	OPEN(dst);
	OPEN(src);
	long long row, col;
	if (!place(dst, rows, cols, row, col)) return;
	float v[8];
	get8(v, src, row, col);
	put8(dst, idx[row], col, v);
}

// moot_scatter_add: row to[i] of dst gets rows order[starts[i]] to
// order[starts[i+1]-1] of src more, in this order. A thread has 8 values of a
// row of dst alone, so that nothing has to be atomic.
KERNEL void moot_scatter_add(MATRIX(dst), MATRIX(src), const int *to, const int *starts, const int *order, long long rows, long long cols) {
	OPEN(dst);
	OPEN(src);
	long long row, col;
	if (!place(dst, rows, cols, row, col)) return;
	float v[8], w[8];
	get8(v, dst, to[row], col);
	for (int k = starts[row]; k < starts[row + 1]; k++) {
		get8(w, src, order[k], col);
		EACH(i, dst) v[i] += w[i];
	}
	put8(dst, to[row], col, v);
}
