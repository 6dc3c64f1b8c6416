package api

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Marshal encodes v, which must become a JSON object, with "schema":1 as its
// first field.
func Marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	b := bytes.TrimSpace(buf.Bytes())
	if len(b) < 2 || b[0] != '{' {
		return nil, fmt.Errorf("encode answer: %T is no object", v)
	}
	head := fmt.Appendf(nil, `{"schema":%d`, Schema)
	if b[1] != '}' {
		head = append(head, ',')
	}
	return append(head, b[1:]...), nil
}

// MarshalError encodes err as an error object.
func MarshalError(err error) []byte {
	b, merr := Marshal(failure{Error: AsError(err)})
	if merr != nil {
		panic("bug: an error does not encode: " + merr.Error())
	}
	return b
}

// failure is the object of an error.
type failure struct {
	OK    bool   `json:"ok"`
	Error *Error `json:"error"`
}

// Line is one line of a stream that ends in a result. Which fields are set
// depends on Type.
type Line struct {
	Type   LineType        `json:"type"`
	OK     *bool           `json:"ok,omitempty"` // false with LineError
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
	*Progress
}

// LineType says what a line of a stream is.
type LineType string

// The types of lines.
const (
	LineProgress LineType = "progress"
	LinePing     LineType = "ping"
	LineResult   LineType = "result"
	LineError    LineType = "error"
)

// ContentTypeNDJSON is the type of a stream of lines.
const ContentTypeNDJSON = "application/x-ndjson"
