//go:build !lean

package fold

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What no result that peers compare may depend on. Maps are out altogether, so
// nothing can iterate over one. Without their names and constants, and without
// packages that return them, there are no floats.
var (
	impureWords = []string{"float32", "float64", "complex64", "complex128", "complex", "uintptr"}
	pureImports = []string{
		"crypto/sha256", "encoding/binary", "errors", "fmt", "math/bits", "runtime", "slices", "sync", "strings",
		"github.com/ipfs/go-cid", "github.com/multiformats/go-multihash",
		"github.com/moot-net/moot/proto/fold", "github.com/moot-net/moot/proto/msg",
	}
)

// impurities returns the places in a file that break the rule. floats are the
// names declared in float.go.
func impurities(fset *token.FileSet, f *ast.File, floats map[string]bool) []string {
	var found []string
	report := func(n ast.Node, what string) {
		found = append(found, fset.Position(n.Pos()).String()+": "+what)
	}
	for _, spec := range f.Imports {
		if path, err := strconv.Unquote(spec.Path.Value); err != nil || !slices.Contains(pureImports, path) {
			report(spec, "import of "+spec.Path.Value)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			if slices.Contains(impureWords, n.Name) {
				report(n, n.Name)
			}
			if floats[n.Name] {
				report(n, n.Name+" of float.go")
			}
		case *ast.BasicLit:
			if n.Kind == token.FLOAT || n.Kind == token.IMAG {
				report(n, "the constant "+n.Value)
			}
		case *ast.MapType:
			report(n, "a map")
		case *ast.SelectStmt:
			report(n, "select")
		}
		return true
	})
	return found
}

func parse(t *testing.T, fset *token.FileSet, path string, src any) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(fset, path, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func declared(f *ast.File) map[string]bool {
	names := make(map[string]bool)
	for name := range f.Scope.Objects {
		names[name] = true
	}
	return names
}

// TestPurity: no floats, no clock, no maps in this package and in the genesis.
func TestPurity(t *testing.T) {
	fset := token.NewFileSet()
	floats := declared(parse(t, fset, "float.go", nil))
	if !floats["FromFloat32"] || !floats["fromFloat"] {
		t.Fatalf("float.go declares %v", slices.Sorted(maps.Keys(floats)))
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, path := range append(files, "../run/genesis.go") {
		if path == "float.go" || strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, what := range impurities(fset, parse(t, fset, path, nil), floats) {
			t.Error(what)
		}
		checked++
	}
	if checked < 10 {
		t.Errorf("only %d files were checked", checked)
	}
}

// TestPurityCatches: the test above sees what it is for.
func TestPurityCatches(t *testing.T) {
	for _, src := range []string{
		`import "time"; var x = time.Now()`,
		`import "math"; var x = math.Pi`,
		`import "math/rand"; var x = rand.Int()`,
		`import "maps"; var x = maps.Keys[any]`,
		`var x float64`,
		`var x = float32(1)`,
		`var x = int(2.5)`,
		`func f(m map[int]int) { for range m {} }`,
		`func f() { for range make(map[int]int) {} }`,
		`type m map[string]int`,
		`func f(c, d chan int) { select { case <-c: case <-d: } }`,
		`var x = unsafe.Pointer(uintptr(0))`,
		`func f() { _ = fromFloat }`,
	} {
		fset := token.NewFileSet()
		f := parse(t, fset, "x.go", "package fold; "+src)
		if len(impurities(fset, f, map[string]bool{"fromFloat": true})) == 0 {
			t.Errorf("nothing wrong was found in %s", src)
		}
	}
}
