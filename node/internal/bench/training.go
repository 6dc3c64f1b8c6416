package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

// The workload of peer_torch.py.
const (
	batchSize = 4
	seqLen    = 256
	rank      = 16
)

// models are those of peer_torch.py.
var models = map[string]func() model.Config{
	"tiny": func() model.Config { return tied(model.Llama(64, 176, 2, 4, 512, seqLen)) },
	"15m":  func() model.Config { return tied(model.Llama(288, 768, 6, 6, 32000, seqLen)) },
	"42m":  func() model.Config { return tied(model.Llama(512, 1376, 8, 8, 32000, seqLen)) },
	"110m": func() model.Config { return tied(model.Llama(768, 2048, 12, 12, 32000, seqLen)) },
}

func tied(c model.Config) model.Config {
	c.TiedHead = true
	return c
}

// training is what a program says about its training steps.
type training struct {
	StepS       [3]float64 `json:"step_s"` // least, median, most
	CPUsPerStep float64    `json:"cpu_s_per_step"`
	PeakRSSMB   float64    `json:"peak_rss_mb"`
	Loss        [2]float64 `json:"loss"`
	Torch       string     `json:"torch"`
}

func measureTraining(ctx context.Context, o *options, result figures) error {
	script := filepath.Join(o.golden, "peer_torch.py")
	var extra []string
	peer := false
	if _, err := os.Stat(script); errors.Is(err, fs.ErrNotExist) {
		fmt.Printf("training: no %s (set MOOT_GOLDEN)\n", script)
	} else if peer = o.pythonHas(ctx, "torch", "True"); !peer {
		fmt.Printf("training: %s has no torch (see --install-peers)\n", o.python)
	} else if !o.pythonHas(ctx, "torch.nn.functional as F", `hasattr(F, "scaled_dot_product_attention")`) {
		extra = []string{"--attn", "eager"} // a version before 2.0
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "moot-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	fmt.Printf("LoRA training, rank %d on all linear layers, %d samples of %d tokens, %d threads; medians of %d runs\n", rank, batchSize, seqLen, o.threads, o.runs)
	fmt.Printf("%-10s | %9s %9s %7s | %9s %9s %7s | %8s %8s %6s\n", "model", "tokens/s", "torch", "ratio", "s of CPU", "torch", "ratio", "peak MB", "torch", "ratio")
	for _, size := range o.sizes {
		for _, dtype := range o.dtypes {
			base := filepath.Join(dir, size+"-"+dtype)
			// In a process of its own: what this one holds when it starts another
			// counts as memory of that one.
			if err := output(ctx, new(bool), self, workerCommand, "model", base, size, dtype); err != nil {
				return err
			}
			var ours, theirs []training
			for range o.runs {
				var t training
				if err := output(ctx, &t, self, workerCommand, "train", base, strconv.Itoa(o.threads), strconv.Itoa(o.steps), o.precision); err != nil {
					return err
				}
				ours = append(ours, t)
				if !peer {
					continue
				}
				args := append([]string{
					script, "--size", size, "--dtype", dtype, "--threads", strconv.Itoa(o.threads), "--steps", strconv.Itoa(o.steps),
					"--batch", strconv.Itoa(batchSize), "--seq", strconv.Itoa(seqLen), "--rank", strconv.Itoa(rank), "--warmup", "1",
				}, extra...)
				var p training
				if err := output(ctx, &p, o.python, args...); err != nil {
					return err
				}
				theirs = append(theirs, p)
			}
			report(size, dtype, ours, theirs, result)
			if err := os.RemoveAll(base); err != nil {
				return err
			}
		}
	}
	fmt.Println()
	return nil
}

func report(size, dtype string, ours, theirs []training, result figures) {
	of := func(list []training, fn func(training) float64) float64 { return median(column(list, fn)) }
	// ratio is the median of those of runs one after the other, which had the
	// same neighbours on the machine.
	ratio := func(fn func(training) float64) float64 {
		var v []float64
		for i := range theirs {
			v = append(v, fn(ours[i])/fn(theirs[i]))
		}
		return median(v)
	}
	speed := func(t training) float64 { return batchSize * seqLen / t.StepS[1] }
	processor := func(t training) float64 { return t.CPUsPerStep }
	memory := func(t training) float64 { return t.PeakRSSMB }
	name := size + "_" + dtype
	result.set("train_"+name+"_tokens_per_s", of(ours, speed))
	if len(theirs) == 0 {
		fmt.Printf("%-10s | %9.0f %9s %7s | %9.2f %9s %7s | %8.0f\n", name, of(ours, speed), "-", "-", of(ours, processor), "-", "-", of(ours, memory))
		return
	}
	fastest := func(list []training) float64 {
		return slices.Min(column(list, func(t training) float64 { return t.StepS[0] }))
	}
	s, c, m := ratio(speed), 1/ratio(processor), ratio(memory)
	fmt.Printf("%-10s | %9.0f %9.0f %7.2f | %9.2f %9.2f %7.2f | %8.0f %8.0f %6.2f\n", name,
		of(ours, speed), of(theirs, speed), s, of(ours, processor), of(theirs, processor), c, of(ours, memory), of(theirs, memory), m)
	result.set("train_"+name+"_ratio_torch", s)
	result.set("train_"+name+"_ratio_torch_fastest", fastest(theirs)/fastest(ours)) // of the fastest steps
	result.set("train_"+name+"_ratio_torch_cpu", c)
	result.set("memory_"+name+"_ratio_torch", m)
	if worst := result["peak_memory_ratio_torch"]; worst == nil || *worst < m {
		result.set("peak_memory_ratio_torch", m)
	}
}

// makeModel writes a model with random weights.
func makeModel(dir, size, dtype string) error {
	m, err := model.New(models[size](), 1, model.Options{})
	if err != nil {
		return err
	}
	kind := safetensors.F32
	if dtype == "bf16" {
		kind = safetensors.BF16
	}
	return m.Save(dir, kind)
}
