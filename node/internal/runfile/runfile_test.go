package runfile

import (
	"strings"
	"testing"
)

const minimal = "name = \"x\"\nmodel = \"m\"\ndata = \"d\"\n"

func TestDefaults(t *testing.T) {
	f, err := Parse("run.toml", []byte(minimal+"[lora]\nrank = 4\n[inner]\nclip = 0.0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f.LoRA.Alpha != 8 || f.Rounds != 100 || *f.Outer.Momentum != 0.6 || *f.Inner.Clip != 0 {
		t.Errorf("Parse = %+v, want alpha 8, 100 rounds, momentum 0.6 and the clip that was given", f)
	}
}

func TestOptions(t *testing.T) {
	f, err := Parse("run.toml", []byte(minimal+`
[lora]
targets = ["q_proj", "v_proj"]
exclude_modules = ".*\\.1\\..*"
layers_to_transform = [0, 2]
rslora = true
rank_pattern = {q_proj = 4}
[inner]
optimizer = "sgd"
schedule = "wsd"
packing = false
lora_plus_ratio = 16.0
`))
	if err != nil {
		t.Fatal(err)
	}
	l, in := f.LoRA, f.Inner
	if len(l.Targets.List) != 2 || l.Targets.Pattern != "" || l.ExcludeModules.Pattern != `.*\.1\..*` || l.LayersToTransform[1] != 2 ||
		!l.RSLoRA || l.RankPattern["q_proj"] != 4 || l.Rank != 16 {
		t.Errorf("lora = %+v", l)
	}
	if *in.Momentum != 0.9 || in.DecayRounds != 10 || *in.Packing || in.LoRAPlusRatio != 16 || in.OverLong != "shorten" {
		t.Errorf("inner = %+v", in)
	}
	if f, err = Parse("run.toml", []byte(minimal+"mode = \"full\"\n")); err != nil || f.LoRA.Rank != 0 || !*f.Inner.Packing || f.Inner.LoRAPlusRatio != 1 {
		t.Errorf("Parse() = %+v, %v", f, err)
	}
}

func TestTrust(t *testing.T) {
	for _, tt := range []struct {
		text                         string
		auditors, samples, probation uint32
		takeBack                     bool
	}{
		{"", 3, 36, 5, false},
		{"rounds = 20\n[inner]\nmax_steps = 4\nbatch_samples = 2\n", 3, 8, 2, false},
		{"[trust]\nauditors = 0\n", 0, 0, 0, false},
		{"[trust]\nauditors = 7\nprobation = 0\n", 7, 18, 0, false},
		{"[trust]\naudit_samples = 9\ntake_back = true\n", 3, 9, 5, true},
	} {
		f, err := Parse("run.toml", []byte(minimal+tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if tr := f.Trust; *tr.Auditors != tt.auditors || tr.AuditSamples != tt.samples || *tr.Probation != tt.probation || *tr.TakeBack != tt.takeBack {
			t.Errorf("%q: %d auditors, %d samples, probation %d, taking back %v; want %d, %d, %d, %v",
				tt.text, *tr.Auditors, tr.AuditSamples, *tr.Probation, *tr.TakeBack, tt.auditors, tt.samples, tt.probation, tt.takeBack)
		}
	}
}

func TestRetrace(t *testing.T) {
	for _, tt := range []struct {
		text   string
		params int
		want   uint32
	}{
		{"", 1000, 20_000},
		{"", 16 << 20, 20_000},
		{"", 16<<20 + 1, 0},
		{"[trust]\nauditors = 0\n", 1000, 0},
		{"[trust]\ntake_back = true\n", 1000, 20_000},
		{"[trust]\nretrace = 0.1\n", 1 << 30, 100_000},
		{"[trust]\nretrace = 0.0\n", 1000, 0},
	} {
		f, err := Parse("run.toml", []byte(minimal+tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Trust.RetracePPM(tt.params); got != tt.want {
			t.Errorf("%q, %d values: %d, want %d", tt.text, tt.params, got, tt.want)
		}
	}
	for text, want := range map[string]uint32{"": 2, "[trust]\nauditors = 0\n": 0, "[trust]\noutsiders = 5\n": 5} {
		if f, err := Parse("run.toml", []byte(minimal+text)); err != nil || *f.Trust.Outsiders != want {
			t.Errorf("%q: %d outsiders, %v; want %d", text, *f.Trust.Outsiders, err, want)
		}
	}
	if _, err := Parse("run.toml", []byte(minimal+"[trust]\nretrace = 1.1\n")); err == nil {
		t.Error("more than all are retraced")
	}
}

func TestStop(t *testing.T) {
	for _, tt := range []struct {
		text                     string
		patience, rounds         uint32
		improvement, target, bad float64
		err                      string
	}{
		{"", 0, 0, 0, 0, 0, ""},
		{"[stop]\npatience = 20\ntarget_loss = 1.25\n", 20, 0, 0.001, 1.25, 0, ""},
		{"[stop]\npatience = 20\nmin_improvement = 0.0\n[rollback]\nrounds = 5\n", 20, 5, 0, 0, 0.03, ""},
		{"[rollback]\nrounds = 3\nworse = 0.1\n", 0, 3, 0, 0, 0.1, ""},
		{"[stop]\nmin_improvement = 0.1\n", 0, 0, 0, 0, 0, "run.toml:5: stop.min_improvement is set without patience"},
		{"[rollback]\nworse = 0.1\n", 0, 0, 0, 0, 0, "run.toml:5: rollback.worse is set without rounds"},
		{"[rollback]\nrounds = 3\nworse = 0.0\n", 0, 0, 0, 0, 0, "run.toml:6: rollback.worse is 0, must be at least 0.000001"},
		{"[stop]\npatience = -1\n", 0, 0, 0, 0, 0, "run.toml:5"},
	} {
		f, err := Parse("run.toml", []byte(minimal+tt.text))
		if tt.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.text, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Stop.Patience != tt.patience || *f.Stop.MinImprovement != tt.improvement || f.Stop.TargetLoss != tt.target ||
			f.Rollback.Rounds != tt.rounds || *f.Rollback.Worse != tt.bad {
			t.Errorf("%q: %+v with %v, %+v with %v", tt.text, f.Stop, *f.Stop.MinImprovement, f.Rollback, *f.Rollback.Worse)
		}
	}
}

func TestAdmission(t *testing.T) {
	f, err := Parse("run.toml", []byte(minimal))
	if err != nil || f.Admission.Mode != "open" {
		t.Errorf("Parse() = %+v, %v", f.Admission, err)
	}
	f, err = Parse("run.toml", []byte(minimal+"[admission]\nmode = \"list\"\nallowed = [\"a\", \"b\"]\nwork_bits = 20\n"))
	if err != nil || f.Admission.Mode != "list" || len(f.Admission.Allowed) != 2 || f.Admission.WorkBits != 20 {
		t.Errorf("Parse() = %+v, %v", f.Admission, err)
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{minimal + "[lora]\n\nrank = 2000\n", "run.toml:6: lora.rank is 2000, must be at most 1024"},
		{minimal + "min_peers = 33\n", "run.toml:4: min_peers is 33, must be at most 32"},
		{minimal + "keep_rounds = 30\n[trust]\nauditors = 0\n", "run.toml:4: keep_rounds is 30, must be 0 without audits"},
		{minimal + "[trust]\nauditors = 17\n", "run.toml:5: trust.auditors is 17, must be at most 16"},
		{minimal + "[admission]\nwork_bits = 33\n", "run.toml:5: admission.work_bits is 33, must be at most 32"},
		{minimal + "codec_bits = 3\n", "run.toml:4: codec_bits is 3"},
		{minimal + "ranks = 3\n", `run.toml:4: unknown key "ranks"`},
		{minimal + "[lora]\nrnk = 3\n", `run.toml:5: unknown key "lora.rnk"`},
		{minimal + "period = \"soon\"\n", "run.toml:4:"},
		{minimal + "period = \"10ms\"\n", "run.toml:4: period is 0.01, must be at least 1"},
		{minimal + "[inner]\nlearning_rate = nan\n", "run.toml:5: inner.learning_rate is NaN"},
		{minimal + "mode = \"half\"\n", `run.toml:4: mode is "half", must be lora or full`},
		{minimal + "mode = \"full\"\n[lora]\nrank = 4\n", "run.toml:6: lora.rank is for adapters, not for mode full"},
		{minimal + "mode = \"full\"\n[lora]\ntargets = \"x\"\n", "run.toml:6: lora.targets is for adapters"},
		{minimal + "mode = \"full\"\n[inner]\nlora_plus_ratio = 2.0\n", "run.toml:6: inner.lora_plus_ratio is for adapters"},
		{minimal + "[lora]\ntargets = []\n", "run.toml:5: lora.targets must be a list of names"},
		{minimal + "[lora]\ntargets = \"\"\n", "run.toml:5: lora.targets must be a list of names"},
		{minimal + "[lora]\ntargets = [1]\n", "run.toml:5: lora.targets must be a list of names"},
		{minimal + "[lora]\ntargets = \"(\"\n", "run.toml:5: lora.targets is not a regular expression"},
		{minimal + "[lora]\nexclude_modules = 3\n", "run.toml:5: lora.exclude_modules must be a list of names"},
		{minimal + "[lora]\nlayers_to_transform = [-1]\n", "run.toml:5: lora.layers_to_transform has -1"},
		{minimal + "[lora]\nrank_pattern = {q_proj = 2000}\n", `run.toml:5: lora.rank_pattern has 2000 for "q_proj", must have 1 to 1024`},
		{minimal + "[lora]\nalpha_pattern = {\"(\" = 2}\n", `run.toml:5: lora.alpha_pattern has "(", which is not a regular expression`},
		{minimal + "[lora]\nrank = 0\nalpha = 70000\n", "run.toml:6: lora.alpha is 70000, must be at most 65536"},
		{minimal + "[inner]\noptimizer = \"lion\"\n", `run.toml:5: inner.optimizer is "lion", must be adamw, adamw-8bit or sgd`},
		{minimal + "[inner]\nschedule = \"step\"\n", `run.toml:5: inner.schedule is "step", must be cosine, constant, linear or wsd`},
		{minimal + "[inner]\nover_long = \"cut\"\n", `run.toml:5: inner.over_long is "cut", must be shorten or drop`},
		{minimal + "[inner]\nmomentum = 0.9\n", "run.toml:5: inner.momentum is for the optimizer sgd, not adamw"},
		{minimal + "[inner]\noptimizer = \"sgd\"\nmomentum = 1.0\n", "run.toml:6: inner.momentum is 1, must be 0 to 0.9999"},
		{minimal + "[inner]\ndecay_rounds = 3\n", "run.toml:5: inner.decay_rounds is for the schedule wsd, not cosine"},
		{minimal + "[inner]\nschedule = \"wsd\"\ndecay_rounds = 101\n", "run.toml:6: inner.decay_rounds is 101, must be at most rounds, 100"},
		{minimal + "[inner]\nlora_plus_ratio = 0.0\n", "run.toml:5: inner.lora_plus_ratio is 0, must be at least 0.01"},
		{"name = \"x\"\ndata = \"d\"\n", "run.toml: model is missing"},
		{"name = ", "run.toml:1:"},
		{strings.Repeat("#", MaxBytes+1), "at most"},
	} {
		if _, err := Parse("run.toml", []byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%.60q) = %v, want %q", tt.text, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("[lora]\nrank = -1"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = Parse("run.toml", b) })
}

// TestMinCodecBits: with a codec that changes nothing is retraced, unless the file
// says so.
func TestMinCodecBits(t *testing.T) {
	f, err := Parse("run.toml", []byte("codec_bits = 8\nmin_codec_bits = 2\n"+minimal))
	if err != nil || f.MinCodecBits != 2 || f.Trust.RetracePPM(1000) != 0 {
		t.Errorf("%d bits at least, %d ppm are retraced, %v", f.MinCodecBits, f.Trust.RetracePPM(1000), err)
	}
}

// TestRotateRounds: seats rotate unless the file says that they do not.
func TestRotateRounds(t *testing.T) {
	for _, tt := range []struct {
		line string
		want uint32
	}{{"", 16}, {"rotate_rounds = 0\n", 0}, {"rotate_rounds = 5\n", 5}} {
		f, err := Parse("run.toml", []byte(tt.line+minimal))
		if err != nil {
			t.Fatal(err)
		}
		if f.RotateRounds != tt.want {
			t.Errorf("with %q: %d, want %d", tt.line, f.RotateRounds, tt.want)
		}
	}
}

// TestKeepRounds: seats are kept in runs with audits, unless the file says that they
// are not.
func TestKeepRounds(t *testing.T) {
	for _, tt := range []struct {
		before, after string
		want          uint32
	}{{"", "", 8}, {"keep_rounds = 0\n", "", 0}, {"keep_rounds = 30\n", "", 30}, {"", "[trust]\nauditors = 0\n", 0}} {
		f, err := Parse("run.toml", []byte(tt.before+minimal+tt.after))
		if err != nil {
			t.Fatal(err)
		}
		if f.KeepRounds != tt.want {
			t.Errorf("with %q: %d, want %d", tt.before+tt.after, f.KeepRounds, tt.want)
		}
	}
}

// TestFollowArrivals: deadlines follow arrivals unless the file says that they do
// not, or the run has cells.
func TestFollowArrivals(t *testing.T) {
	for _, tt := range []struct {
		line string
		want bool
	}{{"", true}, {"follow_arrivals = false\n", false}, {"seats = 49\n", false}, {"seats = 48\n", true}} {
		f, err := Parse("run.toml", []byte(tt.line+minimal))
		if err != nil {
			t.Fatal(err)
		}
		if f.FollowArrivals != tt.want {
			t.Errorf("with %q: %v, want %v", tt.line, f.FollowArrivals, tt.want)
		}
	}
}
