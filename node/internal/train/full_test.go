package train

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

func tiedConfig() model.Config {
	c := tinyConfig()
	c.TiedHead = true
	return c
}

// TestFullDifference: with Full a trainer of a run gives and takes the
// difference to the base model, and what comes out applies and merges, also
// where the embedding is the output layer, and where weights are (in,out).
func TestFullDifference(t *testing.T) {
	for name, c := range map[string]model.Config{"plain": tinyConfig(), "tied": tiedConfig(), "gpt2": gpt2()} {
		for _, dtype := range []safetensors.DType{safetensors.F32, safetensors.BF16} {
			t.Run(name+"/"+string(dtype), func(t *testing.T) { fullDifference(t, c, dtype) })
		}
	}
}

func fullDifference(t *testing.T, c model.Config, dtype safetensors.DType) {
	dir, batch := t.TempDir(), randomSamples(50, 3, 16)
	m, err := model.New(c, 3, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(dir, dtype); err != nil {
		t.Fatal(err)
	}
	open := func() *Trainer {
		tr, err := Open(Options{ModelDir: dir, Full: true, CheckpointDir: filepath.Join(dir, "checkpoint"), Adam: Adam{ClipNorm: 1}})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	tr := open()
	if !slices.Equal(tr.Layout(), FullLayout(c)) || tr.Params() != c.Params() {
		t.Errorf("%d parameters in %d tensors, want %d", tr.Params(), len(tr.Layout()), c.Params())
	}
	if slices.ContainsFunc(values(tr), func(v float32) bool { return v != 0 }) {
		t.Error("before the first step there is a difference")
	}
	first := step(t, tr, batch)
	for range 20 {
		step(t, tr, batch)
	}
	if err := tr.Save([]byte("x")); err != nil {
		t.Fatal(err)
	}
	trained := values(tr)
	loss, _, err := tr.Eval(t.Context(), batch)
	if err != nil || !(loss < first/2) {
		t.Fatalf("loss went from %v to %v (%v)", first, loss, err)
	}

	// Another peer that is given the difference has the same model, but for
	// rounding; and so has a process that goes on.
	other := open()
	if err := other.SetAdapter(trained); err != nil {
		t.Fatal(err)
	}
	nearAll(t, "difference", values(other), trained, 1e-6)
	got, _, err := other.Eval(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "loss at another peer", got, loss, 1e-4)
	resumed := open()
	if _, ok, err := resumed.Load(); !ok || err != nil {
		t.Fatalf("Load() = %v, %v", ok, err)
	}
	step(t, tr, batch)
	step(t, resumed, batch)
	if !slices.Equal(values(tr), values(resumed)) {
		t.Error("a resumed trainer takes another step")
	}
	fullExport(t, dir, trained, batch, loss)
}

// fullExport checks that applied and merged differences give the loss that
// training came to.
func fullExport(t *testing.T, dir string, trained []float32, batch []Sample, want float64) {
	t.Helper()
	m, err := model.Load(dir, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := Whole(m, trained)
	if err != nil {
		t.Fatal(err)
	}
	before, err := m.Evaluate(batchOf(t, batch))
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(m, a); err != nil {
		t.Fatal(err)
	}
	l, err := m.Evaluate(batchOf(t, batch))
	if err != nil {
		t.Fatal(err)
	}
	near(t, "loss with the difference applied", l.Sum/float64(l.Tokens), want, 1e-4)
	merged := filepath.Join(dir, "merged")
	if err := a.MergeFolder(t.Context(), dir, merged, lora.MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := CheckMerged(t.Context(), MergeCheck{BaseDir: dir, Adapter: a, MergedDir: merged})
	if err != nil || r.Effect < 0.1 {
		t.Errorf("CheckMerged() = %+v, %v", r, err)
	}
	if m, err = model.Load(merged, model.Options{}); err != nil {
		t.Fatal(err)
	}
	if l, err = m.Evaluate(batchOf(t, batch)); err != nil {
		t.Fatal(err)
	}
	near(t, "loss of the merged model", l.Sum/float64(l.Tokens), want, 0.02*before.Sum/float64(before.Tokens))
	// There is no adapter to write.
	if err := a.Write(t.TempDir(), "base"); !errors.Is(err, lora.ErrUnsupported) {
		t.Errorf("Write() = %v", err)
	}
	for _, n := range []int{0, len(trained) - 1, len(trained) + 1} {
		if _, err := Whole(m, make([]float32, n)); err == nil {
			t.Errorf("%d differences were taken", n)
		}
	}
}

// TestFullMemory: what the parts of the estimate are.
func TestFullMemory(t *testing.T) {
	dir, c := t.TempDir(), tinyConfig()
	m, err := model.New(c, 1, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(dir, safetensors.BF16); err != nil {
		t.Fatal(err)
	}
	got, err := EstimateMemory(Options{ModelDir: dir, Full: true})
	if n := int64(c.Params()); err != nil || got.Weights != 4*n || got.Training != 16*n || got.Activations == 0 {
		t.Errorf("EstimateMemory() = %+v, %v", got, err)
	}
	if sgd, err := EstimateMemory(Options{ModelDir: dir, Full: true, Optimizer: SGD}); err != nil || sgd.Training >= got.Training {
		t.Errorf("EstimateMemory() = %+v, %v, want less than %+v", sgd, err, got)
	}
}

// TestUnpacked: a sample alone gives what it gives among others.
func TestUnpacked(t *testing.T) {
	batch := ragged(9, 20, 3, 14)
	packed, alone := tiny(t, Options{}), tiny(t, Options{Unpacked: true})
	near(t, "loss", step(t, alone, batch), step(t, packed, batch), 1e-6)
	a, b := make([]float32, packed.Params()), make([]float32, packed.Params())
	packed.Gradient(a)
	alone.Gradient(b)
	nearAll(t, "gradient", b, a, 1e-6)
	if slices.Equal(a, b) {
		t.Error("gradients are equal to the bit: nothing was computed apart")
	}
}

// TestPackedSamplesAreApart checks that the losses of a sample's tokens are bit
// for bit the same whatever is packed with it, before it or behind it.
func TestPackedSamplesAreApart(t *testing.T) {
	m, err := model.New(model.Llama(32, 64, 2, 4, 50, 64), 7, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	losses := func(list ...Sample) [][]float32 {
		var b model.Batch
		for _, s := range list {
			if err := b.Add(s.IDs, s.Labels); err != nil {
				t.Fatal(err)
			}
		}
		all, err := m.TokenLosses(&b)
		if err != nil {
			t.Fatal(err)
		}
		out := make([][]float32, len(list))
		for i, s := range list {
			n := len(s.IDs) - 1 // the first is not counted
			out[i], all = slices.Clone(all[:n]), all[n:]
		}
		return out
	}
	s := ragged(9, 17, 5, 30, 12)
	for i := range s { // all tokens count
		s[i].Labels = s[i].IDs
	}
	packed := losses(s[:4]...)
	for i := range 4 {
		if alone := losses(s[i])[0]; !slices.Equal(alone, packed[i]) {
			t.Errorf("sample %d alone %v, packed %v", i, alone, packed[i])
		}
	}
	turned := losses(s[3], s[1], s[0], s[2])
	for i, at := range []int{3, 1, 0, 2} {
		if !slices.Equal(turned[i], packed[at]) {
			t.Errorf("sample %d differs in another order", at)
		}
	}
	changed := losses(s[0], s[4], s[2], s[3])
	for _, i := range []int{0, 2, 3} {
		if !slices.Equal(changed[i], packed[i]) {
			t.Errorf("sample %d differs beside another one", i)
		}
	}
	if slices.Equal(changed[1][:5], packed[1][:5]) {
		t.Error("the changed sample has the same losses")
	}
}

// rewriteTensors changes the tensors of a file of float32.
func rewriteTensors(t *testing.T, path string, change func([]safetensors.Tensor) []safetensors.Tensor) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []safetensors.Tensor
	for _, info := range f.Header().Tensors {
		v, _, err := f.ReadTensor(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, safetensors.Tensor{Name: info.Name, DType: safetensors.F32, Shape: info.Shape, Values: v})
	}
	f.Close()
	list = change(list)
	slices.SortFunc(list, func(x, y safetensors.Tensor) int { return strings.Compare(x.Name, y.Name) })
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(safetensors.Write(w, list, nil), w.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestFullTiedCopy: some checkpoints have the output layer a second time,
// though it is the embedding; what was trained has it once.
func TestFullTiedCopy(t *testing.T) {
	dir := t.TempDir()
	m, err := model.New(tiedConfig(), 3, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(dir, safetensors.F32); err != nil {
		t.Fatal(err)
	}
	rewriteTensors(t, filepath.Join(dir, "model.safetensors"), func(list []safetensors.Tensor) []safetensors.Tensor {
		i := slices.IndexFunc(list, func(x safetensors.Tensor) bool { return x.Name == "model.embed_tokens.weight" })
		again := list[i]
		again.Name = "lm_head.weight"
		return append(list, again)
	})
	a, err := Whole(m, make([]float32, m.Config().Params()))
	if err != nil {
		t.Fatal(err)
	}
	merged := filepath.Join(dir, "merged")
	if err := a.MergeFolder(t.Context(), dir, merged, lora.MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(filepath.Join(merged, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, there := f.Header().Lookup("lm_head.weight"); there {
		t.Error("the old output layer is in the merged model")
	}
}

// TestMergedWithoutPrefix: published checkpoints of GPT-2 name their tensors
// without "transformer.".
func TestMergedWithoutPrefix(t *testing.T) {
	dir, a := folder(t, gpt2(), safetensors.F32, lora.Spec{Rank: 2, Alpha: 4, Targets: []string{"c_attn", "c_proj"}})
	rewriteTensors(t, filepath.Join(dir, "model.safetensors"), func(list []safetensors.Tensor) []safetensors.Tensor {
		for i := range list {
			list[i].Name = strings.TrimPrefix(list[i].Name, "transformer.")
		}
		return list
	})
	m, err := model.Load(dir, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	difference := make([]float32, m.Config().Params())
	for i := range difference {
		difference[i] = float32(i%7-3) / 50
	}
	whole, err := Whole(m, difference)
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]*lora.Adapter{"adapter": a, "whole": whole} {
		merged := filepath.Join(t.TempDir(), "merged")
		if err := a.MergeFolder(t.Context(), dir, merged, lora.MergeOptions{}); err != nil {
			t.Fatal(name, err)
		}
		if r, err := CheckMerged(t.Context(), MergeCheck{BaseDir: dir, Adapter: a, MergedDir: merged}); err != nil || r.Effect < 0.01 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}
