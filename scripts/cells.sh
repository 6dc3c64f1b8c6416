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
# All namespaces share the kernel's table of neighbours. Fifty daemons that know
# each other need an entry for each pair and direction, 1,024 are usual: then the
# last ones reach nobody.
neighbours=/proc/sys/net/ipv4/neigh/default/gc_thresh3
if [ "$(cat $neighbours 2>/dev/null || echo 8192)" -lt 8192 ] && ! { echo 8192 >$neighbours; } 2>/dev/null; then
  echo "cells: skipped: the kernel's table of neighbours is too small ($neighbours: at least 8192, as root)" >&2
  echo '{"schema":1,"pass":false,"skipped":"the table of neighbours is too small","scenarios":[],"wall_s":0}'
  exit 77
fi
chaos --scenario cells --period 90s "$@"
