#!/usr/bin/env bash
# Builds mootd with CUDA, and moot: in bin, and with --windows also in bin/windows. Takes Go and gcc (for
# Windows x86_64-w64-mingw32-gcc), no CUDA toolkit. What it builds needs the C library alone to start; the
# NVIDIA driver is looked for when a GPU is asked for.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cuda-env.sh
fail() { echo "build-cuda: $*" >&2; exit 1; }
command -v go >/dev/null || fail "go is not installed; see https://go.dev/doc/install (the version is in go.mod)"
command -v "${CC:-gcc}" >/dev/null || fail "gcc is not installed (Debian, Ubuntu: apt install gcc libc6-dev)"
mkdir -p bin

code=$(go list -tags cuda -trimpath -export -deps -f '{{.ImportPath}} {{.BuildID}}' ./node/cmd/mootd | cksum) # as in build.sh
carried="-X github.com/moot-net/moot/node/api.build=${code// /-}"
go build -tags cuda -trimpath -ldflags="-s -w $carried" -o bin/mootd ./node/cmd/mootd
CGO_ENABLED=0 go build -trimpath -ldflags="$carried" -o bin/moot ./coordinator/cmd/moot
if command -v readelf >/dev/null; then
  needed=$(readelf -d bin/mootd | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' ')
  [ "$needed" = "libc.so.6 " ] || fail "bin/mootd needs $needed, must be libc.so.6 alone"
  glibc=$(readelf -V bin/mootd | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
fi
echo "built bin/mootd with CUDA and bin/moot (needs ${needed:-a C library}${glibc:+, $glibc})"

if [ "${1:-}" = --windows ]; then
  cc=
  for c in x86_64-w64-mingw32-gcc-win32 x86_64-w64-mingw32-gcc; do
    if command -v "$c" >/dev/null; then cc=$c; break; fi
  done
  [ -n "$cc" ] || fail "no compiler for Windows (Debian, Ubuntu: apt install gcc-mingw-w64-x86-64-win32)"
  mkdir -p bin/windows
  export GOOS=windows GOARCH=amd64 CC=$cc
  code=$(go list -tags cuda -trimpath -export -deps -f '{{.ImportPath}} {{.BuildID}}' ./node/cmd/mootd | cksum)
  carried="-X github.com/moot-net/moot/node/api.build=${code// /-}"
  go build -tags cuda -trimpath -ldflags="-s -w $carried" -o bin/windows/mootd.exe ./node/cmd/mootd
  CGO_ENABLED=0 go build -trimpath -ldflags="-s -w $carried" -o bin/windows/moot.exe ./coordinator/cmd/moot
  dlls=$(objdump -p bin/windows/mootd.exe | sed -n 's/.*DLL Name: //p' | tr '\n' ' ')
  case " $dlls" in *nvcuda*|*libwinpthread*|*libgcc*) fail "bin/windows/mootd.exe needs $dlls" ;; esac
  echo "built bin/windows/mootd.exe with CUDA and bin/windows/moot.exe (needs $dlls)"
fi
