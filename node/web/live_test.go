package web_test

import (
	"fmt"
	"os"
	"testing"
)

// TestLive looks at a daemon that runs: MOOT_WEB_URL is its address with the
// token in the fragment. It saves pictures into MOOT_WEB_SHOTS.
func TestLive(t *testing.T) {
	url := os.Getenv("MOOT_WEB_URL")
	if url == "" {
		t.Skip("MOOT_WEB_URL names no daemon to look at")
	}
	b := openBrowser(t)
	tb := b.open(url, 1440, 900)
	tb.until(`document.querySelector("#link")?.dataset.state === "live" && document.querySelector("tbody a")`)
	tb.shoot("live-runs")
	run := tb.text(`document.querySelector("tbody a").hash`)
	tb.goTo(run, `document.querySelectorAll(".tiles dd").length > 0`)
	tb.shoot("live-run")
	tb.goTo("#/peers", `document.querySelector("h1").textContent === "Peers" && !document.body.innerText.includes("asking")`)
	tb.shoot("live-peers")
	tb.goTo("#/node", `document.querySelectorAll(".facts dd").length > 5`)
	tb.shoot("live-node")
	tb.goTo("#/generate", `document.querySelector("option[value^=baf]")`)
	tb.eval(fmt.Sprintf(`(() => {
		document.querySelector("textarea").value = %q;
		document.querySelector("input[type=number]").value = 32;
		document.querySelector("form").requestSubmit();
	})()`, "Where does Ada live?"), nil)
	tb.until(`[...document.querySelectorAll("section .note")].every((n) => /token|E_|busy|model/.test(n.textContent))`)
	tb.shoot("live-generate")
	tb.clean()
}
