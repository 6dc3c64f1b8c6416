package logs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestLevels(t *testing.T) {
	var out strings.Builder
	l := new(Levels)
	log, err := New(&out, "text", l)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ levels, want string }{
		{"", "info, net info, "},
		{"debug", "debug, info, net debug, net info, "},
		{"warn", ""},
		{"info,net=debug", "info, net debug, net info, "},
		{"debug, net=warn", "debug, info, "},
		{"error,net=info,run=debug", "net info, run debug, "},
	} {
		if tt.levels != "" {
			if err := l.Parse(tt.levels); err != nil {
				t.Fatal(err)
			}
		}
		out.Reset()
		net := log.With("component", "net")
		log.Debug("debug")
		log.Info("info")
		net.Debug("net debug")
		net.Info("net info", "x", 1)
		log.Debug("run debug", "component", "run")
		got := ""
		for line := range strings.Lines(out.String()) {
			for _, msg := range []string{"net debug", "net info", "run debug", "debug", "info"} {
				if strings.Contains(line, "msg="+msg+" ") || strings.Contains(line, fmt.Sprintf("msg=%q", msg)) || strings.HasSuffix(line, "msg="+msg+"\n") {
					got += msg + ", "
					break
				}
			}
		}
		want := tt.want
		if tt.levels == "debug" || strings.HasPrefix(tt.levels, "debug,") {
			want += "run debug, "
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", tt.levels, got, want)
		}
	}
	for _, bad := range []string{"", "loud", "net=debug", "info,warn", "info,=debug", "info,net=", "INFO"} {
		if err := l.Parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if l.get().of("run") != slog.LevelDebug {
		t.Error("what is wrong has an effect")
	}
}

func TestJSON(t *testing.T) {
	var out strings.Builder
	log, err := New(&out, "json", new(Levels))
	if err != nil {
		t.Fatal(err)
	}
	log.With("component", "net").Info("it was done", "n", 3)
	var m map[string]any
	if err := json.Unmarshal([]byte(out.String()), &m); err != nil || m["msg"] != "it was done" || m["component"] != "net" || m["n"] != 3.0 {
		t.Errorf("%v, %v", m, err)
	}
	if _, err := New(&out, "xml", new(Levels)); err == nil {
		t.Error("an unknown format is taken")
	}
}

func TestFileRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "x.log")
	f, err := Open(path, 100, 2)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 10 {
				fmt.Fprintf(f, "line %d %02d\n", i, j) // 10 bytes
			}
		})
	}
	wg.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for name, want := range map[string]int{"": 100, ".1": 100, ".2": 100, ".3": -1} {
		b, err := os.ReadFile(path + name)
		if want < 0 {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || len(b) != want {
			t.Errorf("%s has %d bytes, %v", name, len(b), err)
		}
		lines += strings.Count(string(b), "\n")
	}
	if lines != 30 {
		t.Errorf("%d whole lines", lines)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// It goes on where it was.
	if f, err = Open(path, 200, 2); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "more")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || len(b) != 104 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("a closed file takes more")
	}
}
