#!/usr/bin/env bash
# Builds bin/mootd and bin/moot: static, without cgo, without what only a debugger reads.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v go >/dev/null; then
  echo "build: go is not installed; see https://go.dev/doc/install (the version is in go.mod)" >&2
  exit 1
fi
mkdir -p bin
export CGO_ENABLED=0
# Both carry what the daemon was compiled from, so that moot can tell whether a mootd is the one that it was built with.
code=$(go list -trimpath -export -deps -f '{{.ImportPath}} {{.BuildID}}' ./node/cmd/mootd | cksum)
go build -trimpath -ldflags "-s -w -X github.com/moot-net/moot/node/api.build=${code// /-}" -o bin/ ./node/cmd/mootd ./coordinator/cmd/moot
echo "built bin/mootd and bin/moot"
