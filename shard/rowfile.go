package shard

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxRawRowBytes bounds a row as it stands in an input file: escapes, white
// space and fields that are left out come on top of MaxRowBytes.
const maxRawRowBytes = 4 << 20

// rawRow is a row as it stands in an input file.
type rawRow struct {
	file  string // its base name
	array bool   // of a JSON array: number counts rows; else it counts lines
	at    int    // from 1
	raw   []byte // valid until the next row is read
	bad   error  // the row could not be read; raw is nil
}

// place says where the row is, for a person with an editor.
func (r rawRow) place() string {
	if r.array {
		return fmt.Sprintf("%s: row %d", r.file, r.at)
	}
	return fmt.Sprintf("%s:%d", r.file, r.at)
}

func scanRows(ctx context.Context, name string, src io.Reader, fn func(rawRow) error) error {
	r := bufio.NewReaderSize(src, 64<<10)
	if err := utf16Mark(name, r); err != nil {
		return err
	}
	if b, _ := r.Peek(3); bytes.Equal(b, []byte("\ufeff")) {
		_, _ = r.Discard(3) // a byte order mark, as some editors write
	}
	lines := 1
	for {
		b, err := r.Peek(1)
		if errors.Is(err, io.EOF) {
			return nil // no rows; the caller counts them
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		switch b[0] {
		case '\n':
			lines++
			fallthrough
		case ' ', '\t', '\r':
			_, _ = r.Discard(1)
			continue
		case '[':
			return scanArray(ctx, name, r, fn)
		case '{':
			return scanLines(ctx, name, r, lines, fn)
		default:
			return fmt.Errorf("%s:%d: %w: neither a JSON array nor one JSON object a line", name, lines, ErrInvalid)
		}
	}
}

func scanLines(ctx context.Context, name string, r *bufio.Reader, at int, fn func(rawRow) error) error {
	var long []byte
	for ; ; at++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		long = long[:0]
		line, err := r.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) && len(long) <= maxRawRowBytes {
			long = append(long, line...)
			line, err = r.ReadSlice('\n')
		}
		tooLong := len(long)+len(line) > maxRawRowBytes
		for errors.Is(err, bufio.ErrBufferFull) { // what is left of it is not kept
			if err := ctx.Err(); err != nil {
				return err
			}
			_, err = r.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s:%d: %w", name, at, err)
		}
		last := err != nil
		if tooLong {
			bad := fmt.Errorf("%w: a line of more than %d bytes", ErrTooLarge, maxRawRowBytes)
			if err := fn(rawRow{file: name, at: at, bad: bad}); err != nil {
				return err
			}
			if last {
				return nil
			}
			continue
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if raw := bytes.TrimSpace(line); len(raw) > 0 {
			if err := fn(rawRow{file: name, at: at, raw: raw}); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

func scanArray(ctx context.Context, name string, r io.Reader, fn func(rawRow) error) error {
	// The decoder buffers a value whole, so the bytes it may read ahead of
	// the last row are rationed.
	ration := &rationReader{r: r, left: maxRawRowBytes}
	dec := json.NewDecoder(ration)
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("%s: %w", name, syntax(err))
	}
	at := 1
	for ; dec.More(); at++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fmt.Errorf("%s: row %d: %w", name, at, rationed(err))
		}
		if err := fn(rawRow{file: name, array: true, at: at, raw: raw}); err != nil {
			return err
		}
		ration.left = maxRawRowBytes
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("%s: after row %d: %w", name, at-1, rationed(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w: text after the array", name, ErrInvalid)
	}
	return nil
}

func rationed(err error) error {
	switch {
	case errors.Is(err, ErrTooLarge):
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxRawRowBytes)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the file ends in the middle", ErrInvalid)
	}
	return fmt.Errorf("%w: %w", ErrInvalid, syntax(err))
}

// rationReader reads at most left bytes.
type rationReader struct {
	r    io.Reader
	left int
}

func (r *rationReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, ErrTooLarge
	}
	n, err := r.r.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// countReader tells how many bytes were read.
type countReader struct {
	r  io.Reader
	fn func(n int)
}

func (r *countReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 && r.fn != nil {
		r.fn(n)
	}
	return n, err
}
