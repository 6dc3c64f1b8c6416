package round

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var pureImports = []string{
	"bytes", "cmp", "crypto/sha256", "encoding/binary", "errors", "fmt", "math/bits", "slices", "time",
	"github.com/ipfs/go-cid", "github.com/libp2p/go-libp2p/core/peer",
	"github.com/moot-net/moot/proto/fold", "github.com/moot-net/moot/proto/msg", "github.com/moot-net/moot/proto/run",
	"github.com/moot-net/moot/proto/trace",
}

// clocks are what time has besides arithmetic.
var clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}

// impurities returns what in the files a pure function of events must not have.
func impurities(fset *token.FileSet, files []*ast.File) []string {
	var found []string
	report := func(n ast.Node, what string) {
		found = append(found, fset.Position(n.Pos()).String()+": "+what)
	}
	// The types of other packages are not looked at. Those of the allowed ones
	// hand out no maps.
	info := &types.Info{Types: make(map[ast.Expr]types.TypeAndValue)}
	conf := types.Config{Importer: emptyImporter{}, Error: func(error) {}}
	_, _ = conf.Check("round", fset, files, info)
	for _, f := range files {
		for _, spec := range f.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err != nil || !slices.Contains(pureImports, path) {
				report(spec, "import of "+spec.Path.Value)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.RangeStmt:
				if t := info.Types[n.X].Type; t != nil {
					if _, ok := t.Underlying().(*types.Map); ok {
						report(n, "range over a map")
					}
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clocks, n.Sel.Name) {
					report(n, "time."+n.Sel.Name)
				}
			case *ast.Ident:
				if slices.Contains([]string{"float32", "float64", "complex64", "complex128"}, n.Name) {
					report(n, n.Name)
				}
			case *ast.BasicLit:
				if n.Kind == token.FLOAT || n.Kind == token.IMAG {
					report(n, "the constant "+n.Value)
				}
			case *ast.GoStmt:
				report(n, "a goroutine")
			case *ast.SelectStmt:
				report(n, "select")
			case *ast.ChanType:
				report(n, "a channel")
			}
			return true
		})
	}
	return found
}

// emptyImporter knows the standard library by name only.
type emptyImporter struct{}

func (emptyImporter) Import(path string) (*types.Package, error) {
	if path == "unsafe" {
		return importer.Default().Import(path)
	}
	p := types.NewPackage(path, path[strings.LastIndex(path, "/")+1:])
	p.MarkComplete()
	return p, nil
}

// TestPurity: no clock, no goroutine, no float, no order of a map.
func TestPurity(t *testing.T) {
	fset := token.NewFileSet()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if len(files) < 10 {
		t.Errorf("only %d files were checked", len(files))
	}
	for _, what := range impurities(fset, files) {
		t.Error(what)
	}
}

// TestPurityCatches: the test above sees what it is for.
func TestPurityCatches(t *testing.T) {
	for _, src := range []string{
		`import "time"; var x = time.Now()`,
		`import "math/rand"; var x = rand.Int()`,
		`import "sync"; var x sync.Mutex`,
		`import "maps"; var x = maps.Keys[any]`,
		`var x float64`,
		`var x = int(2.5)`,
		`func f(m map[int]int) { for range m {} }`,
		`import "github.com/ipfs/go-cid"; type s struct { m map[cid.Cid]*s }; func f(x *s) { for k := range x.m { _ = k } }`,
		`type m map[string]int; func f(x m) { for range x {} }`,
		`func f() { go f() }`,
		`func f(c chan int) { select { case <-c: } }`,
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "x.go", "package round; "+src, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(impurities(fset, []*ast.File{f})) == 0 {
			t.Errorf("nothing wrong was found in %s", src)
		}
	}
}
