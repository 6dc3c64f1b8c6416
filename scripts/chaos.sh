#!/usr/bin/env bash
# Runs real daemons in network namespaces and disturbs them: killed, stopped,
# cut off, on flapping lines and full disks, with wrong clocks, without launcher
# (scripts/chaos.sh --list). Afterwards it checks that there is one head, one
# history that can be replayed, no lost work and an adapter that has learned.
#
#   scripts/chaos.sh [--json] [--scenario NAME[,NAME]] [--minutes N] [--seed N] [--period 10s] [--keep-data DIR]
#
# The last line is one JSON object. Exit code 0: all passed; 1: something did
# not; 77: skipped, for namespaces are not permitted here.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/chaos-env.sh"
chaos "$@"
