package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"
)

// key is one setting: a field of Config.
type key struct {
	name  string // as in a file, with its table: work.duty_percent
	index []int
}

// keys are found by the tags of Config, so that none is forgotten.
var keys = sync.OnceValue(func() []key { return findKeys(reflect.TypeFor[Config](), "", nil) })

func findKeys(t reflect.Type, table string, index []int) (out []key) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		at := append(slices.Clone(index), i)
		switch {
		case name == "-":
		case f.Type.Kind() == reflect.Struct:
			out = append(out, findKeys(f.Type, table+name+".", at)...)
		default:
			out = append(out, key{table + name, at})
		}
	}
	return out
}

// Keys are the names of all settings, as in a file: "threads",
// "work.duty_percent".
func Keys() []string {
	names := make([]string, 0, len(keys()))
	for _, k := range keys() {
		names = append(names, k.name)
	}
	return names
}

// Env is the environment variable of a key: MOOT_WORK_DUTY_PERCENT.
func Env(name string) string { return "MOOT_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_")) }

// Live reports whether a key takes effect while the daemon runs. The others do
// at the next start.
func Live(name string) bool {
	switch name {
	case "work.vram_reserve_mb", "work.priority":
		return false
	case "log_level", "cache_max_mb", "min_free_mb", "network.upload_mbit", "network.download_mbit", "network.monthly_gb", "network.schedule":
		return true
	}
	return strings.HasPrefix(name, "work.")
}

func findKey(name string) (key, error) {
	for _, k := range keys() {
		if k.name == name {
			return k, nil
		}
	}
	return key{}, fmt.Errorf("unknown key %q%s", name, didYouMean(name))
}

func (k key) of(c *Config) reflect.Value { return reflect.ValueOf(c).Elem().FieldByIndex(k.index) }

// Differ are the keys whose values are not the same in a and b.
func Differ(a, b *Config) (names []string) {
	for _, k := range keys() {
		x, y := k.of(a), k.of(b)
		if x.Kind() == reflect.Slice && x.Len() == 0 && y.Len() == 0 {
			continue // nil or not
		}
		if !reflect.DeepEqual(x.Interface(), y.Interface()) {
			names = append(names, k.name)
		}
	}
	return names
}

// Copy sets the named keys of c to their values in from.
func (c *Config) Copy(from *Config, names []string) {
	for _, k := range keys() {
		if slices.Contains(names, k.name) {
			k.of(c).Set(k.of(from))
		}
	}
}

// Get returns the values of a key as text: one, or those of a list.
func (c *Config) Get(name string) ([]string, error) {
	k, err := findKey(name)
	if err != nil {
		return nil, err
	}
	if list, ok := k.of(c).Interface().([]string); ok {
		return list, nil
	}
	return []string{fmt.Sprint(k.of(c).Interface())}, nil
}

// Set reads the values of a key, as they are on a command line. Those of a list
// are given one by one, in one text with separators, or as in a file.
func (c *Config) Set(name string, values ...string) error {
	k, err := findKey(name)
	if err != nil {
		return err
	}
	return k.set(c, values...)
}

// Line is a key with its value as in a file, with no line break.
func (c *Config) Line(name string) (string, error) {
	k, err := findKey(name)
	if err != nil {
		return "", err
	}
	v, err := k.encode(c)
	return k.name + " = " + v, err
}

// encode returns the value of k in TOML.
func (k key) encode(c *Config) (string, error) {
	v := k.of(c).Interface()
	if list, ok := v.([]string); ok && list == nil {
		v = []string{}
	}
	b, err := toml.Marshal(map[string]any{"x": v})
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(strings.TrimPrefix(string(b), "x = ")), nil
}

// separators of the items of a list. Times of a schedule have commas, and the
// names of programs have spaces.
func (k key) separator(r rune) bool {
	switch k.name {
	case "work.schedule", "network.schedule":
		return r == ';'
	case "work.exclusive_apps":
		return r == ','
	}
	return r == ',' || r == ' '
}

func (k key) set(c *Config, values ...string) error {
	v := k.of(c)
	if v.Kind() != reflect.Slice && len(values) != 1 {
		return fmt.Errorf("%s has one value, not %d", k.name, len(values))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(values[0])
	case reflect.Bool:
		b, err := strconv.ParseBool(values[0])
		if err != nil {
			return fmt.Errorf("%s is %q, must be true or false", k.name, values[0])
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil {
			return fmt.Errorf("%s is %q, must be a number", k.name, values[0])
		}
		v.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(values[0], 64)
		if err != nil {
			return fmt.Errorf("%s is %q, must be a number", k.name, values[0])
		}
		v.SetFloat(f)
	case reflect.Slice:
		list, err := k.list(values)
		if err != nil {
			return err
		}
		v.Set(reflect.ValueOf(list))
	default:
		panic("bug: a setting of type " + v.Type().String())
	}
	c.asked(k.name)
	return nil
}

func (k key) list(values []string) ([]string, error) {
	list := []string{}
	for _, text := range values {
		if strings.HasPrefix(strings.TrimSpace(text), "[") {
			var x struct{ X []string }
			if err := toml.Unmarshal([]byte("X = "+text), &x); err != nil {
				return nil, fmt.Errorf(`%s is %q, must be a list such as ["a", "b"]`, k.name, text)
			}
			list = append(list, x.X...)
			continue
		}
		for _, item := range strings.FieldsFunc(text, k.separator) {
			list = append(list, strings.TrimSpace(item))
		}
	}
	return list, nil
}

// asked notes that somebody asked for the value of a key.
func (c *Config) asked(name string) {
	switch name {
	case "listen":
		c.AnyPort = false
	case "api":
		c.AnyAPIPort = false
	}
}
