package app

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	key, id, err := loadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, id2, err := loadIdentity(dir)
	if err != nil || id2 != id || !again.Equals(key) {
		t.Fatalf("the second start is peer %s (%v), the first was %s", id2, err, id)
	}
	st, err := os.Stat(filepath.Join(dir, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Errorf("others can read the key: %v", st.Mode())
	}
	if l := leftovers(t, dir); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
}

// A damaged key is for a person to look at: a new one would be a new peer.
func TestDamagedIdentityStays(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, identityFile)
	for _, damaged := range [][]byte{nil, []byte("not a key")} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := loadIdentity(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("loadIdentity(%q) = %v, want an error that names the file", damaged, err)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, damaged) {
			t.Errorf("the file became %q, %v", b, err)
		}
	}
}
