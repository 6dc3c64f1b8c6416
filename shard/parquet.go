package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go/format"
)

// scanParquet reads a Parquet file a row at a time. A column that is not read
// stands as null, and a value that is not text as 0: only that it is there
// can count.
func scanParquet(ctx context.Context, src parquetSource, fn func(rawRow) error) error {
	name := src.name
	t := parquetTable{parquetSource: src}
	if err := t.open(); err != nil {
		return fmt.Errorf("%s: %w: %w", name, ErrInvalid, err)
	}
	for i := range t.meta.RowGroups {
		if err := t.group(ctx, &t.meta.RowGroups[i], fn); err != nil {
			return err
		}
	}
	return nil
}

// parquetSource is a file to read; name is for errors.
type parquetSource struct {
	name     string
	f        io.ReaderAt
	size     int64
	columns  []string    // that are read
	progress func(n int) // may be nil
}

type parquetTable struct {
	parquetSource
	meta   *format.FileMetaData
	root   *parquetField
	leaves []*parquetField
	at     int   // rows that were read
	held   int64 // see maxParquetHeld
}

func (t *parquetTable) open() (err error) {
	// The library's decoder works by reflection and trusts what its walk does
	// not look at, such as types; a panic in it is the file's fault.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("footer: %v", p)
		}
	}()
	if t.meta, t.root, err = readParquetFooter(t.f, t.size); err != nil {
		return err
	}
	t.root.collect(&t.leaves)
	return nil
}

func (f *parquetField) collect(into *[]*parquetField) {
	if f.column >= 0 {
		*into = append(*into, f)
	}
	for _, child := range f.fields {
		child.collect(into)
	}
}

// group calls fn for the rows of a row group.
func (t *parquetTable) group(ctx context.Context, g *format.RowGroup, fn func(rawRow) error) error {
	for _, field := range t.root.fields {
		if !slices.Contains(t.columns, field.name) {
			continue
		}
		for _, leaf := range t.leaves[field.first:field.behind] {
			p, err := t.pages(leaf, &g.Columns[leaf.column])
			if err != nil {
				return fmt.Errorf("%s: rows from %d: %.40s: %w", t.name, t.at+1, field.name, err)
			}
			leaf.reader = p
			defer p.release()
		}
	}
	return t.rows(ctx, g.NumRows, fn)
}

func (t *parquetTable) rows(ctx context.Context, n int64, fn func(rawRow) error) error {
	var raw []byte
	for range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		t.at++
		var err error
		if raw, err = t.row(raw[:0]); err != nil {
			return fmt.Errorf("%s: row %d: %w", t.name, t.at, err)
		}
		if err := fn(rawRow{file: t.name, array: true, at: t.at, raw: raw}); err != nil {
			return err
		}
	}
	for _, leaf := range t.leaves {
		if leaf.reader == nil {
			continue
		}
		if more, err := leaf.reader.more(); err != nil || more {
			return fmt.Errorf("%s: after row %d: %w", t.name, t.at, cmp.Or(err, fmt.Errorf("%w: a column has more values than rows", ErrInvalid)))
		}
	}
	return nil
}

func (t *parquetTable) pages(leaf *parquetField, c *format.ColumnChunk) (*parquetPages, error) {
	m := &c.MetaData
	at := m.DataPageOffset
	if m.DictionaryPageOffset > 0 {
		at = min(at, m.DictionaryPageOffset)
	}
	switch {
	case c.FilePath != "":
		return nil, fmt.Errorf("%w: the values are in another file", ErrInvalid)
	case at < 4 || m.TotalCompressedSize < 0 || at > t.size || m.TotalCompressedSize > t.size-at:
		return nil, fmt.Errorf("%w: %d bytes at %d in a file of %d", ErrInvalid, m.TotalCompressedSize, at, t.size)
	}
	return &parquetPages{f: t.f, field: leaf, codec: m.Codec, at: at, end: at + m.TotalCompressedSize, held: &t.held, progress: t.progress}, nil
}

// row appends the next row as a JSON object.
func (t *parquetTable) row(b []byte) (_ []byte, err error) {
	// Headers of pages are decoded by the library too; see open.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrInvalid, p)
		}
	}()
	b = append(b, '{')
	for i, f := range t.root.fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONString(b, f.name), ':')
		if !slices.Contains(t.columns, f.name) {
			b = append(b, "null"...)
			continue
		}
		if b, err = t.value(b, f, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return append(b, '}'), nil
}

// value appends the next value of a field, the first of which has the
// repetition level rep (Dremel, section 4.2).
func (t *parquetTable) value(b []byte, f *parquetField, rep int) ([]byte, error) {
	if f.repetition == format.Required {
		return t.content(b, f, rep)
	}
	there, err := t.there(f)
	if err != nil {
		return nil, err
	}
	if f.repetition == format.Repeated {
		return t.items(b, f, rep, there, t.content)
	}
	if !there {
		return append(b, "null"...), t.skip(f, rep)
	}
	return t.content(b, f, rep)
}

// items appends a repeated field as a list.
func (t *parquetTable) items(b []byte, f *parquetField, rep int, there bool, item func([]byte, *parquetField, int) ([]byte, error)) ([]byte, error) {
	if !there {
		return append(b, "[]"...), t.skip(f, rep)
	}
	b = append(b, '[')
	for {
		var err error
		if b, err = item(b, f, rep); err != nil {
			return nil, err
		}
		next, _, ok, err := t.leaves[f.first].reader.peek()
		if err != nil {
			return nil, err
		}
		if !ok || next != f.rep {
			return append(b, ']'), nil
		}
		b, rep = append(b, ','), f.rep
	}
}

// content appends a field that is there.
func (t *parquetTable) content(b []byte, f *parquetField, rep int) ([]byte, error) {
	if len(b) > maxRawRowBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxRawRowBytes)
	}
	if f.column >= 0 {
		return t.leaf(b, f, rep)
	}
	if f.list {
		child := f.fields[0]
		there, err := t.there(child)
		if err != nil {
			return nil, err
		}
		return t.items(b, child, rep, there, func(b []byte, child *parquetField, rep int) ([]byte, error) {
			if child.wraps(f.name) {
				return t.value(b, child.fields[0], rep)
			}
			return t.content(b, child, rep)
		})
	}
	b = append(b, '{')
	for i, child := range f.fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONString(b, child.name), ':')
		var err error
		if b, err = t.value(b, child, rep); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func (t *parquetTable) leaf(b []byte, f *parquetField, rep int) ([]byte, error) {
	if err := t.take(f, rep, true); err != nil {
		return nil, err
	}
	if !f.text {
		return append(b, '0'), nil
	}
	s, err := f.reader.text()
	if err != nil {
		return nil, err
	}
	if len(b)+len(s) > maxRawRowBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxRawRowBytes)
	}
	return appendJSONString(b, string(s)), nil
}

// there reports whether the next value of a field is not null nor an empty
// list; the first leaf below speaks for the others, and take checks them.
func (t *parquetTable) there(f *parquetField) (bool, error) {
	_, def, ok, err := t.leaves[f.first].reader.peek()
	if err == nil && !ok {
		err = fmt.Errorf("%w: a column has fewer values than rows", ErrInvalid)
	}
	return def >= f.def, err
}

func (t *parquetTable) skip(f *parquetField, rep int) error {
	for _, leaf := range t.leaves[f.first:f.behind] {
		p := leaf.reader
		if err := t.take(leaf, rep, false); err != nil {
			return err
		}
		if p.defLevel >= f.def {
			return errParquetLevels
		}
	}
	return nil
}

var errParquetLevels = errors.Join(ErrInvalid, errors.New("columns of one field do not agree about what is there"))

// take uses up the next value of a leaf.
func (t *parquetTable) take(f *parquetField, rep int, full bool) error {
	got, def, ok, err := f.reader.peek()
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("%w: a column has fewer values than rows", ErrInvalid)
	case got != rep, full && def != f.def:
		return errParquetLevels
	}
	f.reader.peeked = false
	return nil
}
