package top

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

var update = flag.Bool("update", false, "write the screens of testdata")

// shown is what a daemon says, as a snapshot.
func shown(t *testing.T, d *daemon, commits ...string) *snapshot {
	t.Helper()
	f := newFeed(nil, nil)
	for _, p := range commits {
		if err := f.event(api.Event{Type: api.EventCommit, Run: runID, N: 4, Peer: p}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.ask(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	return &f.last
}

func texts(lines []line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(l.text, " ") + "\n")
	}
	return b.String()
}

func TestScreens(t *testing.T) {
	paused := newDaemon()
	until := noon.Add(75 * time.Minute)
	s := &paused.status
	s.State, s.Why, s.Reason, s.Do, s.Until = api.NodePaused, "it was paused: a film", "paused", `go on with "mootd resume"`, &until
	s.ConfigError, s.ClockError = "mootd.toml:3: unknown key", "the clock of this machine is 1m0s behind those of 3 peers"
	s.Blind = map[string]string{"work.fullscreen": "Wayland", "work.gamemode": "no bus"}
	first := newDaemon()
	first.runs, first.rounds, first.peers = nil, nil, nil
	first.status.State, first.status.Why, first.status.Reason, first.status.Devices = api.NodeIdle, "in no run", "idle", nil
	small := screen{width: 40, height: 10, now: noon, unicode: true}
	full := screen{width: 80, height: 24, now: noon, unicode: true}
	down := *shown(t, newDaemon(), self, peerA)
	down.down = "no daemon is running with data folder /home/u/.local/share/moot"
	for _, tt := range []struct {
		name string
		c    screen
		s    *snapshot
	}{
		{"training", full, shown(t, newDaemon(), self, peerA)},
		{"paused", full, shown(t, paused, self)},
		{"norun", full, shown(t, first)},
		{"small", small, shown(t, newDaemon(), self, peerA)},
		{"down", full, &down},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := texts(tt.c.draw(tt.s))
			path := filepath.Join("testdata", tt.name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// hostile is a text that tries to leave its place.
var hostile = "\x1b[2J\x1b[31mred\x07\u202egnp.exe\u2066\r\nfake line\x9b1mz" + strings.Repeat("e\u0301\u0302\u0303\u0304\u0305", 40) +
	"\u200b\u200d\xff" + strings.Repeat("x", 10_000)

// hostileDaemon says hostile things wherever the text is from others.
func hostileDaemon() *daemon {
	d := newDaemon()
	r := d.runs[runID]
	r.Name, r.Why, r.Phase = hostile, hostile, hostile
	for i := range r.Members {
		r.Members[i].Phase, r.Members[i].Device, r.Members[i].Agent = hostile, hostile, hostile
	}
	r.NextSeats[1].Peer = hostile
	d.runs[runID] = r
	d.peers[0].Agent, d.peers[0].Device, d.peers[0].Where = hostile, hostile, hostile
	d.status.Why, d.status.Do, d.status.ConfigError, d.status.Device, d.status.Devices[0].Name = hostile, hostile, hostile, hostile, hostile
	d.rounds[runID][1].Refused[0].Reason = hostile
	return d
}

// Whatever the size and whatever others say, the screen has its size and no
// character that moves the cursor or turns the text.
func TestEverySize(t *testing.T) {
	for name, s := range map[string]*snapshot{
		"plain": shown(t, newDaemon()), "hostile": shown(t, hostileDaemon()), "empty": {}, "down": {down: hostile, loaded: true},
	} {
		for width := 0; width < 130; width += 1 + width/4 {
			for height := 0; height < 40; height += 1 + height/6 {
				c := screen{width: width, height: height, now: noon, scroll: height, unicode: width%2 == 0}
				for _, lines := range [][]line{c.draw(s), c.help()} {
					if width > 0 && len(lines) != height || width == 0 && len(lines) > 0 {
						t.Fatalf("%s: %d lines of %d", name, len(lines), height)
					}
					for _, l := range lines {
						checkLine(t, l.text, width)
					}
				}
			}
		}
	}
}

func checkLine(t *testing.T, text string, width int) {
	t.Helper()
	if w := ansi.StringWidth(text); w != width || !utf8.ValidString(text) {
		t.Fatalf("%d cells of %d: %q", w, width, text)
	}
	for _, r := range text {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x200b || r == 0x200d || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			t.Fatalf("%U is in %q", r, text)
		}
	}
	if strings.Contains(text, "\u0301\u0302\u0303") {
		t.Fatalf("a tower of accents is in %q", text)
	}
}

// Without a terminal of UTF-8 everything of our own is ASCII.
func TestPlainScreenIsASCII(t *testing.T) {
	c := screen{width: 80, height: 24, now: noon}
	for _, s := range []*snapshot{shown(t, newDaemon(), self), {}, {down: "gone", loaded: true}} {
		for _, l := range append(c.draw(s), c.help()...) {
			for _, r := range l.text {
				if r > '~' {
					t.Errorf("%q has %q", l.text, r)
				}
			}
		}
	}
}

func TestAwaited(t *testing.T) {
	for _, tt := range []struct {
		commits []string
		phase   string
		want    string
	}{
		{nil, "train", "this node, 12D3KooWAaaa11 and 1 more (0 of 3 deltas are here)"},
		{[]string{self, peerB}, "exchange", "12D3KooWAaaa11 (2 of 3 deltas are here)"},
		{[]string{self, peerA, peerB}, "vote", "nobody: 3 of 3 deltas are here"},
		{nil, "assembly", ""},
	} {
		d := newDaemon()
		r := d.runs[runID]
		r.Phase = tt.phase
		d.runs[runID] = r
		if got := awaited(shown(t, d, tt.commits...)); got != tt.want {
			t.Errorf("in %s with %d commits: %q, want %q", tt.phase, len(tt.commits), got, tt.want)
		}
	}
}

func TestTableScrolls(t *testing.T) {
	s := shown(t, newDaemon())
	c := screen{width: 80, height: 24, now: noon}
	if got := c.table(s, 2)[1].text; !strings.Contains(got, "Aaaa") {
		t.Errorf("first row %q", got)
	}
	c.scroll = 1
	if got := c.table(s, 2)[1].text; !strings.Contains(got, "Bbbb") || !strings.HasPrefix(got, "* ") {
		t.Errorf("second row %q", got)
	}
}

func TestShowsUnicode(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    bool
	}{
		{nil, false},
		{[]string{"LANG=en_US.UTF-8"}, true},
		{[]string{"LANG=C.utf8"}, true},
		{[]string{"LANG=en_US.UTF-8", "LC_ALL=C"}, false},
		{[]string{"LC_ALL=", "LC_CTYPE=de_DE.UTF-8", "LANG=C"}, true},
	} {
		if got := showsUnicode(tt.environ); got != tt.want {
			t.Errorf("%v: %v", tt.environ, got)
		}
	}
}
