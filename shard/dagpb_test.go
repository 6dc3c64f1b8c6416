package shard

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

func pbBlock(data []byte) blocks.Block {
	b, err := blocks.NewBlockWithCid(data, newCID(dagPB, sha256.Sum256(data)))
	if err != nil {
		panic(err)
	}
	return b
}

func leafLink(name string, size uint64) Link {
	return Link{Name: name, CID: newCID(rawCodec, sha256.Sum256([]byte(name))), Size: size}
}

func dirNode(links ...Link) *node { return &node{kind: kindDir, links: links} }

func fileNode(links ...Link) *node {
	n := &node{kind: kindFile, links: links}
	for i := range links {
		n.links[i].Name = ""
		n.blockSizes = append(n.blockSizes, links[i].Size)
		n.fileSize += links[i].Size
	}
	return n
}

func TestLinks(t *testing.T) {
	dir := dirNode(leafLink("a", 1), leafLink("b", 0))
	got, err := Links(pbBlock(dir.encode()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(dir.links, got, cmp.Comparer(cid.Cid.Equals)); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if got, err := Links(rawBlock([]byte("leaf"))); err != nil || len(got) > 0 {
		t.Errorf("links of a leaf = %v, %v", got, err)
	}
}

// Each case breaks one rule of FORMAT.md.
func TestLinksRefuses(t *testing.T) {
	sub := Link{CID: newCID(dagPB, digest{1}), Size: 100}
	many := func(n int) []Link {
		links := make([]Link, n)
		for i := range links {
			links[i] = leafLink("x", 1)
		}
		return links
	}
	edit := func(n *node, f func(*node)) []byte { f(n); return n.encode() }
	link := func(c []byte, name string, rest ...byte) []byte {
		l := append([]byte{0x0a, byte(len(c))}, c...)
		l = append(append(l, 0x12, byte(len(name))), name...)
		l = append(l, rest...)
		return append([]byte{0x12, byte(len(l))}, l...)
	}
	v0, _ := multihash.Sum([]byte("x"), multihash.SHA2_256, -1)
	v0link := link(cid.NewCidV0(v0).Bytes(), "a", 0x18, 1)
	good := newCID(rawCodec, digest{2}).Bytes()
	dirData := []byte{0x0a, 2, 8, 1}
	long := dirNode()
	for i := range 2000 {
		long.links = append(long.links, leafLink(strings.Repeat("y", 100)+string(rune('a'+i/26%26))+string(rune('a'+i/676))+string(rune('a'+i%26)), 1))
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"no bytes", nil, "no UnixFS data"},
		{"garbage", []byte("\xff\xff\xff"), "no UnixFS data"},
		{"HAMT", []byte{0x0a, 2, 8, 5}, "HAMT"},
		{"symbolic link", []byte{0x0a, 2, 8, 4}, "type 4"},
		{"metadata", []byte{0x0a, 2, 8, 3}, "type 3"},
		{"file with data in it", []byte{0x0a, 7, 8, 2, 0x12, 1, 'x', 0x18, 1}, "--raw-leaves"},
		{"empty file node", []byte{0x0a, 4, 8, 2, 0x18, 0}, "--raw-leaves"},
		{"directory with a mode", []byte{0x0a, 4, 8, 1, 0x38, 1}, "after the type"},
		{"bytes at the end", append(dirNode().encode(), 0), "after the UnixFS data"},
		{"data before links", append([]byte{0x0a, 2, 8, 1}, link(good, "a", 0x18, 1)...), "after the UnixFS data"},
		{"long varint", []byte{0x0a, 0x82, 0x00, 8, 1}, "varint"},
		{"length beyond the end", []byte{0x0a, 0x7f, 8, 1}, "bytes are left"},
		{"huge length", []byte{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 8}, "bytes are left"},
		{"CIDv0", append(v0link, dirData...), "CID of 34 bytes"},
		{"unknown codec", append(link(append([]byte{1, 0x71}, good[2:]...), "a", 0x18, 1), dirData...), "raw or dag-pb"},
		{"unknown hash", append(link(append([]byte{1, 0x55, 0x13}, good[3:]...), "a", 0x18, 1), dirData...), "sha2-256"},
		{"link without size", append(link(good, "a"), dirData...), "no size"},
		{"link with more", append(link(good, "a", 0x18, 1, 0x20, 1), dirData...), "after the size"},
		{"names descend", dirNode(leafLink("b", 1), leafLink("a", 1)).encode(), "ascend"},
		{"names repeat", dirNode(leafLink("a", 1), leafLink("a", 1)).encode(), "ascend"},
		{"names differ in case", dirNode(leafLink("A", 1), leafLink("a", 1)).encode(), "ignore case"},
		{"name is a path", dirNode(leafLink("../../etc/passwd", 1)).encode(), "begins with a dot"},
		{"name has a slash", dirNode(leafLink("a/b", 1)).encode(), "cannot write"},
		{"name too long", dirNode(leafLink(strings.Repeat("n", 256), 1)).encode(), "name of 256 bytes"},
		{"size too large", dirNode(leafLink("a", 1<<50+1)).encode(), "claims"},
		{"sizes too large", dirNode(leafLink("a", 1<<49), leafLink("b", 1<<49)).encode(), "claim"},
		{"directory too large", long.encode(), "directory block of"},
		{"file with names", edit(fileNode(leafLink("", 1)), func(n *node) { n.links[0].Name = "a" }), "has the name"},
		{"sizes do not add up", edit(fileNode(leafLink("", 1)), func(n *node) { n.fileSize = 2 }), "its parts have 1"},
		{"sizes overflow", edit(fileNode(sub, sub), func(n *node) { n.blockSizes = []uint64{1 << 63, 1 << 63}; n.fileSize = 0 }), "of content in"},
		{"fewer sizes", edit(fileNode(leafLink("", 1)), func(n *node) { n.blockSizes = nil; n.fileSize = 0 }), "block sizes"},
		{"part without bytes", fileNode(leafLink("", 0)).encode(), "no bytes"},
		{"leaf larger than its block", edit(fileNode(leafLink("", 1)), func(n *node) { n.blockSizes[0] = 2; n.fileSize = 2 }), "of content in"},
		{"node without overhead", fileNode(sub).encode(), "of content in"},
		{"too many parts", fileNode(many(maxFileLinks + 1)...).encode(), "more than 2048 parts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Links(pbBlock(tt.data))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Links = %v, want ErrInvalid and %q", err, tt.want)
			}
		})
	}
	if _, err := Links(rawBlock(make([]byte, MaxBlockBytes+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Links of a large leaf = %v, want ErrTooLarge", err)
	}
	if _, err := Links(pbBlock(make([]byte, MaxBlockBytes+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Links of a large node = %v, want ErrTooLarge", err)
	}
	if _, err := Links(pbBlock(fileNode(many(maxFileLinks)...).encode())); err != nil {
		t.Errorf("Links of %d parts = %v", maxFileLinks, err)
	}
}

// What decodes encodes back to the same bytes, and keeps the limits.
func FuzzLinks(f *testing.F) {
	f.Add([]byte{})
	f.Add(dirNode().encode())
	f.Add(dirNode(leafLink("a", 1), leafLink("b", 300), Link{"c", newCID(dagPB, digest{3}), 1 << 40}).encode())
	f.Add(fileNode(leafLink("", ChunkBytes), leafLink("", 7)).encode())
	f.Add([]byte{0x0a, 2, 8, 5})
	f.Add([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newCID(dagPB, sha256.Sum256(data))
		n, err := decodeNode(c, data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		if again := n.encode(); !bytes.Equal(again, data) {
			t.Errorf("%x encodes back to %x", data, again)
		}
		if n.size > maxDAGBytes || n.fileSize > n.size {
			t.Errorf("size %d, file size %d", n.size, n.fileSize)
		}
		for _, l := range n.links {
			if n.kind == kindDir && CheckName(l.Name) != nil {
				t.Errorf("name %q", l.Name)
			}
		}
	})
}
