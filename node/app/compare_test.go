package app

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
)

// TestCompare: what versions answer together is what each answers alone, the
// base model also when it is asked for last.
func TestCompare(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, _ := imported(t, n)
	a := assets(t)
	adapter := strongAdapter(t, a.ModelDir)
	prompts := []api.Prompt{a.Prompts[0].Prompt, a.Prompts[1].Prompt}
	v, err := n.Compare(t.Context(), api.CompareRequest{
		Subject: api.Subject{Model: m.ID, Adapter: adapter}, Versions: []string{api.VersionAdapter, api.VersionBase},
		Prompts: prompts, MaxTokens: 8, Template: "alpaca",
	}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	differ := false
	for i, q := range []api.Subject{{Model: m.ID, Adapter: adapter}, {Model: m.ID}} {
		g, err := n.Generate(t.Context(), api.GenerateRequest{Subject: q, Prompts: prompts, MaxTokens: 8, Template: "alpaca"}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		for k, o := range g.Outputs {
			if got := v.Versions[i].Outputs[k]; got != o {
				t.Errorf("version %s answers %+v, alone %+v", v.Versions[i].Version, got, o)
			}
			differ = differ || v.Versions[0].Outputs[k].Text != v.Versions[1].Outputs[k].Text
		}
	}
	if !differ {
		t.Error("the adapter of the test changes no answer")
	}
}

// strongAdapter writes an adapter that changes what the model in dir says.
func strongAdapter(t *testing.T, dir string) string {
	t.Helper()
	c, err := model.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, err := lora.New(lora.Spec{Rank: 2, Alpha: 8, Targets: []string{"q_proj", "v_proj"}}, train.Modules(c))
	if err != nil {
		t.Fatal(err)
	}
	x := uint32(7)
	for i := range a.Values() {
		x = x*1664525 + 1013904223
		a.Values()[i] = float32(int32(x)) / (1 << 32)
	}
	out := t.TempDir()
	if err := a.Write(out, "base"); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTasks: questions are counted by what the model thinks most likely, which
// its losses tell.
func TestTasks(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, _ := imported(t, n)
	a := assets(t)
	base, err := model.Load(a.ModelDir, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := dataset.LoadEncoder(a.ModelDir, dataset.Alpaca, base.Config().Context)
	if err != nil {
		t.Fatal(err)
	}
	question := a.Prompts[0].Instruction
	choices := []string{"apples", "A swan lives there.", "Jorn"}
	best, least := 0, math.Inf(1)
	for i, c := range choices {
		s, _ := e.Encode(shard.Row{Instruction: question, Output: c})
		var b model.Batch
		if err := b.Add(s.IDs, s.Labels); err != nil {
			t.Fatal(err)
		}
		l, err := base.Evaluate(&b)
		if err != nil {
			t.Fatal(err)
		}
		if l.Sum < least {
			best, least = i, l.Sum
		}
	}
	said := ask(t, n, api.Subject{Model: m.ID}, 8, question)[0].Text
	file := filepath.Join(t.TempDir(), "tasks.jsonl")
	line := func(v map[string]any) string { return encoded(t, v) + "\n" }
	long := make([]byte, 8*base.Config().Context)
	for i := range long {
		long[i] = "ab "[i%3]
	}
	text := line(map[string]any{"question": question, "choices": choices, "answer": best}) +
		line(map[string]any{"question": question, "choices": choices, "answer": (best + 1) % 3}) +
		line(map[string]any{"instruction": question, "output": said}) +
		line(map[string]any{"instruction": question, "output": "something else"}) +
		line(map[string]any{"instruction": string(long), "output": "x"})
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	v, err := n.Compare(t.Context(), api.CompareRequest{
		Subject: api.Subject{Model: m.ID}, Tasks: file, MaxTokens: 8, Template: "alpaca",
	}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	got := v.Versions[0].Tasks
	if c := got.Choices; c == nil || c.Asked != 2 || c.Plain.Right != 1 || c.Plain.Accuracy != 0.5 || math.Abs(c.Chance-1./3) > 1e-12 {
		t.Errorf("choices: %+v", c)
	}
	if w := got.Words; w == nil || w.Asked != 3 || w.Exact.Right != 1 || got.TooLong != 1 {
		t.Errorf("words: %+v, %d too long", w, got.TooLong)
	}
	for i, right := range []bool{true, false, true, false, false} {
		if x := got.Answers[i]; x.Right != right || x.Line != i+1 {
			t.Errorf("answer %d: %+v", i, x)
		}
	}
	if err := os.WriteFile(file, []byte("{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = n.Compare(t.Context(), api.CompareRequest{Subject: api.Subject{Model: m.ID}, Tasks: file, MaxTokens: 8}, quiet)
	wantCode(t, err, api.CodeData, "line 1: has no instruction")
	_, err = n.Compare(t.Context(), api.CompareRequest{Subject: api.Subject{Model: m.ID}, Tasks: file + "x", MaxTokens: 8}, quiet)
	wantCode(t, err, api.CodeNotFound, "read tasks")
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
