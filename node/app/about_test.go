package app

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/volunteer"
)

// What runs here, where its files are, and the licences that lie beside the
// program, as a release and as a package have them.
func TestAbout(t *testing.T) {
	d := startDaemon(t, testConfig(t.TempDir()))
	var a api.About
	eventually(t, func() bool { // its parts begin side by side
		var err error
		if a, err = d.About(t.Context()); err != nil {
			t.Fatal(err)
		}
		return slices.Contains(a.Protocols, "/moot/shard/1")
	})
	if a.Version != api.ThisVersion() || !slices.Contains(a.Formats, api.NamedValue{Name: "run manifest", Value: "1"}) {
		t.Errorf("%+v", a)
	}
	if i := slices.IndexFunc(a.Paths, func(p api.NamedValue) bool { return p.Name == "usage" }); i < 0 || filepath.Base(a.Paths[i].Value) != usageFile {
		t.Errorf("paths %+v", a.Paths)
	}
	p, err := d.WorkPresets(t.Context())
	if err != nil || len(p.Presets) != 3 || p.Processors < 1 || p.Presets[2].Name != "all" || len(p.Presets[2].Settings) != len(p.Presets[0].Settings) {
		t.Errorf("presets %+v, %v", p, err)
	}
	if today, err := d.Today(t.Context()); err != nil || today.Since.After(time.Now()) || len(today.Runs) != 0 {
		t.Errorf("today %+v, %v", today, err)
	}

	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	for _, at := range []string{"copyright", "../share/doc/moot/copyright"} {
		dir := filepath.Join(t.TempDir(), "bin")
		n.program = filepath.Join(dir, "mootd")
		_, err := n.Notices(t.Context())
		wantCode(t, err, api.CodeNotFound, "licences of modules")
		path := filepath.Join(dir, at)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(noticesHead+"1.0/\nFiles: *\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := n.Notices(t.Context())
		if err != nil || !strings.HasSuffix(v.Text, "Files: *\n") {
			t.Errorf("%s: %q, %v", at, v.Text, err)
		}
		if a, err := n.About(t.Context()); err != nil || !a.Notices {
			t.Errorf("%s: %v, %v", at, a.Notices, err)
		}
		if err := os.WriteFile(path, []byte("my own file"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = n.Notices(t.Context())
		wantCode(t, err, api.CodeNotFound, "another file")
	}
}

// What the schedule says now and when that changes.
func TestScheduleState(t *testing.T) {
	s, err := volunteer.ParseSchedule([]string{"daily 22:00-07:00"})
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{settings: volunteer.Settings{Schedule: s}}
	night := time.Date(2026, 5, 1, 23, 0, 0, 0, time.UTC)
	if got := k.schedule(night); got == nil || !got.Open || !got.Until.Equal(night.Add(8*time.Hour)) {
		t.Errorf("at night %+v", got)
	}
	if got := k.schedule(night.Add(12 * time.Hour)); got == nil || got.Open || !got.Until.Equal(night.Add(23*time.Hour)) {
		t.Errorf("by day %+v", got)
	}
	if got := new(keeper).schedule(night); got != nil {
		t.Errorf("without one %+v", got)
	}
}
