package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// watched counts the open event streams of a fake daemon, and keeps what it
// was asked to generate.
type watched struct {
	*apitest.Fake
	open, opened atomic.Int64

	mu sync.Mutex
	// guarded by mu
	asked []api.GenerateRequest
}

func (w *watched) Generate(ctx context.Context, req api.GenerateRequest, progress api.ProgressFunc) (api.Generation, error) {
	w.mu.Lock()
	w.asked = append(w.asked, req)
	w.mu.Unlock()
	return w.Fake.Generate(ctx, req, progress)
}

// watch makes a world whose daemon is watched.
func watch(t *testing.T) (*world, *watched) {
	t.Helper()
	w := &world{fake: apitest.New("node"), me: apitest.PeerID("node")}
	count := &watched{Fake: w.fake}
	w.backend = count
	w.serve(t, "127.0.0.1:0", token)
	w.fill()
	return w, count
}

func (w *watched) Watch(ctx context.Context, run string, after api.Cursor, emit func(api.Event) error) error {
	w.open.Add(1)
	w.opened.Add(1)
	defer w.open.Add(-1)
	return w.Fake.Watch(ctx, run, after, emit)
}

// within waits for something on this side of the connection.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

const tile = `document.querySelector(".tiles dd")?.textContent`

// TestUpdates: what happens is seen without being asked for, and whoever uses
// the keyboard stays where they are.
func TestUpdates(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	tb := w.enter(b, 1200, 800)
	// The page asks anyhow after 10 s, but not this one: what it shows came with events.
	tb.eval(`globalThis.setTimeout = ((set) => (f, ms, ...more) => ms >= 10_000 ? 0 : set(f, ms, ...more))(setTimeout)`, nil)
	tb.goTo("#/runs/"+w.run, tile+` === "25"`)
	tb.is(`document.querySelectorAll("[aria-label=Rounds] tbody tr").length`, "20")
	tb.eval(`document.querySelector("[aria-label=Rounds] tbody a").focus()`, nil) // of round 25
	tb.eval(`document.querySelectorAll("[aria-label=Rounds] tbody tr").forEach((r) => { r.kept = true; })`, nil)
	begin := time.Now()
	w.decide(26, []string{w.me, apitest.PeerID("b"), apitest.PeerID("c"), apitest.PeerID("d")})
	tb.until(tile + ` === "26"`)
	t.Logf("a round was seen %v after it was decided", time.Since(begin).Round(time.Millisecond))
	tb.until(`document.querySelector("[aria-label=Rounds] tbody a").textContent === "26"`)
	tb.is(`[...document.querySelectorAll("[aria-label=Rounds] tbody tr")].filter((r) => !r.kept).length`, "1")
	tb.is(`document.activeElement.textContent`, "25")
	tb.says(`document.querySelector(".feed li").textContent`, "round 26 certified: 4 contributions")
	// Whom the next round waits for.
	now := `[...document.querySelectorAll("main > div > section:not([hidden]) dd")].slice(2, 4).map((n) => n.textContent).join(" | ")`
	id := func(name string) string { return apitest.PeerID(name)[:14] }
	for _, name := range []string{"node", "c"} {
		w.fake.Log.Publish(api.Event{Type: api.EventCommit, Run: w.run, N: 27, Peer: apitest.PeerID(name), Tokens: 1})
	}
	w.fake.Log.Publish(api.Event{Type: api.EventCommit, Run: w.run, N: 26, Peer: apitest.PeerID("d"), Tokens: 1})
	want := fmt.Sprintf("2 of 4 seats: %s (you), %s | %s, %s", id("node"), id("c"), id("b"), id("d"))
	tb.is(now, want)
	tb.goTo("#/runs/"+w.run+"/rounds/27", `document.body.innerText.includes("not decided yet")`)
	w.decide(27, []string{w.me})
	tb.until(`document.querySelectorAll("[aria-label^=Contributions] tbody tr").length === 1`)
	tb.goTo("#/runs/nothing", `!document.querySelector(".problem").hidden`)
	tb.says(`document.querySelector(".problem").innerText`, "knows no run", "moot run list", "E_NOTFOUND")
	tb.goTo("#/runs", `document.querySelector(".problem").hidden && document.querySelectorAll("tbody tr").length === 2`)
}

// TestRestart: a daemon that stops is said to be away; another one on its port
// wants another token; a tab that gets it tells the others.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	one := w.enter(b, 1000, 700)
	two := b.open(w.url+"/", 1000, 700) // has no token, but the other tab has
	two.until(`document.querySelector("#link")?.dataset.state === "live"`)
	one.goTo("#/node", `document.querySelector(".word")`)
	addr := strings.TrimPrefix(w.url, "http://")

	w.stop()
	one.until(`!document.querySelector("#banner").hidden && /stopping|not answer/.test(document.querySelector("#banner").textContent)`)
	other := strings.Repeat("f", 64)
	w.fake.Log = api.NewEventLog(1000)
	w.fake.Node.Device = "another device"
	w.serve(t, addr, other)
	for _, tb := range []*tab{one, two} {
		tb.until(`document.querySelector("h1").textContent === "Sign in"`)
	}
	one.says(`document.body.innerText`, "does not know this token", "api.token")
	one.shoot("sign-in")
	one.is(`document.querySelector("#banner").hidden`, "true") // it does answer
	one.eval(`document.querySelector("main input").value = "not / a token"; document.querySelector("form").requestSubmit()`, nil)
	one.until(`document.querySelector("form .problem:not([hidden])")`)
	one.eval(fmt.Sprintf(`document.querySelector("main input").value = %q; document.querySelector("form").requestSubmit()`, w.url+"/#token="+other), nil)
	one.until(`document.querySelector("#link").dataset.state === "live" && document.body.innerText.includes("another device")`)
	two.until(`document.querySelector("#link").dataset.state === "live" && document.querySelectorAll("tbody tr").length === 2`)
	one.is(`document.querySelector("#banner").hidden`, "true")
}

// TestHidden: one stream for each tab, none while nobody looks.
func TestHidden(t *testing.T) {
	w, count := watch(t)
	b := openBrowser(t)
	tb := w.enter(b, 1000, 700)
	tb.goTo("#/runs/"+w.run, tile+` === "25"`)
	within(t, "one stream is open", func() bool { return count.open.Load() == 1 })
	hide := `Object.defineProperty(document, "hidden", {value: %v, configurable: true}); document.dispatchEvent(new Event("visibilitychange"))`
	tb.eval(fmt.Sprintf(hide, true), nil)
	within(t, "no stream is open", func() bool { return count.open.Load() == 0 })
	w.decide(26, []string{w.me})
	tb.eval(fmt.Sprintf(hide, false), nil)
	tb.until(tile + ` === "26"`)
	within(t, "one stream is open again", func() bool { return count.open.Load() == 1 })
	if n := count.opened.Load(); n != 2 {
		t.Errorf("%d streams were opened, want 2", n)
	}
	tb.clean()
}

// TestGap: who looks again when more has happened than the daemon kept sees it
// all the same.
func TestGap(t *testing.T) {
	w := &world{fake: apitest.New("node"), me: apitest.PeerID("node")}
	w.fake.Log = api.NewEventLog(3)
	w.serve(t, "127.0.0.1:0", token)
	w.fill()
	tb := w.enter(openBrowser(t), 1000, 700)
	tb.goTo("#/runs/"+w.run, tile+` === "25"`)
	hide := `Object.defineProperty(document, "hidden", {value: %v, configurable: true}); document.dispatchEvent(new Event("visibilitychange"))`
	tb.eval(fmt.Sprintf(hide, true), nil)
	tb.until(`document.querySelector("#link").dataset.state === "paused"`)
	for n := uint64(26); n <= 60; n++ { // more than the daemon tells with a run, too
		w.decide(n, []string{w.me, apitest.PeerID("b"), apitest.PeerID("c"), apitest.PeerID("d")})
	}
	tb.eval(fmt.Sprintf(hide, false), nil)
	tb.until(tile + ` === "60"`)
	tb.press("Show 100 earlier rounds")
	tb.until(`document.querySelectorAll("[aria-label=Rounds] tbody tr").length === 60`)
	tb.clean()
}

// TestTokenStaysHere: the token is in no address, no request for one, and
// nothing is asked of anybody else.
func TestTokenStaysHere(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	tb := w.enter(b, 1000, 700)
	for _, v := range w.views() {
		tb.goTo(v.hash, v.ready)
	}
	var asked []string
	tb.eval(`[location.href, document.referrer, ...performance.getEntriesByType("resource").map((e) => e.name)]`, &asked)
	if len(asked) < 20 {
		t.Fatalf("only %d requests were seen: %q", len(asked), asked)
	}
	for _, a := range asked {
		u, err := url.Parse(a)
		if err != nil || a != "" && "http://"+u.Host != w.url || strings.Contains(a, token) {
			t.Errorf("asked for %s", a)
		}
	}
	if s := tb.text(`document.cookie + JSON.stringify(localStorage)`); strings.Contains(s, token) {
		t.Errorf("the token outlives the tab: %s", s)
	}
	if s := w.log.String(); strings.Contains(s, token) || !strings.Contains(s, "/api/v1/status") {
		t.Errorf("the daemon's log has the token, or nothing: %.500s", s)
	}
	tb.clean()
}

// TestChart: axes, keyboard, the figures as a table and as files.
func TestChart(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	tb := w.enter(b, 1200, 800)
	tb.goTo("#/runs/"+w.run, tile+` === "25"`)
	chart := `document.querySelector(".chart")`
	readout := chart + `.querySelector(".readout").textContent`
	tb.eval(`document.querySelector("input[value=round]").click(); `+chart+`.querySelector(".frame").focus()`, nil)
	tb.key("Home", 36)
	tb.is(readout, "round 1 · train 3.2000 nats per token · train, running mean (EMA 0.9) 3.2000 nats per token")
	box := `[...document.querySelectorAll(".choice input[type=checkbox]")]`
	tb.eval(box+`[1].click()`, nil) // without the running mean
	tb.key("Home", 36)
	tb.key("ArrowRight", 39)
	tb.is(readout, "round 2 · train 2.2000 nats per token · eval 2.2000 nats per token")
	tb.eval(`document.querySelector("input[value=tokens]").click()`, nil)
	tb.key("End", 35)
	tb.is(readout, "tokens 102 k · train 1.2800 nats per token")
	tb.eval(`document.querySelector("input[value=time]").click(); `+box+`[0].click()`, nil)
	tb.is(chart+`.querySelectorAll(".dot").length + " " + `+chart+`.querySelectorAll(".ring").length`, "25 2") // one ring in the legend
	tb.shoot("run-time-log")
	tb.eval(`document.querySelector("input[value=round]").click(); `+chart+`.querySelector("details").open = true`, nil)
	tb.is(chart+`.querySelectorAll("tbody tr").length`, "25")
	tb.is(chart+`.querySelectorAll("tbody tr")[3].innerText.split(/\s+/).join(" ")`, "4 1.7000 1.7500 –")

	// A part of it: with the mouse, with the keyboard, and all again.
	dots := chart + `.querySelectorAll(".dot").length`
	// On a busy machine the page may still move when the mouse comes.
	for end := time.Now().Add(patience); tb.text(dots+` < 14`) != "true"; {
		if time.Now().After(end) {
			t.Fatal("no part was picked with the mouse")
		}
		var at struct{ X, Y, Width float64 }
		tb.eval(`(async () => {
			`+chart+`.querySelector(".frame").scrollIntoView({block: "center", behavior: "instant"});
			await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
			const b = `+chart+`.querySelector(".plot").getBoundingClientRect();
			return {x: b.x, y: b.y, width: b.width};
		})()`, &at)
		tb.drag(at.X+at.Width*0.5, at.Y+80, at.X+at.Width*0.8, at.Y+90)
	}
	tb.is(chart+`.querySelector(".buttons button").hidden + " " + `+chart+`.querySelectorAll("tbody tr").length`, "false 25")
	tb.eval(chart+`.querySelector(".frame").focus()`, nil)
	tb.key("Home", 36)
	tb.until(`/^round (?!1 )/.test(` + readout + `)`) // the first point of the part
	tb.key("0", 48)
	tb.is(dots, "25")
	tb.key("+", 187)
	tb.until(dots + ` < 20`)
	tb.key("-", 189)
	tb.until(dots + ` === 25 && ` + chart + `.querySelector(".buttons button").hidden`)
	tb.eval(`scrollTo(0, 0)`, nil)
	tb.eval(`globalThis.saved = []; HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };
		globalThis.blobs = []; URL.createObjectURL = (b) => { blobs.push(b); return "blob:x"; };
		for (const b of `+chart+`.querySelectorAll(".buttons button:not([hidden])")) b.click();`, nil)
	tb.until(`blobs.length === 3`)
	var files []string
	tb.eval(`Promise.all(blobs.map(async (b) => b.type + " " + b.size + " " + (await b.text()).slice(0, 300)))`, &files)
	for i, want := range []string{"text/csv", "image/svg+xml", "image/png"} {
		if !strings.HasPrefix(files[i], want) {
			t.Errorf("file %d is %.60q, want %s", i, files[i], want)
		}
	}
	if !strings.Contains(files[0], "round,train (nats per token),eval (nats per token),best eval (nats per token)\r\n1,3.2,,\r\n2,2.2,2.2,\r\n") {
		t.Errorf("the CSV is %q", files[0])
	}
	// That the picture has its colours with it, drawn from the file alone.
	if s := tb.text(`(async () => {
		const img = new Image();
		img.src = "data:image/svg+xml," + encodeURIComponent(await blobs[1].text());
		await img.decode();
		const c = document.createElement("canvas"); c.width = img.width; c.height = img.height;
		const g = c.getContext("2d"); g.drawImage(img, 0, 0);
		const d = g.getImageData(0, 0, c.width, c.height).data, seen = new Set();
		for (let i = 0; i < d.length; i += 4) seen.add([d[i], d[i + 1], d[i + 2]].join());
		return seen.has("10,110,189") && seen.has("184,80,10");
	})()`); s != "true" {
		t.Error("the saved picture lacks the colours of its series")
	}
	if s := tb.text(`saved.join()`); s != apitest.ID(w.name())[:14]+"-loss.csv,"+apitest.ID(w.name())[:14]+"-loss.svg,"+apitest.ID(w.name())[:14]+"-loss.png" {
		t.Errorf("the files are called %s", s)
	}
	tb.clean()
}

// TestTable: sorted with the keyboard; what a spreadsheet would compute is
// text in the file.
func TestTable(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	tb := w.enter(b, 1200, 800)
	tb.goTo("#/runs/"+w.run, tile+` === "25"`)
	head := `[...document.querySelectorAll("[aria-label='Members'] th button")].find((b) => b.textContent === "Tokens/s")`
	column := `[...document.querySelectorAll("[aria-label='Members'] tbody tr")].map((r) => r.cells[3].textContent).join(" ")`
	tb.eval(head+`.focus()`, nil)
	for _, want := range []string{"4,098 3,074 2,049 1,025 descending", "1,025 2,049 3,074 4,098 ascending"} {
		tb.key("Enter", 13)
		tb.is(column+` + " " + `+head+`.closest("th").getAttribute("aria-sort")`, want)
	}
	tb.eval(`URL.createObjectURL = (b) => { globalThis.blob = b; return "blob:x"; };
		HTMLAnchorElement.prototype.click = () => {};
		document.querySelector("[aria-label='Save Members as CSV']").click()`, nil)
	if s := tb.text(`blob.text()`); !strings.Contains(s, `"<img src=x onerror=""globalThis.hurt=1"">`) || strings.Count(s, "\r\n") != 5 {
		t.Errorf("the CSV is %q", s)
	}
	// Where the first row goes, the others stay as they are, and what is focused in them.
	tb.eval(`(async () => {
		const { table } = await import("/web/table.js");
		const { el } = await import("/web/dom.js");
		const t = table({ caption: "Few", key: (r) => r, columns: [{ title: "Row", value: (r) => r, cell: (r) => el("a", { href: "#" }, r) }] });
		document.querySelector("main").prepend(t.node);
		t.update(["a", "b", "b", "c"]);
		t.node.querySelector("[data-key=c] a").focus();
		globalThis.moved = [];
		globalThis.few = () => [...t.node.querySelectorAll("tbody tr")].map((r) => r.dataset.key).join();
		new MutationObserver((list) => {
			for (const m of list) for (const [sign, nodes] of [["-", m.removedNodes], ["+", m.addedNodes]]) for (const n of nodes) moved.push(sign + n.dataset.key);
		}).observe(t.node.querySelector("tbody"), { childList: true });
		t.update(["b", "b", "c", "d"]);
	})()`, nil)
	tb.is(`few()`, "b,b ,c,d")
	tb.is(`moved.join() + " " + document.activeElement.textContent`, "-a,+d c")
	if s := tb.text(`import("/web/csv.js").then((m) => m.csv([["a", 1.5, null, "=1+1", "-x", "a\"b,c", -2]]))`); s != `a,1.5,,'=1+1,'-x,"a""b,c",-2`+"\r\n" {
		t.Errorf("CSV of all kinds of fields: %q", s)
	}
	tb.clean()
}

// TestGenerate: the same prompt, by the base model and by the adapter; what
// goes wrong is said where the answer would be.
func TestGenerate(t *testing.T) {
	w, asked := watch(t)
	b := openBrowser(t)
	tb := w.enter(b, 1200, 800)
	tb.goTo("#/generate", `document.querySelector("option[value^=baf]")`)
	ask := func(prompt string) {
		tb.eval(fmt.Sprintf(`document.querySelector("textarea").value = %q; document.querySelector("form").requestSubmit()`, prompt), nil)
		tb.until(`document.querySelector("button[type=submit]").disabled === false`)
	}
	answers := `[...document.querySelectorAll(".answer")].map((n) => n.textContent).join(" | ")`
	ask(evil)
	bare := strings.NewReplacer("\u202e", "\ufffd", "\u2066", "\ufffd", "\x1b", "\ufffd").Replace(evil)
	tb.is(answers, bare+" "+bare+" | The answer to: "+bare)
	ended := `[...document.querySelectorAll("section .note")].map((n) => n.textContent).join(" | ")`
	tb.is(ended, "8 tokens; cut at the limit | 4 tokens; it ended by itself")
	want := []api.GenerateRequest{
		{Subject: api.Subject{Model: apitest.DirID("model")}, Prompts: []api.Prompt{{Instruction: evil}}, MaxTokens: 128, Template: "alpaca"},
		{Subject: api.Subject{Run: w.run}, Prompts: []api.Prompt{{Instruction: evil}}, MaxTokens: 128, Template: "alpaca"},
	}
	asked.mu.Lock()
	if diff := cmp.Diff(want, asked.asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	asked.mu.Unlock()
	tb.shoot("generate-answers")
	var calls atomic.Int64
	w.failing.Store(func(method string) error {
		if method != "Generate" {
			return nil
		}
		if calls.Add(1) == 1 {
			return api.Errorf(api.CodeRAM, "the model needs 9.8 GB").WithHint("close something")
		}
		return errors.New("it broke")
	})
	ask("again")
	tb.is(ended, "the model needs 9.8 GB – close something | it broke")
	hold := make(chan struct{})
	w.failing.Store(func(method string) error {
		if method == "Generate" {
			<-hold
		}
		return nil
	})
	tb.eval(`document.querySelector("form").requestSubmit(); document.querySelector("form button[type=button]").click()`, nil)
	tb.until(`document.querySelector("button[type=submit]").disabled === false`)
	close(hold)
	tb.is(`document.querySelector("section .note").textContent`, "stopped")
	if s := tb.text(`globalThis.hurt`); s != "undefined" {
		t.Error("a prompt became markup")
	}
}

// TestKeyboard: Tab reaches every control of every page, each visibly, and
// leaves it again.
func TestKeyboard(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	tb := w.enter(b, 1200, 800)
	for _, v := range w.views() {
		tb.goTo(v.hash, v.ready)
		var total int
		tb.eval(`(() => {
			// What shows time is made anew now and then, so a control is known by what it is.
			globalThis.what = (n) => [
				n.tagName, n.type, n.name, n.type === "radio" ? n.value : "", n.getAttribute("aria-label"), n.getAttribute("href"), n.id,
				n.labels?.[0]?.textContent.slice(0, 40), ["A", "BUTTON", "SUMMARY"].includes(n.tagName) ? n.textContent.slice(0, 40) : "",
			].join(" ");
			// Of radio buttons with one name, Tab reaches one.
			const all = [...document.querySelectorAll("a[href], button:enabled, input:enabled, select:enabled, textarea:enabled, summary, [tabindex='0']")].filter((n) => n.checkVisibility() && (n.type !== "radio" || n.checked));
			globalThis.reach = new Set(all.map(what));
			globalThis.unseen = [];
			document.activeElement.blur();
			document.querySelector(".skip").focus();
			return all.length;
		})()`, &total)
		for n, left := 0, 1; n < total+5 || left > 0 && n < total+60; n++ { // more may have come
			tb.eval(`(() => {
				const n = document.activeElement;
				reach.delete(what(n));
				if (n !== document.body && getComputedStyle(n).outlineStyle === "none") unseen.push(n.outerHTML.slice(0, 80));
				return reach.size;
			})()`, &left)
			tb.key("Tab", 9)
		}
		if s := tb.text(`[...reach].join("\n")`); s != "" || total < 8 {
			t.Errorf("%s: of %d controls Tab does not reach\n%s", v.name, total, s)
		}
		if s := tb.text(`unseen.join("\n")`); s != "" {
			t.Errorf("%s: focus is not seen on\n%s", v.name, s)
		}
	}
}

// TestTheme: the choice is kept, and is stronger than the system's.
func TestTheme(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	tb := w.enter(b, 1000, 700)
	tb.scheme("light")
	back := `getComputedStyle(document.body).backgroundColor`
	tb.until(`matchMedia("(prefers-color-scheme: light)").matches`)
	light := tb.text(back)
	for _, want := range []string{"Theme: light", "Theme: dark"} {
		tb.eval(`document.querySelector("#theme").click()`, nil)
		tb.is(`document.querySelector("#theme").textContent`, want)
	}
	dark := tb.text(back)
	if dark == light {
		t.Errorf("dark is %s, as light is", dark)
	}
	tb.reload()
	tb.until(`document.querySelector("#link")?.dataset.state === "live"`)
	tb.is(back, dark)
}

// TestFunctions: what computes and shows nothing.
func TestFunctions(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	tb := w.enter(b, 1000, 700)
	for _, tt := range []struct{ module, expr, want string }{
		{"format", `[0, 999, 3269.6, 12345, 3.42e6, 999950, 0.5, null].map((v) => m.compact(v)).join()`, "0,999,3,270,12.3 k,3.42 M,1 M,0.5,–"},
		{"format", `[0, 4.25, 61, 3600, 90061].map(m.seconds).join()`, "0 s,4.3 s,1 min 1 s,1 h 0 min,1 d 1 h"},
		{"format", `[0.000952, 0.0147, 0.9996, 59.7, 0.00099960].map(m.seconds).join()`, "952 µs,14.7 ms,1 s,1 min 0 s,1 ms"},
		{"format", `[0, 1023, 1536, 3 * 2 ** 30].map(m.bytes).join()`, "0 B,1023 B,1.5 KiB,3.0 GiB"},
		{"format", `m.date("0001-01-01T00:00:00Z")`, "–"},
		{"axis", `m.linear([1, 25], {whole: true, tight: true}).ticks.join()`, "5,10,15,20,25"},
		{"axis", `m.linear([3], {whole: true, tight: true}).ticks.join()`, "2,3,4"},
		{"axis", `m.linear([0, 0], {zero: true}).ticks.length > 1`, "true"},
		{"axis", `m.linear([0, 20_600], {zero: true, bytes: true}).ticks.map((t) => t / 1024).join()`, "0,5,10,15,20,25"},
		{"rounds", `[m.best([{eval_loss: null}]), m.best([{round: 1, eval_loss: 2}, {round: 2, eval_loss: null}, {round: 3, eval_loss: 1}, {round: 4, eval_loss: 1}]).round].join()`, ",3"},
		{
			"rounds", `[m.standingText(undefined, 1), m.standingText({owed: 2, strikes: 0}, 1), m.standingText({owed: 0, strikes: 1.5}, 1), m.standingText({owed: 0, strikes: 0, banned_until: 9, reason: "harmful"}, 5), m.standingText({owed: 0, strikes: 0, banned_until: 9}, 9)].join("; ")`,
			"not audited; on probation: 2 useful deltas until it counts; counts; 1.5 of 3 strikes; banned until round 9: harmful; counts",
		},
		{"schedule", `m.windows(m.hours(m.parse(["Mon-Fri 22:00-07:00", "Sat,Sun 00:00-24:00"]))).sort().join("; ")`, "Mon-Fri 22:00-24:00; Sat,Sun 00:00-24:00; Tue-Fri 00:00-07:00"},
		{"schedule", `[[], ["daily 9:00-12:30"], ["Fri-Mon 23:00-01:00"]].map((l) => m.hours(m.parse(l)).reduce((a, b) => a + b)).join()`, "168,24.5,8"},
		{"schedule", `["x", "Mon 25:00-26:00", "Mon 9:00-9:00", "Mon-Foo 9:00-10:00", "Mon 9-10"].map((l) => typeof m.parse([l])).join()`, "string,string,string,string,string"},
		{"timeline", `[0, 11, 12, 14, 15, 40].map((s) => { const c = m.clockOf(0, 15, 1000 * s); return [c.named, c.late, c.next].join(" "); }).join("; ")`, "false false 12; false false 1; true false 3; true false 1; true true Infinity; true true Infinity"},
		{
			"timeline", `(() => { const e = (n, s, refused) => ({type: "round.done", run: "r", n, time: new Date(1000 * s).toISOString(), round: {seats: 4, contributions: [{peer: "a"}, {peer: "b"}], refused}});
				return JSON.stringify(m.dropped([e(1, 1, []), e(2, 9, [{peer: "c", reason: "timeout"}]), e(3, 12, [{peer: "c", reason: "timeout"}, {peer: "d", reason: "bad-norm"}])], "r", 5000).map((x) => [x.round, x.peer ?? x.n, x.why])); })()`,
			`[[2,"c","timeout"],[2,1,"1 seat sent none"],[3,"c","timeout"],[3,"d","bad-norm"]]`,
		},
		{"timeline", `(() => { const e = (n, phase, s) => ({type: "round.phase", run: "r", n, phase, time: new Date(s * 1000).toISOString()}); return m.spans([e(1, "train", 1), e(1, "vote", 4), {type: "round.phase", run: "x", n: 9, phase: "train", time: new Date(0).toISOString()}, e(2, "train", 5), e(2, "done", 6)], "r", 9000).map((s) => [s.round, s.phase, s.to - s.from].join(" ")).join("; "); })()`, "1 train 3000; 1 vote 1000; 2 train 1000"},
		{"axis", `(({min, max}) => min + " " + max)(m.linear([3.2, 1.3]))`, "1 3.5"},
		{"axis", `m.logarithmic([0.02, 4]).ticks.join()`, "0.02,0.05,0.1,0.2,0.5,1,2"},
		{"axis", `m.logarithmic([1, 100]).at(10)`, "0.5"},
		{"axis", `m.logarithmic([1.28, 3.2]).ticks.join()`, "1.5,2,2.5,3"},
		{"chart", `(() => { const p = Array.from({length: 5000}, (_, i) => [i, 0]); p[1234][1] = 9; p[4321][1] = -9; const q = m.thin(p); return [q.length <= 1001, q.some((x) => x[1] === 9), q.some((x) => x[1] === -9), q.every((x, i) => i === 0 || x[0] > q[i - 1][0])].join(); })()`, "true,true,true,true"},
		{"api", `[m.tokenFrom("http://127.0.0.1:1/#token=ab"), m.tokenFrom("#/x&token=cd"), m.tokenFrom(" ef "), m.tokenFrom("#/runs"), m.tokenFrom("a b"), m.tokenFrom("http://127.0.0.1/")].join()`, "ab,cd,ef,,,"},
		{
			"runfile", `(() => { const t = "inner.a = 96 # so\n# inner.c = 1\n[outer]\na = 1\n", s = (k, v, x = t) => JSON.stringify(m.setKey(x, "inner", k, v)); return [m.getKey(t, "inner", "a"), m.getKey(t, "outer", "a"), m.getKey(t, "inner", "c"), s("a", "5"), s("b", "7"), s("c", "2"), s("a", "5", "# inner.a = 1\n[inner]\n")].join(" "); })()`,
			`96 1  "inner.a = 5 # so\n# inner.c = 1\n[outer]\na = 1\n" "inner.a = 96 # so\ninner.b = 7\n# inner.c = 1\n[outer]\na = 1\n" "inner.a = 96 # so\ninner.c = 2\n[outer]\na = 1\n" "# inner.a = 1\n[inner]\na = 5\n"`,
		},
		{
			"pick", `(() => { const p = m.pick({legend: "", none: "", label: (x) => x.id, chosen() {}}), out = []; const say = () => out.push([...p.node.querySelectorAll("label")].map((l) => l.textContent).join("") + ":" + (p.value?.id ?? ""));
				p.update([{id: "a"}]); p.choose({id: "b"}); say(); p.update([{id: "a"}]); say(); p.update([{id: "a"}, {id: "b"}]); say(); p.update([{id: "a"}]); say(); return out.join(" "); })()`,
			"ba:b ba:b ba:b a:",
		},
		{"dom", `m.harmless("a\u202eb\u0007c\ud800").replaceAll("\ufffd", "?")`, "a?b?c?"},
		{"rounds", branch, "1,2,3,4 asked 2 2.000,3.053,3.402,3.576; 1,2,3,4,5 asked 2 2.000,3.053,3.402,3.576,3.680; 1,2,3,4x asked 2 2.000,3.053,3.402,3.576; 1x,2x,3x,4x,5x asked 3 2.000,3.053,3.402,3.576,3.680; asked 3 "},
	} {
		if s := tb.text(fmt.Sprintf("import(%q).then(async (m) => %s)", "/web/"+tt.module+".js", tt.expr)); s != tt.want {
			t.Errorf("%s: %.80s is %q, want %q", tt.module, tt.expr, s, tt.want)
		}
	}
}

// branch follows a run whose head moves to another branch; with it the running
// mean, which begins with the first loss.
const branch = `(async () => {
	let world = [], asked = 0;
	const was = globalThis.fetch;
	const short = (r) => ({...r, contributions: undefined, refused: 0});
	globalThis.fetch = async () => { asked++; return new Response(JSON.stringify({peer: "me", points: world.map(short), round: world.length, head: world.length, rounds: world.length})); };
	const round = (n, b) => ({round: n, record: n + b, parent: n - 1 + b, contributions: [], refused: [], train_loss: n === 1 ? 2 : 4, eval_loss: null});
	const h = new m.History("x"), out = [];
	const step = async (list) => {
		world = list;
		await h.update(list.slice(-2));
		out.push([h.rounds.map((r) => r.record).join(), "asked " + asked].filter(Boolean).join(" ") + " " + h.rounds.map((r) => r.train_mean.toFixed(3)).join());
	};
	await step([1, 2, 3, 4].map((n) => round(n, "")));
	await step([1, 2, 3, 4, 5].map((n) => round(n, "")));
	await step([...[1, 2, 3].map((n) => round(n, "")), round(4, "x")]); // a shorter one
	await step([1, 2, 3, 4, 5].map((n) => round(n, "x")));
	await step([]);
	globalThis.fetch = was;
	return out.join("; ");
})()`
