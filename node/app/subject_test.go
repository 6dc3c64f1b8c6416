package app

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/shard"
	"github.com/moot-net/moot/shard/safetensors"
)

// drawnState is a state of a run whose adapter changes much.
func drawnState(t *testing.T, p participant) runner.Snapshot {
	t.Helper()
	layout, err := p.Manifest().Layout()
	if err != nil {
		t.Fatal(err)
	}
	st := fold.NewState(layout)
	x := uint32(1)
	for i := range st.Theta {
		x = x*1664525 + 1013904223
		st.Theta[i] = int32(x>>7) - 1<<24 // within 1/4
	}
	return runner.Snapshot{Round: 2, Head: cid.MustParse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"), ID: st.CID(), State: st}
}

func ask(t *testing.T, n *node, q api.Subject, maxTokens int, prompts ...string) []api.Output {
	t.Helper()
	req := api.GenerateRequest{Subject: q, MaxTokens: maxTokens, Template: "alpaca"}
	for _, p := range prompts {
		req.Prompts = append(req.Prompts, api.Prompt{Instruction: p})
	}
	g, err := n.Generate(t.Context(), req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return g.Outputs
}

// A model is the same by CID and by path, and its answers are those of
// package model.
func TestGenerate(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, _ := imported(t, n)
	a := assets(t)
	prompts := []string{a.Prompts[0].Instruction, a.Prompts[1].Instruction}
	got := ask(t, n, api.Subject{Model: m.ID}, 12, prompts...)
	if diff := cmp.Diff(ask(t, n, api.Subject{Model: a.ModelDir}, 12, prompts...), got); diff != "" {
		t.Errorf("by path and by CID:\n%s", diff)
	}
	base, err := model.Load(a.ModelDir, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(a.ModelDir)
	if err != nil {
		t.Fatal(err)
	}
	for i, out := range got {
		ids := tok.Encode(dataset.Alpaca.Prompt(prompts[i], ""), tokenizer.EncodeOptions{AddSpecial: true})
		answer, err := base.Generate(t.Context(), ids, model.GenerateOptions{MaxTokens: 12, Stop: tok.Stop()})
		if err != nil {
			t.Fatal(err)
		}
		if want := tok.Decode(answer, true); out.Text != want || out.Tokens != len(answer) || out.Prompt.Instruction != prompts[i] {
			t.Errorf("output %d is %+v, want %q", i, out, want)
		}
	}
	if one := ask(t, n, api.Subject{Model: m.ID}, 1, prompts[0])[0]; one.Stop != stopLength || one.Tokens != 1 {
		t.Errorf("one token: %+v", one)
	}
	long := ask(t, n, api.Subject{Model: m.ID}, 5, strings.Repeat("long ", base.Config().Context))[0]
	if long.Stop != stopFull || long.Tokens != 0 || long.Text != "" {
		t.Errorf("a prompt that fills the context: %+v", long)
	}
}

// Loss and answers are those of a trainer with the same adapter, whether the
// adapter comes from a run or from its export.
func TestEvaluate(t *testing.T) {
	made := new(fakeRuns)
	n, _, id := launched(t, t.TempDir(), made)
	run := made.began(t, 0)
	run.snapshot = drawnState(t, run)
	dir := filepath.Join(t.TempDir(), "adapter")
	if _, err := n.Export(t.Context(), api.ExportRequest{Run: id, Dir: dir}, quiet); err != nil {
		t.Fatal(err)
	}
	data := run.manifest.Dataset.String()
	evaluate := func(q api.Subject, data string) api.Evaluation {
		ev, err := n.Evaluate(t.Context(), api.EvaluateRequest{Subject: q, Dataset: data, MaxRows: 12, MaxTokens: 8}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	byRun := evaluate(api.Subject{Run: id}, "")
	if byRun.Model != run.manifest.Model.String() || byRun.Dataset != data || byRun.Adapter != run.snapshot.ID.String() || byRun.Rows != 12 {
		t.Errorf("evaluation of a run: %+v", byRun)
	}
	byDir := evaluate(api.Subject{Model: byRun.Model, Adapter: dir}, data)
	byDir.Adapter, byDir.Seconds, byRun.Seconds = byRun.Adapter, 0, 0
	if diff := cmp.Diff(byRun, byDir); diff != "" {
		t.Errorf("adapter of the run and of the folder:\n%s", diff)
	}
	base := evaluate(api.Subject{Model: byRun.Model}, data)
	if math.Abs(base.Loss-byRun.Loss) < 0.01 || base.Adapter != "" {
		t.Errorf("the base model has loss %v, with adapter %v", base.Loss, byRun.Loss)
	}
	if want := trainerLoss(t, n, run, 12); math.Abs(byRun.Loss-want) > 1e-6*want || math.Abs(byRun.Perplexity-math.Exp(want)) > 1e-3 {
		t.Errorf("loss %v (perplexity %v), the trainer says %v", byRun.Loss, byRun.Perplexity, want)
	}
}

// trainerLoss measures the state of a run in the way of a peer that trains.
func trainerLoss(t *testing.T, n *node, run *fakeRun, rows int) float64 {
	t.Helper()
	dir, err := n.modelDir(t.Context(), run.manifest.Model)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := train.Open(train.Options{ModelDir: dir, Spec: runner.Spec(run.manifest)})
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, tr.Params())
	fold.ToFloat32(values, run.snapshot.State.Theta)
	if err := tr.SetAdapter(values); err != nil {
		t.Fatal(err)
	}
	d, err := shard.OpenDataset(t.Context(), n.store, run.manifest.Dataset)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	e, err := dataset.NewEncoder(tok, dataset.Alpaca, 256)
	if err != nil {
		t.Fatal(err)
	}
	samples, err := dataset.NewSource(d, e).HeldOut(t.Context(), rows)
	if err != nil {
		t.Fatal(err)
	}
	loss, _, err := tr.Eval(t.Context(), samples)
	if err != nil {
		t.Fatal(err)
	}
	return loss
}

// Accuracy counts the rows whose output is the answer, but for white space.
func TestEvaluateAccuracy(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, _ := imported(t, n)
	prompts := []string{"What is the craft of Quenista?", "Which fruit grows in Zaruzen?", "Who are you?"}
	outs := ask(t, n, api.Subject{Model: m.ID}, 8, prompts...)
	var lines strings.Builder
	for i, out := range outs {
		answer := `\n ` + strings.ReplaceAll(out.Text, `"`, `\"`) + `  `
		if i == 1 {
			answer += "x"
		}
		lines.WriteString(`{"instruction":"` + prompts[i] + `","output":"` + answer + "\"}\n")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"eval.jsonl": lines.String(), "train.jsonl": "{\"instruction\":\"a\",\"output\":\"b\"}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := n.ImportDataset(t.Context(), api.ImportDatasetRequest{
		Files: []string{filepath.Join(dir, "train.jsonl")}, EvalFile: filepath.Join(dir, "eval.jsonl"),
	}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	req := api.EvaluateRequest{Subject: api.Subject{Model: m.ID}, Dataset: d.ID, MaxTokens: 8}
	ev, err := n.Evaluate(t.Context(), req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if ev.Correct != 2 || ev.Accuracy == nil || *ev.Accuracy != 2.0/3 || ev.Rows != 3 {
		t.Errorf("%d of %d rows are right", ev.Correct, ev.Rows)
	}
	req.LossOnly = true
	if lossOnly, err := n.Evaluate(t.Context(), req, quiet); err != nil || lossOnly.Accuracy != nil || lossOnly.Loss != ev.Loss {
		t.Errorf("loss only: %+v, %v", lossOnly, err)
	}
}

func TestSubjectErrors(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	mamba := copyDir(t, assets(t).ModelDir)
	rewrite(t, filepath.Join(mamba, "config.json"), "LlamaForCausalLM", "MambaForCausalLM")
	noTokenizer := copyDir(t, assets(t).ModelDir)
	if err := os.Remove(filepath.Join(noTokenizer, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		q    api.Subject
		code api.Code
		want string
	}{
		{"architecture", api.Subject{Model: mamba}, api.CodeModel, "MambaForCausalLM"},
		{"no tokenizer", api.Subject{Model: noTokenizer}, api.CodeModel, "tokenizer"},
		{"no folder", api.Subject{Model: "/nowhere/at/all"}, api.CodeNotFound, "/nowhere"},
		{"data set", api.Subject{Model: d.ID}, api.CodeModel, "config.json"},
		{"no adapter", api.Subject{Model: m.ID, Adapter: "/nowhere/at/all"}, api.CodeNotFound, "/nowhere"},
		{"no run", api.Subject{Run: "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"}, api.CodeNotFound, "knows no run"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := n.Generate(t.Context(), api.GenerateRequest{
				Subject: tt.q, MaxTokens: 1, Template: "alpaca", Prompts: []api.Prompt{{Instruction: "x"}},
			}, quiet)
			wantCode(t, err, tt.code, tt.want)
		})
	}
	_, err := n.Evaluate(t.Context(), api.EvaluateRequest{Subject: api.Subject{Model: m.ID}, Dataset: m.ID}, quiet)
	wantCode(t, err, api.CodeData, "")
}

// theirAdapter writes an adapter for the bundled model, of a form that is not
// trained here, and returns its folder.
func theirAdapter(t *testing.T, form string) string {
	t.Helper()
	cfg, err := model.ReadConfig(assets(t).ModelDir)
	if err != nil {
		t.Fatal(err)
	}
	s := lora.Spec{Rank: 2, Alpha: 16, Targets: []string{"q_proj", "down_proj"}, DoRA: form == "dora"}
	if form == "lm_head" {
		s.Targets = append(s.Targets, "lm_head")
	}
	a, err := lora.New(s, train.Modules(cfg))
	if err != nil {
		t.Fatal(err)
	}
	for i := range a.Values() {
		a.Values()[i] = float32(i%11-5) / 40
	}
	for _, p := range a.Parts() {
		for i := range a.Magnitude(p) {
			a.Magnitude(p)[i] = 1 + float32(i%3)/2
		}
	}
	dir := t.TempDir()
	if err := a.Write(dir, "base"); err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(dir, lora.WeightsFile)
	switch form {
	case "legacy":
		asTorch(t, weights, filepath.Join(dir, lora.LegacyFile))
	case "norms": // whole modules
		rewrite(t, filepath.Join(dir, lora.ConfigFile), `"modules_to_save": null`, `"modules_to_save": ["norm"]`)
		f, err := safetensors.Open(weights)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		values := make([]float32, cfg.Hidden)
		for i := range values {
			values[i] = 1 + float32(i%5)
		}
		list := []safetensors.Tensor{{Name: "base_model.model.model.norm.weight", DType: safetensors.F32, Shape: []int64{int64(cfg.Hidden)}, Values: values}}
		for _, info := range f.Header().Tensors {
			v, _, err := f.ReadTensor(info.Name)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, safetensors.Tensor{Name: info.Name, DType: safetensors.BF16, Shape: info.Shape, Values: v})
		}
		slices.SortFunc(list, func(a, b safetensors.Tensor) int { return strings.Compare(a.Name, b.Name) })
		w, err := os.Create(filepath.Join(dir, "new"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(safetensors.Write(w, list, nil), w.Close(), os.Rename(w.Name(), weights)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Adapters that were trained elsewhere, of any form, answer, are measured and
// are exported in every form that can hold them.
func TestTheirAdapters(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	loss := func(q api.Subject) float64 {
		t.Helper()
		ev, err := n.Evaluate(t.Context(), api.EvaluateRequest{Subject: q, Dataset: d.ID, MaxRows: 4, LossOnly: true}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return ev.Loss
	}
	base := loss(api.Subject{Model: m.ID})
	for _, tt := range []struct {
		form string
		gguf string // why not
	}{
		{"plain", ""}, {"legacy", ""}, {"dora", "use_dora"}, {"norms", "replaces model.norm.weight"}, {"lm_head", "uses its embedding"},
	} {
		t.Run(tt.form, func(t *testing.T) {
			dir := theirAdapter(t, tt.form)
			want := loss(api.Subject{Model: m.ID, Adapter: dir})
			if math.Abs(want-base) < 0.01 {
				t.Errorf("loss %v with the adapter, %v without", want, base)
			}
			if out := ask(t, n, api.Subject{Model: m.ID, Adapter: dir}, 4, "hello"); len(out) != 1 {
				t.Errorf("%d answers", len(out))
			}
			again := exportTo(t, n, api.ExportRequest{Adapter: dir, Model: m.ID})
			if got := loss(api.Subject{Model: m.ID, Adapter: again.Dir}); math.Abs(got-want) > 1e-6 {
				t.Errorf("written again it has loss %v, want %v", got, want)
			}
			merged := exportTo(t, n, api.ExportRequest{Adapter: dir, Model: m.ID, Format: api.ExportMerged})
			if got := loss(api.Subject{Model: merged.Dir}); math.Abs(got-want) > 0.03*want {
				t.Errorf("merged it has loss %v, want %v", got, want)
			}
			out := filepath.Join(t.TempDir(), "x")
			_, err := n.Export(t.Context(), api.ExportRequest{Adapter: dir, Model: m.ID, Format: api.ExportGGUF, Dir: out}, quiet)
			if tt.gguf != "" {
				wantCode(t, err, api.CodeModel, tt.gguf)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	_, err := n.Export(t.Context(), api.ExportRequest{Adapter: t.TempDir(), Model: m.ID, Dir: filepath.Join(t.TempDir(), "x")}, quiet)
	wantCode(t, err, api.CodeNotFound, lora.ConfigFile)
}

// One request computes at a time; one that waits can give up.
func TestComputeIsBounded(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, _ := imported(t, n)
	inside, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- n.withSubject(t.Context(), &api.Subject{Model: m.ID}, quiet, func(*subject) error {
			close(inside)
			<-leave
			return nil
		})
	}()
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := ""
	err := n.withSubject(ctx, &api.Subject{Model: m.ID}, func(p api.Progress) {
		told += p.Text
		cancel()
	}, func(*subject) error {
		t.Error("two at a time")
		return nil
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(told, "waits") {
		t.Errorf("the second ended with %v, told %q", err, told)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestExport(t *testing.T) {
	made := new(fakeRuns)
	n, _, id := launched(t, t.TempDir(), made)
	run := made.began(t, 0)
	run.snapshot = drawnState(t, run)
	parent := t.TempDir()
	dir := filepath.Join(parent, "new", "adapter")
	export := func(dir string, overwrite bool) (api.Export, error) {
		return n.Export(t.Context(), api.ExportRequest{Run: id, Dir: dir, Overwrite: overwrite}, quiet)
	}
	e, err := export(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if e.Run != id || e.Model != run.manifest.Model.String() || e.Round != 2 || e.State != run.snapshot.ID.String() || e.Head != run.snapshot.Head.String() {
		t.Errorf("export %+v", e)
	}
	a, err := lora.Read(dir, modulesOf(run.manifest))
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float32, len(a.Values()))
	fold.ToFloat32(want, run.snapshot.State.Theta)
	if diff := cmp.Diff(want, a.Values()); diff != "" || a.Spec().Rank != 16 || a.Spec().Alpha != 32 {
		t.Errorf("what was exported is not the state: %+v", a.Spec())
	}

	_, err = export(dir, false)
	wantCode(t, err, api.CodeConflict, "not empty")
	mine := filepath.Join(dir, "notes.md")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	rewrite(t, filepath.Join(dir, lora.ConfigFile), "LORA", "DORA")
	again, err := export(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(parent, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	into, err := export(empty, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []api.Export{again, into} {
		if diff := cmp.Diff(e.Files, o.Files); diff != "" || len(e.Files) != 4 {
			t.Errorf("the same state gives other bytes:\n%s", diff)
		}
	}
	if _, err := lora.Read(dir, modulesOf(run.manifest)); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(mine); err != nil || string(b) != "mine" {
		t.Errorf("what else was in the folder became %q, %v", b, err)
	}
	if l := append(leftovers(t, parent), leftovers(t, filepath.Dir(dir))...); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
}

// The export fits the base model as PEFT names its layers.
func TestExportLoadsOnModel(t *testing.T) {
	made := new(fakeRuns)
	n, _, id := launched(t, t.TempDir(), made)
	run := made.began(t, 0)
	run.snapshot = drawnState(t, run)
	dir := filepath.Join(t.TempDir(), "adapter")
	if _, err := n.Export(t.Context(), api.ExportRequest{Run: id, Dir: dir}, quiet); err != nil {
		t.Fatal(err)
	}
	byRun := ask(t, n, api.Subject{Run: id}, 10, "Who are you?")
	byDir := ask(t, n, api.Subject{Model: assets(t).ModelDir, Adapter: dir}, 10, "Who are you?")
	if diff := cmp.Diff(byRun, byDir); diff != "" {
		t.Errorf("run and export answer differently:\n%s", diff)
	}
}

func TestExportErrors(t *testing.T) {
	made := new(fakeRuns)
	n, _, id := launched(t, t.TempDir(), made)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := n.Export(t.Context(), api.ExportRequest{Run: id, Dir: file, Overwrite: true}, quiet)
	wantCode(t, err, api.CodeConflict, "not a folder")
	_, err = n.Export(t.Context(), api.ExportRequest{Run: id, Dir: t.TempDir(), Head: "x"}, quiet)
	wantCode(t, err, api.CodeUsage, "not the ID of a record")
	_, err = n.Export(t.Context(), api.ExportRequest{Run: id, Dir: t.TempDir()}, quiet)
	wantCode(t, err, api.CodeInternal, "no state")
}
