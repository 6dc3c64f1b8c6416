package shard

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// InputRow is a row of an input file, or what is wrong with it.
type InputRow struct {
	Place string // such as "rows.jsonl:7"
	Row   Row
	Err   error // the row cannot be trained on
}

// Detected is what a file was found to be.
type Detected struct {
	Input  string // alpaca, messages, sharegpt, completion or text
	Format string // of the rows that come out
	Why    string
}

// InputOptions say how the rows of a file are read.
type InputOptions struct {
	// Format is a form of rows, or "": it is told by the first row.
	Format string
	Fields Fields // may be nil
	// Progress, if not nil, is told how many more bytes were read.
	Progress func(n int)
}

// ReadInput calls fn for each row of a file as ImportDataset reads it.
func ReadInput(ctx context.Context, path string, o InputOptions, fn func(InputRow) error) (Detected, error) {
	rows := 0
	d, err := readInput(ctx, path, o, func(p parsedRow) error {
		if rows++; rows > maxRows {
			return fmt.Errorf("%s: %w: more than %d rows", p.place(), ErrTooLarge, maxRows)
		}
		return fn(InputRow{p.place(), p.row, p.err})
	})
	if err != nil {
		return d, fmt.Errorf("read rows: %w", err)
	}
	return d, nil
}

// parsedRow is a row of an input file that was read.
type parsedRow struct {
	rawRow
	form   Detected // not known before a row that can be read, if there is none
	row    Row
	others []string // names of fields that do not count
	err    error
}

func readInput(ctx context.Context, path string, opts InputOptions, fn func(parsedRow) error) (Detected, error) {
	d := Detected{Input: opts.Format}
	if d.Input != "" {
		d.Why = "it was asked for"
		var ok bool
		if d.Format, ok = canonicalFormat(d.Input); !ok {
			return d, fmt.Errorf("format is %.40q, must be alpaca, messages, sharegpt, completion or text", d.Input)
		}
	}
	if err := opts.Fields.validate(); err != nil {
		return d, err
	}
	var renamed []byte
	err := readRows(ctx, path, rowSource{opts.Fields.columns(), opts.Progress}, func(raw rawRow) error {
		p := parsedRow{rawRow: raw, err: raw.bad}
		if p.err == nil && len(opts.Fields) > 0 {
			renamed, p.err = opts.Fields.rename(renamed, raw.raw)
			raw.raw = renamed
		}
		if p.err == nil && d.Input == "" {
			o, err := parseObject(raw.raw)
			switch {
			case err != nil:
				p.err = err
			case len(o.names) == 0:
				p.err = errors.New("no fields")
			default:
				if d, err = o.detect(); err != nil {
					return fmt.Errorf("%s: %w", raw.place(), err)
				}
			}
		}
		if p.form = d; p.err == nil {
			p.row, p.others, p.err = parseInput(d.Input, raw.raw)
		}
		return fn(p)
	})
	return d, err
}

// rowSource says how a file is read.
type rowSource struct {
	columns  []string    // of a Parquet file: others are not read, they may hold pictures
	progress func(n int) // may be nil
}

// readRows calls fn for each row of a file as a JSON object. The extension
// tells tables, Parquet and plain text; else it is a JSON array of objects, or one
// object a line, which shows in its first character.
func readRows(ctx context.Context, path string, o rowSource, fn func(rawRow) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	name, src := filepath.Base(path), &countReader{r: f, fn: o.progress}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv":
		return scanTable(ctx, name, src, ',', fn)
	case ".tsv":
		return scanTable(ctx, name, src, '\t', fn)
	case ".txt":
		return scanText(ctx, name, src, fn)
	case ".parquet":
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return scanParquet(ctx, parquetSource{name, f, info.Size(), o.columns, o.progress}, fn)
	}
	return scanRows(ctx, name, src, fn)
}

// scanTable reads a table whose first line names the fields.
func scanTable(ctx context.Context, name string, src io.Reader, comma rune, fn func(rawRow) error) error {
	ration := &rationReader{r: src, left: maxRawRowBytes}
	in := bufio.NewReader(ration)
	if err := utf16Mark(name, in); err != nil {
		return err
	}
	if b, _ := in.Peek(3); string(b) == "\ufeff" {
		_, _ = in.Discard(3)
	}
	r := csv.NewReader(in)
	r.Comma, r.ReuseRecord, r.FieldsPerRecord = comma, true, -1
	var header []string
	var raw []byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil // no rows; the caller counts them
		}
		if err != nil {
			return tableError(name, err)
		}
		ration.left = maxRawRowBytes
		if header == nil {
			header = append([]string(nil), fields...)
			if len(header) == 1 && comma == ',' {
				for _, other := range []string{";", "\t", "|"} {
					if strings.Contains(header[0], other) {
						return fmt.Errorf("%s:1: %w: its first line has no comma, and %q in it; save the table with commas between the fields, or with tabs as .tsv", name, ErrInvalid, other)
					}
				}
			}
			continue
		}
		line, _ := r.FieldPos(0)
		if len(fields) != len(header) {
			bad := fmt.Errorf("%d fields, the first line has %d", len(fields), len(header))
			if err := fn(rawRow{file: name, at: line, bad: bad}); err != nil {
				return err
			}
			continue
		}
		raw = append(raw[:0], '{')
		for i, h := range header {
			if i > 0 {
				raw = append(raw, ',')
			}
			raw = appendJSONString(raw, h)
			raw = append(raw, ':')
			raw = appendJSONString(raw, fields[i])
		}
		raw = append(raw, '}')
		if err := fn(rawRow{file: name, at: line, raw: raw}); err != nil {
			return err
		}
	}
}

// utf16Mark refuses what begins as text in UTF-16 does, of which no line can be read.
func utf16Mark(name string, in *bufio.Reader) error {
	if b, _ := in.Peek(2); string(b) == "\xff\xfe" || string(b) == "\xfe\xff" {
		return fmt.Errorf("%s: %w: it is in UTF-16; save it as UTF-8", name, ErrInvalid)
	}
	return nil
}

func tableError(name string, err error) error {
	if errors.Is(err, ErrTooLarge) {
		return fmt.Errorf("%s: %w: a row of more than %d bytes, or a quote that is not closed", name, ErrTooLarge, maxRawRowBytes)
	}
	var at *csv.ParseError
	if errors.As(err, &at) {
		return fmt.Errorf("%s:%d: %w: %w", name, at.Line, ErrInvalid, at.Err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// scanText reads plain text, in which empty lines separate rows.
func scanText(ctx context.Context, name string, src io.Reader, fn func(rawRow) error) error {
	r := bufio.NewReaderSize(src, 64<<10)
	if err := utf16Mark(name, r); err != nil {
		return err
	}
	var text []byte
	begin := 0
	flush := func() error {
		s := strings.TrimRight(string(text), "\r\n")
		text = text[:0]
		if s == "" {
			return nil
		}
		raw := append(appendJSONString([]byte(`{"text":`), s), '}')
		return fn(rawRow{file: name, at: begin, raw: raw})
	}
	for at := 1; ; at++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := r.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) && len(text) <= maxRawRowBytes {
			if len(text) == 0 {
				begin = at
			}
			text = append(text, line...)
			line, err = r.ReadSlice('\n')
		}
		if len(text)+len(line) > maxRawRowBytes {
			return fmt.Errorf("%s:%d: %w: more than %d bytes without an empty line", name, at, ErrTooLarge, maxRawRowBytes)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s:%d: %w", name, at, err)
		}
		if at == 1 {
			line = []byte(strings.TrimPrefix(string(line), "\ufeff"))
		}
		if strings.TrimSpace(string(line)) == "" {
			if err := flush(); err != nil {
				return err
			}
		} else {
			if len(text) == 0 {
				begin = at
			}
			text = append(text, line...)
		}
		if err != nil {
			return flush()
		}
	}
}
