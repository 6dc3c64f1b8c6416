package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/node/internal/volunteer"
)

// TestSettings: what is in effect, what comes at the next start, where it is
// from; what is set is in the file with its comments, what is wrong is not.
func TestSettings(t *testing.T) {
	meter, err := traffic.New(traffic.Options{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "mootd.toml")
	if err := os.WriteFile(file, []byte("# mine\nlog_level = \"warn\" # quiet\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MOOT_WORK_MAX_TEMP_C", "70")
	load := func() (*config.Config, error) {
		l, err := config.Load(file, os.Getenv)
		if err != nil {
			return nil, err
		}
		l.Threads = 3 // by a flag
		return &l.Config, nil
	}
	c, err := load()
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(keeperOptions{dir: t.TempDir(), settings: volunteer.Settings{}, log: slog.New(slog.DiscardHandler), changed: func() {}})
	n := &node{traffic: meter, keeper: k, changed: make(chan struct{}, 1)}
	n.follow = newFollower(Options{Config: *c, File: file, Reload: load, Log: slog.New(slog.DiscardHandler)}, n)
	setting := func(key string) api.Setting {
		t.Helper()
		all, err := n.Settings(t.Context())
		if err != nil || all.File != file || len(all.Settings) != len(config.Keys()) {
			t.Fatalf("%d settings of %s, %v", len(all.Settings), all.File, err)
		}
		i := slices.IndexFunc(all.Settings, func(s api.Setting) bool { return s.Key == key })
		return all.Settings[i]
	}
	for key, want := range map[string]struct {
		origin, value string
		list, live    bool
	}{
		"log_level": {"file", "warn", false, true}, "work.max_temp_c": {"environment", "70", false, true}, "threads": {"flag", "3", false, false},
		"work.duty_percent": {"default", "100", false, true}, "work.schedule": {"default", "", true, true}, "listen": {"default", strings.Join(config.Default().Listen, " "), true, false},
	} {
		if s := setting(key); s.Origin != want.origin || strings.Join(s.Values, " ") != want.value || s.List != want.list || s.Live != want.live || s.Next != nil || s.Values == nil || s.Default == nil {
			t.Errorf("%s is %+v, want %+v", key, s, want)
		}
	}
	// A file that is not there is none that is wrong.
	at := n.follow.file
	n.follow.file = filepath.Join(t.TempDir(), "none.toml")
	if all, err := n.Settings(t.Context()); err != nil || all.Error != "" {
		t.Errorf("without a file: %q, %v", all.Error, err)
	}
	n.follow.file = at
	set := func(key string, values ...string) error {
		_, err := n.ChangeSettings(t.Context(), api.SettingsRequest{Set: map[string][]string{key: values}})
		return err
	}
	for _, err := range []error{set("work.duty_percent", "55"), set("work.schedule", "Mon 08:00-10:00", "daily 22:00-23:00"), set("cache_max_mb", "5"), set("device", "cpu")} {
		if err != nil {
			t.Error(err)
		}
	}
	if s := setting("work.duty_percent"); s.Values[0] != "55" || s.Origin != "file" || !strings.Contains(s.Where, "mootd.toml") || k.duty != 55 {
		t.Errorf("duty is %+v, in effect %d", s, k.duty)
	}
	if s := setting("work.schedule"); len(s.Values) != 2 {
		t.Errorf("schedule is %+v", s)
	}
	if s := setting("device"); s.Values[0] != "auto" || len(s.Next) != 1 || s.Next[0] != "cpu" {
		t.Errorf("device is %+v, want cpu at the next start", s)
	}
	if err := set("work.schedule"); err != nil || len(setting("work.schedule").Values) != 0 {
		t.Errorf("no schedule: %v, %+v", err, setting("work.schedule"))
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for key, x := range map[string]struct {
		code   api.Code
		values []string
	}{
		"work.duty_percent": {api.CodeConfig, []string{"101"}}, "work.schedule": {api.CodeConfig, []string{"sometimes"}}, "work.on_battery": {api.CodeConfig, []string{"perhaps"}},
		"threads": {api.CodeConflict, []string{"2"}}, "work.max_temp_c": {api.CodeConflict, []string{"80"}}, "nothing": {api.CodeNotFound, []string{"1"}},
	} {
		wantCode(t, set(key, x.values...), x.code, "")
	}
	after, err := os.ReadFile(file)
	if err != nil || string(after) != string(before) || !strings.Contains(string(after), "# mine") || !strings.Contains(string(after), "# quiet") {
		t.Errorf("the file is\n%s(%v), was\n%s", after, err, before)
	}
	n.follow.load = nil
	wantCode(t, set("work.duty_percent", "50"), api.CodeConflict, "follows no configuration file")
}
