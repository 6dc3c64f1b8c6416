package web_test

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
)

// asTable writes rows of a file as CSV, with names of fields that no form has, and
// one row that nothing can be learned from.
func asTable(t *testing.T, path string, most int) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b strings.Builder
	w := csv.NewWriter(&b)
	write := func(fields ...string) {
		if err := w.Write(fields); err != nil {
			t.Fatal(err)
		}
	}
	write("Question", "about", "Answer", "<b>id</b>")
	s := bufio.NewScanner(f)
	for n := 0; n < most && s.Scan(); n++ {
		var row struct{ Instruction, Input, Output string }
		if err := json.Unmarshal(s.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		write(row.Instruction, row.Input, row.Output, "x")
	}
	write("And then?", "", "", "x")
	if w.Flush(); w.Error() != nil {
		t.Fatal(w.Error())
	}
	return b.String()
}

// TestFirstRun: on a fresh node, with the page alone: a checkpoint folder and a
// table of the browser's machine become a run that trains.
func TestFirstRun(t *testing.T) {
	b := openBrowser(t)
	node := startNode(t, "")
	a, err := node.DemoAssets(t.Context(), t.TempDir()+"/demo")
	if err != nil {
		t.Fatal(err)
	}
	tb := b.open(node.DashboardURL(), 1400, 900)
	tb.until(`document.querySelector("#link")?.dataset.state === "live"`)
	tb.goTo("#/new/model", `document.querySelector("details")?.open`)
	tb.write("Folder", a.ModelDir)
	tb.press("Import the model")
	tb.until(`document.body.innerText.includes("Imported:") && document.querySelector(".picks input:checked")`)
	tb.press("Next: Data")

	tb.until(`document.querySelector("h1").textContent.includes("step 2")`)
	tb.attach("Files of rows, of this computer", "faq <i>.csv", asTable(t, a.Data.Files[0], 300))
	tb.until(`document.querySelectorAll("main tbody tr").length === 5 && document.body.innerText.includes("cannot tell the format")`)
	tb.is(`[...document.querySelectorAll("main select[data-field]")].map((s) => s.dataset.field + "=" + s.value).join()`, "instruction=Question,input=,output=Answer")
	tb.write("input is", "about")
	tb.press("Check all rows")
	tb.until(`document.body.innerText.includes("1 of 301 rows cannot be trained on") && document.querySelectorAll("mark").length === 3`)
	tb.until(`document.body.innerText.includes("no Answer") || document.body.innerText.includes("output is empty")`)
	tb.eval(`[...document.querySelectorAll("label.check")].find((l) => l.textContent.includes("Leave out")).click()`, nil)
	tb.write("Licence of the data", "CC0-1.0")
	tb.press("Import the rows")
	tb.until(`document.body.innerText.includes("1 left out") && document.querySelector(".picks input:checked")`)
	tb.press("Next: Budget")

	tb.until(`/model = "baf/.test(document.querySelector("main textarea")?.value)`)
	for label, value := range map[string]string{
		"Name": "first", "Rounds": "100", "Length of a round": "4s", "Peers to begin": "1", "Rank": "2", "Steps in a round": "3", "Rows in a step": "2", "Longest row": "96",
	} {
		tb.write(label, value)
	}
	tb.until(`document.querySelector("h3")?.textContent === "Plan of first" && document.body.innerText.includes("It can be launched.")`)
	tb.shoot("first-budget")
	tb.press("Next: Publish")
	tb.agree()
	tb.until(enabled + ` === "Launch"`)
	tb.press("Launch")
	tb.until(`document.body.innerText.includes("moot join baf")`)
	tb.eval(`document.querySelector("main [role=status] a").click()`, nil)
	tb.until(`document.querySelector("h1")?.textContent === "first"`)
	tb.until(`Number(` + tile + `) >= 2`) // rounds
	runs, err := node.Runs(t.Context())
	if err != nil || len(runs.Runs) != 1 {
		t.Fatalf("%+v, %v", runs, err)
	}
	sets, err := node.Datasets(t.Context())
	if err != nil || len(sets.Datasets) != 1 || sets.Datasets[0].TrainRows+sets.Datasets[0].EvalRows != 300 || sets.Datasets[0].ID != runs.Runs[0].Dataset {
		t.Errorf("%+v, %v", sets, err)
	}
	r, err := node.Round(t.Context(), runs.Runs[0].ID, runs.Runs[0].Round)
	if err != nil || r.Tokens == 0 {
		t.Errorf("round %d: %+v, %v", runs.Runs[0].Round, r, err)
	}
	if u, err := node.Uploads(t.Context()); err != nil || len(u.Uploads) != 0 || u.MaxBytes != api.MaxUploadBytes {
		t.Errorf("uploads: %+v, %v", u, err)
	}
	tb.clean()
}
