package app

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

func openModels(t *testing.T, dir string) *catalogue[api.Model] {
	t.Helper()
	c, err := openCatalogue(dir, slog.New(slog.DiscardHandler), func(m api.Model) (string, time.Time) { return m.ID, m.Imported })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func modelAt(id string, second int) api.Model {
	return api.Model{ID: id, Name: "name of " + id, Imported: time.Date(2026, 1, 1, 0, 0, second, 5, time.UTC), Warnings: []string{"w"}}
}

func TestCatalogue(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "models")
	c := openModels(t, dir)
	want := []api.Model{modelAt("old", 1), modelAt("a", 2), modelAt("b", 2), modelAt("new", 3)}
	for _, i := range []int{3, 0, 2, 1} {
		if err := c.put(want[i]); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]*catalogue[api.Model]{"same": c, "opened again": openModels(t, dir)} {
		if diff := cmp.Diff(want, c.list()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if m, ok := c.get("b"); !ok || m.Name != "name of b" {
			t.Errorf("%s: get(b) = %v, %v", name, m, ok)
		}
	}
	if err := c.put(modelAt("old", 9)); err != nil {
		t.Fatal(err)
	}
	if l := openModels(t, dir).list(); len(l) != 4 || l[3].ID != "old" {
		t.Errorf("what was put again is not the newest of the same four: %v", l)
	}
}

// After a crash at any moment there may be a half-written temporary file; and
// a damaged disk costs one entry.
func TestCatalogueAfterCrash(t *testing.T) {
	dir := t.TempDir()
	c := openModels(t, dir)
	for i := range 3 {
		if err := c.put(modelAt(fmt.Sprint(i), i)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"2.json.tmp123": `{"id": "2", "na`, "9.json.tmp9": "", "1.json": `{"id": "1", "na`, "notes.txt": "mine",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "0"), 0o700); err != nil { // the folder of a model
		t.Fatal(err)
	}
	want := []api.Model{modelAt("0", 0), modelAt("2", 2)}
	if diff := cmp.Diff(want, openModels(t, dir).list()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if l := leftovers(t, dir); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes.txt")); err != nil {
		t.Error("a file that is none of the catalogue's is gone")
	}
}

// A put that fails leaves what was there, in memory and on disk.
func TestCatalogueFailedPut(t *testing.T) {
	dir := t.TempDir()
	c := openModels(t, dir)
	if err := c.put(modelAt("a", 1)); err != nil {
		t.Fatal(err)
	}
	bad := modelAt("a", 2)
	bad.Imported = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC) // JSON has no such year
	if err := c.put(bad); err == nil {
		t.Fatal("no error")
	}
	for _, c := range []*catalogue[api.Model]{c, openModels(t, dir)} {
		if m, ok := c.get("a"); !ok || m.Imported.Second() != 1 {
			t.Errorf("get(a) = %v, %v", m, ok)
		}
	}
}
