package chat

import "fmt"

// Bounds of one rendering. A conversation of a hundred messages takes about
// 20,000 units of work with the longest published templates.
const (
	maxWork  = 4 << 20  // units: a node, an item, or workBytes
	maxText  = 16 << 20 // bytes of one text
	maxNest  = 2000     // blocks and calls within each other
	maxRange = 100_000  // as Jinja's sandbox has it
)

// workBytes is how many bytes of text to read or copy make a unit of work.
const workBytes = 64

// state is that of one rendering. What goes wrong is a panic with a failure,
// which render makes an error of.
type state struct {
	out       *builder
	root      builder
	generated []Range
	line      int
	left      int // units of work
	nest      int
	filters   map[string]filter
	tests     map[string]test
}

// failure is an error of a template.
type failure struct{ err error }

func fail(format string, args ...any) failure { return failure{fmt.Errorf(format, args...)} }

// work counts n units.
func (st *state) work(n int) {
	if st.left -= n; st.left < 0 {
		panic(failure{fmt.Errorf("%w: the template takes more than %d units of work", ErrTooMuch, maxWork)})
	}
}

// touch counts n bytes of text that are read or copied.
func (st *state) touch(n int) { st.work(n / workBytes) }

// size counts a text of n bytes that was made.
func (st *state) size(n int) {
	if n > maxText {
		panic(failure{fmt.Errorf("%w: the template makes a text of more than %d bytes", ErrTooMuch, maxText)})
	}
}

// made counts a text that was made.
func (st *state) made(n int) {
	st.size(n)
	st.touch(n)
}

// product counts n texts or lists of size bytes before they are made.
func (st *state) product(size, n int64) {
	if size > 0 && n > maxText/size {
		st.size(maxText + 1)
	}
	st.work(int(n))
	st.touch(int(size * n))
}

func (st *state) enter() {
	if st.nest++; st.nest > maxNest {
		panic(failure{fmt.Errorf("%w: the template is nested deeper than %d", ErrTooMuch, maxNest)})
	}
}

func (st *state) leave() { st.nest-- }

// deep bounds what is nested in a value.
func (st *state) deep(depth int) {
	if depth > maxDepth {
		panic(failure{fmt.Errorf("%w: a value is nested deeper than %d", ErrTooMuch, maxDepth)})
	}
}
