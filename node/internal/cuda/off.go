//go:build !cuda || !cgo

package cuda

import (
	"errors"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Built tells whether this binary can compute on a GPU.
const Built = false

// ErrNotBuilt is what everything returns in a binary without CUDA.
var ErrNotBuilt = errors.New("this binary was built without CUDA: scripts/build-cuda.sh builds one with it")

// Backend is a tensor.Backend on a GPU; this binary has none.
type Backend struct{ tensor.Backend }

// Open returns ErrNotBuilt.
func Open(Options) (*Backend, error) { return nil, ErrNotBuilt }

// Close returns ErrNotBuilt.
func (b *Backend) Close() error { return ErrNotBuilt }

// Precision returns nothing.
func (b *Backend) Precision() string { return "" }

// Choices returns nothing.
func (b *Backend) Choices() map[string]string { return nil }

// Devices returns ErrNotBuilt.
func Devices() ([]Info, error) { return nil, ErrNotBuilt }

// Query returns ErrNotBuilt.
func Query(int) (Info, error) { return Info{}, ErrNotBuilt }

// ReadUse returns ErrNotBuilt.
func ReadUse(string, uint64) (Use, error) { return Use{}, ErrNotBuilt }

// Sizes returns the zero value.
func (i Info) Sizes(bool) tensor.Sizes { return tensor.Sizes{} }

// SelfTest returns ErrNotBuilt.
func SelfTest(int) (Test, error) { return Test{}, ErrNotBuilt }

// ErrorKind returns "not_built".
func ErrorKind(error) string { return "not_built" }

// Hint returns nothing: ErrNotBuilt says it.
func Hint(error) string { return "" }
