package web_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

const token = "0123456789abcdef0123456789abcdef"

// evil is a name that would be markup, turn the line around and end a cell.
const evil = "<img src=x onerror=\"globalThis.hurt=1\">\u202eevil\u2066\x1b[31m,=1+1"

// world is a fake daemon on a port, with a run of many rounds.
type world struct {
	fake    *apitest.Fake
	backend api.Backend  // fake, or something around it
	log     syncBuffer   // what the daemon logs
	failing atomic.Value // a func(method string) error, asked before each method
	url     string
	// readToken, if not empty, is one for reading.
	readToken string
	run       string
	me        string
	stop      func()
}

// syncBuffer is a buffer for several writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// name is that of the run.
func (w *world) name() string { return "pirate-instruct" }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{fake: apitest.New("node"), me: apitest.PeerID("node")}
	w.serve(t, "127.0.0.1:0", token)
	w.fill()
	return w
}

// serve answers on an address with a token, until the test or stop ends it.
func (w *world) serve(t *testing.T, addr, token string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); l, err = net.Listen("tcp", addr) {
		time.Sleep(100 * time.Millisecond) // a connection of somebody else may have the port for a moment
	}
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + l.Addr().String()
	if w.backend == nil {
		w.backend = w.fake
	}
	w.fake.Err = func(method string) error {
		if fail, ok := w.failing.Load().(func(string) error); ok {
			return fail(method)
		}
		return nil
	}
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- api.NewServer(w.backend, api.Options{Token: token, ReadToken: w.readToken, Log: log}).Serve(ctx, slowly(l))
	}()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(w.stop)
}

func (w *world) fill() {
	f := w.fake
	peers := []string{w.me, apitest.PeerID("b"), apitest.PeerID("c"), apitest.PeerID("d")}
	d := apitest.Detail(w.name(), w.me)
	d.State, d.Phase, d.Why = api.RunTraining, "train", ""
	d.MaxRounds, d.Seats = 40, 4
	d.Guarantee = api.Guarantee{Level: "byzantine", Seats: 4, Quorum: 3, Faulty: 1, Text: "one of the four seats may lie"}
	d.NextSeats = nil
	for i, p := range peers {
		d.NextSeats = append(d.NextSeats, api.Seat{Peer: p, Since: 1, Fresh: i == 3})
		d.Members = append(d.Members, api.Member{
			Peer: p, Seen: time.Now(), Phase: "train", Round: 26, Head: apitest.ID("h"), TokensPerSecond: 1024.5 * float64(i+1),
			Agent: "mootd/test", Device: "cpu (2 threads, avx2)",
		})
	}
	d.Members[1].Agent, d.Members[1].Device = evil, strings.Repeat("😀", 60)
	d.Members[2].Agent = strings.Repeat("<b>x</b>", 10_000/8)
	f.AddRun(d)
	w.run = d.ID
	for n := uint64(1); n <= 25; n++ {
		w.decide(n, peers)
	}
	e := apitest.Detail(evil, apitest.PeerID("evil"))
	e.State, e.Joined, e.Why, e.Created = api.RunKnown, false, "not joined", apitest.Epoch.Add(-time.Hour)
	f.AddRun(e)
	for i, p := range peers[1:] {
		f.AddPeer(api.Peer{ID: p, Addr: fmt.Sprintf("/ip4/192.168.1.%d/tcp/4717", i+2), Where: "lan", Direction: "out", RTTMillis: 0.4 * float64(i+1), Agent: "mootd/test", Runs: []string{d.ID}})
	}
	f.AddPeer(api.Peer{ID: apitest.PeerID("x"), Addr: "/ip4/127.0.0.1/udp/4717/quic-v1", Where: "loopback", Direction: "in", Agent: evil})
	f.Log.Publish(api.Event{Type: api.EventAlert, Run: d.ID, Peer: peers[1], Text: evil})
	for i, level := range []string{"debug", "info", "warn", "error", "info"} {
		f.AddLog(api.LogEntry{Time: time.Now(), Level: level, Component: "p2p", Message: "something happened", Attrs: fmt.Sprintf("n=%d text=%q", i, evil)})
	}
	f.Node.Devices = []api.Device{
		{Name: "cpu", Celsius: new(61), UtilPercent: new(93)},
		{Name: evil, Celsius: new(70), UtilPercent: new(88), UsedBytes: new(int64(6 << 30)), TotalBytes: new(int64(8 << 30)), OtherBytes: new(int64(1 << 30)), Watts: new(140)},
	}
	w.use(time.Now().Truncate(time.Second))
	f.Node.ClockError, f.Node.Blind = "it is 3 min ahead", map[string]string{"work.gamemode": "no session bus"}
	f.Node.State, f.Node.Why, f.Node.Started = api.NodeTraining, "", time.Now().Add(-time.Hour)
}

// use makes the machine have been used, until a time: in the hour with ten
// minutes of which nothing is known, and in the day with a limit that was set
// at noon.
func (w *world) use(until time.Time) {
	for i := range 300 {
		if i < 90 || i >= 210 {
			w.fake.AddUsage(api.UsageHour, used(until.Add(time.Duration(i-299)*5*time.Second), i, 83))
		}
	}
	for i := range 1440 {
		limit := 83
		if i < 720 {
			limit = 0
		}
		w.fake.AddUsage(api.UsageDay, used(until.Truncate(time.Minute).Add(time.Duration(i-1440)*time.Minute), i, limit))
	}
}

// used is a sample of a machine with a GPU that has a name of others.
func used(at time.Time, i, limit int) api.UsageSample {
	return api.UsageSample{
		Time: at, MaxCelsius: limit, DutyPercent: 70, ProcessBytes: new(int64(1 << 30)), ProcessPercent: new(12.5),
		Devices: []api.Device{
			{Name: "processor", Celsius: new(50 + i%9), UtilPercent: new(20 + i%50), UsedBytes: new(int64(5 << 30)), TotalBytes: new(int64(16 << 30))},
			{Name: evil, Celsius: new(70 + i%11), UtilPercent: new(90 - i%7), UsedBytes: new(int64(6 << 30)), TotalBytes: new(int64(8 << 30)), OtherBytes: new(int64(1 << 30)), Watts: new(140 + i%20)},
		},
	}
}

// decide ends a round: every seventh is provisional, every fifth refuses the
// last peer's delta.
func (w *world) decide(n uint64, peers []string) {
	in := peers
	if n%5 == 0 {
		in = peers[:3]
	}
	r := apitest.DecidedRound(w.run, n, false, in...)
	train, eval := 1.2+2/float64(n), 1.3+1.8/float64(n)
	r.TrainLoss, r.EvalLoss, r.Seats = &train, nil, 4
	if n%2 == 0 {
		r.EvalLoss = &eval
	}
	if n%5 == 0 {
		r.Refused = []api.Refusal{{Peer: peers[3], Commit: apitest.ID("refused"), Reason: "bad-norm"}}
	}
	r.Contributions[0].Clip = 0.75
	r.Certified = n%7 != 0
	for i, p := range peers {
		s := api.Standing{Peer: p, Pace: 1000, Work: 1000 * n / uint64(i+1), Worth: 1 - 0.2*float64(i)}
		if i == 3 {
			s.Owed, s.Strikes = 2, 1.5
		}
		r.Standings = append(r.Standings, s)
		if n > 1 {
			r.Judged = append(r.Judged, api.Judged{Peer: p, Auditors: 3, Gain: 1e-3 / float64(i+1), Worth: 1 - 0.2*float64(i), Verdict: []string{"useful", "useful", "useless", "damaging"}[i]})
		}
	}
	r.Seconds = 14 + float64(n%4)
	w.fake.Decide(w.run, r)
}

// enter opens the page as the address with the token does.
func (w *world) enter(b *browser, width, height int) *tab {
	tb := b.open(w.url+"/#token="+token, width, height)
	tb.until(`document.querySelector("#link")?.dataset.state === "live"`)
	return tb
}

// goTo opens the view that a hash names, and waits until it is ready. What is ready
// of the view before does not count.
func (tb *tab) goTo(hash, ready string) {
	tb.t.Helper()
	tb.eval(fmt.Sprintf(`new Promise((done) => {
		if (location.hash === %[1]q) return done();
		addEventListener("hashchange", () => done(), {once: true}); // after the page's own
		location.hash = %[1]q;
	})`, hash), nil)
	tb.until(ready)
}

// wide is by how much the page is wider than its window.
const wide = `Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)`

// view is a page and how to know that it is filled.
type view struct{ name, hash, ready string }

func (w *world) views() []view {
	run := "#/runs/" + w.run
	return []view{
		{"runs", "#/runs", `document.querySelectorAll("tbody tr").length === 2`},
		{"run", run, `document.querySelectorAll("table th a").length > 20 && document.querySelectorAll(".plot .dot").length > 20`},
		{"round", run + "/rounds/5", `document.body.innerText.includes("bad-norm")`},
		{"run-data", run + "/data", `document.querySelectorAll(".heat").length > 6 && document.body.innerText.includes("None of 200 held-out rows")`},
		{"run-peers", run + "/peers", `document.querySelectorAll("tbody tr").length === 4`},
		{"run-peer", run + "/peers/" + w.me, `document.querySelector(".plot path.bar")?.getAttribute("d").match(/M/g).length > 20`},
		{"samples", run + "/samples", `document.querySelector("h1")?.textContent.includes("pirate")`},
		{"export", run + "/export", `document.querySelectorAll("option").length > 20`},
		{"network", "#/network", `document.querySelectorAll("tbody tr").length === 12`},
		{"begin", "#/begin", `document.querySelector("main a.action")`},
		{"new-model", "#/new/model", `document.querySelector(".picks .empty")`},
		{"new-data", "#/new/data", `document.querySelector(".picks .empty")`},
		{"new-budget", "#/new/budget", `document.querySelectorAll("option").length > 5`},
		{"new-publish", "#/new/publish", `document.querySelector(".consent")`},
		{"node", "#/node", `document.querySelector(".word")?.textContent === "training" && document.querySelectorAll(".plot .limit").length === 2`},
		{"settings", "#/settings", `document.querySelectorAll(".setting").length === 5`},
		{"logs", "#/logs", `document.querySelectorAll(".log li").length > 1`},
		{"about", "#/about", `document.body.innerText.includes("/moot/sync/1")`},
		{"doctor", "#/doctor", `document.querySelectorAll(".setting").length === 3`},
		{"generate", "#/generate", `document.querySelector("option[value^=baf]")`},
	}
}

// TestViews: every page, light and dark, from a small telephone to 4K: no
// error, nothing against the policy, no scrolling sideways, names of others
// harmless, and nothing that the WCAG forbid and a program can see.
func TestViews(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	script, haveAxe := axeScript(t)
	tb := w.enter(b, 1440, 900)
	for _, v := range w.views() {
		tb.goTo(v.hash, v.ready)
		for _, scheme := range []string{"light", "dark"} {
			tb.scheme(scheme)
			widths := []int{1440}
			if scheme == "light" {
				widths = []int{320, 3840, 1440}
			}
			for _, width := range widths {
				tb.size(width, 900)
				if s, ok := tb.comes(wide, none); !ok {
					t.Errorf("%s, %d px: the page is %s px too wide", v.name, width, s)
				}
				tb.shoot(fmt.Sprintf("%s-%s-%d", v.name, scheme, width))
			}
			if !haveAxe {
				if s, ok := tb.comes(lint, none); !ok {
					t.Errorf("%s, %s:\n%s", v.name, scheme, s)
				}
			} else {
				if s, ok := tb.axe(script, none); !ok {
					t.Errorf("%s, %s: axe says\n%s", v.name, scheme, s)
				}
			}
		}
	}
	if s := tb.text(`globalThis.hurt + " " + document.images.length + " " + document.querySelectorAll("main b").length`); s != "undefined 0 0" {
		t.Errorf("a name became markup: %s", s)
	}
	tb.goTo("#/runs/"+w.run, `document.body.innerText.includes("… (10,000 characters)")`)
	tb.clean()
}

// clean checks that nothing went wrong that is not seen.
func (tb *tab) clean() {
	tb.t.Helper()
	if s := tb.text(`violations.join("\n")`); s != "" {
		tb.t.Errorf("against the policy: %s", s)
	}
	for _, c := range tb.complaints() {
		tb.t.Errorf("the page complained: %.500s", c)
	}
}

// lint finds in the page what WCAG 2 AA forbids and a program can see: text
// with too little contrast, controls without a name, headings that skip a
// level, identifiers twice.
const lint = `(() => {
  const out = [];
  const rgb = (s) => { const c = document.createElement("canvas").getContext("2d", {willReadFrequently: true}); c.fillStyle = s; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };
  const memo = new Map();
  const color = (s) => { if (!memo.has(s)) memo.set(s, rgb(s)); return memo.get(s); };
  const lum = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const behind = (n) => { for (; n; n = n.parentElement) { const c = color(getComputedStyle(n).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
  const seen = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let t; (t = walk.nextNode());) {
    const n = t.parentElement;
    if (!t.data.trim() || !n.checkVisibility() || n.closest("noscript, title, option") || n.disabled) continue;
    const look = getComputedStyle(n);
    const a = lum(color(n instanceof SVGElement ? look.fill : look.color)), b = lum(behind(n));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const what = n.tagName + "." + (n.getAttribute("class") ?? "");
    if (ratio < 4.5 && !seen.has(what)) { seen.add(what); out.push(what + " " + JSON.stringify(t.data.slice(0, 30)) + ": contrast " + ratio.toFixed(2)); }
  }
  for (const n of document.querySelectorAll("button, a, input, select, textarea, summary, [tabindex='0']")) {
    const name = n.getAttribute("aria-label") || n.textContent.trim() || [...(n.labels ?? [])].map((l) => l.textContent).join("");
    if (!name) out.push("no name: " + n.outerHTML.slice(0, 100));
  }
  let level = 0;
  for (const h of document.querySelectorAll("h1, h2, h3")) {
    if (+h.tagName[1] > level + 1) out.push("heading skips a level: " + h.textContent);
    level = +h.tagName[1];
  }
  if (document.querySelectorAll("h1").length !== 1) out.push("not one h1");
  const ids = [...document.querySelectorAll("[id]")].map((n) => n.id);
  for (const id of ids) if (ids.filter((x) => x === id).length > 1) out.push("twice: " + id);
  return out.join("\n");
})()`
