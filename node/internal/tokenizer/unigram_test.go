package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestUnigram compares with the sentencepiece library on a small model of this
// repository.
func TestUnigram(t *testing.T) {
	dir := filepath.Join("testdata", "unigram")
	raw, err := os.ReadFile(filepath.Join(dir, "golden_sentencepiece.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g goldenFile
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	compareGolden(t, tok, &g, false)
}

// TestUnigramJSON checks the rules that tokenizer.json has of its own: no piece
// is beyond a text's reach, unknown characters in a row are one token.
func TestUnigramJSON(t *testing.T) {
	const pieces = `["<unk>",0],["a",-1],["b",-1],["ab",-1.5],["abb",-4],["▁",-2],["▁a",-2.5]`
	for _, tt := range []struct {
		name, model string
		text        string
		want        []int32
	}{
		{"best sum", `"unk_id":0,"vocab":[` + pieces + `]`, "abb", []int32{3, 2}},
		{"the earlier of equals", `"unk_id":0,"vocab":[["<unk>",0],["a",-1],["b",-1],["ab",-2]]`, "ab", []int32{3}},
		{"unknown in a row", `"unk_id":0,"vocab":[` + pieces + `]`, "axyzb", []int32{1, 0, 2}},
		{"no unknown token", `"unk_id":null,"vocab":[` + pieces + `]`, "axb", []int32{1, 2}},
		{"named as a piece", `"unk_id":0,"vocab":[` + pieces + `]`, "a<unk>", []int32{1, 0}},
		{"known before unknown", `"unk_id":0,"vocab":[["<unk>",0],["xy",-5],["z",-5],["yz",-1]]`, "xyz", []int32{1, 2}},
		{"nothing", `"unk_id":0,"vocab":[` + pieces + `]`, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := parseJSON([]byte(`{"model":{"type":"Unigram",` + tt.model + `}}`))
			if err != nil {
				t.Fatal(err)
			}
			if got := tok.Encode(tt.text, EncodeOptions{}); !slices.Equal(got, tt.want) {
				t.Errorf("Encode(%q) = %v, want %v", tt.text, got, tt.want)
			}
		})
	}
	for _, model := range []string{
		`"unk_id":9,"vocab":[["a",0]]`, `"unk_id":0,"vocab":[]`, `"unk_id":0,"vocab":[["",0]]`,
		`"unk_id":0,"byte_fallback":true,"vocab":[["a",0]]`, `"unk_id":0,"vocab":[["a"]]`, `"unk_id":0,"other":1,"vocab":[["a",0]]`,
	} {
		if _, err := parseJSON([]byte(`{"model":{"type":"Unigram",` + model + `}}`)); err == nil {
			t.Errorf("%s: no error", model)
		}
	}
}

// TestUnigramMatchesAllWays compares the best way with all there are.
func TestUnigramMatchesAllWays(t *testing.T) {
	tok, err := Load(filepath.Join("testdata", "unigram"))
	if err != nil {
		t.Fatal(err)
	}
	u := tok.unigram
	for _, text := range []string{"▁the▁delta", "▁certificate", "▁peers", "▁witness▁sh"} {
		var sum float64
		for _, id := range tok.Encode(text, EncodeOptions{Continues: true}) {
			sum += score(u, id, len(tok.tokens[id]))
		}
		if best := bestScore(u, tok, text); sum < best-1e-4 {
			t.Errorf("%q scores %v, another way %v", text, sum, best)
		}
	}
}

func score(u *unigram, id int32, size int) float64 {
	if u.perByte[id] {
		return float64(size)*float64(u.maxScore) - 0.1
	}
	return u.scores[id]
}

func bestScore(u *unigram, tok *Tokenizer, s string) float64 {
	if s == "" {
		return 0
	}
	best := -1e9
	for end := 1; end <= len(s); end++ {
		id, ok := tok.byText[s[:end]]
		if ok && (tok.unigram.perByte[id] || !tok.special[id]) {
			best = max(best, score(u, id, end)+bestScore(u, tok, s[end:]))
		}
	}
	return best
}
