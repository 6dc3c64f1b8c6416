package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// Bounds on what a Parquet file may declare.
const (
	maxParquetFooter  = 16 << 20
	maxParquetHeader  = 32 << 20 // of a page; its statistics may hold four values
	maxParquetFields  = 4096     // elements of the schema
	maxParquetDepth   = 24       // of groups in each other
	maxThriftDepth    = 32
	maxThriftElements = 1 << 20 // of all lists in a footer
	maxThriftStructs  = 1 << 18 // of those that are structs, which are larger in memory than on disk
)

// parquetField is an element of the schema.
type parquetField struct {
	name          string
	repetition    format.FieldRepetitionType
	rep, def      int // the levels from which a value is there
	list          bool
	text          bool // a leaf of strings
	fields        []*parquetField
	column        int           // of a leaf
	first, behind int           // the leaves below
	reader        *parquetPages // of a leaf that is read
}

// readParquetFooter reads and checks what the file says of itself.
func readParquetFooter(f io.ReaderAt, size int64) (*format.FileMetaData, *parquetField, error) {
	var tail [8]byte
	if size < 12 {
		return nil, nil, errors.New("too short for a Parquet file")
	}
	if _, err := f.ReadAt(tail[:], size-8); err != nil {
		return nil, nil, err
	}
	n := int64(binary.LittleEndian.Uint32(tail[:]))
	switch {
	case string(tail[4:]) == "PARE":
		return nil, nil, errors.New("encrypted Parquet is not read")
	case string(tail[4:]) != "PAR1":
		return nil, nil, errors.New("does not end like a Parquet file")
	case n > size-12:
		return nil, nil, fmt.Errorf("footer of %d bytes in a file of %d", n, size)
	case n > maxParquetFooter:
		return nil, nil, fmt.Errorf("%w: footer of %d bytes, at most %d are allowed", ErrTooLarge, n, maxParquetFooter)
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, size-8-n); err != nil {
		return nil, nil, err
	}
	var meta format.FileMetaData
	if _, err := decodeThrift(b, &meta); err != nil {
		return nil, nil, fmt.Errorf("footer: %w", err)
	}
	if len(meta.Schema) > maxParquetFields {
		return nil, nil, fmt.Errorf("%w: %d fields, at most %d are allowed", ErrTooLarge, len(meta.Schema), maxParquetFields)
	}
	s := parquetSchema{elements: meta.Schema}
	root, err := s.field(nil, 0)
	if err != nil {
		return nil, nil, err
	}
	if len(s.elements) > 0 || len(root.fields) == 0 {
		return nil, nil, errors.New("the schema is not a tree")
	}
	var rows int64
	for i, g := range meta.RowGroups {
		if len(g.Columns) != s.columns {
			return nil, nil, fmt.Errorf("row group %d has %d columns, the schema %d", i, len(g.Columns), s.columns)
		}
		if g.NumRows < 0 || g.NumRows > maxRows {
			return nil, nil, fmt.Errorf("row group %d of %d rows, at most %d are allowed", i, g.NumRows, maxRows)
		}
		if rows += g.NumRows; rows > maxRows {
			return nil, nil, fmt.Errorf("%w: more than %d rows", ErrTooLarge, maxRows)
		}
	}
	if rows != meta.NumRows {
		return nil, nil, fmt.Errorf("%d rows in row groups, %d in all", rows, meta.NumRows)
	}
	return &meta, root, nil
}

type parquetSchema struct {
	elements []format.SchemaElement
	columns  int
}

func (s *parquetSchema) field(parent *parquetField, depth int) (*parquetField, error) {
	if len(s.elements) == 0 || depth > maxParquetDepth {
		return nil, fmt.Errorf("the schema is not a tree of at most %d levels", maxParquetDepth)
	}
	e := s.elements[0]
	s.elements = s.elements[1:]
	f := &parquetField{name: e.Name, column: -1, first: s.columns}
	if parent != nil {
		f.rep, f.def, f.repetition = parent.rep, parent.def, e.RepetitionType.V
		switch f.repetition {
		case format.Required:
		case format.Optional:
			f.def++
		case format.Repeated:
			f.rep++
			f.def++
		default:
			return nil, fmt.Errorf("field %.40q repeats in way %d", f.name, f.repetition)
		}
	}
	if !e.NumChildren.Valid || e.NumChildren.V == 0 && e.Type.Valid {
		f.column, f.text = s.columns, e.Type.V == format.ByteArray
		s.columns++
		f.behind = s.columns
		return f, nil
	}
	if e.NumChildren.V <= 0 {
		return nil, fmt.Errorf("field %.40q has no fields", f.name)
	}
	for range e.NumChildren.V {
		child, err := s.field(f, depth+1)
		if err != nil {
			return nil, err
		}
		f.fields = append(f.fields, child)
	}
	_, list := e.LogicalType.Value.(*format.ListType)
	list = list || e.ConvertedType.Valid && e.ConvertedType.V == deprecated.List
	f.list = list && len(f.fields) == 1 && f.fields[0].repetition == format.Repeated
	f.behind = s.columns
	return f, nil
}

// wraps reports whether the repeated field of a list only holds the element,
// and is not the element itself. The names are those of old writers.
func (f *parquetField) wraps(list string) bool {
	return len(f.fields) == 1 && f.name != "array" && f.name != strings.TrimSpace(list)+"_tuple"
}

// decodeThrift decodes a struct after the bytes were walked: the library
// allocates whatever a length claims. It returns how many bytes were used.
func decodeThrift(b []byte, into any) (int, error) {
	w := thriftWalk{b: b}
	if err := w.structure(0); err != nil {
		return 0, err
	}
	return w.at, thrift.Unmarshal(&thrift.CompactProtocol{}, b[:w.at], into)
}

var errThriftShort = errors.New("the bytes end too early")

// thriftWalk walks the compact encoding.
type thriftWalk struct {
	b                 []byte
	at                int
	elements, structs int
}

func (w *thriftWalk) take(n uint64) error {
	if n > uint64(len(w.b)-w.at) {
		return errThriftShort
	}
	w.at += int(n)
	return nil
}

func (w *thriftWalk) byte() (byte, error) {
	if err := w.take(1); err != nil {
		return 0, err
	}
	return w.b[w.at-1], nil
}

func (w *thriftWalk) varint() (uint64, error) {
	v, n := binary.Uvarint(w.b[w.at:])
	if n <= 0 {
		return 0, errThriftShort
	}
	w.at += n
	return v, nil
}

func (w *thriftWalk) structure(depth int) error {
	if depth > maxThriftDepth {
		return fmt.Errorf("more than %d levels", maxThriftDepth)
	}
	for {
		h, err := w.byte()
		if err != nil || h == 0 {
			return err
		}
		if h>>4 == 0 {
			if _, err := w.varint(); err != nil {
				return err
			}
		}
		if h&15 == 1 || h&15 == 2 {
			continue // a bool is in the type
		}
		if err := w.value(h&15, depth+1); err != nil {
			return err
		}
	}
}

func (w *thriftWalk) value(kind byte, depth int) error {
	switch kind {
	case 1, 2, 3:
		return w.take(1)
	case 4, 5, 6:
		_, err := w.varint()
		return err
	case 7:
		return w.take(8)
	case 8:
		n, err := w.varint()
		if err != nil {
			return err
		}
		return w.take(n)
	case 9, 10:
		return w.list(depth)
	case 12:
		return w.structure(depth)
	}
	return fmt.Errorf("a value of type %d", kind) // maps too: Parquet has none
}

func (w *thriftWalk) list(depth int) error {
	h, err := w.byte()
	if err != nil {
		return err
	}
	n := uint64(h >> 4)
	if n == 15 {
		if n, err = w.varint(); err != nil {
			return err
		}
	}
	if n > uint64(len(w.b)-w.at) { // an element takes a byte or more
		return errThriftShort
	}
	if w.elements += int(n); w.elements > maxThriftElements {
		return fmt.Errorf("%w: more than %d elements of lists", ErrTooLarge, maxThriftElements)
	}
	if h&15 == 12 {
		if w.structs += int(n); w.structs > maxThriftStructs {
			return fmt.Errorf("%w: more than %d elements of lists", ErrTooLarge, maxThriftStructs)
		}
	}
	if depth > maxThriftDepth {
		return fmt.Errorf("more than %d levels", maxThriftDepth)
	}
	for range n {
		if err := w.value(h&15, depth+1); err != nil {
			return err
		}
	}
	return nil
}
