package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

// uploadsLeft are what is in the data folder of uploads, complete or not.
func uploadsLeft(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	for _, pattern := range []string{filepath.Join(uploadsDir, "*"), importTemp + "*"} {
		l, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, l...)
	}
	return list
}

// TestUploadAndImport: what was uploaded is looked into, checked and imported by
// its path, with fields that have other names.
func TestUploadAndImport(t *testing.T) {
	dir := t.TempDir()
	n, _ := testNode(t, dir, new(fakeRuns).open)
	text := "question,answer\nAdd 2 and 2.,4\nName a city.,Rome\nAnd then?,\n"
	u, err := n.Upload(t.Context(), api.UploadRequest{Name: `..\..//the faq<b>.csv`, Bytes: int64(len(text))}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if u.Name != "_..__the faq_b_.csv" || filepath.Dir(filepath.Dir(u.File)) != filepath.Join(dir, uploadsDir) {
		t.Errorf("stored as %+v", u)
	}
	l, err := n.Uploads(t.Context())
	if err != nil || len(l) != 1 || l[0].File != u.File || l[0].Bytes != u.Bytes {
		t.Errorf("listed %+v, %v", l, err)
	}
	p, err := n.PreviewDataset(t.Context(), api.PreviewRequest{Files: []string{u.File}, Rows: 2})
	if err != nil || len(p.Files) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	fields := map[string]string{"instruction": "question", "output": "answer"}
	if f := p.Files[0]; f.Input != "" || f.Bytes != u.Bytes || len(f.Rows) != 2 || cmp.Diff(fields, f.Suggested) != "" {
		t.Errorf("preview %+v", f)
	}
	_, err = n.CheckDataset(t.Context(), api.CheckDatasetRequest{Files: []string{u.File}}, quiet)
	if wantCode(t, err, api.CodeData, "cannot tell the format"); !strings.Contains(api.AsError(err).Hint, "--field") {
		t.Errorf("hint %q", api.AsError(err).Hint)
	}
	var last api.Progress
	c, err := n.CheckDataset(t.Context(), api.CheckDatasetRequest{Files: []string{u.File}, Fields: fields, Model: assets(t).ModelDir}, func(p api.Progress) { last = p })
	if err != nil || c.Rows != 3 || c.Invalid != 1 || c.Files[0].Problems[0].Place != u.Name+":4" || len(c.Files[0].Samples) != 2 || c.Files[0].Tokens.Counted == 0 {
		t.Errorf("check %+v, %v", c, err)
	}
	if last.Done != u.Bytes || last.Total != u.Bytes || last.Unit != api.UnitBytes {
		t.Errorf("at the end progress was %+v, of %d bytes", last, u.Bytes)
	}
	_, err = n.ImportDataset(t.Context(), api.ImportDatasetRequest{Files: []string{u.File}, Fields: fields}, quiet)
	wantCode(t, err, api.CodeData, ":4: output is empty")
	d, err := n.ImportDataset(t.Context(), api.ImportDatasetRequest{Files: []string{u.File}, Fields: fields, DropInvalid: true}, quiet)
	if err != nil || d.TrainRows != 2 || d.DroppedRows != 1 || d.Format != "alpaca" {
		t.Errorf("import %+v, %v", d, err)
	}
	if _, err := n.RemoveUpload(t.Context(), u.ID); err != nil {
		t.Error(err)
	}
	if l := uploadsLeft(t, dir); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
	for _, id := range []string{u.ID, "", ".", "..", "../store", strings.ToUpper(u.ID) + "x", "0123456789abcdef"} {
		_, err := n.RemoveUpload(t.Context(), id)
		wantCode(t, err, api.CodeNotFound, "no upload")
	}
}

// TestUploadLeavesNothing: of a file that does not come whole nothing stays, nor
// of one that a kill cut off, nor of one that is old.
func TestUploadLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	n, stop := testNode(t, dir, new(fakeRuns).open)
	ctx, cancel := context.WithCancel(t.Context())
	broken := errors.New("the line broke")
	for name, tt := range map[string]struct {
		ctx  context.Context
		body io.Reader
		want string
	}{
		"short":   {t.Context(), strings.NewReader("abc"), "3 of 10 bytes came"},
		"long":    {t.Context(), strings.NewReader("01234567890"), "11 of 10 bytes came"},
		"broken":  {t.Context(), io.MultiReader(strings.NewReader("abc"), errReader{broken}), "the line broke"},
		"stopped": {ctx, readerFunc(func([]byte) (int, error) { cancel(); return 1, nil }), "canceled"},
	} {
		_, err := n.Upload(tt.ctx, api.UploadRequest{Name: name + ".jsonl", Bytes: 10}, tt.body)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), name+".jsonl") {
			t.Errorf("%s: %v", name, err)
		}
		if l := uploadsLeft(t, dir); len(l) > 0 {
			t.Errorf("%s: left %v", name, l)
		}
	}
	for name, age := range map[string]time.Duration{"young.jsonl": uploadLife / 2, "old.jsonl": 2 * uploadLife} {
		u, err := n.Upload(t.Context(), api.UploadRequest{Name: name, Bytes: 1}, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(u.File, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := os.MkdirAll(filepath.Join(dir, importTemp+"cut"), 0o700); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	n, _ = testNode(t, dir, new(fakeRuns).open)
	if l, err := n.Uploads(t.Context()); err != nil || len(l) != 1 || l[0].Name != "young.jsonl" {
		t.Errorf("kept %+v, %v", l, err)
	}
	// The node may be removing the old one just now by itself.
	eventually(t, func() bool { return len(uploadsLeft(t, dir)) == 1 })
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestUploadRoom: there are neither too many files nor too many bytes, also of
// those that are under way.
func TestUploadRoom(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	var done []func()
	for range api.MaxUploads {
		d, err := n.admitUpload(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, d)
	}
	_, err := n.Upload(t.Context(), api.UploadRequest{Name: "a.jsonl", Bytes: 1}, strings.NewReader("x"))
	wantCode(t, err, api.CodeConflict, "at most 100 are kept")
	for _, d := range done {
		d()
	}
	if _, err := n.Upload(t.Context(), api.UploadRequest{Name: "a.jsonl", Bytes: 10}, strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	free, err := freeBytes(n.dir)
	if err != nil || free < api.MaxUploadBytes+spareBytes {
		t.Skip("the disk has no room for the largest upload")
	}
	_, err = n.admitUpload(t.Context(), api.MaxUploadBytes-9)
	wantCode(t, err, api.CodeConflict, "there would be 4294967297, at most 4294967296 are kept")
	if d, err := n.admitUpload(t.Context(), api.MaxUploadBytes-10); err != nil {
		t.Error(err)
	} else {
		d()
	}
}

func TestUploadName(t *testing.T) {
	for name, want := range map[string]string{
		"rows.jsonl":                       "rows.jsonl",
		"Zürich (1) – größe.parquet":       "Zürich (1) _ größe.parquet",
		"../../etc/passwd":                 "_._etc_passwd",
		"C:\\x\\rows.csv":                  "C__x_rows.csv",
		"con.jsonl":                        "rows_con.jsonl",
		"NUL.tar.jsonl":                    "rows_NUL.tar.jsonl",
		".jsonl":                           "rows_.jsonl",
		"...":                              "rows_",
		" ":                                "rows_",
		"<img src=x onerror=alert(1)>.csv": "_img src_x onerror_alert(1)_.csv",
		"a\u202egnp.csv":                   "a_gnp.csv",
		"a\x00b\n.csv\xff":                 "a_b_.csv_",
		"a.csv. ":                          "a.csv",
	} {
		if got := uploadName(name); got != want {
			t.Errorf("%q is stored as %q, want %q", name, got, want)
		}
	}
	if got := uploadName("con." + strings.Repeat("x", 94) + ".jsonl"); len(got) > maxUploadName || !strings.HasPrefix(got, "rows_con.x") || !strings.HasSuffix(got, "x.jsonl") {
		t.Errorf("a long one is stored as %q", got)
	}
	for _, name := range []string{strings.Repeat("x", 300) + ".jsonl", strings.Repeat("ü", 300) + ".jsonl", "x." + strings.Repeat("y", 300)} {
		if got := uploadName(name); len(got) > maxUploadName || !strings.HasPrefix(name, strings.TrimSuffix(got, ".jsonl")) {
			t.Errorf("%q is stored as %q", name, got)
		}
	}
}

func FuzzUploadName(f *testing.F) {
	f.Add("rows.jsonl")
	f.Add("../\x00.. .")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, name string) {
		got := uploadName(name)
		if got == "" || len(got) > maxUploadName || got != uploadName(got) || !filepath.IsLocal(got) || strings.ContainsAny(got, `/\:*?"<>|`) {
			t.Fatalf("%q is stored as %q, and that as %q", name, got, uploadName(got))
		}
		path := filepath.Join(dir, got)
		if filepath.Dir(path) != dir || bytes.ContainsRune([]byte(got), 0) {
			t.Fatalf("%q is stored as %q", name, got)
		}
	})
}
