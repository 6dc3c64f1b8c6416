package train

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/goldentest"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/shard/safetensors"
)

// Tolerances of a float32 implementation, from the README of the reference
// results.
const (
	logitsTolerance = 5e-4
	lossTolerance   = 5e-5
	gradTolerance   = 3e-4 // of the largest magnitude in the tensor
	trainTolerance  = 1e-4
	normTolerance   = 1e-3
	stateTolerance  = 2e-4 // hidden states, merged weights
)

// golden returns the folder of reference results.
func golden(t *testing.T) string {
	t.Helper()
	return goldentest.Dir(t)
}

// results are the tensors and scalars of a folder.
type results struct {
	t       *testing.T
	dir     string
	tensors *safetensors.File
	scalars struct {
		AdamW struct {
			LR, Beta1, Beta2, Eps float64
			WeightDecay           float64 `json:"weight_decay"`
		} `json:"adamw"`
		Float64 map[string]json.RawMessage `json:"float64"`
	}
}

func openResults(t *testing.T, dir string) *results {
	t.Helper()
	r := &results{t: t, dir: dir}
	var err error
	if r.tensors, err = safetensors.Open(filepath.Join(dir, "golden.safetensors")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.tensors.Close() })
	readJSON(t, filepath.Join(dir, "golden.json"), &r.scalars)
	return r
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// scalar decodes a scalar or list of the float64 run.
func (r *results) scalar(name string, v any) {
	r.t.Helper()
	if err := json.Unmarshal(r.scalars.Float64[name], v); err != nil {
		r.t.Fatalf("golden.json: %s: %v", name, err)
	}
}

func (r *results) has(name string) bool { _, ok := r.tensors.Header().Lookup(name); return ok }

func (r *results) floats(name string) []float32 {
	r.t.Helper()
	v, _, err := r.tensors.ReadTensor(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// ints returns the rows of an integer tensor, of its last dimension.
func (r *results) ints(name string) [][]int32 {
	r.t.Helper()
	b, info, err := r.tensors.ReadRaw(name)
	if err != nil || info.DType != safetensors.I64 {
		r.t.Fatalf("%v: %v", info, err)
	}
	var all []int32
	for i := 0; i < len(b); i += 8 {
		all = append(all, int32(int64(binary.LittleEndian.Uint64(b[i:]))))
	}
	return slices.Collect(slices.Chunk(all, int(info.Shape[len(info.Shape)-1])))
}

func (r *results) samples(prefix string) []Sample {
	r.t.Helper()
	ids, labels := r.ints(prefix+".input_ids"), r.ints(prefix+".labels")
	var list []Sample
	for i := range ids {
		list = append(list, Sample{ids[i], labels[i]})
	}
	return list
}

// padded makes a batch of rows, leaving out what the mask leaves out.
func (r *results) padded(prefix string) *model.Batch {
	r.t.Helper()
	ids, mask := r.ints(prefix+".input_ids"), r.ints(prefix+".attention_mask")
	b := &model.Batch{}
	for i := range ids {
		var real, labels, pos []int32
		for j, on := range mask[i] {
			if on == 0 {
				continue
			}
			real = append(real, ids[i][j])
			if r.has(prefix + ".labels") {
				labels = append(labels, r.ints(prefix + ".labels")[i][j])
			}
			if r.has(prefix + ".position_ids") {
				pos = append(pos, r.ints(prefix + ".position_ids")[i][j])
			}
		}
		if err := b.AddAt(real, labels, pos); err != nil {
			r.t.Fatal(err)
		}
	}
	return b
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s is %v, want %v within %v", what, got, want, tolerance)
	}
}

// nearAll compares slices; worst is the greatest difference.
func nearAll(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	worst, at := 0.0, 0
	for i := range want {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= worst) {
			worst, at = d, i
		}
	}
	if !(worst <= tolerance) {
		t.Errorf("%s: value %d is %v, want %v: off by %v, at most %v", what, at, got[at], want[at], worst, tolerance)
	}
}

// nearFinal compares weights after training: Adam turns a gradient that is
// almost zero into a full step of either sign.
func nearFinal(t *testing.T, what string, got map[string][]float32, want func(name string) []float32) {
	t.Helper()
	total, far := 0, 0
	for name, g := range got {
		for i, w := range want(name) {
			d := math.Abs(float64(g[i]) - float64(w))
			total++
			if !(d <= 2e-5) {
				far++
			}
			if !(d <= 3e-3) {
				t.Errorf("%s: %s[%d] is %v, want %v", what, name, i, g[i], w)
			}
		}
	}
	if far*1000 > total {
		t.Errorf("%s: %d of %d values are further than 2e-5 off", what, far, total)
	}
}

// byName cuts flat values into tensors.
func byName(layout []lora.TensorInfo, values []float32) map[string][]float32 {
	m := map[string][]float32{}
	at := 0
	for _, info := range layout {
		m[info.Name] = values[at : at+info.Rows*info.Cols]
		at += info.Rows * info.Cols
	}
	return m
}

func (r *results) open(t *testing.T, adapter string, o Options) *Trainer {
	t.Helper()
	c, err := model.ReadConfig(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(r.dir, adapter)
	a, err := lora.Read(dir, modules(c))
	if err != nil {
		t.Fatal(err)
	}
	o.ModelDir, o.Spec, o.Threads, o.Backend = r.dir, a.Spec(), 2, goldenBackend(t)
	tr, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.LoadAdapter(dir); err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestGoldenModels(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(golden(t), "models", "*", "golden.json"))
	if err != nil || len(dirs) == 0 {
		t.Skip("no reference models")
	}
	for _, path := range dirs {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r := openResults(t, dir)
			for _, c := range []struct {
				name string
				fn   func(t *testing.T, r *results)
			}{
				{"base", goldenBase},
				{"adapter", goldenAdapter},
				{"padding", goldenPadding},
				{"long", goldenLong},
				{"gradients", goldenGradients},
				{"training", goldenTraining},
				{"generation", goldenGeneration},
				{"merged", goldenMerged},
				{"frequencies", goldenFrequencies},
			} {
				t.Run(c.name, func(t *testing.T) {
					r := *r
					r.t = t
					c.fn(t, &r)
				})
			}
		})
	}
}

func batchOf(t *testing.T, samples []Sample) *model.Batch {
	t.Helper()
	b := &model.Batch{}
	for _, s := range samples {
		if err := b.Add(s.IDs, s.Labels); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func goldenBase(t *testing.T, r *results) {
	m, err := model.Load(r.dir, model.Options{Backend: goldenBackend(t)})
	if err != nil {
		t.Fatal(err)
	}
	main := r.samples("main")
	hidden := map[int][]float32{}
	m.Trace(func(i int, x tensor.Mat) {
		if i == m.Config().Layers {
			return // the reference has it after the final norm
		}
		for _, row := range []int{0, 1, 2, 3, 20, 47} {
			values := make([]float32, x.Cols)
			m.Backend().Download(values, x.RowRange(row, row+1))
			hidden[i] = append(hidden[i], values...)
		}
	})
	logits, err := m.Logits(batchOf(t, main[:1]))
	if err != nil {
		t.Fatal(err)
	}
	m.Trace(nil)
	nearAll(t, "main.base_logits_row0", logits, r.floats("main.base_logits_row0"), logitsTolerance)
	for i, h := range hidden {
		nearAll(t, fmt.Sprintf("hidden state %d", i), h, r.floats(fmt.Sprintf("debug.hidden.%d", i)), stateTolerance)
	}
	loss, err := m.Evaluate(batchOf(t, main))
	if err != nil {
		t.Fatal(err)
	}
	var want float64
	r.scalar("main.base_loss", &want)
	near(t, "main.base_loss", loss.Sum/float64(loss.Tokens), want, lossTolerance)
}

func goldenAdapter(t *testing.T, r *results) {
	tr := r.open(t, "adapter_init", Options{})
	logits, err := tr.Model().Logits(batchOf(t, r.samples("main")))
	if err != nil {
		t.Fatal(err)
	}
	nearAll(t, "main.logits", logits, r.floats("main.logits"), logitsTolerance)
	loss, _, err := tr.Eval(t.Context(), r.samples("main"))
	if err != nil {
		t.Fatal(err)
	}
	var want float64
	r.scalar("main.loss", &want)
	near(t, "main.loss", loss, want, lossTolerance)
}

func goldenPadding(t *testing.T, r *results) {
	tr := r.open(t, "adapter_init", Options{})
	m, vocab := tr.Model(), tr.Model().Config().Vocab
	// spread puts the rows of a batch without padding where the mask is set.
	spread := func(logits []float32, mask [][]int32) []float32 {
		var out []float32
		for _, row := range mask {
			for _, on := range row {
				if on == 0 {
					out = append(out, make([]float32, vocab)...)
					continue
				}
				out = append(out, logits[:vocab]...)
				logits = logits[vocab:]
			}
		}
		return out
	}
	b := r.padded("right_pad")
	logits, err := m.Logits(b)
	if err != nil {
		t.Fatal(err)
	}
	nearAll(t, "right_pad.logits", spread(logits, r.ints("right_pad.attention_mask")), r.floats("right_pad.logits"), logitsTolerance)
	loss, err := m.Evaluate(b)
	if err != nil {
		t.Fatal(err)
	}
	var want float64
	r.scalar("right_pad.loss", &want)
	near(t, "right_pad.loss", loss.Sum/float64(loss.Tokens), want, lossTolerance)

	if !r.has("left_pad.logits_rows12") {
		return
	}
	if logits, err = m.Logits(r.padded("left_pad")); err != nil {
		t.Fatal(err)
	}
	mask := r.ints("left_pad.attention_mask")
	all := spread(logits, mask)
	nearAll(t, "left_pad.logits_rows12", all[len(mask[0])*vocab:], r.floats("left_pad.logits_rows12"), logitsTolerance)
}

func goldenLong(t *testing.T, r *results) {
	tr := r.open(t, "adapter_init", Options{})
	ids := r.ints("long.input_ids")[0]
	nll, err := tr.Model().TokenLosses(batchOf(t, []Sample{{ids, ids}}))
	if err != nil {
		t.Fatal(err)
	}
	nearAll(t, "long.nll", nll, r.floats("long.nll"), logitsTolerance)
}

func goldenGradients(t *testing.T, r *results) {
	for _, micro := range []int{0, 1} { // one micro-batch, and one for each row
		tr := r.open(t, "adapter_init", Options{MicroBatchTokens: micro})
		if _, _, err := tr.Step(t.Context(), r.samples("main"), 0); err != nil {
			t.Fatal(err)
		}
		grad := make([]float32, tr.Params())
		tr.Gradient(grad)
		for name, g := range byName(tr.Layout(), grad) {
			want := r.floats("grad." + name)
			most := 0.0
			for _, w := range want {
				most = max(most, math.Abs(float64(w)))
			}
			nearAll(t, "grad."+name, g, want, gradTolerance*most)
		}
		var want float64
		r.scalar("main.grad_norm", &want)
		near(t, "main.grad_norm", tr.GradNorm(), want, normTolerance)
	}
}

func goldenTraining(t *testing.T, r *results) {
	a := r.scalars.AdamW
	tr := r.open(t, "adapter_init", Options{Adam: Adam{Beta1: a.Beta1, Beta2: a.Beta2, Epsilon: a.Eps, WeightDecay: a.WeightDecay}})
	var losses, norms []float64
	r.scalar("train.loss", &losses)
	r.scalar("train.grad_norm", &norms)
	batches := slices.Collect(slices.Chunk(r.samples("train"), 2))
	for step, want := range losses {
		sum, tokens, err := tr.Step(t.Context(), batches[step%len(batches)], a.LR)
		if err != nil {
			t.Fatal(err)
		}
		near(t, fmt.Sprintf("train.loss of step %d", step), sum/float64(tokens), want, trainTolerance)
		near(t, fmt.Sprintf("train.grad_norm of step %d", step), tr.GradNorm(), norms[step], normTolerance)
	}
	final := make([]float32, tr.Params())
	tr.Adapter(final)
	nearFinal(t, "final", byName(tr.Layout(), final), func(name string) []float32 { return r.floats("final." + name) })
	loss, _, err := tr.Eval(t.Context(), r.samples("main"))
	if err != nil {
		t.Fatal(err)
	}
	var want float64
	r.scalar("main.loss_after_training", &want)
	near(t, "main.loss_after_training", loss, want, trainTolerance)
}

func goldenGeneration(t *testing.T, r *results) {
	prompt := r.ints("prompt.input_ids")[0]
	check := func(name string, m *model.Model) {
		t.Helper()
		var want []int32
		r.scalar(name, &want)
		got, err := m.Generate(t.Context(), prompt, model.GenerateOptions{MaxTokens: len(want)})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	tr := r.open(t, "adapter_init", Options{})
	check("generate.lora", tr.Model())
	if err := tr.SetAdapter(make([]float32, tr.Params())); err != nil {
		t.Fatal(err)
	}
	check("generate.base", tr.Model())
}

func goldenMerged(t *testing.T, r *results) {
	dir := filepath.Join(r.dir, "adapter_trained")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no trained adapter here")
	}
	m, err := model.Load(r.dir, model.Options{Backend: goldenBackend(t)})
	if err != nil {
		t.Fatal(err)
	}
	a, err := lora.Read(dir, modules(m.Config()))
	if err != nil {
		t.Fatal(err)
	}
	weights := map[string][]float32{}
	for _, p := range m.Params() {
		weights[p.Name] = make([]float32, p.Value.Rows*p.Value.Cols)
		m.Backend().Download(weights[p.Name], p.Value)
	}
	for _, p := range a.Parts() {
		if err := a.MergeInto(weights[p.Path+".weight"], p); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range m.Params() { // as the checkpoint has them
		m.Backend().Upload(p.Value, weights[p.Name])
		weights[p.Name] = m.Stored(p)
	}
	checked := 0
	for _, info := range r.tensors.Header().Tensors {
		name, ok := strings.CutPrefix(info.Name, "merged.")
		if !ok {
			continue
		}
		checked++
		got, ok := weights[name]
		if !ok {
			got, ok = weights[name+".weight"]
		}
		if !ok {
			t.Fatalf("no weight %s", name)
		}
		nearAll(t, info.Name, got, r.floats(info.Name), stateTolerance)
	}
	if checked == 0 {
		t.Error("no merged weight in the reference results")
	}
	// The merged model computes what model and adapter compute.
	tr := r.open(t, "adapter_trained", Options{})
	main := r.samples("main")
	want, err := tr.Model().Logits(batchOf(t, main))
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Logits(batchOf(t, main))
	if err != nil {
		t.Fatal(err)
	}
	nearAll(t, "logits of the merged model", got, want, logitsTolerance)
}

func goldenFrequencies(t *testing.T, r *results) {
	if !r.has("debug.inv_freq") {
		t.Skip("no rotary embedding")
	}
	c, err := model.ReadConfig(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	want := r.floats("debug.inv_freq")
	for i, f := range c.Rope.Frequencies(c.RotaryDims()) {
		near(t, fmt.Sprintf("frequency %d", i), f, float64(want[i]), 1e-6*math.Abs(float64(want[i])))
	}
}

func TestGoldenAdapters(t *testing.T) {
	dir := filepath.Join(golden(t), "adapters")
	var index struct {
		Model    string
		Adapters map[string]json.RawMessage
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no reference adapters")
	}
	readJSON(t, filepath.Join(dir, "golden.json"), &index)
	modelDir := filepath.Join(golden(t), "models", index.Model)
	r := openResults(t, dir)
	for _, name := range slices.Sorted(maps.Keys(index.Adapters)) {
		t.Run(name, func(t *testing.T) {
			c, err := model.ReadConfig(modelDir)
			if err != nil {
				t.Fatal(err)
			}
			a, err := lora.ReadAny(filepath.Join(dir, name), Modules(c))
			if err != nil {
				t.Fatal(err)
			}
			m, err := model.Load(modelDir, model.Options{Backend: goldenBackend(t)})
			if err != nil {
				t.Fatal(err)
			}
			if err := Apply(m, a); err != nil {
				t.Fatal(err)
			}
			ids := r.ints("input_ids")[0]
			logits, err := m.Logits(batchOf(t, []Sample{{ids, ids}}))
			if err != nil {
				t.Fatal(err)
			}
			nearAll(t, "logits", logits, r.floats(name+".logits_row0"), logitsTolerance)
			// And without it the model is what it was.
			if err := errors.Join(m.Replace(nil), m.Attach(nil)); err != nil {
				t.Fatal(err)
			}
			if logits, err = m.Logits(batchOf(t, []Sample{{ids, ids}})); err != nil {
				t.Fatal(err)
			}
			nearAll(t, "logits without it", logits, r.floats("base.logits_row0"), logitsTolerance)
		})
	}
}

func TestGoldenTrainOptions(t *testing.T) {
	dir := filepath.Join(golden(t), "train_options")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no reference runs")
	}
	var index struct {
		Model string
		Runs  map[string]struct {
			Options struct {
				Betas        [2]float64
				Eps          float64
				WeightDecay  float64 `json:"weight_decay"`
				MaxGradNorm  float64 `json:"max_grad_norm"`
				Accumulation int
				Normalise    string
				LR           float64
				Schedule     string
				Steps        int `json:"optimizer_steps"`
				Warmup       int `json:"warmup_steps"`
			}
			Float64 struct {
				Loss, LR []float64
				Norm     []float64 `json:"grad_norm_before_clip"`
			}
		}
	}
	readJSON(t, filepath.Join(dir, "train_options.json"), &index)
	modelDir := filepath.Join(golden(t), index.Model)
	for name, run := range index.Runs {
		t.Run(name, func(t *testing.T) {
			o := run.Options
			kind, err := ParseSchedule(o.Schedule)
			if err != nil {
				t.Fatal(err)
			}
			schedule := Schedule{Kind: kind, Peak: o.LR, Warmup: o.Warmup, Steps: o.Steps}
			for step, want := range run.Float64.LR {
				near(t, fmt.Sprintf("rate of step %d", step), schedule.At(step), want, 1e-9)
			}
			r := openResults(t, modelDir)
			tr := r.open(t, "adapter_init", Options{
				Adam:             Adam{Beta1: o.Betas[0], Beta2: o.Betas[1], Epsilon: o.Eps, WeightDecay: o.WeightDecay, ClipNorm: o.MaxGradNorm},
				MicroBatchTokens: 64,
			})
			batches := slices.Collect(slices.Chunk(r.samples("train"), 2))
			for step, want := range run.Float64.Loss {
				var parts [][]Sample
				for i := range o.Accumulation {
					parts = append(parts, batches[(step*o.Accumulation+i)%len(batches)])
				}
				var loss float64
				switch o.Normalise {
				case "tokens":
					sum, tokens, err := tr.Step(t.Context(), slices.Concat(parts...), schedule.At(step))
					if err != nil {
						t.Fatal(err)
					}
					loss = sum / float64(tokens)
				case "micro-batch means":
					loss = stepOfMeans(t, tr, parts, schedule.At(step))
				default:
					t.Fatalf("gradients are normalised by %q, which this test does not know", o.Normalise)
				}
				near(t, fmt.Sprintf("loss of step %d", step), loss, want, trainTolerance)
				near(t, fmt.Sprintf("norm of step %d", step), tr.GradNorm(), run.Float64.Norm[step], normTolerance)
			}
			f, err := safetensors.Open(filepath.Join(dir, name+".safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			final := make([]float32, tr.Params())
			tr.Adapter(final)
			nearFinal(t, name, byName(tr.Layout(), final), func(tensor string) []float32 {
				v, _, err := f.ReadTensor(tensor)
				if err != nil {
					v, _, err = f.ReadTensor("final." + tensor)
				}
				if err != nil {
					t.Fatal(err)
				}
				return v
			})
		})
	}
}

// stepOfMeans takes a step on the mean of the micro-batches' mean losses, in
// which a token counts the more the fewer there are in its micro-batch. It is
// what other trainers do and Step does not; all that comes before and behind
// is the same.
func stepOfMeans(t *testing.T, tr *Trainer, parts [][]Sample, rate float64) (loss float64) {
	t.Helper()
	tr.b.Zero(tr.grads)
	for _, part := range parts {
		counted := 0
		for _, s := range part {
			counted += s.Counted()
		}
		share := 1 / float64(counted*len(parts))
		l, err := tr.accumulate(t.Context(), part, float32(share))
		if err != nil {
			t.Fatal(err)
		}
		loss += l.Sum * share
	}
	if err := tr.update(loss, rate); err != nil {
		t.Fatal(err)
	}
	return loss
}
