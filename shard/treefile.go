package shard

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
)

// The file of a tree: a line that says what it is, one of JSON, for each leaf
// its digest and where in its file it begins, and the SHA-256 of all that.
const (
	treeMagic     = "moot tree 1\n"
	leafRecord    = sha256Len + 8
	maxTreeHead   = 256 << 20 // of the line of JSON
	maxTreeLeaves = maxBlocks
)

// treeHead is the line of JSON.
type treeHead struct {
	Root string `json:"root"`
	// Dir is the folder, or what it will be called when it is complete.
	Dir string `json:"dir"`
	// Ours says that the store made the folder, and may write and remove it.
	Ours bool `json:"ours"`
	// Growing says that leaves are missing, and which are there is in a journal.
	Growing bool       `json:"growing"`
	Files   []treeFile `json:"files"` // in the order of their leaves
}

// treeFile is a file of a tree.
type treeFile struct {
	Path string `json:"path"` // slash-separated, below the folder
	// Linked says that Path is a symbolic link, which is followed.
	Linked bool  `json:"linked,omitempty"`
	Size   int64 `json:"size"`
	Leaves int   `json:"leaves"`
	// Stamp is how the file looked when its leaves were last known to be in it.
	Stamp stamp `json:"stamp,omitzero"`
	first int   // number of its first leaf
}

// stamp is what changes when a file does. What a system does not know is 0.
type stamp struct {
	Size    int64  `json:"size"`
	ModTime int64  `json:"mtime"` // of the content, in nanoseconds since 1970
	Change  int64  `json:"ctime"` // of content or attributes
	Inode   uint64 `json:"inode"`
}

func stampOf(fi os.FileInfo) stamp {
	s := stamp{Size: fi.Size(), ModTime: fi.ModTime().UnixNano()}
	s.Change, s.Inode = changeTime(fi)
	return s
}

// check reports why a head cannot be used, and numbers the leaves.
func (h *treeHead) check() (root cid.Cid, leaves int, err error) {
	root, err = cid.Decode(h.Root)
	if err == nil {
		err = checkCID(root)
	}
	if err != nil {
		return cid.Undef, 0, fmt.Errorf("root %.100q: %w", h.Root, err)
	}
	if !filepath.IsAbs(h.Dir) {
		return cid.Undef, 0, fmt.Errorf("folder %.100q is not absolute", h.Dir)
	}
	if len(h.Files) > maxEntries {
		return cid.Undef, 0, fmt.Errorf("%d files, at most %d are allowed", len(h.Files), maxEntries)
	}
	for i := range h.Files {
		f := &h.Files[i]
		if err := checkTreePath(f.Path); err != nil {
			return cid.Undef, 0, fmt.Errorf("file %d: %w", i, err)
		}
		if f.Linked && h.Ours {
			return cid.Undef, 0, fmt.Errorf("%s: a link in a folder of the store's own", f.Path)
		}
		if f.Size < 0 || f.Size > maxDAGBytes || f.Leaves < 1 || f.Leaves > maxTreeLeaves-leaves || int64(f.Leaves) > max(f.Size, 1) {
			return cid.Undef, 0, fmt.Errorf("%s: %d bytes in %d leaves", f.Path, f.Size, f.Leaves)
		}
		f.first = leaves
		leaves += f.Leaves
	}
	return root, leaves, nil
}

// checkTreePath reports why p is no path below a folder.
func checkTreePath(p string) error {
	if len(p) > maxPathBytes || path.Clean(p) != p {
		return fmt.Errorf("path %.100q", p)
	}
	for name := range strings.SplitSeq(p, "/") {
		if err := CheckName(name); err != nil {
			return err
		}
	}
	return nil
}

// leafPlace is a leaf of a tree, to be written to its file.
type leafPlace struct {
	digest digest
	off    int64
}

// writeTreeFile writes a tree file under a name of its own in dir and syncs it.
// Leaves calls yield for each leaf, in order.
func (d disk) writeTreeFile(dir string, h *treeHead, leaves func(yield func(leafPlace) error) error) (path string, err error) {
	f, err := os.CreateTemp(dir, "tree-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := d.step("write", f.Name()); err != nil {
		return "", err
	}
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<16)
	head, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	if len(head) > maxTreeHead {
		return "", fmt.Errorf("%w: the list of files has %d bytes", ErrTooLarge, len(head))
	}
	if _, err := fmt.Fprintf(w, "%s%s\n", treeMagic, head); err != nil {
		return "", err
	}
	rec := make([]byte, 0, leafRecord)
	if err := leaves(func(l leafPlace) error {
		rec = binary.LittleEndian.AppendUint64(append(rec[:0], l.digest[:]...), uint64(l.off))
		_, err := w.Write(rec)
		return err
	}); err != nil {
		return "", err
	}
	if err := w.Flush(); err != nil {
		return "", err
	}
	if _, err := f.Write(sum.Sum(nil)); err != nil {
		return "", err
	}
	if err := d.step("sync", f.Name()); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// treeIndex is what is kept in memory of a tree file.
type treeIndex struct {
	head treeHead
	root cid.Cid
	// keys find leaves: the first 4 bytes of the digest above the number of the
	// leaf, sorted.
	keys  []uint64
	start int64 // of the leaves in the file
}

func leafKey(d digest, i int) uint64 {
	return uint64(binary.BigEndian.Uint32(d[:]))<<32 | uint64(i)
}

// readTreeFile reads and checks a tree file.
func readTreeFile(f io.Reader) (*treeIndex, error) {
	sum := sha256.New()
	r := bufio.NewReaderSize(f, 1<<16)
	line := func(limit int) ([]byte, error) {
		var out []byte
		for {
			part, err := r.ReadSlice('\n')
			out = append(out, part...)
			switch {
			case len(out) > limit:
				return nil, fmt.Errorf("line of more than %d bytes", limit)
			case errors.Is(err, bufio.ErrBufferFull):
				continue
			case err != nil:
				return nil, fmt.Errorf("it ends early: %w", err)
			}
			sum.Write(out)
			return out, nil
		}
	}
	magic, err := line(len(treeMagic))
	if err != nil {
		return nil, err
	}
	if string(magic) != treeMagic {
		return nil, fmt.Errorf("it begins with %q, must be %q", magic, treeMagic)
	}
	head, err := line(maxTreeHead)
	if err != nil {
		return nil, err
	}
	x := &treeIndex{start: int64(len(magic) + len(head))}
	dec := json.NewDecoder(bytes.NewReader(head))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&x.head); err != nil {
		return nil, err
	}
	var leaves int
	if x.root, leaves, err = x.head.check(); err != nil {
		return nil, err
	}
	if err := x.readLeaves(io.TeeReader(r, sum)); err != nil {
		return nil, err
	}
	if len(x.keys) != leaves {
		return nil, fmt.Errorf("%d leaves, must be %d", len(x.keys), leaves)
	}
	var want [sha256Len]byte
	if _, err := io.ReadFull(r, want[:]); err != nil {
		return nil, fmt.Errorf("it ends early: %w", err)
	}
	if !bytes.Equal(want[:], sum.Sum(nil)) {
		return nil, errors.New("its checksum is wrong")
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after its end")
	}
	slices.Sort(x.keys)
	return x, nil
}

// readLeaves reads the leaves of all files. What is allocated grows with what
// is there, not with what is claimed.
func (x *treeIndex) readLeaves(r io.Reader) error {
	var rec [leafRecord]byte
	for i := range x.head.Files {
		f := &x.head.Files[i]
		last := int64(-1)
		for j := range f.Leaves {
			if _, err := io.ReadFull(r, rec[:]); err != nil {
				return fmt.Errorf("it ends early: %w", err)
			}
			l := parseLeafRecord(rec[:])
			// Leaves lie one after the other, none empty but that of an empty file.
			if (j == 0) != (l.off == 0) || l.off <= last || l.off > max(f.Size-1, 0) || (last >= 0 && l.off-last > MaxBlockBytes) {
				return fmt.Errorf("%s: leaf %d begins at %d", f.Path, j, l.off)
			}
			last = l.off
			x.keys = append(x.keys, leafKey(l.digest, f.first+j))
		}
		if f.Size-last > MaxBlockBytes {
			return fmt.Errorf("%s: the last leaf has %d bytes", f.Path, f.Size-last)
		}
	}
	return nil
}

func parseLeafRecord(b []byte) leafPlace {
	return leafPlace{digest: digest(b[:sha256Len]), off: int64(binary.LittleEndian.Uint64(b[sha256Len:leafRecord]))}
}
