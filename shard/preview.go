package shard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Preview is how a file of rows begins.
type Preview struct {
	// Detected is what its first row shows. Its Input is "" if that tells
	// nothing; Why says what is the matter then.
	Detected Detected
	// Columns are the names of fields, in the order in which they come up.
	Columns []string
	Rows    []PreviewRow
	// Suggested are the fields that could be meant, when the names do not show
	// all that a form needs; nil if none could.
	Suggested Fields
}

// PreviewRow is a row as it stands in a file.
type PreviewRow struct {
	Place  string
	Values []PreviewValue // by column; of the columns that came up until then
	Bad    string         // why the row cannot be read
}

// PreviewValue is a value as text.
type PreviewValue struct {
	Text  string // of what is no text, its JSON
	Kind  string // "text", "list", "object" or "other"; "" if the row has none
	Bytes int    // before it was cut to maxPreviewBytes
}

// The bounds of a preview.
const (
	maxPreviewRows    = 100
	maxPreviewColumns = 100
	maxPreviewBytes   = 2000 // of one value
	maxExtraColumns   = 20   // of a Parquet file; each is read again for the next
)

// errPreviewed ends the reading of a file.
var errPreviewed = errors.New("previewed")

// PreviewInput reads the first n rows of a file, at most 100. A row that cannot
// be read is part of it; errors are about the file.
func PreviewInput(ctx context.Context, path string, n int) (Preview, error) {
	p, err := previewInput(ctx, path, n, nil)
	if err == nil && strings.EqualFold(filepath.Ext(path), ".parquet") {
		p = previewColumns(ctx, path, n, p)
	}
	if err != nil {
		return Preview{}, fmt.Errorf("preview rows: %w", err)
	}
	return p, nil
}

// previewColumns reads the columns of a Parquet file too of which p has only the
// names. Of one that cannot be shown, such as of pictures, and of very many the
// name is enough.
func previewColumns(ctx context.Context, path string, n int, p Preview) Preview {
	var shown []string
	for _, name := range p.Columns {
		if len(shown) == maxExtraColumns {
			break
		}
		if slices.Contains(fieldNames, name) {
			continue
		}
		q, err := previewInput(ctx, path, n, append(shown, name))
		if err == nil && !slices.ContainsFunc(q.Rows, func(r PreviewRow) bool { return r.Bad != "" }) {
			p, shown = q, append(shown, name)
		}
	}
	return p
}

func previewInput(ctx context.Context, path string, n int, columns []string) (Preview, error) {
	var p Preview
	n = max(1, min(n, maxPreviewRows))
	err := readRows(ctx, path, rowSource{columns: append(slices.Clone(fieldNames), columns...)}, func(raw rawRow) error {
		row := PreviewRow{Place: raw.place()}
		o, err := parseObject(raw.raw)
		switch {
		case raw.bad != nil:
			row.Bad = raw.bad.Error()
		case err != nil:
			row.Bad = err.Error()
		default:
			p.add(&row, o)
		}
		p.Rows = append(p.Rows, row)
		if len(p.Rows) == n {
			return errPreviewed
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, errPreviewed):
		return p, err
	case len(p.Rows) == 0:
		return p, fmt.Errorf("%s: no rows", path)
	case p.Detected == Detected{}:
		p.Detected.Why = "none of the first rows can be read"
	}
	return p, nil
}

// add fills a row with what it has, and tells the form by the first.
func (p *Preview) add(row *PreviewRow, o *object) {
	for _, name := range o.names {
		if !slices.Contains(p.Columns, name) && len(p.Columns) < maxPreviewColumns {
			p.Columns = append(p.Columns, name)
		}
	}
	for _, name := range p.Columns {
		row.Values = append(row.Values, previewValue(o.values[name]))
	}
	if p.Detected != (Detected{}) {
		return
	}
	d, err := o.detect()
	if err != nil {
		d.Why = err.Error()
	}
	// A form that a single field shows may be another one, too.
	if d.Input == "" || d.Input == FormatAlpaca && (o.values["instruction"] == nil || o.values["output"] == nil) {
		p.Suggested = o.suggest()
	}
	p.Detected = d
}

func previewValue(raw json.RawMessage) PreviewValue {
	v := PreviewValue{Text: string(raw), Bytes: len(raw), Kind: "other"}
	if len(raw) == 0 {
		return PreviewValue{}
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			v.Text, v.Bytes, v.Kind = s, len(s), "text"
		}
	case '[':
		v.Kind = "list"
	case '{':
		v.Kind = "object"
	}
	if len(v.Text) > maxPreviewBytes {
		end := maxPreviewBytes
		for !utf8.RuneStart(v.Text[end]) {
			end--
		}
		v.Text = v.Text[:end]
	}
	return v
}

// synonyms are names that files have for the fields of a form, the more likely
// ones first. Forms and fields are tried in this order.
var synonyms = [][]struct {
	field string
	names []string
}{
	{{"messages", []string{"conversation", "dialog", "dialogue", "chat", "turns"}}},
	{
		{"instruction", []string{"instruction", "question", "query", "problem", "prompt", "user", "task", "input"}},
		{"output", []string{"output", "answer", "response", "completion", "solution", "target", "assistant", "reply", "chosen"}},
		{"input", []string{"input", "context"}},
	},
	{{"text", []string{"content", "document", "body", "article", "story"}}},
}

// suggest says which fields could be meant by the names of a row, nil if none.
func (o *object) suggest() Fields {
	for _, form := range synonyms {
		f, complete, taken := Fields{}, true, map[string]bool{}
		for _, s := range form {
			for _, name := range s.names {
				i := slices.IndexFunc(o.names, func(n string) bool { return strings.EqualFold(n, name) && !taken[n] && o.fits(s.field, n) })
				if i >= 0 {
					f[s.field], taken[o.names[i]] = o.names[i], true
					break
				}
			}
			complete = complete && (f[s.field] != "" || slices.Contains(optionalFields, s.field))
		}
		if complete {
			return f
		}
	}
	return nil
}

// fits reports whether a value is of the kind that a field needs; conversations
// of other names for roles are told by their first turn.
func (o *object) fits(field, column string) bool {
	raw := o.values[column]
	if field != "messages" {
		return len(raw) > 0 && raw[0] == '"'
	}
	var turns []map[string]json.RawMessage
	return json.Unmarshal(raw, &turns) == nil && len(turns) > 0 && turns[0]["role"] != nil && turns[0]["content"] != nil
}
