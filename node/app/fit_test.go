package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// launchedRun is a node with the bundled model and data, and a run of them.
func launchedRun(t *testing.T, more string) (n *node, id string) {
	t.Helper()
	n, _ = testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	r, err := n.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: runText(m, d, more)}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return n, r.ID
}

// strangerID is the peer ID of somebody else.
func strangerID(t *testing.T) peer.ID {
	t.Helper()
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	return n.host.ID()
}

func item(t *testing.T, f *api.Fit, name string) api.FitItem {
	t.Helper()
	for _, i := range f.Items {
		if i.Name == name {
			return i
		}
	}
	t.Fatalf("no %s among %+v", name, f.Items)
	return api.FitItem{}
}

// Before anything of the model but its configuration is here, a node says what
// the run needs, and refuses it with numbers: then nothing is pulled, and it is
// no member.
func TestFitBeforeDownload(t *testing.T) {
	seed, id := launchedRun(t, "[inner]\nsequence_tokens = 64\n")
	peers := seed.host.Addrs()[:1]
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	f, err := n.CheckRun(t.Context(), api.CheckRunRequest{Run: id, Peers: peers, LinkMbit: 10}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if f.Run != id || f.Err() != nil || f.MissingBytes < f.ModelBytes || len(f.Items) != 5 {
		t.Errorf("fit is %+v", f)
	}
	local, err := seed.CheckRun(t.Context(), api.CheckRunRequest{Run: id}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	// What is told by the configuration is what the weights themselves tell.
	if far, near := item(t, &f, "memory"), item(t, &local, "memory"); far.NeedBytes != near.NeedBytes || far.Parts[0] != near.Parts[0] {
		t.Errorf("from afar the run needs %+v, here %+v", far, near)
	}
	if l := item(t, &f, "traffic"); l.Verdict != api.VerdictFits || !strings.Contains(l.Text, "10 Mbit/s") {
		t.Errorf("traffic is %+v", l)
	}
	m, err := n.runs.localManifest(t.Context(), cid.MustParse(id))
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(when string) {
		t.Helper()
		if _, have, _, err := n.store.Missing(t.Context(), m.Model); err != nil || have > 64<<10 {
			t.Errorf("%s: %d bytes of the model are here, %v", when, have, err)
		}
		if runs, err := n.Runs(t.Context()); err != nil || len(runs) != 0 {
			t.Errorf("%s: runs are %+v, %v", when, runs, err)
		}
	}
	nothing("after the check")
	for _, tt := range []struct {
		name string
		set  func()
		code api.Code
		exit int
		want string
		hint string
	}{
		{"memory", func() { n.freeMemory = func() (int64, error) { return 70e6, nil } }, api.CodeRAM, 10, "70.0 MB are free", "close other programs"},
		{"disk", func() { n.freeMemory = freeMemory; n.maxBytes.Store(1e6) }, api.CodeDisk, 11, "are free for it", "cache_max_mb, which is 1, would have to be"},
	} {
		tt.set()
		var told *api.Fit
		_, err := n.Join(t.Context(), api.JoinRequest{Run: id, Peers: peers}, func(p api.Progress) {
			if p.Fit != nil {
				told = p.Fit
			}
		})
		wantCode(t, err, tt.code, tt.want)
		if e := api.AsError(err); e.Exit != tt.exit || !strings.Contains(e.Hint, tt.hint) {
			t.Errorf("%s: exit %d, hint %q", tt.name, e.Exit, e.Hint)
		}
		if told == nil || item(t, told, tt.name).Verdict != api.VerdictExceeds || told.Verdict != api.VerdictExceeds {
			t.Errorf("%s: told was %+v", tt.name, told)
		}
		nothing(tt.name)
	}
	n.maxBytes.Store(0)
	if _, err := n.Join(t.Context(), api.JoinRequest{Run: id, Peers: peers}, quiet); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// A member that has no room after a restart stays one.
func TestRefusedMemberStays(t *testing.T) {
	n, id := launchedRun(t, "[inner]\nsequence_tokens = 64\n")
	m, err := n.runs.find(id)
	if err != nil {
		t.Fatal(err)
	}
	n.freeMemory = func() (int64, error) { return 1000, nil }
	n.runs.view(m).runner.(*fakeRun).fail <- errors.New("an accident")
	eventually(t, func() bool { return n.runs.view(m).err != nil })
	_, err = n.Join(t.Context(), api.JoinRequest{Run: id}, quiet)
	wantCode(t, err, api.CodeRAM, "are free")
	if v := n.runs.view(m); !v.file.Joined {
		t.Error("it is a member no more")
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		need, have int64
		want       api.Verdict
	}{{75, 100, api.VerdictFits}, {76, 100, api.VerdictTight}, {100, 100, api.VerdictTight}, {101, 100, api.VerdictExceeds}, {5, -1, api.VerdictUnknown}, {0, 0, api.VerdictFits}} {
		if got := verdict(tt.need, tt.have); got != tt.want {
			t.Errorf("verdict(%d, %d) = %s, want %s", tt.need, tt.have, got, tt.want)
		}
	}
}

// eight is a model of eight thousand million parameters, as its configuration
// describes it.
const eight = `{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
"hidden_act": "silu", "torch_dtype": "bfloat16", "rope_theta": 500000%s}`

func eightFacts(t *testing.T, more string) (*run.Manifest, *modelFacts) {
	t.Helper()
	b := []byte(strings.Replace(eight, "%s", more, 1))
	c, err := model.ParseConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	m := &run.Manifest{LoRA: run.LoRA{Rank: 16, Alpha: 32, Targets: []string{"q_proj", "v_proj"}}, Inner: run.Inner{MaxTokens: 4096, BatchSamples: 16}}
	for _, l := range c.Modules() {
		if strings.HasSuffix(l.Path, "q_proj") || strings.HasSuffix(l.Path, "v_proj") {
			m.Tensors = append(m.Tensors,
				run.Tensor{Name: "base_model.model." + l.Path + ".lora_A.weight", Rows: 16, Cols: uint32(l.In)},
				run.Tensor{Name: "base_model.model." + l.Path + ".lora_B.weight", Rows: uint32(l.Out), Cols: 16})
		}
	}
	return m, &modelFacts{c, likelyWeights(&c, b, 16e9)}
}

// Which GPUs an 8B model fits, in 16 bits and in four, with the settings that
// would make it fit.
func TestMemoryOfDevices(t *testing.T) {
	m, facts := eightFacts(t, "")
	weights := int64(0)
	for _, w := range facts.weights {
		weights += w.Bytes()
	}
	if weights < 16_000e6 || weights > 16_200e6 {
		t.Errorf("%d bytes of weights", weights)
	}
	devices, err := planDevices(m, facts)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]api.Verdict{
		"GPU, 8 GB": api.VerdictExceeds, "GPU, 12 GB": api.VerdictExceeds, "GPU, 16 GB": api.VerdictExceeds, "GPU, 24 GB": api.VerdictTight, "CPU": api.VerdictUnknown,
	}
	for _, d := range devices {
		if d.Memory.Verdict != want[d.Name] {
			t.Errorf("%s: %s, %s", d.Name, d.Memory.Verdict, d.Memory.Text)
		}
		if d.Name == "GPU, 12 GB" && !strings.Contains(d.Memory.Way, "four bits") {
			t.Errorf("the way out is %q", d.Memory.Way)
		}
		if d.Name == "GPU, 8 GB" && d.Memory.Err() == nil {
			t.Errorf("no error: %+v", d.Memory)
		}
	}
	m, facts = eightFacts(t, `, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}`)
	m.Inner.MaxTokens = 512
	i, _, err := memoryItem(m, facts, machine{planSizes(), 8<<30 - gpuTakenBytes, true})
	if err != nil || i.Verdict == api.VerdictExceeds || i.NeedBytes > i.HaveBytes {
		t.Errorf("in four bits: %+v, %v", i, err)
	}
}

// A way out is one: with it, the run fits.
func TestKnobsFit(t *testing.T) {
	m, facts := eightFacts(t, "")
	at := machine{free: 17e9}
	ways := knobsThatFit(m, facts, at)
	if len(ways) == 0 {
		t.Fatal("there is no way")
	}
	for _, w := range ways {
		if strings.HasPrefix(w, "its model in four bits") {
			four, _ := inFourBits(facts)
			if i, _, err := memoryItem(m, four, at); err != nil || i.Verdict == api.VerdictExceeds {
				t.Errorf("%s: %+v, %v", w, i, err)
			}
		}
	}
	if ways := knobsThatFit(m, facts, machine{free: 1e9}); len(ways) != 0 {
		t.Errorf("into 1 GB it would fit with %q", ways)
	}
	// Squeezed, it takes no more than there is.
	small := at
	small.free = 24e9
	i, need, err := memoryItem(m, facts, small)
	if err != nil || i.Verdict != api.VerdictTight || need.Total()+spareMemory > small.free || !strings.Contains(i.Text, "computed twice") {
		t.Errorf("%+v, %v", i, err)
	}
	if s := planSizes(); s.Scratch([]tensor.Product{{Rows: 2, Cols: 8, Inner: 4, B: tensor.FourBits}}, 2, 2) <= 0 {
		t.Error("a product takes nothing")
	}
}

func TestLinks(t *testing.T) {
	m := &run.Manifest{PeriodMillis: 600_000}
	// 31 deltas of 10 MB in 120 s are 20.7 Mbit/s.
	for mbit, want := range map[float64]api.Verdict{20: api.VerdictExceeds, 21: api.VerdictTight, 28: api.VerdictFits, 0: api.VerdictUnknown} {
		if l := linkOf(m, 10e6, 32, mbit); l.Verdict != want || l.UpBytes != 310e6 || l.DownBytes != 310e6 {
			t.Errorf("%v Mbit/s: %+v, want %s", mbit, l, want)
		}
	}
	if l := linkOf(m, 10e6, 1, 1); l.UpBytes != 0 || l.Verdict != api.VerdictFits {
		t.Errorf("one seat: %+v", l)
	}
}

func TestFitAdmission(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	other := strangerID(t)
	id := msg.RawCID([]byte("a run"))
	for _, tt := range []struct {
		m    run.Manifest
		want api.Verdict
		text string
	}{
		{run.Manifest{Launcher: other}, api.VerdictFits, "everybody"},
		{run.Manifest{Launcher: other, Admission: run.Admission{WorkBits: 20}}, api.VerdictFits, "2^20 hashes"},
		{run.Manifest{Launcher: other, Admission: run.Admission{Mode: run.AdmissionInvite}}, api.VerdictRefused, "there is none"},
		{run.Manifest{Launcher: other, Admission: run.Admission{Mode: run.AdmissionList}}, api.VerdictRefused, "is none"},
		{run.Manifest{Launcher: n.host.ID(), Admission: run.Admission{Mode: run.AdmissionList}}, api.VerdictFits, "launches"},
	} {
		if i := n.fitAdmission(&tt.m, id); i.Verdict != tt.want || !strings.Contains(i.Text, tt.text) || (i.Err() != nil) != (tt.want == api.VerdictRefused) {
			t.Errorf("%+v: %+v", tt.m.Admission, i)
		}
	}
}

// An invitation is what a run that asks for one is joined with.
func TestFitInvited(t *testing.T) {
	seed, id := launchedRun(t, "[inner]\nsequence_tokens = 64\n[admission]\nmode = \"invite\"\n")
	peers := seed.host.Addrs()[:1]
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	_, err := n.Join(t.Context(), api.JoinRequest{Run: id, Peers: peers}, quiet)
	wantCode(t, err, api.CodeRefused, "there is none")
	if e := api.AsError(err); e.Exit != 16 || !strings.Contains(e.Hint, "moot join --invite") {
		t.Errorf("exit %d, hint %q", e.Exit, e.Hint)
	}
	dir := n.runs.folder(cid.MustParse(id))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, runner.InviteFile), []byte("moot1-x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Join(t.Context(), api.JoinRequest{Run: id, Peers: peers}, quiet); err != nil {
		t.Errorf("with an invitation: %v", err)
	}
}

// Of what is needed everything is told when nobody has the model.
func TestFitWithoutModel(t *testing.T) {
	seed, id := launchedRun(t, "[inner]\nsequence_tokens = 64\n")
	r, err := seed.runs.find(id)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	n.configPatience = time.Hour // of which it needs nothing
	soon, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	f, err := n.fit(soon, seed.runs.view(r).runner.Manifest(), fitting{})
	if err != nil {
		t.Fatal(err)
	}
	if i := item(t, f, "memory"); i.Verdict != api.VerdictUnknown || !strings.Contains(i.Text, "at least") || i.Err() != nil {
		t.Errorf("memory is %+v", i)
	}
}
