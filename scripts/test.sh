#!/usr/bin/env bash
# Runs all tests. Arguments are handed to "go test" (for example: -short, -race, -run X).
# Reference results are read from MOOT_GOLDEN (default: ../shared/golden); tests that need
# them say so when they are not there.
#
# With MOOT_RERUN=N up to N tests that fail are run once more, alone; the run goes on if they pass
# then, and names them at its end. That is for tests of real time: browsers, processes, sockets, on a
# machine that does other things as well. A data race, a panic, a timeout or a failure elsewhere, where
# the same input has to give the same result each time, is final.
set -euo pipefail
cd "$(dirname "$0")/.."
# With the race detector a program sleeps for a second before it ends; the tests start hundreds.
export GORACE="${GORACE:-atexit_sleep_ms=0}"
if [ -z "${MOOT_RERUN:-}" ]; then exec go test -timeout 20m "$@" ./...; fi

realtime='coordinator/(cli|cli/demo|judge)|node/(api|app|client|cmd/mootd|web)'
realtime+='|node/internal/(adversary|autostart|chaos|crashtest|exchange|gossip|p2p|portmap|presence|pull|runner|top|traffic|volunteer)'

gotestsum=$(go tool -modfile=scripts/tools/go.mod -n gotestsum)
again=$(mktemp)
trap 'rm -f "$again"' EXIT
"$gotestsum" --format standard-quiet --hide-summary=skipped --packages=./... \
  --rerun-fails=1 --rerun-fails-max-failures="$MOOT_RERUN" --rerun-fails-run-root-test \
  --rerun-fails-abort-on-data-race --rerun-fails-report="$again" -- -timeout 20m "$@"
[ -s "$again" ] || exit 0
echo "failed, and passed when run once more: a test that has to be mended"
sort -u "$again"
if sort -u "$again" | grep -vE "/($realtime)\.Test.*: "; then
  echo "the tests above have to pass each time: what they check does not depend on time" >&2
  exit 1
fi
