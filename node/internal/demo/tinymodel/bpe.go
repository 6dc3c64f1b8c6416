package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// The special tokens of the tokenizer, which come first.
const (
	bos, eos         = "<s>", "</s>"
	bosID, eosID     = 0, 1
	specialTokens    = 2
	llama3Expression = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// words cuts a text as llama3Expression does. It knows what the corpus has:
// letters, single spaces, punctuation and line breaks.
func words(text string) []string {
	kind := func(r rune) int {
		switch {
		case unicode.IsLetter(r):
			return 0
		case r == '\n':
			return 1
		case r == ' ':
			return 2
		}
		return 3
	}
	var list []string
	runes := []rune(text)
	for i := 0; i < len(runes); {
		j := i
		if runes[j] == ' ' || kind(runes[j]) == 3 && j+1 < len(runes) && kind(runes[j+1]) == 0 {
			j++
		}
		k := kind(runes[min(j, len(runes)-1)])
		for j < len(runes) && kind(runes[j]) == k {
			j++
		}
		for k == 3 && j < len(runes) && runes[j] == '\n' {
			j++
		}
		list = append(list, string(runes[i:j]))
		i = j
	}
	return list
}

// word is a distinct word of the corpus: its tokens so far, and how often it
// is there.
type word struct {
	tokens []string
	count  int
}

// trainBPE learns merges of bytes on a corpus until there are vocab tokens
// with the special ones. Of pairs that are equally frequent the smallest one
// is merged first.
func trainBPE(corpus map[string]int, vocab int) (tokens []string, merges [][2]string) {
	var list []word
	for _, text := range slices.Sorted(maps.Keys(corpus)) {
		list = append(list, word{strings.Split(byteLevel(text), ""), corpus[text]})
	}
	for b := range 256 {
		tokens = append(tokens, string(byteRune(byte(b))))
	}
	slices.Sort(tokens)
	for len(tokens)+specialTokens < vocab {
		counts := map[[2]string]int{}
		for _, w := range list {
			for i := range len(w.tokens) - 1 {
				counts[[2]string{w.tokens[i], w.tokens[i+1]}] += w.count
			}
		}
		best, most := [2]string{}, 1
		for pair, n := range counts {
			if n > most || n == most && most > 1 && slices.Compare(pair[:], best[:]) < 0 {
				best, most = pair, n
			}
		}
		if most < 2 {
			break
		}
		merges = append(merges, best)
		tokens = append(tokens, best[0]+best[1])
		for i := range list {
			list[i].tokens = mergePair(list[i].tokens, best)
		}
	}
	return tokens, merges
}

func mergePair(tokens []string, pair [2]string) []string {
	out := tokens[:0]
	for i := 0; i < len(tokens); i++ {
		if i+1 < len(tokens) && tokens[i] == pair[0] && tokens[i+1] == pair[1] {
			out = append(out, pair[0]+pair[1])
			i++
		} else {
			out = append(out, tokens[i])
		}
	}
	return out
}

// byteLevel writes bytes as the visible characters that GPT-2 chose for them.
func byteLevel(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		b.WriteRune(byteRune(c))
	}
	return b.String()
}

func byteRune(b byte) rune {
	visible := func(b byte) bool { return b > ' ' && b <= '~' || b > 0xA0 && b != 0xAD }
	if visible(b) {
		return rune(b)
	}
	r := rune(256)
	for c := range b {
		if !visible(c) {
			r++
		}
	}
	return r
}

type object = map[string]any

// tokenizerJSON returns tokenizer.json.
func tokenizerJSON(tokens []string, merges [][2]string) ([]byte, error) {
	vocab := object{bos: bosID, eos: eosID}
	for i, t := range tokens {
		vocab[t] = specialTokens + i
	}
	added := func(id int, content string) object {
		return object{
			"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
			"normalized": false, "special": true,
		}
	}
	special := object{"SpecialToken": object{"id": bos, "type_id": 0}}
	sequence := func(id string, typeID int) object { return object{"Sequence": object{"id": id, "type_id": typeID}} }
	bytesAsCharacters := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
	if merges == nil {
		merges = [][2]string{}
	}
	return marshal(object{
		"version": "1.0", "truncation": nil, "padding": nil,
		"added_tokens": []object{added(bosID, bos), added(eosID, eos)},
		"normalizer":   nil,
		"pre_tokenizer": object{"type": "Sequence", "pretokenizers": []object{
			{"type": "Split", "pattern": object{"Regex": llama3Expression}, "behavior": "Isolated", "invert": false},
			bytesAsCharacters,
		}},
		"post_processor": object{
			"type": "TemplateProcessing", "single": []object{special, sequence("A", 0)},
			"pair":           []object{special, sequence("A", 0), sequence("B", 1)},
			"special_tokens": object{bos: object{"id": bos, "ids": []int{bosID}, "tokens": []string{bos}}},
		},
		"decoder": object{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model": object{
			"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges,
		},
	})
}

func tokenizerConfig(context int) ([]byte, error) {
	return marshal(object{
		"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos,
		"clean_up_tokenization_spaces": false, "model_max_length": context,
	})
}

// marshal is JSON with sorted names, ending with a line feed.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(v)
	return b.Bytes(), err
}
