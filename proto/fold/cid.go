package fold

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// The profile of all files: raw leaves of 1 MiB, nodes of up to 1,024 links,
// balanced.
const (
	leafBytes = 1 << 20
	nodeLinks = 1024
)

// FileCID returns the CID of b as a UnixFS file of raw 1 MiB leaves: the root
// under which a shard store keeps the same bytes.
func FileCID(b []byte) cid.Cid {
	return fileCID(int64(len(b)), leafBytes, nodeLinks, func(from, to int64, _ []byte) []byte { return b[from:to] })
}

// link is a node of the tree that is not hashed yet into its parent.
type link struct {
	cid   cid.Cid
	file  uint64 // bytes of the file below it
	whole uint64 // file and nodes
}

// fileCID hashes a file of size bytes. read returns the bytes of a leaf, and
// may use buf, of leaf bytes, for them; it is called from several goroutines.
func fileCID(size, leaf int64, fanout int, read func(from, to int64, buf []byte) []byte) cid.Cid {
	count := int(max(1, (size+leaf-1)/leaf))
	level := make([]link, count)
	parallel(count, func(lo, hi int) {
		buf := make([]byte, leaf)
		for i := lo; i < hi; i++ {
			from := int64(i) * leaf
			b := read(from, min(size, from+leaf), buf)
			level[i] = link{hashCID(cid.Raw, b), uint64(len(b)), uint64(len(b))}
		}
	})
	for len(level) > 1 {
		var parents []link
		for from := 0; from < len(level); from += fanout {
			parents = append(parents, parentOf(level[from:min(len(level), from+fanout)]))
		}
		level = parents
	}
	return level[0].cid
}

// parentOf encodes the dag-pb node of a UnixFS file with the given children:
// first the links (hash, empty name, size of the tree), then the UnixFS data
// (type file, size of the file, size of each child's part).
func parentOf(children []link) link {
	var node, data []byte
	p := link{}
	data = append(data, 0x08, 2)
	for _, c := range children {
		p.file += c.file
		p.whole += c.whole
	}
	data = binary.AppendUvarint(append(data, 0x18), p.file)
	for _, c := range children {
		id := c.cid.Bytes()
		l := binary.AppendUvarint([]byte{0x0a}, uint64(len(id)))
		l = append(append(l, id...), 0x12, 0)
		l = binary.AppendUvarint(append(l, 0x18), c.whole)
		node = binary.AppendUvarint(append(node, 0x12), uint64(len(l)))
		node = append(node, l...)
		data = binary.AppendUvarint(append(data, 0x20), c.file)
	}
	node = binary.AppendUvarint(append(node, 0x0a), uint64(len(data)))
	node = append(node, data...)
	p.whole += uint64(len(node))
	p.cid = hashCID(cid.DagProtobuf, node)
	return p
}

func hashCID(codec uint64, b []byte) cid.Cid {
	sum := sha256.Sum256(b)
	hash, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		panic("bug: the length of a hash: " + err.Error())
	}
	return cid.NewCidV1(codec, hash)
}
