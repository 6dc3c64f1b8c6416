package web_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/app"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/config"
)

// startNode runs a whole daemon in this process until the test ends.
func startNode(t *testing.T, file string) *client.Client {
	t.Helper()
	cfg := config.Default()
	cfg.DataDir, cfg.MDNS, cfg.Threads = t.TempDir(), false, 1
	cfg.SetListen([]string{"/ip4/127.0.0.1/tcp/0"})
	cfg.SetAPI("127.0.0.1:0")
	yes := true
	o := app.Options{Config: cfg, Consent: &yes, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Started: nil}
	if file != "" {
		o.File = file
		o.Reload = func() (*config.Config, error) {
			l, err := config.Load(file, func(string) string { return "" })
			if err != nil {
				return nil, err
			}
			l.Copy(&cfg, []string{"data_dir", "mdns", "threads", "listen", "api"}) // as flags would
			return &l.Config, nil
		}
	}
	started, ended := make(chan api.Endpoint, 1), make(chan error, 1)
	o.Started = func(e api.Endpoint) { started <- e }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- app.Run(ctx, o) }()
	select {
	case <-started:
	case err := <-ended:
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c, err := client.Open(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestSwarm: the page of a node in a real run of four: rounds as they are
// decided, everybody's contributions, what was drawn of the data, an adapter to
// take along; pausing and settings work for real.
func TestSwarm(t *testing.T) {
	b := openBrowser(t)
	ctx := t.Context()
	file := t.TempDir() + "/mootd.toml"
	nodes := []*client.Client{startNode(t, file), startNode(t, ""), startNode(t, ""), startNode(t, "")}
	a, err := nodes[0].DemoAssets(ctx, t.TempDir()+"/demo")
	if err != nil {
		t.Fatal(err)
	}
	m, err := nodes[0].ImportModel(ctx, api.ImportModelRequest{Dir: a.ModelDir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := nodes[0].ImportDataset(ctx, a.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	tb := b.open(nodes[0].DashboardURL(), 1440, 900)
	tb.until(`document.querySelector("#link")?.dataset.state === "live"`)
	run, err := nodes[0].Launch(ctx, api.LaunchRequest{Name: "run.toml", TOML: fmt.Sprintf("name = \"four\"\nmodel = %q\ndata = %q\n", m.ID, d.ID) + `
rounds = 500
min_peers = 4
period = "4s"
eval_samples = 8
lora.rank = 2
inner.max_steps = 3
inner.batch_samples = 2
inner.sequence_tokens = 96
`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The page learns of the run by itself.
	tb.until(`document.querySelector("tbody a")?.textContent === "four"`)
	tb.eval(`document.querySelector("tbody a").click()`, nil)
	tb.until(`document.querySelector("h1")?.textContent === "four"`)
	for _, n := range nodes[1:] {
		if _, err := n.Join(ctx, api.JoinRequest{Run: run.ID, Peers: nodes[0].Endpoint().Addrs}, nil); err != nil {
			t.Fatal(err)
		}
	}
	// Three rounds are seen one after the other, without a reload.
	round := func() (n int) {
		tb.eval(`Number(`+tile+`?.replace(/\D/g, "") || 0)`, &n)
		return n
	}
	seen := map[int]bool{}
	for end := time.Now().Add(2 * patience); len(seen) < 3; time.Sleep(50 * time.Millisecond) {
		if n := round(); n > 0 {
			seen[n] = true
		}
		if time.Now().After(end) {
			t.Fatalf("rounds %v were seen:\n%s", seen, tb.text(`document.body.innerText`))
		}
	}
	tb.until(`document.querySelectorAll("[aria-label=Members] tbody tr").length >= 3`)
	tb.until(`document.querySelectorAll(".span").length > 3 && document.querySelectorAll(".span.work").length > 0`)
	tb.until(`[...document.querySelectorAll(".note")].some((n) => /^[\d.]+ % of [\d,]+ rows were drawn/.test(n.textContent) && !n.textContent.startsWith("0.0 %"))`)
	tb.until(`document.querySelectorAll("[aria-label='Contributions by peer'] tbody tr").length >= 3`)
	tb.shoot("swarm-run")
	if dir := os.Getenv("MOOT_WEB_SHOTS"); dir != "" { // the picture in README.md
		tb.size(1500, 1150)
		tb.until(`Number(` + tile + `) >= 24`)
		tb.picture(dir, "run")
		tb.size(1440, 900)
	}

	// What the API says of it for real.
	c, err := nodes[0].Coverage(ctx, run.ID)
	if err != nil || c.Rows != uint64(d.TrainRows) || c.Seen == 0 || c.Seen > c.Draws || c.Round == 0 {
		t.Errorf("coverage %+v, %v, of %d rows", c, err, d.TrainRows)
	}
	tb.goTo("#/network", `document.querySelectorAll("[aria-label='Connected peers'] tbody tr").length === 3`)
	tb.goTo("#/logs", `document.querySelectorAll(".log li").length > 3`)
	if s := tb.text(`document.querySelector(".log").innerText`); strings.Contains(s, "token=") {
		t.Errorf("the log has a token: %s", s)
	}
	tb.goTo("#/settings", `[...document.querySelectorAll(".setting code")].some((n) => n.textContent === "work.duty_percent")`)
	tb.eval(`(() => {
		const row = [...document.querySelectorAll(".setting")].find((n) => n.querySelector("code").textContent === "work.duty_percent");
		const i = row.querySelector("input"); i.value = "77"; i.dispatchEvent(new Event("input")); row.querySelector("button").click();
	})()`, nil)
	tb.until(`[...document.querySelectorAll(".setting")].some((n) => n.innerText.includes("work.duty_percent") && n.innerText.includes("from the file"))`)
	if s, err := nodes[0].Settings(ctx); err != nil || !strings.Contains(fmt.Sprint(s.Settings), "work.duty_percent [77]") {
		t.Errorf("settings %+v, %v", s, err)
	}
	tb.goTo("#/node", `document.querySelector(".word")`)
	tb.press("Pause")
	tb.until(`document.querySelector(".word").textContent === "paused"`)
	tb.press("Resume")
	tb.until(`document.querySelector(".word").textContent !== "paused"`)

	tb.goTo("#/runs/"+run.ID+"/export", `document.querySelectorAll("option").length > 3`)
	tb.eval(`document.querySelector("select").value = "last"; document.querySelector("select").dispatchEvent(new Event("change"))`, nil)
	tb.until(button("Download"))
	name, tar := tb.downloaded(button("Download") + `.click()`)
	if !strings.HasSuffix(name, "-last-peft.tar") || !strings.Contains(string(tar), "adapter_model.safetensors") {
		t.Errorf("downloaded %s with %d bytes", name, len(tar))
	}
	tb.clean()
}
