package web_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// TestAwaited: whom a round waits for is named when four fifths of its time are
// over, and not before; deltas that were late or dropped are marked.
func TestAwaited(t *testing.T) {
	w := newWorld(t)
	b := openBrowser(t)
	peers := []string{w.me, apitest.PeerID("b"), apitest.PeerID("c")}
	begin := func(name string, period float64, past time.Duration) string {
		d := apitest.Detail(name, w.me)
		d.State, d.Phase, d.Why, d.Manifest.PeriodSeconds = api.RunTraining, "train", "", period
		d.NextSeats = nil
		for _, p := range peers {
			d.NextSeats = append(d.NextSeats, api.Seat{Peer: p})
		}
		w.fake.AddRun(d)
		r := apitest.DecidedRound(name, 1, false, peers[:2]...)
		r.Decided, r.Seats = time.Now().Add(-past), 4
		if period == 15 {
			r.Tempo = &api.Tempo{NextDeadline: 19.5} // of round 2, not of round 1
		}
		r.Refused = []api.Refusal{{Peer: peers[2], Commit: apitest.ID("x"), Reason: "timeout"}}
		at := r.Decided.Add(-20 * time.Second)
		for _, phase := range []string{"train", "exchange", "vote"} {
			w.fake.Log.Publish(api.Event{Type: api.EventPhase, Run: d.ID, N: 1, Phase: phase, Time: at})
			at = at.Add(6 * time.Second)
		}
		for i, p := range peers {
			w.fake.Log.Publish(api.Event{Type: api.EventCommit, Run: d.ID, N: 1, Peer: p, Tokens: 1, Time: r.Decided.Add(time.Duration(9*i-19) * time.Second)})
		}
		w.fake.Decide(d.ID, r)
		w.fake.Log.Publish(api.Event{Type: api.EventPhase, Run: d.ID, N: 2, Phase: "train", Time: r.Decided})
		return d.ID
	}
	long, short := begin("long", 3600, 0), begin("short", 15, 15*time.Second)
	tb := w.enter(b, 1200, 900)
	main := `document.querySelector("main").innerText`
	tb.goTo("#/runs/"+long, main+`.includes("3 seats, named when four fifths of the time are over, in ")`)
	tb.goTo("#/runs/"+short, main+`.includes("is late, and is left out when the others agree")`)
	now := `[...document.querySelectorAll("main dt")].find((n) => n.textContent === "Waiting for")?.nextSibling.textContent`
	tb.is(now, fmt.Sprintf("%s (you), %s, %s", w.me[:14], peers[1][:14], peers[2][:14]))
	marks := `[".s1.mark", ".s1.ring", ".gone", ".due"].map((c) => [...document.querySelectorAll(".plot " + c)].filter((n) => n.querySelector("title")).map((n) => n.querySelector("title").textContent.replace(/, \d\d:.*/, "")).join(", ")).join(" | ")`
	id := func(i int) string { return peers[i][:14] }
	tb.is(marks, fmt.Sprintf("round 1: delta of %s, round 1: delta of %s | round 1: delta of %s, late | round 1: delta of %s dropped, timeout, round 1: 1 seat sent none | deadline, deadline", id(0), id(1), id(2), id(2)))
	tb.clean()
}

// TestPanels: the page of a run shows what needs a person, the answers that were
// asked for last, and how its peers are reached.
func TestPanels(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/runs/"+w.run, `document.querySelector(".problem time") && document.querySelectorAll(".ring-plot .node").length === 3`)
	tb.says(`document.querySelector("main").innerText`, "3 peers of this run connected: 3 same network. Median round trip 0.8 ms.", "Nothing was asked in this tab yet.", "attention: <img")
	name, file := tb.downloaded(`[...document.querySelectorAll("main button")].find((b) => b.textContent === "Run file").click()`)
	if name != "pirate-instruct.toml" || !strings.Contains(string(file), `name = "pirate-instruct"`) {
		t.Errorf("%s has %q", name, file)
	}
	tb.goTo("#/runs/"+w.run+"/samples", `document.querySelector("form button[type=submit]:enabled")`)
	tb.until(`document.querySelector("h1")?.textContent.includes("pirate")`)
	tb.eval(`document.querySelector("textarea").value = "What is rum?"; document.querySelector("form").requestSubmit()`, nil)
	tb.until(`[...document.querySelectorAll("[role=status]")].some((n) => n.textContent === "done")`)
	tb.goTo("#/runs/"+w.run, `document.querySelectorAll(".answer.short").length === 3`)
	tb.until(`[...document.querySelectorAll(".answer.short")].map((n) => n.textContent).join(" | ").endsWith("| The answer to: What is rum?")`)
	tb.clean()
}
