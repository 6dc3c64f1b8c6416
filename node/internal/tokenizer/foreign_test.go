package tokenizer

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/goldentest"
)

// byteJSON is a tokenizer.json whose tokens are bytes, with special tokens:
// <s> 300, </s> 301 and, looked for in the text as normalised, <n> 302; <t> 303
// is not special.
func byteJSON(t testing.TB, more string) *Tokenizer {
	t.Helper()
	a := newByteLevel()
	var vocab strings.Builder
	for i := range 256 {
		fmt.Fprintf(&vocab, "%q:%d,", string(a.char[i]), i)
	}
	added := func(id int, text string, normalized, special bool) string {
		return fmt.Sprintf(`{"id":%d,"content":%q,"single_word":false,"lstrip":false,"rstrip":false,"normalized":%t,"special":%t}`, id, text, normalized, special)
	}
	tok, err := parseJSON([]byte(`{"added_tokens":[` + added(300, "<s>", false, true) + "," + added(301, "</s>", false, true) + "," +
		added(302, "<n>", true, true) + "," + added(303, "<t>", false, false) + `],` + more +
		`"model":{"type":"BPE","vocab":{` + strings.TrimSuffix(strings.ReplaceAll(vocab.String(), `"\x7f"`, `"\u007f"`), ",") + `},"merges":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

const byteLevelStep = `"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},`

// written writes tokens with those that are not bytes in brackets.
func written(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		if id < 256 {
			b.WriteByte(byte(id))
		} else {
			fmt.Fprintf(&b, "[%d]", id)
		}
	}
	return b.String()
}

func TestForeign(t *testing.T) {
	for name, norm := range map[string]string{"as it is": "", "normalised": `"normalizer":{"type":"NFC"},`} {
		tok := byteJSON(t, norm+byteLevelStep)
		for _, tt := range []struct{ text, want string }{ // foreign parts in braces
			{"<s>a{<s>}</s>", "[300]a<s>[301]"},
			{"{<s>}", "<s>"},
			{"<{s}>", "<s>"},         // a token in part foreign
			{"<s{>}<s>", "<s>[300]"}, // and one behind it
			{"{a}<s>{b}", "a[300]b"}, // one between
			{"{<n>}<n>{<n>}x<n>", "<n>[302]<n>x[302]"},
			{"<n{>}<n>", "<n>[302]"},
			{"{<t>}<t>", "[303][303]"}, // not special: found whoever wrote it
			{"{}<s>", "[300]"},
		} {
			text, foreign := braced(tt.text)
			got := written(tok.Encode(text, EncodeOptions{ParseSpecial: true, Foreign: foreign}))
			if got != tt.want {
				t.Errorf("%s: %q is %q, want %q", name, tt.text, got, tt.want)
			}
			got = written(tok.Encode(text, EncodeOptions{Foreign: foreign}))
			if want := strings.ReplaceAll(text, "<t>", "[303]"); got != want {
				t.Errorf("%s: %q without special tokens is %q, want %q", name, tt.text, got, want)
			}
		}
		// Bytes that are not UTF-8 move the parts behind them.
		got := written(tok.Encode("\xff\xff<s><s>", EncodeOptions{ParseSpecial: true, Foreign: []Range{{0, 5}}}))
		if want := "\uFFFD\uFFFD<s>[300]"; got != want {
			t.Errorf("%s: not UTF-8: %q, want %q", name, got, want)
		}
	}
}

// braced removes braces and returns what was in them.
func braced(s string) (string, []Range) {
	var b strings.Builder
	var out []Range
	for _, c := range s {
		switch c {
		case '{':
			out = append(out, Range{b.Len(), 0})
		case '}':
			out[len(out)-1].End = b.Len()
		default:
			b.WriteRune(c)
		}
	}
	return b.String(), out
}

// TestForeignChangesNothing checks that text without special tokens has the
// same tokens whoever wrote it.
func TestForeignChangesNothing(t *testing.T) {
	dir := goldenDir(t)
	text := mixedText(t, dir)
	for _, s := range []string{"<|", "|>", "<s", "</s", "<unk", "<0x"} {
		text = strings.ReplaceAll(text, s, "")
	}
	for _, name := range []string{"bpe-gpt2", "bpe-llama3", "bpe-qwen2", "sp-llama"} {
		t.Run(name, func(t *testing.T) {
			tok, err := Load(goldentest.Dir(t, "tokenizers", name))
			if err != nil {
				t.Fatal(err)
			}
			want := tok.Encode(text, EncodeOptions{ParseSpecial: true})
			for _, foreign := range [][]Range{{{0, len(text)}}, {{3, 50}, {51, 400}, {1000, 1001}}} {
				if got := tok.Encode(text, EncodeOptions{ParseSpecial: true, Foreign: foreign}); !slices.Equal(got, want) {
					t.Errorf("tokens differ with the parts %v", foreign)
				}
			}
		})
	}
}

func TestContinues(t *testing.T) {
	const metaspace = `"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Metaspace","replacement":"_","prepend_scheme":%q,"split":false},` +
		`{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},`
	for _, tt := range []struct{ name, more, begins, goesOn, behind string }{
		{"no prefix", byteLevelStep, "a", "a", "[300]a"},
		{"space", `"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true,"use_regex":false},`, " a", "a", "[300] a"},
		{"metaspace always", fmt.Sprintf(metaspace, "always"), "_a", "a", "[300]_a"},
		{"metaspace first", fmt.Sprintf(metaspace, "first"), "_a", "a", "[300]a"},
		{"prepend", `"normalizer":{"type":"Prepend","prepend":"_"},` + byteLevelStep, "_a", "a", "[300]_a"},
		{"strip", `"normalizer":{"type":"Strip","strip_left":true,"strip_right":false},` + byteLevelStep, "a", "a", "[300]a"},
	} {
		tok := byteJSON(t, tt.more)
		if got := written(tok.Encode("a", EncodeOptions{})); got != tt.begins {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.begins)
		}
		if got := written(tok.Encode("a", EncodeOptions{Continues: true})); got != tt.goesOn {
			t.Errorf("%s: going on %q, want %q", tt.name, got, tt.goesOn)
		}
		if got := written(tok.Encode("<s>a", EncodeOptions{Continues: true, ParseSpecial: true})); got != tt.behind {
			t.Errorf("%s: behind a special token %q, want %q", tt.name, got, tt.behind)
		}
	}
	tok := byteJSON(t, fmt.Sprintf(metaspace, "always"))
	if got := written(tok.AppendEncode([]int32{300}, "a", EncodeOptions{Continues: true})); got != "[300]_a" {
		t.Errorf("going on behind a special token %q", got)
	}
	if got := written(tok.AppendEncode([]int32{'b'}, "a", EncodeOptions{Continues: true})); got != "ba" {
		t.Errorf("going on behind a letter %q", got)
	}
	tok, err := Load(filepath.Join("testdata", "unigram"))
	if err != nil {
		t.Fatal(err)
	}
	whole := tok.Encode("the round", EncodeOptions{})
	apart := append(tok.Encode("the", EncodeOptions{}), tok.Encode(" round", EncodeOptions{Continues: true})...)
	if !slices.Equal(whole, apart) {
		t.Errorf("unigram: %v whole, %v in two", whole, apart)
	}
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		step string
		want string
	}{
		{`{"type":"Split","pattern":{"String":" "},"behavior":"Isolated","invert":false}`, "a| | |b1| |12,!"},
		{`{"type":"Split","pattern":{"String":" "},"behavior":"Removed","invert":false}`, "a|b1|12,!"},
		{`{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false}`, "a | |b1 |12,!"},
		{`{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithNext","invert":false}`, "a| | b1| 12,!"},
		{`{"type":"Split","pattern":{"String":" "},"behavior":"Contiguous","invert":false}`, "a|  |b1| |12,!"},
		{`{"type":"Split","pattern":{"Regex":"[0-9]"},"behavior":"Removed","invert":true}`, "1|1|2"},
		{`{"type":"Digits","individual_digits":true}`, "a  b|1| |1|2|,!"},
		{`{"type":"Digits","individual_digits":false}`, "a  b|1| |12|,!"},
		{`{"type":"Punctuation","behavior":"Isolated"}`, "a  b1 12|,|!"},
		{`{"type":"Punctuation","behavior":"Contiguous"}`, "a  b1 12|,!"},
		{`{"type":"Whitespace"}`, "a|b1|12|,!"},
		{`{"type":"WhitespaceSplit"}`, "a|b1|12,!"},
	} {
		steps, _, err := parsePreTokenizer([]byte(tt.step), 0)
		if err != nil {
			t.Errorf("%s: %v", tt.step, err)
			continue
		}
		const text = "a  b1 12,!"
		var got []string
		chain(text, first, steps, func(s string) { got = append(got, s) })
		if s := strings.Join(got, "|"); s != tt.want {
			t.Errorf("%s: %s, want %s", tt.step, s, tt.want)
		}
	}
	// Behind ByteLevel a step sees the alphabet: the bytes of ² are no digits,
	// but its second byte is written as one.
	steps, bytes, err := parsePreTokenizer([]byte(`{"type":"Sequence","pretokenizers":[{"type":"ByteLevel","add_prefix_space":false,"use_regex":false},{"type":"Digits","individual_digits":true}]}`), 0)
	if err != nil || !bytes {
		t.Fatal(bytes, err)
	}
	var got []string
	chain("a²1", first, steps, func(s string) { got = append(got, s) })
	if want := []string{"a\xc2", "\xb2", "1"}; !slices.Equal(got, want) {
		t.Errorf("behind ByteLevel: %q, want %q", got, want)
	}
}
