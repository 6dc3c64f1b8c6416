#!/usr/bin/env bash
# Checks /metrics and the dashboard against a real Prometheus: a node runs, Prometheus scrapes it, and every query of
# moot.json is asked. Needs prometheus, promtool, curl and jq, and says so when one is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
for tool in prometheus promtool curl jq; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed (Debian: apt-get install prometheus curl jq)"; exit 0; }
done
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
go build -o "$dir/mootd" ./node/cmd/mootd
"$dir/mootd" --data-dir "$dir/node" --listen /ip4/127.0.0.1/tcp/0 --api 127.0.0.1:0 --no-mdns >"$dir/out" 2>"$dir/log" &
pids+=($!)
for _ in $(seq 600); do grep -q '^api ' "$dir/out" && [ -s "$dir/node/api.token" ] && break; sleep 0.1; done
api=$(awk '/^api /{print $2}' "$dir/out")
curl -fsS -H "Authorization: Bearer $(cat "$dir/node/api.token")" "$api/metrics" >"$dir/metrics"
grep -v '^libp2p_\|^# [A-Z]* libp2p_' "$dir/metrics" | promtool check metrics # libp2p's names are its own
grep -q '^libp2p_' "$dir/metrics" || { echo "libp2p tells nothing"; exit 1; }
port=$((20000 + RANDOM % 20000))
cat >"$dir/prometheus.yml" <<Y
global: {scrape_interval: 3s, scrape_timeout: 3s}
scrape_configs:
  - job_name: moot
    static_configs: [{targets: ["${api#http://}"]}]
    authorization: {credentials_file: $dir/node/api.read.token}
Y
prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/tsdb" --web.listen-address="127.0.0.1:$port" >"$dir/prometheus.log" 2>&1 &
pids+=($!)
ask() { curl -fsS --get --data-urlencode "query=$1" "http://127.0.0.1:$port/api/v1/query"; }
for _ in $(seq 300); do
  [ "$(ask 'count(moot_info)' 2>/dev/null | jq -r '.data.result[0].value[1]' 2>/dev/null)" = 1 ] && break
  sleep 0.2
done
[ "$(ask 'up{job="moot"}' | jq -r '.data.result[0].value[1]')" = 1 ] || { echo "Prometheus does not reach the node"; tail "$dir/prometheus.log"; exit 1; }
n=0
while read -r query; do
  query=${query//\$instance/.*}
  query=${query//\$__rate_interval/1m}
  ask "$query" >"$dir/answer" || { echo "not a query: $query"; exit 1; }
  [ "$(jq -r .status "$dir/answer")" = success ] || { echo "refused: $query"; cat "$dir/answer"; exit 1; }
  n=$((n + 1))
done < <(jq -r '.panels[].targets[].expr' scripts/grafana/moot.json)
[ "$(ask 'sum(moot_state)' | jq -r '.data.result[0].value[1]')" = 1 ] || { echo "the node is not in one state"; exit 1; }
echo "ok: $n queries"
