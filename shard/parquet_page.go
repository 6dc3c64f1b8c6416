package shard

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// maxParquetHeld bounds the pages and dictionaries that are in memory at one
// time, all columns together.
const maxParquetHeld = 256 << 20

// oldDictionary is PLAIN_DICTIONARY, as files of version 1 have it.
const oldDictionary format.Encoding = 2

var errParquetEnd = fmt.Errorf("%w: a page ends too early", ErrInvalid)

// parquetPages reads the values of one column of one row group, a page at a
// time. Levels and values are decoded as they are asked for, in checked Go: a
// run of a few bytes may stand for billions, and the library would expand it.
type parquetPages struct {
	f        io.ReaderAt
	field    *parquetField
	codec    format.CompressionCodec
	at, end  int64
	held     *int64 // of all columns
	progress func(n int)

	dict     []byte
	offsets  []uint32 // into dict; one more than there are entries
	size     int      // of the page in memory
	left     int      // values of it
	rep, def parquetRuns
	plain    []byte
	lengths  []uint32 // of the texts in plain, if they stand apart
	apart    bool
	prefixes []uint32 // how much of the text before each begins with, if that is said
	shared   bool
	before   []byte // that text
	indexed  bool
	index    parquetRuns

	peeked             bool
	repLevel, defLevel int
}

// peek reports the levels of the next value; not ok at the end of the column.
func (p *parquetPages) peek() (rep, def int, ok bool, err error) {
	for !p.peeked {
		if p.left == 0 {
			if p.at >= p.end {
				return 0, 0, false, nil
			}
			if err := p.next(); err != nil {
				return 0, 0, false, err
			}
			continue
		}
		if p.repLevel, err = p.rep.next(); err != nil {
			return 0, 0, false, err
		}
		if p.defLevel, err = p.def.next(); err != nil {
			return 0, 0, false, err
		}
		if p.repLevel > p.field.rep || p.defLevel > p.field.def {
			return 0, 0, false, fmt.Errorf("%w: a level that the schema does not have", ErrInvalid)
		}
		p.left--
		p.peeked = true
	}
	return p.repLevel, p.defLevel, true, nil
}

// more reports whether there is another value. It is for the end of a row
// group, where the library's panics are not the row's.
func (p *parquetPages) more() (ok bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrInvalid, r)
		}
	}()
	_, _, ok, err = p.peek()
	return ok, err
}

// text returns the string of the value that peek showed, until it is called
// again.
func (p *parquetPages) text() ([]byte, error) {
	if p.apart {
		if len(p.lengths) == 0 || uint64(p.lengths[0]) > uint64(len(p.plain)) {
			return nil, errParquetEnd
		}
		s := p.plain[:p.lengths[0]]
		p.plain, p.lengths = p.plain[p.lengths[0]:], p.lengths[1:]
		if !p.shared {
			return s, nil
		}
		if len(p.prefixes) == 0 || uint64(p.prefixes[0]) > uint64(len(p.before)) {
			return nil, errParquetEnd
		}
		p.before = append(p.before[:p.prefixes[0]], s...)
		p.prefixes = p.prefixes[1:]
		if len(p.before) > maxRawRowBytes {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxRawRowBytes)
		}
		return p.before, nil
	}
	if !p.indexed {
		if len(p.plain) < 4 {
			return nil, errParquetEnd
		}
		n := binary.LittleEndian.Uint32(p.plain)
		if uint64(n) > uint64(len(p.plain)-4) {
			return nil, errParquetEnd
		}
		s := p.plain[4 : 4+n]
		p.plain = p.plain[4+n:]
		return s, nil
	}
	i, err := p.index.next()
	if err != nil {
		return nil, err
	}
	if i < 0 || i >= len(p.offsets)-1 {
		return nil, fmt.Errorf("%w: entry %d of a dictionary of %d", ErrInvalid, i, max(0, len(p.offsets)-1))
	}
	return p.dict[p.offsets[i]+4 : p.offsets[i+1]], nil
}

func (p *parquetPages) hold(n int) error {
	if *p.held += int64(n); *p.held > maxParquetHeld {
		return fmt.Errorf("%w: pages of more than %d bytes at one time; write smaller pages", ErrTooLarge, maxParquetHeld)
	}
	return nil
}

// release forgets what is held; the column is not read on.
func (p *parquetPages) release() {
	*p.held -= int64(p.size + len(p.dict) + 4*len(p.offsets))
	p.field.reader = nil
}

func (p *parquetPages) header() (format.PageHeader, error) {
	var h format.PageHeader
	for size := int64(16 << 10); ; size = maxParquetHeader {
		b := make([]byte, min(size, p.end-p.at))
		if _, err := p.f.ReadAt(b, p.at); err != nil {
			return h, err
		}
		n, err := decodeThrift(b, &h)
		if errors.Is(err, errThriftShort) && size < maxParquetHeader && size < p.end-p.at {
			continue
		}
		if err != nil {
			return h, fmt.Errorf("%w: header of a page: %w", ErrInvalid, err)
		}
		p.at += int64(n)
		return h, nil
	}
}

// next reads a page.
func (p *parquetPages) next() error {
	h, err := p.header()
	if err != nil {
		return err
	}
	size, full := int64(h.CompressedPageSize), int64(h.UncompressedPageSize)
	if size < 0 || size > p.end-p.at || full < 0 {
		return fmt.Errorf("%w: a page of %d bytes where %d are left", ErrInvalid, size, p.end-p.at)
	}
	*p.held -= int64(p.size)
	p.size, p.plain, p.lengths, p.prefixes, p.before = 0, nil, nil, nil, nil
	p.rep, p.def, p.index = parquetRuns{}, parquetRuns{}, parquetRuns{}
	if err := p.hold(int(size) + int(full)); err != nil {
		return err
	}
	raw := make([]byte, size)
	if _, err := p.f.ReadAt(raw, p.at); err != nil {
		return err
	}
	p.at += size
	if h.CRC != 0 && crc32.ChecksumIEEE(raw) != uint32(h.CRC) {
		return fmt.Errorf("%w: a page does not match its checksum", ErrInvalid)
	}
	if p.progress != nil {
		p.progress(int(size))
	}
	*p.held -= size + full
	switch {
	case h.Type == format.DictionaryPage && h.DictionaryPageHeader.Valid:
		return p.dictionary(raw, h)
	case h.Type == format.DataPage && h.DataPageHeader.Valid:
		return p.dataV1(raw, h)
	case h.Type == format.DataPageV2 && h.DataPageHeaderV2.Valid:
		return p.dataV2(raw, h)
	case h.Type == format.IndexPage:
		return nil
	}
	return fmt.Errorf("%w: a page of type %d", ErrInvalid, h.Type)
}

func (p *parquetPages) dictionary(raw []byte, h format.PageHeader) error {
	if !p.field.text {
		return nil // nothing asks for the values
	}
	if len(p.offsets) > 0 {
		return fmt.Errorf("%w: a second dictionary", ErrInvalid)
	}
	if e := h.DictionaryPageHeader.V.Encoding; e != format.Plain && e != oldDictionary {
		return fmt.Errorf("%w: a dictionary in encoding %s", ErrInvalid, e)
	}
	b, err := decompressPage(p.codec, raw, int(h.UncompressedPageSize))
	if err != nil {
		return err
	}
	n := int64(h.DictionaryPageHeader.V.NumValues)
	if n < 0 || n > int64(len(b)/4) {
		return fmt.Errorf("%w: a dictionary of %d entries in %d bytes", ErrInvalid, n, len(b))
	}
	p.dict, p.offsets = b, make([]uint32, 1, n+1)
	at := uint64(0)
	for range n {
		if uint64(len(b))-at < 4 {
			return errParquetEnd
		}
		if at += 4 + uint64(binary.LittleEndian.Uint32(b[at:])); at > uint64(len(b)) {
			return errParquetEnd
		}
		p.offsets = append(p.offsets, uint32(at))
	}
	return p.hold(len(p.dict) + 4*len(p.offsets))
}

func (p *parquetPages) dataV1(raw []byte, h format.PageHeader) error {
	d := h.DataPageHeader.V
	b, err := decompressPage(p.codec, raw, int(h.UncompressedPageSize))
	if err != nil {
		return err
	}
	p.size = len(b)
	for _, l := range []struct {
		runs     *parquetRuns
		encoding format.Encoding
		top      int
	}{{&p.rep, d.RepetitionLevelEncoding, p.field.rep}, {&p.def, d.DefinitionLevelEncoding, p.field.def}} {
		if l.top == 0 {
			continue
		}
		if l.encoding != format.RLE {
			return fmt.Errorf("%w: levels in encoding %s", ErrInvalid, l.encoding)
		}
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return errParquetEnd
		}
		n := 4 + int(binary.LittleEndian.Uint32(b))
		*l.runs = parquetRuns{b: b[4:n], width: bits.Len(uint(l.top))}
		b = b[n:]
	}
	return p.values(b, d.Encoding, d.NumValues)
}

func (p *parquetPages) dataV2(raw []byte, h format.PageHeader) error {
	d := h.DataPageHeaderV2.V
	rep, def := int64(d.RepetitionLevelsByteLength), int64(d.DefinitionLevelsByteLength)
	if rep < 0 || def < 0 || rep+def > int64(len(raw)) || rep+def > int64(h.UncompressedPageSize) {
		return errParquetEnd
	}
	levels := bytes.Clone(raw[:rep+def])
	if p.field.rep > 0 {
		p.rep = parquetRuns{b: levels[:rep], width: bits.Len(uint(p.field.rep))}
	}
	if p.field.def > 0 {
		p.def = parquetRuns{b: levels[rep:], width: bits.Len(uint(p.field.def))}
	}
	b := raw[rep+def:]
	if !d.IsCompressed.Valid || d.IsCompressed.V {
		var err error
		if b, err = decompressPage(p.codec, b, int(int64(h.UncompressedPageSize)-rep-def)); err != nil {
			return err
		}
	}
	p.size = len(levels) + len(b)
	return p.values(b, d.Encoding, d.NumValues)
}

func (p *parquetPages) values(b []byte, encoding format.Encoding, n int32) error {
	if n < 0 {
		return fmt.Errorf("%w: a page of %d values", ErrInvalid, n)
	}
	if err := p.hold(p.size); err != nil {
		return err
	}
	p.left, p.indexed, p.apart, p.shared = int(n), false, false, false
	if !p.field.text {
		return nil
	}
	switch encoding {
	case format.Plain:
		p.plain = b
	case oldDictionary, format.RLEDictionary:
		p.indexed = true
		if len(b) > 0 {
			p.index = parquetRuns{b: b[1:], width: int(b[0])}
		} else {
			p.index = parquetRuns{width: 1} // a page of nulls
		}
		if p.index.width > 32 {
			return fmt.Errorf("%w: an index of %d bits", ErrInvalid, p.index.width)
		}
	case format.DeltaLengthByteArray:
		return p.lengthsApart(b, uint64(n))
	case format.DeltaByteArray:
		var err error
		if p.prefixes, b, err = p.deltas(b, uint64(n)); err != nil {
			return err
		}
		p.shared = true
		return p.lengthsApart(b, uint64(n))
	default:
		return fmt.Errorf("%w: encoding %s is not read; write the file with plain or dictionary encoding", ErrInvalid, encoding)
	}
	return nil
}

// lengthsApart reads the lengths in front of the texts (DELTA_LENGTH_BYTE_ARRAY
// in the specification of encodings).
func (p *parquetPages) lengthsApart(b []byte, most uint64) (err error) {
	p.apart = true
	p.lengths, p.plain, err = p.deltas(b, most)
	return err
}

// deltas reads lengths that are written as differences (DELTA_BINARY_PACKED),
// and returns what is behind them.
func (p *parquetPages) deltas(b []byte, most uint64) (lengths []uint32, rest []byte, err error) {
	var head [4]uint64 // values of a block, its parts, values in all, first value
	for i := range head {
		var n int
		if head[i], n = binary.Uvarint(b); n <= 0 {
			return nil, nil, errParquetEnd
		}
		b = b[n:]
	}
	block, parts, total := head[0], head[1], head[2]
	if parts == 0 || parts > 1<<10 || block == 0 || block > 1<<20 || block%parts != 0 || block/parts%8 != 0 || total > most {
		return nil, nil, fmt.Errorf("%w: lengths in blocks of %d with %d parts, %d in all", ErrInvalid, block, parts, total)
	}
	p.size += 4 * int(total)
	if err := p.hold(4 * int(total)); err != nil {
		return nil, nil, err
	}
	lengths = make([]uint32, 0, total)
	value := zigzag(head[3])
	for uint64(len(lengths)) < total {
		least, widths, rest, err := deltaBlock(b, int(parts), len(lengths) == 0, total)
		if err != nil {
			return nil, nil, err
		}
		b = rest
		if len(lengths) == 0 {
			if value < 0 || value > maxParquetHeld {
				return nil, nil, fmt.Errorf("%w: a text of %d bytes", ErrInvalid, value)
			}
			if lengths = append(lengths, uint32(value)); total == 1 {
				break
			}
		}
		for _, width := range widths {
			if uint64(len(lengths)) == total {
				break // parts that are not needed have no bytes
			}
			size := int(block/parts) / 8 * int(width)
			if width > 32 || size > len(b) {
				return nil, nil, errParquetEnd
			}
			runs := parquetRuns{b: b[:size], width: int(width), left: block / parts, packed: true}
			b = b[size:]
			for range min(block/parts, total-uint64(len(lengths))) {
				d, err := runs.next()
				if err != nil {
					return nil, nil, err
				}
				if value += least + int64(d); value < 0 || value > maxParquetHeld {
					return nil, nil, fmt.Errorf("%w: a text of %d bytes", ErrInvalid, value)
				}
				lengths = append(lengths, uint32(value))
			}
		}
	}
	return lengths, b, nil
}

// deltaBlock reads the head of a block: what is added to each difference, and
// the bits of a difference in each part. A lone value has no block.
func deltaBlock(b []byte, parts int, first bool, total uint64) (least int64, widths, rest []byte, err error) {
	if first && total == 1 {
		return 0, nil, b, nil
	}
	v, n := binary.Uvarint(b)
	if n <= 0 || len(b)-n < parts {
		return 0, nil, nil, errParquetEnd
	}
	return zigzag(v), b[n : n+parts], b[n+parts:], nil
}

func zigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// decompressPage returns the size bytes that a page says it has, and never
// makes more of them.
func decompressPage(codec format.CompressionCodec, raw []byte, size int) ([]byte, error) {
	var b []byte
	var err error
	switch codec {
	case format.Uncompressed:
		b = raw
	case format.Snappy:
		var n int
		if n, err = snappy.DecodedLen(raw); err == nil && n == size {
			b, err = snappy.Decode(nil, raw)
		}
	case format.Gzip:
		var r *gzip.Reader
		if r, err = gzip.NewReader(bytes.NewReader(raw)); err == nil {
			b, err = readUpTo(r, size)
		}
	case format.Zstd:
		var r *zstd.Decoder
		if r, err = zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20)); err == nil {
			b, err = readUpTo(r, size)
			r.Close()
		}
	case format.Brotli:
		b, err = readUpTo(brotli.NewReader(bytes.NewReader(raw)), size)
	case format.Lz4Raw:
		if size > maxLZ4Ratio*len(raw) {
			return nil, fmt.Errorf("%w: %d bytes of %s are not %d", ErrInvalid, len(raw), codec, size)
		}
		var n int
		b = make([]byte, size)
		n, err = lz4.UncompressBlock(raw, b)
		b = b[:max(n, 0)]
	default:
		return nil, fmt.Errorf("%w: compression %s is not read; use zstd, snappy, gzip, brotli, lz4_raw or none", ErrInvalid, codec)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, codec, err)
	}
	if len(b) != size {
		return nil, fmt.Errorf("%w: a page is not of the %d bytes it says", ErrInvalid, size)
	}
	return b, nil
}

// maxLZ4Ratio is more than LZ4 can come to: a byte stands for 255 at most.
const maxLZ4Ratio = 256

// readUpTo reads all, but no more than a byte above n. What is made grows with
// what is there, not with n.
func readUpTo(r io.Reader, n int) ([]byte, error) {
	var b bytes.Buffer
	_, err := b.ReadFrom(io.LimitReader(r, int64(n)+1))
	return b.Bytes(), err
}

// parquetRuns decodes runs of equal values and of packed ones. The zero one
// gives zeros for ever.
type parquetRuns struct {
	b      []byte
	width  int // in bits, at most 32
	left   uint64
	packed bool
	value  int
	bit    int // of the packed run, in b
}

func (r *parquetRuns) next() (int, error) {
	if r.width == 0 {
		return 0, nil
	}
	for r.left == 0 {
		if r.packed {
			r.b, r.packed, r.bit = r.b[r.bit/8:], false, 0
		}
		if err := r.run(); err != nil {
			return 0, err
		}
	}
	r.left--
	if !r.packed {
		return r.value, nil
	}
	v := uint64(0)
	for got := 0; got < r.width; {
		take := min(8-r.bit%8, r.width-got)
		v |= uint64(r.b[r.bit/8]>>(r.bit%8)&(1<<take-1)) << got
		got += take
		r.bit += take
	}
	return int(v), nil
}

func (r *parquetRuns) run() error {
	h, n := binary.Uvarint(r.b)
	if n <= 0 {
		return errParquetEnd
	}
	r.b = r.b[n:]
	if r.left = h >> 1; h&1 == 0 {
		size := (r.width + 7) / 8
		if len(r.b) < size {
			return errParquetEnd
		}
		r.value = 0
		for i := range size {
			r.value |= int(r.b[i]) << (8 * i)
		}
		r.b = r.b[size:]
		return nil
	}
	groups := h >> 1 // of eight values
	if groups > uint64(len(r.b)/r.width) {
		// The last group may be cut short: what it has is all there is.
		if groups > uint64(len(r.b)) {
			return errParquetEnd
		}
		r.left = uint64(len(r.b)*8) / uint64(r.width)
		if r.left == 0 {
			return errParquetEnd
		}
		r.packed = true
		return nil
	}
	r.left, r.packed = groups*8, true
	return nil
}
