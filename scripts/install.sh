#!/bin/sh
# Installs moot for one user, without root:
#   sh install.sh --from https://HOST/RELEASE     a folder with SHA256SUMS, on the web
#   sh install.sh --from DIR                      or on this machine
#   sh install.sh --from ... --to ~/.local        the default; programs go to bin below it
# Nothing is written before the checksum of the archive was verified.
set -eu
fail() { echo "install: $*" >&2; exit 1; }
from= to=${HOME:?}/.local
while [ $# -gt 0 ]; do
  case $1 in
    --from) [ $# -ge 2 ] || fail "--from needs an address or a folder"; from=$2; shift 2 ;;
    --to) [ $# -ge 2 ] || fail "--to needs a folder"; to=$2; shift 2 ;;
    *) fail "unknown option $1; --from ADDRESS, --to FOLDER" ;;
  esac
done
if [ -z "$from" ]; then
  from=$(cd "$(dirname "$0")" && pwd)
  [ -f "$from/SHA256SUMS" ] || fail "say where the release is: --from ADDRESS"
fi
case $(uname -s) in
  Linux) os=linux ;;
  Darwin) os=darwin ;;
  *) fail "this system is not known; unpack an archive of the release by hand" ;;
esac
case $(uname -m) in
  x86_64 | amd64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) fail "there is no release for $(uname -m)" ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
get() { # FILE: into $work
  case $from in
    https://*)
      if command -v curl >/dev/null 2>&1; then
        curl --proto '=https' -fsSL --retry 3 -o "$work/$1" "$from/$1"
      elif command -v wget >/dev/null 2>&1; then
        wget -q --https-only -O "$work/$1" "$from/$1"
      else
        fail "neither curl nor wget is here; fetch the release by hand and give its folder with --from"
      fi ;;
    http://*) fail "http does not tell who answers; use https" ;;
    *) cp -- "$from/$1" "$work/$1" ;;
  esac || fail "fetch $1 from $from"
}
get SHA256SUMS
line=$(grep -E "^[0-9a-f]{64} [ *]moot-[^/ ]*-$os-$arch\.tar\.gz\$" "$work/SHA256SUMS") || fail "the release has nothing for $os/$arch"
[ "$(printf '%s\n' "$line" | wc -l)" -eq 1 ] || fail "the release has several archives for $os/$arch"
archive=${line##*[ *]}
get "$archive"
if command -v sha256sum >/dev/null 2>&1; then
  sum=$(sha256sum <"$work/$archive")
else
  sum=$(shasum -a 256 <"$work/$archive")
fi
[ "${sum%% *}" = "${line%% *}" ] || fail "$archive does not have the checksum of SHA256SUMS; nothing was installed"
mkdir "$work/out"
tar -xzf "$work/$archive" -C "$work/out"
dir=$work/out/${archive%.tar.gz}
"$dir/mootd" version >/dev/null || fail "$archive does not run on this machine; nothing was installed"
put() { # FILE FOLDER NAME MODE: in one step, also while the old one runs
  mkdir -p "$2"
  cp -- "$1" "$2/.$3.new"
  chmod "$4" "$2/.$3.new"
  mv -f -- "$2/.$3.new" "$2/$3"
}
for b in mootd moot; do
  put "$dir/$b" "$to/bin" $b 755
  put "$dir/completions/$b.bash" "$to/share/bash-completion/completions" $b 644
  put "$dir/completions/$b.zsh" "$to/share/zsh/site-functions" _$b 644
  put "$dir/completions/$b.fish" "$to/share/fish/vendor_completions.d" $b.fish 644
done
if [ -f "$dir/mootd-cuda" ]; then put "$dir/mootd-cuda" "$to/bin" mootd-cuda 755; fi
for doc in README.md copyright; do [ ! -f "$dir/$doc" ] || put "$dir/$doc" "$to/share/doc/moot" $doc 644; done
for page in "$dir"/man/*.1; do put "$page" "$to/share/man/man1" "${page##*/}" 644; done
echo "installed $("$to/bin/mootd" version) in $to/bin"
case ":$PATH:" in *":$to/bin:"*) ;; *) echo "add $to/bin to PATH" ;; esac
echo "\"mootd\" starts a node; \"mootd service install\" starts it when you log in"
