package web_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/performance"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// long says whether figures are measured at length, on a machine that does nothing
// else, and must be what is wanted. Otherwise they are told, and what they are of
// must come at all.
func long() bool { return os.Getenv("MOOT_WEB_FIGURES") != "" }

// atMost tells a figure and what is wanted of it.
func atMost(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	t.Logf("%s: %v, wanted at most %v", what, got.Round(time.Millisecond), want)
	if long() && got > want {
		t.Errorf("%s took %v, more than %v", what, got, want)
	}
}

// seen makes a tab keep when each number of rounds was painted first.
const seen = `globalThis.seen = {};
	new MutationObserver(() => {
		const n = document.querySelector(".tiles dd")?.textContent;
		if (n && !(n in seen)) requestAnimationFrame(() => { seen[n] ??= Date.now(); });
	}).observe(document, {subtree: true, childList: true, characterData: true});`

// shown waits until a number of rounds was painted, and returns how long after a
// time that was.
func (tb *tab) shown(n uint64, after time.Time) time.Duration {
	tb.t.Helper()
	tb.until(fmt.Sprintf(`seen[%q]`, fmt.Sprint(n)))
	var at int64
	tb.eval(fmt.Sprintf(`seen[%q]`, fmt.Sprint(n)), &at)
	return time.UnixMilli(at).Sub(after)
}

// TestFirstPaint: the first page with what is live is there soon, and small, with
// nothing from elsewhere (A70).
func TestFirstPaint(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	b.open("about:blank", 100, 100) // the profile is there
	begin := time.Now()
	tb := b.open(w.url+"/#token="+token, 1200, 900)
	tb.until(`document.querySelectorAll("tbody tr").length === 2`)
	took := time.Since(begin)
	var page struct{ Rows, Paint, Bytes, Others float64 }
	tb.eval(`(() => {
		const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
		return {
			paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0,
			rows: Math.max(...all.map((e) => e.responseEnd)),
			bytes: [...new Map(all.toReversed().map((e) => [e.name, e])).values()].reduce((n, e) => n + e.transferSize, 0), // not what is asked again
			others: all.filter((e) => !e.name.startsWith(location.origin)).length,
		};
	})()`, &page)
	t.Logf("first paint after %.0f ms, all rows after %v with the time that a new tab takes, %.0f bytes moved", page.Paint, took.Round(time.Millisecond), page.Bytes)
	atMost(t, "the first page, with what is live", time.Duration(page.Rows)*time.Millisecond, 2*time.Second)
	if page.Bytes > 150_000 || page.Bytes < 20_000 || page.Others != 0 {
		t.Errorf("%.0f bytes moved, at most 150,000 are wanted; %.0f requests went elsewhere", page.Bytes, page.Others)
	}
}

// TestRoundIsSeen: a round is on the screen soon after it was decided, while 50
// events come each second (A71).
func TestRoundIsSeen(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/runs/"+w.run, tile+` === "25"`)
	tb.eval(seen, nil)
	rounds := uint64(3)
	if long() {
		rounds = 40
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := uint64(0); ; n++ {
			select {
			case <-done:
				return
			case <-tick.C:
				w.fake.Log.Publish(api.Event{Type: api.EventCommit, Run: w.run, N: 26, Peer: apitest.PeerID("c"), Tokens: n})
			}
		}
	}()
	var took []time.Duration
	for n := 26 + uint64(0); n < 26+rounds; n++ {
		begin := time.Now()
		w.decide(n, []string{w.me, apitest.PeerID("b"), apitest.PeerID("c"), apitest.PeerID("d")})
		took = append(took, tb.shown(n, begin))
		time.Sleep(time.Duration(n*137%1000) * time.Millisecond) // at any time between two questions
	}
	close(done)
	<-ended
	slices.Sort(took)
	t.Logf("median %v, longest %v", took[len(took)/2], took[len(took)-1])
	atMost(t, "95 of 100 rounds, seen at 50 events a second", took[(len(took)*95-1)/100], time.Second)
	tb.clean()
}

// wall lets connections to a daemon through, or cuts them all and refuses.
type wall struct {
	mu    sync.Mutex
	down  bool              // guarded by mu
	conns map[net.Conn]bool // guarded by mu
}

func newWall(t *testing.T, to string) (*wall, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wall{conns: make(map[net.Conn]bool)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { w.pass(c, to) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.cut(true)
		all.Wait()
	})
	return w, l.Addr().String()
}

// keep takes note of a connection, unless the wall is down.
func (w *wall) keep(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.down {
		w.conns[c] = true
	}
	return !w.down
}

func (w *wall) pass(c net.Conn, to string) {
	defer c.Close()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	if !w.keep(c) || !w.keep(d) {
		return
	}
	var both sync.WaitGroup
	for _, x := range [][2]net.Conn{{c, d}, {d, c}} {
		both.Go(func() {
			_, _ = io.Copy(x[0], x[1]) // who is cut off sees it
			x[0].Close()
			x[1].Close()
		})
	}
	both.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
	delete(w.conns, d)
}

// cut takes the wall down, with all that goes through, or up again.
func (w *wall) cut(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	for c := range w.conns {
		if down {
			c.Close()
		}
	}
}

// TestOffline: who loses the daemon is told soon, and when it is back, what is
// shown is soon what a page shows that is loaded then (A73).
func TestOffline(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	wall, addr := newWall(t, strings.TrimPrefix(w.url, "http://"))
	page := "http://" + addr + "/#token=" + token
	tb := b.open(page, 1200, 900)
	tb.until(`document.querySelector("#link")?.dataset.state === "live"`)
	tb.goTo("#/runs/"+w.run, tile+` === "25"`)
	tb.eval(seen+`new MutationObserver(() => { if (!document.querySelector("#banner").hidden) globalThis.told ??= Date.now(); }).observe(document.querySelector("#banner"), {attributes: true});`, nil)
	begin := time.Now()
	wall.cut(true)
	tb.until(`globalThis.told`)
	var told int64
	tb.eval(`told`, &told)
	atMost(t, "a daemon that is gone, told", time.UnixMilli(told).Sub(begin), 3*time.Second)
	for n := uint64(26); n <= 40; n++ {
		w.decide(n, []string{w.me, apitest.PeerID("b"), apitest.PeerID("c"), apitest.PeerID("d")})
	}
	if long() {
		time.Sleep(30*time.Second - time.Since(begin))
	}
	begin = time.Now()
	wall.cut(false)
	atMost(t, "a daemon that is back, and what it has", tb.shown(40, begin), 3*time.Second)
	tb.until(`document.querySelector("#banner").hidden`)
	fresh := b.open(page, 1200, 900)
	fresh.until(`document.querySelector("#link")?.dataset.state === "live"`)
	fresh.goTo("#/runs/"+w.run, tile+` === "40"`)
	// What was shown of each: figures, tables, points; not how long ago something was.
	shows := `JSON.stringify([...document.querySelectorAll("main .tiles, main tbody, main svg .line, main svg .dot, main .feed li")].filter((n) => !n.closest("[aria-label=Members]")).map((n) => n.getAttribute("d") ?? n.getAttribute("points") ?? n.textContent))`
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // until both have all of it
		mine, theirs := tb.text(shows), fresh.text(shows)
		if mine == theirs {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it shows\n%s\nand a page that is loaded now\n%s", mine, theirs)
		}
	}
	_ = tb.complaints() // of a daemon that did not answer
	if s := tb.text(`violations.join()`); s != "" {
		t.Errorf("against the policy: %s", s)
	}
}

// TestManyTabs: nine tabs, all in sight, follow a run, though a browser has six
// connections to a host; when the one with the stream goes, another has it (A54).
func TestManyTabs(t *testing.T) {
	w, count := watch(t)
	b := openBrowser(t)
	var tabs []*tab
	for range 9 {
		tb := w.enter(b, 800, 600)
		tb.goTo("#/runs/"+w.run, tile+` === "25"`)
		tb.eval(seen, nil)
		tabs = append(tabs, tb)
	}
	follow := func(n uint64) {
		t.Helper()
		begin := time.Now()
		w.decide(n, []string{w.me, apitest.PeerID("b")})
		var longest time.Duration
		for _, tb := range tabs {
			longest = max(longest, tb.shown(n, begin))
		}
		atMost(t, fmt.Sprintf("round %d in the last of %d tabs", n, len(tabs)), longest, 2*time.Second)
	}
	follow(26)
	within(t, "one stream is open", func() bool { return count.open.Load() == 1 })
	// What happened before a tab came is in its feed, too.
	feed := `document.querySelectorAll(".feed li").length`
	within(t, "the first tab and the last one tell of as many events", func() bool {
		a := tabs[0].text(feed)
		return a != "0" && a == tabs[8].text(feed)
	})
	tabs[0].goTo("#/runs", `document.querySelector("h1")?.textContent === "Runs"`)
	call(tabs[0], cdppage.Navigate, cdppage.NavigateParams{URL: "about:blank"})
	tabs = tabs[1:]
	within(t, "another tab has the stream", func() bool { return count.opened.Load() == 2 && count.open.Load() == 1 })
	follow(27)
	for _, tb := range tabs {
		tb.is(`document.querySelector("#link").dataset.state`, "live")
	}
	tabs[0].clean()
}

// TestSoak: a page that is open for long neither grows nor stutters, with 100
// peers and 500 rounds: MOOT_WEB_SOAK is for how long a round is decided each
// second (1h, say), 3s by default (A72).
func TestSoak(t *testing.T) {
	last := 3 * time.Second
	soak := os.Getenv("MOOT_WEB_SOAK")
	if soak != "" {
		var err error
		if last, err = time.ParseDuration(soak); err != nil {
			t.Fatal(err)
		}
	}
	b := openBrowser(t)
	w := newWorld(t)
	d := apitest.Detail("soak", w.me)
	d.State, d.Why, d.MaxRounds, d.NextSeats = api.RunTraining, "", 100_000, nil
	peers := []string{w.me}
	for i := range 99 {
		peers = append(peers, apitest.PeerID(fmt.Sprint("peer ", i)))
	}
	for _, p := range peers {
		d.Members = append(d.Members, api.Member{Peer: p, Seen: time.Now(), Phase: "train", Round: 500, Head: apitest.ID("h"), TokensPerSecond: 1000, Agent: "mootd/test", Device: "cpu"})
	}
	w.fake.AddRun(d)
	decide := func(n uint64) {
		seats := make([]string, 0, 32)
		for i := range uint64(32) {
			seats = append(seats, peers[(n+3*i)%100])
		}
		r := apitest.DecidedRound("soak", n, false, seats...)
		train, eval := 1.2+2/float64(n), 1.3+1.8/float64(n)
		r.TrainLoss, r.EvalLoss, r.Seats = &train, &eval, 32
		w.fake.Decide(d.ID, r)
	}
	n := uint64(1)
	for ; n <= 500; n++ {
		decide(n)
	}
	tb := w.enter(b, 1200, 900)
	tb.goTo("#/runs/"+d.ID, tile+` === "500"`)
	// Of 500 rounds no figure is an element of its own.
	tb.until(`document.querySelectorAll(".plot path.bar").length > 2`)
	if s := tb.text(`[...document.querySelectorAll(".plot")].filter((n) => n.querySelectorAll("*").length > 200).length`); s != "0" {
		t.Errorf("%s charts have more than 200 elements", s)
	}
	tb.eval(`globalThis.tasks = []; new PerformanceObserver((l) => tasks.push(...l.getEntries())).observe({type: "longtask"})`, nil)
	// Time of the page's own thread: other programs of a busy machine do not count.
	call(tb, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks})
	metric := func(name string) float64 {
		t.Helper()
		call(tb, heapprofiler.CollectGarbage, cdp.Empty{})
		for _, m := range call(tb, performance.GetMetrics, cdp.Empty{}).Metrics {
			if m.Name == name {
				return m.Value
			}
		}
		t.Fatalf("the browser has no %s", name)
		return 0
	}
	heap := func() float64 { return metric("JSHeapUsedSize") / 1e6 }
	settle := n + 10 // what is kept anyway is there then
	var before, busy, at, from, to float64
	now := func(v *float64) { tb.eval(`performance.now()`, v) }
	for begin := time.Now(); n < settle || time.Since(begin) < last; n++ {
		if n == settle {
			before, busy, at = heap(), metric("TaskDuration"), metric("Timestamp")
			now(&from) // after garbage was collected, which is a long task
		}
		for i := range uint64(8) {
			w.fake.Log.Publish(api.Event{Type: api.EventCommit, Run: d.ID, N: n, Peer: peers[(n+3*i)%100], Tokens: 1000})
		}
		decide(n)
		if soak != "" || n >= settle {
			time.Sleep(time.Second)
		} else {
			time.Sleep(100 * time.Millisecond)
		}
	}
	if before == 0 {
		before, busy, at = heap(), metric("TaskDuration"), metric("Timestamp")-1
	}
	now(&to)
	grown, share := heap()-before, (metric("TaskDuration")-busy)/(metric("Timestamp")-at)
	var longest float64
	tb.eval(fmt.Sprintf(`Math.max(0, ...tasks.filter((e) => e.startTime >= %f && e.startTime < %f).map((e) => e.duration))`, from, to), &longest)
	t.Logf("%d rounds: the heap has %.1f MB, %.1f MB more than at first; the page took %.1f %% of a processor; its longest task %.0f ms", n-501, before+grown, grown, 100*share, longest)
	if grown > 20 {
		t.Errorf("the heap grew by %.1f MB, at most 20 are wanted", grown)
	}
	if soak != "" && long() && (share > 0.15 || longest > 200) {
		t.Errorf("the page took %.1f %% of a processor and at most %.0f ms at once; 15 %% and 200 ms are wanted", 100*share, longest)
	}
	tb.clean()
}
