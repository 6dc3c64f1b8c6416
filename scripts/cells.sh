#!/usr/bin/env bash
# Runs more than fifty real daemons in network namespaces, in a run whose rounds
# are done in cells, and kills a tenth of them in the middle. It ends when all
# have one head, and replays the run from genesis.
#
#   scripts/cells.sh [--json] [--peers 52] [--period 90s] [--seed N] [--keep-data DIR]
#
# It takes about ten minutes and 8 GB of memory, on two cores that do nothing
# else; with less, longer periods. The last line is one JSON object, as of
# scripts/chaos.sh; so are the exit codes.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/chaos-env.sh"
chaos --scenario cells --period 90s "$@"
