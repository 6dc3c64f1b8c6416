#!/usr/bin/env bash
# Interoperability with IPFS, with a real kubo on loopback: one kubo adds a folder, mootd pulls it from there by CID and
# address alone, and a second kubo gets it from mootd the same way, when the first is gone. The CIDs and bytes must be equal.
# Prints one JSON object. Needs kubo as "ipfs" in PATH, or IPFS=/path/to/ipfs; without it the script says so and ends with 0.
#   scripts/kubo.sh [MiB]      (default 64)
set -euo pipefail
cd "$(dirname "$0")/.."
mib=${1:-64}
ipfs=${IPFS:-$(command -v ipfs || true)}
if [ -z "$ipfs" ]; then
  echo '{"skipped":"no kubo: put ipfs into PATH or IPFS; go install github.com/ipfs/kubo/cmd/ipfs@v0.42.0 may do, or dist.ipfs.tech"}'
  exit 0
fi
./scripts/build.sh >&2
dir=$(mktemp -d)
pids=()
end() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$dir"
}
trap end EXIT

# kubo REPO ARGS...: with a repo that knows nobody and tells nobody.
kubo() {
  local repo=$1
  shift
  IPFS_PATH="$dir/$repo" IPFS_TELEMETRY=off "$ipfs" "$@"
}
daemon() {
  kubo "$1" init --profile=test >/dev/null
  kubo "$1" bootstrap rm --all >/dev/null
  kubo "$1" config Routing.Type none
  kubo "$1" config --json AutoConf.Enabled false
  kubo "$1" config --json AutoTLS.Enabled false
  kubo "$1" config --json Swarm.RelayClient.Enabled false
  IPFS_PATH="$dir/$1" IPFS_TELEMETRY=off "$ipfs" daemon >"$dir/$1.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 100); do
    grep -q "Daemon is ready" "$dir/$1.log" && return # a command before that would take its lock
    sleep 0.2
  done
  cat "$dir/$1.log" >&2
  return 1
}
now() { date +%s.%N; }
moot() { ./bin/moot --data-dir "$dir/moot" "$@"; }

mkdir -p "$dir/folder/sub"
head -c $((mib * 1048576)) /dev/urandom >"$dir/folder/weights.bin"
echo '{"a": 1}' >"$dir/folder/sub/settings.json"
: >"$dir/folder/empty"

daemon one
cid=$(kubo one add -r -Q --cid-version=1 --raw-leaves --chunker=size-1048576 --max-file-links=1024 "$dir/folder")
addr=$(kubo one id -f '<addrs>' | grep /ip4/127.0.0.1/tcp/ | head -n 1)

./bin/mootd --data-dir "$dir/moot" --listen /ip4/127.0.0.1/tcp/0 --api 127.0.0.1:0 --no-mdns 2>"$dir/mootd.log" &
pids+=($!)
for _ in $(seq 100); do
  moot status >/dev/null 2>&1 && break
  sleep 0.1
done
t0=$(now)
timeout 120 ./bin/moot --data-dir "$dir/moot" shard pull "$cid" --peer "$addr" --json >"$dir/pull.json"
t1=$(now)
kubo one shutdown
wait "${pids[0]}"

daemon two
kubo two swarm connect "$(moot status --json | sed -n 's/.*"addrs": *\["\([^"]*\)".*/\1/p')" >/dev/null
t2=$(now)
IPFS_PATH="$dir/two" timeout 120 "$ipfs" get -o "$dir/back" "$cid" >/dev/null 2>&1
t3=$(now)
diff -r "$dir/folder" "$dir/back"
again=$(kubo two add -r -Q -n --cid-version=1 --raw-leaves --chunker=size-1048576 --max-file-links=1024 "$dir/back")
[ "$again" = "$cid" ]
awk -v cid="$cid" -v mib="$mib" -v v="$("$ipfs" version -n)" -v a="$t0" -v b="$t1" -v c="$t2" -v d="$t3" 'BEGIN {
  printf "{\"ok\":true,\"kubo\":\"%s\",\"cid\":\"%s\",\"mib\":%d,\"kubo_to_moot_mib_per_s\":%.0f,\"moot_to_kubo_mib_per_s\":%.0f}\n", v, cid, mib, mib / (b - a), mib / (d - c) }'
