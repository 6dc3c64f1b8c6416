package shard

import (
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// The part of dag-pb and UnixFS that ipfs add --raw-leaves writes, with one
// accepted encoding for each node, so that decoding and encoding are inverse.
//
//	node = { 0x12 len link } 0x0a len data
//	link = 0x0a len cid   0x12 len name   0x18 size
//	data = 0x08 type [ 0x18 filesize { 0x20 blocksize } ]
//
// go-codec-dagpb also reads other orders and absent fields, none of which
// ipfs add writes; accepting them would give one folder many CIDs.

// kind says what a block is.
type kind uint8

const (
	kindLeaf kind = iota // raw bytes of a file
	kindFile             // file node: links to leaves or file nodes
	kindDir              // directory node: named links
)

// Types of UnixFS.
const (
	typeDirectory = 1
	typeFile      = 2
	typeHAMT      = 5
)

// Link is a link of a block to another.
type Link struct {
	Name string // of the entry in a directory, "" in a file
	CID  cid.Cid
	Size uint64 // of all blocks below, repeated ones counted again, as the block claims
}

// node is a decoded block.
type node struct {
	kind       kind
	links      []Link
	blockSizes []uint64 // of a file node, beside links: bytes of content below
	fileSize   uint64   // bytes of content; 0 for a directory
	size       uint64   // of the block and all below, as its links claim
}

// newCID makes the CIDv1 of a block with the hash d.
func newCID(codec uint64, d digest) cid.Cid {
	mh := make([]byte, 0, 2+sha256Len)
	mh = append(mh, sha256Code, sha256Len)
	mh = append(mh, d[:]...)
	return cid.NewCidV1(codec, multihash.Multihash(mh))
}

// checkCID reports why a link to c is not followed.
func checkCID(c cid.Cid) error {
	if !c.Defined() {
		return fmt.Errorf("%w: undefined CID", ErrInvalid)
	}
	p := c.Prefix()
	if p.Version != 1 || p.MhType != sha256Code || p.MhLength != sha256Len || (p.Codec != rawCodec && p.Codec != dagPB) {
		return fmt.Errorf("%w: CID %s is not version 1, raw or dag-pb, sha2-256", ErrInvalid, c)
	}
	return nil
}

// decodeNode decodes the bytes of block c, which were checked against c.
func decodeNode(c cid.Cid, data []byte) (*node, error) {
	n, err := decodeBlock(c, data)
	if err != nil {
		return nil, fmt.Errorf("block %s: %w", c, err)
	}
	return n, nil
}

func decodeBlock(c cid.Cid, data []byte) (*node, error) {
	if err := checkCID(c); err != nil {
		return nil, err
	}
	if len(data) > MaxBlockBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(data), MaxBlockBytes)
	}
	if c.Prefix().Codec == rawCodec {
		return &node{kind: kindLeaf, fileSize: uint64(len(data)), size: uint64(len(data))}, nil
	}
	n, err := parseNode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := n.check(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return n, nil
}

// check tests what a node says about what is below it.
func (n *node) check(data []byte) error {
	n.size = uint64(len(data))
	for i, l := range n.links {
		if err := checkCID(l.CID); err != nil {
			return fmt.Errorf("link %d: %w", i, err)
		}
		if l.Size > maxDAGBytes {
			return fmt.Errorf("link %d claims %d bytes, at most %d are allowed", i, l.Size, uint64(maxDAGBytes))
		}
		n.size += l.Size // no overflow: fewer than 2^14 links of at most 2^50
	}
	if n.size > maxDAGBytes {
		return fmt.Errorf("links claim %d bytes, at most %d are allowed", n.size, uint64(maxDAGBytes))
	}
	if n.kind == kindDir {
		if len(data) > maxDirBytes {
			return fmt.Errorf("directory block of %d bytes, at most %d are allowed", len(data), maxDirBytes)
		}
		return checkNames(len(n.links), func(i int) string { return n.links[i].Name })
	}
	if len(n.links) == 0 {
		return fmt.Errorf("file node without links: was it added without --raw-leaves?")
	}
	if len(n.links) != len(n.blockSizes) {
		return fmt.Errorf("%d links and %d block sizes", len(n.links), len(n.blockSizes))
	}
	var sum uint64
	for i, l := range n.links {
		bs := n.blockSizes[i]
		leaf := l.CID.Prefix().Codec == rawCodec
		switch {
		case l.Name != "":
			return fmt.Errorf("link %d of a file has the name %q", i, l.Name)
		case bs == 0:
			return fmt.Errorf("link %d of a file to no bytes", i)
		case leaf && bs != l.Size, !leaf && bs >= l.Size:
			return fmt.Errorf("link %d claims %d bytes of content in %d bytes", i, bs, l.Size)
		}
		sum += bs
	}
	if sum != n.fileSize {
		return fmt.Errorf("file of %d bytes, its parts have %d", n.fileSize, sum)
	}
	return nil
}

// parseNode reads a dag-pb node and the UnixFS data in it.
func parseNode(b []byte) (*node, error) {
	n := new(node)
	for len(b) > 0 && b[0] == 0x12 {
		body, rest, err := lengthPrefixed(b[1:])
		if err != nil {
			return nil, fmt.Errorf("link %d: %w", len(n.links), err)
		}
		l, err := parseLink(body)
		if err != nil {
			return nil, fmt.Errorf("link %d: %w", len(n.links), err)
		}
		n.links = append(n.links, l)
		b = rest
	}
	if len(b) == 0 || b[0] != 0x0a {
		return nil, fmt.Errorf("no UnixFS data after the links")
	}
	data, rest, err := lengthPrefixed(b[1:])
	if err != nil {
		return nil, fmt.Errorf("UnixFS data: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the UnixFS data", len(rest))
	}
	if err := n.parseUnixFS(data); err != nil {
		return nil, fmt.Errorf("UnixFS data: %w", err)
	}
	return n, nil
}

func parseLink(b []byte) (Link, error) {
	var l Link
	raw, b, err := field(b, 0x0a)
	if err != nil {
		return l, fmt.Errorf("CID: %w", err)
	}
	// The length is checked first: a CID may nest identity hashes of any size.
	if len(raw) != cidBytes {
		return l, fmt.Errorf("CID of %d bytes, must be %d", len(raw), cidBytes)
	}
	if l.CID, err = cid.Cast(raw); err != nil {
		return l, fmt.Errorf("CID: %w", err)
	}
	name, b, err := field(b, 0x12)
	if err != nil {
		return l, fmt.Errorf("name: %w", err)
	}
	if len(name) > maxNameBytes {
		return l, fmt.Errorf("name of %d bytes, at most %d are allowed", len(name), maxNameBytes)
	}
	l.Name = string(name)
	if len(b) == 0 || b[0] != 0x18 {
		return l, fmt.Errorf("no size")
	}
	if l.Size, b, err = uvarint(b[1:]); err != nil {
		return l, fmt.Errorf("size: %w", err)
	}
	if len(b) > 0 {
		return l, fmt.Errorf("%d bytes after the size", len(b))
	}
	return l, nil
}

func (n *node) parseUnixFS(b []byte) error {
	if len(b) < 2 || b[0] != 0x08 {
		return fmt.Errorf("no type")
	}
	t, b := b[1], b[2:]
	switch t {
	case typeDirectory:
		n.kind = kindDir
		if len(b) > 0 {
			return fmt.Errorf("%d bytes after the type of a directory", len(b))
		}
		return nil
	case typeHAMT:
		return fmt.Errorf("sharded directory (HAMT): split the folder so that each block stays below %d bytes", maxDirBytes)
	case typeFile:
		n.kind = kindFile
	default:
		return fmt.Errorf("type %d, must be a file or a directory", t)
	}
	if len(b) == 0 || b[0] != 0x18 {
		return fmt.Errorf("file node with data in it or without a size: was it added without --raw-leaves?")
	}
	var err error
	if n.fileSize, b, err = uvarint(b[1:]); err != nil {
		return fmt.Errorf("file size: %w", err)
	}
	for len(b) > 0 {
		if b[0] != 0x20 {
			return fmt.Errorf("something else than block sizes")
		}
		if len(n.blockSizes) == maxFileLinks { // as many as links, which check tests
			return fmt.Errorf("more than %d parts", maxFileLinks)
		}
		var size uint64
		if size, b, err = uvarint(b[1:]); err != nil {
			return fmt.Errorf("block size: %w", err)
		}
		n.blockSizes = append(n.blockSizes, size)
	}
	return nil
}

// encode is the inverse of parseNode.
func (n *node) encode() []byte {
	var data []byte
	if n.kind == kindDir {
		data = []byte{0x08, typeDirectory}
	} else {
		data = append(make([]byte, 0, 16+6*len(n.blockSizes)), 0x08, typeFile, 0x18)
		data = binary.AppendUvarint(data, n.fileSize)
		for _, bs := range n.blockSizes {
			data = append(data, 0x20)
			data = binary.AppendUvarint(data, bs)
		}
	}
	out := make([]byte, 0, len(n.links)*64+len(data)+8)
	var link []byte
	for _, l := range n.links {
		link = append(link[:0], 0x0a, cidBytes)
		link = append(link, l.CID.Bytes()...)
		link = append(link, 0x12)
		link = binary.AppendUvarint(link, uint64(len(l.Name)))
		link = append(link, l.Name...)
		link = append(link, 0x18)
		link = binary.AppendUvarint(link, l.Size)
		out = append(out, 0x12)
		out = binary.AppendUvarint(out, uint64(len(link)))
		out = append(out, link...)
	}
	out = append(out, 0x0a)
	out = binary.AppendUvarint(out, uint64(len(data)))
	return append(out, data...)
}

// field reads one length-delimited field with the given tag.
func field(b []byte, tag byte) (body, rest []byte, err error) {
	if len(b) == 0 || b[0] != tag {
		return nil, nil, fmt.Errorf("missing")
	}
	return lengthPrefixed(b[1:])
}

func lengthPrefixed(b []byte) (body, rest []byte, err error) {
	n, b, err := uvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(b)) {
		return nil, nil, fmt.Errorf("length %d, %d bytes are left", n, len(b))
	}
	return b[:n], b[n:], nil
}

// uvarint reads a varint and refuses one that is longer than it need be.
func uvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || (n > 1 && b[n-1] == 0) {
		return 0, nil, fmt.Errorf("bad varint")
	}
	return v, b[n:], nil
}
