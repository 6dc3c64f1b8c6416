package web_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// TestLongRun: a run of 10,000 rounds opens without its rounds being fetched:
// points that stand out are drawn, each as it was, older rounds come when they
// are asked for. MOOT_WEB_LONG is how many peers it has, 4 by default.
func TestLongRun(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 rounds are made up only without -short")
	}
	b := openBrowser(t)
	w := newWorld(t)
	n := 4
	if s := os.Getenv("MOOT_WEB_LONG"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	const rounds = 10_000
	peers := []string{w.me}
	for i := range n - 1 {
		peers = append(peers, apitest.PeerID(fmt.Sprint("peer ", i)))
	}
	d := apitest.Detail("long", w.me)
	d.State, d.Why, d.MaxRounds = api.RunTraining, "", 2*rounds
	w.fake.AddRun(d)
	for i := uint64(1); i <= rounds; i++ {
		r := apitest.DecidedRound("long", i, false, peers...)
		train, eval := 1.2+2/float64(i)+0.1*float64(i%7), 1.3+1.8/float64(i)
		r.TrainLoss, r.EvalLoss, r.Seats = &train, &eval, n
		if i == 4321 {
			eval = 1
			r.Refused = []api.Refusal{{Peer: apitest.PeerID("liar"), Commit: apitest.ID("x"), Reason: "bad-norm"}}
		}
		w.fake.Decide(d.ID, r)
	}
	tb := w.enter(b, 1440, 900)
	tb.eval(`performance.clearResourceTimings()`, nil)
	begin := time.Now()
	tb.goTo("#/runs/"+d.ID, tile+` === "10,000" && document.querySelectorAll(".plot .line").length > 3`)
	took := time.Since(begin)
	moved := tb.text(`performance.getEntriesByType("resource").reduce((n, e) => n + e.encodedBodySize, 0)`)
	t.Logf("%d rounds of %d peers were on the screen after %v, %s bytes were fetched", rounds, n, took.Round(time.Millisecond), moved)
	if v, err := strconv.Atoi(moved); err != nil || v > 2<<20 {
		t.Errorf("%s bytes were fetched, %v", moved, err)
	}
	tb.says(`document.querySelector("main").innerText`, "Of 10,000 rounds the charts draw ")
	// The best of all rounds is one that is drawn.
	chart := `[...document.querySelectorAll(".chart")].find((c) => c.querySelector(".frame").getAttribute("aria-label").startsWith("Loss:"))`
	tb.eval(`document.querySelector("input[value=round]").click(); `+chart+`.querySelector("details").open = true`, nil)
	tb.until(`[...` + chart + `.querySelectorAll("tbody tr")].some((r) => r.innerText.split(/\s+/).join(" ").startsWith("4,321 ") && r.innerText.includes("1.0000"))`)
	tb.eval(chart+`.querySelector("details").open = false`, nil)
	tb.says(`document.querySelector("[aria-label='Refused deltas'] tbody tr").innerText`, "bad-norm")

	// One round more is followed without asking for all.
	tb.eval(`performance.clearResourceTimings()`, nil)
	more := apitest.DecidedRound("long", rounds+1, false, peers...)
	more.TrainLoss, more.EvalLoss = new(1.3), new(1.2)
	w.fake.Decide(d.ID, more)
	tb.until(tile + ` === "10,001"`)
	if s := tb.text(`performance.getEntriesByType("resource").filter((e) => e.name.includes("/series")).length`); s != "0" {
		t.Errorf("for one round more the series was asked for %s times", s)
	}
	tb.press("Show 100 earlier rounds")
	tb.until(`document.querySelectorAll("[aria-label=Rounds] tbody tr").length === 120`)
	tb.press("Show 100 earlier rounds")
	tb.until(`document.querySelectorAll("[aria-label=Rounds] tbody tr").length === 220`)

	// They stay while rounds follow; none is missing between them and the last few.
	follow := func(from, to uint64) {
		for i := from; i <= to; i++ {
			r := apitest.DecidedRound("long", i, false, peers...)
			r.TrainLoss, r.EvalLoss = new(1.3), new(1.2)
			w.fake.Decide(d.ID, r)
		}
	}
	follow(rounds+2, rounds+6)
	tb.until(tile + ` === "10,006" && document.querySelectorAll("[aria-label=Rounds] tbody tr").length === 225`)
	follow(rounds+7, rounds+36)
	tb.until(tile + ` === "10,036" && document.querySelector("[aria-label=Rounds] tbody a").textContent === "10036"`)
	tb.is(`((l) => l[0] + " " + l.every((n, i) => n === l[0] - i))([...document.querySelectorAll("[aria-label=Rounds] tbody a")].map((a) => Number(a.textContent)))`, "10036 true") // none is missing

	// One peer, of its last rounds.
	tb.goTo("#/runs/"+d.ID+"/peers/"+w.me, `document.querySelector("main").innerText.includes("Rounds 9,537 to 10,036.")`)
	tb.goTo("#/runs/"+d.ID+"/peers", `document.querySelectorAll("tbody tr").length === `+fmt.Sprint(n+1))
	tb.goTo("#/runs/"+d.ID+"/export", `document.querySelector("option[value=best]")?.textContent.includes("4321")`)
	tb.clean()
}
