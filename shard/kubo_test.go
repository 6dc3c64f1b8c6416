package shard

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

// pattern is n bytes that a script in any language makes: byte i is bit 8 to 15
// of the square of i modulo 65536.
func pattern(n int) string {
	b := make([]byte, n)
	for i := range b {
		j := i % 65536
		b[i] = byte(j * j >> 8)
	}
	return string(b)
}

// fullFolder is a folder of empty files whose block has 262,144 bytes, the most
// for which ipfs add makes no sharded directory; with one byte more in a name
// it does.
func fullFolder(more int) map[string]string {
	const entry = 2 + 2 + 36 + 2 + 24 + 2 // of a name of 24 bytes
	files := make(map[string]string)
	total := 4
	for i := range (maxDirBytes - 4 - 300) / entry {
		files[fmt.Sprintf("%024d", i)] = ""
		total += entry
	}
	rest := maxDirBytes - total
	for i, part := range []int{rest / 2, rest - rest/2} {
		n := part - (entry - 24)
		if part > 2+127 { // its length takes two bytes
			n--
		}
		files[fmt.Sprintf("z%d%s", i, strings.Repeat("z", n-2+i*more))] = ""
	}
	return files
}

// The CIDs are what kubo 0.43.1 printed for
//
//	ipfs add -Qnr --cid-version=1 --raw-leaves --chunker=size-1048576 --max-file-links=1024
//
// both as it is configured by itself and with the profile unixfs-v1-2025.
func TestKuboVectors(t *testing.T) {
	sizes := make(map[string]string)
	for _, n := range []int{0, 1, ChunkBytes - 1, ChunkBytes, ChunkBytes + 1, 3*ChunkBytes + 7} {
		sizes[fmt.Sprintf("%08d", n)] = pattern(n)
	}
	many := make(map[string]string)
	for i := range 3000 {
		many[fmt.Sprintf("file-%05d", i)] = fmt.Sprint(i)
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		zeros int64 // of a file "zeros"
		want  string
	}{
		{"none", nil, 0, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"},
		{"sizes", sizes, 0, "bafybeifa2zwpjehjb3gisiojyfb3hk3k7st7bv7j2iolidul3pybqk5pfi"},
		{"nested", map[string]string{
			"a": "a", ".hidden": "h", "b/.c/x": "x", "b/d/e/f": "deep", "empty/more/": "", "zero": "", "Übung ü.txt": "ü",
		}, 0, "bafybeid4fdc3or2uxfp7yuwj5akd76okgig264hk43qdi4rstckctl6tkq"},
		{"many files", many, 0, "bafybeidq6vtzn72xoxh7iaqqxnvvypaw3doolszeosmk75w76of5mcuvx4"},
		{"as many as a folder can have", fullFolder(0), 0, "bafybeifknavg3pfyd5jsdkpwwukloltu3i27uhetbvcfccoughptkh4d7y"},
		{"1024 leaves and a byte", nil, 1024<<20 + 1, "bafybeicl5ibz4qe5kuwaubl5obavzhjiodta4hosn3b7pmexhw5ukpf544"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, tt.files)
			if tt.zeros > 0 {
				f, err := os.Create(filepath.Join(dir, "zeros"))
				if err == nil {
					err = errors.Join(f.Truncate(tt.zeros), f.Close())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			s := testStore(t)
			if got := mustImportInPlace(t, s, dir); got.Root.String() != tt.want {
				t.Errorf("in place: %s, want %s", got.Root, tt.want)
			}
			if tt.zeros > 0 || len(tt.files) > 100 {
				return // a copy syncs each file
			}
			if got := mustImport(t, testStore(t), dir); got.Root.String() != tt.want {
				t.Errorf("copied: %s, want %s", got.Root, tt.want)
			}
		})
	}
	s := testStore(t)
	if imp, err := s.ImportDir(t.Context(), tree(t, fullFolder(1)), ImportOptions{InPlace: true}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a folder that kubo shards = %+v, %v, want ErrInvalid", imp, err)
	}
}

// TestAgainstKubo compares random folders with a real kubo, where the program
// ipfs is installed, and reads what it exports.
func TestAgainstKubo(t *testing.T) {
	ipfs, err := exec.LookPath("ipfs")
	if err != nil {
		t.Skip("no program ipfs (kubo) here")
	}
	repo := t.TempDir()
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), ipfs, args...)
		cmd.Env = append(os.Environ(), "IPFS_PATH="+repo, "IPFS_TELEMETRY=off")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("ipfs %s: %v\n%s", args, err, stderr.String())
		}
		return out
	}
	run("init", "--profile=test")
	rng := rand.New(rand.NewPCG(11, 12))
	for i := range 5 {
		files := make(map[string]string)
		for j := range 1 + rng.IntN(30) {
			name := strings.Repeat(fmt.Sprintf("d%d/", rng.IntN(3)), rng.IntN(4)) + fmt.Sprintf("f%d", j)
			files[name] = string(random(t, fmt.Sprint(i, j), []int{0, 1, 1000, ChunkBytes, 2*ChunkBytes + rng.IntN(1000)}[rng.IntN(5)]))
		}
		dir := tree(t, files)
		s := testStore(t)
		imp := mustImportInPlace(t, s, dir)
		want := strings.TrimSpace(string(run("add", "-Qr", "--offline", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576", "--max-file-links=1024", dir)))
		if imp.Root.String() != want {
			t.Fatalf("folder %d: %s, kubo has %s", i, imp.Root, want)
		}
		other := testStore(t)
		if _, err := other.ImportCAR(t.Context(), bytes.NewReader(run("dag", "export", "--offline", want)), ImportCAROptions{}); err != nil {
			t.Error(err)
		}
		assertWhole(t, other, cid.MustParse(want))
		// And kubo reads ours.
		car := filepath.Join(t.TempDir(), "our.car")
		if err := os.WriteFile(car, exportCAR(t, s, imp.Root), 0o600); err != nil {
			t.Fatal(err)
		}
		run("repo", "gc")
		if out := run("dag", "import", "--offline", car); !bytes.Contains(out, []byte(want)) {
			t.Errorf("ipfs dag import printed %s", out)
		}
	}
}
