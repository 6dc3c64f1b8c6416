#!/usr/bin/env bash
# Runs all tests. Arguments are handed to "go test" (for example: -short, -race, -run X).
# Reference results are read from MOOT_GOLDEN (default: ../shared/golden); tests that need
# them say so when they are not there.
set -euo pipefail
cd "$(dirname "$0")/.."
# With the race detector a program sleeps for a second before it ends; the tests start hundreds.
export GORACE="${GORACE:-atexit_sleep_ms=0}"
exec go test -timeout 20m "$@" ./...
