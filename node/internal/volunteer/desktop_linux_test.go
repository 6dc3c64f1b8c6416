package volunteer

import (
	"bufio"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"
)

// startBus starts a bus of our own and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skipf("there is no dbus-daemon here: %v", err)
	}
	cmd := exec.Command(path, "--session", "--nofork", "--print-address=1", "--address=unix:path="+filepath.Join(t.TempDir(), "bus"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// service is somebody on the bus.
func service(t *testing.T, address string) *dbus.Conn {
	t.Helper()
	c, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func own(t *testing.T, c *dbus.Conn, name string) {
	t.Helper()
	if r, err := c.RequestName(name, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own %s: %v, %v", name, r, err)
	}
}

func export(t *testing.T, c *dbus.Conn, v any, path dbus.ObjectPath, iface string) {
	t.Helper()
	if err := c.Export(v, path, iface); err != nil {
		t.Fatal(err)
	}
}

// properties answers org.freedesktop.DBus.Properties.
type properties struct {
	mu sync.Mutex
	m  map[string]dbus.Variant // guarded by mu
}

func newProperties(values map[string]any) *properties {
	p := &properties{m: map[string]dbus.Variant{}}
	for k, v := range values {
		p.set(k, v)
	}
	return p
}

func (p *properties) set(name string, v any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.m[name] = dbus.MakeVariant(v)
}

// Get and GetAll are called by the bus.
func (p *properties) Get(_, name string) (dbus.Variant, *dbus.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.m[name], nil
}

func (p *properties) GetAll(string) (map[string]dbus.Variant, *dbus.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.m), nil
}

type mutter struct{ ms uint64 }

func (m *mutter) GetIdletime() (uint64, *dbus.Error) { return m.ms, nil }

type screenSaver struct{ ms uint32 }

func (m *screenSaver) GetSessionIdleTime() (uint32, *dbus.Error) { return m.ms, nil }

type loginSession struct {
	ID   string
	UID  uint32
	User string
	Seat string
	Path dbus.ObjectPath
}

type loginManager struct {
	mu   sync.Mutex
	list []loginSession // guarded by mu
}

// ListSessions is called by the bus.
func (m *loginManager) ListSessions() ([]loginSession, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.list), nil
}

func (m *loginManager) add(s loginSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, s)
}

// testDesktop is a desktop on buses of our own, without X.
func testDesktop(t *testing.T, address string, env map[string]string) *desktop {
	d := newDesktop()
	d.getenv = func(k string) string { return env[k] }
	d.root = fstest.MapFS{}
	d.now = func() time.Time { return noon }
	dial := func() (*dbus.Conn, error) { return dbus.Connect(address) }
	d.session.connect, d.system.connect = dial, dial
	d.session.timeout, d.system.timeout = time.Minute, time.Minute // the machine that tests may be busy
	d.x.open = func() (*xConn, error) { return nil, syscall.ECONNREFUSED }
	t.Cleanup(d.close)
	return d
}

func TestGameMode(t *testing.T) {
	address := startBus(t)
	d := testDesktop(t, address, nil)
	look := func() *bool {
		var v Observation
		d.look(Settings{GameMode: true}, &v)
		return v.GameMode
	}
	if got := look(); got == nil || *got {
		t.Errorf("without the service: %v", got)
	}
	c := service(t, address)
	p := newProperties(map[string]any{"ClientCount": int32(0)})
	export(t, c, p, "/com/feralinteractive/GameMode", "org.freedesktop.DBus.Properties")
	own(t, c, "com.feralinteractive.GameMode")
	if got := look(); got == nil || *got {
		t.Errorf("without a game: %v", got)
	}
	p.set("ClientCount", int32(1))
	if got := look(); got == nil || !*got {
		t.Errorf("with a game: %v", got)
	}
	var v Observation
	d.look(Settings{}, &v)
	if v.GameMode != nil {
		t.Error("it looks though nobody asked")
	}
	d.session = bus{connect: func() (*dbus.Conn, error) { return nil, syscall.ENOENT }}
	v = Observation{}
	d.look(Settings{GameMode: true}, &v)
	if v.GameMode == nil || *v.GameMode {
		t.Errorf("without a bus or a desktop: %+v", v)
	}
	d.getenv = func(k string) string { return map[string]string{"WAYLAND_DISPLAY": "wayland-0"}[k] }
	v = Observation{}
	d.look(Settings{GameMode: true}, &v)
	if v.GameMode != nil || !strings.HasPrefix(v.Unseen[SightGame], "not available on this desktop") {
		t.Errorf("without a bus: %+v", v)
	}
}

func TestIdleByTheDesktop(t *testing.T) {
	address := startBus(t)
	d := testDesktop(t, address, map[string]string{"WAYLAND_DISPLAY": "wayland-0"})
	look := func() Observation {
		var v Observation
		d.look(Settings{IdleOnly: time.Minute}, &v)
		return v
	}
	if v := look(); v.Idle != nil || v.Unseen[SightIdle] != "not available on this desktop" {
		t.Errorf("where nobody tells: %+v", v)
	}

	// logind knows sessions, whether or not their desktop tells.
	c := service(t, address)
	manager := &loginManager{}
	add := func(id, class, kind string, idle bool, since time.Time) *properties {
		p := newProperties(map[string]any{"Class": class, "Type": kind, "IdleHint": idle, "IdleSinceHint": uint64(since.UnixMicro())})
		path := dbus.ObjectPath("/org/freedesktop/login1/session/" + id)
		export(t, c, p, path, "org.freedesktop.DBus.Properties")
		manager.add(loginSession{id, 1000, "u", "seat0", path})
		return p
	}
	export(t, c, manager, "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
	own(t, c, "org.freedesktop.login1")
	add("greeter", "greeter", "wayland", false, noon)
	p := add("a", "user", "wayland", false, noon)
	add("ssh", "user", "tty", true, noon.Add(-time.Second)) // its terminal tells, not this
	if v := look(); v.Idle == nil || *v.Idle != 0 {
		t.Errorf("in use: %+v", v)
	}
	p.set("IdleHint", true)
	p.set("IdleSinceHint", uint64(noon.Add(-7*time.Minute).UnixMicro()))
	if v := look(); v.Idle == nil || *v.Idle != 7*time.Minute {
		t.Errorf("idle for 7 minutes: %+v", v)
	}

	// Who is outside of it does not see its windows.
	env := d.getenv
	d.getenv = func(string) string { return "" }
	var v Observation
	if d.look(Settings{Fullscreen: true}, &v); v.Fullscreen != nil || !strings.Contains(v.Unseen[SightFullscreen], "outside of the desktop") {
		t.Errorf("a daemon outside of the desktop: %+v", v)
	}
	d.getenv = env

	// A desktop that counts knows better.
	saver := &screenSaver{90_000}
	export(t, c, saver, "/org/freedesktop/ScreenSaver", "org.freedesktop.ScreenSaver")
	own(t, c, "org.freedesktop.ScreenSaver")
	if v := look(); v.Idle == nil || *v.Idle != 90*time.Second {
		t.Errorf("by the screen saver: %+v", v)
	}
	export(t, c, &mutter{42_000}, "/org/gnome/Mutter/IdleMonitor/Core", "org.gnome.Mutter.IdleMonitor")
	own(t, c, "org.gnome.Mutter.IdleMonitor")
	if v := look(); v.Idle == nil || *v.Idle != 42*time.Second {
		t.Errorf("by Mutter: %+v", v)
	}

	// Somebody at a terminal uses it, too.
	typed := func(ago time.Duration) *fstest.MapFile {
		return &fstest.MapFile{Sys: &syscall.Stat_t{Atim: syscall.NsecToTimespec(noon.Add(-ago).UnixNano())}}
	}
	d.root = fstest.MapFS{"dev/pts/3": typed(5 * time.Second), "dev/tty1": typed(time.Hour), "dev/ttyS0": typed(0)}
	if v := look(); v.Idle == nil || *v.Idle != 5*time.Second {
		t.Errorf("with a terminal: %+v", v)
	}
}

func TestIdleWithoutADesktop(t *testing.T) {
	d := testDesktop(t, "unix:path=/nowhere", nil)
	var v Observation
	d.look(Settings{IdleOnly: time.Minute, Fullscreen: true}, &v)
	if v.Idle == nil || *v.Idle != neverTouched || v.Fullscreen == nil || *v.Fullscreen {
		t.Errorf("a server: %+v", v)
	}
	d = testDesktop(t, "unix:path=/nowhere", map[string]string{"DISPLAY": ":0", "WAYLAND_DISPLAY": "wayland-0"})
	v = Observation{}
	d.look(Settings{Fullscreen: true}, &v)
	if v.Fullscreen != nil || !strings.Contains(v.Unseen[SightFullscreen], "Wayland") {
		t.Errorf("under Wayland: %+v", v)
	}
	d = testDesktop(t, "unix:path=/nowhere", map[string]string{"DISPLAY": ":0"})
	v = Observation{}
	d.look(Settings{Fullscreen: true}, &v)
	if v.Fullscreen != nil || !strings.HasPrefix(v.Unseen[SightFullscreen], "not available on this desktop") {
		t.Errorf("without the X server: %+v", v)
	}
}

// A bus that comes back is used again.
func TestBusComesBack(t *testing.T) {
	address := startBus(t)
	c := service(t, address)
	export(t, c, &mutter{1000}, "/org/gnome/Mutter/IdleMonitor/Core", "org.gnome.Mutter.IdleMonitor")
	own(t, c, "org.gnome.Mutter.IdleMonitor")
	d := testDesktop(t, address, map[string]string{"WAYLAND_DISPLAY": "wayland-0"})
	if _, ok := d.desktopIdle(); !ok {
		t.Fatal("it does not answer")
	}
	if err := d.session.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.desktopIdle(); !ok {
		t.Error("after the connection was lost it does not answer")
	}
}

// startX starts an X server of our own, and returns its display.
func startX(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("Xvfb")
	if err != nil {
		t.Skipf("there is no X server here: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-displayfd", "3", "-screen", "0", "320x200x24", "-nolisten", "tcp")
	cmd.ExtraFiles = append(cmd.ExtraFiles, w)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	w.Close()
	defer r.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	display := ":" + strings.TrimSpace(line)
	t.Setenv("DISPLAY", display)
	return display
}

func TestX11(t *testing.T) {
	display := startX(t)
	d := testDesktop(t, "unix:path=/nowhere", map[string]string{"DISPLAY": display})
	d.x.open = openX
	look := func() (v Observation) {
		d.look(Settings{IdleOnly: time.Minute, Fullscreen: true}, &v)
		return v
	}
	if v := look(); v.Idle == nil || *v.Idle > time.Hour || v.Fullscreen != nil {
		t.Errorf("without a window manager: %+v", v)
	}

	// We are the window manager, too.
	c, err := xgb.NewConnDisplay(display)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root := xproto.Setup(c).DefaultScreen(c).Root
	window, err := xproto.NewWindowId(c)
	if err != nil {
		t.Fatal(err)
	}
	xproto.CreateWindow(c, 0, window, root, 0, 0, 10, 10, 0, xproto.WindowClassInputOutput, 0, 0, nil)
	set := func(w xproto.Window, name string, kind xproto.Atom, value uint32) {
		t.Helper()
		a, err := xproto.InternAtom(c, false, uint16(len(name)), name).Reply()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4)
		xgb.Put32(b, value)
		if err := xproto.ChangePropertyChecked(c, xproto.PropModeReplace, w, a.Atom, kind, 32, 1, b).Check(); err != nil {
			t.Fatal(err)
		}
	}
	set(root, "_NET_ACTIVE_WINDOW", xproto.AtomWindow, uint32(window))
	if v := look(); v.Fullscreen == nil || *v.Fullscreen {
		t.Errorf("with a window: %+v", v)
	}
	const full = "_NET_WM_STATE_FULLSCREEN"
	a, err := xproto.InternAtom(c, false, uint16(len(full)), full).Reply()
	if err != nil {
		t.Fatal(err)
	}
	set(window, "_NET_WM_STATE", xproto.AtomAtom, uint32(a.Atom))
	if v := look(); v.Fullscreen == nil || !*v.Fullscreen {
		t.Errorf("with a window that fills the screen: %+v", v)
	}
	if err := xproto.DestroyWindowChecked(c, window).Check(); err != nil {
		t.Fatal(err)
	}
	if v := look(); v.Fullscreen == nil || *v.Fullscreen {
		t.Errorf("when it is gone: %+v", v)
	}
}

// Whatever comes from the server meanwhile, it can be asked.
func TestX11BesideEvents(t *testing.T) {
	const most = 6000
	display := startX(t)
	d := testDesktop(t, "unix:path=/nowhere", map[string]string{"DISPLAY": display})
	d.x.open = openX
	if _, err := d.x.idle(); err != nil {
		t.Fatal(err)
	}
	c, err := xgb.NewConnDisplay(display)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	told := make(chan int)
	go func() { // we are told, too
		n := 0
		for e, err := c.WaitForEvent(); e != nil || err != nil; e, err = c.WaitForEvent() {
			n++
		}
		told <- n
	}()
	buttons, err := xproto.GetPointerMapping(c).Reply()
	if err != nil {
		t.Fatal(err)
	}
	changed := make(chan error, 1)
	go func() { // each client of the server is told that the keyboard is another one
		var err error
		for range 100 {
			err = errors.Join(err, xproto.ChangeKeyboardMappingChecked(c, 1, 8, 1, []xproto.Keysym{'a'}).Check())
		}
		// More often than a connection keeps what nobody takes.
		for range most {
			buttons.Map[0], buttons.Map[1] = buttons.Map[1], buttons.Map[0]
			xproto.SetPointerMapping(c, buttons.MapLen, buttons.Map)
		}
		changed <- errors.Join(err, xproto.NoOperationChecked(c).Check())
	}()
	for done := false; !done; {
		select {
		case err := <-changed:
			if done = true; err != nil {
				t.Fatal(err)
			}
		default:
		}
		if _, err := d.x.idle(); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if n := <-told; n < most {
		t.Errorf("%d events came, want at least %d", n, most)
	}
}
