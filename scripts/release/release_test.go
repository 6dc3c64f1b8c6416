package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var at = time.Date(2026, 2, 2, 12, 0, 0, 0, time.UTC)

// tree writes files; those below bin are executable.
func tree(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o600) // whatever it is
		if strings.HasPrefix(text, "#!") {
			mode = 0o700
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The same files give the same bytes, whoever wrote them when.
func TestReproducible(t *testing.T) {
	files := map[string]string{"mootd": "#!x", "a/b/c": "1", "a/d": "2"}
	pack := func(out string, dir string) error {
		switch {
		case strings.HasSuffix(out, ".deb"):
			return run([]string{"deb", "-out", out, "-dir", dir, "-time", fmt.Sprint(at.Unix()), "-version", "1.2.3", "-arch", "amd64"})
		default:
			return run([]string{"archive", "-out", out, "-dir", dir, "-time", fmt.Sprint(at.Unix())})
		}
	}
	for _, ext := range []string{".tar.gz", ".zip", ".deb"} {
		var got [2][]byte
		for i := range got {
			dir := tree(t, filepath.Join(t.TempDir(), "moot-1"), files)
			if err := os.Chtimes(filepath.Join(dir, "mootd"), time.Time{}, at.Add(time.Duration(i)*time.Hour)); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "x"+ext)
			if err := pack(out, dir); err != nil {
				t.Fatal(err)
			}
			got[i] = read(t, out)
		}
		if !bytes.Equal(got[0], got[1]) {
			t.Errorf("%s: two runs differ", ext)
		}
		if err := pack(filepath.Join(t.TempDir(), "y"+ext), t.TempDir()); err == nil {
			t.Errorf("%s: an empty folder is packed", ext)
		}
	}
}

func TestArchives(t *testing.T) {
	dir := tree(t, filepath.Join(t.TempDir(), "moot-1"), map[string]string{"mootd": "#!x", "man/a.1": "1"})
	out := filepath.Join(t.TempDir(), "x.tar.gz")
	if err := writeArchive(out, dir, at); err != nil {
		t.Fatal(err)
	}
	g, err := gzip.NewReader(bytes.NewReader(read(t, out)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(g); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %o %v", h.Name, h.Mode, h.ModTime.Equal(at) && h.Uid == 0))
	}
	want := []string{"moot-1/ 755 true", "moot-1/man/ 755 true", "moot-1/man/a.1 644 true", "moot-1/mootd 755 true"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	out = filepath.Join(t.TempDir(), "x.zip")
	if err := writeArchive(out, dir, at); err != nil {
		t.Fatal(err)
	}
	z, err := zip.OpenReader(out)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if len(z.File) != 2 || z.File[1].Name != "moot-1/mootd" || z.File[1].Mode().Perm() != 0o755 {
		t.Errorf("zip has %v", z.File)
	}
}

// dpkg reads the package.
func TestDeb(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Skip("there is no dpkg-deb here")
	}
	dir := tree(t, t.TempDir(), map[string]string{"usr/bin/mootd": "#!/bin/sh\n", "usr/share/doc/moot/README.md": "x"})
	out := filepath.Join(t.TempDir(), "x.deb")
	if err := writeDeb(out, dir, at, "v1.2.3-rc1-4-gabcdef0", "arm64"); err != nil {
		t.Fatal(err)
	}
	ask := func(args ...string) string {
		b, err := exec.Command(dpkg, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, b)
		}
		return string(b)
	}
	if got := ask("-f", out, "Package", "Version", "Architecture"); got != "Package: moot\nVersion: 1.2.3~rc1+4+gabcdef0\nArchitecture: arm64\n" {
		t.Errorf("fields %s", got)
	}
	list := ask("-c", out)
	for _, want := range []string{"-rwxr-xr-x root/root", "./usr/bin/mootd", "-rw-r--r-- root/root", "./usr/share/doc/moot/README.md"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	for _, v := range []string{"", "v 1", "1/2"} {
		if err := writeDeb(out, dir, at, v, "arm64"); (err == nil) != (v == "") {
			t.Errorf("version %q: %v", v, err)
		}
	}
}

const help = `Does a thing. And
more of it.

.dots - and \ too

Usage:
  tool [command]

Examples:
  tool sub

Available Commands:
  help        Help about any command
  sub         Do less

Flags:
  -h, --help   help for tool

Use "tool [command] --help" for more information about a command.
`

func TestMan(t *testing.T) {
	dir := tree(t, t.TempDir(), map[string]string{"tool": "#!/bin/sh\nif [ \"$1\" = sub ]; then echo 'Does less.'; else cat <<'X'\n" + help + "X\nfi\n"})
	out := filepath.Join(t.TempDir(), "man")
	if err := run([]string{"man", "-out", out, "-time", fmt.Sprint(at.Unix()), "-version", "1.2-3", filepath.Join(dir, "tool")}); err != nil {
		t.Fatal(err)
	}
	want := `.TH "TOOL" 1 "2026-02-02" "moot 1.2\-3" "moot"
.SH NAME
tool \- Does a thing
.SH SYNOPSIS
.nf
  tool [command]
.fi
.SH DESCRIPTION
Does a thing. And
more of it.
.PP
\&.dots \- and \e too
.SH COMMANDS
.nf
  help        Help about any command
  sub         Do less
.fi
.SH OPTIONS
.nf
  \-h, \-\-help   help for tool
.fi
.SH EXAMPLES
.nf
  tool sub
.fi
.SH SEE ALSO
.BR tool\-sub (1)
`
	if diff := cmp.Diff(want, string(read(t, filepath.Join(out, "tool.1")))); diff != "" {
		t.Error(diff)
	}
	sub := string(read(t, filepath.Join(out, "tool-sub.1")))
	if !strings.Contains(sub, "tool\\-sub \\- Do less\n") || !strings.Contains(sub, ".BR tool (1)\n") {
		t.Errorf("the page of a command below:\n%s", sub)
	}
}

// install.sh installs what has the right checksum, and nothing else.
func TestInstall(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("there is another way on this system")
	}
	name := "moot-1.2.3-" + runtime.GOOS + "-" + runtime.GOARCH
	files := map[string]string{"mootd": "#!/bin/sh\necho mootd $1 1.2.3\n", "moot": "#!/bin/sh\n", "man/moot.1": "x"}
	for _, b := range []string{"mootd", "moot"} {
		for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
			files["completions/"+b+"."+shell] = shell
		}
	}
	release := t.TempDir()
	archive := filepath.Join(release, name+".tar.gz")
	if err := writeArchive(archive, tree(t, filepath.Join(t.TempDir(), name), files), at); err != nil {
		t.Fatal(err)
	}
	good := fmt.Sprintf("%x  %s.tar.gz\n", sha256.Sum256(read(t, archive)), name)
	install := func(sums string) (to, said string, err error) {
		tree(t, release, map[string]string{"SHA256SUMS": sums})
		to = filepath.Join(t.TempDir(), "a home", "local")
		cmd := exec.Command("sh", "../install.sh", "--from", release, "--to", to)
		b, err := cmd.CombinedOutput()
		return to, string(b), err
	}
	to, said, err := install(good)
	if err != nil || !strings.Contains(said, "installed mootd version 1.2.3 in "+to+"/bin") {
		t.Fatalf("%v: %s", err, said)
	}
	for _, f := range []string{"bin/moot", "share/man/man1/moot.1", "share/zsh/site-functions/_mootd", "share/fish/vendor_completions.d/moot.fish"} {
		if _, err := os.Stat(filepath.Join(to, f)); err != nil {
			t.Error(err)
		}
	}
	for _, tt := range []struct{ name, sums, want string }{
		{"another checksum", strings.Repeat("0", 64) + good[64:], "does not have the checksum"},
		{"another system", strings.ReplaceAll(good, runtime.GOARCH, "mips"), "has nothing for"},
		{"two", good + strings.Replace(good, "1.2.3", "1.2.4", 1), "several archives"},
		{"a path", strings.Replace(good, "moot-", "moot-/../", 1), "has nothing for"},
		{"none", "", "has nothing for"},
	} {
		to, said, err := install(tt.sums)
		if err == nil || !strings.Contains(said, tt.want) {
			t.Errorf("%s: %v, %s", tt.name, err, said)
		}
		if _, err := os.Stat(to); err == nil {
			t.Errorf("%s: something was installed", tt.name)
		}
	}
	cmd := exec.Command("sh", "../install.sh", "--from", "http://example.org", "--to", t.TempDir())
	if b, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(b), "use https") {
		t.Errorf("http: %v, %s", err, b)
	}
}

// TestCopyright: a program with a module has that one's licence, and Go's.
func TestCopyright(t *testing.T) {
	source := tree(t, t.TempDir(), map[string]string{"main.go": "package main\n\nimport \"github.com/google/go-cmp/cmp\"\n\nfunc main() { println(cmp.Equal(1, 2)) }\n"})
	self := filepath.Join(t.TempDir(), "program")
	if b, err := exec.Command("go", "build", "-o", self, filepath.Join(source, "main.go")).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, b)
	}
	read := func() string {
		out := filepath.Join(t.TempDir(), "copyright")
		if err := run([]string{"copyright", "-out", out, self, self}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	got := read()
	for _, want := range []string{
		"No licence has been chosen for moot itself", "github.com/google/go-cmp v", "the Go standard library", "Redistributions of source code must retain",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%.3000s", want, got)
		}
	}
	if n := strings.Count(got, "github.com/google/go-cmp v"); n != 1 {
		t.Errorf("a module is listed %d times", n)
	}
	for i, line := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
		if line == " " || strings.HasSuffix(line, " ") {
			t.Errorf("line %d is %q", i+1, line)
		}
	}
	if got != read() {
		t.Error("it is another one each time")
	}
	// What has no licence is not shipped.
	dir := tree(t, t.TempDir(), map[string]string{"main.go": "package main"})
	if _, err := licenceOf(module{"example.org/x", "v1", dir}); err == nil || !strings.Contains(err.Error(), "no file with a licence") {
		t.Errorf("a module without a licence: %v", err)
	}
	if err := run([]string{"copyright", "-out", "x", filepath.Join(dir, "main.go")}); err == nil {
		t.Error("the licences of no program are known")
	}
}
