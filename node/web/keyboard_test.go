package web_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"

	"github.com/moot-net/moot/node/api/apitest"
)

// reach presses Tab until an element has the focus, and checks that it can be seen
// that it has.
func (tb *tab) reach(what string) {
	tb.t.Helper()
	tb.until(what)
	for range 300 {
		tb.key("Tab", 9)
		if tb.text(what+` === document.activeElement`) == "true" {
			if s := tb.text(`(({outlineStyle, outlineWidth}) => outlineStyle + " " + outlineWidth)(getComputedStyle(document.activeElement))`); s != "solid 3px" {
				tb.t.Errorf("that %s has the focus is seen by %q", what, s)
			}
			return
		}
	}
	tb.t.Fatalf("Tab does not reach %s; the focus is on %s", what, tb.text(`document.activeElement.outerHTML.slice(0, 200)`))
}

// typed is text as it comes from a keyboard, into what has the focus.
func (tb *tab) typed(text string) {
	tb.t.Helper()
	for _, r := range text {
		tb.letter(string(r))
	}
}

// button is the button with a text that can be pressed.
func button(text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("main button:enabled")].find((b) => b.textContent === %q && b.checkVisibility())`, text)
}

func anchor(text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("a")].find((a) => a.textContent === %q && a.checkVisibility())`, text)
}

// TestKeyboardAlone: a run is joined, the node paused, its schedule changed, and an
// adapter exported with Tab, Enter, Space, arrows and letters, from one page to the
// next (A75). And Tab goes around: nothing holds the focus.
func TestKeyboardAlone(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.until(`document.querySelectorAll("tbody tr").length === 2`)

	// Join.
	tb.reach(anchor("Join or launch"))
	tb.key("Enter", 13)
	tb.until(`document.querySelector("h1")?.textContent === "Join or launch a run"`)
	tb.reach(`[...document.querySelectorAll("main label")].find((l) => l.textContent === "Run")?.control`)
	tb.typed(apitest.ID("other run"))
	tb.reach(button("Check whether it fits"))
	tb.key("Enter", 13)
	tb.until(`document.body.innerText.includes("Nothing was pulled yet.")`)
	tb.reach(`document.querySelector(".consent input:enabled")`)
	tb.key("Space", 32)
	tb.reach(button("Pull and join"))
	tb.key("Enter", 13)
	tb.until(`document.querySelector(".lead a")?.href.includes("runs/")`)
	if r, err := w.fake.Run(t.Context(), apitest.ID("other run")); err != nil || !r.Joined {
		t.Errorf("joined: %v, %v", r.Joined, err)
	}

	// Pause and resume.
	tb.reach(anchor("My node"))
	tb.key("Enter", 13)
	tb.reach(button("Pause"))
	tb.key("Enter", 13)
	tb.until(`document.querySelector(".word")?.textContent === "paused"`)
	tb.reach(button("Resume"))
	tb.key("Space", 32)
	tb.until(`document.querySelector(".word")?.textContent === "training"`)

	// The schedule: the grid is one stop; arrows move in it.
	tb.reach(`document.querySelector(".hour[tabindex='0']")`)
	tb.key("Home", 36)
	tb.key("Space", 32)
	tb.reach(button("Save the schedule"))
	tb.key("Enter", 13)
	tb.until(`!` + button("Save the schedule"))
	s, err := w.fake.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.Settings[1].Values, "; "); !strings.Contains(got, "01:00-24:00") {
		t.Errorf("the schedule is %q", got)
	}

	// Export, from the list of runs on.
	tb.reach(anchor("Runs"))
	tb.key("Enter", 13)
	tb.reach(anchor(w.name()))
	tb.key("Enter", 13)
	tb.until(tile + ` === "25"`)
	tb.reach(anchor("Export"))
	tb.key("Enter", 13)
	tb.until(`document.querySelectorAll("option").length > 20`)
	tb.reach(button("Download"))
	tb.eval(`HTMLAnchorElement.prototype.click = function () { globalThis.saved = this.download; }`, nil)
	tb.key("Enter", 13)
	tb.until(`globalThis.saved?.endsWith(".tar")`)

	// Around: from the first link to the first link.
	tb.eval(`document.activeElement.blur(); getSelection().removeAllRanges(); document.querySelector(".skip").focus()`, nil)
	for n := 0; ; n++ {
		tb.key("Tab", 9)
		if tb.text(`document.activeElement === document.body || document.activeElement.className === "skip"`) == "true" {
			break
		}
		if n == 200 {
			t.Fatalf("the focus is held by %s", tb.text(`document.activeElement.outerHTML.slice(0, 200)`))
		}
	}
	tb.clean()
}

// TestSmallZoomedStill: with 320 px, with text of twice the size, and for who wants
// no motion, every page is as wide as the window and still (A76).
func TestSmallZoomedStill(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1280, 1024)
	call(tb, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: "reduce"}}})
	for _, v := range w.views() {
		tb.goTo(v.hash, v.ready)
		for _, at := range []struct {
			name          string
			width, height int
			font          string
		}{{"320 px", 320, 640, ""}, {"200 % of 1,280 px", 640, 512, ""}, {"text of twice the size", 1280, 1024, "30px"}} {
			tb.size(at.width, at.height)
			tb.eval(fmt.Sprintf(`document.documentElement.style.fontSize = %q`, at.font), nil)
			if s, ok := tb.comes(wide, none); !ok {
				t.Errorf("%s, %s: the page is %s px too wide", v.name, at.name, s)
			}
			// What is cut, but for what scrolls by itself and what only readers hear.
			if s, ok := tb.comes(`[...document.querySelectorAll("h1, h2, h3, p, dt, dd, label, button, summary, th, .badge")].filter((n) => n.checkVisibility() && n.scrollWidth > n.clientWidth + 1 && getComputedStyle(n).overflowX !== "visible" && !n.closest(".scroll, .hidden")).map((n) => n.outerHTML.slice(0, 80)).join("\n")`, none); !ok {
				t.Errorf("%s, %s: cut off is\n%s", v.name, at.name, s)
			}
			if s, ok := tb.comes(`document.getAnimations().length`, none); !ok {
				t.Errorf("%s, %s: %s things move", v.name, at.name, s)
			}
		}
	}
	tb.eval(`document.documentElement.style.fontSize = ""`, nil)
	tb.clean()
}
