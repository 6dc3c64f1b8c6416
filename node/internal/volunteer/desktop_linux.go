package volunteer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

// desktop asks the desktop of this machine, by what it offers: D-Bus, and X11
// where the session is one of X11. Its methods are called by one goroutine at a
// time.
type desktop struct {
	root    fs.FS
	getenv  func(string) string
	system  bus
	session bus
	x       xServer
	now     func() time.Time
}

func newDesktop() *desktop {
	d := &desktop{root: os.DirFS("/"), getenv: os.Getenv, now: time.Now}
	d.system.connect = func() (*dbus.Conn, error) { return dbus.ConnectSystemBus() }
	d.session.connect = func() (*dbus.Conn, error) {
		address, err := sessionAddress(d.getenv)
		if err != nil {
			return nil, err
		}
		return dbus.Connect(address)
	}
	d.x.open = openX
	return d
}

// sessionAddress is where the session's bus is. None is started for us.
func sessionAddress(getenv func(string) string) (string, error) {
	if a := getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" {
		return a, nil
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		if _, err := os.Stat(dir + "/bus"); err == nil {
			return "unix:path=" + dir + "/bus", nil
		}
	}
	return "", errors.New("there is no session bus")
}

func (d *desktop) close() {
	d.system.close()
	d.session.close()
	d.x.close()
}

// look fills in what the settings need.
func (d *desktop) look(s Settings, v *Observation) {
	if s.IdleOnly > 0 {
		d.lookIdle(v)
	}
	if s.GameMode {
		d.lookGame(v)
	}
	if s.Fullscreen {
		d.lookFullscreen(v)
	}
}

// lookIdle finds since when nobody touched the machine: no terminal, and no
// desktop if somebody has one open.
func (d *desktop) lookIdle(v *Observation) {
	idle := d.terminalsIdle()
	sessions, err := d.sessions()
	graphical := d.getenv("DISPLAY") != "" || d.isWayland()
	hinted := time.Duration(math.MaxInt64)
	for _, s := range sessions {
		if s.graphical {
			graphical = true
			hinted = min(hinted, s.idle)
		}
	}
	if graphical {
		here, ok := d.desktopIdle()
		switch {
		case ok:
			idle = min(idle, here)
		case hinted > 0 && hinted < math.MaxInt64:
			idle = min(idle, hinted)
		case err != nil || hinted == math.MaxInt64:
			v.unseen(SightIdle, "not available on this desktop")
			return
		default:
			idle = 0 // logind says that a session is in use
		}
	}
	v.Idle = &idle
}

// neverTouched is how long a machine is idle at most.
const neverTouched = 30 * 24 * time.Hour

// terminalsIdle is since when nobody typed on a terminal of the machine, as w
// shows it.
func (d *desktop) terminalsIdle() time.Duration {
	idle := neverTouched
	for _, pattern := range []string{"dev/pts/[0-9]*", "dev/tty[0-9]*"} {
		files, _ := fs.Glob(d.root, pattern) // the pattern is right
		for _, name := range files {
			info, err := fs.Stat(d.root, name)
			if err != nil {
				continue
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				idle = min(idle, max(0, d.now().Sub(time.Unix(st.Atim.Unix()))))
			}
		}
	}
	return idle
}

// desktopIdle asks the desktop of this session.
func (d *desktop) desktopIdle() (time.Duration, bool) {
	if d.isX11() {
		if idle, err := d.x.idle(); err == nil {
			return idle, true
		}
	}
	// Both count milliseconds. Where a screen saver counts seconds, it looks
	// less idle than it is.
	var ms uint64
	if d.session.call("org.gnome.Mutter.IdleMonitor", "/org/gnome/Mutter/IdleMonitor/Core", "org.gnome.Mutter.IdleMonitor.GetIdletime", &ms) == nil {
		return time.Duration(ms) * time.Millisecond, true
	}
	var short uint32
	if d.session.call("org.freedesktop.ScreenSaver", "/org/freedesktop/ScreenSaver", "org.freedesktop.ScreenSaver.GetSessionIdleTime", &short) == nil {
		return time.Duration(short) * time.Millisecond, true
	}
	return 0, false
}

// isX11 reports whether the session's windows are those of an X server: that of
// a Wayland session sees some of them only.
func (d *desktop) isX11() bool {
	return d.getenv("DISPLAY") != "" && d.getenv("WAYLAND_DISPLAY") == "" && d.getenv("XDG_SESSION_TYPE") != "wayland"
}

func (d *desktop) isWayland() bool {
	return d.getenv("WAYLAND_DISPLAY") != "" || d.getenv("XDG_SESSION_TYPE") == "wayland"
}

// isGraphical reports whether somebody has a desktop open here, in whose session
// this process need not be.
func (d *desktop) isGraphical() bool {
	if d.getenv("DISPLAY") != "" || d.isWayland() {
		return true
	}
	sessions, _ := d.sessions() // without logind there is no desktop
	return slices.ContainsFunc(sessions, func(l login) bool { return l.graphical })
}

// login is a session of logind.
type login struct {
	graphical bool
	idle      time.Duration // 0: in use, or nobody says
}

// sessions are those of people.
func (d *desktop) sessions() ([]login, error) {
	const manager, session = "org.freedesktop.login1", "org.freedesktop.login1.Session"
	var list []struct {
		ID   string
		UID  uint32
		User string
		Seat string
		Path dbus.ObjectPath
	}
	if err := d.system.call(manager, "/org/freedesktop/login1", "org.freedesktop.login1.Manager.ListSessions", &list); err != nil {
		return nil, err
	}
	var out []login
	for _, s := range list {
		var p map[string]dbus.Variant
		if err := d.system.call(manager, s.Path, "org.freedesktop.DBus.Properties.GetAll", &p, session); err != nil {
			continue // it has ended
		}
		class, _ := p["Class"].Value().(string)
		kind, _ := p["Type"].Value().(string)
		hint, _ := p["IdleHint"].Value().(bool)
		since, _ := p["IdleSinceHint"].Value().(uint64)
		if class != "user" {
			continue
		}
		l := login{graphical: kind == "x11" || kind == "wayland" || kind == "mir"}
		if hint && since > 0 && since < math.MaxInt64 {
			l.idle = max(0, d.now().Sub(time.UnixMicro(int64(since))))
		}
		out = append(out, l)
	}
	return out, nil
}

// lookGame asks GameMode whether a game runs. It is not started for that.
func (d *desktop) lookGame(v *Observation) {
	const name = "com.feralinteractive.GameMode"
	var count dbus.Variant
	err := d.session.call(name, "/com/feralinteractive/GameMode", "org.freedesktop.DBus.Properties.Get", &count, name, "ClientCount")
	switch {
	case err == nil:
		n, _ := count.Value().(int32)
		v.GameMode = new(n > 0)
	case isAbsent(err), !d.isGraphical():
		v.GameMode = new(false) // no game has asked for it
	default:
		v.unseen(SightGame, fmt.Sprintf("not available on this desktop (%v)", err))
	}
}

func (d *desktop) lookFullscreen(v *Observation) {
	if !d.isX11() {
		switch {
		case d.isWayland():
			v.unseen(SightFullscreen, "not available on this desktop (Wayland tells no program what fills the screen)")
		case d.isGraphical():
			v.unseen(SightFullscreen, "not available: mootd was started outside of the desktop, and has no DISPLAY")
		default:
			v.Fullscreen = new(false) // there is no screen
		}
		return
	}
	full, err := d.x.fullscreen()
	if err != nil {
		v.unseen(SightFullscreen, fmt.Sprintf("not available on this desktop (%v)", err))
		return
	}
	v.Fullscreen = &full
}

// bus is a connection to a bus, made when it is needed.
type bus struct {
	connect func() (*dbus.Conn, error)
	timeout time.Duration // 0: callTimeout
	conn    *dbus.Conn
	err     error // why there is none
	after   time.Time
}

// reconnect is how long a bus that cannot be reached is left alone.
const reconnect = 30 * time.Second

// callTimeout is how long an answer may take, unless bus.timeout says it.
const callTimeout = 500 * time.Millisecond

// call calls a method of a service that runs, and stores what it answers.
func (b *bus) call(name string, path dbus.ObjectPath, method string, out any, args ...any) error {
	if b.conn != nil && !b.conn.Connected() {
		b.close()
	}
	if b.conn == nil {
		if time.Now().Before(b.after) {
			return b.err
		}
		if b.conn, b.err = b.connect(); b.err != nil {
			b.conn, b.after = nil, time.Now().Add(reconnect)
			return b.err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(b.timeout, callTimeout))
	defer cancel()
	return b.conn.Object(name, path).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...).Store(out)
}

func (b *bus) close() {
	if b.conn != nil {
		_ = b.conn.Close() // nothing was asked that could be lost
		b.conn = nil
	}
}

// isAbsent reports whether a service does not run.
func isAbsent(err error) bool {
	var e dbus.Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Name == "org.freedesktop.DBus.Error.NameHasNoOwner" || e.Name == "org.freedesktop.DBus.Error.ServiceUnknown"
}
