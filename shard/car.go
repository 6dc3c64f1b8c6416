package shard

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
)

// A CAR (content addressed archive, version 1) is a header and blocks, each
// with a varint length in front: the header is {"roots": [CID], "version": 1}
// in dag-cbor, a block its CID and its bytes.
const (
	maxCARHeader = 32 << 10
	maxCARCID    = 128 // of a block that is skipped
	maxCARRoots  = 256
)

// CAR is what was written or read.
type CAR struct {
	Roots  []cid.Cid
	Blocks int
	Bytes  int64 // of the blocks
}

// ExportCAR writes the DAG root, which must be all local, as a CAR: inner nodes
// first, so that who reads it knows where leaves belong, then the leaves. Each
// block is written once, and checked. Progress may be nil.
func (s *Store) ExportCAR(ctx context.Context, root cid.Cid, w io.Writer, progress func(done, total int64)) (CAR, error) {
	c, err := s.exportCAR(ctx, root, w, progress)
	if err != nil {
		return CAR{}, fmt.Errorf("export %s: %w", root, incomplete(err))
	}
	return c, nil
}

func (s *Store) exportCAR(ctx context.Context, root cid.Cid, to io.Writer, progress func(done, total int64)) (CAR, error) {
	missing, _, total, err := s.Missing(ctx, root)
	if err != nil {
		return CAR{}, err
	}
	if len(missing) > 0 {
		return CAR{}, fmt.Errorf("%w: %d blocks are missing, %s first", ErrIncomplete, len(missing), missing[0])
	}
	out := CAR{Roots: []cid.Cid{root}}
	w := bufio.NewWriterSize(to, 1<<16)
	head := carHeader(root)
	if _, err := w.Write(append(binary.AppendUvarint(nil, uint64(len(head))), head...)); err != nil {
		return CAR{}, err
	}
	put := func(c cid.Cid, data []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		head := append(binary.AppendUvarint(nil, uint64(c.ByteLen()+len(data))), c.Bytes()...)
		for _, b := range [][]byte{head, data} {
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		out.Blocks++
		out.Bytes += int64(len(data))
		if progress != nil {
			progress(out.Bytes, total)
		}
		return nil
	}
	seen := make(map[cid.Cid]bool)
	var leaves []cid.Cid
	var walk func(c cid.Cid, depth int) error
	walk = func(c cid.Cid, depth int) error {
		if seen[c] || depth > maxDepth {
			return nil
		}
		seen[c] = true
		if c.Prefix().Codec == rawCodec {
			leaves = append(leaves, c)
			return nil
		}
		data, err := s.get(c)
		if err != nil {
			return err
		}
		n, err := decodeNode(c, data)
		if err != nil {
			return err
		}
		if err := put(c, data); err != nil {
			return err
		}
		for _, l := range n.links {
			if err := walk(l.CID, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(root, 1); err != nil {
		return CAR{}, err
	}
	clear(seen)
	for _, c := range leaves {
		data, err := s.get(c)
		if err == nil {
			err = put(c, data)
		}
		if err != nil {
			return CAR{}, err
		}
	}
	return out, w.Flush()
}

// carHeader is the header of a CAR with one root.
func carHeader(root cid.Cid) []byte {
	b := []byte{0xa2, 0x65}
	b = append(b, "roots"...)
	b = append(b, 0x81, 0xd8, 0x2a, 0x58, byte(root.ByteLen()+1), 0)
	b = append(b, root.Bytes()...)
	b = append(b, 0x67)
	b = append(b, "version"...)
	return append(b, 0x01)
}

// ImportCAROptions are the options of [Store.ImportCAR].
type ImportCAROptions struct {
	// Folder, if not nil, may name a folder for a root that is a directory, as
	// soon as its inner nodes are here; see [Store.Grow]. What it returns "" for
	// is stored as blocks.
	Folder func(root cid.Cid) (dir string, opts FolderOptions)
	// Progress, if not nil, is called with the bytes that were read.
	Progress func(done int64)
}

// ImportCAR stores the blocks of a CAR, each checked against its CID. Blocks
// that are not of the kinds of FORMAT.md are refused. What came before an error
// stays, and is not stored again. Whether all of a root came, [Store.Missing]
// tells.
func (s *Store) ImportCAR(ctx context.Context, r io.Reader, opts ImportCAROptions) (CAR, error) {
	c, err := s.importCAR(ctx, r, opts)
	if err != nil {
		return CAR{}, fmt.Errorf("import CAR: %w", err)
	}
	return c, nil
}

// carBatch is how many bytes of blocks are stored at once.
const carBatch = 16 << 20

func (s *Store) importCAR(ctx context.Context, r io.Reader, opts ImportCAROptions) (CAR, error) {
	in := newCARReader(r)
	roots, err := in.header()
	if err != nil {
		return CAR{}, err
	}
	out := CAR{Roots: roots}
	var w *writer
	inBatch := 0
	flush := func() error {
		if w == nil {
			return nil
		}
		err := w.finish()
		w, inBatch = nil, 0
		return err
	}
	grown := opts.Folder == nil
	for {
		c, data, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return CAR{}, errors.Join(err, flush())
		}
		if !grown && c.Prefix().Codec == rawCodec {
			// The first leaf: if the nodes came before, its place is known.
			grown = true
			if err := flush(); err != nil {
				return CAR{}, err
			}
			if err := s.growRoots(ctx, roots, opts); err != nil {
				return CAR{}, err
			}
		}
		if w == nil {
			w = s.newWriter(ctx)
		}
		d, _ := digestOf(c) // next checked it
		w.group.Go(func() error {
			if sha256.Sum256(data) != d {
				return fmt.Errorf("block %s: %w: its bytes have another hash", c, ErrInvalid)
			}
			if c.Prefix().Codec == dagPB {
				if _, err := decodeNode(c, data); err != nil {
					return err
				}
			}
			return w.write(d, data)
		})
		out.Blocks++
		out.Bytes += int64(len(data))
		if inBatch += len(data) + 1024; inBatch >= carBatch {
			if err := flush(); err != nil {
				return CAR{}, err
			}
		}
		if opts.Progress != nil {
			opts.Progress(in.read)
		}
	}
	if err := flush(); err != nil {
		return CAR{}, err
	}
	return out, nil
}

// growRoots makes folders of roots whose inner nodes are here.
func (s *Store) growRoots(ctx context.Context, roots []cid.Cid, opts ImportCAROptions) error {
	for _, root := range roots {
		dir, o := opts.Folder(root)
		if dir == "" {
			continue
		}
		err := s.Grow(ctx, root, dir, o)
		if err != nil && !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrInvalid) {
			return err
		}
	}
	return nil
}

// carReader reads a CAR. What it allocates is bounded by what is there.
type carReader struct {
	r    *bufio.Reader
	read int64
}

func newCARReader(r io.Reader) *carReader { return &carReader{r: bufio.NewReaderSize(r, 1<<16)} }

// section reads the length of a section; io.EOF says that there is none.
func (in *carReader) section(limit uint64) (int, error) {
	var v uint64
	for i := 0; ; i++ {
		b, err := in.r.ReadByte()
		if errors.Is(err, io.EOF) && i > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		in.read++
		if i > 8 || (i > 0 && b == 0) {
			return 0, fmt.Errorf("%w: bad varint", ErrInvalid)
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			break
		}
	}
	if v == 0 || v > limit {
		return 0, fmt.Errorf("%w: section of %d bytes, at most %d are allowed", ErrTooLarge, v, limit)
	}
	return int(v), nil
}

func (in *carReader) bytes(n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := io.ReadFull(in.r, b)
	in.read += int64(got)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// next reads a block, whose hash it does not check.
func (in *carReader) next() (cid.Cid, []byte, error) {
	n, err := in.section(MaxBlockBytes + maxCARCID)
	if err != nil {
		return cid.Undef, nil, err
	}
	b, err := in.bytes(n)
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("read block: %w", err)
	}
	if n < cidBytes {
		return cid.Undef, nil, fmt.Errorf("%w: section of %d bytes has no CID of ours", ErrInvalid, n)
	}
	c, err := cid.Cast(b[:cidBytes])
	if err == nil {
		err = checkCID(c)
	}
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("%w: CID of a block: %w", ErrInvalid, err)
	}
	if n-cidBytes > MaxBlockBytes {
		return cid.Undef, nil, fmt.Errorf("block %s: %w: %d bytes, at most %d are allowed", c, ErrTooLarge, n-cidBytes, MaxBlockBytes)
	}
	return c, b[cidBytes:], nil
}

// header reads the header and returns its roots.
func (in *carReader) header() ([]cid.Cid, error) {
	n, err := in.section(maxCARHeader)
	if err != nil {
		return nil, fmt.Errorf("header: %w: %w", ErrInvalid, err)
	}
	b, err := in.bytes(n)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	roots, err := parseCARHeader(b)
	if err != nil {
		return nil, fmt.Errorf("header: %w: %w", ErrInvalid, err)
	}
	return roots, nil
}

// parseCARHeader reads the map of dag-cbor, whose keys are in either order.
func parseCARHeader(b []byte) (roots []cid.Cid, err error) {
	if bytes.Contains(b, []byte("version\x02")) {
		return nil, errors.New("a CAR of version 2; convert it with \"car detach\" or export it again")
	}
	b, ok := bytes.CutPrefix(b, []byte{0xa2})
	if !ok {
		return nil, errors.New("no CAR of version 1")
	}
	version, listed := false, false
	for range 2 {
		switch {
		case !version && bytes.HasPrefix(b, []byte("\x67version\x01")):
			version, b = true, b[9:]
		case !listed && bytes.HasPrefix(b, []byte("\x65roots")):
			listed = true
			if roots, b, err = parseCARRoots(b[6:]); err != nil {
				return nil, err
			}
		default:
			return nil, errors.New("it must have roots and version 1, and nothing else")
		}
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%d bytes after its end", len(b))
	}
	return roots, nil
}

func parseCARRoots(b []byte) (roots []cid.Cid, rest []byte, err error) {
	n, b, err := cborLength(b, 0x80)
	if err != nil {
		return nil, nil, err
	}
	if n > maxCARRoots {
		return nil, nil, fmt.Errorf("%d roots, at most %d are allowed", n, maxCARRoots)
	}
	for range n {
		item, ok := bytes.CutPrefix(b, []byte{0xd8, 0x2a})
		if !ok {
			return nil, nil, errors.New("a root is no CID")
		}
		var size int
		if size, b, err = cborLength(item, 0x40); err != nil {
			return nil, nil, err
		}
		if size != cidBytes+1 || len(b) < size || b[0] != 0 {
			return nil, nil, errors.New("a root is no CID of version 1 with sha2-256")
		}
		c, err := cid.Cast(b[1:size])
		if err == nil {
			err = checkCID(c)
		}
		if err != nil {
			return nil, nil, err
		}
		roots = append(roots, c)
		b = b[size:]
	}
	return roots, b, nil
}

// cborLength reads the head of an item of the given major type.
func cborLength(b []byte, major byte) (n int, rest []byte, err error) {
	if len(b) == 0 || b[0]&0xe0 != major {
		return 0, nil, errors.New("unexpected type of CBOR")
	}
	v := b[0] & 0x1f
	switch {
	case v < 24:
		return int(v), b[1:], nil
	case v == 24 && len(b) > 1 && b[1] >= 24:
		return int(b[1]), b[2:], nil
	case v == 25 && len(b) > 2 && b[1] > 0:
		return int(b[1])<<8 | int(b[2]), b[3:], nil
	}
	return 0, nil, errors.New("unexpected length in CBOR")
}
