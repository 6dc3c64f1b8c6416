#!/usr/bin/env bash
# Pauses, resumes, stops, kills and restarts one of four real daemons at random
# while they train, each in a network namespace of its own.
#
#   scripts/soak.sh [--json] [--minutes N] [--seed N] [--period 10s] [--keep-data DIR]
#
# The last line is one JSON object with lost_steps (trained, and in no record
# although nothing disturbed that node, or trained twice), leaked_bytes (memory
# that the others have in the end and had not before, and files left behind) and
# wrong_states (a node that did not pause, did not stay paused over a restart,
# trained in a pause, or did not come back), and the limits. Exit code 0: within
# the limits; 1: not; 77: skipped, for namespaces are not permitted here.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/chaos-env.sh"
minutes=(--minutes 10)
case " $* " in *" --minutes"* | *" -minutes"*) minutes=() ;; esac
chaos --soak "${minutes[@]}" "$@"
