package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/goldentest"
)

// goldenDir finds the reference results that are not part of this repository.
func goldenDir(t testing.TB) string {
	t.Helper()
	return goldentest.Dir(t, "tokenizers")
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return root
		}
		up := filepath.Dir(root)
		if up == root {
			t.Fatal("go.mod is in no folder above")
		}
		root = up
	}
}

type goldenFile struct {
	VocabSize int `json:"vocab_size"`
	Encode    []struct {
		Text    string  `json:"text"`
		IDs     []int32 `json:"ids"`
		Special []int32 `json:"ids_special"`
		Decoded string  `json:"decoded"`
		Skipped *string `json:"decoded_skip_special"`
	} `json:"encode"`
	Decode []struct {
		IDs     []int32 `json:"ids"`
		Decoded string  `json:"decoded"`
		Skipped *string `json:"decoded_skip_special"`
	} `json:"decode"`
}

// TestGolden compares with the tokenizers and sentencepiece libraries on every
// file in the folder.
func TestGolden(t *testing.T) {
	dir := goldenDir(t)
	files, err := filepath.Glob(filepath.Join(dir, "*", "golden_*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no reference results in %s: %v", dir, err)
	}
	for _, file := range files {
		folder := filepath.Dir(file)
		t.Run(filepath.Base(folder)+"/"+filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var g goldenFile
			if err := json.Unmarshal(b, &g); err != nil {
				t.Fatal(err)
			}
			tok, err := loadGolden(folder, filepath.Base(file))
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, tok, &g, strings.HasPrefix(filepath.Base(file), "golden_tokenizer"))
		})
	}
}

// loadGolden reads the file that the results are of: golden_X_json.json is of
// X.json, golden_sentencepiece.json of tokenizer.model.
func loadGolden(folder, name string) (*Tokenizer, error) {
	settings, err := readSpecials(folder)
	if err != nil {
		return nil, err
	}
	read, of := parseJSON, strings.TrimSuffix(strings.TrimPrefix(name, "golden_"), "_json.json")+".json"
	if name == "golden_sentencepiece.json" {
		of, read = modelFile, func(b []byte) (*Tokenizer, error) { return parseSentencePiece(b, settings) }
	}
	b, err := os.ReadFile(filepath.Join(folder, of))
	if err != nil {
		return nil, err
	}
	tok, err := read(b)
	if err != nil {
		return nil, err
	}
	return tok, tok.setSpecials(settings)
}

func compareGolden(t *testing.T, tok *Tokenizer, g *goldenFile, fromJSON bool) {
	if g.VocabSize != tok.VocabSize() {
		t.Errorf("VocabSize() = %d, want %d", tok.VocabSize(), g.VocabSize)
	}
	for _, e := range g.Encode {
		got := tok.Encode(e.Text, EncodeOptions{ParseSpecial: fromJSON})
		if !slices.Equal(got, e.IDs) {
			t.Errorf("Encode(%q) = %v, want %v", e.Text, got, e.IDs)
		}
		if s := tok.Decode(e.IDs, false); s != e.Decoded {
			t.Errorf("Decode(%v) of %q = %q, want %q", e.IDs, e.Text, s, e.Decoded)
		}
		if !fromJSON {
			continue
		}
		if got := tok.Encode(e.Text, EncodeOptions{AddSpecial: true, ParseSpecial: true}); !slices.Equal(got, e.Special) {
			t.Errorf("Encode(%q) with special tokens = %v, want %v", e.Text, got, e.Special)
		}
		if e.Skipped != nil {
			if s := tok.Decode(e.Special, true); s != *e.Skipped {
				t.Errorf("Decode(%v) without special tokens = %q, want %q", e.Special, s, *e.Skipped)
			}
		}
	}
	for _, d := range g.Decode {
		if s := tok.Decode(d.IDs, false); s != d.Decoded {
			t.Errorf("Decode(%v) = %q, want %q", d.IDs, s, d.Decoded)
		}
		if d.Skipped != nil {
			if s := tok.Decode(d.IDs, true); s != *d.Skipped {
				t.Errorf("Decode(%v) without special tokens = %q, want %q", d.IDs, s, *d.Skipped)
			}
		}
	}
	if len(g.Encode) == 0 {
		t.Error("the file holds no cases")
	}
}
