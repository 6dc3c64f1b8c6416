// Package trace is what a seat shows of how it trained a delta, so that others
// can do a part of that again: the boundaries of the parts, where what is
// trained stood at each, and the optimizer's moments there. Only the forms are
// here; who does what again, and what follows, is in proto/README.md section 6.
package trace
