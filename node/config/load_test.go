package config

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Each setting has a variable, which is stronger than the file.
func TestEnvironmentOfEachKey(t *testing.T) {
	for _, k := range keys() {
		d := Default()
		var text string
		switch v := k.of(&d); v.Kind() {
		case reflect.String, reflect.Slice:
			text = "x"
		case reflect.Bool:
			text = map[bool]string{true: "false", false: "true"}[v.Bool()]
		default:
			text = "77"
		}
		l, err := Load(os.DevNull, func(name string) string { return map[string]string{Env(k.name): text}[name] })
		if err != nil {
			t.Fatal(err)
		}
		if got := Differ(&d, &l.Config); len(got) != 1 || got[0] != k.name {
			t.Errorf("%s=%s changes %v", Env(k.name), text, got)
		}
		if o := l.Origin(k.name).String(); o != "environment "+Env(k.name) {
			t.Errorf("%s is from %s", k.name, o)
		}
	}
}

func TestOrigin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mootd.toml")
	text := "# x\nthreads = 3\nwork = { duty_percent = 50 }\n[network]\nrelay = false\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Load(path, func(name string) string { return map[string]string{"MOOT_NETWORK_MONTHLY_GB": "2.5"}[name] })
	if err != nil {
		t.Fatal(err)
	}
	l.Flagged("device", "device")
	for name, want := range map[string]string{
		"threads": "file " + path + ":2", "work.duty_percent": "file " + path + ":3", "network.relay": "file " + path + ":5",
		"network.monthly_gb": "environment MOOT_NETWORK_MONTHLY_GB", "device": "flag --device", "api": "default",
	} {
		if got := l.Origin(name).String(); got != want {
			t.Errorf("%s is from %q, want %q", name, got, want)
		}
	}
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mootd.toml")
	var seen atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go Watch(ctx, path, func() { seen.Add(1) })
		step := func(what string, want int64) {
			t.Helper()
			time.Sleep(WatchInterval)
			synctest.Wait()
			if n := seen.Load(); n != want {
				t.Errorf("%s: %d changes were seen, want %d", what, n, want)
			}
		}
		step("at the start", 1)
		if err := os.WriteFile(path, []byte("a"), 0o600); err != nil {
			t.Fatal(err)
		}
		step("made", 2)
		step("untouched", 2)
		if err := os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		step("written anew", 3)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		step("removed", 4)
		cancel()
		synctest.Wait()
	})
}
