# Source this before any go command with -tags cuda: package gorgonia.org/cu is compiled with our cuda.h.
cuda=$(cd "$(dirname "${BASH_SOURCE[0]}")/../node/internal/cuda/cushim" && pwd)
export CGO_ENABLED=1
export CGO_CFLAGS="${CGO_CFLAGS:--O2 -g} -I$cuda/include"
unset cuda
