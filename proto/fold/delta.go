package fold

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrCodec is wrapped by the errors of Decode for bytes that are no delta of
// the layout at all; ErrRange, for a scale or a code that is out of range or
// not canonical.
var (
	ErrCodec = errors.New("not a delta of this layout and version")
	ErrRange = errors.New("out of range or not canonical")
)

// A delta is its header, the scale of each chunk, the codes of each chunk.
// The codes of a chunk start with a byte of their own, lowest bits first.
const (
	deltaMagic       = "mootdlta"
	deltaVersion     = 1
	deltaHeaderBytes = 8 + 2 + 1 + 1 + 4 + 32
)

// Delta is a decoded pseudo-gradient. It does not change after Decode.
type Delta struct {
	layout *Layout
	bits   int
	scales []int64 // of each chunk
	codes  []byte  // of all chunks
	starts []int   // of each chunk's codes
	norm   uint64
	norms  []uint64 // of each tensor
}

// EncodedBytes returns the exact length of a delta of l in a codec of 1, 2, 4
// or 8 bits.
func EncodedBytes(l *Layout, bits int) int64 {
	n := int64(deltaHeaderBytes + scaleBytes*len(l.chunks))
	for _, c := range l.chunks {
		n += int64(chunkBytes(c.n, bits))
	}
	return n
}

// appendDeltaHeader appends magic, version, bits, a zero, the number of chunks
// and the digest of the layout.
func appendDeltaHeader(b []byte, l *Layout, bits int) []byte {
	b = append(b, deltaMagic...)
	b = binary.LittleEndian.AppendUint16(b, deltaVersion)
	b = append(b, uint8(bits), 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(l.chunks)))
	return append(b, l.digest[:]...)
}

// Decode checks b against the layout and keeps it; b must not change. The
// error wraps ErrCodec or ErrRange.
func Decode(l *Layout, b []byte) (*Delta, error) {
	bits, err := checkDeltaHeader(l, b)
	if err != nil {
		return nil, fmt.Errorf("decode delta: %w", err)
	}
	table := b[deltaHeaderBytes:]
	d := &Delta{
		layout: l,
		bits:   bits,
		scales: make([]int64, len(l.chunks)),
		codes:  table[scaleBytes*len(l.chunks):],
		starts: make([]int, len(l.chunks)),
		norms:  make([]uint64, len(l.tensors)),
	}
	at := 0
	for i, c := range l.chunks {
		s := scale{binary.LittleEndian.Uint16(table[scaleBytes*i:]), table[scaleBytes*i+2]}
		if !s.valid(bits) {
			return nil, fmt.Errorf("decode delta: chunk %d: scale %d * 2^%d is %w", i, s.mantissa, s.exponent, ErrRange)
		}
		d.scales[i] = s.value()
		d.starts[i] = at
		at += chunkBytes(c.n, bits)
	}
	if err := d.measure(); err != nil {
		return nil, fmt.Errorf("decode delta: %w", err)
	}
	return d, nil
}

func checkDeltaHeader(l *Layout, b []byte) (bits int, err error) {
	if len(b) < deltaHeaderBytes {
		return 0, fmt.Errorf("%d bytes are %w", len(b), ErrCodec)
	}
	bits = int(b[10])
	if !validBits(bits) {
		return 0, fmt.Errorf("a codec of %d bits is %w", bits, ErrCodec)
	}
	if string(b[:deltaHeaderBytes]) != string(appendDeltaHeader(nil, l, bits)) {
		return 0, fmt.Errorf("the header is %w", ErrCodec)
	}
	if want := EncodedBytes(l, bits); int64(len(b)) != want {
		return 0, fmt.Errorf("%d bytes in place of %d are %w", len(b), want, ErrCodec)
	}
	return bits, nil
}

// measure checks the codes and computes the norms. The sum of squares fits 128
// bits: 2^28 values of at most 2^31.
func (d *Delta) measure() error {
	table := squares(d.bits)
	sums := make([]wide, len(d.norms))
	for i, c := range d.layout.chunks {
		sum, err := d.chunkSquares(i, c, table)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
		s := uint64(d.scales[i])
		sums[c.tensor] = sums[c.tensor].add(mulWide(s*s, uint64(sum)))
	}
	var total wide
	for t, sum := range sums {
		d.norms[t] = isqrt(sum)
		total = total.add(sum)
	}
	d.norm = isqrt(total)
	return nil
}

// chunkSquares returns the sum of the squared levels of a chunk, at most
// 4096 * 127^2. It refuses what two encoders could write differently: codes
// under a scale of zero, the bits after the last code, and -128.
func (d *Delta) chunkSquares(i int, c chunk, table *[256]int64) (int64, error) {
	codes := d.chunkCodes(i, c)
	if d.scales[i] == 0 {
		for _, b := range codes {
			if b != 0 {
				return 0, fmt.Errorf("a code under a scale of zero is %w", ErrRange)
			}
		}
		return 0, nil
	}
	pad := len(codes)*8/d.bits - c.n
	if pad > 0 && codes[len(codes)-1]>>(8-pad*d.bits) != 0 {
		return 0, fmt.Errorf("a bit after the last code is %w", ErrRange)
	}
	var sum int64
	for _, b := range codes {
		sum += table[b]
	}
	if d.bits == 8 {
		for _, b := range codes {
			if b == 0x80 {
				return 0, fmt.Errorf("the code -128 is %w", ErrRange)
			}
		}
	}
	return sum - int64(pad)*maxCode(d.bits)*maxCode(d.bits), nil
}

func (d *Delta) chunkCodes(i int, c chunk) []byte {
	return d.codes[d.starts[i]:][:chunkBytes(c.n, d.bits)]
}

// Bits returns the bits of the codec.
func (d *Delta) Bits() int { return d.bits }

// Norm returns the L2 norm, rounded down, in units of 2^-26.
func (d *Delta) Norm() uint64 { return d.norm }

// TensorNorms returns the L2 norm of each tensor, rounded down.
func (d *Delta) TensorNorms() []uint64 { return append([]uint64(nil), d.norms...) }

// Values writes the decoded values to dst, which has Params values.
func (d *Delta) Values(dst []int32) {
	if len(dst) != d.layout.params {
		panic("bug: as many values as the layout has parameters")
	}
	for i, c := range d.layout.chunks {
		codes := d.chunkCodes(i, c)
		for j := range c.n {
			at := j * d.bits
			code := codes[at/8] >> (at % 8) & (1<<d.bits - 1)
			dst[c.start+j] = int32(level(d.bits, code) * d.scales[i])
		}
	}
}
