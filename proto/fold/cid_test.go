//go:build !lean

package fold

import (
	"bytes"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	blockstore "github.com/ipfs/boxo/blockstore"
	chunker "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	datastore "github.com/ipfs/go-datastore"
	"github.com/multiformats/go-multihash"
)

// importFile is how the IPFS world builds a file.
func importFile(t *testing.T, b []byte, leaf int64, links int) cid.Cid {
	t.Helper()
	blocks := blockstore.NewBlockstore(datastore.NewMapDatastore())
	params := helpers.DagBuilderParams{
		Maxlinks:   links,
		RawLeaves:  true,
		CidBuilder: cid.V1Builder{Codec: cid.DagProtobuf, MhType: multihash.SHA2_256},
		Dagserv:    merkledag.NewDAGService(blockservice.New(blocks, nil)),
	}
	builder, err := params.New(chunker.NewSizeSplitter(bytes.NewReader(b), leaf))
	if err != nil {
		t.Fatal(err)
	}
	node, err := balanced.Layout(builder)
	if err != nil {
		t.Fatal(err)
	}
	return node.Cid()
}

// TestFileCID compares with boxo, in trees of no, one, two and three levels.
func TestFileCID(t *testing.T) {
	r := prng(1)
	b := make([]byte, 1000)
	for i := range b {
		b[i] = byte(r.next())
	}
	for _, size := range []int{0, 1, 7, 8, 9, 16, 31, 32, 33, 100, 128, 129, 512, 513, 1000} {
		got := fileCID(int64(size), 8, 4, func(from, to int64, _ []byte) []byte { return b[from:to] })
		if want := importFile(t, b[:size], 8, 4); got != want {
			t.Errorf("%d bytes: %v, want %v", size, got, want)
		}
	}
	big := make([]byte, 3*leafBytes+5)
	for _, size := range []int{0, 1, leafBytes, leafBytes + 1, len(big)} {
		if got, want := FileCID(big[:size]), importFile(t, big[:size], leafBytes, nodeLinks); got != want {
			t.Errorf("%d bytes: %v, want %v", size, got, want)
		}
	}
}

// TestStateCIDAcrossLeaves: leaves end within theta, within momentum and
// within the header.
func TestStateCIDAcrossLeaves(t *testing.T) {
	l := newLayout(t, Tensor{"a", 100_003, 1}, Tensor{"b", 300_001, 1})
	s := randomState(l, 1)
	b := s.Marshal()
	if got, want := s.CID(), importFile(t, b, leafBytes, nodeLinks); got != want {
		t.Errorf("CID is %v, want %v", got, want)
	}
	header := stateHeader(l)
	for _, leaf := range []int64{4096, 1 << 19} {
		got := fileCID(int64(len(b)), leaf, 8, func(from, to int64, buf []byte) []byte { return s.read(header, from, to, buf) })
		want := fileCID(int64(len(b)), leaf, 8, func(from, to int64, _ []byte) []byte { return b[from:to] })
		if got != want {
			t.Errorf("leaves of %d bytes: %v, want %v", leaf, got, want)
		}
	}
	l = newLayout(t, Tensor{"a", 1, 3}, Tensor{"b", 2, 1})
	s, header = randomState(l, 2), stateHeader(l)
	b = s.Marshal()
	for leaf := int64(4); leaf < 100; leaf += 4 {
		for from := int64(0); from < int64(len(b)); from += leaf {
			to := min(int64(len(b)), from+leaf)
			if got := s.read(header, from, to, make([]byte, leaf)); !bytes.Equal(got, b[from:to]) {
				t.Fatalf("bytes %d to %d are %x, want %x", from, to, got, b[from:to])
			}
		}
	}
}
