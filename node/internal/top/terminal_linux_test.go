package top

import (
	"bytes"
	"context"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"golang.org/x/sys/unix"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// terminal is a terminal of a certain size, with what is on its screen.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	screen *vt.SafeEmulator

	mu     sync.Mutex
	raw    bytes.Buffer // guarded by mu; all that was written
	hidden bool         // guarded by mu; the cursor
}

func openTerminal(t *testing.T, width, height int) *terminal {
	t.Helper()
	master, slave := apitest.Terminal(t)
	c := &terminal{t: t, master: master, slave: slave, screen: vt.NewSafeEmulator(width, height)}
	c.screen.SetCallbacks(vt.Callbacks{CursorVisibility: func(visible bool) { c.hidden = !visible }}) // called by Write
	c.size(width, height)
	go func() { // ends when master is closed
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.raw.Write(b[:n])
			c.screen.Write(b[:n])
			c.mu.Unlock()
		}
	}()
	go func() { _, _ = io.Copy(master, c.screen.Emulator) }() // its answers, such as to what it is
	t.Cleanup(func() {
		slave.Close()
		master.Close()
		endInput(c.screen)
	})
	return c
}

// endInput ends who reads the answers of an emulator. Its Close is not safe
// beside a Read.
func endInput(e *vt.SafeEmulator) {
	if w, ok := e.InputPipe().(io.Closer); ok {
		w.Close()
	}
}

func (c *terminal) size(width, height int) {
	c.t.Helper()
	if err := unix.IoctlSetWinsize(int(c.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(width), Row: uint16(height)}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *terminal) resize(width, height int) {
	c.screen.Resize(width, height)
	c.size(width, height)
	// The terminal is nobody's controlling one, so the kernel tells nobody.
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		c.t.Fatal(err)
	}
}

func (c *terminal) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.screen.String()
}

func (c *terminal) press(keys string) {
	c.t.Helper()
	if _, err := c.master.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

// until waits for a screen.
func (c *terminal) until(what string, ok func(screen string) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(c.text()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("no %s on\n%s", what, c.text())
		}
	}
}

func (c *terminal) untilHas(text string) {
	c.t.Helper()
	c.until(text, func(s string) bool { return strings.Contains(s, text) })
}

// start runs top on the terminal. ended waits for its end.
func (c *terminal) start(ctx context.Context, open func() (Source, error)) (ended func() error) {
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Open: open, In: c.slave, Out: c.slave, Environ: []string{"TERM=xterm-256color", "LANG=C.UTF-8", "NO_COLOR=1"}})
	}()
	return func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(2 * time.Minute):
			c.t.Fatalf("it does not end\n%s", c.text())
			return nil
		}
	}
}

// restored checks that the terminal is as it was.
func (c *terminal) restored() {
	c.t.Helper()
	c.until("screen of before", func(string) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.screen.Emulator.IsAltScreen() && !c.hidden
	})
	modes, err := unix.IoctlGetTermios(int(c.slave.Fd()), unix.TCGETS)
	if err != nil || modes.Lflag&unix.ICANON == 0 || modes.Lflag&unix.ECHO == 0 {
		c.t.Errorf("the terminal is still raw: %+v, %v", modes, err)
	}
}

func opener(d *daemon) func() (Source, error) {
	return func() (Source, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.gone {
			return nil, errGone
		}
		return d, nil
	}
}

func TestTerminal(t *testing.T) {
	d := newDaemon()
	c := openTerminal(t, 80, 24)
	ended := c.start(t.Context(), opener(d))
	c.untilHas("[EXCHANGE]")
	c.untilHas("this node, 12D3KooWAaaa11 and 1 more (0 of 3")
	d.events <- api.Event{Type: api.EventCommit, Run: runID, N: 4, Peer: self}
	c.untilHas("12D3KooWAaaa11, 12D3KooWBbbb11 (1 of 3")
	if lines := strings.Split(c.text(), "\n"); len(lines) != 24 || !strings.HasPrefix(lines[23], "q quit") || !strings.HasPrefix(lines[0], "moot  training") {
		t.Errorf("screen\n%s", c.text())
	}

	c.press("p")
	c.untilHas("it was paused")
	c.untilHas("\npaused")
	c.press("r")
	c.untilHas("nothing keeps it from working")
	c.press("f")
	c.untilHas("i be idle, x exit")
	c.press("x")
	c.untilHas("then the daemon ends")
	d.set(func() {
		if n := len(d.asked); n != 3 || d.asked[0].Action != api.ControlPause || d.asked[1].Action != api.ControlResume ||
			d.asked[2].Action != api.ControlFinish || !d.asked[2].Exit {
			t.Errorf("asked %+v", d.asked)
		}
	})

	c.press("\t")
	c.untilHas("poems")
	c.press("\t")
	c.untilHas("songs")
	c.press("?")
	c.untilHas("any key: back")
	c.press("q") // is any key
	c.untilHas("songs")

	// A storm of sizes, and the last one counts.
	for i := range 40 {
		c.resize(20+7*i%90, 3+5*i%30)
	}
	c.resize(60, 12)
	c.until("60 x 12", func(s string) bool {
		lines := strings.Split(s, "\n")
		return len(lines) == 12 && strings.HasPrefix(lines[0], "moot  training") && strings.HasPrefix(lines[11], "q quit")
	})
	c.resize(100, 30)
	c.until("100 x 30", func(s string) bool {
		lines := strings.Split(s, "\n")
		return len(lines) == 30 && strings.HasPrefix(lines[29], "q quit") && strings.Contains(lines[0], "12D3KooWSelf11")
	})

	// A daemon that is restarted is found again.
	d.set(func() { d.gone = true })
	c.untilHas("no daemon is running")
	d.set(func() { d.gone, d.status.Version = false, "1.2.4" })
	c.untilHas("1.2.4")
	c.press("q")
	if err := ended(); err != nil {
		t.Error(err)
	}
	c.restored()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range regexp.MustCompile(`\x1b\[([0-9;:]*)m`).FindAllStringSubmatch(c.raw.String(), -1) {
		if !slices.Contains([]string{"", "0", "1", "22"}, m[1]) {
			t.Errorf("it is drawn with %q though NO_COLOR is set", m[0])
		}
	}
}

// What others say has no effect on a real terminal.
func TestTerminalIsNotTakenOver(t *testing.T) {
	d := hostileDaemon()
	c := openTerminal(t, 80, 24)
	ended := c.start(t.Context(), opener(d))
	c.untilHas("credits")
	c.untilHas("q quit")
	lines := strings.Split(c.text(), "\n")
	if len(lines) != 24 || !strings.HasPrefix(lines[0], "moot  training") || !strings.HasPrefix(lines[23], "q quit") {
		t.Errorf("screen\n%s", c.text())
	}
	for _, l := range lines {
		if strings.HasPrefix(l, "fake line") {
			t.Errorf("a line is fake\n%s", c.text())
		}
	}
	c.mu.Lock()
	raw := c.raw.String()
	c.mu.Unlock()
	for _, bad := range []string{"\x1b[2J\x1b[31m", "red\x07", "\u202e", "\u2066", "\x9b1m"} {
		if strings.Contains(raw, bad) {
			t.Errorf("%q was sent to the terminal", bad)
		}
	}
	c.press("\x03")
	if err := ended(); err != nil {
		t.Error(err)
	}
	c.restored()
}

// When it is told to end, by a signal for example, the terminal is as it was.
func TestTerminalIsRestored(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := openTerminal(t, 80, 24)
	ended := c.start(ctx, opener(newDaemon()))
	c.untilHas("credits")
	cancel()
	if err := ended(); err != nil {
		t.Error(err)
	}
	c.restored()
}
