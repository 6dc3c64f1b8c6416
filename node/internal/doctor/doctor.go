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

type (
	// Level is how a check ended.
	Level = api.CheckLevel
	// Check is one thing that was looked at.
	Check = api.Check
	// Report is what was found, as the API tells it.
	Report = api.Checkup
)

// The levels.
const (
	OK   = api.CheckOK
	Warn = api.CheckWarn
	Fail = api.CheckFail
)

// Daemon is what is asked of a daemon; a *client.Client answers it.
type Daemon interface {
	Status(ctx context.Context) (api.Status, error)
	Peers(ctx context.Context) (api.Peers, error)
	Settings(ctx context.Context) (api.Settings, error)
}

// Options are what Run looks at.
type Options struct {
	// Config is the configuration, or nil if ConfigErr says why there is none.
	Config    *config.Loaded
	ConfigErr error
	// Daemon is the one that runs on the data folder, nil if none does.
	Daemon Daemon
	// Self is that this process is that daemon.
	Self bool
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
		d.inEffect(ctx)
		d.data()
		d.clock()
		d.ports(ctx)
		d.network(ctx)
		d.add(o.Device(d.Config.Device))
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

func (d *doctor) warn(name, text, fix string) {
	d.add(Check{Name: name, Level: Warn, Text: text, Fix: fix})
}

func (d *doctor) fail(name, text, fix string) {
	d.add(Check{Name: name, Level: Fail, Text: text, Fix: fix})
}

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
	switch {
	case d.Self:
		d.ok("version", "%s", what)
	case s.Version != v.Version:
		d.warn("version", fmt.Sprintf("%s; the daemon is %s", what, s.Version), "start the daemon again, so that both are the same")
	default:
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

// inEffect takes from a daemon what flags and its environment may have told it
// alone.
func (d *doctor) inEffect(ctx context.Context) {
	if d.status == nil {
		return
	}
	list, err := d.Daemon.Settings(ctx)
	if err != nil {
		return // an older one; the file is all there is
	}
	c := *d.Config
	for _, s := range list.Settings {
		switch {
		case s.Key == "bootstrap":
			c.Bootstrap = s.Values
		case s.Key == "mdns" && len(s.Values) == 1:
			c.MDNS = s.Values[0] == "true"
		case s.Key == "device" && len(s.Values) == 1:
			c.Device = s.Values[0]
		}
	}
	d.Config = &c
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

// Print writes a report for people.
func Print(w io.Writer, r Report) error {
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
