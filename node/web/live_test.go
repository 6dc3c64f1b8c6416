package web_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestLive looks at every page of a daemon that runs, at three widths, light and
// dark: MOOT_WEB_URL is its address with the token in the fragment. It saves
// pictures into MOOT_WEB_SHOTS.
func TestLive(t *testing.T) {
	url := os.Getenv("MOOT_WEB_URL")
	if url == "" {
		t.Skip("MOOT_WEB_URL names no daemon to look at")
	}
	tb := openBrowser(t).open(url, 1200, 900)
	tb.until(`document.querySelector("#link")?.dataset.state === "live" && document.querySelector("main tbody a")`)
	run := tb.text(`document.querySelector("main tbody a").hash`)
	tb.goTo(run, `document.querySelectorAll(".tiles dd").length > 0`)
	round := tb.text(`document.querySelector("[aria-label=Rounds] tbody a")?.hash ?? ""`)
	peer := tb.text(`document.querySelector("[aria-label='Contributions by peer'] tbody a")?.hash ?? ""`)
	pages := []struct{ name, hash string }{
		{"runs", "#/runs"},
		{"run", run},
		{"round", round},
		{"run-peers", run + "/peers"},
		{"run-peer", peer},
		{"run-data", run + "/data"},
		{"samples", run + "/samples"},
		{"export", run + "/export"},
		{"begin", "#/begin"},
		{"begin-run", strings.Replace(run, "runs", "begin", 1)},
		{"new-model", "#/new/model"},
		{"new-data", "#/new/data"},
		{"new-budget", "#/new/budget"},
		{"new-publish", "#/new/publish"},
		{"node", "#/node"},
		{"network", "#/network"},
		{"generate", "#/generate"},
		{"settings", "#/settings"},
		{"logs", "#/logs"},
		{"doctor", "#/doctor"},
		{"about", "#/about"},
	}
	for _, p := range pages {
		if p.hash == "" {
			continue // there is none
		}
		tb.goTo(p.hash, `!document.body.innerText.includes("asking")`)
		tb.settle()
		for _, scheme := range []string{"light", "dark"} {
			tb.scheme(scheme)
			for _, width := range []int{360, 1200, 3840} {
				tb.size(width, 900)
				tb.settle()
				if s := tb.text(`document.documentElement.scrollWidth - document.documentElement.clientWidth`); s != "0" {
					t.Errorf("%s, %d px: the page is %s px too wide", p.name, width, s)
				}
				tb.shoot(fmt.Sprintf("live-%s-%s-%d", p.name, scheme, width))
			}
		}
	}
	tb.clean()
}

// settle waits until nothing more is asked for and drawn, for some moments.
func (tb *tab) settle() {
	tb.t.Helper()
	last := ""
	for range 20 {
		now := tb.text(`performance.getEntriesByType("resource").length + " " + document.querySelectorAll("*").length + " " + document.documentElement.scrollHeight`)
		if now == last {
			return
		}
		last = now
		time.Sleep(250 * time.Millisecond) // of what a daemon does by itself nothing can be waited for
	}
}
