#!/usr/bin/env bash
# Tests and measures on a machine with an NVIDIA GPU, which needs neither Go nor a CUDA toolkit.
#   scripts/gpu-check.sh build [FOLDER]     here, with Go and gcc: test binaries and reference results into FOLDER
#                                           (default .gpu), which is to be copied to the machine with the GPU
#   FOLDER/gpu-check.sh run [OUT]           there: everything, into OUT (default gpu-results): logs, results.json, GPU.md
# Of run: MODELS=1B,3B,8B are the shapes that are measured; SKIP is a list of golden, conformance, determinism, sanitizer, bench,
# speed, peft. The comparison needs PyTorch, transformers and peft there; what is not there is said to be not run.
set -euo pipefail
self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

build() {
  local out=${1:-.gpu}
  cd "$self/.."
  . scripts/cuda-env.sh
  mkdir -p "$out/bin" "$out/train" "$out/golden"
  out=$(cd "$out" && pwd)
  for p in cuda train; do
    (cd "node/internal/$p" && go test -c -tags cuda -trimpath -ldflags='-s -w' -o "$out/bin/$p.test" .)
  done
  go build -tags cuda -trimpath -ldflags='-s -w' -o "$out/bin/mootd" ./node/cmd/mootd
  rm -rf "$out/train/testdata"
  cp -r node/internal/train/testdata "$out/train/testdata"
  cp scripts/gpu-check.sh scripts/gpu_peft.py "$out/"
  git rev-parse HEAD >"$out/commit" 2>/dev/null || echo unknown >"$out/commit"
  golden=${MOOT_GOLDEN:-../shared/golden}
  if [ -d "$golden/models" ]; then
    cp -r "$golden/models" "$golden/adapters" "$golden/nf4" "$golden/train_options" "$out/golden/"
  else
    echo "gpu-check: no reference results in $golden: tests that need them will be skipped" >&2
  fi
  echo "built $out ($(du -sh "$out" | cut -f1)): copy it to the machine with the GPU, and run gpu-check.sh run there"
}

run() {
  local out=${1:-gpu-results}
  mkdir -p "$out"
  out=$(cd "$out" && pwd)
  export MOOT_GOLDEN="$self/golden"
  # cuBLAS of PyTorch's wheels, if it is there.
  if command -v python3 >/dev/null; then
    libs=$(python3 -c 'import glob, nvidia; print(":".join(sorted({p.rsplit("/", 1)[0] for d in nvidia.__path__ for p in glob.glob(d + "/**/lib/libcublas.so.*", recursive=True)})))' 2>/dev/null || true)
    export LD_LIBRARY_PATH="${libs:+$libs:}${LD_LIBRARY_PATH:-}"
  fi
  : >"$out/steps.tsv"
  # A GPU has to be there, or all of this would run on the emulated one.
  if ! "$self/bin/mootd" gpu --json >"$out/gpu.json"; then
    echo "gpu-check: there is no GPU that can be used; see above" >&2
    exit 12
  fi
  "$self/bin/mootd" gpu --no-test
  step conformance cuda -test.run 'Conformance|Products|Attention|Ops|Rows|Norm|Optimi|NF4|SelfTest|Arena|Send|Adam|SGD|CrossEntropy|Activations|Rope|Indexed|SumSquares|SameBits'
  step golden train -test.run Golden -backend cuda
  step half train -test.run HalfOnCUDA
  step determinism train -test.run 'CUDAIsDeterministic|CUDAPause|CUDAAdam8'
  step memory train -test.run 'CUDAMemory|CUDAOut'
  if skipped sanitizer; then :; elif command -v compute-sanitizer >/dev/null; then
    step sanitizer "compute-sanitizer --error-exitcode 9" cuda -test.run 'Conformance/(RMSNorm|Attention|MatMul|CrossEntropy)' -test.short
  else
    printf 'sanitizer\tnot run\tcompute-sanitizer is not installed\n' >>"$out/steps.tsv"
  fi
  step bench cuda -test.run XXX -test.bench . -test.benchtime 200ms
  : >"$out/speed.jsonl"
  step speed train -test.run GPUSpeed -test.v -speed "${MODELS:-1B,3B,8B}" -speed-out "$out/speed.jsonl"
  step cap train -test.run GPUSpeed -test.v -speed 8B -speed-cap 6866 -speed-out "$out/cap.jsonl"
  if skipped peft; then :; elif python3 -c 'import torch, transformers, peft' 2>/dev/null; then
    step peft python3 "$self/gpu_peft.py" --models "${MODELS:-1B,3B,8B}" --out "$out/speed.jsonl"
  else
    printf 'peft\tnot run\ttorch, transformers or peft is not installed\n' >>"$out/steps.tsv"
  fi
  report "$out"
}

skipped() {
  case ",${SKIP:-}," in *",$1,"*) printf '%s\tnot run\tleft out by SKIP\n' "$1" >>"$out/steps.tsv"; return 0 ;; esac
  return 1
}

# step NAME [WRAPPER] PACKAGE|python3 ARGS...: runs one step, and goes on whatever comes of it.
step() {
  local name=$1 wrapper="" begin=$SECONDS rc=0
  shift
  skipped "$name" && return 0
  case "$1" in *" "*) wrapper=$1; shift ;; esac
  printf '== %s\n' "$name"
  if [ "$1" = python3 ]; then
    "$@" >"$out/$name.log" 2>&1 || rc=$?
  else
    local package=$1
    shift
    mkdir -p "$self/$package"
    # shellcheck disable=SC2086 # the wrapper is a command with arguments
    (cd "$self/$package" && $wrapper "$self/bin/$package.test" -test.timeout 60m "$@") >"$out/$name.log" 2>&1 || rc=$?
  fi
  tail -n 3 "$out/$name.log"
  if [ $rc = 0 ]; then printf '%s\tpassed\t%ss\n' "$name" $((SECONDS - begin)); else printf '%s\tFAILED\texit %s; see %s.log\n' "$name" $rc "$name"; fi >>"$out/steps.tsv"
}

report() {
  command -v python3 >/dev/null || { echo "gpu-check: no python3: results are in $1/*.log and $1/speed.jsonl" >&2; return; }
  python3 - "$1" "$(cat "$self/commit" 2>/dev/null || echo unknown)" <<'PY'
import datetime, json, os, sys

out, commit = sys.argv[1:]
# dense TFLOP/s of bf16 with sums in float32, as the makers give them
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "5090": 209.5, "5080": 112.6, "5070 Ti": 87.9, "5070": 61.7, "4090": 165.2, "4080": 97.5,
         "4070 Ti SUPER": 88.2, "4070": 58.3, "4060 Ti": 44.1, "4060": 30.2, "3090": 71.2, "3080": 59.5, "3070": 40.6, "3060": 25.5}
steps = [dict(zip(("step", "result", "note"), line.rstrip("\n").split("\t"))) for line in open(out + "/steps.tsv")]
read = lambda name: [json.loads(line) for line in open(out + "/" + name)] if os.path.exists(out + "/" + name) else []
gpu, speed, cap = json.load(open(out + "/gpu.json")), read("speed.jsonl"), read("cap.jsonl")
peak = next((v for k, v in PEAKS.items() if k in gpu["devices"][0]["name"]), None)
for s in speed + cap:
    s["hfu"] = round(s["tflops"] / peak, 4) if peak and s.get("tflops") else None
result = {"date": datetime.date.today().isoformat(), "commit": commit, "gpu": gpu, "peak_tflops": peak, "steps": steps, "speed": speed, "cap": cap}
json.dump(result, open(out + "/results.json", "w"), indent=1)

d = gpu["devices"][0]
t = d.get("test") or {}
lines = [f"# {d['name']}, {result['date']}", "", f"Commit {commit[:12]}, driver {d.get('driver', '?')} for CUDA {d['cuda']}, compute capability {d['compute_capability']}, "
         f"cuBLAS {d.get('cublas') or 'not found'}. Self-test: {t.get('tflops', 0):.1f} TFLOP/s own, {t.get('cublas_tflops', 0):.1f} cuBLAS.", "",
         "| step | result | |", "|---|---|---|"]
lines += [f"| {s['step']} | {s['result']} | {s['note']} |" for s in steps]
lines += ["", f"HFU is of {peak} TFLOP/s." if peak else "The card's peak is not in the table: no HFU.", "",
          "| model | weights | tokens | engine | tokens/s | step ms | peak GB | layers computed again | HFU |", "|---|---|---|---|---|---|---|---|---|"]
for s in sorted(speed, key=lambda s: (s["model"], s["precision"], s["tokens"], s["engine"])):
    if s.get("error"):
        lines.append(f"| {s['model']} | {s['precision']} | {s['tokens']} | {s['engine']} | {s['error'][:80]} | | | | |")
    else:
        hfu = f"{100 * s['hfu']:.0f} %" if s["hfu"] else ""
        lines.append(f"| {s['model']} | {s['precision']} | {s['tokens']} | {s['engine']} | {s['tokens_per_s']:.0f} | {s['step_ms']:.0f} | {s['peak_bytes'] / 1e9:.2f} | {s['recompute']} | {hfu} |")
if cap:
    lines += ["", "With the arena bounded to 7.2 GB:", ""]
    lines += [f"- {s['model']} {s['precision']}, {s['tokens']} tokens: " + (s.get("error") or f"{s['tokens_per_s']:.0f} tokens/s, {s['peak_bytes'] / 1e9:.2f} GB") for s in cap]
open(out + "/GPU.md", "w").write("\n".join(lines) + "\n")
print("\n".join(lines))
sys.exit(any(s["result"] == "FAILED" for s in steps))
PY
}

case "${1:-}" in
  build) shift; build "$@" ;;
  run) shift; run "$@" ;;
  *) sed -n '2,8p' "${BASH_SOURCE[0]}" | sed 's/^# //'; exit 2 ;;
esac
