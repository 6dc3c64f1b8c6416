// Package goldentest finds the reference results of other people's programs,
// which are not part of this repository, for the tests of other packages.
package goldentest

import (
	"os"
	"path/filepath"
	"testing"
)

// Dir returns the folder of reference results, or the file or folder at elem
// in it: what the environment variable MOOT_GOLDEN names, by default
// ../shared/golden; from the root of the repository, if it is not absolute.
// Without it the test is skipped.
func Dir(t testing.TB, elem ...string) string {
	t.Helper()
	dir := os.Getenv("MOOT_GOLDEN")
	if dir == "" {
		dir = filepath.Join("..", "shared", "golden")
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(root(t), dir)
	}
	path := filepath.Join(append([]string{dir}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no reference results: %v (set MOOT_GOLDEN to their folder)", err)
	}
	return path
}

// root is where go.mod is.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("go.mod is in no folder above")
		}
		dir = up
	}
}
