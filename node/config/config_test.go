package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func noEnv(string) string { return "" }

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestPrecedence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mootd.toml")
	if err := os.WriteFile(path, []byte("threads = 3\nlog_level = \"warn\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, func(k string) string {
		return map[string]string{"MOOT_LOG_LEVEL": "debug", "MOOT_BOOTSTRAP": "a,b"}[k]
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Threads != 3 || c.LogLevel != "debug" || len(c.Bootstrap) != 2 || c.API != DefaultAPI {
		t.Errorf("Load = %+v, want threads of the file, log level and bootstrap of the environment, API by default", c)
	}
}

func TestBadFiles(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "\nthread = 3\n", `:2: unknown key "thread"; did you mean "threads"?`},
		{"far key", "colour = 3\n", "known keys are"},
		{"short far key", "nope = 3\n", "known keys are"},
		{"short near key", "apu = 3\n", `did you mean "api"?`},
		{"unknown key of a table", "[work]\nduty = 3\n", `:2: unknown key "work.duty"`},
		{"key without its table", "duty_percent = 3\n", `did you mean "work.duty_percent"?`},
		{"near key of a table", "[work]\nschedul = []\n", `did you mean "work.schedule"?`},
		{"wrong type", "threads = \"x\"\n", ":1:"},
		{"syntax", "threads = \n", ":1:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "mootd.toml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(path, noEnv); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load() = %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "missing.toml"), noEnv); err == nil {
		t.Error("a file that was asked for and is not there went unnoticed")
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no data", func(c *Config) { c.DataDir = "" }, "data_dir"},
		{"no listen", func(c *Config) { c.Listen = nil }, "listen"},
		{"bad listen", func(c *Config) { c.Listen = []string{"0.0.0.0:1"} }, "listen"},
		{"bootstrap without id", func(c *Config) { c.Bootstrap = []string{"/ip4/1.2.3.4/tcp/1"} }, "/p2p/"},
		{"public api", func(c *Config) { c.API = "0.0.0.0:7717" }, "loopback"},
		{"api port", func(c *Config) { c.API = "127.0.0.1" }, "host:port"},
		{"threads", func(c *Config) { c.Threads = 0 }, "threads is 0"},
		{"precision", func(c *Config) { c.Precision = "fp16" }, "precision"},
		{"level", func(c *Config) { c.LogLevel = "loud" }, "log_level"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			tt.edit(&c)
			if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate() = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// Only a port that nobody asked for may be replaced by a free one.
func TestAnyPort(t *testing.T) {
	const file = "listen = [\"/ip4/0.0.0.0/tcp/4717\"]\napi = \"127.0.0.1:7717\"\n"
	for _, tt := range []struct {
		name, text string
		env        map[string]string
		peers, api bool
	}{
		{"default", "threads = 1\n", nil, true, true},
		{"file", file, nil, false, false},
		{"environment", "", map[string]string{"MOOT_LISTEN": "/ip4/127.0.0.1/tcp/1"}, false, true},
		{"environment, API", "", map[string]string{"MOOT_API": "127.0.0.1:0"}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "mootd.toml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Load(path, func(k string) string { return tt.env[k] })
			if err != nil {
				t.Fatal(err)
			}
			if c.AnyPort != tt.peers || c.AnyAPIPort != tt.api {
				t.Errorf("any port %v, any API port %v; want %v, %v", c.AnyPort, c.AnyAPIPort, tt.peers, tt.api)
			}
		})
	}
}

// What is shown can be used as a file.
func TestEncode(t *testing.T) {
	c := Default()
	c.Bootstrap = []string{"/ip4/1.2.3.4/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"}
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mootd.toml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path, noEnv)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	c.AnyPort, c.AnyAPIPort = false, false // they are in the file now
	if diff := cmp.Diff(c, got.Config); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
