package pull

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/moot-net/moot/shard"
)

// Protocol is the name of what is spoken; see the package comment.
const Protocol protocol.ID = "/moot/shard/1"

// What a stream is for: its first byte.
const (
	streamBlocks = 1
	streamHave   = 2
	streamWrong  = 3
	streamParts  = 4
)

// status is the first byte of a response.
type status byte

const (
	statusOK status = iota
	statusMissing
	statusBusy
)

// kind is what an entry of a have stream says of a leaf.
type kind uint32

const (
	kindHave  kind = iota
	kindAsked      // the peer has asked somebody for it
)

// entry is a leaf and a kind: 2 × leaf + kind.
type entry uint32

func newEntry(leaf int, k kind) entry { return entry(uint32(leaf)<<1 | uint32(k)) }
func (e entry) leaf() int             { return int(e >> 1) }
func (e entry) kind() kind            { return kind(e & 1) }

const (
	maxLeaves  = 1 << 24 // of a DAG, as many as shard takes blocks
	maxEntries = 4096    // of one update
	cidBytes   = 36
)

// errProtocol is wrapped when a peer sends what the protocol forbids.
var errProtocol = errors.New("against the protocol")

// readUvarint reads a number of at most limit in its shortest form.
func readUvarint(r io.ByteReader, limit uint64, what string) (uint64, error) {
	var n uint64
	for shift := uint(0); ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			if shift > 0 {
				err = unexpected(err)
			}
			return 0, err
		}
		if shift >= 63 {
			return 0, fmt.Errorf("%w: %s is longer than a number can be", errProtocol, what)
		}
		if b == 0 && shift > 0 {
			return 0, fmt.Errorf("%w: %s is not in its shortest form", errProtocol, what)
		}
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	if n > limit {
		return 0, fmt.Errorf("%w: %s is %d, at most %d", errProtocol, what, n, limit)
	}
	return n, nil
}

func appendRequest(b []byte, c cid.Cid) []byte {
	return append(binary.AppendUvarint(b, cidBytes), c.Bytes()...)
}

// readRequest reads a CID. It returns io.EOF when there is none.
func readRequest(r *bufio.Reader) (cid.Cid, error) {
	n, err := readUvarint(r, cidBytes, "length of a request")
	if err != nil {
		return cid.Undef, err
	}
	if n != cidBytes {
		return cid.Undef, fmt.Errorf("%w: request of %d bytes", errProtocol, n)
	}
	var b [cidBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return cid.Undef, unexpected(err)
	}
	if b[0] != 1 || (b[1] != cid.Raw && b[1] != cid.DagProtobuf) || b[2] != 0x12 || b[3] != 32 {
		return cid.Undef, fmt.Errorf("%w: CID is not version 1, raw or dag-pb, sha2-256", errProtocol)
	}
	c, err := cid.Cast(b[:])
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", errProtocol, err)
	}
	return c, nil
}

// span is a part of a block. The zero value is all of it.
type span struct{ from, n int64 }

func appendPartRequest(b []byte, c cid.Cid, part span) []byte {
	b = binary.AppendUvarint(appendRequest(b, c), uint64(part.from))
	return binary.AppendUvarint(b, uint64(part.n))
}

// readPartRequest reads a CID and which part of its block is wanted. It returns
// io.EOF when there is none.
func readPartRequest(r *bufio.Reader) (cid.Cid, span, error) {
	c, err := readRequest(r)
	if err != nil {
		return c, span{}, err
	}
	from, err := readUvarint(r, shard.MaxBlockBytes, "beginning of a part")
	if err != nil {
		return c, span{}, unexpected(err)
	}
	n, err := readUvarint(r, shard.MaxBlockBytes, "length of a part")
	if err != nil {
		return c, span{}, unexpected(err)
	}
	if n == 0 {
		return c, span{}, fmt.Errorf("%w: a part of no bytes", errProtocol)
	}
	return c, span{int64(from), int64(n)}, nil
}

// unexpected is the error of a stream that ended inside something.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func readStatus(r *bufio.Reader) (status, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	if s := status(b); s <= statusBusy {
		return s, nil
	}
	return 0, fmt.Errorf("%w: status %d", errProtocol, b)
}

// appendBlockHeader begins the response that has a block of n bytes.
func appendBlockHeader(b []byte, n int) []byte {
	return binary.AppendUvarint(append(b, byte(statusOK)), uint64(n))
}

// readBlockHeader reads all of a response but the bytes of the block.
func readBlockHeader(r *bufio.Reader) (s status, n int, err error) {
	if s, err = readStatus(r); err != nil || s != statusOK {
		return s, 0, err
	}
	size, err := readUvarint(r, shard.MaxBlockBytes, "length of a block")
	return s, int(size), unexpected(err)
}

// appendHave begins a have stream with what is there.
func appendHave(b []byte, leaves int, have bitset) []byte {
	b = binary.AppendUvarint(append(b, byte(statusOK)), uint64(leaves))
	return have.appendBytes(b, leaves)
}

// readHave reads the bitmap of a DAG of the given leaves.
func readHave(r *bufio.Reader, leaves int) (s status, have bitset, err error) {
	if s, err = readStatus(r); err != nil || s != statusOK {
		return s, nil, err
	}
	n, err := readUvarint(r, maxLeaves, "number of leaves")
	if err != nil {
		return s, nil, unexpected(err)
	}
	if n != uint64(leaves) {
		return s, nil, fmt.Errorf("%w: %d leaves, the DAG has %d", errProtocol, n, leaves)
	}
	have, err = readBitset(r, leaves)
	return s, have, err
}

func appendUpdate(b []byte, es []entry) []byte {
	b = binary.AppendUvarint(b, uint64(len(es)))
	for _, e := range es {
		b = binary.AppendUvarint(b, uint64(e))
	}
	return b
}

// readUpdate appends the entries of an update to es.
func readUpdate(r *bufio.Reader, leaves int, es []entry) ([]entry, error) {
	n, err := readUvarint(r, maxEntries, "number of entries")
	if err != nil {
		return es, err
	}
	for range n {
		if leaves == 0 {
			return es, fmt.Errorf("%w: entry of a DAG without leaves", errProtocol)
		}
		e, err := readUvarint(r, uint64(newEntry(leaves-1, kindAsked)), "entry")
		if err != nil {
			return es, unexpected(err)
		}
		es = append(es, entry(e))
	}
	return es, nil
}
