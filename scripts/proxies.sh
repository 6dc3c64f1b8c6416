#!/usr/bin/env bash
# Shows a run that trains to everybody behind a real nginx and a real Caddy, as
# node/web/README.md says, and checks with curl what a watcher gets: the page
# and its policy, TLS and HTTP/2, events as they happen, nothing that changes
# anything, and that single addresses are bounded behind the proxy and cannot
# name another one.
#
#   scripts/proxies.sh
#
# Needs Linux, root or namespaces for users, and the Debian packages iproute2,
# curl, jq, openssl, and nginx-light or caddy. All of it is in namespaces of its
# own and goes with them. Exit code 0: all passed; 1: something did not; 77: skipped.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
skip() { echo "proxies: skipped: $*" >&2; exit 77; }
if [ "${MOOT_PROXIES_INSIDE:-}" = "" ]; then
  for c in ip unshare curl jq openssl; do command -v $c >/dev/null || skip "$c is not installed"; done
  command -v nginx >/dev/null || command -v caddy >/dev/null || skip "neither nginx nor caddy is installed"
  alone=(unshare --mount --net --pid --fork --kill-child --mount-proc)
  [ "$(id -u)" = 0 ] || alone+=(--map-root-user)
  "${alone[@]}" ip link set lo up 2>/dev/null || skip "namespaces are not permitted here"
  "$root/scripts/build.sh" >&2
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  code=0
  MOOT_PROXIES_INSIDE=$work "${alone[@]}" "$0" || code=$?
  exit $code
fi

work=$MOOT_PROXIES_INSIDE
ip link set lo up
for i in 1 2 3 4; do ip addr add 192.0.2.$i/32 dev lo; done # 1 serves, the others watch; loopback is not bounded
export HOME=$work/home
mkdir "$HOME"
cd "$work"
failed=0
check() { # NAME GOT WANT
  if [[ $2 =~ ^($3)$ ]]; then printf 'ok    %s: %s\n' "$1" "$2"; else printf 'FAIL  %s: %s, want %s\n' "$1" "$2" "$3"; failed=1; fi
}
until_true() { # SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.2; done
}

"$root/bin/mootd" --yes --data-dir d --api 127.0.0.1:7717 --listen /ip4/127.0.0.1/tcp/0 --no-mdns --threads 1 >mootd.out 2>mootd.log &
until_true 60 grep -q '^api' mootd.out || { cat mootd.log; exit 1; }
moot() { "$root/bin/moot" --data-dir d "$@"; }
curl -sf -X POST -H "Authorization: Bearer $(cat d/api.token)" -H 'Content-Type: application/json' \
  -d "{\"dir\":\"$work/assets\"}" http://127.0.0.1:7717/api/v1/demo/assets >assets.json
moot model import assets/model >/dev/null
moot data import assets/train.jsonl --eval assets/eval.jsonl >/dev/null
sed 's/^rounds = .*/rounds = 1000/; s/^min_peers = .*/min_peers = 1/; s/^period = .*/period = "2s"/; s/^max_steps = .*/max_steps = 4/' assets/run.toml >run.toml
moot launch run.toml --model last --data last --json >run.json
run=$(jq -r .id run.json)
"$root/bin/moot" --data-dir d dashboard --listen 127.0.0.1:8080 >public.out 2>public.log &
until_true 60 curl -sfo /dev/null http://127.0.0.1:8080/ || { cat public.log; exit 1; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=moot -addext subjectAltName=IP:192.0.2.1 \
  -keyout key.pem -out cert.pem 2>/dev/null

cat >nginx.conf <<CONF
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
user root;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path $work/nginx-body; proxy_temp_path $work/nginx-proxy;
  fastcgi_temp_path $work/nginx-f; uwsgi_temp_path $work/nginx-u; scgi_temp_path $work/nginx-s;
  server {
    listen 192.0.2.1:8443 ssl http2;
    ssl_certificate $work/cert.pem;
    ssl_certificate_key $work/key.pem;
    location / { proxy_pass http://127.0.0.1:8080; proxy_buffering off; proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for; }
  }
}
CONF
cat >Caddyfile <<CONF
{
  admin off
  auto_https disable_redirects
}
https://192.0.2.1:8444 {
  tls $work/cert.pem $work/key.pem
  reverse_proxy 127.0.0.1:8080
}
CONF

as() { # ADDRESS CURL-ARGUMENTS...: asks from that address
  local from=$1; shift
  curl -s --max-time 20 --interface "$from" --cacert cert.pem "$@"
}
status() { as "$@" -o /dev/null -w '%{http_code}'; }
streams() { # ADDRESS N: opens N event streams that stay; let_in is how many it got
  local i
  for i in $(seq "$2"); do
    curl -sN --interface "$1" --cacert cert.pem --max-time 120 -H 'Accept: text/event-stream' -H "X-Forwarded-For: 198.51.100.$i" \
      -D "stream.$proxy.$i" -o /dev/null "$url/api/v1/runs/$run/events" &
    pids+=($!)
  done
  until_true 30 answered "$2" || true
  let_in=$(cat stream."$proxy".* | grep -c '^HTTP.* 200') || true
}
answered() { [ "$(cat stream."$proxy".* 2>/dev/null | grep -c '^HTTP')" -ge "$1" ]; }

watch_through() { # NAME PORT
  proxy=$1 url=https://192.0.2.1:$2 pids=() let_in=0
  until_true 30 as 192.0.2.2 -o /dev/null "$url/healthz" || { echo "FAIL  $proxy does not answer"; failed=1; return; }
  check "$proxy: the page, by HTTP/2" "$(as 192.0.2.2 -o page.html -w '%{http_code} %{http_version}' "$url/")" '200 2'
  check "$proxy: policy of the page" "$(as 192.0.2.2 -D - -o /dev/null "$url/" | grep -ci "^content-security-policy: default-src 'none'")" 1
  check "$proxy: a certificate nobody knows is refused" "$(curl -s --interface 192.0.2.2 -o /dev/null "$url/" && echo taken || echo refused)" refused
  check "$proxy: the run" "$(as 192.0.2.2 "$url/api/v1/runs/$run" | jq -r .id)" "$run"
  check "$proxy: no addresses" "$(as 192.0.2.2 "$url/api/v1/status" | jq -r '(.addrs // []) | length')" 0
  check "$proxy: no control" "$(status 192.0.2.2 -X POST -H 'Content-Type: application/json' -d '{"action":"pause"}' "$url/api/v1/control")" '404|405'
  check "$proxy: no control with the daemon's token" "$(status 192.0.2.2 -X POST -H "Authorization: Bearer $(cat d/api.token)" \
    -H 'Content-Type: application/json' -d '{"action":"pause"}' "$url/api/v1/control")" '404|405'
  check "$proxy: no settings, no log" "$(status 192.0.2.2 "$url/api/v1/config") $(status 192.0.2.2 "$url/api/v1/logs")" '404 404'

  # Rounds take two seconds here. A stream begins with what was; what comes then is there at once, unless somebody keeps it
  # until a buffer is full.
  local began=$SECONDS n
  n=$(as 192.0.2.2 "$url/api/v1/runs/$run" | jq .round)
  curl -sN --max-time 60 --interface 192.0.2.2 --cacert cert.pem -H 'Accept: text/event-stream' "$url/api/v1/runs/$run/events" 2>/dev/null |
    grep -m 1 -E "^data:.*\"type\":\"round.done\".*\"n\":($((n + 2))|$((n + 3))|$((n + 4)))," >events."$proxy" || true
  check "$proxy: a round that was decided meanwhile, as an event" "$(wc -l <events."$proxy") in time $((SECONDS - began < 50)) ($((SECONDS - began)) s)" '1 in time 1 .*'

  # Who says to be somebody else is still counted as who the proxy saw.
  streams 192.0.2.3 70
  check "$proxy: event streams of one address, of 70" "$let_in" 64
  check "$proxy: one more, under another name" "$(status 192.0.2.3 -N --max-time 3 -H 'X-Forwarded-For: 203.0.113.9' "$url/api/v1/runs/$run/events")" 429
  check "$proxy: another address meanwhile" "$(status 192.0.2.4 "$url/api/v1/runs/$run")" 200
  kill "${pids[@]}" 2>/dev/null || true
  wait "${pids[@]}" 2>/dev/null || true
  began=$SECONDS
  as 192.0.2.3 --max-time 60 --parallel --parallel-max 8 -o /dev/null -w '%{http_code}\n' "$url/api/v1/runs/$run?[1-600]" 2>/dev/null | sort | uniq -c >many."$proxy" || true
  local let most=$((300 + 20 * (SECONDS - began + 2)))
  let=$(awk '$2 == 200 {print $1}' many."$proxy")
  check "$proxy: of 600 requests at once, at most $most" "$((${let:-0} >= 100 && ${let:-0} <= most)) (${let:-0} let in, $(awk '$2 == 429 {print $1}' many."$proxy") refused)" '1 .*refused.*'
  check "$proxy: another address after that" "$(status 192.0.2.4 "$url/api/v1/runs/$run")" 200
}

if command -v nginx >/dev/null; then
  nginx -c "$work/nginx.conf" -p "$work" 2>nginx.err &
  watch_through nginx 8443
fi
if command -v caddy >/dev/null; then
  caddy run --config Caddyfile >caddy.log 2>&1 &
  watch_through caddy 8444
fi
check "the node goes on" "$(moot status --json | jq -r .state)" training
if [ $failed = 0 ]; then echo "passed"; else tail -n 20 nginx.err nginx.log caddy.log public.log 2>/dev/null || true; fi
exit $failed
