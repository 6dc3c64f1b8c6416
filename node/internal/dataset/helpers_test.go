package dataset

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/shard"
)

// Tokens of the tokenizer that byteTokenizer makes; the others are bytes.
const (
	bosID = 256
	eosID = 257
)

// byteTokenizer makes a tokenizer whose tokens are the bytes of a text, with
// the given special tokens around it: none, "<s>", "</s>".
func byteTokenizer(t testing.TB, before, after string) *tokenizer.Tokenizer {
	t.Helper()
	type object = map[string]any
	vocab := object{"<s>": bosID, "</s>": eosID}
	for b := range 256 {
		vocab[string(byteRune(byte(b)))] = b
	}
	var parts []object
	special := object{}
	for _, s := range []string{before, "A", after} {
		switch s {
		case "":
		case "A":
			parts = append(parts, object{"Sequence": object{"id": "A", "type_id": 0}})
		default:
			parts = append(parts, object{"SpecialToken": object{"id": s, "type_id": 0}})
			special[s] = object{"id": s, "ids": []any{vocab[s]}, "tokens": []string{s}}
		}
	}
	added := func(text string) object {
		return object{
			"id": vocab[text], "content": text, "single_word": false, "lstrip": false, "rstrip": false,
			"normalized": false, "special": true,
		}
	}
	dir := t.TempDir()
	writeJSON(t, filepath.Join(dir, "tokenizer.json"), object{
		"version": "1.0", "added_tokens": []object{added("<s>"), added("</s>")},
		"pre_tokenizer":  object{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
		"post_processor": object{"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": special},
		"decoder":        object{"type": "ByteLevel"},
		"model":          object{"type": "BPE", "vocab": vocab, "merges": []string{}},
	})
	writeJSON(t, filepath.Join(dir, "tokenizer_config.json"), object{"bos_token": "<s>", "eos_token": "</s>"})
	tok, err := tokenizer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// byteRune is the character by which a byte-level vocabulary writes a byte.
func byteRune(b byte) rune {
	next := rune(256)
	for c := range 256 {
		visible := c > ' ' && c <= '~' || c > 0xA0 && c != 0xAD
		switch {
		case c == int(b) && visible:
			return rune(b)
		case c == int(b):
			return next
		case !visible:
			next++
		}
	}
	panic("bug: a byte above 255")
}

func writeJSON(t testing.TB, path string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func newEncoder(t testing.TB, tok *tokenizer.Tokenizer, template Template, maxTokens int) *Encoder {
	t.Helper()
	e, err := NewEncoder(tok, template, maxTokens)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// numbered returns n different rows.
func numbered(n int) []shard.Row {
	rows := make([]shard.Row, n)
	for i := range rows {
		rows[i] = shard.Row{Instruction: fmt.Sprintf("What is row %d?", i), Output: fmt.Sprintf("It is %d.", i)}
	}
	return rows
}

// importRows stores rows as a data set in small shards.
func importRows(t testing.TB, training, heldOut []shard.Row, shardBytes int) *shard.Dataset {
	t.Helper()
	return importInto(t, openStore(t), training, heldOut, shardBytes)
}

func openStore(t testing.TB) *shard.Store {
	t.Helper()
	s, err := shard.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func importInto(t testing.TB, s *shard.Store, training, heldOut []shard.Row, shardBytes int) *shard.Dataset {
	t.Helper()
	o := shard.DatasetOptions{Files: []string{writeRows(t, training)}, ShardBytes: shardBytes, Licence: "CC0-1.0"}
	if len(heldOut) > 0 {
		o.EvalFile = writeRows(t, heldOut)
	}
	imp, err := s.ImportDataset(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	d, err := shard.OpenDataset(t.Context(), s, imp.Root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func writeRows(t testing.TB, rows []shard.Row) string {
	t.Helper()
	list := make([]map[string]string, len(rows))
	for i, r := range rows {
		list[i] = map[string]string{"instruction": r.Instruction, "input": r.Input, "output": r.Output}
	}
	path := filepath.Join(t.TempDir(), "rows.json")
	writeJSON(t, path, list)
	return path
}
