package web_test

import (
	"strings"
	"testing"
)

// TestCoverage: the data that a run was trained on, by shard and pass: as a picture
// whose cells are read with the keyboard, as text, as a table and as a file.
func TestCoverage(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/runs/"+w.run+"/data", `document.querySelectorAll("main .heat").length > 6`)
	tb.is(`[...document.querySelectorAll(".plot .heat")].map((n) => n.getAttribute("class")).join() + " " + document.querySelectorAll(".plot .lost").length`, "heat h3,heat h2,heat h0,heat h1,heat h1,heat h0 2")
	tb.says(
		`document.querySelector("main").innerText`,
		"66.7 % of 3 shards seen at least once", "50.0 % of 3,000 rows were drawn at least once", "A row of shard 2 was trained on 0.00 times, one of shard 0 1.40 times; 0.67 in the mean.",
		"None of 200 held-out rows is trained on.",
	)
	tb.eval(`document.querySelector(".frame").focus()`, nil)
	tb.key("ArrowRight", 39)
	tb.key("ArrowRight", 39)
	tb.is(`document.querySelector(".readout").textContent`, "shard 1, pass 1 (rounds 1 to 20): each row 0.50 times, 500 draws of 1,000 rows, 200 draws more for deltas that were refused or counted for nothing")
	tb.key("ArrowDown", 40)
	tb.until(`document.querySelector(".readout").textContent.startsWith("shard 1, pass 2 ")`)
	tb.eval(`document.querySelector("main .chart details").open = true`, nil)
	tb.until(`document.querySelectorAll("main .chart tbody tr").length === 6`)
	name, csv := tb.downloaded(`document.querySelector(".chart .buttons button").click()`)
	if !strings.HasSuffix(name, "-coverage-map.csv") || !strings.Contains(string(csv), "1,1 to 20,1,1000,500,0.5,200\r\n") {
		t.Errorf("%s has %q", name, csv)
	}
	tb.shoot("coverage")
	tb.goTo("#/runs/"+w.run, `[...document.querySelectorAll(".tiles dt")].some((n) => n.textContent === "Coverage" && n.nextSibling.textContent === "50.0 %")`)
	tb.clean()
}
