package web_test

import (
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// charted are the charts of the devices that are in sight, with how many lines
// they have.
const charted = `[...document.querySelectorAll("section section:has(> .chart)")].filter((n) => n.checkVisibility()).map((n) => n.querySelector("h3").textContent.slice(0, 14) + " " + n.querySelectorAll("path[class*=line]:not(.key *), path.limit:not(.key *)").length).join()`

// TestDevices: what the machine was used for before the page was opened, with
// gaps where nothing is known and with the limits; new samples; the last day;
// the figures as a file; and where nothing is known, no charts.
func TestDevices(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/node", `document.querySelectorAll(".plot .limit").length === 2`)
	tb.is(charted, "Load 4,Temperature 3,Power 1,Memory of proc 3,Memory of <img 3")
	tb.shoot("devices-hour")
	path := `document.querySelector("[aria-label^='Temperature: chart'] path.s0").getAttribute("d")`
	tb.is(path+`.match(/M/g).length`, "2") // of a device that was away for ten minutes
	tb.says(`document.querySelector(".plot .limit").closest("section").parentElement.innerText`, "Highest in the last hour: 80 °C", "stops above 83 °C and goes on at 75 °C", "duty: may compute")
	// A sample that comes is drawn, without asking for all again.
	readout := `document.querySelector("[aria-label^='Power: chart']").nextElementSibling.textContent`
	now := used(time.Now(), 0, 83)
	now.Devices[1].Watts = new(299)
	w.fake.AddUsage(api.UsageHour, now)
	tb.until(readout + `.includes(" 299 W")`)
	tb.is(`performance.getEntriesByType("resource").filter((e) => e.name.endsWith("/usage?span=hour")).length`, "1")
	// By keyboard, and as a table.
	tb.eval(`document.querySelector("[aria-label^='Power: chart']").focus()`, nil)
	tb.key("Home", 36)
	tb.until(readout + `.includes(" 140 W")`)
	tb.eval(`document.querySelector("[aria-label^='Memory of proc']").closest(".chart").querySelector("details").open = true`, nil)
	cells := `[...document.querySelectorAll("[aria-label='Memory of processor as a table'] tbody tr:first-child td")].map((n) => n.textContent).join()`
	tb.is(cells, "1.0 GiB,4.0 GiB,11.0 GiB")

	tb.eval(`[...document.querySelectorAll(".choice input")].find((i) => i.value === "day").click()`, nil)
	tb.until(`document.body.innerText.includes("Highest in the last day")`)
	name, file := tb.downloaded(`document.querySelector("[aria-label='Save Temperature as CSV']").click()`)
	rows := strings.Split(strings.TrimSpace(string(file)), "\r\n")
	if name != "temperature.csv" || len(rows) != 1441 || !strings.HasPrefix(rows[1], now.Time.UTC().Add(-24*time.Hour).Format("2006-01-02T")) || !strings.HasSuffix(rows[1], ",50,70,") || !strings.HasSuffix(rows[1440], ",83") {
		t.Errorf("%s has %d rows: %q … %q", name, len(rows), rows[:2], rows[len(rows)-1])
	}
	tb.is(`globalThis.hurt + " " + (document.documentElement.scrollWidth <= document.documentElement.clientWidth)`, "undefined true")
	tb.shoot("devices-day")
	tb.reload()
	tb.until(`document.body?.innerText.includes("Highest in the last day")`) // it is remembered
	tb.clean()

	bare := &world{fake: apitest.New("node")}
	bare.serve(t, "127.0.0.1:0", token)
	tb = bare.enter(tb.browser, 1200, 900)
	tb.goTo("#/node", `document.querySelector(".word")?.textContent === "idle"`)
	tb.until(`performance.getEntriesByType("resource").filter((e) => e.name.includes("/usage?span=")).length > 1`) // so the first answer was shown
	tb.is(charted+` + "|" + document.querySelectorAll(".choice").length + [...document.querySelectorAll(".choice")].filter((n) => n.checkVisibility()).length`, "|10")
	tb.clean()
}
