package dataset

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
)

func TestEncode(t *testing.T) {
	const n = train.NotCounted
	row := shard.Row{Instruction: "ab", Input: "c", Output: "de"}
	tests := []struct {
		name          string
		before, after string
		ids, labels   []int32
	}{
		{"plain", "", "", []int32{'a', 'b', '\n', 'c', 'd', 'e', eosID}, []int32{n, n, n, n, 'd', 'e', eosID}},
		{"BOS", "<s>", "", []int32{bosID, 'a', 'b', '\n', 'c', 'd', 'e', eosID}, []int32{n, n, n, n, n, 'd', 'e', eosID}},
		{"EOS by the tokenizer", "", "</s>", []int32{'a', 'b', '\n', 'c', 'd', 'e', eosID}, []int32{n, n, n, n, 'd', 'e', eosID}},
		{"both", "<s>", "</s>", []int32{bosID, 'a', 'b', '\n', 'c', 'd', 'e', eosID}, []int32{n, n, n, n, n, 'd', 'e', eosID}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := newEncoder(t, byteTokenizer(t, tt.before, tt.after), None, 8).Encode(row)
			if diff := cmp.Diff(train.Sample{IDs: tt.ids, Labels: tt.labels}, got); diff != "" || !ok {
				t.Errorf("Encode reports %v (-want +got):\n%s", ok, diff)
			}
		})
	}
}

// A row cannot end its own prompt, nor train the model to produce what looks
// like a special token as one.
func TestEncodeSpecialText(t *testing.T) {
	tok := byteTokenizer(t, "<s>", "")
	s, ok := newEncoder(t, tok, Alpaca, 1024).Encode(shard.Row{Instruction: "a</s>b<s>", Input: "</s>", Output: "c</s>d"})
	if !ok {
		t.Fatal("dropped")
	}
	if i := slices.Index(s.IDs, eosID); i != len(s.IDs)-1 {
		t.Errorf("EOS is token %d of %d", i, len(s.IDs))
	}
	if slices.Contains(s.IDs[1:], bosID) {
		t.Error("BOS within the sample")
	}
}

func TestEncodeDropsLong(t *testing.T) {
	e := newEncoder(t, byteTokenizer(t, "<s>", ""), None, 6)
	for _, tt := range []struct {
		output  string
		ok      bool
		dropped int
	}{
		{"xyz", true, 0},
		{"wxyz", false, 1}, // with BOS, one token of prompt and EOS it has seven
		{"xyz", true, 1},
		{strings.Repeat("x", 100), false, 2},
	} {
		s, ok := e.Encode(shard.Row{Instruction: "i", Output: tt.output})
		if ok != tt.ok || e.Dropped() != tt.dropped || !ok && len(s.IDs) > 0 {
			t.Errorf("Encode(%q) = %v, %v, %d dropped; want %v, %d", tt.output, s, ok, e.Dropped(), tt.ok, tt.dropped)
		}
	}
}

func TestNewEncoderRefuses(t *testing.T) {
	tok := byteTokenizer(t, "", "")
	if _, err := NewEncoder(tok, Template(0), 10); err == nil {
		t.Error("no error for a template that does not exist")
	}
	if _, err := NewEncoder(tok, None, 1); err == nil {
		t.Error("no error for samples of one token")
	}
}

// checkSample checks what training and generation rely on, whatever the row.
func checkSample(t *testing.T, tok *tokenizer.Tokenizer, template Template, row shard.Row) {
	t.Helper()
	e := newEncoder(t, tok, template, 1<<20)
	s, ok := e.Encode(row)
	if !ok {
		t.Fatal("dropped")
	}
	prompt := e.EncodePrompt(row.Instruction, row.Input)
	if len(s.IDs) != len(s.Labels) || len(s.IDs) <= len(prompt) || !slices.Equal(s.IDs[:len(prompt)], prompt) {
		t.Fatalf("%d tokens and %d labels do not begin with the %d tokens of the prompt", len(s.IDs), len(s.Labels), len(prompt))
	}
	for i, l := range s.Labels {
		switch {
		case i < max(len(prompt), 1) && l != train.NotCounted:
			t.Errorf("label %d of the prompt is %d", i, l)
		case i >= max(len(prompt), 1) && l != s.IDs[i]:
			t.Errorf("label %d is %d, the token is %d", i, l, s.IDs[i])
		}
	}
	if last := s.IDs[len(s.IDs)-1]; last != tok.EOS() {
		t.Errorf("the last token is %d, want EOS", last)
	}
	bare := tok.Encode(template.Prompt(row.Instruction, row.Input), tokenizer.EncodeOptions{})
	if !slices.Equal(prompt[len(prompt)-len(bare):], bare) {
		t.Error("the prompt does not end with the tokens of its text")
	}
}

func FuzzEncode(f *testing.F) {
	tok := byteTokenizer(f, "<s>", "</s>")
	f.Add("Add.", "1 2", "3")
	f.Add("</s>", "<s>", "</s>\n### Response:")
	f.Add("\xff", "", "é")
	f.Fuzz(func(t *testing.T, instruction, input, output string) {
		if instruction == "" {
			return // a row of text, which has no prompt
		}
		for _, template := range []Template{Alpaca, None} {
			checkSample(t, tok, template, shard.Row{Instruction: instruction, Input: input, Output: output})
		}
	})
}

// TestEncodeGolden does the same with tokenizers in the forms in which they
// are published.
func TestEncodeGolden(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(golden(t), "tokenizers", "*"))
	if err != nil || len(dirs) == 0 {
		t.Fatal("no tokenizers", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			tok, err := tokenizer.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if tok.EOS() < 0 {
				t.Skip("names no EOS")
			}
			for _, row := range []shard.Row{
				{Instruction: "Which river flows here?", Output: "The Anda."},
				{Instruction: "Repeat.", Input: "  spaces </s>\r\n", Output: " leading space"},
				{Instruction: "日本", Output: "\n"},
			} {
				checkSample(t, tok, Alpaca, row)
				checkSample(t, tok, None, row)
			}
		})
	}
}
