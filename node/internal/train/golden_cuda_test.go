//go:build cuda && cgo

package train

import (
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	files "github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/cuda/cudatest"
	"github.com/moot-net/moot/node/internal/cuda/emu"
	"github.com/moot-net/moot/node/internal/goldentest"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/shard/safetensors"
)

var backendFlag = flag.String("backend", "cpu", "what tests against reference results compute with: cpu or cuda")

// goldenBackend is what tests against reference results compute with. On a GPU
// it is float32 too, so that the tolerances are the same.
func goldenBackend(t *testing.T) tensor.Backend {
	t.Helper()
	if *backendFlag == "cpu" {
		return nil
	}
	return openCUDA(t, cuda.Options{Float32: true})
}

// loadCUDA loads a driver, and returns it if it is the emulated one.
func loadCUDA(t *testing.T) *emu.Driver {
	t.Helper()
	d, err := cudatest.Load()
	if errors.Is(err, emu.ErrNoCompiler) {
		t.Skipf("no CUDA driver, and %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if d != nil {
		d.Reset()
	}
	return d
}

func openCUDA(t *testing.T, o cuda.Options) *cuda.Backend {
	t.Helper()
	loadCUDA(t)
	b, err := cuda.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestHalfOnCUDA trains a model as a GPU does it by default, with activations of
// bfloat16, and compares the difference to float32 with that which PyTorch makes
// in bfloat16 on the same model (scripts/golden/bf16_torch.py).
func TestHalfOnCUDA(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "llama2-mha"))
	torch := readTorchBF16(t)
	dir := half(t, base.dir)
	steps := len(torch.F32)
	if testing.Short() {
		steps = 3
	}
	exact := trainCurve(t, base, Options{ModelDir: dir, Threads: 2}, steps)
	for _, capability := range []string{"6.1", "7.5", "8.0"} {
		t.Run(capability, func(t *testing.T) {
			t.Setenv("MOOT_EMU_CC", capability)
			got := trainCurve(t, base, Options{ModelDir: dir, Backend: openCUDA(t, cuda.Options{})}, steps)
			worst, worstTorch := 0., 0.
			for i, want := range exact.losses {
				worst = max(worst, math.Abs(got.losses[i]-want))
				worstTorch = max(worstTorch, math.Abs(torch.BF16[i]-torch.F32[i]))
			}
			list := []halfError{
				{"loss", worst, worstTorch},
				{"gradient", away(got.gradient, exact.gradient, nil), torch.Gradient},
			}
			if steps == len(torch.F32) {
				list = append(list, halfError{"adapter", away(got.adapter, exact.adapter, exact.origin), torch.Adapter})
			}
			for _, e := range list {
				t.Logf("%s: off by %.2g, PyTorch's bfloat16 by %.2g", e.name, e.ours, e.other)
				if !(e.ours <= 1.5*e.other) {
					t.Errorf("%s: off by %.2g, more than 1.5 times PyTorch's bfloat16, %.2g", e.name, e.ours, e.other)
				}
			}
		})
	}
}

type halfError struct {
	name        string
	ours, other float64
}

// TestCUDAIsDeterministic: training again gives the same bits, in whatever order
// the device runs its threads.
func TestCUDAIsDeterministic(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "llama3-gqa"))
	for _, capability := range []string{"7.5", "8.0"} {
		t.Setenv("MOOT_EMU_CC", capability)
		var want curve
		for _, order := range []string{"0", "5", "6"} {
			t.Setenv("MOOT_EMU_SEED", order)
			got := trainCurve(t, base, Options{ModelDir: base.dir, Backend: openCUDA(t, cuda.Options{})}, 2)
			if want.losses == nil {
				want = got
			}
			if !slices.Equal(got.losses, want.losses) || !slices.Equal(got.gradient, want.gradient) || !slices.Equal(got.adapter, want.adapter) {
				t.Errorf("compute capability %s: training again gave something else", capability)
			}
		}
	}
}

// TestCUDAOffload: activations that were left in the host's memory are the same
// when they come back, whenever the device gets round to copying.
func TestCUDAOffload(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "llama3-gqa"))
	t.Setenv("MOOT_EMU_LAZY", "1")
	train := func(offload bool) curve {
		b := openCUDA(t, cuda.Options{})
		m, err := model.Load(base.dir, model.Options{Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		tr, err := New(m, Options{Spec: specOf(t, base.dir, filepath.Join(base.dir, "adapter_init")), Seed: 1, MicroBatchTokens: 128, MaxTokens: 64})
		if err != nil {
			t.Fatal(err)
		}
		m.SetRecompute(m.Config().Layers)
		m.SetOffload(offload)
		var c curve
		for _, batch := range slices.Collect(slices.Chunk(base.samples("train"), 2))[:2] {
			loss, _, err := tr.Step(t.Context(), batch, 1e-3)
			if err != nil {
				t.Fatal(err)
			}
			c.losses = append(c.losses, loss)
		}
		c.adapter = make([]float32, tr.Params())
		tr.Adapter(c.adapter)
		return c
	}
	want, got := train(false), train(true)
	if !slices.Equal(got.losses, want.losses) || !slices.Equal(got.adapter, want.adapter) {
		t.Errorf("losses %v, want %v", got.losses, want.losses)
	}
}

// TestCUDAMemoryPlan: what is planned before loading is what is taken, nothing
// more is asked for, and closing gives all back.
func TestCUDAMemoryPlan(t *testing.T) {
	c := model.Llama(128, 192, 3, 4, 2000, 128)
	for _, tt := range []struct {
		name     string
		quantize bool
		bound    int64 // of activations, percent of all
		tied     bool
		o        cuda.Options
	}{
		{name: "bfloat16"},
		{name: "four bits", quantize: true},
		{name: "computed again", bound: 75},
		{name: "offloaded", bound: 70},
		{name: "tied", tied: true},
		{name: "float32", o: cuda.Options{Float32: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.TiedHead = tt.tied
			m, err := model.New(c, 1, model.Options{})
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := m.Save(dir, safetensors.BF16); err != nil {
				t.Fatal(err)
			}
			if tt.quantize {
				four := t.TempDir()
				if err := files.Quantize(t.Context(), dir, four, files.QuantizeOptions{}, nil); err != nil {
					t.Fatal(err)
				}
				dir = four
			}
			driver := loadCUDA(t)
			info, err := cuda.Query(0)
			if err != nil {
				t.Fatal(err)
			}
			o := Options{
				ModelDir: dir, Spec: lora.Spec{Rank: 8, Alpha: 8, Targets: []string{lora.AllLinear}},
				MaxTokens: 32, MicroBatchTokens: 64, Sizes: info.Sizes(tt.o.Float32),
			}
			if tt.bound > 0 {
				all, err := EstimateMemory(o)
				if err != nil {
					t.Fatal(err)
				}
				o.ActivationBytes = all.Activations * tt.bound / 100
			}
			plan, err := EstimateMemory(o)
			if err != nil {
				t.Fatal(err)
			}
			tt.o.ReserveBytes, tt.o.ScratchBytes = plan.Total(), plan.Scratch
			b := openCUDA(t, tt.o)
			o.Backend = b
			tr, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			opened := b.Usage()
			var batch []Sample
			for i := range 3 {
				ids := make([]int32, 32)
				for j := range ids {
					ids[j] = int32((i*977 + j*j*31) % c.Vocab)
				}
				batch = append(batch, Sample{IDs: ids, Labels: ids})
			}
			for range 2 {
				if _, _, err := tr.Step(t.Context(), batch, 1e-3); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := tr.Eval(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			used := b.Usage()
			t.Logf("planned %d (%+v), taken %d", plan.Total(), plan, used.Peak)
			if used.Grown != 0 || used.Reserved != opened.Reserved {
				t.Errorf("%d bytes were reserved, then %d", opened.Reserved, used.Reserved)
			}
			if d := math.Abs(float64(used.Peak)/float64(plan.Total()) - 1); d > 0.05 {
				t.Errorf("planned %d bytes, taken %d: off by %.1f%%", plan.Total(), used.Peak, 100*d)
			}
			if driver != nil {
				if peak := int64(driver.Stat("peak")); peak != used.Reserved {
					t.Errorf("the driver gave %d bytes, reserved are %d", peak, used.Reserved)
				}
			}
			if err := tr.Close(); err != nil {
				t.Fatal(err)
			}
			if driver != nil && driver.Stat("bytes") != 0 {
				t.Errorf("%d bytes are left on the device", driver.Stat("bytes"))
			}
		})
	}
}

// TestCUDAOutOfMemory: a model that does not fit is an error with numbers, and
// nothing stays behind.
func TestCUDAOutOfMemory(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "llama3-gqa"))
	o := Options{ModelDir: base.dir, Spec: lora.Spec{Rank: 8, Alpha: 8, Targets: []string{lora.AllLinear}}, MaxTokens: 64, MicroBatchTokens: 1 << 16}
	driver := loadCUDA(t)
	o.Backend = openCUDA(t, cuda.Options{MemoryBytes: 64 << 20})
	_, err := Open(o)
	if err == nil || !strings.Contains(err.Error(), "MiB") || !strings.Contains(err.Error(), "limit of 64.0 MiB") {
		t.Errorf("err = %v", err)
	}
	if driver != nil && driver.Stat("bytes") != 0 {
		t.Errorf("%d bytes are left on the device", driver.Stat("bytes"))
	}
}

// TestCUDAPause: closing a trainer frees all memory of the device, and one that
// is opened later goes on to the bit.
func TestCUDAPause(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "qwen2"))
	driver := loadCUDA(t)
	train := func(pauses bool) ([]float64, []float32) {
		dir := t.TempDir()
		open := func() *Trainer {
			tr, err := Open(Options{
				ModelDir: base.dir, Spec: specOf(t, base.dir, filepath.Join(base.dir, "adapter_init")), Seed: 3,
				CheckpointDir: dir, Backend: openCUDA(t, cuda.Options{}),
			})
			if err != nil {
				t.Fatal(err)
			}
			return tr
		}
		tr := open()
		var losses []float64
		for i, batch := range slices.Collect(slices.Chunk(base.samples("train"), 2))[:3] {
			loss, _, err := tr.Step(t.Context(), batch, 1e-3)
			if err != nil {
				t.Fatal(err)
			}
			losses = append(losses, loss)
			if !pauses || i == 2 {
				continue
			}
			if err := tr.Save(nil); err != nil {
				t.Fatal(err)
			}
			if err := tr.Close(); err != nil {
				t.Fatal(err)
			}
			if driver != nil && driver.Stat("bytes")+driver.Stat("handles")+driver.Stat("host") != 0 {
				t.Errorf("%d bytes, %d handles and %d pinned bytes are left while paused", driver.Stat("bytes"), driver.Stat("handles"), driver.Stat("host"))
			}
			tr = open()
			if _, ok, err := tr.Load(); !ok || err != nil {
				t.Fatalf("Load() = %v, %v", ok, err)
			}
		}
		values := make([]float32, tr.Params())
		tr.Adapter(values)
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		return losses, values
	}
	wantLosses, want := train(false)
	losses, got := train(true)
	if !slices.Equal(losses, wantLosses) || !slices.Equal(got, want) {
		t.Error("training with pauses gave something else")
	}
}

// TestCUDAAdam8: AdamW with moments in eight bits computes on the GPU what it
// computes on the host, to the bit, also after it was saved and loaded.
func TestCUDAAdam8(t *testing.T) {
	far, near := openCUDA(t, cuda.Options{Float32: true}), cpu.New(cpu.Options{Threads: 1})
	groups := []group{{0, 5001, 1}, {5001, 9097, 3}}
	n := groups[1].to
	adam := Adam{WeightDecay: 0.1}.withDefaults()
	a, b := newAdam8(far, adam, groups), newAdam8(near, adam, groups)
	if a.far == nil || b.far != nil {
		t.Fatal("it does not compute where its backend does")
	}
	p, g := far.Alloc(n).Vec(), far.Alloc(n).Vec()
	hp, hg := near.Alloc(n).Vec(), near.Alloc(n).Vec()
	r := rand.New(rand.NewPCG(4, 4))
	for s := 1; s <= 4; s++ {
		for i := range hg.Host() {
			hg.Host()[i] = float32(r.NormFloat64() * math.Pow10(i%4-3))
		}
		far.Upload(g, hg.Host())
		u := update{rate: 1e-2, number: s, gradScale: 0.5}
		a.step(p, g, u)
		b.step(hp, hg, u)
		if got := downloaded(far, p); !slices.Equal(got, hp.Host()) {
			t.Fatalf("step %d: other values", s)
		}
		state := a.save(nil)
		if !slices.Equal(state, b.save(nil)) {
			t.Fatalf("step %d: other moments", s)
		}
		if s == 2 {
			a = newAdam8(far, adam, groups)
			a.load(state)
		}
		if got, want := a.moments(), b.moments(); !slices.Equal(got[0], want[0]) || !slices.Equal(got[1], want[1]) {
			t.Fatalf("step %d: other moments when they are taken", s)
		}
	}
	a.reset()
	b.reset()
	if !slices.Equal(a.save(nil), b.save(nil)) {
		t.Error("other moments after a reset")
	}
	if err := far.Err(); err != nil {
		t.Fatal(err)
	}
}
