//go:build cuda && cgo

package cuda

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"gorgonia.org/cu"
)

//go:embed all:kernels/ptx
var shipped embed.FS

// targets are the compute capabilities that PTX is shipped for, in rising
// order. A driver compiles PTX for any GPU of that capability or a higher one.
var targets = []int{61, 75, 80}

// kernel is a __global__ function.
type kernel struct {
	name   string
	fn     cu.Function
	shared int // dynamic shared memory that it was allowed beyond 48 KiB
}

// module is the PTX of one .cu file.
type module struct {
	name   string
	ptx    string
	loaded bool
	m      cu.Module
}

// modules reads the PTX for a compute capability (major*10 + minor) and finds
// the kernels in it. Nothing is compiled yet.
func modules(capability int) (map[string]*module, error) {
	target := 0
	for _, t := range targets {
		if t <= capability {
			target = t
		}
	}
	if target == 0 {
		return nil, fmt.Errorf("%w: compute capability is %d.%d, must be at least %d.%d", ErrOldDevice, capability/10, capability%10, targets[0]/10, targets[0]%10)
	}
	files, dir := fs.FS(shipped), path.Join("kernels/ptx", fmt.Sprintf("sm%d", target))
	if other := os.Getenv("MOOT_PTX"); other != "" { // to try kernels without a build
		files, dir = os.DirFS(other), fmt.Sprintf("sm%d", target)
	}
	list, err := fs.Glob(files, dir+"/*.ptx")
	if err != nil {
		return nil, err
	}
	byKernel := map[string]*module{}
	for _, file := range list {
		b, err := fs.ReadFile(files, file)
		if err != nil {
			return nil, err
		}
		m := &module{name: strings.TrimSuffix(path.Base(file), ".ptx"), ptx: string(b)}
		for rest := m.ptx; ; {
			_, after, ok := strings.Cut(rest, ".entry ")
			if !ok {
				break
			}
			name, _, _ := strings.Cut(after, "(")
			byKernel[strings.TrimSpace(name)] = m
			rest = after
		}
	}
	return byKernel, nil
}
