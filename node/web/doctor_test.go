package web_test

import (
	"archive/zip"
	"bytes"
	"testing"

	"github.com/moot-net/moot/node/api"
)

// TestDoctor: what is wrong comes first, each with what to do; speed is measured
// when somebody asks; a report is downloaded; a failure is told.
func TestDoctor(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/doctor", `document.querySelectorAll(".setting").length === 3`)
	titles := `[...document.querySelectorAll("main h2, main h3")].map((n) => n.textContent).join(" | ")`
	tb.is(titles, "Has to be repaired | Disk space | Could be better | Bootstrap peers | As it should be | Program")
	tb.says(`document.querySelector("main").innerText`, "needs you", "1 check failed, 1 check could be better, 1 check in order.", "0.5 GB are free", "What to do: make room")
	tb.is(`document.querySelector(".setting a").hash`, "#/settings") // the step for the disk
	tb.press("Measure disk and processor")
	tb.until(titles + `.includes("Speed of the disk") && document.querySelector("main [role=status]").textContent.startsWith("measured at")`)
	tb.press("Look again")
	tb.until(`!` + titles + `.includes("Speed of the disk") && document.querySelector("main [role=status]").textContent.startsWith("looked at")`)
	tb.until(button("Download a report"))
	name, file := tb.downloaded(button("Download a report") + `.click()`)
	if z, err := zip.NewReader(bytes.NewReader(file), int64(len(file))); name != api.ReportFile || err != nil || len(z.File) != 1 {
		t.Errorf("%s: %v", name, err)
	}
	tb.is(`document.querySelector("main [role=status]").textContent`, "Read it before you send it to somebody who helps.")
	w.failing.Store(func(method string) error {
		if method == "Report" {
			return api.Errorf(api.CodeRetry, "the daemon is busy").WithHint("ask again")
		}
		return nil
	})
	tb.press("Download a report")
	tb.is(`document.querySelector("main [role=status]").textContent`, "the daemon is busy – ask again")
	tb.refused("503")
	tb.shoot("doctor")
	tb.clean()
}
