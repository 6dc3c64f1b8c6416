package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/shard"
)

func TestWords(t *testing.T) {
	text := "Its flag is red.\nIt's 12 towns.\n\n### Input:\nTolo"
	// What the expression makes of it, but for digits and the apostrophe,
	// which are not in the corpus.
	want := []string{"Its", " flag", " is", " red", ".\n", "It", "'s", " 12", " towns", ".\n\n", "###", " Input", ":\n", "Tolo"}
	got := words(text)
	if !slices.Equal(got, want) {
		t.Errorf("words = %q, want %q", got, want)
	}
	if strings.Join(got, "") != text {
		t.Error("the words are not the text")
	}
}

func TestTrainBPE(t *testing.T) {
	tokens, merges := trainBPE(map[string]int{"abab": 3, "abc": 2, "x": 9}, 256+specialTokens+3)
	want := [][2]string{{"a", "b"}, {"ab", "ab"}, {"ab", "c"}}
	if !slices.Equal(merges, want) {
		t.Errorf("merges are %q, want %q", merges, want)
	}
	if !slices.Equal(tokens[256:], []string{"ab", "abab", "abc"}) {
		t.Errorf("tokens are %q", tokens[256:])
	}
	if again, _ := trainBPE(map[string]int{"abab": 1, "abc": 1}, 4096); len(again) != 256+1 {
		t.Errorf("%d tokens where only one pair is there twice", len(again))
	}
}

// The bundled data is what the command makes today.
func TestDataIsCommitted(t *testing.T) {
	dir := t.TempDir()
	if err := writeData(dir, newWorld()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"train.jsonl", "eval.jsonl", "prompts.json"} {
		equalFiles(t, filepath.Join(dir, name), filepath.Join("..", "assets", name))
	}
}

func TestTokenizerIsCommitted(t *testing.T) {
	dir := t.TempDir()
	w := newWorld()
	tok, err := writeTokenizer(dir, w)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json"} {
		equalFiles(t, filepath.Join(dir, name), filepath.Join("..", "assets", "model", name))
	}
	// The prompt around an instruction is short, so that the demo is quick.
	n := len(tok.Encode(dataset.Alpaca.Prompt("", ""), tokenizer.EncodeOptions{}))
	if n > 25 {
		t.Errorf("the prompt has %d tokens", n)
	}
}

func equalFiles(t *testing.T, got, want string) {
	t.Helper()
	a, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("%s is not what this command makes: run scripts/tinymodel/run.sh", want)
	}
}

// The base model reads about all towns and sees no instruction.
func TestTexts(t *testing.T) {
	w := newWorld()
	random := w.random("test")
	seen := map[string]bool{}
	for range 20000 {
		text := w.text(random)
		if strings.ContainsAny(text, "%?#:") || strings.Contains(text, "Name the") {
			t.Fatalf("a text is %q", text)
		}
		if strings.HasPrefix(text, "Its") {
			t.Fatalf("a text begins without its town: %q", text)
		}
		for _, town := range w.towns {
			if strings.Contains(text, town.name) {
				seen[town.name] = true
			}
		}
	}
	if len(seen) != len(w.towns) {
		t.Errorf("texts are about %d of %d towns", len(seen), len(w.towns))
	}
}

func TestRows(t *testing.T) {
	w := newWorld()
	training, heldOut := w.trainingRows(), w.heldOutRows()
	withInput := 0
	for _, r := range slices.Concat(training, heldOut) {
		if err := r.Validate(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
		if strings.Contains(r.Instruction+r.Input+r.Output, "%") {
			t.Errorf("%+v is not filled in", r)
		}
		if r.Input != "" {
			withInput++
		}
	}
	if withInput < len(training)/10 {
		t.Errorf("%d rows have an input", withInput)
	}
	if r := heldOut[0]; slices.ContainsFunc(training, func(o shard.Row) bool { return o.Instruction == r.Instruction && o.Input == r.Input }) {
		t.Errorf("%+v is in both", r)
	}
}
