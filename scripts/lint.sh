#!/usr/bin/env bash
# Formatting, vet (with and without the cuda tag), linters. Tools are pinned in scripts/tools/go.mod.
set -euo pipefail
cd "$(dirname "$0")/.."
tool() { go tool -modfile=scripts/tools/go.mod "$@"; }
unformatted=$(tool gofumpt -l $(git ls-files '*.go' | grep -v '\.pb\.go$'))
if [ -n "$unformatted" ]; then
  echo "lint: not formatted by gofumpt:" >&2
  echo "$unformatted" >&2
  exit 1
fi
go vet ./...
tool golangci-lint run ./...
if command -v "${CC:-gcc}" >/dev/null; then
  linter=$(tool -n golangci-lint)
  . scripts/cuda-env.sh
  go vet -tags cuda ./...
  "$linter" run --build-tags cuda ./node/internal/cuda/... ./node/internal/device/... ./node/internal/train/...
else
  echo "lint: no C compiler, code for CUDA was not checked"
fi
