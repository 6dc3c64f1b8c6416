package web_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
)

// TestAbout: version, what it is made of, licences as text, where files are.
func TestAbout(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/about", `document.body.innerText.includes("/moot/sync/1")`)
	v := api.ThisVersion()
	tb.says(`document.querySelector("main").innerText`, v.Version, v.Go, "/moot/sync/1", "/data/README.md", "No licence has been chosen for moot itself")
	tb.until(`!document.querySelector("details").hidden`)
	tb.eval(`document.querySelector("details").open = true`, nil)
	tb.until(`document.querySelector("pre").textContent.includes("<b>Permission</b> is hereby granted") && !document.querySelector("pre b")`)
	name, file := tb.downloaded(`[...document.querySelectorAll("main button")].find((b) => b.textContent === "Save the description of the API").click()`)
	if name != "moot-openapi.json" || !json.Valid(file) || !strings.Contains(string(file), "/api/v1/about") {
		t.Errorf("%s has %d bytes", name, len(file))
	}
	w.failing.Store(func(method string) error {
		if method == "Notices" {
			return api.Errorf(api.CodeNotFound, "they are gone")
		}
		return nil
	})
	tb.goTo("#/logs", `document.querySelector(".log")`)
	tb.goTo("#/about", `document.body.innerText.includes("/moot/sync/1")`)
	tb.eval(`document.querySelector("details").open = true`, nil)
	tb.is(`document.querySelector("main [role=status]").textContent`, "they are gone")
	tb.refused("404")
	tb.shoot("about")
	tb.clean()
}

// TestToday: what was contributed, the next change of the schedule, what to do
// about a pause, and presets with what each comes to.
func TestToday(t *testing.T) {
	w := newWorld(t)
	w.fake.Node.Schedule = &api.ScheduleState{Open: true, Until: new(w.fake.Node.Started)}
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/node", `document.querySelectorAll("[aria-label='Today by run'] tbody tr").length === 1`)
	tb.says(`document.querySelector("[aria-label='Today by run'] tbody tr").innerText`, "25\t25\t25,600\t24 useful\tnone\tnone")
	tb.says(`document.querySelector("main").innerText`, "25,600 tokens in 25 contributions since ", "The schedule allows work until 20", "stops above 83 °C; now 70 °C", "2.8 GiB of 186.3 GiB over the internet")
	rows := `[...document.querySelectorAll("[aria-label=Presets] tbody tr")].map((r) => [...r.cells].map((c) => c.innerText).join(" ")).join(" | ")`
	tb.is(rows, "of the processors, on average 50.0 % 10.0 % 100.0 % | threads 2 1 4 | work.duty_percent 100 40 100 | work.on_battery false false false")
	tb.shoot("presets")
	tb.eval(`[...document.querySelectorAll("main button")].find((b) => b.textContent === "Use quiet").focus()`, nil)
	tb.press("Use quiet")
	tb.until(`[...document.querySelectorAll("main button:disabled")].some((b) => b.textContent === "quiet is in use")`)
	tb.is(`document.activeElement.getAttribute("aria-label")`, "Presets") // the button takes no focus any more
	s, err := w.fake.Settings(t.Context())
	if err != nil || s.Settings[2].Values[0] != "40" || s.Settings[0].Next[0] != "1" {
		t.Errorf("settings %+v, %v", s, err)
	}
	tb.says(`document.querySelector("main").innerText`, "threads takes effect at the next start.")
	tb.clean()
}
