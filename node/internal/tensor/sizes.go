package tensor

// Sizes say what a backend takes memory for, so that one can plan before it is
// opened. The zero value is that of a backend in the host's memory.
type Sizes struct {
	// ActivationBytes is what a value of AllocActivations takes. Default 4.
	ActivationBytes int
	// LogitsValues is about how many values of logits are to be held at once:
	// fewer take less memory, and give matrix products with fewer rows. Default
	// 8 Mi.
	LogitsValues int
	// HostTables tells that values of PackHost stay in the host's memory.
	HostTables bool
	// Offload tells that the backend is an Offloader.
	Offload bool
	// Scratch returns the memory that operations take while they run: the
	// products in list, and attention of so many tokens and heads. Nil: none.
	Scratch func(list []Product, tokens, heads int) int64
}

// Product is a matrix product by its shape and types: op(a) is (Rows,Inner),
// op(b) is (Inner,Cols). If Rank is not 0 it is that of Fuser.MatMulSum, with
// op(a2) of activations (Rows,Rank) and op(b2) of float32 (Rank,Cols).
type Product struct {
	Rows, Cols, Inner int
	Rank              int
	TransA, TransB    bool
	Add               bool
	// C and A are float32 or activations; B is what a weight is kept as.
	C, A, B Kind
}

// Kind is what a matrix of a product holds.
type Kind uint8

// The kinds of matrices.
const (
	Plain      Kind = iota // float32
	Activation             // what AllocActivations gives
	Half                   // packed BF16
	FourBits               // packed weights of four bits
)

// Fuser is implemented by a backend that makes these in one pass over c.
type Fuser interface {
	// MatMulSum sets c (M,N) to op(a) op(b) + op(a2) op(b2) + bias, bias being
	// (1,N) or none. All have the options' transpositions; Alpha is not used.
	MatMulSum(c, a, b, a2, b2, bias Mat, o MatMul)
}

// Offloader is implemented by a backend elsewhere that can leave activations in
// the host's memory for a while.
type Offloader interface {
	// AllocOffload returns memory for n values of activations, which only Copy
	// takes, to and from activations, dense. Free frees it.
	AllocOffload(n int) *Buffer
}
