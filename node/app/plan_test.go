package app

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/shard"
)

func TestPlan(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	req := api.LaunchRequest{Name: "run.toml", TOML: runText(m, d, `
rounds = 20
max_tokens = 100000
period = "100s"
seats = 10
[inner]
sequence_tokens = 64
batch_samples = 4
max_steps = 10
`)}
	untimed := req
	untimed.Quick = true
	if p, err := n.Plan(t.Context(), untimed, quiet); err != nil || p.Pace != (api.PlanPace{}) || p.Swarms[0].ExpectedRounds != 0 {
		t.Errorf("quick, before anything was timed: %+v, %v", p.Pace, err)
	}
	p, err := n.Plan(t.Context(), req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Refused) != 0 || p.Model.ID != m.ID || p.Data.ID != d.ID || p.Model.Parameters != m.Parameters {
		t.Errorf("plan is %+v", p)
	}
	train := &p.Data.Train
	if train.Rows != int(d.TrainRows) || p.Data.Eval.Rows != int(d.EvalRows) || len(train.Samples) != 3 || train.Tokens.Counted == 0 {
		t.Errorf("data is %+v", p.Data)
	}
	// Each sample shows which part the loss counts.
	for _, s := range train.Samples {
		if last := s.Parts[len(s.Parts)-1]; len(s.Parts) != 2 || s.Parts[0].Counted || !last.Counted || !strings.HasPrefix(last.Text, "Its ") {
			t.Errorf("sample %+v", s)
		}
	}
	manifest, err := n.manifest(t.Context(), &req, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	layout, err := manifest.Layout()
	if err != nil {
		t.Fatal(err)
	}
	if p.Traffic.DeltaBytes != fold.EncodedBytes(layout, 2) || p.Traffic.Seconds != 20 || len(p.Traffic.Links) != 8 {
		t.Errorf("traffic is %+v", p.Traffic)
	}
	for _, l := range p.Traffic.Links {
		if !(l.Busy > 0 && l.Busy <= l.BusyOverlapped && l.BusyOverlapped <= 1) || math.Abs(l.Busy-80/(80+l.Seconds)) > 1e-9 {
			t.Errorf("link is %+v", l)
		}
	}
	slow := *manifest
	slow.PeriodMillis, slow.Inner.MaxSteps, slow.Inner.OverlapSteps, slow.Seats = 100_000, 30, 5, 16
	wide, err := fold.NewLayout([]fold.Tensor{{Name: "w", Rows: 1000, Cols: 10_000}})
	if err != nil {
		t.Fatal(err)
	}
	// 15 deltas of 2.5 MB take 30 s at 10 Mbit/s, and 5 steps of 30 fill 80/6 s of that.
	for _, l := range planTraffic(&slow, wide).Links {
		if l.Mbit == 10 && l.Seats == 16 && (math.Abs(l.Busy-80./110) > 0.002 || math.Abs(l.BusyOverlapped-80/(110-80./6)) > 0.002) {
			t.Errorf("on a slow line: %+v", l)
		}
	}
	few := slow
	few.Inner.MaxSteps, few.Inner.OverlapSteps = 2, 0
	if got := planTraffic(&few, wide).OverlapSteps; got != 1 {
		t.Errorf("of a round of 2 steps it would take %d early", got)
	}
	if p.Length.Rounds != 20 || p.Length.Seconds != 2000 || p.Length.SamplesPerSeat != 40 {
		t.Errorf("length is %+v", p.Length)
	}
	perSample := float64(train.Tokens.Counted) / float64(train.Rows)
	for i, want := range []struct{ peers, seats, quorum, faulty int }{{1, 1, 1, 0}, {4, 4, 3, 1}, {16, 10, 7, 3}, {64, 10, 7, 3}} {
		s := p.Swarms[i]
		rounds := 1
		for float64(rounds*want.seats*40)*perSample < 100_000 && rounds < 20 {
			rounds++
		}
		if s.Peers != want.peers || s.Seats != want.seats || s.Guarantee.Quorum != want.quorum || s.Guarantee.Faulty != want.faulty || s.Rounds != uint64(rounds) {
			t.Errorf("swarm is %+v, want %+v and %d rounds", s, want, rounds)
		}
	}
	if len(p.Devices) != 5 || p.Devices[0].Memory.Verdict != api.VerdictFits {
		t.Errorf("devices are %+v", p.Devices)
	}
	// What is expected goes by steps that were taken here.
	pace := &p.Pace
	if pace.StepSeconds <= 0 || pace.Steps == 0 || pace.Steps > 10 || pace.Sharing != 1 || pace.Why != "" {
		t.Errorf("pace is %+v", pace)
	}
	for _, s := range p.Swarms {
		if s.ExpectedRoundSeconds < pace.TrainSeconds || s.ExpectedRounds < s.Rounds || s.ExpectedSeconds != float64(s.ExpectedRounds)*s.ExpectedRoundSeconds {
			t.Errorf("expected is %+v", s)
		}
	}
	// The next time nothing is read and nothing is timed again.
	var phases []string
	again, err := n.Plan(t.Context(), req, func(p api.Progress) { phases = append(phases, p.Phase) })
	if err != nil || again.Pace != *pace || !slices.Equal(phases, []string{"check"}) || again.Data.Train.Tokens.Counted != train.Tokens.Counted {
		t.Errorf("again: phases %q, pace %+v, %v", phases, again.Pace, err)
	}
	// Nor for a quick plan, which says what was timed before, however long ago, also
	// of as many rounds as there are now.
	n.paces.mu.Lock()
	at := n.paces.list[0].value.at.Add(-24 * time.Hour)
	n.paces.list[0].value.at = at
	n.paces.mu.Unlock()
	quick := req
	quick.Quick = true
	quick.TOML = strings.Replace(req.TOML, "max_tokens = 100000", "max_tokens = 90000", 1)
	if p, err := n.Plan(t.Context(), quick, quiet); err != nil || p.Pace.StepSeconds != pace.StepSeconds || !p.Pace.Timed.Equal(at) || p.Swarms[0].ExpectedRounds == 0 {
		t.Errorf("quick: %+v, %v", p.Pace, err)
	}
	// A run that finds its steps by itself has to come to its tokens.
	short := req
	short.TOML = strings.Replace(req.TOML, "max_steps = 10", "max_steps = 10\nstart_steps = 1", 1)
	p, err = n.Plan(t.Context(), short, quiet)
	if err != nil || !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.Contains(w, "20 rounds of 1 steps are") }) {
		t.Errorf("with few steps: %q, %v", p.Warnings, err)
	}
	// A machine that cannot take part cannot launch either.
	n.freeMemory = func() (int64, error) { return 1000, nil }
	p, err = n.Plan(t.Context(), req, quiet)
	if err != nil || len(p.Refused) != 1 || p.Refused[0].Code != api.CodeRAM {
		t.Errorf("without memory: %+v, %v", p.Refused, err)
	}
	_, err = n.Launch(t.Context(), req, quiet)
	wantCode(t, err, api.CodeRAM, p.Refused[0].Message)
}

// What a plan refuses because of the data, a launch refuses, and nobody hears
// of the run.
func TestPlanRefusesData(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	leaky := leakyData(t, n, d)
	for _, tt := range []struct{ data, more, want string }{
		{leaky, "inner.sequence_tokens = 64", "of the held-out rows are trained on too, so that what is measured on them is memory; the first is eval/00000.jsonl:1: the same as train/00000.jsonl:1"},
		{d.ID, "inner.sequence_tokens = 8", "none of 2400 rows gives a sample; the first is train/00000.jsonl:1: "},
	} {
		req := api.LaunchRequest{Name: "run.toml", TOML: runText(m, api.Dataset{ID: tt.data}, tt.more)}
		p, err := n.Plan(t.Context(), req, quiet)
		if err != nil || len(p.Refused) != 1 {
			t.Fatalf("%s: refused %+v, %v", tt.more, p.Refused, err)
		}
		wantCode(t, &p.Refused[0], api.CodeData, tt.want)
		_, err = n.Launch(t.Context(), req, quiet)
		wantCode(t, err, api.CodeData, tt.want)
	}
	if runs, err := n.Runs(t.Context()); err != nil || len(runs) != 0 {
		t.Errorf("runs are %+v, %v", runs, err)
	}
}

// leakyData is a data set made elsewhere whose held-out rows are those to train
// on: an import here would refuse it.
func leakyData(t *testing.T, n *node, d api.Dataset) string {
	t.Helper()
	dir := t.TempDir()
	root := cid.MustParse(d.ID)
	if err := os.CopyFS(dir, n.store.FS(t.Context(), root)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "eval")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "eval"), os.DirFS(filepath.Join(dir, "train"))); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(dir, "dataset.json")
	b, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	var x struct{ Train, Eval json.RawMessage }
	if err := json.Unmarshal(b, &x); err != nil {
		t.Fatal(err)
	}
	part := strings.ReplaceAll(string(x.Train), "train/", "eval/")
	b = []byte(strings.Replace(string(b), string(x.Eval), part, 1))
	if err := os.WriteFile(index, b, 0o600); err != nil {
		t.Fatal(err)
	}
	made, err := n.store.ImportDir(t.Context(), dir, shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.listDataset(t.Context(), made.Root, "leaky"); err != nil {
		t.Fatal(err)
	}
	return made.Root.String()
}
