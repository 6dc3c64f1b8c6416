package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// The formats of the rows of a data set, as dataset.json names them.
const (
	FormatAlpaca     = "alpaca"     // Instruction, Input, Output
	FormatMessages   = "messages"   // Messages
	FormatCompletion = "completion" // Instruction, which is the prompt, and Output
	FormatText       = "text"       // Output
)

// FormatShareGPT is a form in which conversations are published; its rows
// become those of FormatMessages.
const FormatShareGPT = "sharegpt"

// Bounds on a conversation.
const maxMessages = 1024

// Message is one turn of a conversation.
type Message struct {
	Role    string // "system", "user", "assistant" or "tool"
	Content string
}

var roles = []string{"system", "user", "assistant", "tool"}

// shareGPTRoles are the names that such files have for roles.
var shareGPTRoles = map[string]string{
	"system": "system", "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant",
	"bard": "assistant", "assistant": "assistant", "model": "assistant", "tool": "tool", "observation": "tool",
}

// canonicalFormat is what the rows of a form of input become.
func canonicalFormat(input string) (string, bool) {
	switch input {
	case FormatAlpaca, FormatMessages, FormatCompletion, FormatText:
		return input, true
	case FormatShareGPT:
		return FormatMessages, true
	}
	return "", false
}

// defaultTemplate is the prompt template of a format.
func defaultTemplate(format string) string {
	switch format {
	case FormatAlpaca:
		return "alpaca"
	case FormatMessages:
		return "chat"
	}
	return "none"
}

// fieldsOf names the fields that count.
func fieldsOf(input string) string {
	switch input {
	case FormatMessages:
		return "messages"
	case FormatShareGPT:
		return "conversations"
	case FormatCompletion:
		return "prompt and completion"
	case FormatText:
		return "text"
	}
	return "instruction, input and output"
}

// validMessages reports why a conversation is not one to train on.
func validMessages(list []Message) error {
	if len(list) > maxMessages {
		return fmt.Errorf("messages: %d of them, at most %d are allowed", len(list), maxMessages)
	}
	answers := 0
	for i, m := range list {
		switch {
		case !slices.Contains(roles, m.Role):
			return fmt.Errorf("messages[%d]: role is %.40q, must be one of %s", i, m.Role, strings.Join(roles, ", "))
		case !utf8.ValidString(m.Content):
			return fmt.Errorf("messages[%d]: text is not UTF-8", i)
		case m.Role == "system" && i > 0:
			return fmt.Errorf("messages[%d]: role is system, which only the first may have", i)
		case m.Role == "assistant" && strings.TrimSpace(m.Content) == "":
			return fmt.Errorf("messages[%d]: content of the assistant is empty", i)
		case m.Role == "assistant":
			answers++
		}
	}
	if answers == 0 {
		return errors.New("messages: none is by the assistant, so there is nothing to learn")
	}
	return nil
}

// appendRow appends the row as its line in a shard of a format.
func appendRow(b []byte, format string, r Row) []byte {
	switch format {
	case FormatMessages:
		b = append(b, `{"messages":[`...)
		for i, m := range r.Messages {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"content":`...)
			b = appendJSONString(b, m.Content)
			b = append(b, `,"role":`...)
			b = appendJSONString(b, m.Role)
			b = append(b, '}')
		}
		return append(b, ']', '}', '\n')
	case FormatCompletion:
		b = append(b, `{"completion":`...)
		b = appendJSONString(b, r.Output)
		b = append(b, `,"prompt":`...)
		b = appendJSONString(b, r.Instruction)
		return append(b, '}', '\n')
	case FormatText:
		b = append(b, `{"text":`...)
		b = appendJSONString(b, r.Output)
		return append(b, '}', '\n')
	}
	return r.appendLine(b)
}

// parseRowLine is the inverse of appendRow: it accepts nothing else.
func parseRowLine(format string, line []byte) (Row, error) {
	if format == FormatAlpaca {
		return parseLine(line)
	}
	if len(line) > MaxRowBytes {
		return Row{}, fmt.Errorf("%w: row of %d bytes, at most %d are allowed", ErrTooLarge, len(line), MaxRowBytes)
	}
	r, _, err := parseInput(format, line)
	if err != nil {
		return Row{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !bytes.Equal(appendRow(make([]byte, 0, len(line)), format, r), line) {
		return Row{}, fmt.Errorf("%w: row is not in canonical form", ErrInvalid)
	}
	return r, nil
}

// parseInput reads a row as people write it, in one of the forms of input. The
// names of fields that do not count are returned.
func parseInput(input string, raw []byte) (Row, []string, error) {
	if input == FormatAlpaca {
		return parseRow(raw)
	}
	o, err := parseObject(raw)
	if err != nil {
		return Row{}, nil, err
	}
	var r Row
	switch input {
	case FormatMessages:
		r.Messages, err = o.messages("messages", "role", "content", nil)
	case FormatShareGPT:
		r.Messages, err = o.shareGPT()
	case FormatCompletion:
		if r.Instruction, err = o.text("prompt"); err == nil {
			r.Output, err = o.text("completion")
		}
	default:
		r.Output, err = o.text("text")
	}
	if err != nil {
		return Row{}, nil, err
	}
	return r, o.others(), r.validAs(input)
}

// validAs is Validate for a form of input.
func (r Row) validAs(input string) error {
	switch input {
	case FormatAlpaca:
		return r.Validate()
	case FormatMessages, FormatShareGPT:
		return validMessages(r.Messages)
	case FormatCompletion:
		if strings.TrimSpace(r.Instruction) == "" {
			return errors.New("prompt is empty")
		}
		if strings.TrimSpace(r.Output) == "" {
			return errors.New("completion is empty")
		}
		return nil
	}
	if strings.TrimSpace(r.Output) == "" {
		return errors.New("text is empty")
	}
	return nil
}

// object is the fields of a row.
type object struct {
	values map[string]json.RawMessage
	names  []string
	used   map[string]bool
}

func parseObject(raw []byte) (*object, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("text is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, notAnObject(err)
	}
	o := &object{values: map[string]json.RawMessage{}, used: map[string]bool{}}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, syntax(err)
		}
		key, _ := t.(string) // the decoder lets nothing else stand there
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, syntax(err)
		}
		if _, twice := o.values[key]; twice {
			return nil, fmt.Errorf("%.40s is there twice", key)
		}
		o.values[key] = v
		o.names = append(o.names, key)
	}
	if _, err := dec.Token(); err != nil {
		return nil, syntax(err)
	}
	if len(bytes.TrimSpace(raw[dec.InputOffset():])) > 0 {
		return nil, errors.New("text after the object")
	}
	return o, nil
}

func (o *object) others() []string {
	var out []string
	for _, n := range o.names {
		if !o.used[n] {
			out = append(out, n)
		}
	}
	return out
}

// text returns the string in a field that must be there.
func (o *object) text(name string) (string, error) {
	raw, ok := o.values[name]
	if !ok {
		return "", fmt.Errorf("no %s", name)
	}
	o.used[name] = true
	var s string
	err := parseString(name, raw, &s)
	return s, err
}

// messages reads a list of messages, whose roles may have other names.
func (o *object) messages(field, role, content string, names map[string]string) ([]Message, error) {
	raw, ok := o.values[field]
	if !ok {
		return nil, fmt.Errorf("no %s", field)
	}
	o.used[field] = true
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || list == nil {
		return nil, fmt.Errorf("%s is not a list", field)
	}
	if len(list) > maxMessages {
		return nil, fmt.Errorf("%s: %d of them, at most %d are allowed", field, len(list), maxMessages)
	}
	out := make([]Message, len(list))
	for i, raw := range list {
		m, err := parseMessage(raw, role, content)
		if err == nil && names != nil {
			if _, ok := names[m.Role]; !ok {
				err = fmt.Errorf("%s is %.40q, which stands for no role that is known", role, m.Role)
			}
			m.Role = names[m.Role]
		}
		if m.Role == "developer" && names == nil {
			m.Role = "system" // as newer APIs call it
		}
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		out[i] = m
	}
	return out, nil
}

func parseMessage(raw json.RawMessage, role, content string) (m Message, err error) {
	o, err := parseObject(raw)
	if err != nil {
		return m, err
	}
	if calls, ok := o.values["tool_calls"]; ok && string(calls) != "null" && string(calls) != "[]" {
		return m, errors.New("tool_calls are not supported; write the call into content, as the model writes it")
	}
	if m.Role, err = o.text(role); err != nil {
		return m, err
	}
	if parts, ok := o.values[content]; ok && len(parts) > 0 && parts[0] == '[' {
		m.Content, err = joinParts(content, parts)
		return m, err
	}
	m.Content, err = o.text(content)
	return m, err
}

// joinParts reads a content that is a list of parts, all of text.
func joinParts(field string, raw json.RawMessage) (string, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return "", syntax(err)
	}
	var b strings.Builder
	for i, raw := range list {
		o, err := parseObject(raw)
		if err != nil {
			return "", fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		if kind, err := o.text("type"); err != nil || kind != "text" {
			return "", fmt.Errorf("%s[%d]: type is %.40q, only text is supported", field, i, kind)
		}
		s, err := o.text("text")
		if err != nil {
			return "", fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

// shareGPT reads conversations, in front of which a system prompt may stand
// apart.
func (o *object) shareGPT() ([]Message, error) {
	list, err := o.messages("conversations", "from", "value", shareGPTRoles)
	if err != nil {
		return nil, err
	}
	if raw, ok := o.values["system"]; ok && string(raw) == "null" {
		o.used["system"] = true // as tables have it in rows without one
	} else if ok {
		system, err := o.text("system")
		if err != nil {
			return nil, err
		}
		if system != "" && (len(list) == 0 || list[0].Role != "system") {
			list = append([]Message{{"system", system}}, list...)
		}
	}
	return list, nil
}

// detect tells the form of a row by the names of its fields, and says why.
func (o *object) detect() (Detected, error) {
	has := func(names ...string) bool {
		for _, n := range names {
			if _, ok := o.values[n]; !ok {
				return false
			}
		}
		return true
	}
	for _, f := range []struct {
		input  string
		fields []string
	}{
		{FormatMessages, []string{"messages"}},
		{FormatShareGPT, []string{"conversations"}},
		{FormatAlpaca, []string{"instruction", "output"}},
		{FormatCompletion, []string{"prompt", "completion"}},
		{FormatText, []string{"text"}},
	} {
		if has(f.fields...) {
			format, _ := canonicalFormat(f.input)
			return Detected{f.input, format, "its first row has " + strings.Join(f.fields, " and ")}, nil
		}
	}
	if has("instruction") || has("output") { // as files of this form are, with a mistake in them
		return Detected{FormatAlpaca, FormatAlpaca, "its first row has a field of that format"}, nil
	}
	names := make([]string, 0, len(o.names))
	for _, n := range o.names {
		names = append(names, fmt.Sprintf("%.40q", n))
	}
	sort.Strings(names)
	if len(names) > maxRowErrors {
		names = append(names[:maxRowErrors], "…")
	}
	return Detected{}, fmt.Errorf("%w: its fields are %s; known are messages, conversations (ShareGPT), instruction with output (Alpaca), prompt with completion, and text",
		ErrForm, strings.Join(names, ", "))
}
