package top

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/moot-net/moot/node/api"
)

// Options are what Run needs.
type Options struct {
	// Open finds the daemon. It is called again when that does not answer any
	// more.
	Open func() (Source, error)
	// In and Out are a terminal.
	In  io.Reader
	Out io.Writer
	// Environ is the environment, which tells what the terminal can do.
	Environ []string
}

// Run shows the node until q is pressed or ctx is done.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &model{ctx: ctx, width: 80, height: 24, unicode: showsUnicode(o.Environ)}
	in, end, err := openInput(o.In)
	if err != nil {
		return err
	}
	program := tea.NewProgram(m, tea.WithInput(in), tea.WithOutput(o.Out), tea.WithEnvironment(o.Environ), tea.WithoutSignalHandler())
	m.feed = newFeed(o.Open, func(s snapshot) { program.Send(s) })
	var asking sync.WaitGroup
	asking.Go(func() { m.feed.run(ctx) })
	defer asking.Wait()
	defer cancel() // before it waits
	// On Unix end waits for who reads. Elsewhere bubbletea reads by itself: killed, it
	// does not wait for its reader; when it quits, it does for a while.
	stop := context.AfterFunc(ctx, program.Quit)
	defer stop()
	_, err = program.Run()
	end()
	if ctx.Err() != nil {
		return nil // it was told to end
	}
	return err
}

// Print writes the screen once, as plain lines without those that are empty.
func Print(ctx context.Context, open func() (Source, error), w io.Writer, environ []string) error {
	s, err := open()
	if err != nil {
		return err
	}
	defer s.Close()
	f := newFeed(open, nil)
	if err := f.ask(ctx, s); err != nil {
		return err
	}
	c := screen{width: 80, height: 24, now: time.Now(), unicode: showsUnicode(environ)}
	lines := c.draw(&f.last)
	for _, l := range lines[:len(lines)-1] { // without the keys
		if text := strings.TrimRight(l.text, " "); text != "" {
			if _, err := fmt.Fprintln(w, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// showsUnicode reports whether the terminal of an environment shows more than
// ASCII.
func showsUnicode(environ []string) bool {
	values := map[string]string{}
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok {
			values[k] = v
		}
	}
	for _, k := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(values[k]); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// model is what bubbletea drives.
type model struct {
	ctx     context.Context //nolint:containedctx // bubbletea's commands have none
	feed    *feed
	unicode bool

	width, height int
	snapshot      snapshot
	scroll        int
	help          bool
	finishing     bool   // it was asked what comes after a finish
	said          string // what became of a key, until the next one
}

// tick makes times go on.
type tick struct{}

// said is what became of a request.
type said string

// Init implements tea.Model.
func (m *model) Init() tea.Cmd { return ticking() }

func ticking() tea.Cmd { return tea.Tick(time.Second, func(time.Time) tea.Msg { return tick{} }) }

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case snapshot:
		m.snapshot = msg
		m.scroll = min(m.scroll, m.screen().maxScroll(&m.snapshot))
	case tick:
		return m, ticking()
	case said:
		m.said = string(msg)
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	}
	return m, nil
}

func (m *model) key(k string) tea.Cmd {
	m.said = ""
	switch {
	case k == "ctrl+c" || k == "q" && !m.help:
		return tea.Quit
	case m.help:
		m.help = false
		return nil
	case m.finishing:
		m.finishing = false
		switch k {
		case "i", "f":
			return m.control("it finishes this round's work, then it is idle", api.ControlRequest{Action: api.ControlFinish})
		case "x":
			return m.control("it finishes this round's work, then the daemon ends", api.ControlRequest{Action: api.ControlFinish, Exit: true})
		}
		return nil
	}
	switch k {
	case "p":
		return m.control("paused", api.ControlRequest{Action: api.ControlPause})
	case "h":
		return m.control("paused for an hour", api.ControlRequest{Action: api.ControlPause, ForSeconds: 3600})
	case "r":
		return m.control("resumed", api.ControlRequest{Action: api.ControlResume})
	case "f":
		m.finishing = true
	case "?":
		m.help = true
	case "j", "down":
		m.scroll = min(m.scroll+1, m.screen().maxScroll(&m.snapshot))
	case "k", "up":
		m.scroll = max(0, m.scroll-1)
	case "tab", "n":
		m.nextRun()
	}
	return nil
}

func (m *model) nextRun() {
	runs := m.snapshot.runs
	if m.snapshot.run == nil || len(runs) < 2 {
		return
	}
	for i, r := range runs {
		if r.ID == m.snapshot.run.ID {
			m.scroll = 0
			m.feed.choose(runs[(i+1)%len(runs)].ID)
			return
		}
	}
}

// control asks the daemon, and says what became of it.
func (m *model) control(done string, req api.ControlRequest) tea.Cmd {
	return func() tea.Msg {
		if err := m.feed.control(m.ctx, req); err != nil {
			return said(api.AsError(err).Message)
		}
		return said(done)
	}
}

func (m *model) screen() screen {
	prompt := m.said
	if m.finishing {
		prompt = "finish this round's work, and then: i be idle, x exit; any other key: go on"
	}
	return screen{width: m.width, height: m.height, now: time.Now(), unicode: m.unicode, scroll: m.scroll, prompt: prompt}
}

// Escape sequences of bold text. There are no colours: what matters is in words.
const (
	boldOn  = "\x1b[1m"
	boldOff = "\x1b[22m"
)

// View implements tea.Model.
func (m *model) View() tea.View {
	c := m.screen()
	lines := c.draw(&m.snapshot)
	if m.help {
		lines = c.help()
	}
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if l.bold {
			b.WriteString(boldOn + l.text + boldOff)
		} else {
			b.WriteString(l.text)
		}
	}
	v := tea.NewView(b.String())
	v.AltScreen = true
	v.WindowTitle = "moot"
	return v
}
