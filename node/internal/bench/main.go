// Command bench measures training, matrix products and tokenizers on this
// machine beside PyTorch and OpenBLAS, as far as those are installed.
// scripts/bench.sh runs it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/moot-net/moot/node/internal/cpu"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// options are the command's flags.
type options struct {
	json    bool
	threads int
	runs    int // of each program, alternating
	steps   int // of training in a run
	sizes   []string
	dtypes  []string
	// precision is how we multiply with weights of bfloat16. PyTorch does so in
	// bfloat16.
	precision string
	golden    string // folder of the reference results, with the PyTorch script
	python    string
	only      string
}

func run(args []string) error {
	if len(args) > 0 && args[0] == workerCommand { // started by this program
		return runWorker(args[1:])
	}
	var o options
	var sizeList, dtypeList string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.json, "json", false, "end with one JSON object")
	f.IntVar(&o.threads, "threads", min(2, runtime.NumCPU()), "threads of each program")
	f.IntVar(&o.runs, "runs", 3, "runs of each program; they alternate, and medians are taken")
	f.IntVar(&o.steps, "steps", 5, "measured training steps in a run")
	f.StringVar(&sizeList, "sizes", "15m,110m", "models: tiny, 15m, 42m, 110m")
	f.StringVar(&dtypeList, "dtypes", "f32,bf16", "types of the frozen weights")
	f.StringVar(&o.precision, "precision", "auto", "of our products with weights of bfloat16: auto, f32, bf16")
	f.StringVar(&o.golden, "golden", goldenDir(), "folder with peer_torch.py and tokenizers/ (or MOOT_GOLDEN)")
	f.StringVar(&o.python, "python", "/usr/bin/python3", "Python that has torch and numpy")
	f.StringVar(&o.only, "only", "", "one of sgemm, train, tokenizer; empty: all")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	o.sizes, o.dtypes = strings.Split(sizeList, ","), strings.Split(dtypeList, ",")
	for _, s := range o.sizes {
		if _, ok := models[s]; !ok {
			return fmt.Errorf("no model %q, must be one of tiny, 15m, 42m, 110m", s)
		}
	}
	for _, d := range o.dtypes {
		if !slices.Contains([]string{"f32", "bf16"}, d) {
			return fmt.Errorf("no type %q, must be f32 or bf16", d)
		}
	}
	if _, err := cpu.ParsePrecision(o.precision); err != nil {
		return err
	}
	if o.threads < 1 || o.runs < 1 || o.steps < 1 {
		return errors.New("--threads, --runs and --steps must be at least 1")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return measure(ctx, &o)
}

// goldenDir is where the reference results are looked for.
func goldenDir() string {
	if dir := os.Getenv("MOOT_GOLDEN"); dir != "" {
		return dir
	}
	return filepath.Join("..", "shared", "golden")
}

// figures are what --json prints; what was not measured is null.
type figures map[string]*float64

func (f figures) set(name string, v float64) { f[name] = &v }

// measure runs everything and prints a table as it goes.
func measure(ctx context.Context, o *options) error {
	result := figures{}
	for _, name := range []string{
		"sgemm_ratio_openblas", "train_15m_f32_ratio_torch", "train_110m_f32_ratio_torch",
		"train_15m_bf16_ratio_torch", "train_110m_bf16_ratio_torch", "peak_memory_ratio_torch", "tokenizer_mb_per_s",
	} {
		result[name] = nil
	}
	for _, part := range []struct {
		name string
		fn   func(context.Context, *options, figures) error
	}{{"sgemm", measureProducts}, {"tokenizer", measureTokenizers}, {"train", measureTraining}} {
		if o.only != "" && o.only != part.name {
			continue
		}
		if err := part.fn(ctx, o, result); err != nil {
			return fmt.Errorf("measure %s: %w", part.name, err)
		}
	}
	if !o.json {
		return nil
	}
	b, err := json.Marshal(result)
	if err != nil {
		return err
	}
	fmt.Println(string(b))
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n == 0 {
		return 0
	}
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}
