package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Set is a key and the values that it is to have.
type Set struct {
	Key    string
	Values []string
}

// Edit changes settings in the file at path, which is made if it is not there.
// Comments and order stay. Nothing is written unless the file is valid then,
// and it is replaced in one step.
func Edit(path string, sets ...Set) error {
	// A link stays one.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	b, err := os.ReadFile(path)
	mode := fs.FileMode(0o600)
	switch info, serr := os.Stat(path); {
	case serr == nil && err == nil:
		mode = info.Mode().Perm()
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make configuration folder: %w", err)
		}
	default:
		return fmt.Errorf("read configuration: %w", errors.Join(err, serr))
	}
	for _, s := range sets {
		if b, err = edited(path, b, s); err != nil {
			return err
		}
	}
	return replace(path, b, mode)
}

// edited returns the file b with one setting changed.
func edited(path string, b []byte, s Set) ([]byte, error) {
	k, err := findKey(s.Key)
	if err != nil {
		return nil, err
	}
	want := Default()
	if err := want.decode(path, b); err != nil {
		return nil, fmt.Errorf("%w; repair it first", err)
	}
	if err := k.set(&want, s.Values...); err != nil {
		return nil, err
	}
	if err := want.Validate(); err != nil {
		return nil, err
	}
	value, err := k.encode(&want)
	if err != nil {
		return nil, err
	}
	for _, out := range [][]byte{splice(b, k.name, value), rewrite(b, k, &want)} {
		got := Default()
		if out == nil || got.decode(path, out) != nil {
			continue
		}
		if len(Differ(&got, &want)) == 0 {
			return out, nil
		}
	}
	return nil, fmt.Errorf("%s cannot be changed by a program; set %s = %s in it with an editor", path, k.name, value)
}

// splice puts a value into the text of a file, or returns nil if it does not
// know where.
func splice(b []byte, name, value string) []byte {
	table, last := "", name
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		table, last = name[:i], name[i+1:]
	}
	after, tables := -1, false // after: where the last of the table ends
	for _, s := range settingsIn(b) {
		tables = tables || s.headerOnly
		switch {
		case s.headerOnly && s.name == table:
			after = endOfLine(b, s.eq)
		case s.headerOnly:
		case s.name == name:
			from, to := valueAt(b, s)
			return join(b[:from], []byte(value), b[to:])
		case s.inline && strings.HasPrefix(name, s.name+"."):
			return nil
		case s.table == table:
			_, to := valueAt(b, s)
			after = endOfLine(b, to)
		}
	}
	line := []byte(last + " = " + value + "\n")
	switch {
	case after >= 0:
		return join(withBreak(b[:after]), line, b[after:])
	case table != "":
		b = withBreak(b)
		if len(b) > 0 {
			b = join(b, []byte("\n"))
		}
		return join(b, []byte("["+table+"]\n"), line)
	case tables:
		return join(line, b)
	}
	return join(withBreak(b), line)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func withBreak(b []byte) []byte {
	if len(b) > 0 && b[len(b)-1] != '\n' {
		return join(b, []byte("\n"))
	}
	return b
}

func endOfLine(b []byte, from int) int {
	if i := bytes.IndexByte(b[from:], '\n'); i >= 0 {
		return from + i + 1
	}
	return len(b)
}

// valueAt says where the value of a setting begins and ends. It ends where the
// text becomes valid, so that comments are left.
func valueAt(b []byte, s setting) (from, to int) {
	from = s.eq + bytes.IndexByte(b[s.eq:], '=') + 1
	for from < len(b) && (b[from] == ' ' || b[from] == '\t') {
		from++
	}
	valid := func(end int) bool {
		var v map[string]any
		return toml.Unmarshal(join([]byte("x = "), b[from:end]), &v) == nil
	}
	end := from
	for end < len(b) {
		if end = endOfLine(b, end); valid(end) {
			break
		}
	}
	var whole any
	_ = toml.Unmarshal(join([]byte("x = "), b[from:end]), &whole) // valid, or the end of the file
	for i := from; i < end; i++ {
		var part any
		if b[i] == '#' && toml.Unmarshal(join([]byte("x = "), b[from:i]), &part) == nil && reflect.DeepEqual(part, whole) {
			end = i
			break
		}
	}
	return from, from + len(bytes.TrimRight(b[from:end], " \t\r\n"))
}

// rewrite encodes the file anew, without its comments.
func rewrite(b []byte, k key, c *Config) []byte {
	m := map[string]any{}
	if toml.Unmarshal(b, &m) != nil {
		return nil
	}
	at := m
	parts := strings.Split(k.name, ".")
	for _, p := range parts[:len(parts)-1] {
		next, ok := at[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[p] = next
		}
		at = next
	}
	at[parts[len(parts)-1]] = k.of(c).Interface()
	out, err := toml.Marshal(m)
	if err != nil {
		return nil
	}
	return out
}

// replace puts b at path in one step, durably.
func replace(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	defer os.Remove(f.Name()) // there when something failed
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		_ = d.Sync() // Windows cannot
		_ = d.Close()
	}
	return nil
}
