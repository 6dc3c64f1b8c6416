package cpu

import "github.com/moot-net/moot/node/internal/tensor"

// AllocActivations is Alloc.
func (b *Backend) AllocActivations(n int) *tensor.Buffer { return b.Alloc(n) }

// PackHost is Pack.
func (b *Backend) PackHost(p tensor.Packed) *tensor.Buffer { return b.Pack(p) }

// Free does nothing: what nothing refers to is collected.
func (b *Backend) Free(*tensor.Buffer) {}

// Err returns nil.
func (b *Backend) Err() error { return nil }

// Sizes returns the zero value.
func (b *Backend) Sizes() tensor.Sizes { return tensor.Sizes{} }
