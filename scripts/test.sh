#!/usr/bin/env bash
# Runs all tests. Arguments are handed to "go test" (for example: -short, -race, -run X).
# Reference results are read from MOOT_GOLDEN (default: ../shared/golden); tests that need
# them say so when they are not there.
#
# With MOOT_RERUN=N up to N tests that fail are run once more, alone; the run goes on if they pass
# then, and names them at its end, and in the file MOOT_RERUN_NAMES, if that is set. It is for tests of
# real time: browsers, processes, sockets, on a machine that does other things as well. A data race, a
# panic or another end of the whole program, a timeout, a test that is skipped the second time, or a
# failure elsewhere, where the same input has to give the same result each time, is final. Needs jq.
set -euo pipefail
cd "$(dirname "$0")/.."
# With the race detector a program sleeps for a second before it ends; the tests start hundreds.
export GORACE="${GORACE:-atexit_sleep_ms=0}"
if [ -z "${MOOT_RERUN:-}" ]; then exec go test -timeout 20m "$@" ./...; fi

realtime='coordinator/(cli|cli/demo|judge)|node/(api|app|client|cmd/mootd|web)'
realtime+='|node/internal/(adversary|autostart|chaos|crashtest|exchange|gossip|p2p|portmap|presence|pull|runner|top|traffic|volunteer)'

gotestsum=$(go tool -modfile=scripts/tools/go.mod -n gotestsum)
again=$(mktemp) log=$(mktemp)
trap 'rm -f "$again" "$log"' EXIT
"$gotestsum" --format standard-quiet --hide-summary=skipped --packages=./... --jsonfile="$log" \
  --rerun-fails=1 --rerun-fails-max-failures="$MOOT_RERUN" --rerun-fails-run-root-test \
  --rerun-fails-abort-on-data-race --rerun-fails-report="$again" -- -count=1 -timeout 20m "$@"
[ -s "$again" ] || exit 0
sort -u -o "$again" "$again"
echo "failed, and passed when run once more: a test that has to be mended"
cat "$again"
final() { echo "$*: that is final" >&2; exit 1; }
# Programs that a test starts race and panic as well, in the middle of what the test tells.
if jq -r --rawfile names "$again" '($names | split("\n") | map(split(": ")[0])) as $names
    | select(.Output and .Test) | select(.Package + "." + .Test | IN($names[])) | .Output' "$log" |
  grep -E 'WARNING: DATA RACE|fatal error: |goroutine [0-9]+ \[|signal: (killed|segmentation|abort)'; then
  final "the lines above tell of a race, or of a program that broke off"
fi
cut=$(jq -rn 'reduce (inputs | select(.Test)) as $e ({};
    .[$e.Package + "." + $e.Test] += ({run: 1, pass: -1, fail: -1, skip: -1}[$e.Action] // 0))
  | to_entries[] | select(.value > 0).key' "$log")
[ -z "$cut" ] || final "$cut never ended, and what comes after it was not run"
if grep -vE "/($realtime)\.Test.*: 2 runs, 1 failures$" "$again"; then
  final "the tests above were skipped the second time, or check what does not depend on time"
fi
[ -z "${MOOT_RERUN_NAMES:-}" ] || cut -d: -f1 "$again" >>"$MOOT_RERUN_NAMES"
