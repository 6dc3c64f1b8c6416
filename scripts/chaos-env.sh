# Sourced by chaos.sh and soak.sh: builds the daemon and the program that
# disturbs it, and runs that alone in namespaces of its own, which take with
# them whatever it leaves.

chaos() {
  local code=0 skewed=() alone=(unshare --mount --net --pid --fork --kill-child --mount-proc)
  [ "$(id -u)" = 0 ] || alone+=(--map-root-user)
  if ! "${alone[@]}" ip link add chaos0 type veth peer name chaos1 2>/dev/null; then
    echo "chaos: skipped: network namespaces are not permitted here (or unshare or ip is missing: packages util-linux, iproute2)" >&2
    echo '{"schema":1,"pass":false,"skipped":"network namespaces are not permitted here","scenarios":[],"wall_s":0}'
    return 77
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -o "$work/" ./node/cmd/mootd ./node/internal/chaos)
  if wants_clock "$@"; then
    echo "chaos: building a daemon whose clock can be set; the first time takes minutes" >&2
    skewed_mootd "$work"
    skewed=(--skewed "$work/mootd-skewed")
  fi
  "${alone[@]}" --propagation private "$work/chaos" --mootd "$work/mootd" "${skewed[@]}" "$@" || code=$?
  return $code
}

# wants_clock: whether the arguments name the scenario clock-skew, or none.
wants_clock() {
  case " $* " in
    *clock-skew*) return 0 ;;
    *--scenario* | *--list* | *--soak* | *" -h "* | *--help*) return 1 ;;
  esac
}

# skewed_mootd builds a mootd whose clock is wrong by $MOOT_CHAOS_CLOCK seconds.
# libfaketime does nothing for a program in Go, which has no libc to replace; so
# it is built with a package time of which Now adds that.
skewed_mootd() {
  local goroot
  goroot=$(go env GOROOT)
  mkdir -p "$1/time"
  sed 's/^\tsec, nsec, mono := runtimeNow()$/&\n\tsec += chaosClock/' "$goroot/src/time/time.go" >"$1/time/time.go"
  [ "$(grep -c chaosClock "$1/time/time.go")" = 1 ] || { echo "chaos: time.Now of this Go is not known" >&2; return 1; }
  cat >"$1/time/chaos.go" <<'GO'
package time

import "syscall"

var chaosClock = readChaosClock()

func readChaosClock() int64 {
	s, _ := syscall.Getenv("MOOT_CHAOS_CLOCK")
	sign, n := int64(1), int64(0)
	for i := range len(s) {
		if s[i] == '-' {
			sign = -1
			continue
		}
		n = 10*n + int64(s[i]-'0')
	}
	return sign * n
}
GO
  cat >"$1/time/overlay.json" <<JSON
{"Replace": {"$goroot/src/time/time.go": "$1/time/time.go", "$goroot/src/time/moot_chaos.go": "$1/time/chaos.go"}}
JSON
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -overlay "$1/time/overlay.json" -o "$1/mootd-skewed" ./node/cmd/mootd)
}
