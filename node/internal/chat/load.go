package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNoTemplate is wrapped by the error for a model that has no chat template.
var ErrNoTemplate = errors.New("no chat template")

// maxConfigBytes bounds tokenizer_config.json.
const maxConfigBytes = 4 << 20

// Model is what the files of a model say of chats.
type Model struct {
	Template *Template
	Tokens   map[string]string // special tokens, as Input has them
}

// Load reads the chat template in a model's folder: chat_template.jinja, or
// else that of tokenizer_config.json; of several named ones the one called
// default.
func Load(dir string) (*Model, error) {
	m, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("load chat template %s: %w", dir, err)
	}
	return m, nil
}

func load(dir string) (*Model, error) {
	raw, err := read(filepath.Join(dir, "tokenizer_config.json"), maxConfigBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	m := &Model{Tokens: map[string]string{}}
	var source *string
	if err == nil {
		if source, err = m.parseConfig(raw); err != nil {
			return nil, fmt.Errorf("tokenizer_config.json: %w", err)
		}
	}
	file, err := read(filepath.Join(dir, "chat_template.jinja"), maxTemplateBytes)
	switch {
	case err == nil:
		s := string(file)
		source = &s
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case source == nil:
		return nil, fmt.Errorf("%w: neither chat_template.jinja is there nor chat_template in tokenizer_config.json; use a model that was tuned for chats, or another template", ErrNoTemplate)
	}
	m.Template, err = Parse(*source)
	return m, err
}

func read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: %w: more than %d bytes", filepath.Base(path), ErrTooMuch, limit)
	}
	return b, err
}

// parseConfig sets the tokens and returns the template, nil if there is none.
func (m *Model) parseConfig(raw []byte) (*string, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	for name, v := range all {
		if !strings.HasSuffix(name, "_token") {
			continue
		}
		var s string
		var o struct {
			Content *string `json:"content"`
		}
		switch {
		case string(v) == "null":
		case json.Unmarshal(v, &s) == nil:
			m.Tokens[name] = s
		case json.Unmarshal(v, &o) == nil && o.Content != nil:
			m.Tokens[name] = *o.Content
		}
	}
	return chooseTemplate(all["chat_template"])
}

// chooseTemplate reads a text, or a list of named ones.
func chooseTemplate(raw json.RawMessage) (*string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if raw[0] == '"' {
		var s string
		err := json.Unmarshal(raw, &s)
		return &s, err
	}
	var list []struct {
		Name     string `json:"name"`
		Template string `json:"template"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("chat_template: %w", err)
	}
	names := make([]string, len(list))
	for i, t := range list {
		names[i] = t.Name
	}
	at := slices.Index(names, "default")
	if at < 0 {
		return nil, fmt.Errorf("chat_template: none of %.200q is called default", names)
	}
	return &list[at].Template, nil
}
