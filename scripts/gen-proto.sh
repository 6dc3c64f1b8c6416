#!/usr/bin/env bash
# Lints proto/wire and writes the Go code of its messages. Run it after a change of a .proto file
# and commit what it wrote. Tools are pinned in scripts/tools/go.mod.
set -euo pipefail
cd "$(dirname "$0")/.."
tool() { go tool -modfile=scripts/tools/go.mod "$@"; }
plugin=$(tool -n protoc-gen-go)
PATH="$(dirname "$plugin"):$PATH"
tool buf lint proto/wire
rm -f proto/wire/v1/*.pb.go
tool buf generate proto/wire --template proto/wire/buf.gen.yaml -o proto/wire
