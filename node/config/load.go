package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Origin is where the value of a key is from.
type Origin struct {
	// Kind is "default", "file", "environment" or "flag".
	Kind string
	// Where is the line in the file, the variable or the flag.
	Where string
}

// String implements fmt.Stringer: "environment MOOT_THREADS".
func (o Origin) String() string { return strings.TrimSpace(o.Kind + " " + o.Where) }

// Loaded is a configuration that knows where it is from.
type Loaded struct {
	Config
	// File is the file that was read, or, if it is not Found, would be.
	File  string
	Found bool

	origins map[string]Origin
}

// Origin says where the value of a key is from.
func (l *Loaded) Origin(name string) Origin {
	if o, ok := l.origins[name]; ok {
		return o
	}
	return Origin{Kind: "default"}
}

// Flagged notes that a flag set a key.
func (l *Loaded) Flagged(name, flag string) {
	l.origins[name] = Origin{"flag", "--" + flag}
	l.asked(name)
}

// Load starts from Default and applies the file and the environment: each key
// has its variable, see Env. In one, the items of a list have commas between
// them, those of work.schedule semicolons. An empty path means DefaultPath,
// which need not exist; a path that is given must.
func Load(path string, getenv func(string) string) (*Loaded, error) {
	l := &Loaded{Config: Default(), File: path, origins: map[string]Origin{}}
	given := path != ""
	if !given {
		l.File = DefaultPath()
	}
	b, err := os.ReadFile(l.File)
	switch {
	case err == nil:
		l.Found = true
		if err := l.decode(l.File, b); err != nil {
			return nil, err
		}
		for name, line := range lines(b) {
			l.origins[name] = Origin{"file", fmt.Sprintf("%s:%d", l.File, line)}
		}
	case given || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	for _, k := range keys() {
		v := getenv(Env(k.name))
		if v == "" {
			continue
		}
		if err := k.set(&l.Config, v); err != nil {
			return nil, fmt.Errorf("environment: %s: %w", Env(k.name), err)
		}
		l.origins[k.name] = Origin{"environment", Env(k.name)}
	}
	return l, nil
}

// lines are the lines of the keys of a file that was decoded.
func lines(b []byte) map[string]int {
	out := map[string]int{}
	for _, s := range settingsIn(b) {
		line := 1 + strings.Count(string(b[:s.start]), "\n")
		out[s.name] = line
		if s.inline {
			for _, k := range Keys() {
				if strings.HasPrefix(k, s.name+".") {
					out[k] = line
				}
			}
		}
	}
	return out
}

// setting is a key and its value in a file.
type setting struct {
	name       string // with its table
	table      string // under which it is
	start, eq  int    // of the key, and the end of the key
	inline     bool   // its value is a table
	headerOnly bool   // it is the header of a table
}

// settingsIn are the settings of a file that is valid TOML, in their order.
func settingsIn(b []byte) (out []setting) {
	var p unstable.Parser
	p.Reset(b)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.KeyValue && e.Kind != unstable.Table {
			continue
		}
		var s setting
		var parts []string
		for it := e.Key(); it.Next(); {
			k := it.Node()
			if parts == nil {
				s.start = int(k.Raw.Offset)
			}
			s.eq = int(k.Raw.Offset + k.Raw.Length)
			parts = append(parts, string(k.Data))
		}
		s.name = strings.Join(parts, ".")
		if e.Kind == unstable.Table {
			table = s.name
			s.table, s.headerOnly = table, true
		} else {
			s.table = table
			s.inline = e.Value().Kind == unstable.InlineTable
			if table != "" {
				s.name = table + "." + s.name
			}
		}
		out = append(out, s)
	}
	return out
}
