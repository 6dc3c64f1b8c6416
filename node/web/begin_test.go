package web_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// enabled are the buttons of the page that can be pressed and do something.
const enabled = `[...document.querySelectorAll("main button.main:enabled")].map((b) => b.textContent).join()`

// control is the control of a label.
func control(label string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("main label")].find((l) => l.textContent === %q)?.control`, label)
}

// write enters a text into the control of a label.
func (tb *tab) write(label, text string) {
	tb.t.Helper()
	tb.until(control(label))
	tb.eval(fmt.Sprintf(`(() => {
		const c = %s;
		c.value = %q;
		c.dispatchEvent(new Event("input", {bubbles: true}));
		c.dispatchEvent(new Event("change", {bubbles: true}));
	})()`, control(label), text), nil)
}

// ofUploads computes something of v, the uploads that the daemon tells of.
func ofUploads(token, of string) string {
	return `fetch("/api/v1/uploads", {headers: {Authorization: "Bearer ` + token + `"}}).then((r) => r.json()).then((v) => ` + of + `)`
}

// agree ticks the one box that can be ticked.
func (tb *tab) agree() {
	tb.t.Helper()
	tb.until(`document.querySelectorAll(".consent input:enabled").length === 1`)
	tb.eval(`document.querySelector(".consent input:enabled").click()`, nil)
}

// TestJoinAndLeave: a run is checked, shown, agreed to, joined, and left again;
// nothing is joined before, and not what does not fit.
func TestJoinAndLeave(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1400, 900)
	tb.goTo("#/begin", `document.querySelector("main a.action")`)
	tb.write("Run", "moot join "+apitest.ID("large")+` --peer /ip4/192.0.2.1/udp/1/quic-v1/p2p/x`)
	tb.is(control("Peers")+`.value`, "/ip4/192.0.2.1/udp/1/quic-v1/p2p/x")
	tb.press("Check whether it fits")
	tb.until(`document.body.innerText.includes("This node does not join it.")`)
	if s := tb.text(enabled); strings.Contains(s, "Pull") || tb.text(`document.querySelectorAll(".consent input:enabled").length`) != "0" {
		t.Errorf("what does not fit can be joined: %s", s)
	}

	// What is said of a run is not said of the one that was written meanwhile.
	entered, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.failing.Store(func(method string) error {
		if method == "CheckRun" {
			once.Do(func() { close(entered); <-answer })
		}
		return nil
	})
	tb.write("Run", apitest.ID("other run"))
	tb.press("Check whether it fits")
	<-entered
	tb.write("Run", apitest.ID("large"))
	close(answer)
	tb.until(enabled + `.includes("Check whether it fits")`) // that one is over
	tb.is(`document.querySelectorAll(".consent input:enabled").length + document.querySelector("main form [role=status]").textContent`, "0")

	tb.write("Run", apitest.ID("other run"))
	tb.press("Check whether it fits")
	tb.until(`document.body.innerText.includes("Nothing was pulled yet.") && document.querySelectorAll("tbody tr").length > 3`)
	if s := tb.text(enabled); strings.Contains(s, "Pull") {
		t.Error("it can be joined without consent")
	}
	tb.agree()
	tb.until(enabled + `.includes("Pull and join")`)
	tb.write("Run", apitest.ID("other run")+" ") // something else now: it is checked again
	tb.until(`!` + enabled + `.includes("Pull and join")`)
	tb.press("Check whether it fits")
	tb.agree()
	tb.shoot("join")
	if _, err := w.fake.Run(t.Context(), apitest.ID("other run")); err == nil {
		t.Fatal("it was joined without anybody's word")
	}
	tb.press("Pull and join")
	tb.until(`document.querySelector(".lead a")?.href.includes("runs/")`)
	if r, err := w.fake.Run(t.Context(), apitest.ID("other run")); err != nil || !r.Joined {
		t.Fatalf("joined: %v, %v", r.Joined, err)
	}
	tb.eval(`document.querySelector(".lead a").click()`, nil)
	tb.press("Leave the run")
	tb.until(`[...document.querySelectorAll("main button")].some((b) => b.textContent === "Leave it; what was pulled stays")`)
	if r, err := w.fake.Run(t.Context(), apitest.ID("other run")); err != nil || !r.Joined {
		t.Fatal("it was left by one press")
	}
	tb.press("Leave it; what was pulled stays")
	tb.is(`document.querySelector("main .action")?.textContent`, "Join it")
	tb.says(`document.querySelector("main").innerText`, "This node left the run.")
	if r, err := w.fake.Run(t.Context(), apitest.ID("other run")); err != nil || r.Joined {
		t.Errorf("left: %v, %v", !r.Joined, err)
	}
	tb.clean()
}

// planner refuses what has "# not this" in its text.
type planner struct{ *apitest.Fake }

func (p planner) Plan(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Plan, error) {
	if strings.Contains(req.TOML, "# not this") {
		req.Name = "refused"
	}
	return p.Fake.Plan(ctx, req, progress)
}

// recorded keeps what was asked for.
type recorded struct {
	planner
	mu      sync.Mutex
	imports []api.ImportDatasetRequest // guarded by mu
	checks  []api.CheckDatasetRequest
	plans   int
}

func (r *recorded) ImportDataset(ctx context.Context, req api.ImportDatasetRequest, progress api.ProgressFunc) (api.Dataset, error) {
	r.mu.Lock()
	r.imports = append(r.imports, req)
	r.mu.Unlock()
	return r.planner.ImportDataset(ctx, req, progress)
}

func (r *recorded) CheckDataset(ctx context.Context, req api.CheckDatasetRequest, progress api.ProgressFunc) (api.DatasetCheck, error) {
	r.mu.Lock()
	r.checks = append(r.checks, req)
	r.mu.Unlock()
	return r.planner.CheckDataset(ctx, req, progress)
}

func (r *recorded) Plan(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Plan, error) {
	r.mu.Lock()
	r.plans++
	r.mu.Unlock()
	return r.planner.Plan(ctx, req, progress)
}

// attach gives a file to the control of a label, as a user does.
func (tb *tab) attach(label, name, content string) {
	tb.t.Helper()
	tb.until(control(label))
	tb.eval(fmt.Sprintf(`(() => {
		const c = %s, d = new DataTransfer();
		d.items.add(new File([%q], %q));
		c.files = d.files;
		c.dispatchEvent(new Event("change", {bubbles: true}));
	})()`, control(label), content, name), nil)
}

// TestLaunch: a model and rows are imported, a run file is written from a preset,
// planned by itself, agreed to and launched; what changes after the plan is
// planned again, and what the plan refuses is not launched. What was entered
// stays while one goes back and forth.
func TestLaunch(t *testing.T) {
	w := newWorld(t)
	w.stop()
	r := &recorded{planner: planner{w.fake}}
	w.backend = r
	uploads := t.TempDir()
	w.fake.UploadDir(uploads)
	w.serve(t, "127.0.0.1:0", token)
	dir := filepath.Join(t.TempDir(), "tiny")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	tb := w.enter(openBrowser(t), 1400, 900)
	tb.goTo("#/begin", `document.querySelector("main a.action")`)
	tb.eval(`document.querySelector("main a.action").click()`, nil)

	// A model.
	tb.until(`document.body.innerText.includes("There is none yet") && document.querySelector("details").open`)
	if s := tb.text(enabled); s != "" {
		t.Errorf("can be pressed: %s", s)
	}
	tb.write("Folder", dir)
	tb.press("Import the model")
	tb.until(`document.body.innerText.includes("Imported: tiny") && document.querySelector(".picks input:checked")`)
	tb.shoot("new-model")
	tb.press("Next: Data")

	// Rows: of this computer, with names of others, some of them bad.
	tb.until(`document.querySelector("h1").textContent.includes("step 2 of 4, data")`)
	tb.attach("Files of rows, of this computer", evil+".jsonl", evil+"\n"+`bad row`+"\n"+strings.Repeat("long ", 500))
	tb.until(`document.querySelectorAll("main tbody tr").length === 3`)
	tb.is(`[...document.querySelectorAll("main select[data-field]")].map((s) => s.dataset.field + "=" + s.value).join()`, "instruction=question,input=,output=answer")
	tb.is(`document.querySelectorAll("main img, main script").length + " " + globalThis.hurt`, "0 undefined") // nothing became markup
	tb.press("Check all rows")
	tb.until(`document.body.innerText.includes("1 of 3 rows cannot be trained on") && document.querySelector("mark")?.textContent === "an answer</s>"`)
	tb.shoot("new-data")
	tb.press("Back: Model")
	tb.until(`document.querySelector("h1").textContent.includes("step 1 of 4") && document.querySelector("main input[type=text]").value === ` + fmt.Sprintf("%q", dir))
	tb.eval(`location.hash = "#/runs"`, nil)
	tb.until(`document.querySelector("h1").textContent === "Runs"`)
	tb.goTo("#/new/data", `document.querySelectorAll("main tbody tr").length > 3`) // as it was
	tb.eval(`[...document.querySelectorAll("label.check")].find((l) => l.textContent.includes("Leave out")).click()`, nil)
	tb.write("Licence of the data", "CC0-1.0")
	tb.press("Import the rows")
	tb.until(`document.body.innerText.includes("Imported:") && document.querySelector(".picks input:checked")`)
	r.mu.Lock()
	if q := r.imports[0]; len(r.imports) != 1 || !q.DropInvalid || !q.Shuffle || q.EvalFraction != 0.02 || q.Licence != "CC0-1.0" || q.Fields["output"] != "answer" || q.Fields["instruction"] != "question" || q.Format != "alpaca" || len(q.Files) != 1 || !strings.HasPrefix(q.Files[0], uploads) {
		t.Errorf("imported: %+v", r.imports)
	}
	if q := r.checks[0]; q.Model == "" || q.MaxTokens != 512 || q.Fields["output"] != "answer" {
		t.Errorf("checked: %+v", q)
	}
	r.mu.Unlock()
	tb.is(ofUploads(token, "v.uploads.length"), "0")
	tb.press("Next: Budget")

	// The budget writes the run file, which is planned by itself.
	file := `document.querySelector("main textarea").value`
	tb.until(file + `.includes('name = "my-run"') && /model = "baf/.test(` + file + `) && /data = "baf/.test(` + file + `)`)
	tb.until(`document.body.innerText.includes("It can be launched.") && document.querySelector("mark")?.textContent === "an answer</s>"`)
	tb.write("Name", "from-the-page")
	tb.write("Rounds", "7")
	tb.write("Seats", "9")
	tb.write("Seats", "")
	tb.write("Trained tokens", "5_000")
	tb.until(file + `.includes('name = "from-the-page"\nmodel') && ` + file + `.includes("rounds = 7   ") && ` + file + `.includes("# seats = 9 ") && ` + file + `.includes("\nmax_tokens = 5_000 ")`)
	// How long it lasts is told as soon as steps were timed, which stays so. A plan of
	// what was entered before is there still, out of sight.
	expected := `[...document.querySelectorAll("main dl.facts > div")].find((n) => n.offsetParent && n.firstChild.textContent === "Expected")?.lastChild.textContent`
	tb.until(expected + `?.startsWith("not timed yet; ")`)
	tb.until(`document.body.innerText.includes("It can be launched.")`)
	tb.press("Time this machine")
	timed := expected + `?.startsWith("about 1 min 0 s at the pace of this machine, if 4 peers like it take part: 8 rounds of 7.5 s, in which a step takes 120 ms, as timed ")`
	tb.until(timed)
	tb.write("Rounds", "6")
	tb.until(file + `.includes("rounds = 6 ") && document.body.innerText.includes("It can be launched.") && ` + timed)
	tb.says(`"\n" + [...document.querySelector("[aria-label='By number of peers'] tbody tr").cells].map((c) => c.textContent).join(" | ")`, "\n4 | 8 | 2 min 0 s | 1 min 0 s | 2.5 | ")
	tb.write("Rounds", "7")
	tb.until(file + `.includes("rounds = 7 ") && document.body.innerText.includes("It can be launched.") && ` + timed)
	text := tb.text(file)
	tb.eval(`document.querySelector("main details").open = true`, nil)
	planned := `document.querySelector("main").innerText.includes("Plan of ")`
	tb.until(planned)
	tb.write("Run file", text+"#") // and taken back at once
	tb.write("Run file", text)
	tb.until(planned)
	tb.attach("… or a run file of yours", "mine.toml", "name = \"mine\" # of Windows\r\nmodel = \"x\" # its ID\r\nrounds = 5\r\n")
	tb.until(file + `.includes('name = "mine" # of Windows\n') && /^model = "baf[a-z2-7]+" # its ID$/m.test(` + file + `) && ` + file + `.match(/^model/gm).length === 1`)
	tb.write("Run file", text+"# not this\n")
	tb.until(`document.body.innerText.includes("It cannot be launched like this.") && document.body.innerText.includes("2 of the held-out rows are trained on too")`)
	tb.press("Next: Publish")
	tb.until(`document.body.innerText.includes("It cannot be launched like this: ")`)
	if s := tb.text(enabled); s != "" || tb.text(`document.querySelectorAll(".consent input:enabled").length`) != "0" {
		t.Errorf("what is refused can be launched: %s", s)
	}
	tb.press("Back: Budget")
	tb.says(file, "# not this")
	tb.write("Run file", text)
	tb.press("Next: Publish")
	tb.agree()
	tb.until(enabled + ` === "Launch"`)
	tb.press("Back: Budget")
	tb.write("Rounds", "8")
	tb.press("Next: Publish")
	tb.until(`document.querySelectorAll(".consent input:enabled:not(:checked)").length === 1`) // it is planned anew, and asks again
	tb.agree()
	tb.shoot("new-publish")
	before, err := w.fake.Runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tb.press("Launch")
	tb.until(`document.body.innerText.includes("moot join baf")`)
	after, err := w.fake.Runs(t.Context())
	if err != nil || len(after) != len(before)+1 {
		t.Fatalf("%d runs after %d, %v", len(after), len(before), err)
	}
	tb.is(enabled, "") // it cannot be launched again
	tb.clean()
}

// endless is an import of "/endless" that goes on until it is stopped.
type endless struct {
	*apitest.Fake
	entered, ended chan struct{}
}

func (e endless) ImportModel(ctx context.Context, req api.ImportModelRequest, progress api.ProgressFunc) (api.Model, error) {
	if req.Dir != "/endless" {
		return e.Fake.ImportModel(ctx, req, progress)
	}
	close(e.entered)
	<-ctx.Done()
	close(e.ended)
	return api.Model{}, ctx.Err()
}

// TestImportErrors: what cannot be imported is said with the way out, what was
// entered stays, and an import can be stopped.
func TestImportErrors(t *testing.T) {
	w := newWorld(t)
	w.stop()
	e := endless{w.fake, make(chan struct{}), make(chan struct{})}
	w.backend = e
	w.serve(t, "127.0.0.1:0", token)
	tb := w.enter(openBrowser(t), 1200, 900)
	wrong := func(text string) string {
		return fmt.Sprintf(`[...document.querySelectorAll("main .problem:not([hidden])")].some((n) => n.innerText.includes(%q))`, text)
	}
	tb.goTo("#/new/model", `document.querySelector("details").open`)
	dir := t.TempDir()
	tb.write("Folder", dir)
	tb.press("Import the model")
	tb.until(wrong("give the folder that has config.json"))
	tb.write("Folder", "tiny")
	tb.press("Import the model")
	tb.until(wrong("must be an absolute path"))

	// There is no room, then there is.
	tb.goTo("#/new/data", `document.querySelector("details").open`)
	tb.attach("Files of rows, of this computer", "alpaca.jsonl", "a row")
	tb.until(wrong("there is no room for 5 bytes"))
	w.fake.UploadDir(t.TempDir())
	tb.press("Check all rows")
	tb.until(`document.body.innerText.includes("1 row can be imported.") && document.body.innerText.includes("No model was chosen")`)
	// While the rows are read nothing of them can be left out.
	entered, answer := make(chan struct{}), make(chan struct{})
	w.failing.Store(func(method string) error {
		if method == "CheckDataset" {
			close(entered)
			<-answer
		}
		return nil
	})
	locked := `[document.querySelector("main li .small").disabled, document.querySelector("main input[type=file]").disabled, document.querySelector("main .import textarea").readOnly].join()`
	tb.press("Check all rows")
	<-entered
	tb.is(locked, "true,true,true")
	tb.write("Template", "none") // another question than the one that is asked
	close(answer)
	tb.is(locked, "false,false,false")
	w.failing.Store(func(string) error { return nil })
	tb.is(`document.body.innerText.includes("can be imported.") || document.body.innerText.includes("No model was chosen")`, "false") // they are of another template
	tb.press("leave out")
	tb.until(`document.querySelectorAll("main li .small").length === 0 && [...document.querySelectorAll("main button")].find((b) => b.textContent === "Import the rows").disabled`)
	tb.is(ofUploads(token, "v.uploads.length"), "0")
	tb.is(`document.activeElement.type`, "file")

	// An import that is stopped ends in the daemon, too.
	tb.goTo("#/new/model", `document.querySelector("h1").textContent.includes("step 1")`)
	tb.write("Folder", "/endless")
	tb.press("Import the model")
	<-e.entered
	tb.press("Stop")
	<-e.ended
	tb.is(`document.querySelector("main form [role=status]").textContent`, "stopped")
	if s := tb.text(`violations.join()`); s != "" {
		t.Errorf("against the policy: %s", s)
	}
}

// piecemeal is a daemon that breaks off in the middle of a part, takes none until
// it is up again, and counts what comes.
type piecemeal struct {
	*apitest.Fake
	broken chan struct{} // closed at the break
	up     atomic.Bool

	mu sync.Mutex
	// guarded by mu
	got   int64
	whole []int64 // of each file that was finished: how much had come until then
}

func (p *piecemeal) UploadPart(ctx context.Context, req api.UploadPartRequest, body io.Reader) (api.UploadPart, error) {
	up := p.up.Load() || req.Offset == 0
	if !up {
		select {
		case <-p.broken:
			panic(http.ErrAbortHandler)
		default:
			body = io.LimitReader(body, 1<<20)
		}
	}
	u, err := p.Fake.UploadPart(ctx, req, body)
	p.mu.Lock()
	if err == nil {
		p.got += u.Have - req.Offset
	}
	p.mu.Unlock()
	if !up {
		close(p.broken)
		panic(http.ErrAbortHandler)
	}
	return u, err
}

func (p *piecemeal) FinishUpload(ctx context.Context, id string, req api.FinishUploadRequest, progress api.ProgressFunc) (api.Upload, error) {
	u, err := p.Fake.FinishUpload(ctx, id, req, progress)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.whole = append(p.whole, p.got)
	}
	return u, err
}

// attachLarge gives a file of 9 MiB to the control for rows; it is the same each
// time.
func (tb *tab) attachLarge() {
	tb.t.Helper()
	tb.until(control("Files of rows, of this computer"))
	tb.eval(`(() => {
		const c = `+control("Files of rows, of this computer")+`, d = new DataTransfer();
		d.items.add(new File(["a row of a table\n".repeat(9 * 65536).slice(0, 9 * 1048576)], "large.jsonl", {lastModified: 1}));
		c.files = d.files;
		c.dispatchEvent(new Event("change", {bubbles: true}));
	})()`, nil)
}

// TestUploadGoesOn: a file that is sent goes on where it was when the daemon ends
// in the middle of a part and starts again with another token, and so it does when
// the page is loaded again and the same file chosen; nothing is sent twice, and
// what is not the file any more is sent anew.
func TestUploadGoesOn(t *testing.T) {
	w := newWorld(t)
	w.stop()
	p := &piecemeal{Fake: w.fake, broken: make(chan struct{})}
	w.backend = p
	w.fake.UploadDir(t.TempDir())
	w.serve(t, "127.0.0.1:0", token)
	addr := strings.TrimPrefix(w.url, "http://")
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/new/data", `document.querySelector("main details")?.open`)
	tb.attachLarge()
	<-p.broken
	w.stop()
	waits := `[...document.querySelectorAll("main [role=status]")].some((n) => n.textContent.includes("large.jsonl waits, and goes on by itself"))`
	tb.until(waits + ` || document.querySelector("h1").textContent === "Sign in"`)
	other := strings.Repeat("e", 64)
	p.up.Store(true)
	w.serve(t, addr, other)
	tb.until(`document.querySelector("h1").textContent === "Sign in"`)
	tb.eval(fmt.Sprintf(`document.querySelector("main input").value = %q; document.querySelector("form").requestSubmit()`, other), nil)
	looked := `document.querySelectorAll("main tbody tr").length > 2`
	tb.until(looked)
	check := func(what string, want ...int64) {
		t.Helper()
		p.mu.Lock()
		defer p.mu.Unlock()
		if diff := cmp.Diff(want, p.whole); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	const size = 9 << 20
	check("after a break", size)

	// The page is loaded again while a part of the file is there.
	u, err := w.fake.Uploads(t.Context())
	if err != nil || len(u) != 1 || u[0].Bytes != size {
		t.Fatalf("%+v, %v", u, err)
	}
	content, err := os.ReadFile(u[0].File)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.fake.RemoveUpload(t.Context(), u[0].ID); err != nil {
		t.Fatal(err)
	}
	part := func(content []byte) {
		t.Helper()
		req := api.UploadPartRequest{ID: u[0].ID, Name: "large.jsonl", Bytes: size, Size: int64(len(content))}
		if _, err := w.fake.UploadPart(t.Context(), req, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	part(content[:7<<20])
	tb.reload()
	tb.until(`document.body?.innerText.includes("large.jsonl was chosen before this page was loaded again")`)
	tb.attachLarge()
	tb.until(looked)
	check("after a reload", size, size+2<<20)
	tb.is(`document.body.innerText.includes("was chosen before")`, "false")

	// What is there is not the file: all of it is sent.
	if _, err := w.fake.RemoveUpload(t.Context(), u[0].ID); err != nil {
		t.Fatal(err)
	}
	part(make([]byte, 5<<20))
	tb.press("Check all rows")
	tb.until(`document.body.innerText.includes("can be imported.")`)
	check("another content", size, size+2<<20, size+2<<20+4<<20+size)
	tb.press("leave out")
	tb.is(ofUploads(other, "v.uploads.length + v.parts.length"), "0")
}

// attachTwin gives a file of 5 MiB to the control for rows: all that are attached are
// called the same and have the same date, and begin alike; end is the letter at
// their end.
func (tb *tab) attachTwin(end string) {
	tb.t.Helper()
	tb.until(control("Files of rows, of this computer"))
	tb.eval(fmt.Sprintf(`(() => {
		const c = `+control("Files of rows, of this computer")+`, d = new DataTransfer();
		d.items.add(new File(["a row of a table\n".repeat(5 * 65536).slice(0, 5 * 1048576 - 1), %q], "twin.jsonl", {lastModified: 1}));
		c.files = d.files;
		c.dispatchEvent(new Event("change", {bubbles: true}));
	})()`, end), nil)
}

// TestUploadTwins: files that begin alike, and have name, size and date in common,
// are all there, each under an ID of its own, which it has after a reload too; to
// leave one out removes that one alone.
func TestUploadTwins(t *testing.T) {
	w := newWorld(t)
	w.stop()
	p := &piecemeal{Fake: w.fake}
	p.up.Store(true)
	w.backend = p
	w.fake.UploadDir(t.TempDir())
	w.serve(t, "127.0.0.1:0", token)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/new/data", `document.querySelector("main details")?.open`)
	tb.eval(`globalThis.told = false; new MutationObserver(() => {
		globalThis.told ||= [...document.querySelectorAll("main [role=status]")].some((n) => n.textContent === "another file that begins like twin.jsonl is here already; this one is sent beside it");
	}).observe(document.querySelector("main"), {subtree: true, childList: true, characterData: true})`, nil)
	sent := func(want ...string) []api.Upload {
		t.Helper()
		var list []api.Upload
		within(t, fmt.Sprintf("the ends of what is there are %q", want), func() bool {
			var err error
			if list, err = w.fake.Uploads(t.Context()); err != nil {
				t.Fatal(err)
			}
			var ends []string
			ids := make(map[string]bool)
			for _, u := range list {
				b, err := os.ReadFile(u.File)
				if err != nil || len(b) != 5<<20 {
					return false // it is being written
				}
				ends = append(ends, string(b[len(b)-1:]))
				ids[u.ID] = true
			}
			return slices.Equal(ends, want) && len(ids) == len(want)
		})
		return list
	}
	tb.attachTwin("a")
	first := sent("a")
	tb.attachTwin("b")
	tb.until(`globalThis.told`)
	tb.attachTwin("c")
	all := sent("a", "b", "c")
	if all[0].ID != first[0].ID {
		t.Errorf("the first file is under %s now", all[0].ID)
	}
	tb.until(`document.querySelectorAll("main li button").length === 3 && !document.querySelector("main li button").disabled`)

	// After a reload nothing of them is sent again.
	p.mu.Lock()
	got := p.got
	p.mu.Unlock()
	tb.reload()
	tb.until(`document.body?.innerText.includes("twin.jsonl was chosen before this page was loaded again")`)
	tb.attachTwin("c")
	tb.until(`document.querySelectorAll("main tbody tr").length > 2`)
	p.mu.Lock()
	if p.got != got {
		t.Errorf("%d bytes of it were sent again", p.got-got)
	}
	p.mu.Unlock()
	tb.press("leave out")
	sent("a", "b")
}

// TestUploadTwinsMeet: where the IDs of a file are those of others for good, because
// they send at the same time, it takes one that nobody has.
func TestUploadTwinsMeet(t *testing.T) {
	w := newWorld(t)
	w.stop()
	m := &meeting{Fake: w.fake}
	w.backend = m
	w.fake.UploadDir(t.TempDir())
	w.serve(t, "127.0.0.1:0", token)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/new/data", `document.querySelector("main details")?.open`)
	tb.attachTwin("a")
	tb.until(`document.querySelectorAll("main tbody tr").length > 2`)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ids) != 3 || m.ids[0] != m.ids[1] || m.ids[0] == m.ids[2] {
		t.Errorf("it was finished under %q, want one ID twice and then another one", m.ids)
	}
}

// meeting is a daemon to which somebody else sends another file under the ID that
// comes first.
type meeting struct {
	*apitest.Fake

	mu  sync.Mutex
	ids []string // guarded by mu; what was finished
}

func (m *meeting) FinishUpload(ctx context.Context, id string, req api.FinishUploadRequest, progress api.ProgressFunc) (api.Upload, error) {
	m.mu.Lock()
	m.ids = append(m.ids, id)
	first := id == m.ids[0]
	m.mu.Unlock()
	if first {
		req.Digest = strings.Repeat("0", 64) // of another file than what is there
	}
	return m.Fake.FinishUpload(ctx, id, req, progress)
}

// TestUploadWithoutRoom: a daemon that has no room for a file is not taken for one that
// has another file under its ID.
func TestUploadWithoutRoom(t *testing.T) {
	w := newWorld(t)
	w.stop()
	f := &full{Fake: w.fake}
	w.backend = f
	w.fake.UploadDir(t.TempDir())
	w.serve(t, "127.0.0.1:0", token)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/new/data", `document.querySelector("main details")?.open`)
	tb.attachTwin("a")
	tb.until(`document.querySelector("main").innerText.includes("100 files are here already")`)
	if n := f.asked.Load(); n != 1 {
		t.Errorf("it was asked %d times whether it has room", n)
	}
}

// full is a daemon that has no room for a file.
type full struct {
	*apitest.Fake

	asked atomic.Int64
}

func (f *full) UploadPart(context.Context, api.UploadPartRequest, io.Reader) (api.UploadPart, error) {
	f.asked.Add(1)
	return api.UploadPart{}, api.Errorf(api.CodeConflict, "100 files are here already, at most 100 are kept")
}

// TestDraft: what was entered of a launch is there again after a reload, until
// somebody starts anew, or launches it.
func TestDraft(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.backend = &recorded{planner: planner{w.fake}}
	w.serve(t, "127.0.0.1:0", token)
	dir := filepath.Join(t.TempDir(), "tiny")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	rows := filepath.Join(t.TempDir(), "rows.jsonl")
	for name, content := range map[string]string{filepath.Join(dir, "config.json"): "{}", rows: "a row"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/new/model", `document.querySelector("main details")?.open`)
	anew := `[...document.querySelectorAll("main .tools button:not([hidden])")].filter((b) => /^Start anew|^Forget/.test(b.textContent))`
	tb.is(anew+`.length + " " + sessionStorage.getItem("moot.draft")`, "0 null")
	tb.write("Folder", dir)
	tb.write("Where it is from", evil)
	tb.press("Import the model")
	tb.until(`document.querySelector(".picks input:checked")`)
	tb.press("Next: Data")
	tb.until(`document.querySelector("h1").textContent.includes("step 2")`)
	tb.eval(`document.querySelector("main details").open = true`, nil)
	tb.write("… or on the machine of mootd", rows)
	tb.until(`document.querySelectorAll("main tbody tr").length > 0`)
	tb.write("Template", "alpaca")
	tb.write("Licence of the data", "CC0-1.0")
	tb.write("input is", "answer")
	tb.press("Import the rows")
	tb.until(`document.body.innerText.includes("Imported:") && document.querySelector(".picks input:checked")`)
	tb.press("Next: Budget")
	text := `document.querySelector("main textarea").value`
	tb.until(`/model = "baf/.test(` + text + `)`)
	tb.write("Name", "kept")
	tb.write("Rounds", "17")
	tb.until(`document.body.innerText.includes("It can be launched.")`)
	file := tb.text(text)
	values := `[...document.querySelectorAll("main .card input:not([type=radio], [type=file]), main .card select, main .card textarea")].map((c) => c.type === "checkbox" ? c.checked : c.value).join("|")`
	all := make(map[string]string)
	steps := []string{"model", "data", "budget"}
	ready := func(step string) {
		tb.goTo("#/new/"+step, fmt.Sprintf(`location.hash === "#/new/%s" && document.querySelector("h1")?.textContent.includes("%s")`, step, step))
	}
	for _, step := range steps {
		ready(step)
		all[step] = tb.text(values)
	}
	tb.reload()
	tb.until(`document.body?.innerText.includes("is here again.")`)
	tb.until(`document.body.innerText.includes("It can be launched.")`)
	tb.is(text, file)
	for _, step := range steps {
		ready(step)
		if step != "budget" {
			tb.until(`document.querySelector(".picks input:checked")`)
		}
		tb.is(values, all[step])
	}
	if s := tb.text(`sessionStorage.getItem("moot.draft").includes(sessionStorage.getItem("moot.token"))`); s != "false" {
		t.Error("the token is in the draft")
	}

	// Once more is asked before all is forgotten.
	tb.eval(anew+`[0].focus(); `+anew+`[0].click()`, nil)
	tb.is(anew+`[0].textContent`, "Forget all that was entered")
	tb.eval(anew+`[0].click()`, nil)
	tb.until(`document.querySelector("h1").textContent.includes("step 1") && ` + anew + `.length === 0`)
	tb.until(`document.querySelectorAll(".picks input").length === 1`)
	tb.reload()
	tb.until(`document.querySelectorAll(".picks input").length === 1`)
	if s := tb.text(values + ` + document.querySelectorAll(".picks input:checked").length + document.body.innerText.includes("is here again")`); strings.Contains(s, dir) || !strings.HasSuffix(s, "0false") {
		t.Errorf("it is here again: %s", s)
	}

	// What was launched is not offered again.
	tb.eval(`document.querySelector(".picks input").click()`, nil)
	ready("data")
	tb.until(`document.querySelector(".picks input")`)
	tb.eval(`document.querySelector(".picks input").click()`, nil)
	ready("publish")
	tb.until(`document.body.innerText.includes("not planned yet") || document.querySelector(".consent input:enabled")`)
	tb.agree()
	tb.press("Launch")
	tb.until(`document.body.innerText.includes("moot join baf")`)
	tb.is(`String(sessionStorage.getItem("moot.draft"))`, "null")
	tb.clean()
}
