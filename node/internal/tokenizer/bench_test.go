package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkEncode measures tokenizers of the reference results, on text in
// English and on a mixture of scripts, code and numbers.
func BenchmarkEncode(b *testing.B) {
	dir := goldenDir(b)
	english, err := os.ReadFile(filepath.Join(moduleRoot(b), "proto", "README.md"))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"bpe-gpt2", "bpe-llama3", "bpe-qwen2", "sp-llama"} {
		tok, err := Load(filepath.Join(dir, name))
		if err != nil {
			b.Fatal(err)
		}
		for kind, text := range map[string]string{"english": string(english), "mixed": mixedText(b, dir)} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				var ids []int32
				for b.Loop() {
					ids = tok.AppendEncode(ids[:0], text, EncodeOptions{})
				}
			})
		}
	}
}

// mixedText joins the texts of the reference results.
func mixedText(tb testing.TB, dir string) string {
	raw, err := os.ReadFile(filepath.Join(dir, "bpe-gpt2", "golden_tokenizer_json.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var g goldenFile
	if err := json.Unmarshal(raw, &g); err != nil {
		tb.Fatal(err)
	}
	var text strings.Builder
	for _, e := range g.Encode {
		text.WriteString(e.Text)
	}
	return text.String()
}
