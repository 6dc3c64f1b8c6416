//go:build !cuda || !cgo

package train

import (
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

// goldenBackend is what tests against reference results compute with: the
// host's processor.
func goldenBackend(*testing.T) tensor.Backend { return nil }
