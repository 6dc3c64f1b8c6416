//go:build !unix

package top

import "io"

// openInput leaves r to bubbletea, which reads a console in a way of its own.
func openInput(r io.Reader) (io.Reader, func(), error) { return r, func() {}, nil }
