package shard

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"
	"golang.org/x/crypto/chacha20"
)

// kuboRandom is the pseudo-random stream of kubo's own CID tests: ChaCha20
// with the SHA-256 of the seed as key and a zero nonce.
func kuboRandom(t testing.TB, seed string) io.Reader {
	key := sha256.Sum256([]byte(seed))
	c, err := chacha20.NewUnauthenticatedCipher(key[:], make([]byte, chacha20.NonceSize))
	if err != nil {
		t.Fatal(err)
	}
	return cipherReader{c}
}

type cipherReader struct{ c *chacha20.Cipher }

func (r cipherReader) Read(p []byte) (int, error) {
	clear(p)
	r.c.XORKeyStream(p, p)
	return len(p), nil
}

// tree writes files below a new folder; a name that ends with / is a folder.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func testStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustImport(t testing.TB, s *Store, dir string) Import {
	t.Helper()
	imp, err := s.ImportDir(t.Context(), dir, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return imp
}

// The CIDs were published by the kubo project, which computed them with ipfs
// add; see the comment of each.
func TestPublishedFiles(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		// The CID of no bytes, known everywhere: SHA-256 e3b0c442...
		{"empty", "", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},
		// kubo test/cli/cid_profiles_test.go, profile unixfs-v1-2025
		{"hello world", "hello world", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"},
		// kubo test/sharness/t0116-gateway-cache/README.md
		{"hello line", "hello\n", "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := BytesCID([]byte(tt.content))
			if err != nil || got.String() != tt.want {
				t.Errorf("BytesCID = %v, %v, want %s", got, err, tt.want)
			}
			stored, err := testStore(t).PutBytes(t.Context(), []byte(tt.content))
			if err != nil || stored != got {
				t.Errorf("PutBytes = %v, %v, want %s", stored, err, tt.want)
			}
		})
	}
}

func TestPublishedFolders(t *testing.T) {
	for _, tt := range []struct {
		name, dir, want string
	}{
		{"empty", tree(t, nil), "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"},
		// kubo test/sharness/t0116-gateway-cache/README.md: ROOT1, 2, 3 and 4.
		{"ROOT4", tree(t, map[string]string{"index.html": "hello\n"}), "bafybeifq2rzpqnqrsdupncmkmhs3ckxxjhuvdcbvydkgvch3ms24k5lo7q"},
		{"ROOT3", tree(t, map[string]string{"root4/index.html": "hello\n"}), "bafybeiawdvhmjcz65x5egzx4iukxc72hg4woks6v6fvgyupiyt3oczk5ja"},
		{"ROOT2", tree(t, map[string]string{"root3/root4/index.html": "hello\n"}), "bafybeih2w7hjocxjg6g2ku25hvmd53zj7og4txpby3vsusfefw5rrg5sii"},
		{"ROOT1", tree(t, map[string]string{"root2/root3/root4/index.html": "hello\n"}), "bafybeib3ffl2teiqdncv3mkz4r23b5ctrwkzrrhctdbne6iboayxuxk5ui"},
		// kubo test/sharness/t0114-gateway-subdomains/README.md
		{"testdirlisting", tree(t, map[string]string{
			"hello": "hello\n", "ipfs/ipns/bar": "text-file-content\n",
			"api/file.txt": "I am a txt file\n", "ipfs/file.txt": "I am a txt file\n",
			".hidden": "left out", "ipfs/.hidden/x": "left out",
		}), "bafybeiht6dtwk3les7vqm6ibpvz6qpohidvlshsfyr7l5mpysdw2vmbbhe"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := testStore(t)
			if imp := mustImport(t, s, tt.dir); imp.Root.String() != tt.want {
				t.Errorf("root is %s, want %s", imp.Root, tt.want)
			}
		})
	}
}

// kubo test/cli/cid_profiles_test.go, DirBasicCID: a directory whose block has exactly
// 256 KiB. With one byte more kubo makes a HAMT; an error is better than
// another CID.
func TestPublishedLargeFolder(t *testing.T) {
	names := kuboRandom(t, "hamt-unixfs-v1-2025")
	const alphabet = "abcdefghijklmnopqrstuvwxyz01234567890-_" // as kubo has it, with two zeros
	sum := digest(sha256.Sum256([]byte("x")))
	entries := make(map[string]*ref)
	var name []byte
	for i := range 4766 {
		name = make([]byte, 11)
		if i == 4765 {
			name = make([]byte, 21)
		}
		if _, err := io.ReadFull(names, name); err != nil {
			t.Fatal(err)
		}
		for j, b := range name {
			name[j] = alphabet[int(b)%len(alphabet)]
		}
		entries[string(name)] = &ref{cid: newCID(rawCodec, sum), size: 1, fileSize: 1}
	}
	b := newBuilder(t.Context(), nil)
	const want = "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4"
	if root, err := b.folder(entries); err != nil || root.cid.String() != want {
		t.Errorf("root is %v, %v, want %s", root, err, want)
	}
	entries[string(name)+"x"] = entries[string(name)]
	delete(entries, string(name))
	if root, err := b.folder(entries); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "at most 262144") {
		t.Errorf("one byte more: %v, %v, want ErrInvalid", root, err)
	}
}

// kubo test/cli/cid_profiles_test.go, profile unixfs-v1-2025: FileAtMaxLinksCID
// and FileOverMaxLinksCID, of the first 1024 and 1025 MiB of one stream.
func TestPublishedLargeFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes 1 GiB")
	}
	b := newBuilder(t.Context(), nil)
	leaves, size, err := b.chunks(io.LimitReader(kuboRandom(t, "v1-2025-seed"), 1025<<20), nil)
	if err := errors.Join(err, b.wait()); err != nil || size != 1025<<20 {
		t.Fatal(size, err)
	}
	for n, want := range map[int]string{
		1024: "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm",
		1025: "bafybeihmzokxxjqwxjcryerhp5ezpcog2wcawfryb2xm64xiakgm4a5jue",
	} {
		root, err := b.file(leaves[:n])
		if err != nil || root.cid.String() != want {
			t.Errorf("file of %d MiB: %v, %v, want %s", n, root, err, want)
		}
	}
}

// plainNode is a second writer of dag-pb, straight from its specification.
type plainNode struct {
	cid         []byte
	size, bytes uint64
}

func plainLink(name string, n plainNode) []byte {
	var l bytes.Buffer
	l.Write([]byte{1<<3 | 2, byte(len(n.cid))})
	l.Write(n.cid)
	l.Write(binary.AppendUvarint([]byte{2<<3 | 2}, uint64(len(name))))
	l.WriteString(name)
	l.WriteByte(3 << 3)
	l.Write(binary.AppendUvarint(nil, n.size))
	return append(binary.AppendUvarint([]byte{2<<3 | 2}, uint64(l.Len())), l.Bytes()...)
}

func plainBlock(links [][]byte, unixfs []byte, size, content uint64) plainNode {
	block := bytes.Join(links, nil)
	block = append(block, 1<<3|2)
	block = binary.AppendUvarint(block, uint64(len(unixfs)))
	block = append(block, unixfs...)
	sum := sha256.Sum256(block)
	return plainNode{append([]byte{1, 0x70, 0x12, 32}, sum[:]...), size + uint64(len(block)), content}
}

func plainFileNode(below []plainNode) plainNode {
	var links [][]byte
	var size, content uint64
	var sizes []byte
	for _, n := range below {
		links = append(links, plainLink("", n))
		size += n.size
		content += n.bytes
		sizes = append(sizes, 4<<3)
		sizes = binary.AppendUvarint(sizes, n.bytes)
	}
	unixfs := binary.AppendUvarint([]byte{1 << 3, 2, 3 << 3}, content)
	return plainBlock(links, append(unixfs, sizes...), size, content)
}

// plainFile fills nodes from the top, as the balanced layout is described: a
// tree of the least depth that takes all leaves, filled from the left.
func plainFile(next func() (plainNode, bool)) plainNode {
	root, _ := next()
	pending, more := next()
	take := func() (n plainNode, ok bool) {
		n, ok = pending, more
		pending, more = next()
		return n, ok
	}
	var fill func(first []plainNode, depth int) plainNode
	fill = func(below []plainNode, depth int) plainNode {
		for len(below) < 1024 && more {
			if depth == 1 {
				n, _ := take()
				below = append(below, n)
			} else {
				below = append(below, fill(nil, depth-1))
			}
		}
		return plainFileNode(below)
	}
	for depth := 1; more; depth++ {
		root = fill([]plainNode{root}, depth)
	}
	return root
}

func (n plainNode) String() string {
	return "b" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(n.cid))
}

// Three levels of nodes would take 1 TiB of content, so the leaves are made up.
func TestLayoutAgainstPlainWriter(t *testing.T) {
	for _, leaves := range []int{1, 2, 1023, 1024, 1025, 2048, 2049, 1024*1024 + 1} {
		if testing.Short() && leaves > 4096 {
			continue
		}
		level := make([]*ref, leaves)
		for i := range level {
			d := digest{}
			binary.BigEndian.PutUint64(d[:], uint64(i))
			level[i] = &ref{cid: newCID(rawCodec, d), size: ChunkBytes, fileSize: ChunkBytes}
		}
		level[leaves-1].size, level[leaves-1].fileSize = 77, 77
		got, err := newBuilder(t.Context(), nil).file(level)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		want := plainFile(func() (plainNode, bool) {
			if i == leaves {
				return plainNode{}, false
			}
			r := level[i]
			i++
			return plainNode{r.cid.Bytes(), r.size, r.fileSize}, true
		})
		if got.cid.String() != want.String() || got.size != want.size || got.fileSize != want.bytes {
			t.Errorf("%d leaves: %v of %d bytes, want %v of %d", leaves, got.cid, got.size, want, want.size)
		}
	}
}

// plainFolder is the CID of a folder of small files.
func plainFolder(files map[string]string) plainNode {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	var links [][]byte
	var size uint64
	for _, name := range names {
		sum := sha256.Sum256([]byte(files[name]))
		n := plainNode{append([]byte{1, 0x55, 0x12, 32}, sum[:]...), uint64(len(files[name])), 0}
		links = append(links, plainLink(name, n))
		size += n.size
	}
	return plainBlock(links, []byte{8, 1}, size, 0)
}

func TestFolderAgainstPlainWriter(t *testing.T) {
	files := map[string]string{"b": "2", "a": "1", "B": "", "Ω": "omega", "a.b": "3", "a-b": "4", strings.Repeat("long", 40): "5"}
	delete(files, "B") // on a file system that ignores case it is b
	s := testStore(t)
	imp := mustImport(t, s, tree(t, files))
	want := plainFolder(files)
	if imp.Root.String() != want.String() {
		t.Errorf("root is %s, want %s", imp.Root, want)
	}
	_, have, total, err := s.Missing(t.Context(), imp.Root)
	if err != nil || have != int64(want.size) || total != have {
		t.Errorf("Missing = %d of %d bytes, %v, want %d", have, total, err, want.size)
	}
}

// boxoDAG is boxo's importer with the settings of the ipfs add command.
type boxoDAG struct {
	t   testing.TB
	dag ipld.DAGService
}

func newBoxoDAG(t testing.TB) boxoDAG {
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	return boxoDAG{t, merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))}
}

func (b boxoDAG) file(r io.Reader) ipld.Node {
	b.t.Helper()
	p := helpers.DagBuilderParams{
		Maxlinks: 1024, RawLeaves: true, Dagserv: b.dag,
		CidBuilder: cid.V1Builder{Codec: cid.DagProtobuf, MhType: multihash.SHA2_256},
	}
	db, err := p.New(chunk.NewSizeSplitter(r, 1<<20))
	if err != nil {
		b.t.Fatal(err)
	}
	nd, err := balanced.Layout(db)
	if err != nil {
		b.t.Fatal(err)
	}
	return nd
}

func (b boxoDAG) folder(entries map[string]ipld.Node) ipld.Node {
	b.t.Helper()
	dir, err := uio.NewBasicDirectory(b.dag, uio.WithCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: multihash.SHA2_256}))
	if err != nil {
		b.t.Fatal(err)
	}
	for name, nd := range entries {
		if err := dir.AddChild(b.t.Context(), name, nd); err != nil {
			b.t.Fatal(err)
		}
	}
	nd, err := dir.GetNode()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.dag.Add(b.t.Context(), nd); err != nil {
		b.t.Fatal(err)
	}
	return nd
}

func TestAgainstBoxo(t *testing.T) {
	b := newBoxoDAG(t)
	files := make(map[string]string)
	nodes := make(map[string]ipld.Node)
	for i, size := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 2 << 20, 5<<20 + 12345} {
		name := string(rune('a' + i))
		data := make([]byte, size)
		if _, err := io.ReadFull(kuboRandom(t, name), data); err != nil {
			t.Fatal(err)
		}
		files["sub/"+name] = string(data)
		nodes[name] = b.file(bytes.NewReader(data))
	}
	want := b.folder(map[string]ipld.Node{"sub": b.folder(nodes), "none": b.folder(nil)}).Cid()
	files["none/"] = ""
	s := testStore(t)
	if imp := mustImport(t, s, tree(t, files)); imp.Root != want {
		t.Errorf("root is %s, boxo says %s", imp.Root, want)
	}
}
