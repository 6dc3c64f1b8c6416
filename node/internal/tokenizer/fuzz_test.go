package tokenizer

import (
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"
)

// FuzzJSON checks that no tokenizer.json makes it panic, and that what is made
// of one gives tokens that there are.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["a",-1],["b",-2],["ab",-1.5]]}}`,
		`{"added_tokens":[{"id":3,"content":"<s>","single_word":true,"lstrip":true,"rstrip":true,"normalized":true,"special":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"Regex":"a+"},"content":"b"}]},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"Split","pattern":{"Regex":"[ab]"},"behavior":"MergedWithNext","invert":true},{"type":"Metaspace","replacement":"_","prepend_scheme":"first","split":true}]},"post_processor":{"type":"RobertaProcessing","sep":["b",1],"cls":["a",0]},"decoder":{"type":"Sequence","decoders":[{"type":"Strip","content":" ","start":1,"stop":0},{"type":"Fuse"}]},"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`,
		`{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true,"use_regex":true},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"Ġ":1,"Ġa":2},"merges":[["Ġ","a"]],"unk_token":"a","fuse_unk":true}}`,
		`{"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`,
	} {
		f.Add([]byte(s), "a <s> b12\u0301 ab")
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		tok, err := parseJSON(data)
		if err != nil || len(text) > 1000 {
			return
		}
		useTokenizer(t, tok, text)
	})
}

// FuzzModel does the same for tokenizer.model.
func FuzzModel(f *testing.F) {
	raw, err := os.ReadFile(filepath.Join("testdata", "unigram", "tokenizer.model"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, "the peers  <tool>é")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		tok, err := parseSentencePiece(data, &specials{})
		if err != nil || len(text) > 1000 {
			return
		}
		useTokenizer(t, tok, text)
	})
}

func useTokenizer(t *testing.T, tok *Tokenizer, text string) {
	at := min(len(text)/2, 7)
	for _, o := range []EncodeOptions{{}, {AddSpecial: true, ParseSpecial: true}, {ParseSpecial: true, Foreign: []Range{{0, at}}, Continues: true}} {
		ids := tok.Encode(text, o)
		for _, id := range ids {
			if _, ok := tok.Token(id); !ok {
				t.Fatalf("Encode(%q) has the token %d, of %d", text, id, tok.VocabSize())
			}
		}
		if s := tok.Decode(ids, true); utf8.ValidString(text) && !utf8.ValidString(s) {
			t.Errorf("Decode(%v) = %q is not UTF-8", ids, s)
		}
	}
}
