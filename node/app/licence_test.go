package app

import (
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/run"
)

func TestLicenceRules(t *testing.T) {
	for _, tt := range []struct {
		model, data string
		use         run.Use
		rule        string // that is broken; "": none
		notes       int
	}{
		{"apache-2.0", "cc-by-4.0", run.UseCommercial, "", 0},
		{"MIT", "CC0-1.0", run.UseCommercial, "", 0},
		{"apache-2.0", "cc-by-sa-4.0", run.UseCommercial, "", 0},
		{"apache-2.0", "cc-by-nc-4.0", run.UseCommercial, "rule non-commercial", 0},
		{"apache-2.0", "CC BY-NC 4.0", run.UseCommercial, "the licence of the data, CC BY-NC 4.0,", 0},
		{"apache-2.0", "cc-by-nc-4.0", run.UseResearch, "", 1},
		{"apache-2.0", "cc-by-nc-4.0", run.UseUnstated, "", 1},
		{"llama2", "mit", run.UseCommercial, "rule llama2-community", 0},
		{"Llama 2 Community License", "mit", run.UseCommercial, "the licence of the model", 0},
		{"llama2", "mit", run.UseResearch, "", 1},
		{"some non-commercial licence", "mit", run.UseCommercial, "rule non-commercial", 0},
		{"", "mit", run.UseCommercial, "the model is under (rule unknown)", 0},
		{"mit", "other", run.UseCommercial, "the data is under (rule unknown)", 0},
		{"", "", run.UseResearch, "", 2},
		{"mit", "cc-by-nc-nd-4.0", run.UseResearch, "rule no-derivatives", 0},
		{"mit", "cc-by-nd-4.0", run.UseUnstated, "", 1},
		// Names that only look like it.
		{"nc-nothing", "once-upon-a-licence", run.UseCommercial, "rule non-commercial", 0},
		{"bounce-1.0", "land-2.0", run.UseCommercial, "", 0},
	} {
		broken, notes := licenceRules(&run.Licences{Model: tt.model, Data: tt.data, Use: tt.use})
		text := strings.Join(broken, "; ")
		if (tt.rule == "") != (text == "") || !strings.Contains(text, tt.rule) || len(notes) != tt.notes {
			t.Errorf("%q, %q for %v: broken %q, notes %q; want %q and %d notes", tt.model, tt.data, tt.use, text, notes, tt.rule, tt.notes)
		}
		if text != "" && !strings.HasPrefix(text, "licence.use is ") {
			t.Errorf("%q does not name the key", text)
		}
	}
}

func TestLicenceWay(t *testing.T) {
	for _, tt := range []struct {
		l    run.Licences
		want string
	}{
		{run.Licences{Model: "mit", Data: "cc-by-nc-4.0", Use: run.UseCommercial}, `take another data; or say licence.use = "research", if that is what it is for`},
		{run.Licences{Model: "mit", Data: "cc-by-nd-4.0", Use: run.UseResearch}, "take another data"},
		{run.Licences{Model: "cc-by-nd-4.0", Data: "", Use: run.UseCommercial}, `say what is known of it, with licence.data = "…"; or take another model`},
	} {
		if got := licenceWay(&tt.l); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.l, got, tt.want)
		}
	}
}

// What a plan refuses, a launch refuses, with the line of the run file.
func TestLicenceRefused(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	req := api.LaunchRequest{Name: "run.toml", TOML: runText(m, d, "inner.sequence_tokens = 64\n[licence]\nmodel = \"mit\"\ndata = \"cc-by-nc-4.0\"\nuse = \"commercial\"\n")}
	const want = "run.toml:8: licence.use is commercial, but the licence of the data, cc-by-nc-4.0, is for non-commercial use (rule non-commercial)"
	_, err := n.Plan(t.Context(), req, quiet)
	wantCode(t, err, api.CodeRefused, want)
	_, err = n.Launch(t.Context(), req, quiet)
	wantCode(t, err, api.CodeRefused, want)
	req.TOML = strings.Replace(req.TOML, "commercial\"", "research\"", 1)
	p, err := n.Plan(t.Context(), req, quiet)
	if err != nil || p.Use != "research" || len(p.Refused) != 0 {
		t.Errorf("for research: %+v, %v", p.Refused, err)
	}
	req.TOML = strings.Replace(req.TOML, "research", "fun", 1)
	_, err = n.Plan(t.Context(), req, quiet)
	wantCode(t, err, api.CodeConfig, `run.toml:8: licence.use is "fun", must be unstated, research or commercial`)
}
