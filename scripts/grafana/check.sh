#!/usr/bin/env bash
# Checks /metrics and the dashboard against a real Prometheus: a node trains a run for some seconds, Prometheus scrapes it,
# every query of moot.json is asked, and must have an answer. Needs prometheus, promtool, curl and jq, and says so when one is missing.
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
for _ in $(seq 3000); do grep -q '^api ' "$dir/out" && [ -s "$dir/node/api.token" ] && break; sleep 0.1; done
api=$(awk '/^api /{print $2}' "$dir/out")
curl -fsS -H "Authorization: Bearer $(cat "$dir/node/api.token")" "$api/metrics" >"$dir/metrics"
grep -v '^libp2p_\|^# [A-Z]* libp2p_' "$dir/metrics" | promtool check metrics # libp2p's names are its own
grep -q '^libp2p_' "$dir/metrics" || { echo "libp2p tells nothing"; exit 1; }
# A run of this node alone, so that there is something to tell of it.
json() { jq -nc "$@"; }
post() { curl -fsS -H "Authorization: Bearer $(cat "$dir/node/api.token")" -H 'Content-Type: application/json' --data-binary @- "$api/api/v1/$1"; }
mkdir "$dir/assets"
json --arg d "$dir/assets" '{dir: $d}' | post demo/assets >"$dir/demo"
json --slurpfile a "$dir/demo" '{dir: $a[0].model_dir}' | post models/import >/dev/null
jq -c .data "$dir/demo" | post datasets/import >/dev/null
run='name = "metrics"
model = ""
data = ""
rounds = 1000
period = "20s"
min_peers = 1
lora.rank = 2
inner.max_steps = 2
inner.batch_samples = 2
inner.sequence_tokens = 96'
json --arg t "$run" '{toml: $t, model: "last", dataset: "last"}' | post runs >"$dir/launched"
cat >"$dir/prometheus.yml" <<Y
global: {scrape_interval: 3s, scrape_timeout: 3s}
scrape_configs:
  - job_name: moot
    static_configs: [{targets: ["${api#http://}"]}]
    authorization: {credentials_file: $dir/node/api.read.token}
Y
ask() { curl -fsS --max-time 60 --get --data-urlencode "query=$1" "http://127.0.0.1:$port/api/v1/query"; }
# is waits until a query has a value: on a busy machine a scrape may be late. It gives up when Prometheus ends.
is() {
  local end=$((SECONDS + 300))
  while ((SECONDS < end)); do
    [ "$(ask "$1" 2>/dev/null | jq -r '.data.result[0].value[1]' 2>/dev/null)" = "$2" ] && return 0
    kill -0 "$prometheus" 2>/dev/null || return 1
    sleep 0.2
  done
  return 1
}
for _ in 1 2 3 4 5; do # below the ports that the kernel hands out; another one if somebody has it
  port=$((20000 + RANDOM % 12000))
  prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/tsdb" --web.listen-address="127.0.0.1:$port" >"$dir/prometheus.log" 2>&1 &
  prometheus=$!
  pids+=("$prometheus")
  is 'count(moot_info)' 1 && break
  kill -0 "$prometheus" 2>/dev/null && break
done
is 'up{job="moot"}' 1 || { echo "Prometheus does not reach the node"; tail "$dir/prometheus.log"; exit 1; }
# For rates there must be two scrapes; the held-out loss comes last.
is 'count(moot_run_eval_loss)' 1 && is 'count(rate(moot_run_tokens_total[1m]))' 1 || { echo "the run does not train"; tail -n 5 "$dir/log"; exit 1; }
n=0 silent=() end=$((SECONDS + 120))
while read -r query; do
  query=${query//\$instance/.*}
  query=${query//\$__rate_interval/1m}
  ask "$query" >"$dir/answer" || { echo "not a query: $query"; exit 1; }
  [ "$(jq -r .status "$dir/answer")" = success ] || { echo "refused: $query"; cat "$dir/answer"; exit 1; }
  n=$((n + 1))
  # Few devices tell how warm they are and what they take, and a node that trains has no reason why it does not.
  case $query in *temperature* | *power* | *not_training*) continue ;; esac
  # After a scrape that was late, nothing is there until the next one.
  until [ "$(jq '.data.result | length' "$dir/answer")" -gt 0 ]; do
    ((SECONDS < end)) || { silent+=("$query"); break; }
    sleep 1
    ask "$query" >"$dir/answer" || { echo "not a query: $query"; exit 1; }
  done
done < <(jq -r '.panels[].targets[].expr' scripts/grafana/moot.json)
is 'sum(moot_state)' 1 || { echo "the node is not in one state"; exit 1; }
[ ${#silent[@]} -eq 0 ] || { printf 'no answer: %s\n' "${silent[@]}"; tail -n 5 "$dir/log"; exit 1; }
echo "ok: $n queries"
