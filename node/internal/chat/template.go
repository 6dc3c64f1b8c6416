package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

// ErrTooMuch is wrapped by the error for a template that is too large, or whose
// rendering takes more work or memory than any honest one.
var ErrTooMuch = errors.New("too much")

// Refusal is the error of a template that refuses its messages by
// raise_exception.
type Refusal struct{ Message string }

// Error returns what the template said.
func (e *Refusal) Error() string { return "the template refuses it: " + e.Message }

// maxTemplateBytes bounds a template; the longest published ones have 30 KB.
const maxTemplateBytes = 1 << 20

// Template is a chat template. It does not change, and may be used by several
// goroutines at once.
type Template struct {
	body       []node
	generation bool // it marks answers itself
}

// Parse reads a template.
func Parse(source string) (*Template, error) {
	if len(source) > maxTemplateBytes {
		return nil, fmt.Errorf("parse chat template: %w: %d bytes, at most %d", ErrTooMuch, len(source), maxTemplateBytes)
	}
	tokens, err := lex(source)
	if err != nil {
		return nil, fmt.Errorf("parse chat template: %w", err)
	}
	p := parser{tokens: tokens}
	body, _, err := p.body()
	if err != nil {
		return nil, fmt.Errorf("parse chat template: %w", err)
	}
	return &Template{body: body, generation: strings.Contains(source, "endgeneration")}, nil
}

// Message is one turn of a conversation.
type Message struct {
	Role    string
	Content string

	raw json.RawMessage // the whole object, when it was read from JSON
}

// UnmarshalJSON reads an object. Templates see all its members; Role and
// Content are set when they are strings.
func (m *Message) UnmarshalJSON(b []byte) error {
	var v struct {
		Role    any `json:"role"`
		Content any `json:"content"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	m.Role, _ = v.Role.(string)
	m.Content, _ = v.Content.(string)
	m.raw = append(json.RawMessage(nil), b...)
	return nil
}

// value is what the template sees. Roles count as the template's own: nothing
// is done with one that it does not know.
func (m *Message) value(by origin) (any, error) {
	if m.raw == nil {
		d := newDict(2)
		d.set(plain("role"), plain(m.Role))
		d.set(plain("content"), written(m.Content, by))
		return d, nil
	}
	v, err := parseValue(m.raw, by)
	if err != nil {
		return nil, err
	}
	if d, ok := v.(*dict); ok {
		if knownRoles[m.Role] {
			d.set(plain("role"), plain(m.Role))
		}
	}
	return v, nil
}

// knownRoles are names that hold nothing a template could be tricked with.
var knownRoles = map[string]bool{
	"system": true, "user": true, "assistant": true, "tool": true, "developer": true, "function": true,
	"input": true, "ipython": true, "model": true,
}

// Input is what a template renders.
type Input struct {
	Messages []Message
	// GenerationPrompt asks for the beginning of the next answer.
	GenerationPrompt bool
	// Tokens are the special tokens by the names that templates use, such as
	// bos_token. What is missing is undefined to the template.
	Tokens map[string]string
	// Tools, if not nil, is the JSON list of tools.
	Tools json.RawMessage
	// Vars are further variables, as JSON.
	Vars map[string]json.RawMessage
	// Now is what strftime_now tells. The zero time: templates that ask find
	// no such function, and the usual ones then write a date of their own,
	// so that rows of a data set render the same everywhere.
	Now time.Time
}

// Range is a part of a text, in bytes.
type Range struct{ Begin, End int }

// Rendered is a conversation as text.
type Rendered struct {
	Text string
	// Foreign are the parts that the template did not write, in order: what
	// looks like a special token in them is not one.
	Foreign []Range

	marked    text
	generated []Range
}

// Render renders a conversation.
func (t *Template) Render(in Input) (Rendered, error) {
	r, err := t.render(in)
	if err != nil {
		return Rendered{}, fmt.Errorf("render chat template: %w", err)
	}
	return r, nil
}

func (t *Template) render(in Input) (r Rendered, err error) {
	sc, err := in.scope()
	if err != nil {
		return Rendered{}, err
	}
	st := &state{left: maxWork, filters: filters, tests: tests}
	st.out = &st.root
	defer func() {
		switch v := recover().(type) {
		case nil:
		case failure:
			err = fmt.Errorf("line %d: %w", st.line, v.err)
		default:
			panic(v)
		}
	}()
	st.run(t.body, sc)
	marked := st.root.text()
	r = Rendered{Text: marked.s, marked: marked, generated: st.generated}
	at := 0
	for _, run := range marked.runs {
		if run.by != byTemplate {
			if n := len(r.Foreign); n > 0 && r.Foreign[n-1].End == at {
				r.Foreign[n-1].End = run.end
			} else {
				r.Foreign = append(r.Foreign, Range{at, run.end})
			}
		}
		at = run.end
	}
	return r, nil
}

// scope returns the variables that a template begins with.
func (in *Input) scope() (*scope, error) {
	sc := &scope{}
	messages := &list{}
	for i := range in.Messages {
		v, err := in.Messages[i].value(origin(i + 1))
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i+1, err)
		}
		messages.items = append(messages.items, v)
	}
	sc.set("messages", messages)
	sc.set("add_generation_prompt", in.GenerationPrompt)
	sc.set("tools", nil)
	sc.set("documents", nil)
	for name, s := range in.Tokens {
		sc.set(name, plain(s))
	}
	vars := maps.Clone(in.Vars)
	if in.Tools != nil {
		if vars == nil {
			vars = map[string]json.RawMessage{}
		}
		vars["tools"] = in.Tools
	}
	for name, raw := range vars {
		v, err := parseValue(raw, byOther)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		sc.set(name, v)
	}
	if !in.Now.IsZero() {
		sc.set("strftime_now", &function{name: "strftime_now", call: func(_ *state, a args) any {
			return plain(strftime(in.Now, a.text(0, "format", text{}).s))
		}})
	}
	return sc, nil
}

// strftime writes a time as Python does, with the codes that templates use.
func strftime(t time.Time, format string) string {
	layouts := map[byte]string{
		'd': "02", 'b': "Jan", 'B': "January", 'Y': "2006", 'y': "06", 'm': "01", 'H': "15", 'I': "03", 'M': "04",
		'S': "05", 'A': "Monday", 'a': "Mon", 'p': "PM", 'Z': "MST", 'z': "-0700", 'j': "002",
		'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'e': "_2", 'R': "15:04",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		code := format[i]
		if code == '-' && i+1 < len(format) { // without zeros in front
			i++
			b.WriteString(strings.TrimLeft(t.Format(layouts[format[i]]), "0"))
			continue
		}
		layout, ok := layouts[code]
		switch {
		case ok:
			b.WriteString(t.Format(layout))
		case code == '%':
			b.WriteByte('%')
		default:
			panic(fail("strftime_now with %%%c is not supported", code))
		}
	}
	return b.String()
}
