package dataset

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/goldentest"
)

func TestPrompt(t *testing.T) {
	tests := []struct {
		template           Template
		instruction, input string
		want               string
	}{
		{Alpaca, "Add.", "1 2", "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:"},
		{Alpaca, "Sing.\n", "", "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nSing.\n\n\n### Response:"},
		{None, "Once", "", "Once"},
		{None, "Once", "upon", "Once\nupon"},
	}
	for _, tt := range tests {
		if got := tt.template.Prompt(tt.instruction, tt.input); got != tt.want {
			t.Errorf("%v.Prompt(%q, %q) = %q, want %q", tt.template, tt.instruction, tt.input, got, tt.want)
		}
	}
}

func TestParseTemplate(t *testing.T) {
	for _, name := range []string{"alpaca", "none"} {
		got, err := ParseTemplate(name)
		if err != nil || got.String() != name {
			t.Errorf("ParseTemplate(%q) = %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "Alpaca", "chatml"} {
		if got, err := ParseTemplate(name); err == nil {
			t.Errorf("ParseTemplate(%q) = %v, want an error", name, got)
		}
	}
}

// golden returns the folder of reference results.
func golden(t *testing.T) string {
	t.Helper()
	return goldentest.Dir(t)
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// TestPromptLikeChatTemplate compares with the Alpaca prompt rendered by
// transformers from a chat template. That template trims the instruction, and
// ends with a line break, which Stanford's does not.
func TestPromptLikeChatTemplate(t *testing.T) {
	var file struct {
		Cases []struct {
			Template string
			Messages []struct{ Role, Content string }
			Generate bool `json:"add_generation_prompt"`
			Rendered string
		}
	}
	readJSON(t, filepath.Join(golden(t), "chat", "golden_chat.json"), &file)
	compared := 0
	for _, c := range file.Cases {
		if c.Template != "alpaca" || !c.Generate || len(c.Messages) != 1 || c.Messages[0].Role != "user" {
			continue
		}
		compared++
		if got := Alpaca.Prompt(strings.TrimSpace(c.Messages[0].Content), "") + "\n"; got != c.Rendered {
			t.Errorf("Prompt(%q) = %q, want %q", c.Messages[0].Content, got, c.Rendered)
		}
	}
	if compared == 0 {
		t.Error("no case to compare with")
	}
}
