#!/usr/bin/env bash
# Compiles node/internal/cuda/kernels/*.cu to PTX, which is committed and embedded. The same sources give
# the same bytes everywhere, because it is always NVRTC 11.8.89 that compiles.
#   scripts/gen-ptx.sh [NAME...]     all files, or only kernels/NAME.cu
#   scripts/gen-ptx.sh --check       compares with what is committed; exit 3 if NVRTC cannot be had
# NVRTC is found in the folder MOOT_NVRTC, or fetched once (16 MB, no root) from the Debian mirror that
# apt uses, or that MOOT_DEBIAN names.
set -euo pipefail
cd "$(dirname "$0")/.."
version='11.8.89~11.8.0-5~deb12u1'
packages='libnvrtc11.2 051b70a3d8737eae470b4158e234cf112c803f631b2c77ae60a24a1146309c22
libnvrtc-builtins11.8 e446e112c304b86a35925bea6a3991a866a29736fac261adb218ec29efb49bb8'
targets='61 75 80'
kernels=node/internal/cuda/kernels

unavailable() { echo "gen-ptx: NVRTC is not there: $*" >&2; exit 3; }

nvrtc=${MOOT_NVRTC:-${XDG_CACHE_HOME:-$HOME/.cache}/moot/nvrtc-$version}
lib=$nvrtc/usr/lib/x86_64-linux-gnu
if [ ! -e "$lib/libnvrtc.so.11.2" ]; then
  command -v dpkg-deb >/dev/null && command -v curl >/dev/null || unavailable "fetching it takes curl and dpkg-deb; set MOOT_NVRTC"
  mirror=${MOOT_DEBIAN:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -n 1)}
  [ -n "$mirror" ] || unavailable "apt knows no mirror; set MOOT_DEBIAN"
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  while read -r name sum; do
    deb="${name}_${version}_amd64.deb"
    curl -fsSL --retry 2 -o "$tmp/$deb" "${mirror%/}/pool/non-free/n/nvidia-cuda-toolkit/$deb" || unavailable "$name could not be fetched"
    echo "$sum  $tmp/$deb" | sha256sum -c --quiet || unavailable "$name is not what it was"
    dpkg-deb -x "$tmp/$deb" "$tmp/root"
  done <<<"$packages"
  mkdir -p "$nvrtc"
  cp -a "$tmp/root/." "$nvrtc/"
fi

command -v gcc >/dev/null || unavailable "gcc is needed to call it"
work=$(mktemp -d)
trap 'rm -rf "$work" "${tmp:-}"' EXIT
gcc -O1 -o "$work/ptxgen" scripts/ptxgen/ptxgen.c -ldl

# NVRTC orders some instructions by where things lie in memory. At the same addresses it does so the same
# way, but those are not the same on each kernel and libc: what differs is compiled again at other addresses.
fixed="setarch $(uname -m) -R"
$fixed true 2>/dev/null || unavailable "setarch -R is needed for results that can be repeated"

compile() { # SM NAME [COMMAND...]
  (cd "$kernels" && "${@:3}" "$work/ptxgen" "$lib/libnvrtc.so.11.2" "$2.cu" "$work/sm$1/$2.ptx" \
    --gpu-architecture="compute_$1" --std=c++17 --include-path=.)
}
same() { # SM NAME
  for _ in {1..12}; do
    if cmp -s "$work/sm$1/$2.ptx" "$kernels/ptx/sm$1/$2.ptx"; then return 0; fi
    compile "$1" "$2"
  done
  return 1
}

check=
if [ "${1:-}" = --check ]; then check=1; shift; fi
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for f in "$kernels"/*.cu; do names+=("$(basename "$f" .cu)"); done
fi
export LD_LIBRARY_PATH=$lib
failed=
for sm in $targets; do
  mkdir -p "$work/sm$sm" "$kernels/ptx/sm$sm"
  for name in "${names[@]}"; do
    compile "$sm" "$name" $fixed
    if [ -z "$check" ]; then
      mv "$work/sm$sm/$name.ptx" "$kernels/ptx/sm$sm/$name.ptx"
    elif ! same "$sm" "$name"; then
      echo "gen-ptx: $kernels/ptx/sm$sm/$name.ptx is not what $name.cu gives: run scripts/gen-ptx.sh" >&2
      failed=1
    fi
  done
  for f in "$kernels/ptx/sm$sm"/*.ptx; do
    [ -e "$kernels/$(basename "$f" .ptx).cu" ] && continue
    if [ -n "$check" ]; then
      echo "gen-ptx: $f has no source" >&2
      failed=1
    else
      rm -f "$f"
    fi
  done
done
[ -z "$failed" ] || exit 1
if [ -n "$check" ]; then echo "gen-ptx: PTX is that of the sources"; else echo "gen-ptx: wrote PTX of ${names[*]} for compute capability $targets"; fi
