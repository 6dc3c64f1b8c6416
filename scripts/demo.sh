#!/usr/bin/env bash
# Builds both binaries and runs the demo: several real nodes fine-tune a small
# model over libp2p on this machine, and survive the loss of their launcher.
# Arguments are handed to "moot demo" (see: bin/moot demo --help).
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/build.sh >&2
exec ./bin/moot demo "$@"
