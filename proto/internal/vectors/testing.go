// Package vectors compares what the tests of proto compute with the files in
// proto/testdata, which other implementations can use.
package vectors

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// A flag of the test binary; the tests that import this package share it.
var update = flag.Bool("update", false, "write the files in proto/testdata")

// Check compares v, as indented JSON, byte for byte with the file of that name
// in proto/testdata. With -update it writes the file. The test runs in a
// package next to testdata.
func Check(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("..", "testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		line := 1 + bytes.Count(got[:commonPrefix(got, want)], []byte("\n"))
		t.Errorf("%s differs from line %d on; if that is meant, it is a new version of the protocol (-update writes it)", path, line)
	}
}

func commonPrefix(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
