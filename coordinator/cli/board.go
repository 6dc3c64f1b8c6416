package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

// How often a board shows what changed: as it is drawn on a terminal, and as
// lines elsewhere.
const (
	drawInterval = 100 * time.Millisecond
	lineInterval = 3 * time.Second
)

// board shows what is going on, on stderr: on a terminal as a few rows that
// are drawn again and again, elsewhere as a line now and then. Its methods may
// be called at the same time.
type board struct {
	// constant after newBoard
	w    io.Writer
	fd   int // of the terminal, or -1
	now  func() time.Time
	size func() int // columns of the terminal

	mu sync.Mutex
	// guarded by mu
	rows  []row
	drawn int // rows on the screen
	told  time.Time
	// late tells, without a terminal, what was set too soon after a line.
	late *time.Timer
}

// row is one row of a board: a name, and what is said about it.
type row struct{ name, text string }

func newBoard(w io.Writer) *board {
	b := &board{w: w, fd: -1, now: time.Now}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		b.fd = int(f.Fd())
		b.size = func() int {
			width, _, err := term.GetSize(b.fd)
			if err != nil || width < 20 {
				return 80
			}
			return width
		}
	}
	b.told = b.now()
	return b
}

// set changes or adds a row.
func (b *board) set(name, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := row{plain.Clean(name), plain.Clean(text)}
	found := false
	for i := range b.rows {
		if b.rows[i].name == r.name {
			b.rows[i], found = r, true
		}
	}
	if !found {
		b.rows = append(b.rows, r)
	}
	if b.fd < 0 {
		b.tell(r)
		return
	}
	if !found || b.now().Sub(b.told) >= drawInterval {
		b.draw()
	}
}

// tell writes a row as a line, now or, if there was one just before and nothing
// follows, later. It needs mu.
func (b *board) tell(r row) {
	if b.late != nil {
		b.late.Stop()
		b.late = nil
	}
	wait := lineInterval - b.now().Sub(b.told)
	if wait <= 0 {
		b.told = b.now()
		fmt.Fprintln(b.w, strings.TrimSpace(r.name+"  "+r.text))
		return
	}
	var own *time.Timer
	own = time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.late == own {
			b.late, b.told = nil, b.now()
			fmt.Fprintln(b.w, strings.TrimSpace(r.name+"  "+r.text))
		}
	})
	b.late = own
}

// progress shows an operation under a name.
func (b *board) progress(name string) api.ProgressFunc {
	return func(p api.Progress) {
		row := name
		if row == "" {
			row = p.Phase // a row for each phase
		}
		b.set(row, progressText(p, b.fd >= 0, name != ""))
	}
}

// close takes the rows away. The board may be used again.
func (b *board) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
	b.rows = nil
	if b.late != nil {
		b.late.Stop()
		b.late = nil
	}
}

// around takes the rows off the screen while fn prints something that stays.
func (b *board) around(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
	fn()
	if b.fd >= 0 && len(b.rows) > 0 {
		b.draw()
	}
}

// draw and erase need mu. They write once, so that nothing flickers.
func (b *board) draw() {
	width := b.size()
	var s strings.Builder
	s.WriteString(b.up())
	for _, r := range b.rows {
		s.WriteString(clip(fmt.Sprintf("%-*s  %s", b.nameWidth(), r.name, r.text), width-1) + "\x1b[K\n")
	}
	_, _ = io.WriteString(b.w, s.String()) // nobody to tell
	b.drawn = len(b.rows)
	b.told = b.now()
}

func (b *board) erase() {
	if b.drawn > 0 {
		_, _ = io.WriteString(b.w, b.up()+"\x1b[J") // nobody to tell
		b.drawn = 0
	}
}

func (b *board) up() string {
	if b.drawn == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA", b.drawn)
}

func (b *board) nameWidth() int {
	width := 0
	for _, r := range b.rows {
		width = max(width, runes(r.name))
	}
	return width
}

// barWidth is how many characters a bar has between its ends.
const barWidth = 24

// progressText writes how far something is, as a bar if asked for.
func progressText(p api.Progress, bar, phase bool) string {
	amount := func(n int64) string {
		if p.Unit == api.UnitBytes {
			return size(n)
		}
		return plain.Group(n)
	}
	unit := ""
	if p.Unit != api.UnitBytes && p.Unit != "" {
		unit = " " + p.Unit
	}
	var parts []string
	if p.Total > 0 {
		done := min(max(p.Done, 0), p.Total)
		share := float64(done) / float64(p.Total)
		if bar {
			n := int(share * barWidth)
			parts = append(parts, "["+strings.Repeat("=", n)+strings.Repeat(" ", barWidth-n)+"]")
		}
		parts = append(parts, fmt.Sprintf("%3.0f %%", 100*share), fmt.Sprintf("%s of %s%s", amount(done), amount(p.Total), unit))
	} else if p.Done > 0 {
		parts = append(parts, amount(p.Done)+unit)
	}
	if phase {
		parts = append([]string{fmt.Sprintf("%-8s", p.Phase)}, parts...)
	}
	if p.Text != "" {
		parts = append(parts, p.Text)
	}
	return strings.TrimSpace(strings.Join(parts, "  "))
}
