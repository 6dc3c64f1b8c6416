package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
)

// chatModel is the bundled model with a chat template.
func chatModel(t *testing.T) string {
	t.Helper()
	dir := copyDir(t, assets(t).ModelDir)
	template := "{% for m in messages %}{% if m['role'] not in ['user', 'assistant'] %}{{ raise_exception('no ' + m['role']) }}{% endif %}" +
		"<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
	if err := os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(template), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const chats = `{"messages":[{"role":"user","content":"Who are you?"},{"role":"assistant","content":"A swan."}]}
{"messages":[{"role":"user","content":"Where?"},{"role":"assistant","content":"Here."},{"role":"user","content":"Why?"},{"role":"assistant","content":"So."}]}
`

func TestCheckDataset(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	path := writeFile(t, "chats.jsonl", chats+`{"messages":[{"role":"user","content":"x"}]}
{"messages":[{"role":"system","content":"s"},{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}
`)
	form, err := n.CheckDataset(t.Context(), api.CheckDatasetRequest{Files: []string{path}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	f := form.Files[0]
	if form.Rows != 4 || form.Invalid != 1 || f.Format != "messages" || f.Template != "chat" || f.Tokens != nil || f.Problems[0].Place != "chats.jsonl:3" {
		t.Errorf("without a model: %+v", form)
	}
	check, err := n.CheckDataset(t.Context(), api.CheckDatasetRequest{Files: []string{path}, Model: chatModel(t), Samples: 1}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	f = check.Files[0]
	if check.Rows != 4 || check.Invalid != 1 || check.Dropped != 1 || len(f.Samples) != 1 || f.Tokens == nil || f.Tokens.Counted >= f.Tokens.Sum {
		t.Errorf("with a model: %+v", check)
	}
	if p := f.Problems[1]; p.Place != "chats.jsonl:4" || p.Kind != "dropped" || !strings.Contains(p.Why, "no system") {
		t.Errorf("problems %+v", f.Problems)
	}
	// Held-out rows that are trained on, and rows that are there twice.
	for _, model := range []string{"", chatModel(t)} {
		again := writeFile(t, "again.jsonl", chats)
		leaks, err := n.CheckDataset(t.Context(), api.CheckDatasetRequest{Files: []string{path, again}, Eval: writeFile(t, "eval.jsonl", chats), Model: model}, quiet)
		if err != nil || leaks.Repeated != 2 || leaks.Leaks != 2 || leaks.Files[1].Repeated != 2 || leaks.Files[2].Leaks != 2 {
			t.Errorf("leaks: %+v, %v", leaks, err)
		}
		if p := leaks.Files[2].Problems[0]; p.Kind != "leak" || p.Place != "eval.jsonl:1" || !strings.Contains(p.Why, "the same as chats.jsonl:1") {
			t.Errorf("problem %+v", p)
		}
	}
	counted := ""
	for _, p := range f.Samples[0].Parts {
		if p.Counted {
			counted += p.Text
		}
	}
	if !strings.HasPrefix(counted, "A swan.") || strings.Contains(counted, "Who") {
		t.Errorf("the loss counts %q", counted)
	}
	_, err = n.CheckDataset(t.Context(), api.CheckDatasetRequest{Files: []string{path}, Model: assets(t).ModelDir}, quiet)
	wantCode(t, err, api.CodeModel, "no chat template")
	_, err = n.CheckDataset(t.Context(), api.CheckDatasetRequest{Files: []string{writeFile(t, "x.jsonl", `{"a":1}`)}}, quiet)
	wantCode(t, err, api.CodeData, "cannot tell the format")
	_, err = n.CheckDataset(t.Context(), api.CheckDatasetRequest{Files: []string{"/nowhere/at/all"}}, quiet)
	wantCode(t, err, api.CodeNotFound, "/nowhere")
}

// Conversations are imported, evaluated, asked and launched by the model's chat
// template.
func TestChatRows(t *testing.T) {
	made := new(fakeRuns)
	n, _ := testNode(t, t.TempDir(), made.open)
	m, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: chatModel(t)}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := imported(t, n)
	eval := `{"conversations":[{"from":"human","value":"What?"},{"from":"gpt","value":"That."}]}` + "\n"
	d, err := n.ImportDataset(t.Context(), api.ImportDatasetRequest{
		Files: []string{writeFile(t, "chats.jsonl", chats)}, EvalFile: writeFile(t, "eval.jsonl", eval),
	}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if d.Format != "messages" || d.Template != "chat" || !strings.Contains(d.Detected, "messages (its first row has messages)") || d.EvalRows != 1 {
		t.Errorf("data set %+v", d)
	}
	ev, err := n.Evaluate(t.Context(), api.EvaluateRequest{Subject: api.Subject{Model: m.ID}, Dataset: d.ID, MaxTokens: 4}, quiet)
	if err != nil || ev.Rows != 1 || ev.Accuracy == nil || ev.Tokens < 2 {
		t.Errorf("evaluation %+v, %v", ev, err)
	}
	_, err = n.Evaluate(t.Context(), api.EvaluateRequest{Subject: api.Subject{Model: plain.ID}, Dataset: d.ID, MaxTokens: 4}, quiet)
	wantCode(t, err, api.CodeModel, "no chat template")

	launch := func(m api.Model, more string) error {
		_, err := n.Launch(t.Context(), api.LaunchRequest{TOML: runText(m, d, more+"[inner]\nsequence_tokens = 64\n"), Name: "run.toml"}, quiet)
		return err
	}
	wantCode(t, launch(plain, ""), api.CodeModel, "no chat template")
	wantCode(t, launch(m, "template = \"alpaca\"\n"), api.CodeConfig, "run.toml:4: template")
	if err := launch(m, ""); err != nil {
		t.Fatal(err)
	}
	r := made.began(t, 0)
	r.snapshot = drawnState(t, r)
	if r.manifest.Template != "chat" {
		t.Errorf("the run has template %s", r.manifest.Template)
	}
	id, err := r.manifest.ID()
	if err != nil {
		t.Fatal(err)
	}
	generate := func(q api.Subject, template string) (string, error) {
		g, err := n.Generate(t.Context(), api.GenerateRequest{Subject: q, MaxTokens: 8, Template: template, Prompts: []api.Prompt{{Instruction: "Who are you?"}}}, quiet)
		if err != nil {
			return "", err
		}
		return g.Outputs[0].Text, nil
	}
	byRun, err := generate(api.Subject{Run: id.String()}, "")
	if err != nil {
		t.Fatal(err)
	}
	byChat, _ := generate(api.Subject{Run: id.String()}, "chat")
	byAlpaca, _ := generate(api.Subject{Run: id.String()}, "alpaca")
	if byRun != byChat || byRun == byAlpaca {
		t.Errorf("the run answers %q, by chat %q, by alpaca %q", byRun, byChat, byAlpaca)
	}
}

// Rows of text have a loss and nothing to answer.
func TestTextRows(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, _ := imported(t, n)
	d, err := n.ImportDataset(t.Context(), api.ImportDatasetRequest{
		Files: []string{writeFile(t, "a.txt", "One text.\n\nAnother text.\n")}, EvalFile: writeFile(t, "b.txt", "A third text.\n"),
	}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := n.Evaluate(t.Context(), api.EvaluateRequest{Subject: api.Subject{Model: m.ID}, Dataset: d.ID, MaxTokens: 4}, quiet)
	if err != nil || d.Format != "text" || ev.Rows != 1 || ev.Accuracy != nil {
		t.Errorf("data set %+v, evaluation %+v, %v", d, ev, err)
	}
}
