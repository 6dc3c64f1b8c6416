package pull

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/moot-net/moot/shard"
)

// The disk becomes full in the middle of a pull, which says so; with more room it
// goes on, and little is pulled again.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=11m"); err != nil {
		t.Skipf("no file system of its own may be mounted: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	model := t.TempDir()
	if err := os.WriteFile(filepath.Join(model, "weights"), content(50, 20*mib), 0o644); err != nil {
		t.Fatal(err)
	}
	from := openShard(t, t.TempDir())
	imp, err := from.ImportDir(t.Context(), model, shard.ImportOptions{InPlace: true})
	if err != nil {
		t.Fatal(err)
	}
	seed := newNode(t, from, nodeOptions{})
	st, err := shard.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }() // before the file system goes
	n := newNode(t, st, nodeOptions{seeds: []*node{seed}})
	defer n.stop()
	folder, opts := filepath.Join(dir, "folder"), shard.FolderOptions{MaxBytes: 1 << 30}
	told := int64(0)
	fetch := func() error {
		return n.p.Fetch(within(t, 3*time.Minute), imp.Root, FetchOptions{
			Before:   func(_, _ int64) error { return st.Grow(t.Context(), imp.Root, folder, opts) },
			Progress: func(done, _ int64) { told = done },
		})
	}
	if err := fetch(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Fetch on a full disk = %v", err)
	}
	_, have, _, err := st.Missing(t.Context(), imp.Root)
	if err != nil || have < 5*mib || told > have {
		t.Fatalf("%d bytes are here, %v; %d were told", have, err, told)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	before := n.p.Stats().PulledBytes
	if err := fetch(); err != nil {
		t.Fatal(err)
	}
	if again := int64(n.p.Stats().PulledBytes-before) - (20*mib - have); again > mib/8 {
		t.Errorf("%d bytes were pulled again", again)
	}
	if at, err := st.Folder(t.Context(), imp.Root, folder, opts); err != nil || at != folder {
		t.Fatalf("Folder = %s, %v", at, err)
	}
	if missing, err := st.Verify(t.Context(), imp.Root); err != nil || len(missing) > 0 {
		t.Errorf("Verify = %v, %v", missing, err)
	}
}
