package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
)

func exportCAR(t testing.TB, s *Store, root cid.Cid) []byte {
	t.Helper()
	var b bytes.Buffer
	last := int64(-1)
	c, err := s.ExportCAR(t.Context(), root, &b, func(done, total int64) {
		if done < last || done > total {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || len(c.Roots) != 1 || c.Roots[0] != root || int64(b.Len()) < c.Bytes {
		t.Fatalf("ExportCAR = %+v, %v", c, err)
	}
	return b.Bytes()
}

// A model goes by CAR from store to store, and lies once on the disk there.
func TestCARRoundTrip(t *testing.T) {
	ctx := t.Context()
	files := mixed(t)
	from := testStore(t)
	imp := mustImportInPlace(t, from, tree(t, files))
	car := exportCAR(t, from, imp.Root)
	if again := exportCAR(t, from, imp.Root); !bytes.Equal(car, again) {
		t.Error("a second export differs")
	}
	for _, inFolder := range []bool{false, true} {
		s := testStore(t)
		dir := filepath.Join(t.TempDir(), "model")
		opts := ImportCAROptions{}
		folder := FolderOptions{MaxBytes: imp.Bytes}
		if inFolder {
			opts.Folder = func(cid.Cid) (string, FolderOptions) { return dir, folder }
		}
		got, err := s.ImportCAR(ctx, iotest.HalfReader(bytes.NewReader(car)), opts)
		if err != nil || len(got.Roots) != 1 || got.Roots[0] != imp.Root {
			t.Fatalf("ImportCAR = %+v, %v", got, err)
		}
		assertWhole(t, s, imp.Root)
		if n := blockBytes(t, s); inFolder && n > 8<<10 {
			t.Errorf("%d bytes of blocks beside the folder", n)
		}
		if at, err := s.Folder(ctx, imp.Root, dir, folder); err != nil || at != dir {
			t.Fatalf("Folder = %s, %v", at, err)
		}
		if diff := cmp.Diff(files, readTree(t, dir)); diff != "" {
			t.Errorf("folder (-want +got):\n%s", diff)
		}
		if b := exportCAR(t, s, imp.Root); !bytes.Equal(b, car) {
			t.Error("exported again it differs")
		}
	}
}

// A CAR of kubo, made with ipfs dag export of the folder of TestKuboCAR, has
// the nodes between the leaves.
func TestKuboCAR(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "kubo.car"))
	if err != nil {
		t.Fatal(err)
	}
	s := testStore(t)
	dir := filepath.Join(t.TempDir(), "out")
	folder := FolderOptions{MaxBytes: 1 << 20}
	got, err := s.ImportCAR(t.Context(), bytes.NewReader(b), ImportCAROptions{
		Folder: func(cid.Cid) (string, FolderOptions) { return dir, folder },
	})
	if err != nil || len(got.Roots) != 1 {
		t.Fatalf("ImportCAR = %+v, %v", got, err)
	}
	if _, err := s.Folder(t.Context(), got.Roots[0], dir, folder); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "one\n", "empty": "", "sub/": "", "sub/b": "two\n", "sub/deep/": "", "sub/deep/c": "three\n"}
	if diff := cmp.Diff(want, readTree(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
}

// carOf makes a CAR of blocks without looking at them.
func carOf(root cid.Cid, sections ...[]byte) []byte {
	head := carHeader(root)
	b := append(binary.AppendUvarint(nil, uint64(len(head))), head...)
	for _, s := range sections {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

func TestBadCARs(t *testing.T) {
	good := rawBlock([]byte("good"))
	section := append(good.Cid().Bytes(), good.RawData()...)
	whole := carOf(good.Cid(), section)
	v0 := cid.NewCidV0(newCID(dagPB, digest{1}).Hash())
	foreign := cid.NewCidV1(0x71, good.Cid().Hash())
	for _, tt := range []struct {
		name string
		car  []byte
		want error
	}{
		{"nothing", nil, ErrInvalid},
		{"cut off in the header", whole[:20], io.ErrUnexpectedEOF},
		{"cut off in a block", whole[:len(whole)-1], io.ErrUnexpectedEOF},
		{"cut off in a length", append(bytes.Clone(whole), 0x80), io.ErrUnexpectedEOF},
		{"other bytes", carOf(good.Cid(), append(good.Cid().Bytes(), "evil"...)), ErrInvalid},
		{"a node that is none", carOf(good.Cid(), append(newCID(dagPB, digest(good.Cid().Hash()[2:])).Bytes(), "good"...)), ErrInvalid},
		{"another version of CID", carOf(good.Cid(), append(v0.Bytes(), make([]byte, 40)...)), ErrInvalid},
		{"another codec", carOf(good.Cid(), append(foreign.Bytes(), "good"...)), ErrInvalid},
		{"a short section", carOf(good.Cid(), []byte("abc")), ErrInvalid},
		{"an empty section", append(bytes.Clone(whole), 0), ErrTooLarge},
		{"a huge section", append(bytes.Clone(whole), 0xff, 0xff, 0xff, 0xff, 0x7f), ErrTooLarge},
		{"a long varint", append(bytes.Clone(whole), 0x81, 0x80, 0x00), ErrInvalid},
		{"version 2", append([]byte{0x0a, 0xa1, 0x67}, "version\x02"...), ErrInvalid},
		{"text", []byte("once upon a time"), io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := testStore(t)
			got, err := s.ImportCAR(t.Context(), bytes.NewReader(tt.car), ImportCAROptions{})
			if !errors.Is(err, tt.want) {
				t.Errorf("ImportCAR = %+v, %v, want %v", got, err, tt.want)
			}
			for _, k := range keys(t, s) {
				if k != good.Cid().String() {
					t.Errorf("stored %s", k)
				}
			}
		})
	}
	s := testStore(t)
	if _, err := s.ExportCAR(t.Context(), good.Cid(), io.Discard, nil); !errors.Is(err, ErrIncomplete) {
		t.Errorf("ExportCAR of nothing = %v", err)
	}
}

func FuzzCAR(f *testing.F) {
	leaf := rawBlock([]byte("leaf"))
	f.Add(carOf(leaf.Cid(), append(leaf.Cid().Bytes(), leaf.RawData()...)))
	f.Add(carOf(newCID(dagPB, digest{})))
	if b, err := os.ReadFile(filepath.Join("testdata", "kubo.car")); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := newCARReader(bytes.NewReader(b))
		roots, err := in.header()
		if err != nil {
			return
		}
		if len(roots) == 1 && in.read < 100 && !bytes.Contains(b[:in.read], carHeader(roots[0])) && bytes.HasPrefix(b[1:], []byte("\xa2\x65roots\x81")) {
			t.Errorf("%x is read as a header of %s, which is written as %x", b[:in.read], roots[0], carHeader(roots[0]))
		}
		for {
			c, data, err := in.next()
			if err != nil {
				return
			}
			if err := checkCID(c); err != nil || len(data) > MaxBlockBytes {
				t.Errorf("block %s of %d bytes: %v", c, len(data), err)
			}
		}
	})
}
