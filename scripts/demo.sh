#!/usr/bin/env bash
# Builds both binaries and runs the demo: several real nodes fine-tune a small
# model over libp2p on this machine, and survive the loss of their launcher.
# Arguments are handed to "moot demo" (see: bin/moot demo --help).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd) # paths among the arguments are the caller's
"$root/scripts/build.sh" >&2
exec "$root/bin/moot" demo "$@"
