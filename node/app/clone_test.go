package app

import (
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
)

// TestClone: launching the run file that is written of a manifest gives the same
// bytes, for every kind of setting.
func TestClone(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	at := time.Unix(1_700_000_000, 0)
	for name, more := range map[string]string{
		"defaults": "",
		"numbers": `
rounds = 7
max_tokens = 1000000
seats = 5
rotate_rounds = 0
keep_rounds = 30
period = "1500ms"
codec_bits = 4
min_codec_bits = 2
follow_arrivals = true
eval_samples = 9
eval_peers = 0
seed = 42
[lora]
rank = 3
alpha = 7
targets = ["v_proj", "q_proj"]
rslora = true
[inner]
learning_rate = 0.0021
schedule = "wsd"
decay_rounds = 2
lora_plus_ratio = 4.5
beta1 = 0.85
beta2 = 0.951
epsilon = 1e-7
weight_decay = 0.01
clip = 0.5
warmup_steps = 4
min_steps = 2
overlap_steps = 5
max_steps = 11
batch_samples = 6
packing = false
sequence_tokens = 100
over_long = "drop"
[outer]
learning_rate = 0.33
momentum = 0.61
[admission]
mode = "list"
allowed = ["12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"]
work_bits = 3
[trust]
auditors = 2
audit_samples = 7
probation = 4
take_back = true
[licence]
model = "mine \\ \"quoted\""
use = "research"
model_source = "a/b at 1"
data_source = "c, by hand"
`,
		"patterns": `
[lora]
rank = 4
targets = "all-linear"
rank_pattern = { "layers.0.self_attn.q_proj" = 2, "v_proj" = 3 }
alpha_pattern = { "v_proj" = 5 }
`,
		"full, sgd": `
mode = "full"
[inner]
optimizer = "sgd"
momentum = 0.8
schedule = "constant"
`,
		"ends": `
[stop]
patience = 5
min_improvement = 0.002
target_loss = 1.25
[rollback]
rounds = 3
worse = 0.05
`,
		"finds its steps": "max_tokens = 100000\n[inner]\nstart_steps = 5\n[trust]\nauditors = 0\n",
	} {
		t.Run(name, func(t *testing.T) {
			first, err := n.manifest(t.Context(), &api.LaunchRequest{Name: "run.toml", TOML: runText(m, d, more)}, at)
			if err != nil {
				t.Fatal(err)
			}
			text := cloneFile("x", first)
			again, err := n.manifest(t.Context(), &api.LaunchRequest{Name: "clone.toml", TOML: text}, at)
			if err != nil {
				t.Fatalf("%v, of\n%s", err, text)
			}
			a, err := first.Encode()
			if err != nil {
				t.Fatal(err)
			}
			b, err := again.Encode()
			if err != nil || string(a) != string(b) {
				t.Errorf("another manifest, %v: %+v, want %+v, of\n%s", err, again, first, text)
			}
			if strings.Contains(text, "%!") {
				t.Errorf("written as\n%s", text)
			}
		})
	}
}
