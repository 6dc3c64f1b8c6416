package main

import (
	_ "embed"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/shard"
)

// vocabTokens is the size of the vocabulary.
const vocabTokens = 1024

// card is the README.md of the model.
//
//go:embed card.md
var card string

// writeData writes the rows, and the prompts that the demo shows.
func writeData(dir string, w *world) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	heldOut := w.heldOutRows()
	if err := writeRows(filepath.Join(dir, "train.jsonl"), w.trainingRows()); err != nil {
		return err
	}
	if err := writeRows(filepath.Join(dir, "eval.jsonl"), heldOut); err != nil {
		return err
	}
	b, err := marshal(prompts(heldOut))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "prompts.json"), b, 0o644)
}

// prompts are the first held-out rows with each way to answer.
func prompts(rows []shard.Row) []api.DemoPrompt {
	var list []api.DemoPrompt
	shown := map[string]bool{}
	for _, r := range rows {
		begin := r.Output[:len("Its ri")]
		if !shown[begin] {
			shown[begin] = true
			list = append(list, api.DemoPrompt{Prompt: api.Prompt{Instruction: r.Instruction, Input: r.Input}, Expected: r.Output})
		}
	}
	return list
}

func writeRows(path string, rows []shard.Row) error {
	var b []byte
	for _, r := range rows {
		line, err := json.Marshal(struct {
			Instruction string `json:"instruction"`
			Input       string `json:"input"`
			Output      string `json:"output"`
		}{r.Instruction, r.Input, r.Output})
		if err != nil {
			return err
		}
		b = append(append(b, line...), '\n')
	}
	return os.WriteFile(path, b, 0o644)
}

// writeTokenizer makes a tokenizer of what the model reads: the texts about w,
// and the prompts.
func writeTokenizer(dir string, w *world) (*tokenizer.Tokenizer, error) {
	counts := map[string]int{}
	count := func(text string) {
		for _, s := range words(text) {
			counts[s]++
		}
	}
	random := w.random("tokenizer")
	for range 20000 {
		count(w.text(random))
	}
	for _, r := range w.trainingRows() {
		count(dataset.Alpaca.Prompt(r.Instruction, r.Input))
		count(r.Output)
	}
	tokens, merges := trainBPE(counts, vocabTokens)
	file, err := tokenizerJSON(tokens, merges)
	if err != nil {
		return nil, err
	}
	config, err := tokenizerConfig(contextTokens)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	files := map[string][]byte{"tokenizer.json": file, "tokenizer_config.json": config}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o644); err != nil {
			return nil, err
		}
	}
	return tokenizer.Load(dir)
}
