package shard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Fields say from which fields of an input file those of its form are taken:
// {"output": "answer"} reads answer as output. A field that has the name of the
// form and is not named here is left out when another takes its place.
type Fields map[string]string

// fieldNames are the fields that a form of rows may have.
var fieldNames = []string{"messages", "conversations", "system", "instruction", "input", "output", "prompt", "completion", "text"}

// optionalFields may be missing from a row.
var optionalFields = []string{"input", "system"}

// ErrForm is wrapped when the names of the fields tell no form of rows.
var ErrForm = fmt.Errorf("cannot tell the format: %w", ErrInvalid)

const maxFieldName = 256 // bytes

func (f Fields) validate() error {
	from := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		column := f[name]
		other, twice := from[column]
		switch {
		case !slices.Contains(fieldNames, name):
			return fmt.Errorf("field %.40q is none of a form of rows, which are %s", name, strings.Join(fieldNames, ", "))
		case column == "" || !validText(column, maxFieldName):
			return fmt.Errorf("field %s is taken from %.40q, must be a name of at most %d bytes", name, column, maxFieldName)
		case twice:
			return fmt.Errorf("fields %s and %s are both taken from %.40q", other, name, column)
		}
		from[column] = name
	}
	return nil
}

// columns are those that are read for their names in the file.
func (f Fields) columns() []string {
	return append(slices.Sorted(maps.Values(f)), fieldNames...)
}

// rename returns a row with the names of a form; buf is overwritten.
func (f Fields) rename(buf, raw []byte) ([]byte, error) {
	o, err := parseObject(raw)
	if err != nil {
		return buf, err
	}
	name := make(map[string]string, len(f)) // by column
	for to, from := range f {
		name[from] = to
		if _, ok := o.values[from]; !ok && !slices.Contains(optionalFields, to) {
			return buf, fmt.Errorf("no %.40s, which is to be the %s", from, to)
		}
	}
	buf = append(buf[:0], '{')
	for _, column := range o.names {
		to, ok := name[column]
		if _, taken := f[column]; !ok && taken {
			continue
		} else if !ok {
			to = column
		}
		if len(buf) > 1 {
			buf = append(buf, ',')
		}
		buf = append(append(appendJSONString(buf, to), ':'), o.values[column]...)
	}
	return append(buf, '}'), nil
}
