package api_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

func TestMetrics(t *testing.T) {
	f := apitest.New("node")
	f.AddRun(apitest.Detail("demo", apitest.PeerID("node")))
	f.Node.Devices = []api.Device{
		{Name: "processor", UtilPercent: new(93)},
		{Name: "GPU", Celsius: new(70), UtilPercent: new(88), UsedBytes: new(int64(6)), TotalBytes: new(int64(8)), OtherBytes: new(int64(1)), Watts: new(140)},
		{Name: "GPU", Celsius: new(71)},
	}
	left := apitest.Detail("left", apitest.PeerID("node"))
	left.Joined = false
	f.AddRun(left)
	more := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "libp2p_something_total", Help: "x"})
	counter.Add(3)
	more.MustRegister(counter)
	s := api.NewServer(f, api.Options{Token: token, Metrics: more})

	failed(t, ask(t, s, "GET", "/metrics", "", "Authorization:"), http.StatusUnauthorized, api.CodeAuth, "token")
	w := ask(t, s, "GET", "/metrics", "")
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("got %d %s", w.Code, w.Header())
	}
	text := w.Body.String()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	id := apitest.ID("demo")
	for _, want := range []string{
		`moot_info\{device="[^"]+",peer="` + apitest.PeerID("node") + `",version="[^"]+"\} 1`,
		`moot_run_state\{name="demo",run="` + id + `",state="[a-z]+"\} 1`,
		`moot_run_seats\{run="` + id + `"\} \d+`,
		`moot_content_bytes_total\{direction="in"\} [\d.e+]+`,
		`moot_device_utilization_ratio\{device="processor"\} 0.93`,
		`moot_device_memory_bytes\{device="GPU",part="other"\} 1`,
		`moot_device_temperature_celsius\{device="GPU"\} 70`,
		`moot_device_power_watts\{device="GPU"\} 140`,
		`libp2p_something_total 3`,
		`go_goroutines \d+`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(text) {
			t.Errorf("no line %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, apitest.ID("left")) {
		t.Error("a run that was left has metrics")
	}
	on := 0
	for _, m := range families["moot_state"].GetMetric() {
		on += int(m.GetGauge().GetValue())
	}
	if on != 1 {
		t.Errorf("the node is in %d states", on)
	}
	for name, family := range families {
		if strings.HasPrefix(name, "moot_") && family.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
	}
}

// The dashboard asks for nothing that a node does not tell, and shows all that it
// tells of moot.
func TestGrafanaDashboard(t *testing.T) {
	text, err := os.ReadFile("../../scripts/grafana/moot.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	f := apitest.New("node")
	run := apitest.Detail("demo", apitest.PeerID("node"))
	run.TrainLoss, run.EvalLoss = new(1.5), new(2.5)
	f.AddRun(run)
	f.Node.Reason = "paused"
	f.Node.Devices = []api.Device{{Name: "GPU", Celsius: new(70), UtilPercent: new(88), UsedBytes: new(int64(6)), Watts: new(140)}}
	told := ask(t, api.NewServer(f, api.Options{Token: token}), "GET", "/metrics", "").Body.String()
	names := regexp.MustCompile(`\b(?:moot|process)_[a-z_]+`)
	shown := map[string]bool{
		// Others than this package tell these.
		"moot_traffic_bytes_total": false, "moot_traffic_month_bytes": false, "moot_traffic_month_quota_bytes": false,
	}
	elsewhere := len(shown)
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			for _, name := range names.FindAllString(target.Expr, -1) {
				if v, known := shown[name]; known && !v {
					elsewhere--
				} else if !regexp.MustCompile(`(?m)^` + name + `[{ ]`).MatchString(told) {
					t.Errorf("%s: no %s is told", p.Title, name)
				}
				shown[name] = true
			}
		}
	}
	if elsewhere != 0 {
		t.Errorf("of others' metrics %d are not shown: %v", elsewhere, shown)
	}
	for _, m := range regexp.MustCompile(`(?m)^# HELP (moot_\S+)`).FindAllStringSubmatch(told, -1) {
		if !shown[m[1]] {
			t.Errorf("no panel shows %s", m[1])
		}
	}
}
