#!/usr/bin/env bash
# Builds a release into dist/: archives for Linux, Windows and macOS (amd64, arm64), a Debian package for each
# architecture of Linux, install.sh, SHA256SUMS. The same commit gives the same bytes.
#   scripts/release.sh [--version V] [--only OS/ARCH]... [--cuda] [--out DIR]
# --cuda adds mootd-cuda, which needs a C library, to the archive of linux/amd64 (and takes gcc).
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "release: $*" >&2; exit 2; }
version= out=dist cuda= targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --version) version=${2:?}; shift 2 ;;
    --only) targets+=("${2:?}"); shift 2 ;;
    --out) out=${2:?}; shift 2 ;;
    --cuda) cuda=1; shift ;;
    *) fail "unknown option $1; see the head of scripts/release.sh" ;;
  esac
done
all=(linux/amd64 linux/arm64 windows/amd64 windows/arm64 darwin/amd64 darwin/arm64)
[ ${#targets[@]} -gt 0 ] || targets=("${all[@]}")
for t in "${targets[@]}"; do
  case " ${all[*]} " in *" $t "*) ;; *) fail "--only $t is none of ${all[*]}" ;; esac
done
command -v go >/dev/null || fail "go is not installed; see https://go.dev/doc/install (the version is in go.mod)"
[ -n "$version" ] || version=$(git describe --tags --always --dirty)
time=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export LC_ALL=C TZ=UTC GOFLAGS="${GOFLAGS:-} -trimpath" CGO_ENABLED=0
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -f "$out"/moot-*.tar.gz "$out"/moot-*.zip "$out"/moot_*.deb "$out/SHA256SUMS" "$out/install.sh"
flags=(-ldflags "-s -w -buildid= -X github.com/moot-net/moot/node/api.release=$version")

# The tool, and the binaries of this machine: they tell about themselves.
go build -o "$work/release" ./scripts/release
mkdir -p "$work/own"
go build "${flags[@]}" -o "$work/own/" ./node/cmd/mootd ./coordinator/cmd/moot
"$work/release" man -out "$work/man" -time "$time" -version "$version" "$work/own/mootd" "$work/own/moot"
mkdir -p "$work/completions"
for b in mootd moot; do
  for shell in bash zsh fish powershell; do
    "$work/own/$b" completion $shell >"$work/completions/$b.$shell"
  done
done

for t in "${targets[@]}"; do
  os=${t%/*} arch=${t#*/}
  name=moot-$version-$os-$arch
  dir=$work/$name
  mkdir -p "$dir"
  GOOS=$os GOARCH=$arch go build "${flags[@]}" -o "$dir/" ./node/cmd/mootd ./coordinator/cmd/moot
  if [ -n "$cuda" ] && [ "$t" = linux/amd64 ]; then
    (. scripts/cuda-env.sh && CGO_ENABLED=1 GOOS=$os GOARCH=$arch go build -tags cuda "${flags[@]}" -o "$dir/mootd-cuda" ./node/cmd/mootd)
  fi
  cp README.md "$dir/"
  "$work/release" copyright -out "$dir/copyright" "$dir"/moot*
  cp -r "$work/completions" "$dir/"
  if [ $os = windows ]; then
    "$work/release" archive -out "$out/$name.zip" -dir "$dir" -time "$time"
  else
    cp -r "$work/man" "$dir/"
    "$work/release" archive -out "$out/$name.tar.gz" -dir "$dir" -time "$time"
  fi
  if [ $os = linux ]; then
    root=$work/deb-$arch
    share=$root/usr/share
    mkdir -p "$root/usr/bin" "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/vendor-completions" \
      "$share/fish/vendor_completions.d" "$share/doc/moot"
    cp "$dir/mootd" "$dir/moot" "$root/usr/bin/"
    cp "$work"/man/*.1 "$share/man/man1/"
    gzip -9n "$share"/man/man1/*.1
    for b in mootd moot; do
      cp "$work/completions/$b.bash" "$share/bash-completion/completions/$b"
      cp "$work/completions/$b.zsh" "$share/zsh/vendor-completions/_$b"
      cp "$work/completions/$b.fish" "$share/fish/vendor_completions.d/$b.fish"
    done
    cp README.md "$share/doc/moot/"
    "$work/release" copyright -out "$share/doc/moot/copyright" "$root"/usr/bin/*
    "$work/release" deb -out "$out/moot_${version#v}_$arch.deb" -dir "$root" -time "$time" -version "$version" -arch "$arch"
  fi
  echo "built $name"
done
cp scripts/install.sh "$out/"
(cd "$out" && sha256sum -- $(ls | grep -v '^SHA256SUMS$' | grep -E '^(moot[-_].*|install\.sh)$') >SHA256SUMS)
echo "release $version is in $out"
