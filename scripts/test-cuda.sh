#!/usr/bin/env bash
# Tests of the build with CUDA: on the GPU that is there, or on the emulated driver, which takes g++. Arguments are handed to "go test".
# MOOT_PLANTED=1 also plants bugs in the kernels, each of which has to make a test fail; with "each" one in each file.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cuda-env.sh
go test -tags cuda -timeout 30m "$@" ./node/internal/cuda/... ./node/internal/device
# Reference results of models, and training, through gorgonia.org/cu.
go test -tags cuda -timeout 30m "$@" -run 'Golden|CUDA|GPU|PlanOf8B' ./node/internal/train -backend cuda
go test -tags cuda -timeout 5m "$@" -run 'GPU|TestScripts/gpu' ./node/cmd/mootd
go test -tags cuda -timeout 10m "$@" -run GPU ./node/app
