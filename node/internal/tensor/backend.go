package tensor

// Backend computes. Its methods are called from one goroutine at a time; each
// returns when its result can be used by the next one. Shapes that do not fit
// are bugs of the caller and panic. Outputs do not overlap inputs unless an
// operation says so.
//
// A backend is deterministic: the same calls on the same values give the same
// bits, whatever the number of threads.
type Backend interface {
	// Alloc returns n zeros in float32.
	Alloc(n int) *Buffer
	// AllocActivations returns n zeros for what passes through the layers of a
	// model, or for derivatives by it. A backend may keep these in 16 bits.
	AllocActivations(n int) *Buffer
	// Free gives back memory that nothing uses any more; nil is no memory. It
	// need not be called: closing a backend gives all back.
	Free(b *Buffer)
	// Pack returns a buffer of the values of p, which belong to it from then
	// on. It can be read by Download, by Gather and as b of MatMul, with the
	// same results, to the bit, as one of the same values in float32 (on a
	// backend whose products are of 16 bits, of these values rounded); nothing
	// else takes it.
	Pack(p Packed) *Buffer
	// PackHost is Pack for values that MatMul does not take: a backend
	// elsewhere may leave them in the host's memory.
	PackHost(p Packed) *Buffer
	// Upload copies src, dense, to dst; Download copies src to dst, dense.
	Upload(dst Mat, src []float32)
	Download(dst []float32, src Mat)

	// Zero sets m to 0, Copy sets dst to src, Add adds src to dst.
	Zero(m Mat)
	Copy(dst, src Mat)
	Add(dst, src Mat)
	// AddRow adds row (1,N) to each row of m (T,N); SumRows adds the sum of
	// m's rows to row.
	AddRow(m, row Mat)
	SumRows(row, m Mat)
	// Gather sets row i of dst to row idx[i] of src; Scatter sets row idx[i]
	// of dst to row i of src. idx has no repeats in Scatter.
	Gather(dst, src Mat, idx []int32)
	Scatter(dst, src Mat, idx []int32)
	// ScatterAdd adds row i of src to row idx[i] of dst; idx may repeat.
	ScatterAdd(dst, src Mat, idx []int32)

	// MatMul sets c (M,N) to the product of op(a) (M,K) and op(b) (K,N).
	MatMul(c, a, b Mat, o MatMul)

	// Scale multiplies m by a.
	Scale(m Mat, a float32)
	// Clamp limits m to -limit to limit. ClampBackward sets d to 0 where y,
	// what Clamp left, is at a limit.
	Clamp(m Mat, limit float32)
	ClampBackward(d, y Mat, limit float32)
	// SoftCap sets m = limit * tanh(m/limit). SoftCapBackward multiplies d by
	// the derivative of that, y being what SoftCap left.
	SoftCap(m Mat, limit float32)
	SoftCapBackward(d, y Mat, limit float32)

	// RMSNorm sets out = x * inv * w, inv = 1/sqrt(mean(x^2) + eps) for each
	// row of x (T,C); w is (1,C), inv is (T,1). out may be x.
	RMSNorm(out, inv, x, w Mat, o RMSNorm)
	// RMSNormBackward adds the derivative by x to dx and, unless dw is none,
	// that by w to dw (1,C).
	RMSNormBackward(dx, dw, dout, x, inv, w Mat, o RMSNorm)

	// LayerNorm sets out = (x - mean) * inv * w + bias for each row of x
	// (T,C), inv = 1/sqrt(variance + eps); w and bias are (1,C), bias may be
	// none, stats (T,2) receives mean and inv. out may be x.
	LayerNorm(out, stats, x, w, bias Mat, eps float32)
	// LayerNormBackward adds the derivative by x to dx and, unless they are
	// none, those by w and bias to dw and dbias (1,C).
	LayerNormBackward(dx, dw, dbias, dout, x, stats, w Mat)

	// Rope turns pairs in each of the heads of row i of x (T, heads*headDim):
	// (x[j], x[j+RD/2]) of the head's first RD values, by the angle whose
	// cosine and sine are element (pos[i], j) of the tables (positions, RD/2).
	// back turns them back, which is also the derivative. (Tables may be
	// scaled; then turning back is the derivative only.)
	Rope(x, cos, sin Mat, headDim int, pos []int32, back bool)

	// Attention and AttentionBackward are causal attention; see Attention.
	Attention(p Attention)
	AttentionBackward(p AttentionBackward)

	// SwiGLU sets out = silu(gate) * up. out may be gate or up.
	SwiGLU(out, gate, up Mat)
	// SwiGLUBackward replaces gate and up by the derivatives by them.
	SwiGLUBackward(dout, gate, up Mat)

	// GELU sets out = gelu(x), times up unless that is none. out may be x or
	// up.
	GELU(out, x, up Mat, kind GELU)
	// GELUBackward replaces x and, unless it is none, up by the derivatives by
	// them.
	GELUBackward(dout, x, up Mat, kind GELU)

	// CrossEntropy sets nll[i] to -log softmax(row i of logits)[labels[i]] and
	// top[i] to the column of the largest value, the first of them. If
	// gradScale is not 0 it replaces logits by their derivative of
	// gradScale * sum(nll).
	CrossEntropy(logits Mat, labels []int32, gradScale float32, nll []float32, top []int32)

	// SumSquares returns the sum of the squares of m, added in float64.
	SumSquares(m Mat) float64
	// AdamW updates parameters p and moments m and v by gradient g, all (1,N).
	AdamW(p, g, m, v Mat, o AdamW)

	// Sizes says what the backend takes memory for.
	Sizes() Sizes
	// Err returns what a backend elsewhere failed with first, out of memory for
	// example, and nil while it works. From then on operations do nothing, and
	// numbers that come out of it are NaN.
	Err() error
}

// MatMul are the options of a matrix product.
type MatMul struct {
	TransA, TransB bool    // op transposes
	Add            bool    // add the product to c
	Alpha          float32 // multiplies the product; 0 stands for 1
}

// RMSNorm are the options of an RMS norm.
type RMSNorm struct {
	Eps     float32
	PlusOne bool // w holds the scales minus one
}

// GELU is one of the two functions of that name.
type GELU int

const (
	// GELUExact is x * Phi(x), Phi being the normal distribution.
	GELUExact GELU = iota
	// GELUTanh is x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
	GELUTanh
)

// Span is a sequence of a batch: rows Q to Q+QLen of the queries attend to
// rows K to K+KLen of keys and values. The last query is at the position of
// the last key, so that query i sees the first KLen-QLen+i+1 keys.
type Span struct{ Q, QLen, K, KLen int }

// Attention are the arguments of attention. Query head h uses key and value
// head h/(Heads/KVHeads).
type Attention struct {
	Q, K, V Mat // (T, NH*HD), (S, KH*HD), (S, KH*HD)
	Out     Mat // (T, NH*HD)
	// LSE (T,NH) receives the logarithms of the softmax denominators, which
	// the backward pass needs.
	LSE            Mat
	Heads, KVHeads int
	Scale          float32 // multiplies the scores
	// Window is how many keys a query sees at most, itself included; 0: all.
	Window int
	// SoftCap, if not 0, replaces a score s by SoftCap * tanh(s/SoftCap).
	SoftCap float32
	// Slopes, if not nil, has one for each query head: a score gets it times
	// the key's distance, negative, from the query (ALiBi).
	Slopes []float32
	Spans  []Span
}

// AttentionBackward are the arguments of the backward pass: those of the
// forward pass with its results, and the derivatives. DQ, DK and DV are set in
// the rows of the spans.
type AttentionBackward struct {
	Attention
	DOut, DQ, DK, DV Mat
}

// AdamW are the settings of one step of decoupled-weight-decay Adam, as in
// PyTorch.
type AdamW struct {
	LearningRate, Beta1, Beta2, Epsilon, WeightDecay float64
	Step                                             int     // counts from 1
	GradScale                                        float64 // multiplies g first
}
