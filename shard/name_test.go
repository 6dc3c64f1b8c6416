package shard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{
		"a", "config.json", "model-00001-of-00002.safetensors", "-", "_", "a b", "日本語.txt", "naïve", "COMMON", "COM", "COM10",
		"nulls", "x.nul", "lpt", strings.Repeat("n", 255), "tokenizer (1).json", "#", "$", "~", "%41", "a..b", "🎉",
	} {
		if err := CheckName(name); err != nil {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
	for _, name := range []string{
		"", ".", "..", "...", ".git", "/", "a/b", "/etc/passwd", `a\b`, `..\x`, "C:", "a:b", "a*", "a?", `a"`, "a<", "a>", "a|",
		"a\x00b", "a\nb", "a\x7f", "a\xff", "a\u202egpj.exe", "a\u200b", "a\u00a0", "a\u2028", "\ufeffa", "end.", "end ", "a\t",
		"CON", "con", "Nul.txt", "aux.tar.gz", "COM1", "com9.log", "LPT¹", "COM²", "PRN ", "nul .txt", "CONIN$", "conout$", "COM0",
		strings.Repeat("n", 256),
	} {
		if err := CheckName(name); err == nil {
			t.Errorf("CheckName(%q) = nil", name)
		}
	}
}

func TestFoldName(t *testing.T) {
	for _, same := range [][2]string{
		{"README", "readme"}, {"Straße", "STRASSE"}, {"é", "e\u0301"}, {"É", "e\u0301"}, {"ſ", "s"}, {"K", "k"},
	} {
		if foldName(same[0]) != foldName(same[1]) {
			t.Errorf("%q and %q are not the same", same[0], same[1])
		}
	}
	for _, other := range [][2]string{{"a", "b"}, {"e", "é"}, {"a.b", "a-b"}} {
		if foldName(other[0]) == foldName(other[1]) {
			t.Errorf("%q and %q are the same", other[0], other[1])
		}
	}
}

// What CheckName lets through is one local path element and can be written here.
func FuzzCheckName(f *testing.F) {
	for _, name := range []string{"a", "..", "a/b", "NUL", "é", "\xff", "a:b", ".x"} {
		f.Add(name)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) != nil {
			return
		}
		if !filepath.IsLocal(name) || filepath.Base(name) != name || strings.ContainsAny(name, "/\\\x00") {
			t.Fatalf("%q is not one path element", name)
		}
		p := filepath.Join(dir, name)
		if filepath.Dir(p) != dir {
			t.Fatalf("%q leads to %s", name, p)
		}
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			t.Fatalf("%q cannot be written: %v", name, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || foldName(entries[0].Name()) != foldName(name) {
			t.Fatalf("%q became %v, %v", name, entries, err)
		}
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	})
}
