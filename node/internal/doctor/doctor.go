// Package doctor looks at what a node needs, without changing any of it: the
// configuration, the data folder, ports, the network, the device, the clock.
// Each thing that is not as it should be comes with what to do about it. It
// works beside a daemon, whom it then asks, and without one.
package doctor

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/volunteer"
)

// Level is how a check ended.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // the node works, but not as well as it could
	Fail Level = "fail" // the node does not work
)

// Check is one thing that was looked at.
type Check struct {
	Name  string `json:"name"`
	Level Level  `json:"level"`
	Text  string `json:"text"`          // what was found
	Fix   string `json:"fix,omitempty"` // what to do; there unless it is ok
}

// Report is what was found. Fields are only ever added.
type Report struct {
	Version api.Version `json:"version"`
	// Daemon tells that a daemon answered.
	Daemon bool    `json:"daemon"`
	OK     bool    `json:"ok"` // nothing failed
	Checks []Check `json:"checks"`
}

// Daemon is what is asked of a daemon; a *client.Client answers it.
type Daemon interface {
	Status(ctx context.Context) (api.Status, error)
	Peers(ctx context.Context) (api.Peers, error)
}

// Options are what Run looks at.
type Options struct {
	// Config is the configuration, or nil if ConfigErr says why there is none.
	Config    *config.Loaded
	ConfigErr error
	// Daemon is the one that runs on the data folder, nil if none does.
	Daemon Daemon
	// Identity reads the peer ID of a data folder without making one.
	Identity func(dataDir string) (string, error)
	// FreeBytes is what may still be written to the file system of a folder.
	FreeBytes func(dir string) (int64, error)
	// Device looks for the device that the configuration names.
	Device func(name string) Check
	// Observe looks at what the machine is used for; nil: that is left out.
	Observe func(volunteer.Settings) volunteer.Observation
	// Quick leaves out what takes a second or more: how fast disk and
	// processor are.
	Quick bool
}

// doctor collects checks.
type doctor struct {
	Options
	status *api.Status // nil without a daemon
	report Report
}

// Run looks at everything.
func Run(ctx context.Context, o Options) Report {
	d := &doctor{Options: o, report: Report{Version: api.ThisVersion(), OK: true}}
	d.daemon(ctx)
	if d.config() {
		d.data()
		d.clock()
		d.ports(ctx)
		d.network(ctx)
		d.add(o.Device(o.Config.Device))
		d.makeWay()
		if !o.Quick {
			d.speed()
		}
	}
	return d.report
}

func (d *doctor) add(c Check) {
	d.report.Checks = append(d.report.Checks, c)
	if c.Level == Fail {
		d.report.OK = false
	}
}

func (d *doctor) ok(name, format string, args ...any) {
	d.add(Check{Name: name, Level: OK, Text: fmt.Sprintf(format, args...)})
}

func (d *doctor) warn(name, text, fix string) { d.add(Check{name, Warn, text, fix}) }

func (d *doctor) fail(name, text, fix string) { d.add(Check{name, Fail, text, fix}) }

// daemon asks the daemon what it does.
func (d *doctor) daemon(ctx context.Context) {
	v := d.report.Version
	what := fmt.Sprintf("mootd %s, %s %s/%s", v.Version, v.Go, v.OS, v.Arch)
	if d.Daemon == nil {
		d.ok("version", "%s; no daemon runs", what)
		return
	}
	s, err := d.Daemon.Status(ctx)
	if err != nil {
		d.ok("version", "%s", what)
		d.fail("daemon", fmt.Sprintf("it does not answer: %v", err), "if its process still lives, end it; then start mootd")
		return
	}
	d.status, d.report.Daemon = &s, true
	if s.Version != v.Version {
		d.warn("version", fmt.Sprintf("%s; the daemon is %s", what, s.Version), "start the daemon again, so that both are the same")
	} else {
		d.ok("version", "%s; the daemon is the same", what)
	}
	switch text := fmt.Sprintf("%s: %s", s.State, s.Why); {
	case s.State == api.NodePaused:
		d.warn("work", text, s.Do)
	case s.Why == "":
		d.ok("work", "%s", s.State)
	default:
		d.ok("work", "%s", text)
	}
}

// config reports whether there is a configuration to go on with.
func (d *doctor) config() bool {
	if d.ConfigErr != nil {
		d.fail("config", d.ConfigErr.Error(), `repair the file; "mootd config show --origin" says where each value is from`)
		return false
	}
	c := d.Config
	switch {
	case d.status != nil && d.status.ConfigError != "":
		d.fail("config", d.status.ConfigError, "repair the file; until then the daemon goes on as before")
	case d.status != nil && len(d.status.RestartNeeded) > 0:
		d.warn("config", fmt.Sprintf("the daemon does not use the new %s yet", strings.Join(d.status.RestartNeeded, ", ")), "start the daemon again")
	case !c.Found:
		d.ok("config", "no file; the defaults are used")
	default:
		d.ok("config", "%s is valid", c.File)
	}
	return true
}

// Print writes the report for people.
func (r Report) Print(w io.Writer) error {
	marks := map[Level]string{OK: "ok  ", Warn: "warn", Fail: "FAIL"}
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%s  %-12s %s\n", marks[c.Level], c.Name, c.Text)
		if c.Fix != "" {
			fmt.Fprintf(&b, "      %-12s -> %s\n", "", c.Fix)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Failed are the names of what failed.
func (r Report) Failed() (names []string) {
	for _, c := range r.Checks {
		if c.Level == Fail {
			names = append(names, c.Name)
		}
	}
	return names
}
