package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/volunteer"
	"github.com/moot-net/moot/shard"
)

// fake is a daemon.
type fake struct {
	status api.Status
	peers  []api.Peer
	set    []api.Setting // by flags
	err    error
}

func (f *fake) Status(context.Context) (api.Status, error) { return f.status, f.err }
func (f *fake) Peers(context.Context) (api.Peers, error)   { return api.Peers{Peers: f.peers}, f.err }

func (f *fake) Settings(context.Context) (api.Settings, error) {
	return api.Settings{Settings: f.set}, f.err
}

// seen is what there is to see on a machine that is plugged in and in use.
var seen = volunteer.Observation{
	Battery: new(false), Idle: new(3 * time.Second), Fullscreen: new(false), GameMode: new(false),
	Temps: []volunteer.Temp{{Device: "the processor", Celsius: 48}},
}

// healthy is a machine on which all is as it should be.
func healthy(t *testing.T) Options {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := &config.Loaded{Config: config.Default(), File: "mootd.toml", Found: true}
	c.DataDir, c.API, c.Listen = dir, "127.0.0.1:0", []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	return Options{
		Config: c, Identity: func(string) (string, error) { return peerA, nil },
		FreeBytes: func(string) (int64, error) { return 100e9, nil },
		Device:    func(string) Check { return Check{Name: "device", Level: OK, Text: "cpu"} }, Quick: true,
		Observe: func(volunteer.Settings) volunteer.Observation { return seen },
	}
}

func find(t *testing.T, r Report, name string) Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("nothing is said about %s: %+v", name, r.Checks)
	return Check{}
}

func TestHealthy(t *testing.T) {
	o := healthy(t)
	o.Quick = false
	r := Run(t.Context(), o)
	for _, c := range r.Checks {
		// How fast this machine is, and who sets its clock, is not the test's business.
		if c.Level != OK && c.Name != "disk" && c.Name != "hashing" && c.Name != "clock" {
			t.Errorf("%+v", c)
		}
		if (c.Level != OK) != (c.Fix != "") {
			t.Errorf("%+v: a way out is said where there is something wrong", c)
		}
	}
	for _, name := range []string{"version", "config", "data", "space", "identity", "store", "clock", "ports", "nat", "bootstrap", "device", "disk", "hashing", "idle", "fullscreen", "gamemode", "battery", "heat"} {
		find(t, r, name)
	}
	if left, err := os.ReadDir(o.Config.DataDir); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

func TestFaults(t *testing.T) {
	blocked := func(t *testing.T) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.Addr().String()
	}
	running := func(o *Options, f fake) {
		f.status.Version, f.status.State = api.ThisVersion().Version, api.NodeIdle
		o.Daemon = &f
	}
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, o *Options)
		check string
		level Level
		text  string
	}{
		{"configuration", func(_ *testing.T, o *Options) { o.Config, o.ConfigErr = nil, errors.New("mootd.toml:3: unknown key") }, "config", Fail, "mootd.toml:3"},
		{"no folder", func(_ *testing.T, o *Options) { o.Config.DataDir += "/a/b" }, "data", OK, "made at the first start"},
		{"folder is a file", func(t *testing.T, o *Options) {
			o.Config.DataDir += "/file"
			if err := os.WriteFile(o.Config.DataDir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "data", Fail, "not a folder"},
		{"open to others", func(t *testing.T, o *Options) {
			if err := os.Chmod(o.Config.DataDir, 0o755); err != nil {
				t.Fatal(err)
			}
		}, "data", Warn, "mode 0755"},
		{"a desktop that tells nothing", func(_ *testing.T, o *Options) {
			o.Observe = func(volunteer.Settings) volunteer.Observation {
				return volunteer.Observation{Unseen: map[volunteer.Sight]string{volunteer.SightFullscreen: "not available on this desktop"}}
			}
		}, "fullscreen", Warn, "not available on this desktop; work.fullscreen has no effect"},
		{"a desktop that tells nothing, and need not", func(_ *testing.T, o *Options) {
			o.Observe = func(volunteer.Settings) volunteer.Observation {
				return volunteer.Observation{Unseen: map[volunteer.Sight]string{volunteer.SightIdle: "not available on this desktop"}}
			}
		}, "idle", OK, "no setting needs it"},
		{"clock", func(_ *testing.T, o *Options) {
			running(o, fake{status: api.Status{ClockError: "the clock of this machine is 1m0s behind those of 3 peers"}})
		}, "clock", Fail, "1m0s behind"},
		{"full", func(_ *testing.T, o *Options) { o.FreeBytes = func(string) (int64, error) { return 5e8, nil } }, "space", Fail, "0.5 GB"},
		{"nearly full", func(_ *testing.T, o *Options) { o.FreeBytes = func(string) (int64, error) { return 3e9, nil } }, "space", Warn, "3.0 GB"},
		{"identity", func(_ *testing.T, o *Options) {
			o.Identity = func(string) (string, error) { return "", errors.New("identity is damaged") }
		}, "identity", Fail, "damaged"},
		{"new identity", func(_ *testing.T, o *Options) {
			o.Identity = func(string) (string, error) { return "", fs.ErrNotExist }
		}, "identity", OK, "first start"},
		{"locked", func(t *testing.T, o *Options) {
			s, err := shard.OpenOptions{}.Open(filepath.Join(o.Config.DataDir, "store"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
		}, "store", Fail, "another process"},
		{"future", func(t *testing.T, o *Options) {
			path := filepath.Join(o.Config.DataDir, "control.json")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}, "clock", Warn, "in the future"},
		{"port of the API", func(t *testing.T, o *Options) { o.Config.API, o.Config.AnyAPIPort = blocked(t), false }, "ports", Fail, "api: "},
		{"default port", func(t *testing.T, o *Options) { o.Config.API = blocked(t) }, "ports", Warn, "api: "},
		{"port for peers", func(t *testing.T, o *Options) {
			_, port, _ := net.SplitHostPort(blocked(t))
			o.Config.Listen, o.Config.AnyPort = []string{"/ip4/127.0.0.1/tcp/" + port}, false
		}, "ports", Fail, "/tcp/"},
		{"bootstrap", func(t *testing.T, o *Options) {
			_, port, _ := net.SplitHostPort(blocked(t))
			o.Config.Bootstrap = []string{"/ip4/127.0.0.1/tcp/" + port + "/p2p/" + peerA}
		}, "bootstrap", OK, "1 of 1"},
		{"no bootstrap answers", func(_ *testing.T, o *Options) { o.Config.Bootstrap = []string{"/ip4/127.0.0.1/tcp/1/p2p/" + peerA} }, "bootstrap", Warn, "0 of 1"},
		{"nobody can be found", func(_ *testing.T, o *Options) { o.Config.MDNS = false }, "bootstrap", Warn, "mdns is off"},
		{"device", func(_ *testing.T, o *Options) {
			o.Device = func(name string) Check { return Check{Name: "device", Level: Fail, Text: name, Fix: "x"} }
			o.Config.Device = "cuda:3"
		}, "device", Fail, "cuda:3"},
		{"daemon hangs", func(_ *testing.T, o *Options) { o.Daemon = &fake{err: errors.New("timeout")} }, "daemon", Fail, "timeout"},
		{"other version", func(_ *testing.T, o *Options) { o.Daemon = &fake{status: api.Status{Version: "0.0.1"}} }, "version", Warn, "0.0.1"},
		{"paused", func(_ *testing.T, o *Options) {
			o.Daemon = &fake{status: api.Status{State: api.NodePaused, Why: "a film", Do: "resume"}}
		}, "work", Warn, "a film"},
		{"broken while it runs", func(_ *testing.T, o *Options) { running(o, fake{status: api.Status{ConfigError: "line 3"}}) }, "config", Fail, "line 3"},
		{"restart", func(_ *testing.T, o *Options) {
			running(o, fake{status: api.Status{RestartNeeded: []string{"threads"}}})
		}, "config", Warn, "threads"},
		{"private", func(_ *testing.T, o *Options) { running(o, fake{status: api.Status{Reachability: "private"}}) }, "nat", Warn, "no relay"},
		{"relayed", func(_ *testing.T, o *Options) {
			running(o, fake{status: api.Status{Reachability: "private", Addrs: []string{"/ip4/1.2.3.4/tcp/1/p2p/x/p2p-circuit"}}})
		}, "nat", OK, "1 relays"},
		{"public", func(_ *testing.T, o *Options) { running(o, fake{status: api.Status{Reachability: "public"}}) }, "nat", OK, "from outside"},
		{"alone", func(_ *testing.T, o *Options) { running(o, fake{}) }, "peers", Warn, "0 connected"},
		{"company", func(_ *testing.T, o *Options) { running(o, fake{peers: []api.Peer{{ID: peerA, Where: "lan"}}}) }, "peers", OK, "1 on the LAN"},
		{"bootstrap of a daemon", func(_ *testing.T, o *Options) {
			running(o, fake{peers: []api.Peer{{ID: peerA}}})
			o.Config.Bootstrap = []string{"/ip4/192.0.2.1/tcp/1/p2p/" + peerA}
		}, "bootstrap", OK, "1 of 1"},
		{"bootstrap of a daemon's flag", func(_ *testing.T, o *Options) {
			running(o, fake{set: []api.Setting{{Key: "bootstrap", Values: []string{"/ip4/192.0.2.1/tcp/1/p2p/" + peerA}}}})
		}, "bootstrap", Warn, "0 of 1 answer; /ip4/192.0.2.1/tcp/1/p2p/" + peerA + ": it is not connected"},
		{"discovery that a daemon's flag turned off", func(_ *testing.T, o *Options) {
			running(o, fake{set: []api.Setting{{Key: "mdns", Values: []string{"false"}}}})
		}, "bootstrap", Warn, "mdns is off"},
		{"device of a daemon's flag", func(_ *testing.T, o *Options) {
			o.Device = func(name string) Check { return Check{Name: "device", Level: Fail, Text: name, Fix: "x"} }
			running(o, fake{set: []api.Setting{{Key: "device", Values: []string{"cuda:7"}}}})
		}, "device", Fail, "cuda:7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := healthy(t)
			tt.spoil(t, &o)
			r := Run(t.Context(), o)
			c := find(t, r, tt.check)
			if c.Level != tt.level || !strings.Contains(c.Text, tt.text) || (c.Fix == "") != (c.Level == OK) {
				t.Errorf("%+v, want %s with %q", c, tt.level, tt.text)
			}
			if r.OK != (len(r.Failed()) == 0) || tt.level == Fail && r.OK {
				t.Errorf("ok %v, failed %v", r.OK, r.Failed())
			}
		})
	}
}
