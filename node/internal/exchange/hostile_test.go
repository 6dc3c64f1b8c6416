package exchange

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/moot-net/moot/shard"
)

func leaf(b []byte) blocks.Block { return block(cid.Raw, b) }

func block(codec uint64, b []byte) blocks.Block {
	mh, err := multihash.Sum(b, multihash.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	blk, err := blocks.NewBlockWithCid(b, cid.NewCidV1(codec, mh))
	if err != nil {
		panic(err)
	}
	return blk
}

// claim is a link that says what it likes.
type claim struct {
	to    blocks.Block
	bytes uint64 // of content
	size  uint64 // of blocks
}

// fileNode writes a node of a file as shard/FORMAT.md says, with any claims.
func fileNode(claims ...claim) blocks.Block {
	frame := func(b []byte, tag byte, data []byte) []byte {
		return append(binary.AppendUvarint(append(b, tag), uint64(len(data))), data...)
	}
	number := func(b []byte, tag byte, n uint64) []byte { return binary.AppendUvarint(append(b, tag), n) }
	var out []byte
	var total uint64
	sizes := []byte{}
	for _, c := range claims {
		l := frame(nil, 0x0a, c.to.Cid().Bytes())
		l = frame(l, 0x12, nil)
		l = number(l, 0x18, c.size)
		out = frame(out, 0x12, l)
		sizes = number(sizes, 0x20, c.bytes)
		total += c.bytes
	}
	data := append(number([]byte{0x08, 2}, 0x18, total), sizes...)
	return block(cid.DagProtobuf, frame(out, 0x0a, data))
}

func put(t *testing.T, bs blockstore.Blockstore, blks ...blocks.Block) {
	t.Helper()
	for _, b := range blks {
		if err := bs.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClaimsAreChecked(t *testing.T) {
	t.Parallel()
	small, large := leaf([]byte("small")), leaf(content(1, mib))
	honest := fileNode(claim{small, 5, 5}, claim{large, mib, mib})
	if links, err := shard.Links(honest); err != nil || len(links) != 2 {
		t.Fatalf("the test's nodes are not shard's: %v", err)
	}
	sizeOf := func(b blocks.Block) uint64 { return uint64(len(b.RawData())) }
	understated := fileNode(claim{large, 10, 10})
	inner := fileNode(claim{large, mib, mib})
	bs := memory()
	put(t, bs, small, large, honest, understated, inner)
	roots := map[string]struct {
		root blocks.Block
		max  int64
		want error
	}{
		"honest":                   {honest, int64(sizeOf(honest)) + 5 + mib, nil},
		"honest, one byte more":    {honest, int64(sizeOf(honest)) + 5 + mib - 1, ErrTooLarge},
		"leaf larger than link":    {understated, 0, shard.ErrInvalid},
		"leaf smaller than link":   {fileNode(claim{small, 6, 6}), 0, shard.ErrInvalid},
		"node larger than link":    {fileNode(claim{inner, mib - 1, mib}), 0, shard.ErrInvalid},
		"node smaller than link":   {fileNode(claim{inner, mib, 2 * mib}), 0, shard.ErrInvalid},
		"ten gigabytes":            {fileNode(claim{inner, 10 << 30, 11 << 30}), 1 << 30, ErrTooLarge},
		"one leaf, two sizes":      {fileNode(claim{small, 5, 5}, claim{small, 6, 6}), 0, shard.ErrInvalid},
		"not canonical":            {block(cid.DagProtobuf, append(honest.RawData(), 0)), 0, shard.ErrInvalid},
		"leaf that is no node":     {block(cid.DagProtobuf, []byte("hello")), 0, shard.ErrInvalid},
		"single leaf":              {small, 5, nil},
		"single leaf, a byte more": {small, 4, ErrTooLarge},
	}
	for _, tt := range roots {
		put(t, bs, tt.root)
	}
	seed := newNode(t, bs, nodeOptions{})
	for name, tt := range roots {
		n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
		err := n.e.Fetch(within(t, 3*time.Minute), tt.root.Cid(), FetchOptions{MaxBytes: tt.max})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: Fetch() = %v, want %v", name, err, tt.want)
		}
		if got := n.e.Stats().PulledBytes; tt.want != nil && name == "ten gigabytes" && got > sizeOf(tt.root) {
			t.Errorf("%s: pulled %d bytes", name, got)
		}
		n.stop()
	}
}

func TestOddCIDs(t *testing.T) {
	t.Parallel()
	n := newNode(t, memory(), nodeOptions{})
	mh, err := multihash.Sum([]byte("x"), multihash.SHA2_512, -1)
	if err != nil {
		t.Fatal(err)
	}
	id, err := multihash.Sum([]byte("x"), multihash.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []cid.Cid{
		cid.Undef,
		cid.NewCidV0(block(cid.Raw, nil).Cid().Hash()),
		cid.NewCidV1(cid.Raw, mh),
		cid.NewCidV1(cid.Raw, id),
		cid.NewCidV1(cid.DagCBOR, block(cid.Raw, nil).Cid().Hash()),
	} {
		if err := n.e.Fetch(within(t, 3*time.Minute), c, FetchOptions{}); !errors.Is(err, shard.ErrInvalid) {
			t.Errorf("Fetch(%v) = %v, want ErrInvalid", c, err)
		}
	}
}

func received(g *guard, from peer.ID, blks ...blocks.Block) {
	m := bsmsg.New(false)
	for _, b := range blks {
		m.AddBlock(b)
	}
	g.MessageReceived(from, m)
}

func TestGuard(t *testing.T) {
	now := time.Unix(1e9, 0)
	g := newGuard(func() time.Time { return now })
	a, b := leaf([]byte("aa")), leaf([]byte("b"))
	nth := func(i int) blocks.Block { return leaf(fmt.Append(nil, "forged ", i)) }

	// Just begun: much is forgiven.
	for i := range maxStrikes + 1 {
		received(g, "early", nth(i))
	}
	now = now.Add(2 * startFor)
	g.ask(a.Cid())
	g.ask(a.Cid())
	received(g, "p", a)
	received(g, "q", a)
	g.release(a.Cid())
	received(g, "q", a)
	g.release(a.Cid())
	received(g, "q", a) // late
	if s := g.stats(); s != (Stats{PulledBytes: 2, DuplicateBytes: 6, UnwantedBytes: s.UnwantedBytes}) {
		t.Errorf("stats: %+v", s)
	}
	if len(g.bans) != 0 {
		t.Errorf("%s was banned", <-g.bans)
	}
	for i := range maxStrikes {
		received(g, "p", nth(i))
		if i < maxStrikes-1 && len(g.bans) != 0 {
			t.Errorf("banned after %d strikes", i+1)
		}
	}
	if len(g.bans) != 1 || <-g.bans != "p" {
		t.Error("the forger was not banned")
	}
	// Strikes are forgotten, and one message can have them all.
	for range maxStrikes + 1 {
		received(g, "r", nth(0))
		now = now.Add(strikeForgets + time.Second)
	}
	if len(g.bans) != 0 {
		t.Error("banned for old strikes")
	}
	received(g, "r", nth(0), nth(1), nth(2), nth(3))
	if len(g.bans) != 1 {
		t.Error("the strikes of one message were not counted")
	}
	<-g.bans
	// Long after it was asked for, a block is no answer any more.
	g.ask(b.Cid())
	g.release(b.Cid())
	for i := range 3 {
		now = now.Add(lateFor + time.Second)
		c := nth(100 + i).Cid()
		g.ask(c)
		g.release(c)
	}
	unwanted := g.stats().UnwantedBytes
	received(g, "s", b)
	if g.stats().UnwantedBytes != unwanted+1 {
		t.Error("a block is remembered for ever")
	}
	for i := range 3 * maxLate {
		c := nth(i).Cid()
		g.ask(c)
		g.release(c)
	}
	if n := len(g.late[0]) + len(g.late[1]); n > 2*maxLate || len(g.wanted) != 0 {
		t.Errorf("%d late, %d wanted", n, len(g.wanted))
	}
	for i := range 2 * maxStruck {
		now = now.Add(time.Millisecond)
		received(g, peer.ID(fmt.Sprint(i)), nth(0))
	}
	if len(g.strikes) > maxStruck {
		t.Errorf("%d peers have strikes", len(g.strikes))
	}
}
