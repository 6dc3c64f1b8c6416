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

func TestErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{minimal + "[lora]\n\nrank = 2000\n", "run.toml:6: lora.rank is 2000, must be at most 1024"},
		{minimal + "min_peers = 33\n", "run.toml:4: min_peers is 33, must be at most 32"},
		{minimal + "codec_bits = 3\n", "run.toml:4: codec_bits is 3"},
		{minimal + "ranks = 3\n", `run.toml:4: unknown key "ranks"`},
		{minimal + "[lora]\nrnk = 3\n", `run.toml:5: unknown key "lora.rnk"`},
		{minimal + "period = \"soon\"\n", "run.toml:4:"},
		{minimal + "period = \"10ms\"\n", "run.toml:4: period is 0.01, must be at least 1"},
		{minimal + "[inner]\nlearning_rate = nan\n", "run.toml:5: inner.learning_rate is NaN"},
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
