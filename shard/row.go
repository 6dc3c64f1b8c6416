package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// MaxRowBytes is the largest row, in its canonical form with the line feed.
const MaxRowBytes = 256 << 10

// Row is one example. Those of a conversation have Messages, all others an
// Output; a row of plain text has nothing else.
type Row struct {
	Instruction string // or the prompt of a completion
	Input       string // may be empty
	Output      string
	Messages    []Message
}

// Validate reports why the row is not one of the Alpaca format to train on.
func (r Row) Validate() error {
	switch {
	case strings.TrimSpace(r.Instruction) == "":
		return errors.New("instruction is empty")
	case strings.TrimSpace(r.Output) == "":
		return errors.New("output is empty")
	case !utf8.ValidString(r.Instruction), !utf8.ValidString(r.Input), !utf8.ValidString(r.Output):
		return errors.New("text is not UTF-8")
	}
	return nil
}

// appendLine appends the row as its line in a shard.
func (r Row) appendLine(b []byte) []byte {
	b = append(b, `{"input":`...)
	b = appendJSONString(b, r.Input)
	b = append(b, `,"instruction":`...)
	b = appendJSONString(b, r.Instruction)
	b = append(b, `,"output":`...)
	b = appendJSONString(b, r.Output)
	return append(b, '}', '\n')
}

// parseLine is the inverse of appendLine: it accepts nothing else.
func parseLine(line []byte) (Row, error) {
	if len(line) > MaxRowBytes {
		return Row{}, fmt.Errorf("%w: row of %d bytes, at most %d are allowed", ErrTooLarge, len(line), MaxRowBytes)
	}
	r, _, err := parseRow(line)
	if err != nil {
		return Row{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !bytes.Equal(r.appendLine(make([]byte, 0, len(line))), line) {
		return Row{}, fmt.Errorf("%w: row is not in canonical form", ErrInvalid)
	}
	return r, nil
}

// parseRow reads a row as people write it: an object with the three strings in
// any order, input left out or null. The names of other fields are returned.
func parseRow(raw []byte) (r Row, others []string, err error) {
	if !utf8.Valid(raw) {
		return Row{}, nil, errors.New("text is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return Row{}, nil, notAnObject(err)
	}
	seen := make(map[string]bool, 3)
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return Row{}, nil, syntax(err)
		}
		key, _ := t.(string) // the decoder lets nothing else stand there
		into := r.field(key)
		if into == nil {
			others = append(others, key)
			var skip json.RawMessage
			if err := dec.Decode(&skip); err != nil {
				return Row{}, nil, syntax(err)
			}
			continue
		}
		if seen[key] {
			return Row{}, nil, fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if err := parseText(dec, key, into); err != nil {
			return Row{}, nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return Row{}, nil, syntax(err)
	}
	if len(bytes.TrimSpace(raw[dec.InputOffset():])) > 0 {
		return Row{}, nil, errors.New("text after the object")
	}
	for _, key := range []string{"instruction", "output"} {
		if !seen[key] {
			return Row{}, nil, fmt.Errorf("no %s", key)
		}
	}
	if err := r.Validate(); err != nil {
		return Row{}, nil, err
	}
	return r, others, nil
}

func (r *Row) field(key string) *string {
	switch key {
	case "instruction":
		return &r.Instruction
	case "input":
		return &r.Input
	case "output":
		return &r.Output
	}
	return nil
}

// parseText reads one string value.
func parseText(dec *json.Decoder, key string, into *string) error {
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return syntax(err)
	}
	if key == "input" && string(raw) == "null" {
		return nil
	}
	return parseString(key, raw, into)
}

func parseString(key string, raw json.RawMessage, into *string) error {
	if len(raw) == 0 || raw[0] != '"' {
		return fmt.Errorf("%s is not a string but %s", key, kindOf(raw))
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return syntax(err)
	}
	// encoding/json makes U+FFFD of half a surrogate pair and tells nobody.
	if strings.ContainsRune(*into, utf8.RuneError) && !bytes.ContainsRune(raw, utf8.RuneError) &&
		!bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`)) {
		return fmt.Errorf("%s has half a surrogate pair", key)
	}
	return nil
}

// kindOf says in words what a JSON value is.
func kindOf(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f', 'n':
		return string(raw)
	}
	return "a number"
}

func notAnObject(err error) error {
	if err != nil {
		return fmt.Errorf("not a JSON object: %w", syntax(err))
	}
	return errors.New("not a JSON object")
}

// syntax turns an error of encoding/json into one without its offsets, which
// count from where the row begins.
func syntax(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.HasPrefix(err.Error(), "unexpected end"):
		return errors.New("bad JSON: it ends in the middle")
	}
	return fmt.Errorf("bad JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
}
