# Source this before any go command with -tags cuda: package gorgonia.org/cu is compiled with our cuda.h,
# and an installed libcuda.so does not become a library that the binary needs.
cuda=$(cd "$(dirname "${BASH_SOURCE[0]}")/../node/internal/cuda/cushim" && pwd)
export CGO_ENABLED=1
export CGO_CFLAGS="${CGO_CFLAGS:--O2 -g} -I$cuda/include"
export CGO_LDFLAGS="${CGO_LDFLAGS:--O2 -g} -Wl,--as-needed"
unset cuda
