package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerCommand { // started by a test
		main()
		return
	}
	os.Exit(m.Run())
}

// TestWithoutPeers: what has no peer is measured alone, and has no ratio.
func TestWithoutPeers(t *testing.T) {
	o := &options{threads: 1, runs: 1, steps: 1, sizes: []string{"tiny"}, dtypes: []string{"f32", "bf16"}, precision: "bf16", golden: t.TempDir(), python: filepath.Join(t.TempDir(), "none")}
	f := figures{}
	if err := measureTraining(t.Context(), o, f); err != nil {
		t.Fatal(err)
	}
	for _, dtype := range o.dtypes {
		if v := f["train_tiny_"+dtype+"_tokens_per_s"]; v == nil || !(*v > 0) {
			t.Errorf("%s: no speed", dtype)
		}
		if f["train_tiny_"+dtype+"_ratio_torch"] != nil {
			t.Errorf("%s: a ratio to nothing", dtype)
		}
	}
	if err := measureTokenizers(t.Context(), o, f); err != nil || f["tokenizer_mb_per_s"] != nil {
		t.Errorf("tokenizers: %v, %v", f["tokenizer_mb_per_s"], err)
	}
}

// TestRatios: above 1 is faster than the peer, and a share of its memory.
func TestRatios(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	o := &options{threads: 1, runs: 2, steps: 1, sizes: []string{"tiny"}, dtypes: []string{"f32"}, precision: "bf16", golden: t.TempDir(), python: filepath.Join(t.TempDir(), "python")}
	if err := os.WriteFile(filepath.Join(o.golden, "peer_torch.py"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const peer = `#!/bin/sh
[ "$1" = -c ] && exit 0
[ -z "$OPENBLAS_CORETYPE" ] || exit 1
echo noise
echo '{"step_s": [1, 4, 9], "cpu_s_per_step": 3, "peak_rss_mb": 1e6}'
`
	if err := os.WriteFile(o.python, []byte(peer), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OPENBLAS_CORETYPE", "Prescott")
	f := figures{}
	if err := measureTraining(t.Context(), o, f); err != nil {
		t.Fatal(err)
	}
	want := *f["train_tiny_f32_tokens_per_s"] / (batchSize * seqLen / 4.)
	if got := f["train_tiny_f32_ratio_torch"]; got == nil || math.Abs(*got/want-1) > 1e-9 {
		t.Errorf("ratio is %v, want %v", show(got), want)
	}
	if got := f["peak_memory_ratio_torch"]; got == nil || !(*got < 0.01) {
		t.Errorf("share of memory is %v", show(got))
	}
}

// TestProducts: programs take turns, and a ratio above 1 is in our favour.
func TestProducts(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ours, kind, err := startMultiplier(t.Context(), 1, self, workerCommand, "sgemm", "1")
	if err != nil || kind == "" {
		t.Fatal(kind, err)
	}
	theirs, kind, err := startMultiplier(t.Context(), 1, "/bin/sh", "-c", `echo '"openblas"'; while read shape; do echo '{"seconds": 20, "fastest": 10, "cpu": 5}'; done`)
	if err != nil || kind != "openblas" {
		t.Fatal(kind, err)
	}
	for _, shape := range []string{"40x50x60", "40x50x60:n"} {
		c, err := compare(ours, theirs, shape, 3)
		if err != nil {
			t.Fatal(err)
		}
		const flops = 2e-9 * 40 * 50 * 60
		for i, seconds := range []float64{10, 20, 5} {
			if want := flops / seconds; math.Abs(c[i].theirs/want-1) > 1e-9 || math.Abs(c[i].ratio/(c[i].ours/want)-1) > 1e-9 || !(c[i].ratio > 1) {
				t.Errorf("%s, figure %d: %+v, want %v for the other", shape, i, c[i], want)
			}
		}
	}
	if _, err := ours.multiply("many"); err == nil {
		t.Error("a product without a shape")
	}
	if err := theirs.close(); err != nil {
		t.Error(err)
	}
	if err := ours.close(); err == nil {
		t.Error("the program ended well without a shape")
	}
}

func show(v *float64) string {
	if v == nil {
		return "null"
	}
	return fmt.Sprint(*v)
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(tt.v); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.v, got, tt.want)
		}
	}
}
