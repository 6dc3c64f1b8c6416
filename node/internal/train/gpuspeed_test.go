//go:build cuda && cgo

package train

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/tensor"
)

var (
	speedFlag = flag.String("speed", "", "measure training on the GPU: sizes of models (tiny, 1B, 3B, 8B), separated by commas")
	speedOut  = flag.String("speed-out", "", "file that lines of JSON are appended to")
	speedCap  = flag.Int64("speed-cap", 0, "bound of the device's memory, in MiB")
)

// speedModels have the shapes of Llama 3.2 1B and 3B, and of Llama 3.1 8B.
var speedModels = map[string]func() model.Config{
	"tiny": func() model.Config { return llama3(128, 256, 2, 4, 2, 1000, false) },
	"1B":   func() model.Config { return llama3(2048, 8192, 16, 32, 8, 128256, true) },
	"3B":   func() model.Config { return llama3(3072, 8192, 28, 24, 8, 128256, true) },
	"8B":   func() model.Config { return llama3(4096, 14336, 32, 32, 8, 128256, false) },
}

func llama3(hidden, intermediate, layers, heads, kv, vocab int, tied bool) model.Config {
	c := model.Llama(hidden, intermediate, layers, heads, vocab, 8192)
	c.KVHeads, c.TiedHead, c.Rope.Theta = kv, tied, 500000
	return c
}

// speed is one measurement, as scripts/gpu_peft.py writes it too.
type speed struct {
	Engine       string  `json:"engine"`
	Device       string  `json:"device"`
	Model        string  `json:"model"`
	Precision    string  `json:"precision"` // bf16 or nf4, of the frozen weights
	Tokens       int     `json:"tokens"`    // of a micro-batch, one sequence
	Rank         int     `json:"rank"`
	Recompute    int     `json:"recompute"` // layers that are computed again
	StepMillis   float64 `json:"step_ms"`
	TokensPerSec float64 `json:"tokens_per_s"`
	PeakBytes    int64   `json:"peak_bytes"`
	PlannedBytes int64   `json:"planned_bytes,omitempty"`
	TFLOPS       float64 `json:"tflops"` // of the hardware: what is computed again counts
	Error        string  `json:"error,omitempty"`
}

// hardwareFlops is what a step computes, by the formula of HFU: twice the
// parameters of linear layers for each pass, and causal attention, whose
// backward pass is 2.5 times its forward pass.
func hardwareFlops(c model.Config, tokens, recompute int) float64 {
	block := 0.
	for _, m := range c.Modules() {
		block += float64(m.In) * float64(m.Out)
	}
	head := float64(c.Hidden) * float64(c.Vocab)
	again := float64(recompute) / float64(c.Layers)
	attention := 2 * float64(tokens) * float64(c.Heads*c.HeadDim) * float64(c.Layers)
	return float64(tokens) * (2*block*(2+again) + 4*head + attention*(1+2.5+again))
}

// TestGPUSpeed measures training with random weights: LoRA of rank 16 on all
// linear layers, one sequence a step.
func TestGPUSpeed(t *testing.T) {
	if *speedFlag == "" {
		t.Skip("-speed names no model")
	}
	loadCUDA(t)
	for _, name := range strings.Split(*speedFlag, ",") {
		config := speedModels[name]
		if config == nil {
			t.Fatalf("no model %s", name)
		}
		lengths := []int{2048, 4096}
		if name == "tiny" {
			lengths = []int{32}
		}
		for _, kind := range []tensor.Kind{tensor.Half, tensor.FourBits} {
			for _, tokens := range lengths {
				s, err := measureSpeed(t, name, config(), kind, tokens)
				if err != nil {
					s.Error = err.Error()
				}
				line, err := json.Marshal(s)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s", line)
				if *speedOut != "" {
					f, err := os.OpenFile(*speedOut, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
					if err != nil {
						t.Fatal(err)
					}
					fmt.Fprintf(f, "%s\n", line)
					if err := f.Close(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

func measureSpeed(t *testing.T, name string, c model.Config, kind tensor.Kind, tokens int) (speed, error) {
	const rank = 16
	s := speed{Engine: "moot", Model: name, Precision: map[tensor.Kind]string{tensor.Half: "bf16", tensor.FourBits: "nf4"}[kind], Tokens: tokens, Rank: rank}
	info, err := cuda.Query(0)
	if err != nil {
		return s, err
	}
	s.Device = info.Name
	free := info.FreeBytes - 512<<20
	if *speedCap > 0 {
		free = *speedCap << 20
	}
	o := Options{Spec: lora.Spec{Rank: rank, Alpha: 32, Targets: []string{lora.AllLinear}}, MaxTokens: tokens, MicroBatchTokens: tokens, Sizes: info.Sizes(false)}
	weights := c.Weights(kind)
	for i, w := range weights { // as model.NewFrozen keeps them
		if kind == tensor.FourBits && (w.Gathered || strings.HasPrefix(w.Name, "lm_head") || strings.Contains(w.Name, "embed_tokens")) {
			weights[i].Kind = tensor.Half
		}
	}
	plan, err := estimate(c, weights, o)
	if err == nil && plan.Total() > free {
		o.ActivationBytes = free - (plan.Total() - plan.Activations)
		plan, err = estimate(c, weights, o)
	}
	if err != nil {
		return s, err
	}
	s.PlannedBytes = plan.Total()
	products, err := productsOf(c, weights, o)
	if err != nil {
		return s, err
	}
	b, err := cuda.Open(cuda.Options{MemoryBytes: *speedCap << 20, ReserveBytes: plan.Total(), ScratchBytes: plan.Scratch, Products: products})
	if err != nil {
		return s, err
	}
	defer func() { _ = b.Close() }() // its error, if any, was returned
	m, err := model.NewFrozen(c, kind, model.Options{Backend: b})
	if err != nil {
		return s, err
	}
	tr, err := New(m, o)
	if err != nil {
		return s, err
	}
	s.Recompute = tr.Model().Recompute()
	ids := make([]int32, tokens)
	for i := range ids {
		ids[i] = int32((i*7919 + i*i) % c.Vocab)
	}
	batch := []Sample{{IDs: ids, Labels: ids}}
	steps, took := 0, time.Duration(0)
	for warm := range 100 {
		began := time.Now()
		if _, _, err := tr.Step(t.Context(), batch, 1e-4); err != nil {
			return s, err
		}
		if warm >= 2 {
			steps, took = steps+1, took+time.Since(began)
		}
		if steps >= 5 && took > 5*time.Second || name == "tiny" && steps == 1 {
			break
		}
	}
	perStep := took.Seconds() / float64(steps)
	s.StepMillis, s.TokensPerSec = 1e3*perStep, float64(tokens)/perStep
	s.TFLOPS = hardwareFlops(c, tokens, s.Recompute) / perStep / 1e12
	s.PeakBytes = b.Usage().Reserved
	return s, b.Err()
}

// TestPlanOf8B: a step of QLoRA of an 8B model at 2,048 tokens fits into 7.2 GB,
// as a card of 8 GB has them.
func TestPlanOf8B(t *testing.T) {
	c := speedModels["8B"]()
	weights := c.Weights(tensor.FourBits)
	for i, w := range weights {
		if strings.HasPrefix(w.Name, "lm_head") || w.Gathered {
			weights[i].Kind = tensor.Half
		}
	}
	o := Options{
		Spec: lora.Spec{Rank: 16, Alpha: 32, Targets: []string{lora.AllLinear}}, MaxTokens: 2048, MicroBatchTokens: 2048,
		Sizes: cuda.Info{Capability: 86, SMs: 28}.Sizes(false),
	}
	all, err := estimate(c, weights, o)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 7_200_000_000
	o.ActivationBytes = limit - (all.Total() - all.Activations)
	plan, err := estimate(c, weights, o)
	if err != nil {
		t.Fatalf("%v; without a bound %+v", err, all)
	}
	t.Logf("%.2f GB: %+v; without a bound %.2f GB", float64(plan.Total())/1e9, plan, float64(all.Total())/1e9)
	if plan.Total() > limit {
		t.Errorf("%d bytes are planned, at most %d", plan.Total(), limit)
	}
	most := 0
	for tokens := 2048; ; tokens += 256 {
		o.MaxTokens, o.MicroBatchTokens = tokens, tokens
		all, err := estimate(c, weights, Options{Spec: o.Spec, MaxTokens: tokens, MicroBatchTokens: tokens, Sizes: o.Sizes})
		if err != nil {
			t.Fatal(err)
		}
		o.ActivationBytes = limit - (all.Total() - all.Activations)
		if _, err := estimate(c, weights, o); err != nil {
			break
		}
		most = tokens
	}
	t.Logf("at most %d tokens", most)
	if most < 2048 {
		t.Errorf("%d tokens fit", most)
	}
}
