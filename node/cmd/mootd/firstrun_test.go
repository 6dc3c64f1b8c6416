package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/config"
)

func TestFirstRun(t *testing.T) {
	for _, tt := range []struct {
		name, answers string
		agreed        *bool
		file          string // "": none
		says          string
	}{
		{"all as it is", "\n\n\n", new(true), "", "Thank you"},
		{"all answered", "cpu\n50 20\nnights\n", new(true), `device = 'cpu'
cache_max_mb = 50000

[network]
upload_mbit = 20.0
download_mbit = 20.0

[work]
schedule = ['Mon-Sun 22:00-07:00']
`, "Written to"},
		{"disk alone", "\n2.5\nSat,Sun 00:00-24:00; Mon 20:00-22:00\n", new(true), `cache_max_mb = 2500

[work]
schedule = ['Sat,Sun 00:00-24:00', 'Mon 20:00-22:00']
`, "Written to"},
		{"asked again", "gpu0\ncpu\nmuch\n1 2 3\n5 0.0001\n0 0\n25:00\nalways\n", new(true), "device = 'cpu'\n", `device is "gpu0", must be`},
		{"no", "cpu\nno\n", new(false), "", "Nothing will be computed"},
		{"hung up", "cpu\n", nil, "", "2 of 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := &config.Loaded{Config: config.Default(), File: filepath.Join(dir, "moot", "mootd.toml")}
			cfg.DataDir = filepath.Join(dir, "data")
			var out strings.Builder
			agreed, err := firstRun(t.Context(), cfg, &asker{bufio.NewReader(strings.NewReader(tt.answers)), &out})
			if (err != nil) != (tt.agreed == nil) || !cmp.Equal(agreed, tt.agreed) {
				t.Errorf("agreed %v, %v\n%s", agreed, err, &out)
			}
			if !strings.Contains(out.String(), tt.says) {
				t.Errorf("it says %s, want %q", &out, tt.says)
			}
			b, err := os.ReadFile(cfg.File)
			if tt.file == "" && err == nil || tt.file != "" && err != nil {
				t.Fatalf("file %q, %v", b, err)
			}
			if diff := cmp.Diff(tt.file, string(b)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Nobody is asked twice, or without a terminal.
func TestFirstRunAsksNobody(t *testing.T) {
	fresh := func(t *testing.T) *config.Loaded {
		cfg := &config.Loaded{Config: config.Default(), File: filepath.Join(t.TempDir(), "mootd.toml")}
		cfg.DataDir = t.TempDir()
		return cfg
	}
	write := func(t *testing.T, path string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		with  func(t *testing.T, cfg *config.Loaded)
		asks  bool
		blind bool
	}{
		{"new", func(*testing.T, *config.Loaded) {}, true, false},
		{"no run", func(t *testing.T, c *config.Loaded) { write(t, filepath.Join(c.DataDir, "identity.key")) }, true, false},
		{"no terminal", func(*testing.T, *config.Loaded) {}, false, true},
		{"a file", func(_ *testing.T, c *config.Loaded) { c.Found = true }, false, false},
		{"asked before", func(t *testing.T, c *config.Loaded) { write(t, filepath.Join(c.DataDir, "control.json")) }, false, false},
		{"in a run", func(t *testing.T, c *config.Loaded) { write(t, filepath.Join(c.DataDir, "runs", "x.json")) }, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := fresh(t)
			tt.with(t, cfg)
			var out strings.Builder
			a := &asker{bufio.NewReader(strings.NewReader("\n\n\n")), &out}
			if tt.blind {
				a = nil
			}
			agreed, err := firstRun(t.Context(), cfg, a)
			if err != nil || (agreed != nil) != tt.asks || (out.Len() > 0) != tt.asks {
				t.Errorf("agreed %v, %v, said %q", agreed, err, &out)
			}
		})
	}
}
