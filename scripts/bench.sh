#!/usr/bin/env bash
# Measures matrix products, tokenizers and training on this machine, beside OpenBLAS and PyTorch where they are installed.
# Prints tables; with --json the last line is one JSON object, null where a peer is not installed.
# peer_torch.py and tokenizers are read from MOOT_GOLDEN (default: ../shared/golden).
#   scripts/bench.sh [--install-peers] [--json] [--threads N] [--runs N] [--steps N] [--sizes 15m,110m] [--dtypes f32,bf16] [--only sgemm|train|tokenizer]
#   scripts/bench.sh killed [MiB]
# pulls a model made on the spot (default: 2048 MiB) by a process that is killed ten times, and tells how much was sent for it in all.
#   scripts/bench.sh net [--json] [--mib N] [--runs N] [--only loopback|limited|delayed|unequal|swarm|import]
# measures how shards travel (see node/internal/netbench); lines of limited speed need root on Linux.
# --install-peers installs PyTorch, NumPy and OpenBLAS with apt first (as root).
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = killed ]; then exec go test -count 1 -run 'TestKilledTenTimes' -v ./node/internal/pull -args -killmib "${2:-2048}"; fi
if [ "${1:-}" = net ]; then shift; exec go run ./node/internal/netbench "$@"; fi
args=()
for arg in "$@"; do
  case "$arg" in
    --install-peers)
      apt-get update -q >&2
      apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=600 python3-torch python3-numpy libopenblas0-openmp >&2
      ;;
    *) args+=("$arg") ;;
  esac
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -o "$dir/bench" ./node/internal/bench
# A choice of kernels in the environment would be one for all programs and machines.
env -u OPENBLAS_CORETYPE "$dir/bench" ${args[@]+"${args[@]}"}
