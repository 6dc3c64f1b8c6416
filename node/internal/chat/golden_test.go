package chat

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/moot-net/moot/node/internal/goldentest"
)

// goldenFile finds reference results that are not part of this repository.
func goldenFile(t *testing.T, name ...string) string {
	t.Helper()
	return goldentest.Dir(t, name...)
}

// goldenCase is a conversation as the reference rendered it.
type goldenCase struct {
	Template         string                     `json:"template"`
	Messages         []Message                  `json:"messages"`
	GenerationPrompt bool                       `json:"add_generation_prompt"`
	BOS              *string                    `json:"bos_token"`
	EOS              *string                    `json:"eos_token"`
	Tools            json.RawMessage            `json:"tools"`
	Extra            map[string]json.RawMessage `json:"extra"`
	Rendered         *string                    `json:"rendered"`
	Error            json.RawMessage            `json:"error"`
}

func (c *goldenCase) input() Input {
	in := Input{Messages: c.Messages, GenerationPrompt: c.GenerationPrompt, Tokens: map[string]string{}, Tools: c.Tools, Vars: c.Extra}
	if c.BOS != nil {
		in.Tokens["bos_token"] = *c.BOS
	}
	if c.EOS != nil {
		in.Tokens["eos_token"] = *c.EOS
	}
	return in
}

// TestGolden compares with transformers' renderer.
func TestGolden(t *testing.T) {
	b, err := os.ReadFile(goldenFile(t, "chat", "golden_chat.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Templates map[string]string `json:"templates"`
		Cases     []goldenCase      `json:"cases"`
	}
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	parsed := map[string]*Template{}
	for name, source := range g.Templates {
		if parsed[name], err = Parse(source); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i, c := range g.Cases {
		tpl := parsed[c.Template]
		if tpl == nil {
			continue
		}
		got, err := tpl.Render(c.input())
		switch {
		case c.Rendered == nil && err == nil:
			t.Errorf("case %d, %s: rendered %q, want an error", i, c.Template, got.Text)
		case c.Rendered != nil && err != nil:
			t.Errorf("case %d, %s: %v", i, c.Template, err)
		case c.Rendered != nil && got.Text != *c.Rendered:
			t.Errorf("case %d, %s: rendered %q, want %q", i, c.Template, got.Text, *c.Rendered)
		}
	}
	if len(g.Cases) == 0 {
		t.Error("the file holds no cases")
	}
}
