package web_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// press clicks the button with this text that is in sight.
func (tb *tab) press(text string) {
	tb.t.Helper()
	tb.until(fmt.Sprintf(`(() => {
		const b = [...document.querySelectorAll("main button")].find((b) => b.textContent === %q && b.checkVisibility() && !b.disabled);
		if (!b) return false;
		b.click();
		return true;
	})()`, text))
}

// refused takes note of an answer that said no, which browsers log.
func (tb *tab) refused(status string) {
	tb.t.Helper()
	var l []string
	within(tb.t, "a refusal is logged", func() bool {
		l = append(l, tb.complaints()...)
		return len(l) > 0
	})
	if len(l) != 1 || !strings.Contains(l[0], "status of "+status) {
		tb.t.Errorf("the page complained %q, want one refusal with %s", l, status)
	}
}

// TestMyNode: pausing for a while, going on, finishing; a schedule that is
// drawn by keyboard and by mouse.
func TestMyNode(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	word := `document.querySelector(".word")?.textContent`
	tb.goTo("#/node", word+` === "training"`)
	tb.is(`[...document.querySelectorAll("[aria-label=Devices] tbody tr:last-child td")].map((n) => n.textContent).join(" | ")`, "88 % | 6.0 GiB of 8.0 GiB | 1.0 GiB | 70 °C | 140 W")
	tb.says(`document.querySelector(".state").innerText`, "clock of this machine is wrong: it is 3 min ahead", "work.gamemode has no effect: no session bus")
	tb.until(`document.querySelectorAll(".plot .line").length >= 2`)
	tb.eval(`document.querySelector(".state select").value = "3600"`, nil)
	tb.press("Pause")
	tb.until(word + ` === "paused" && document.querySelector(".state").innerText.includes("it was paused") && document.querySelector(".state").innerText.includes("Until 2026-01-02")`)
	tb.press("Resume")
	tb.until(word + ` === "training"`)
	tb.press("Finish")
	tb.until(word + ` === "paused" && document.querySelector(".state").innerText.includes("no further work")`)
	tb.press("Resume")
	tb.until(word + ` === "training"`)
	w.failing.Store(func(method string) error {
		if method == "Control" {
			return api.Errorf(api.CodeConflict, "it cannot").WithHint("ask again")
		}
		return nil
	})
	tb.press("Pause")
	tb.is(`document.querySelector(".state .problem:not([hidden])")?.textContent`, "it cannot – ask again")
	w.failing.Store(func(string) error { return nil })

	// The grid by keyboard: from Monday 0:00 to the right, painting.
	text := `document.querySelector(".schedule textarea").value`
	cell := `document.querySelectorAll(".hour")`
	tb.eval(cell+`[0].focus()`, nil)
	tb.key("Space", 32)
	tb.until(text + ` === "Tue-Sun 00:00-24:00\nMon 01:00-24:00"` + ` || ` + text + ` === "Mon 01:00-24:00\nTue-Sun 00:00-24:00"`)
	tb.key("ArrowRight", 39)
	tb.key("ArrowDown", 40)
	tb.is(`document.activeElement.getAttribute("aria-label")`, "Tuesday 1 to 2: on")
	tb.press("Nights")
	tb.until(text + ` === "daily 22:00-07:00" && ` + cell + `[6].getAttribute("aria-selected") === "true" && ` + cell + `[7].getAttribute("aria-selected") === "false"`)
	// By mouse: Monday 8 to 10.
	drawn := text + `.split("\n").includes("Mon 08:00-10:00")`
	for end := time.Now().Add(patience); tb.text(drawn) != "true"; { // on a busy machine the page may still move
		if time.Now().After(end) {
			t.Fatalf("nothing was drawn: %s", tb.text(text))
		}
		var at struct{ X0, X1, Y float64 }
		tb.eval(`(async () => {
			`+cell+`[0].scrollIntoView({block: "center", behavior: "instant"});
			await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
			const a = `+cell+`[8].getBoundingClientRect(), b = `+cell+`[9].getBoundingClientRect();
			return {x0: a.x + 5, x1: b.x + 5, y: a.y + 5};
		})()`, &at)
		tb.drag(at.X0, at.Y, at.X1, at.Y)
	}
	tb.shoot("schedule")
	tb.press("Save the schedule")
	tb.until(`[...document.querySelectorAll("main button")].find((b) => b.textContent === "Save the schedule").disabled`)
	s, err := w.fake.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.Settings[1].Values, "; "); !strings.Contains(got, "Mon 08:00-10:00") || !strings.Contains(got, "daily 00:00-07:00") {
		t.Errorf("the schedule is %q", got)
	}
	tb.eval(`(() => { const a = document.querySelector(".schedule textarea"); a.value = "Monday night"; a.dispatchEvent(new Event("input")); })()`, nil)
	tb.until(`document.querySelector(".schedule .problem:not([hidden])")?.textContent.includes("is not a window")`)
	tb.refused("409")
	tb.clean()
}

// TestMembers: the peers of a run by credits, sorted otherwise, filtered, and
// as a file; the page of one.
func TestMembers(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1400, 900)
	credits := `[...document.querySelectorAll("tbody tr")].map((r) => r.cells[2].textContent).join(" ")`
	tb.goTo("#/runs/"+w.run+"/peers", credits+` === "25,000 12,500 8,333 6,250"`)
	tb.eval(`[...document.querySelectorAll("th button")].find((b) => b.textContent === "Strikes").click()`, nil)
	tb.until(credits + `.startsWith("6,250 ")`)
	name, file := tb.downloaded(`document.querySelector("[aria-label='Save Peers of the run as CSV']").click()`)
	if !strings.HasSuffix(name, "-peers.csv") || strings.Count(string(file), "\r\n") != 5 || !strings.Contains(string(file), "on probation: 2 useful deltas until it counts") || !strings.Contains(string(file), w.me+",full,25000,") {
		t.Errorf("%s: %s", name, file)
	}
	tb.eval(`(() => { const i = document.querySelector("input[type=search]"); i.value = "PROBATION"; i.dispatchEvent(new Event("input")); })()`, nil)
	tb.until(credits + ` === "6,250"`)
	tb.eval(`document.querySelector("tbody a").click()`, nil)
	tb.until(`document.querySelector("h1")?.textContent.startsWith("Peer ") && document.querySelectorAll("tbody tr").length > 20`)
	tb.says(`document.querySelector("main").innerText`, "damaging", "bad-norm: not the norm that its commit says")
	tb.clean()
}

// TestCourse: the course of a run is changed for everybody; stopping it takes
// two presses.
func TestCourse(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/runs/"+w.run, tile+` === "25"`)
	card := `[...document.querySelectorAll("section")].find((n) => n.querySelector("h2").textContent === "Course of the run").innerText`
	tb.press("Pause the run")
	tb.until(card + `.includes("1 took effect; it is paused")`)
	tb.press("Resume the run")
	tb.until(card + `.includes("2 took effect")`)
	tb.eval(`document.querySelector("main input[type=number]").value = "77"`, nil)
	tb.press("Set the rounds")
	tb.until(card + `.includes("3 took effect")`)
	tb.press("Stop the run")
	tb.until(`[...document.querySelectorAll("main button")].some((b) => b.textContent === "Stop it for everybody, for good")`)
	d, err := w.fake.Run(t.Context(), w.run)
	if err != nil || d.Final || d.Course.Rounds != 77 {
		t.Errorf("before it is stopped: %+v, %v", d.Course, err)
	}
	tb.press("Stop it for everybody, for good")
	tb.until(card + `.includes("it is stopped")`)
	tb.clean()
}

// TestSettings: a setting is saved, refused, and not to be changed where
// something stronger than the file decides.
func TestSettings(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/settings", `document.querySelectorAll(".setting").length === 5`)
	row := func(key string) string {
		return fmt.Sprintf(`[...document.querySelectorAll(".setting")].find((n) => n.querySelector("code").textContent === %q)`, key)
	}
	write := func(key, value string) {
		tb.eval(fmt.Sprintf(`(() => { const i = %s.querySelector("input, select, textarea"); i.value = %q; i.dispatchEvent(new Event("input")); })()`, row(key), value), nil)
		tb.eval(row(key)+`.querySelector("button").click()`, nil)
	}
	write("work.duty_percent", "1000")
	tb.until(row("work.duty_percent") + `.querySelector(".problem:not([hidden])")?.textContent.includes("must be from 1 to 100")`)
	write("work.duty_percent", "40")
	tb.until(row("work.duty_percent") + `.innerText.includes("from the file")`)
	write("threads", "1")
	tb.until(row("threads") + `.innerText.includes("in effect until the next start: 2")`)
	write("work.schedule", "Mon 08:00-10:00\ndaily 22:00-23:00")
	tb.until(row("work.schedule") + `.innerText.includes("from the file")`)
	s, err := w.fake.Settings(t.Context())
	if err != nil || fmt.Sprint(s.Settings[0].Next, s.Settings[1].Values, s.Settings[2].Values) != "[1] [Mon 08:00-10:00 daily 22:00-23:00] [40]" {
		t.Errorf("settings are %+v, %v", s, err)
	}
	tb.until(row("work.max_temp_c") + `.querySelector("input").disabled && ` + row("work.max_temp_c") + `.innerText.includes("cannot be changed here")`)
	tb.refused("422")
	tb.clean()
}

// TestLogs: lines by level and text, and new ones as they come.
func TestLogs(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	n := `document.querySelectorAll(".log li").length`
	tb.goTo("#/logs", n+` === 4`) // without debug
	tb.eval(`(() => { const s = document.querySelector("main select"); s.value = "warn"; s.dispatchEvent(new Event("change")); })()`, nil)
	tb.until(n + ` === 2`)
	w.fake.AddLog(api.LogEntry{Level: "error", Message: "the disk is full", Attrs: "free=0"})
	tb.until(n + ` === 3`)
	tb.eval(`(() => { const i = document.querySelector("input[type=search]"); i.value = "DISK"; i.dispatchEvent(new Event("input")); })()`, nil)
	tb.until(n + ` === 1`)
	name, text := tb.downloaded(`[...document.querySelectorAll("main button")].find((b) => b.textContent === "Save as text").click()`)
	if !strings.HasSuffix(string(text), "ERROR the disk is full free=0\n") || strings.Count(string(text), "\n") != 1 || !strings.HasPrefix(name, "mootd") {
		t.Errorf("saved %s: %q", name, text)
	}
	tb.clean()
}

// exporter is a fake whose adapter is on disk.
type exporter struct{ *apitest.Fake }

func (x exporter) Export(ctx context.Context, req api.ExportRequest, progress api.ProgressFunc) (api.Export, error) {
	e, err := x.Fake.Export(ctx, req, progress)
	if err != nil {
		return e, err
	}
	if err := os.MkdirAll(req.Dir, 0o755); err != nil {
		return e, err
	}
	for i := range e.Files {
		if err := os.WriteFile(filepath.Join(req.Dir, e.Files[i].Name), []byte("content of "+e.Files[i].Name), 0o644); err != nil {
			return e, err
		}
	}
	return e, nil
}

// TestExport: an adapter is downloaded as an archive, or written on the
// daemon's machine; a failure is told.
func TestExport(t *testing.T) {
	w := &world{fake: apitest.New("node"), me: apitest.PeerID("node")}
	w.backend = exporter{w.fake}
	w.serve(t, "127.0.0.1:0", token)
	w.fill()
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/runs/"+w.run+"/export", `document.querySelectorAll("option").length > 20`)
	tb.is(`document.querySelector("option").textContent`, "the best: 24, eval loss 1.3750")
	tb.until(button("Download"))
	name, file := tb.downloaded(button("Download") + `.click()`)
	if want := w.run[:14] + "-best-peft.tar"; name != want {
		t.Errorf("the file is called %s, want %s", name, want)
	}
	files := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(file)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(b)
	}
	if s := files[w.run[:14]+"-best-peft/adapter_config.json"]; len(files) != 2 || s != "content of adapter_config.json" {
		t.Errorf("the archive has %q", files)
	}
	dir := filepath.Join(t.TempDir(), "adapter")
	tb.until(button("Write to the folder")) // the download is over
	tb.eval(fmt.Sprintf(`document.querySelector("main input").value = %q`, dir), nil)
	tb.press("Write to the folder")
	tb.until(`document.querySelector(".card:not([hidden]) .plain")`)
	if _, err := os.Stat(filepath.Join(dir, "adapter_config.json")); err != nil {
		t.Error(err)
	}
	w.failing.Store(func(method string) error {
		if method == "Export" {
			return api.Errorf(api.CodeVerify, "the adapter is the base model").WithHint("train first")
		}
		return nil
	})
	tb.press("Download")
	tb.is(`document.querySelector("main [role=status]").textContent`, "the adapter is the base model – train first")
	tb.refused("422")
	tb.clean()
}

// TestSamples: prompts, answered by base, best and last; hostile ones do no
// harm.
func TestSamples(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	w.decide(26, []string{w.me})
	w.decide(27, []string{w.me})
	tb.goTo("#/runs/"+w.run+"/samples", `document.querySelector("h1")?.textContent.includes("pirate")`)
	tb.until(`document.querySelector("main textarea") && !document.querySelector("main button[type=submit]").disabled`)
	tb.eval(fmt.Sprintf(`document.querySelector("textarea").value = "first\n\n" + %q + "\n" + "long ".repeat(2000)`, evil), nil)
	tb.press("Answer them")
	tb.until(`document.querySelector("main [role=status]").textContent === "done"`)
	tb.is(`[...document.querySelectorAll(".samples section:first-child h3")].map((n) => n.textContent).join(" | ")`, "base model | round 26, the best | round 27, the last")
	tb.is(`[...document.querySelectorAll(".samples section:first-child .answer")].map((n) => n.textContent).join(" | ")`, "first first | The answer to: first | The answer to: first")
	tb.is(`document.querySelectorAll(".samples section").length + " " + globalThis.hurt + " " + document.images.length + " " + `+wide, "3 undefined 0 0")
	tb.shoot("samples-answers")
	tb.clean()
}

// publicPage serves the page of a world to everybody.
func publicPage(t *testing.T, w *world) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := api.NewPublic(api.PublicOptions{Source: told{w.fake}, Follow: func(ctx context.Context, emit func(api.Event) error) error {
		return w.fake.Watch(ctx, "", api.Cursor{}, emit)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, slowly(l)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return "http://" + l.Addr().String()
}

// told is a fake as a client tells of it.
type told struct{ *apitest.Fake }

func (s told) Runs(ctx context.Context) (api.Runs, error) {
	l, err := s.Fake.Runs(ctx)
	return api.Runs{Runs: l}, err
}

func (s told) Rounds(ctx context.Context, id string, from uint64, limit int) (api.Rounds, error) {
	l, err := s.Fake.Rounds(ctx, id, from, limit)
	return api.Rounds{Rounds: l}, err
}

// TestPublicPage: without token; runs alone, live, with nothing that could be
// changed.
func TestPublicPage(t *testing.T) {
	w := newWorld(t)
	url := publicPage(t, w)
	script, haveAxe := axeScript(t)
	tb := openBrowser(t).open(url+"/", 1200, 900)
	tb.until(`document.querySelector("#link")?.dataset.state === "live" && document.querySelectorAll("tbody tr").length === 1`)
	tb.is(`[...document.querySelectorAll("nav a")].filter((n) => n.checkVisibility()).map((n) => n.textContent).join()`, "Runs")
	tb.eval(`document.querySelector("tbody a").click()`, nil)
	tb.until(tile + ` === "25" && document.querySelectorAll(".plot .dot").length > 20`)
	tb.is(`[...document.querySelectorAll(".pages a")].map((n) => n.textContent).join()`, "Overview,Peers,Data")
	w.decide(26, []string{w.me})
	tb.until(tile + ` === "26"`)
	tb.shoot("public-run")
	if haveAxe {
		if s, ok := tb.axe(script, none); !ok {
			t.Errorf("axe says\n%s", s)
		}
	}
	tb.goTo("#/runs/"+w.run+"/peers", `document.querySelectorAll("tbody tr").length === 4`)
	tb.goTo("#/runs/"+w.run+"/rounds/5", `document.body.innerText.includes("bad-norm")`)
	for _, hash := range []string{"#/node", "#/begin", "#/new/data", "#/settings", "#/logs", "#/doctor", "#/about", "#/network", "#/generate", "#/runs/" + w.run + "/export"} {
		tb.goTo(hash, `location.hash === "#/runs"`)
	}
	tb.until(`document.querySelectorAll("tbody tr").length === 1`)
	if s := tb.text(`document.body.innerText`); strings.Contains(s, "192.168") || strings.Contains(s, "4717") {
		t.Errorf("addresses are shown: %s", s)
	}
	tb.clean()
}

// TestLookOnly: with the token for reading, everything is shown and nothing can
// be pressed that would change something.
func TestLookOnly(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.readToken = "only-for-looking"
	w.serve(t, "127.0.0.1:0", token)
	tb := openBrowser(t).open(w.url+"/#token="+w.readToken, 1200, 900)
	tb.until(`document.querySelector("#link")?.dataset.state === "live"`)
	tb.goTo("#/node", `document.querySelector(".word")?.textContent === "training"`)
	if s := tb.text(`[...document.querySelectorAll(".state button, .schedule button.main")].filter((b) => !b.disabled).map((b) => b.textContent).join()`); s != "" {
		t.Errorf("can be pressed: %s", s)
	}
	tb.goTo("#/runs/"+w.run, tile+` === "25"`)
	if s := tb.text(`document.body.innerText.includes("Pause the run")`); s != "false" {
		t.Error("the course of the run can be changed")
	}
	if s := tb.text(`document.body.innerText.includes("Leave the run")`); s != "false" {
		t.Error("the run can be left")
	}
	for hash, ready := range map[string]string{
		"#/begin": `document.querySelector("main a.action")`, "#/new/model": `document.querySelector(".picks .empty")`,
		"#/new/data": `document.querySelector(".picks .empty")`, "#/new/publish": `document.querySelector(".consent")`,
	} {
		tb.goTo(hash, ready)
		if s := tb.text(`[...document.querySelectorAll("button.main:enabled")].map((b) => b.textContent).join()`); s != "" {
			t.Errorf("%s: can be pressed: %s", hash, s)
		}
	}
	tb.goTo("#/about", `document.body.innerText.includes("told with full access alone")`)
	if s := tb.text(`document.querySelector("main").innerText.includes("/data")`); s != "false" {
		t.Error("it is told where files are")
	}
	tb.goTo("#/doctor", `document.querySelectorAll(".setting").length === 3`)
	if s := tb.text(`[...document.querySelectorAll("main button:enabled")].map((b) => b.textContent).join()`); s != "Look again" {
		t.Errorf("of the doctor can be pressed: %s", s)
	}
	tb.goTo("#/settings", `document.querySelectorAll(".setting").length === 5`)
	if s := tb.text(`document.querySelectorAll(".setting :is(input, select, textarea, button):enabled").length`); s != "0" {
		t.Errorf("%s controls of the settings are enabled", s)
	}
	tb.clean()
}
