#!/usr/bin/env bash
# Makes the demo's model and data in node/internal/demo/assets (five to
# ten minutes), or with -simulate shows what a run learns from them. The command
# lives below node/, because only code there may import node/internal.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec go run ./node/internal/demo/tinymodel "$@"
