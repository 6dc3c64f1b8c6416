package web_test

import (
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
)

// holding lets the page hold back an answer: the next one to a question of method get
// whose path has held in it waits until release is called. words are what .word said,
// one after the other, answers how many answers to that question came.
const holding = `{
	globalThis.held = "";
	globalThis.answers = 0;
	globalThis.fetch = ((plain) => async (path, o) => {
		const r = await plain(path, o);
		if (held && o.method === "GET" && path.includes(held)) {
			if (!globalThis.release) await new Promise((done) => { globalThis.release = done; });
			setTimeout(() => { answers++; }); // when it was shown
		}
		return r;
	})(fetch);
}`

// TestLateAnswer: an answer to what was asked before something was changed is not
// taken for the last one, however late it comes.
func TestLateAnswer(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.eval(holding, nil)
	word := `document.querySelector(".word")?.textContent`
	tb.goTo("#/node", word+` === "training"`)
	tb.eval(`globalThis.words = []; new MutationObserver(() => {
		const now = `+word+`;
		if (now !== words.at(-1)) words.push(now);
	}).observe(document.querySelector(".state"), {subtree: true, childList: true, characterData: true});
	held = "/status"`, nil)
	w.fake.Log.Publish(api.Event{Type: api.EventNode, State: "training"})
	tb.until(`globalThis.release`)
	tb.press("Pause")
	within(t, "the node is paused", func() bool {
		s, err := w.fake.Status(t.Context())
		return err == nil && s.State == api.NodePaused
	})
	tb.eval(`new Promise((done) => setTimeout(done, 1500))`, nil) // a page that asks meanwhile has its answer, mostly
	tb.eval(`release()`, nil)
	tb.is(word, "paused")
	tb.until(`answers > 2`)
	tb.is(`words.filter((s) => s !== "training" || words.indexOf("paused") < words.lastIndexOf("training")).join()`, "paused")

	// A setting.
	tb.goTo("#/settings", `document.querySelectorAll(".setting").length === 5`)
	row := `[...document.querySelectorAll(".setting")].find((n) => n.querySelector("code").textContent === "work.duty_percent")`
	tb.eval(`[held, release, answers] = ["/config", null, 0]`, nil)
	w.fake.Log.Publish(api.Event{Type: api.EventNode, State: "paused"})
	tb.until(`globalThis.release`)
	tb.eval(`globalThis.said = []; new MutationObserver(() => { said.push(`+row+`.innerText.includes("from the file")); }).observe(`+row+`, {subtree: true, childList: true, characterData: true});
		(() => { const i = `+row+`.querySelector("input"); i.value = "41"; i.dispatchEvent(new Event("input")); `+row+`.querySelector("button").click(); })()`, nil)
	tb.says(row+`.innerText`, "from the file")
	tb.eval(`release()`, nil)
	w.fake.Log.Publish(api.Event{Type: api.EventNode, State: "paused"})
	tb.until(`answers > 1`)
	tb.is(`said.at(-1) + " " + said.slice(said.indexOf(true)).includes(false) + " " + `+row+`.querySelector("input").value`, "true false 41")
	tb.clean()
}

// TestFocusStays: what has the focus has it when it is made anew.
func TestFocusStays(t *testing.T) {
	w := newWorld(t)
	w.fake.Node.Started = time.Now() // so that what is said of it changes
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/node", `document.querySelector("[aria-label='Copy the peer ID']")`)
	tb.eval(`(() => {
		globalThis.first = document.querySelector("[aria-label='Copy the peer ID']");
		first.focus();
	})()`, nil)
	tb.until(`!first.isConnected`) // for the page says since when the node runs
	tb.is(`document.activeElement.getAttribute("aria-label")`, "Copy the peer ID")
	tb.clean()
}

// TestChartBehind: keys in a chart whose figures are not drawn yet, or not those that
// it has, are of those that it has.
func TestChartBehind(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/about", `document.body.innerText.includes("/moot/sync/1")`)
	tb.eval(`(async () => {
		const { chart } = await import("/web/chart.js");
		const c = globalThis.tested = chart({ title: "Tested", unit: "x", y: String, file: "tested" });
		globalThis.give = (from, name) => c.update({ x: { title: name, text: String }, series: [{ name: "s", kind: "line", points: Array.from({ length: 20 }, (_, i) => [from + i, i, ""]) }] });
		globalThis.plus = () => c.node.querySelector(".frame").dispatchEvent(new KeyboardEvent("keydown", { key: "+" }));
		give(0, "a");
		plus(); // nothing has a place yet
		document.querySelector("main").prepend(c.node);
	})()`, nil)
	dots := `tested.node.querySelectorAll(".dot").length`
	tb.is(dots, "20")
	tb.eval(`give(1000, "b"); plus()`, nil)
	tb.until(dots + ` < 20 && ` + dots + ` > 5`)
	tb.until(`!tested.node.querySelector(".buttons button").hidden`)
	tb.clean()
}
