package web_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// enabled are the buttons of the page that can be pressed and do something.
const enabled = `[...document.querySelectorAll("main button.main:enabled")].map((b) => b.textContent).join()`

// write enters a text into the control of a label.
func (tb *tab) write(label, text string) {
	tb.t.Helper()
	tb.eval(fmt.Sprintf(`(() => {
		const l = [...document.querySelectorAll("main label")].find((l) => l.textContent === %q), c = document.getElementById(l.htmlFor);
		c.value = %q;
		c.dispatchEvent(new Event("input", {bubbles: true}));
		c.dispatchEvent(new Event("change", {bubbles: true}));
	})()`, label, text), nil)
}

// agree ticks the one box that can be ticked.
func (tb *tab) agree() {
	tb.t.Helper()
	tb.until(`document.querySelectorAll(".consent input:enabled").length === 1`)
	tb.eval(`document.querySelector(".consent input:enabled").click()`, nil)
}

// TestJoinAndLeave: a run is checked, shown, agreed to, joined, and left again;
// nothing is joined before, and not what does not fit.
func TestJoinAndLeave(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1400, 900)
	tb.goTo("#/begin", `document.querySelectorAll("option").length > 4`)
	tb.write("Run", "moot join "+apitest.ID("large")+` --peer /ip4/192.0.2.1/udp/1/quic-v1/p2p/x`)
	if s := tb.text(`[...document.querySelectorAll("main textarea")][0].value`); s != "/ip4/192.0.2.1/udp/1/quic-v1/p2p/x" {
		t.Errorf("peers are %q", s)
	}
	tb.press("Check whether it fits")
	tb.until(`document.body.innerText.includes("This node does not join it.")`)
	if s := tb.text(enabled); strings.Contains(s, "Pull") || tb.text(`document.querySelectorAll(".consent input:enabled").length`) != "0" {
		t.Errorf("what does not fit can be joined: %s", s)
	}

	tb.write("Run", apitest.ID("other run"))
	tb.press("Check whether it fits")
	tb.until(`document.body.innerText.includes("Nothing was pulled yet.") && document.querySelectorAll("tbody tr").length > 3`)
	if s := tb.text(enabled); strings.Contains(s, "Pull") {
		t.Error("it can be joined without consent")
	}
	tb.agree()
	tb.until(enabled + `.includes("Pull and join")`)
	tb.write("Run", apitest.ID("other run")+" ") // something else now: it is checked again
	tb.until(`!` + enabled + `.includes("Pull and join")`)
	tb.press("Check whether it fits")
	tb.agree()
	tb.shoot("join")
	if _, err := w.fake.Run(t.Context(), apitest.ID("other run")); err == nil {
		t.Fatal("it was joined without anybody's word")
	}
	tb.press("Pull and join")
	tb.until(`document.querySelector(".lead a")?.href.includes("runs/")`)
	if r, err := w.fake.Run(t.Context(), apitest.ID("other run")); err != nil || !r.Joined {
		t.Fatalf("joined: %v, %v", r.Joined, err)
	}
	tb.eval(`document.querySelector(".lead a").click()`, nil)
	tb.until(`[...document.querySelectorAll("main button")].some((b) => b.textContent === "Leave the run")`)
	tb.press("Leave the run")
	tb.until(`[...document.querySelectorAll("main button")].some((b) => b.textContent === "Leave it; what was pulled stays")`)
	if r, err := w.fake.Run(t.Context(), apitest.ID("other run")); err != nil || !r.Joined {
		t.Fatal("it was left by one press")
	}
	tb.press("Leave it; what was pulled stays")
	tb.until(`document.querySelector("main .action")?.textContent === "Join it"`)
	tb.until(`document.querySelector("main").innerText.includes("This node left the run.")`)
	if r, err := w.fake.Run(t.Context(), apitest.ID("other run")); err != nil || r.Joined {
		t.Errorf("left: %v, %v", !r.Joined, err)
	}
	tb.clean()
}

// planner refuses what has "# not this" in its text.
type planner struct{ *apitest.Fake }

func (p planner) Plan(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Plan, error) {
	if strings.Contains(req.TOML, "# not this") {
		req.Name = "refused"
	}
	return p.Fake.Plan(ctx, req, progress)
}

// TestLaunch: a run file is written from a preset, planned, agreed to and
// launched; what changes after the plan is planned again, and what the plan
// refuses is not launched.
func TestLaunch(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.backend = planner{w.fake}
	dir := t.TempDir()
	for _, name := range []string{"config.json", "rows.jsonl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.fake.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir}, func(api.Progress) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.fake.ImportDataset(t.Context(), api.ImportDatasetRequest{Files: []string{filepath.Join(dir, "rows.jsonl")}}, func(api.Progress) {}); err != nil {
		t.Fatal(err)
	}
	w.serve(t, "127.0.0.1:0", token)
	tb := w.enter(openBrowser(t), 1400, 900)
	tb.goTo("#/begin", `document.querySelectorAll("option").length > 4`)
	if s := tb.text(enabled); s != "Check whether it fits" {
		t.Errorf("can be pressed: %s", s)
	}
	tb.write("Name", "from-the-page")
	tb.press("Write the run file")
	file := `[...document.querySelectorAll("main textarea")].at(-1).value`
	tb.until(file + `.includes('name = "from-the-page"') && ` + file + `.includes("eval_peers") && /model = "baf/.test(` + file + `)`)
	text := tb.text(file)
	tb.write("Run file", text+"# not this\n")
	tb.press("Plan")
	tb.until(`document.body.innerText.includes("It cannot be launched like this.") && document.body.innerText.includes("2 of the held-out rows are trained on too")`)
	if s := tb.text(enabled); strings.Contains(s, "Launch") || tb.text(`document.querySelectorAll(".consent input:enabled").length`) != "0" {
		t.Errorf("what is refused can be launched: %s", s)
	}

	tb.write("Run file", text)
	tb.press("Plan")
	tb.until(`document.body.innerText.includes("It can be launched.") && document.querySelector("mark")?.textContent === "an answer</s>"`)
	row := tb.text(`[...document.querySelectorAll("[aria-label='Deltas of a round by link'] tbody tr")].map((r) => [...r.cells].map((c) => c.textContent).join(" ")).join("; ")`)
	if want := "10 Mbit/s 4 18.0 KiB 18.0 KiB 14.7 ms fits 99.9 % 100.0 %"; row != want {
		t.Errorf("links: %q, want %q", row, want)
	}
	if s := tb.text(`document.querySelector("main").innerText`); !strings.Contains(s, "which inner.overlap_steps = 10 would ask for") {
		t.Error("it does not say what the busy shares are of")
	}
	tb.agree()
	tb.until(enabled + `.includes("Launch")`)
	tb.write("Run file", text+"\n")
	tb.until(`!` + enabled + `.includes("Launch")`)
	tb.press("Plan")
	tb.agree()
	tb.shoot("launch")
	before, err := w.fake.Runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tb.press("Launch")
	tb.until(`document.body.innerText.includes("moot join baf")`)
	after, err := w.fake.Runs(t.Context())
	if err != nil || len(after) != len(before)+1 {
		t.Fatalf("%d runs after %d, %v", len(after), len(before), err)
	}
	tb.clean()
}
