package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// specials is what the files beside the tokenizer say about special tokens.
type specials struct {
	bos, eos, pad          *string // texts, from tokenizer_config.json
	addBOS, addEOS         *bool
	bosIDs, eosIDs, padIDs []int32 // from generation_config.json, or else config.json
}

// tokenText is written as a text, or as an object with the text in it.
type tokenText struct{ s *string }

// UnmarshalJSON reads both forms, and null.
func (t *tokenText) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var v struct {
			Content *string `json:"content"`
		}
		err := json.Unmarshal(b, &v)
		t.s = v.Content
		return err
	}
	return json.Unmarshal(b, &t.s)
}

// idList is written as null, a number or a list of numbers.
type idList []int32

// UnmarshalJSON reads all forms.
func (l *idList) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]int32)(l))
	}
	var id *int32
	if err := json.Unmarshal(b, &id); err != nil || id == nil {
		return err
	}
	*l = idList{*id}
	return nil
}

func readSpecials(dir string) (*specials, error) {
	var tokens struct {
		BOS    tokenText `json:"bos_token"`
		EOS    tokenText `json:"eos_token"`
		Pad    tokenText `json:"pad_token"`
		AddBOS *bool     `json:"add_bos_token"`
		AddEOS *bool     `json:"add_eos_token"`
	}
	if err := readJSON(filepath.Join(dir, "tokenizer_config.json"), &tokens); err != nil {
		return nil, err
	}
	s := &specials{bos: tokens.BOS.s, eos: tokens.EOS.s, pad: tokens.Pad.s, addBOS: tokens.AddBOS, addEOS: tokens.AddEOS}
	for _, name := range []string{"config.json", "generation_config.json"} {
		var ids struct {
			BOS idList `json:"bos_token_id"`
			EOS idList `json:"eos_token_id"`
			Pad idList `json:"pad_token_id"`
		}
		if err := readJSON(filepath.Join(dir, name), &ids); err != nil {
			return nil, err
		}
		s.bosIDs, s.padIDs = append(s.bosIDs, ids.BOS...), append(s.padIDs, ids.Pad...)
		s.eosIDs = append(s.eosIDs, ids.EOS...)
	}
	return s, nil
}

// readJSON reads a file if it is there.
func readJSON(path string, v any) error {
	b, err := readFile(path, maxConfigBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

// setSpecials finds the tokens that the settings name.
func (t *Tokenizer) setSpecials(s *specials) error {
	for _, f := range []struct {
		name string
		to   *int32
		text *string
		ids  []int32
	}{
		{"bos_token", &t.bos, s.bos, s.bosIDs},
		{"eos_token", &t.eos, s.eos, s.eosIDs},
		{"pad_token", &t.pad, s.pad, s.padIDs},
	} {
		if f.text != nil {
			id, ok := t.id(*f.text)
			if !ok {
				return fmt.Errorf("tokenizer_config.json: %s %q is no token", f.name, *f.text)
			}
			*f.to = id
			continue
		}
		for _, id := range f.ids {
			if _, ok := t.Token(id); ok {
				*f.to = id
				break
			}
		}
	}
	t.stop = nil
	for _, id := range append([]int32{t.eos}, s.eosIDs...) {
		if _, ok := t.Token(id); ok && !slices.Contains(t.stop, id) {
			t.stop = append(t.stop, id)
		}
	}
	return nil
}

// id returns the token with a text as the file has it.
func (t *Tokenizer) id(text string) (int32, bool) {
	id, ok := t.byText[text]
	return id, ok
}
