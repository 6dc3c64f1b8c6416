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
	files, err := filepath.Glob(filepath.Join(dir, "*", "golden_tokenizer_json.json"))
	if err != nil {
		b.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		tok, err := Load(filepath.Dir(file))
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
	files, err := filepath.Glob(filepath.Join(dir, "*", "golden_tokenizer_json.json"))
	if err != nil || len(files) == 0 {
		tb.Skip("no reference results of a tokenizer.json")
	}
	raw, err := os.ReadFile(files[0])
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
