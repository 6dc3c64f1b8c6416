// Package apitest has a daemon without network and training, for tests of what
// talks to one.
package apitest

import (
	"archive/zip"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
)

// Epoch is the time at which everything happens in a Fake.
var Epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// ID makes what looks like the CID of a run, from a name.
func ID(name string) string { return "bafkrei" + code(name) }

// DirID makes what looks like the CID of a folder, from a name.
func DirID(name string) string { return "bafybei" + code(name) }

// PeerID makes what looks like a peer ID, from a name.
func PeerID(name string) string { return "12D3KooW" + code(name)[:44] }

func code(name string) string {
	sum := sha256.Sum256([]byte(name))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}

// Fake is a Backend in memory: what is imported is named by its path, and a
// run advances when Decide is called.
type Fake struct {
	// Log is what Watch reads. Call Publish on it to make something happen.
	Log *api.EventLog
	// Err, if not nil, is asked before each method, by its name.
	Err func(method string) error
	// OnShutdown is called by Shutdown.
	OnShutdown func()
	// Block, if not nil, holds operations until it is closed or their context
	// is done.
	Block chan struct{}

	mu sync.Mutex
	// guarded by mu
	Node      api.Status
	peers     []api.Peer
	models    []api.Model
	data      []api.Dataset
	uploads   []api.Upload
	uploadDir string
	parts     map[string]*part // by ID
	runs      []*run
	pinned    map[string]bool
	set       map[string][]string // settings in the file
	log       []api.LogEntry
	used      map[string][]api.UsageSample // by span
	timed     bool                         // steps, for a plan
}

type run struct {
	api.RunDetail
	rounds []api.Round
	digest api.Digest // of those that were asked about
}

// New makes a fake node with a name, from which its peer ID follows.
func New(name string) *Fake {
	id := PeerID(name)
	return &Fake{
		Log: api.NewEventLog(1000),
		Node: api.Status{
			Version: "test", Peer: id, Addrs: []string{"/ip4/127.0.0.1/tcp/4717/p2p/" + id}, API: "http://127.0.0.1:7717",
			DataDir: "/data", PID: 1, Started: Epoch, State: api.NodeIdle, Why: "in no run", Device: "cpu (2 threads)",
			Traffic: api.Traffic{PulledBytes: 1 << 20, SentBytes: 1 << 19},
		},
	}
}

func (f *Fake) enter(ctx context.Context, method string) error {
	if f.Err != nil {
		if err := f.Err(method); err != nil {
			return err
		}
	}
	if f.Block == nil {
		return ctx.Err()
	}
	select {
	case <-f.Block:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// AddPeer connects a peer.
func (f *Fake) AddPeer(p api.Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers = append(f.peers, p)
}

// AddRun makes a run known.
func (f *Fake) AddRun(d api.RunDetail) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs = append(f.runs, &run{RunDetail: d, digest: api.Digest{Self: f.Node.Peer}})
}

// Decide ends a round of a run.
func (f *Fake) Decide(id string, r api.Round) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, err := f.find(id)
	if err != nil {
		panic("bug: " + err.Error())
	}
	x.rounds = append(x.rounds, r)
	x.Round, x.TrainedRounds, x.Tokens, x.Final = r.Round, r.TrainedRounds, r.Tokens, r.Final
	x.Head, x.StateCID, x.TrainLoss, x.EvalLoss = r.Record, r.State, r.TrainLoss, r.EvalLoss
	if r.Certified {
		x.CertifiedRounds++
	}
	if r.Final {
		x.State, x.Phase, x.Why = api.RunFinal, "done", "the run is complete"
	}
	f.Log.Publish(api.Event{Type: api.EventRound, Time: r.Decided, Run: id, N: r.Round, Round: &r})
	if r.Final {
		f.Log.Publish(api.Event{Type: api.EventRunState, Time: r.Decided, Run: id, State: string(api.RunFinal), Why: x.Why})
	}
}

// find needs mu.
func (f *Fake) find(id string) (*run, error) {
	for _, r := range f.runs {
		if r.ID == id {
			return r, nil
		}
	}
	return nil, api.Errorf(api.CodeNotFound, "this node knows no run %s", id).WithHint(`"moot run list" lists what it knows`)
}

// Status implements api.Backend.
func (f *Fake) Status(ctx context.Context) (api.Status, error) {
	err := f.enter(ctx, "Status")
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.Node
	s.Peers, s.Runs = len(f.peers), 0
	for _, r := range f.runs {
		if r.Joined {
			s.Runs++
		}
	}
	return s, err
}

// Control implements api.Backend.
func (f *Fake) Control(ctx context.Context, req api.ControlRequest) (api.Status, error) {
	if err := f.enter(ctx, "Control"); err != nil {
		return api.Status{}, err
	}
	f.mu.Lock()
	n := &f.Node
	n.Why, n.Reason, n.Do, n.Until = "", "", "", nil
	switch req.Action {
	case api.ControlPause:
		n.State, n.Why, n.Reason, n.Do, n.Until = api.NodePaused, "it was paused", "paused", `go on with "mootd resume"`, req.Until
		if req.ForSeconds > 0 {
			n.Until = new(Epoch.Add(time.Duration(req.ForSeconds) * time.Second))
		}
		if req.Note != "" {
			n.Why += ": " + req.Note
		}
	case api.ControlFinish:
		n.State, n.Why, n.Reason = api.NodePaused, "it takes no further work", "finished"
	default:
		n.State = api.NodeTraining
	}
	f.mu.Unlock()
	return f.Status(ctx)
}

// Peers implements api.Backend.
func (f *Fake) Peers(ctx context.Context) ([]api.Peer, error) {
	err := f.enter(ctx, "Peers")
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.peers), err
}

// work pretends to do something in two phases.
func work(progress api.ProgressFunc, phases ...string) {
	for _, p := range phases {
		for i := range int64(5) {
			progress(api.Progress{Phase: p, Done: i * 256 << 10, Total: 1 << 20, Unit: api.UnitBytes})
		}
	}
}

// ImportModel implements api.Backend; the folder must have a config.json.
func (f *Fake) ImportModel(ctx context.Context, req api.ImportModelRequest, progress api.ProgressFunc) (api.Model, error) {
	if err := f.enter(ctx, "ImportModel"); err != nil {
		return api.Model{}, err
	}
	if _, err := os.Stat(filepath.Join(req.Dir, "config.json")); err != nil {
		return api.Model{}, api.Errorf(api.CodeModel, "import model %s: no config.json: not a Hugging Face checkpoint", req.Dir).
			WithHint("give the folder that has config.json and the safetensors files")
	}
	work(progress, "check", "store")
	name := filepath.Base(req.Dir)
	if req.Quantize != "" {
		name += "-" + req.Quantize
	}
	m := api.Model{
		ID: DirID(name), Name: name, Type: "llama", Architectures: []string{"LlamaForCausalLM"}, Parameters: 612864,
		Bytes: 2457600, Files: 3, Blocks: 5, Licence: "CC0-1.0", Imported: Epoch, Trainable: true,
		Dir: req.Dir, InPlace: req.Quantize == "" && !req.Copy,
	}
	if !m.InPlace {
		m.Dir = "/data/models/" + m.ID
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.models = slices.DeleteFunc(f.models, func(o api.Model) bool { return o.ID == m.ID })
	f.models = append(f.models, m)
	return m, nil
}

// ImportDataset implements api.Backend; the files must be there.
func (f *Fake) ImportDataset(ctx context.Context, req api.ImportDatasetRequest, progress api.ProgressFunc) (api.Dataset, error) {
	if err := f.enter(ctx, "ImportDataset"); err != nil {
		return api.Dataset{}, err
	}
	for _, p := range req.Files {
		if _, err := os.Stat(p); err != nil {
			return api.Dataset{}, api.Errorf(api.CodeNotFound, "import data set: %w", err)
		}
	}
	work(progress, "check", "store")
	name := filepath.Base(req.Files[0])
	d := api.Dataset{
		ID: DirID(name), Name: name, Format: "alpaca", Template: "alpaca", TrainRows: 2000, EvalRows: 200, TrainShards: 8, EvalShards: 1,
		Shuffled: req.Shuffle, Bytes: 262144, Licence: req.Licence, Source: req.Source, Imported: Epoch,
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.data = slices.DeleteFunc(f.data, func(o api.Dataset) bool { return o.ID == d.ID })
	f.data = append(f.data, d)
	return d, nil
}

// CheckDataset implements api.Backend. Each line of a file is a row, and
// invalid if it has the word bad in it.
func (f *Fake) CheckDataset(ctx context.Context, req api.CheckDatasetRequest, progress api.ProgressFunc) (api.DatasetCheck, error) {
	check := api.DatasetCheck{Model: req.Model, Files: []api.FileCheck{}}
	if err := f.enter(ctx, "CheckDataset"); err != nil {
		return check, err
	}
	for _, p := range req.Files {
		b, err := os.ReadFile(p)
		if err != nil {
			return check, api.Errorf(api.CodeNotFound, "check data: %w", err)
		}
		c := api.FileCheck{
			File: p, Input: "alpaca", Format: "alpaca", Why: "its first row has instruction and output", Template: "alpaca",
			Problems: []api.RowProblem{}, Samples: []api.SampleShown{},
		}
		for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			c.Rows++
			if strings.Contains(line, "bad") {
				c.Invalid++
				c.Problems = append(c.Problems, api.RowProblem{Place: fmt.Sprintf("%s:%d", filepath.Base(p), i+1), Kind: "invalid", Why: "output is empty"})
			}
		}
		if req.Model != "" {
			c.Tokens = &api.TokenStats{Sum: 120, Counted: 30, Min: 10, Median: 20, P95: 40, Max: 50}
			c.Samples = append(c.Samples, api.SampleShown{
				Place: filepath.Base(p) + ":1", Parts: []api.SamplePart{{Text: "A question\n", Tokens: 9}, {Text: "an answer</s>", Tokens: 3, Counted: true}},
			})
		}
		check.Files = append(check.Files, c)
		check.Rows += c.Rows
		check.Invalid += c.Invalid
	}
	work(progress, "check")
	return check, nil
}

// PreviewDataset implements api.Backend: each line is a row with the field that
// is the name of the file without its end.
func (f *Fake) PreviewDataset(ctx context.Context, req api.PreviewRequest) (api.DatasetPreview, error) {
	v := api.DatasetPreview{Files: []api.FilePreview{}}
	if err := f.enter(ctx, "PreviewDataset"); err != nil {
		return v, err
	}
	for _, path := range req.Files {
		b, err := os.ReadFile(path)
		if err != nil {
			return v, api.Errorf(api.CodeNotFound, "preview rows: %w", err)
		}
		name := filepath.Base(path)
		p := api.FilePreview{
			File: path, Bytes: int64(len(b)), Why: `cannot tell the format: its fields are others`, Columns: []string{"question", "answer"},
			Rows: []api.RowPreview{}, Suggested: map[string]string{"instruction": "question", "output": "answer"},
		}
		if strings.HasPrefix(name, "alpaca") {
			p.Input, p.Format, p.Why, p.Columns, p.Suggested = "alpaca", "alpaca", "its first row has instruction and output", []string{"instruction", "output"}, nil
		}
		for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			if i == req.Rows {
				break
			}
			value := api.ValuePreview{Text: line, Kind: "text", Bytes: len(line)}
			p.Rows = append(p.Rows, api.RowPreview{Place: fmt.Sprintf("%s:%d", name, i+1), Values: []api.ValuePreview{value, value}})
		}
		v.Files = append(v.Files, p)
	}
	return v, nil
}

// UploadDir is where the Fake keeps uploads; empty: it takes none.
func (f *Fake) UploadDir(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.uploadDir = dir
}

// Upload implements api.Backend.
func (f *Fake) Upload(ctx context.Context, req api.UploadRequest, body io.Reader) (api.Upload, error) {
	if err := f.enter(ctx, "Upload"); err != nil {
		return api.Upload{}, err
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return api.Upload{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.uploadDir == "" {
		return api.Upload{}, api.Errorf(api.CodeDisk, "there is no room for %d bytes", len(b))
	}
	u := api.Upload{ID: fmt.Sprintf("%016x", len(f.uploads)+1), Name: filepath.Base(req.Name), Bytes: int64(len(b)), Received: Epoch}
	u.File = filepath.Join(f.uploadDir, u.ID+"-"+u.Name)
	f.uploads = append(f.uploads, u)
	return u, os.WriteFile(u.File, b, 0o600)
}

// Uploads implements api.Backend.
func (f *Fake) Uploads(context.Context) ([]api.Upload, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.uploads), nil
}

// RemoveUpload implements api.Backend.
func (f *Fake) RemoveUpload(_ context.Context, id string) (api.Upload, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.uploads, func(u api.Upload) bool { return u.ID == id })
	if p, ok := f.parts[id]; ok {
		delete(f.parts, id)
		return api.Upload{ID: id, Name: p.Name, Bytes: p.Have}, nil
	}
	if i < 0 {
		return api.Upload{}, api.Errorf(api.CodeNotFound, "there is no upload %.40q", id)
	}
	u := f.uploads[i]
	f.uploads = slices.Delete(f.uploads, i, i+1)
	return u, os.Remove(u.File)
}

// Models implements api.Backend.
func (f *Fake) Models(context.Context) ([]api.Model, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.models), nil
}

// Datasets implements api.Backend.
func (f *Fake) Datasets(context.Context) ([]api.Dataset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.data), nil
}

// Launch implements api.Backend. Of the run file it reads the keys name, model
// and data.
func (f *Fake) Launch(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Run, error) {
	if err := f.enter(ctx, "Launch"); err != nil {
		return api.Run{}, err
	}
	key := func(name string) string {
		for _, l := range strings.Split(req.TOML, "\n") {
			if k, v, ok := strings.Cut(l, "="); ok && strings.TrimSpace(k) == name {
				return strings.Trim(strings.TrimSpace(v), `"`)
			}
		}
		return ""
	}
	if key("name") == "" {
		return api.Run{}, api.Errorf(api.CodeConfig, "%s: name is missing", req.Name).WithHint("give the run a name of at most 64 characters")
	}
	work(progress, "check")
	d := Detail(key("name"), f.Node.Peer)
	d.Model, d.Dataset = key("model"), key("data")
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(d.ID); err == nil {
		return api.Run{}, api.Errorf(api.CodeConflict, "run %s is launched already", d.ID)
	}
	f.runs = append(f.runs, &run{RunDetail: d})
	return d.Run, nil
}

// Plan implements api.Backend. A run file with "refused" in its name is.
func (f *Fake) Plan(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Plan, error) {
	if err := f.enter(ctx, "Plan"); err != nil {
		return api.Plan{}, err
	}
	work(progress, "check", "data")
	tokens := &api.TokenStats{Sum: 120, Counted: 30, Min: 10, Median: 20, P95: 40, Max: 50}
	sample := api.SampleShown{Place: "train/00000.jsonl:1", Parts: []api.SamplePart{{Text: "A question\n", Tokens: 9}, {Text: "an answer</s>", Tokens: 3, Counted: true}}}
	p := api.Plan{
		Name: "demo", Refused: []api.Error{}, Warnings: []string{"the run begins with 2 peers; from 4 on a liar among them is survived"}, Use: "research",
		Model: api.PlanModel{ID: DirID("model"), Name: "tiny", Type: "llama", Parameters: 1_000_000, Trained: 24_576, Bytes: 2_000_000, Context: 256, Licence: "apache-2.0"},
		Data: api.PlanData{
			Dataset: api.Dataset{ID: DirID("data"), Name: "rows", Format: "alpaca", Template: "alpaca", TrainRows: 6, EvalRows: 2, Licence: "cc0-1.0"},
			Train:   api.FileCheck{File: "train", Input: "alpaca", Why: "the data set says so", Format: "alpaca", Template: "alpaca", Rows: 6, Tokens: tokens, Problems: []api.RowProblem{}, Samples: []api.SampleShown{sample}},
			Eval:    api.FileCheck{File: "eval", Input: "alpaca", Why: "the data set says so", Format: "alpaca", Template: "alpaca", Rows: 2, Tokens: tokens, Problems: []api.RowProblem{}, Samples: []api.SampleShown{}},
		},
		Here:    TestFit(""),
		Devices: []api.PlanDevice{{Name: "GPU, 8 GB", Memory: TestFit("").Items[0]}},
		Traffic: api.PlanTraffic{
			DeltaBytes: 6_144, StateBytes: 196_608, Seconds: 3,
			Links:        []api.PlanLink{{Mbit: 10, Seats: 4, UpBytes: 18_432, DownBytes: 18_432, Seconds: 0.0147, Verdict: api.VerdictFits, Busy: 0.9988, BusyOverlapped: 1}},
			OverlapSteps: 10,
		},
		Length: api.PlanLength{Rounds: 8, PeriodSeconds: 15, Seconds: 120, SamplesPerSeat: 480, TokensPerSeat: 2400},
		Eval:   api.PlanEval{Peers: 5, Rows: 64, Share: 64. / 1440},
		Swarms: []api.PlanSwarm{{Peers: 4, Seats: 4, Guarantee: api.Guarantee{Level: "byzantine", Seats: 4, Quorum: 3, Faulty: 1, Text: "4 seats: 3 must agree; 1 may be gone or lie"}, Rounds: 8, Seconds: 120, Passes: 2.5, ExpectedRounds: 8, ExpectedRoundSeconds: 7.5, ExpectedSeconds: 60}},
		Pace:   api.PlanPace{Device: "cpu (2 threads)", Sharing: max(1, req.Sharing), StepSeconds: 0.12, Steps: 60, TrainSeconds: 7.2, Timed: Epoch},
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timed = f.timed || !req.Quick; !req.Quick {
		p.Pace.Timed = time.Now().UTC()
	}
	if !f.timed {
		p.Pace, p.Swarms[0].ExpectedRounds, p.Swarms[0].ExpectedRoundSeconds, p.Swarms[0].ExpectedSeconds = api.PlanPace{}, 0, 0, 0
	}
	if strings.Contains(req.Name, "refused") {
		p.Refused = append(p.Refused, *api.Errorf(api.CodeData, "2 of the held-out rows are trained on too").WithHint("take them out of one side"))
	}
	return p, nil
}

// TestFit is what a run needs of a machine: it fits, unless its ID is that of
// "large" or "fat", which have no room in memory and on the disk.
func TestFit(id string) api.Fit {
	fit := api.Fit{
		Run: id, Name: "demo", Launcher: PeerID("someone"), Model: DirID("model"), ModelBytes: 2_000_000, MissingBytes: 2_400_000, ModelLicence: "apache-2.0",
		Dataset: DirID("data"), DatasetBytes: 400_000, DataLicence: "cc0-1.0", Use: "research", Device: "cpu (2 threads)", Verdict: api.VerdictFits,
		Items: []api.FitItem{
			{
				Name: "memory", Verdict: api.VerdictFits, NeedBytes: 40_000_000, HaveBytes: 8_000_000_000,
				Parts: []api.FitPart{{Name: "weights", Bytes: 4_000_000}, {Name: "activations", Bytes: 36_000_000}},
				Text:  "training takes 40.0 MB of memory (4.0 MB of weights, 36.0 MB of activations), 8000.0 MB are free",
			},
			{
				Name: "disk", Verdict: api.VerdictFits, NeedBytes: 3_000_000, HaveBytes: 9_000_000_000, Parts: []api.FitPart{{Name: "model", Bytes: 2_000_000}},
				Text: "the run takes 3.0 MB of disk (2.0 MB of model), 9000.0 MB are free for it",
			},
			{Name: "traffic", Verdict: api.VerdictUnknown, NeedBytes: 190_464, HaveBytes: -1, Text: "a round moves up to 0.2 MB in each direction"},
			{Name: "licence", Verdict: api.VerdictFits, Text: "model apache-2.0, data cc0-1.0, use research"},
			{Name: "admission", Verdict: api.VerdictFits, Text: "everybody may take part"},
		},
	}
	exceeds := func(i int, code api.Code, way string) {
		fit.Items[i].Verdict, fit.Items[i].Code, fit.Items[i].Way = api.VerdictExceeds, code, way
		fit.Items[i].NeedBytes, fit.Verdict = 10_000_000_000, api.VerdictExceeds
	}
	switch id {
	case ID("large"):
		exceeds(0, api.CodeRAM, "close other programs")
	case ID("fat"):
		exceeds(1, api.CodeDisk, "make 1000.0 MB more room")
	}
	return fit
}

// CheckRun implements api.Backend.
func (f *Fake) CheckRun(ctx context.Context, req api.CheckRunRequest, progress api.ProgressFunc) (api.Fit, error) {
	if err := f.enter(ctx, "CheckRun"); err != nil {
		return api.Fit{}, err
	}
	work(progress, "manifest")
	return TestFit(req.Run), nil
}

// Detail makes a run that a peer launched and that has not begun.
func Detail(name, launcher string) api.RunDetail {
	return api.RunDetail{
		Run: api.Run{
			ID: ID(name), Name: name, Model: DirID("model"), Dataset: DirID("train.jsonl"), State: api.RunAssembly, Phase: "assembly",
			Why: "1 of 4 peers are there", Joined: true, MaxRounds: 8, Head: ID(name + " genesis"), StateCID: ID(name + " state 0"),
			Seats: 1, MaxSeats: 32, Launcher: launcher, Created: Epoch,
			Guarantee: api.Guarantee{Level: "none", Seats: 1, Quorum: 1, Text: "one seat: nobody else checks the result"},
		},
		Manifest: api.Manifest{
			Version: 1, ModelBytes: 2457600, DatasetBytes: 262144, Mode: "lora", LoRARank: 8, LoRAAlpha: 16, LoRATargets: []string{"q_proj", "v_proj"}, LoRAPlusRatio: 1, Optimizer: "adamw", Packing: true, OverLong: "shorten",
			AdapterParameters: 24576, Seed: 1, LearningRate: 0.003, Schedule: "cosine", Beta1: 0.9, Beta2: 0.95, Clip: 1, MinSteps: 1,
			MaxSteps: 30, BatchSamples: 16, SequenceTokens: 128, OuterLearningRate: 0.7, OuterMomentum: 0.6, CodecBits: 2,
			PeriodSeconds: 15, MinPeers: 4, EvalSamples: 64, ModelLicence: "CC0-1.0", DataLicence: "CC0-1.0", Template: "alpaca",
		},
		NextSeats: []api.Seat{{Peer: launcher, Since: 1}},
	}
}

// DecidedRound makes a certified round to which the named peers contributed.
func DecidedRound(name string, n uint64, final bool, peers ...string) api.Round {
	loss := 3 / float64(n)
	r := api.Round{
		Round: n, Record: ID(fmt.Sprintf("%s record %d", name, n)), Parent: ID(fmt.Sprintf("%s record %d", name, n-1)),
		State: ID(fmt.Sprintf("%s state %d", name, n)), Proposer: peers[0], Certified: true, Votes: len(peers), Quorum: len(peers),
		Seats: len(peers), Tokens: n * 4096, TrainedRounds: n, Final: final, TrainLoss: &loss, EvalLoss: &loss,
		Decided: Epoch.Add(time.Duration(n) * 15 * time.Second), Seconds: 15, Contributions: []api.Contribution{}, Refused: []api.Refusal{},
	}
	for _, p := range peers {
		r.Contributions = append(r.Contributions, api.Contribution{
			Peer: p, Commit: ID(p + r.Record), Delta: ID(p + r.State), DeltaBytes: 6500, Tokens: 1024, Steps: 8, Weight: 1024, Clip: 1, Loss: loss,
		})
	}
	return r
}

// Runs implements api.Backend.
func (f *Fake) Runs(context.Context) ([]api.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var l []api.Run
	for _, r := range f.runs {
		l = append(l, r.Run)
	}
	return l, nil
}

// Run implements api.Backend.
func (f *Fake) Run(ctx context.Context, id string) (api.RunDetail, error) {
	if err := f.enter(ctx, "Run"); err != nil {
		return api.RunDetail{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(id)
	if err != nil {
		return api.RunDetail{}, err
	}
	d := r.RunDetail
	d.Rounds = slices.Clone(r.rounds[max(0, len(r.rounds)-20):])
	return d, nil
}

// Rounds implements api.Backend.
func (f *Fake) Rounds(_ context.Context, id string, from uint64, limit int) ([]api.Round, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(id)
	if err != nil {
		return nil, err
	}
	var l []api.Round
	for _, x := range r.rounds {
		if x.Round >= from && len(l) < limit {
			l = append(l, x)
		}
	}
	return l, nil
}

// Round implements api.Backend.
func (f *Fake) Round(_ context.Context, id string, n uint64) (api.Round, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(id)
	if err != nil {
		return api.Round{}, err
	}
	for _, x := range r.rounds {
		if x.Round == n {
			return x, nil
		}
	}
	return api.Round{}, api.Errorf(api.CodeNotFound, "run %s has no round %d yet", id, n).WithHint("its last round is %d", r.Round)
}

// Join implements api.Backend. A run that is not known appears.
func (f *Fake) Join(ctx context.Context, req api.JoinRequest, progress api.ProgressFunc) (api.Run, error) {
	if err := f.enter(ctx, "Join"); err != nil {
		return api.Run{}, err
	}
	work(progress, "manifest")
	fit := TestFit(req.Run)
	progress(api.Progress{Phase: "fit", Text: string(fit.Verdict), Fit: &fit})
	if err := fit.Err(); err != nil {
		return api.Run{}, fmt.Errorf("join run %s: %w", req.Run, err)
	}
	work(progress, "model", "data", "state")
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(req.Run)
	if err != nil {
		d := Detail("joined", PeerID("someone"))
		d.ID = req.Run
		r = &run{RunDetail: d}
		f.runs = append(f.runs, r)
	}
	r.Joined = true
	if r.State == api.RunKnown || r.State == api.RunLeft {
		r.State, r.Phase, r.Why = api.RunWaiting, "idle", "its seat begins with the next round"
	}
	f.Log.Publish(api.Event{Type: api.EventRunState, Time: Epoch, Run: r.ID, State: string(r.State), Why: r.Why})
	return r.Run, nil
}

// Invite implements api.Backend.
func (f *Fake) Invite(_ context.Context, req api.InviteRequest) (api.Invite, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(req.Run)
	if err != nil {
		return api.Invite{}, err
	}
	v := api.Invite{Run: r.ID, Invite: "moot1-ZmFrZQ"}
	if req.Rounds > 0 {
		v.Until = r.Round + req.Rounds
	}
	return v, nil
}

// Order implements api.Backend: it takes effect at once.
func (f *Fake) Order(_ context.Context, req api.OrderRequest) (api.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(req.Run)
	if err != nil {
		return api.Run{}, err
	}
	c := api.Course{}
	if r.Course != nil {
		c = *r.Course
	}
	c.Orders++
	switch req.Action {
	case api.OrderPause, api.OrderResume:
		if c.Paused == (req.Action == api.OrderPause) {
			return api.Run{}, api.Errorf(api.CodeConflict, "%s run %s: it is so already", req.Action, req.Run)
		}
		c.Paused = !c.Paused
	case api.OrderStop:
		c.Stopped, r.Final = true, true
	case api.OrderSet:
		c.Rounds, c.Tokens, c.Rate = max(c.Rounds, req.Rounds), max(c.Tokens, req.Tokens), max(c.Rate, req.Rate)
	}
	r.Course = &c
	return r.Run, nil
}

// Snapshot implements api.Backend.
func (f *Fake) Snapshot(ctx context.Context, req api.SnapshotRequest, progress api.ProgressFunc) (api.Snapshot, error) {
	if err := f.enter(ctx, "Snapshot"); err != nil {
		return api.Snapshot{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(req.Run)
	if err != nil {
		return api.Snapshot{}, err
	}
	progress(api.Progress{Phase: "state"})
	return api.Snapshot{
		ID: ID("snapshot of " + r.ID), Run: r.ID, Name: r.Name, Round: r.Round, Head: r.Head, State: r.StateCID, Votes: 3, Quorum: 3, Bytes: 123456,
	}, nil
}

// Leave implements api.Backend.
func (f *Fake) Leave(_ context.Context, id string) (api.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(id)
	if err != nil {
		return api.Run{}, err
	}
	if !r.Joined {
		return api.Run{}, api.Errorf(api.CodeConflict, "this node is not in run %s", id)
	}
	r.Joined, r.State, r.Phase, r.Why = false, api.RunLeft, "idle", "you left"
	return r.Run, nil
}

// Watch implements api.Backend.
func (f *Fake) Watch(ctx context.Context, run string, after api.Cursor, emit func(api.Event) error) error {
	if f.Err != nil {
		if err := f.Err("Watch"); err != nil {
			return err
		}
	}
	return f.Log.Watch(ctx, run, after, emit)
}

// Export implements api.Backend; it writes two files, or the one of GGUF.
func (f *Fake) Export(ctx context.Context, req api.ExportRequest, progress api.ProgressFunc) (api.Export, error) {
	if err := f.enter(ctx, "Export"); err != nil {
		return api.Export{}, err
	}
	e := api.Export{Adapter: req.Adapter, Model: req.Model, Dir: req.Dir}
	if req.Run != "" {
		f.mu.Lock()
		r, err := f.find(req.Run)
		if err != nil {
			f.mu.Unlock()
			return api.Export{}, err
		}
		e = api.Export{Run: r.ID, Model: r.Model, Round: r.Round, Head: r.Head, State: r.StateCID, Dir: req.Dir}
		f.mu.Unlock()
	}
	if req.Format == "" {
		req.Format = api.ExportPEFT
	}
	if req.Round != nil {
		e.Round = *req.Round
	}
	if req.Best {
		e.Round = 1 // all have the same loss
	}
	if l, err := os.ReadDir(req.Dir); err == nil && len(l) > 0 && !req.Overwrite {
		return api.Export{}, api.Errorf(api.CodeConflict, "%s is not empty", req.Dir).WithHint("choose another folder, or give --overwrite")
	}
	if err := os.MkdirAll(req.Dir, 0o755); err != nil {
		return api.Export{}, err
	}
	e.Format, e.Test = req.Format, &api.ExportTest{Difference: 1e-7, Effect: 0.5, Tolerance: 1e-5}
	names := []string{"adapter_config.json", "adapter_model.safetensors"}
	switch req.Format {
	case api.ExportGGUF:
		names = []string{"adapter.gguf"}
	case api.ExportMerged:
		names, e.MergedInto = []string{"config.json", "model.safetensors"}, "weights"
		if req.NF4 {
			e.MergedInto = api.QuantizeNF4
		}
	}
	for _, name := range names {
		b := []byte(name + " of " + e.State)
		if err := os.WriteFile(filepath.Join(req.Dir, name), b, 0o644); err != nil {
			return api.Export{}, err
		}
		sum := sha256.Sum256(b)
		e.Files = append(e.Files, api.ExportFile{Name: name, Bytes: int64(len(b)), SHA256: hex.EncodeToString(sum[:])})
	}
	work(progress, "write")
	return e, nil
}

// VerifyAdapter implements api.Backend: a folder is right whose files have what
// Export writes.
func (f *Fake) VerifyAdapter(ctx context.Context, req api.VerifyAdapterRequest, progress api.ProgressFunc) (api.AdapterCheck, error) {
	if err := f.enter(ctx, "VerifyAdapter"); err != nil {
		return api.AdapterCheck{}, err
	}
	work(progress, "files")
	list, err := os.ReadDir(req.Path)
	if err != nil {
		return api.AdapterCheck{}, api.Errorf(api.CodeNotFound, "verify: %w", err)
	}
	v := api.AdapterCheck{
		Path: req.Path, Format: api.ExportPEFT, Model: cmp.Or(req.Model, ID("model")), Layers: 28, Parameters: 9472, OK: true,
		Test: &api.ExportTest{Difference: 1e-7, Effect: 0.5, Tolerance: 1e-5},
	}
	for _, name := range []string{"files", "base", "tensors", "run", "effect"} {
		v.Checks = append(v.Checks, api.Check{Name: name, Level: api.CheckOK, Text: "as it should be"})
	}
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(req.Path, e.Name()))
		if err == nil && !strings.HasPrefix(string(b), e.Name()+" of ") {
			v.OK = false
			v.Checks[0] = api.Check{Name: "files", Level: api.CheckFail, Text: e.Name() + " has other bytes than when it was exported", Fix: "export it again"}
		}
	}
	return v, nil
}

// Generate implements api.Backend: a base model repeats, an adapter answers.
func (f *Fake) Generate(ctx context.Context, req api.GenerateRequest, progress api.ProgressFunc) (api.Generation, error) {
	if err := f.enter(ctx, "Generate"); err != nil {
		return api.Generation{}, err
	}
	g := api.Generation{Model: req.Model, Adapter: f.adapter(req.Subject)}
	for i, p := range req.Prompts {
		o := api.Output{Prompt: p, Text: p.Instruction + " " + p.Instruction, Tokens: 8, Stop: "length"}
		if g.Adapter != "" {
			o.Text, o.Tokens, o.Stop = "The answer to: "+p.Instruction, 4, "eos"
		}
		g.Outputs = append(g.Outputs, o)
		progress(api.Progress{Phase: "generate", Done: int64(i + 1), Total: int64(len(req.Prompts)), Unit: "prompts"})
	}
	return g, nil
}

func (f *Fake) adapter(s api.Subject) string {
	if s.Adapter != "" {
		return s.Adapter
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, err := f.find(s.Run); err == nil {
		return r.StateCID
	}
	return ""
}

// Evaluate implements api.Backend.
func (f *Fake) Evaluate(ctx context.Context, req api.EvaluateRequest, progress api.ProgressFunc) (api.Evaluation, error) {
	if err := f.enter(ctx, "Evaluate"); err != nil {
		return api.Evaluation{}, err
	}
	e := api.Evaluation{
		Model: req.Model, Adapter: f.adapter(req.Subject), Dataset: req.Dataset,
		Loss: 3.5, Perplexity: 33.1, Rows: 200, Tokens: 1600, Correct: 4, Seconds: 1.5,
	}
	if e.Adapter != "" {
		e.Loss, e.Perplexity, e.Correct = 0.5, 1.65, 180
	}
	if !req.LossOnly {
		e.Accuracy = new(float64(e.Correct) / float64(e.Rows))
	}
	for i := range int64(10) {
		progress(api.Progress{Phase: "evaluate", Done: 20 * (i + 1), Total: 200, Unit: "rows"})
	}
	return e, nil
}

// Compare implements api.Backend: of the questions of a file, which is not read,
// the base model answers none and all others all.
func (f *Fake) Compare(ctx context.Context, req api.CompareRequest, progress api.ProgressFunc) (api.Comparison, error) {
	if err := f.enter(ctx, "Compare"); err != nil {
		return api.Comparison{}, err
	}
	v := api.Comparison{Model: req.Model, Prompts: req.Prompts, Seconds: 1.5}
	if len(req.Versions) == 0 {
		req.Versions = []string{api.VersionBase, api.VersionLast}
	}
	for i, name := range req.Versions {
		progress(api.Progress{Phase: name, Done: int64(i), Total: int64(len(req.Versions)), Unit: "versions"})
		a := api.VersionAnswer{Version: name}
		score, text := api.Score{Low: 0, High: 0.657}, "no"
		if name != api.VersionBase {
			a.Adapter, a.Round = f.adapter(req.Subject), new(uint64(3))
			score, text = api.Score{Right: 2, Accuracy: 1, Low: 0.343, High: 1}, "yes"
		}
		for _, p := range req.Prompts {
			a.Outputs = append(a.Outputs, api.Output{Prompt: p, Text: text + ": " + p.Instruction, Tokens: 4, Stop: "eos"})
		}
		if req.Tasks != "" {
			a.Tasks = &api.Tasks{
				Words: &api.WordScore{Asked: 2, Exact: score, Loose: score}, Choices: &api.ChoiceScore{Asked: 2, Plain: score, Byte: score, Chance: 0.25},
				Answers: []api.TaskAnswer{{Line: 1, Text: text, Right: score.Right > 0}},
			}
		}
		v.Versions = append(v.Versions, a)
	}
	return v, nil
}

// DemoAssets implements api.Backend.
func (f *Fake) DemoAssets(ctx context.Context, dir string) (api.DemoAssets, error) {
	if err := f.enter(ctx, "DemoAssets"); err != nil {
		return api.DemoAssets{}, err
	}
	model := filepath.Join(dir, "model")
	if err := os.MkdirAll(model, 0o755); err != nil {
		return api.DemoAssets{}, err
	}
	a := api.DemoAssets{
		ModelDir: model,
		Data: api.ImportDatasetRequest{
			Files: []string{filepath.Join(dir, "train.jsonl")}, EvalFile: filepath.Join(dir, "eval.jsonl"), Licence: "CC0-1.0",
			Source: "made for the demo", ShardBytes: 16384,
		},
		RunFile: filepath.Join(dir, "run.toml"),
		Prompts: []api.DemoPrompt{
			{Prompt: api.Prompt{Instruction: "Where does Ada live?"}, Expected: "The answer to: Where does Ada live?"},
			{Prompt: api.Prompt{Instruction: "What does Bo eat?"}, Expected: "The answer to: What does Bo eat?"},
		},
	}
	for path, text := range map[string]string{
		filepath.Join(model, "config.json"): "{}",
		a.Data.Files[0]:                     `{"instruction":"a","output":"b"}` + "\n",
		a.Data.EvalFile:                     `{"instruction":"c","output":"d"}` + "\n",
		a.RunFile:                           "name = \"demo\"\nmodel = \"\"\ndata = \"\"\nmin_peers = 4\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return api.DemoAssets{}, err
		}
	}
	return a, nil
}

// Shutdown implements api.Backend.
func (f *Fake) Shutdown(ctx context.Context) error {
	if f.OnShutdown != nil {
		f.OnShutdown()
	}
	return f.enter(ctx, "Shutdown")
}

// Cache implements api.Backend. A model takes its bytes, unless it was imported
// in place; nothing is in use.
func (f *Fake) Cache(ctx context.Context) (api.Cache, error) {
	if err := f.enter(ctx, "Cache"); err != nil {
		return api.Cache{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := api.Cache{FreeBytes: 100e9, MinFreeBytes: 1e9}
	for _, m := range f.models {
		e := api.CacheEntry{
			ID: m.ID, Kind: "model", Name: m.Name, Have: m.Bytes, Total: m.Bytes, Dir: m.Dir, InPlace: m.InPlace, Pinned: f.pinned[m.ID], Added: Epoch, Used: Epoch,
		}
		if !m.InPlace {
			e.Bytes = m.Bytes
		}
		c.Entries = append(c.Entries, e)
	}
	for _, d := range f.data {
		c.Entries = append(c.Entries, api.CacheEntry{
			ID: d.ID, Kind: "data", Name: d.Name, Bytes: d.Bytes, Have: d.Bytes, Total: d.Bytes, Pinned: f.pinned[d.ID], Added: Epoch, Used: Epoch,
		})
	}
	for _, e := range c.Entries {
		c.Bytes += e.Bytes
	}
	return c, nil
}

// PruneCache implements api.Backend.
func (f *Fake) PruneCache(ctx context.Context, req api.PruneRequest) (api.Pruned, error) {
	p := api.Pruned{DryRun: req.DryRun}
	c, err := f.Cache(ctx)
	if err == nil {
		err = f.enter(ctx, "PruneCache")
	}
	if err != nil {
		return p, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range c.Entries {
		named := slices.Contains(req.IDs, e.ID)
		switch {
		case named && e.Pinned:
			return p, api.Errorf(api.CodeConflict, "%s %s is pinned", e.Kind, e.ID)
		case !named && (len(req.IDs) > 0 || e.Pinned || e.InPlace || !req.All && p.Bytes >= req.Bytes):
			continue
		}
		p.Removed = append(p.Removed, e)
		p.Bytes += e.Bytes
		if !req.DryRun {
			f.models = slices.DeleteFunc(f.models, func(m api.Model) bool { return m.ID == e.ID })
			f.data = slices.DeleteFunc(f.data, func(d api.Dataset) bool { return d.ID == e.ID })
		}
	}
	return p, nil
}

// PinCache implements api.Backend.
func (f *Fake) PinCache(ctx context.Context, req api.PinRequest) (api.CacheEntry, error) {
	if err := f.enter(ctx, "PinCache"); err != nil {
		return api.CacheEntry{}, err
	}
	f.mu.Lock()
	if f.pinned == nil {
		f.pinned = make(map[string]bool)
	}
	f.pinned[req.ID] = req.Pinned
	f.mu.Unlock()
	return f.entry(ctx, req.ID)
}

func (f *Fake) entry(ctx context.Context, id string) (api.CacheEntry, error) {
	c, err := f.Cache(ctx)
	for _, e := range c.Entries {
		if e.ID == id {
			return e, err
		}
	}
	return api.CacheEntry{}, api.Errorf(api.CodeNotFound, "%s is not here", id)
}

// ExportShards implements api.Backend: the file holds the ID.
func (f *Fake) ExportShards(ctx context.Context, req api.ExportShardsRequest, progress api.ProgressFunc) (api.Archive, error) {
	if err := f.enter(ctx, "ExportShards"); err != nil {
		return api.Archive{}, err
	}
	work(progress, "export")
	e, err := f.entry(ctx, req.ID)
	if err == nil {
		err = os.WriteFile(req.File, []byte(e.ID), 0o600)
	}
	return api.Archive{File: req.File, Blocks: 5, Bytes: e.Have, Roots: []api.CacheEntry{e}}, err
}

// ImportShards implements api.Backend.
func (f *Fake) ImportShards(ctx context.Context, req api.ImportShardsRequest, progress api.ProgressFunc) (api.Archive, error) {
	if err := f.enter(ctx, "ImportShards"); err != nil {
		return api.Archive{}, err
	}
	work(progress, "import")
	b, err := os.ReadFile(req.File)
	if err != nil {
		return api.Archive{}, api.Errorf(api.CodeNotFound, "import shards: %w", err)
	}
	e, err := f.entry(ctx, string(b))
	return api.Archive{File: req.File, Blocks: 5, Bytes: e.Have, Roots: []api.CacheEntry{e}}, err
}

// PullShards implements api.Backend; all there is, is here.
func (f *Fake) PullShards(ctx context.Context, req api.PullShardsRequest, progress api.ProgressFunc) (api.CacheEntry, error) {
	if err := f.enter(ctx, "PullShards"); err != nil {
		return api.CacheEntry{}, err
	}
	work(progress, "pull")
	return f.entry(ctx, req.ID)
}

// VerifyShards implements api.Backend. Of a model named "broken" a block is
// missing, until it is repaired.
func (f *Fake) VerifyShards(ctx context.Context, req api.VerifyRequest, progress api.ProgressFunc) (api.Verification, error) {
	if err := f.enter(ctx, "VerifyShards"); err != nil {
		return api.Verification{}, err
	}
	work(progress, "verify")
	c, err := f.Cache(ctx)
	var v api.Verification
	for _, e := range c.Entries {
		if req.ID != "" && req.ID != e.ID {
			continue
		}
		v.Blocks, v.Bytes = v.Blocks+5, v.Bytes+e.Have
		switch {
		case e.Name != "broken":
		case req.Repair:
			v.Damaged, v.Repaired = 1, 1
		default:
			v.Damaged = 1
			v.Broken = append(v.Broken, api.BrokenFile{ID: e.ID, Path: "model.safetensors", Disk: "/models/broken/model.safetensors", Missing: 1, Bytes: 1 << 20})
		}
	}
	return v, err
}

// Network implements api.Backend.
func (f *Fake) Network(ctx context.Context) (api.Network, error) {
	if err := f.enter(ctx, "Network"); err != nil {
		return api.Network{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := api.Network{
		Peer: f.Node.Peer, Addrs: f.Node.Addrs, Reachability: "private", Relays: true, UploadMbit: 20, QuotaBytes: 200e9, UsedBytes: 3e9,
		Peers: slices.Clone(f.peers),
	}
	for i, scope := range []string{"internet", "lan"} {
		for j, direction := range []string{"in", "out"} {
			for k, use := range []string{"seeding", "training"} {
				b := uint64(1+i+2*j+4*k) << 20
				n.Traffic = append(n.Traffic, api.TrafficCount{Scope: scope, Direction: direction, Use: use, StartBytes: b, MonthBytes: 3 * b})
			}
		}
	}
	return n, nil
}

// Settings implements api.Backend. There are three: one that takes effect at
// once, one that does not, and a list.
func (f *Fake) Settings(ctx context.Context) (api.Settings, error) {
	if err := f.enter(ctx, "Settings"); err != nil {
		return api.Settings{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := api.Settings{File: "/config/mootd.toml", Settings: []api.Setting{
		{Key: "threads", Values: []string{"2"}, Default: []string{"2"}},
		{Key: "work.schedule", Values: []string{}, Default: []string{}, List: true, Live: true},
		{Key: "work.duty_percent", Values: []string{"100"}, Default: []string{"100"}, Live: true},
		{Key: "work.max_temp_c", Values: []string{"83"}, Default: []string{"90"}, Live: true, Origin: "environment", Where: "MOOT_WORK_MAX_TEMP_C"},
		{Key: "work.on_battery", Values: []string{"false"}, Default: []string{"false"}, Live: true},
	}}
	for i := range out.Settings {
		s := &out.Settings[i]
		if s.Origin == "" {
			s.Origin = "default"
		}
		set, ok := f.set[s.Key]
		if !ok {
			continue
		}
		s.Origin, s.Where = "file", "/config/mootd.toml:1"
		if s.Live {
			s.Values = set
		} else {
			s.Next = set
		}
	}
	return out, nil
}

// ChangeSettings implements api.Backend.
func (f *Fake) ChangeSettings(ctx context.Context, req api.SettingsRequest) (api.Settings, error) {
	now, err := f.Settings(ctx)
	if err == nil {
		err = f.enter(ctx, "ChangeSettings")
	}
	if err != nil {
		return now, err
	}
	for key, values := range req.Set {
		i := slices.IndexFunc(now.Settings, func(s api.Setting) bool { return s.Key == key })
		switch {
		case i < 0:
			return now, api.Errorf(api.CodeNotFound, "there is no setting %q", key)
		case now.Settings[i].Origin == "environment":
			return now, api.Errorf(api.CodeConflict, "%s is decided by the environment", key)
		case key == "work.duty_percent" && len(values) == 1 && len(values[0]) > 3:
			return now, api.Errorf(api.CodeConfig, "%s is %s, must be from 1 to 100", key, values[0])
		}
	}
	f.mu.Lock()
	if f.set == nil {
		f.set = make(map[string][]string)
	}
	for key, values := range req.Set {
		if values == nil {
			delete(f.set, key)
			continue
		}
		f.set[key] = values
	}
	f.mu.Unlock()
	return f.Settings(ctx)
}

// Usage implements api.Backend; a sample is added with AddUsage.
func (f *Fake) Usage(ctx context.Context, req api.UsageRequest) (api.Usage, error) {
	if err := f.enter(ctx, "Usage"); err != nil {
		return api.Usage{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := api.Usage{Span: req.Span, StepSeconds: 5}
	if req.Span == api.UsageDay {
		u.StepSeconds = 60
	}
	for _, s := range f.used[req.Span] {
		if s.Time.After(req.After) {
			u.Samples = append(u.Samples, s)
		}
	}
	return u, nil
}

// Today implements api.Backend: what Decide decided, whenever that was.
func (f *Fake) Today(ctx context.Context) (api.Today, error) {
	if err := f.enter(ctx, "Today"); err != nil {
		return api.Today{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t := api.Today{Since: Epoch.Truncate(24 * time.Hour)}
	for _, r := range f.runs {
		d := api.TodayRun{Run: r.ID, Name: r.Name, Rounds: len(r.rounds), Verdicts: map[string]int{}}
		for _, x := range r.rounds {
			for _, c := range x.Contributions {
				if c.Peer == f.Node.Peer {
					d.Contributions++
					d.Tokens += c.Tokens
				}
			}
			for _, j := range x.Judged {
				if j.Peer == f.Node.Peer {
					d.Verdicts[j.Verdict]++
				}
			}
		}
		if t.Tokens += d.Tokens; d.Rounds > 0 {
			t.Runs = append(t.Runs, d)
		}
	}
	return t, nil
}

// WorkPresets implements api.Backend: one that is quiet, and all there is.
func (f *Fake) WorkPresets(ctx context.Context) (api.WorkPresets, error) {
	if err := f.enter(ctx, "WorkPresets"); err != nil {
		return api.WorkPresets{}, err
	}
	preset := func(name, threads, duty string) api.WorkPreset {
		return api.WorkPreset{Name: name, About: "for a machine that is " + name, Settings: []api.PresetSetting{
			{Key: "threads", Value: threads}, {Key: "work.duty_percent", Value: duty, Live: true}, {Key: "work.on_battery", Value: "false", Live: true},
		}}
	}
	return api.WorkPresets{Processors: 4, Presets: []api.WorkPreset{preset("quiet", "1", "40"), preset("all", "4", "100")}}, nil
}

// About implements api.Backend.
func (f *Fake) About(ctx context.Context) (api.About, error) {
	return api.About{
		Formats: []api.NamedValue{{Name: "API", Value: "1"}}, Protocols: []string{"/moot/shard/1", "/moot/sync/1"}, Notices: true,
		Paths: []api.NamedValue{{Name: "data", Value: "/data"}}, Documents: []api.NamedValue{{Name: "introduction", Value: "/data/README.md"}},
	}, f.enter(ctx, "About")
}

// Notices implements api.Backend.
func (f *Fake) Notices(ctx context.Context) (api.Notices, error) {
	return api.Notices{Text: "Files: example.org/module v1.0.0\nLicense: text-1\n <b>Permission</b> is hereby granted\n"}, f.enter(ctx, "Notices")
}

// Checkup implements api.Backend: one check ended each way, and the disk is
// slow.
func (f *Fake) Checkup(ctx context.Context, req api.CheckupRequest) (api.Checkup, error) {
	if err := f.enter(ctx, "Checkup"); err != nil {
		return api.Checkup{}, err
	}
	c := api.Checkup{Version: api.ThisVersion(), Daemon: true, Checks: []api.Check{
		{Name: "version", Level: api.CheckOK, Text: "mootd test; the daemon is the same"},
		{Name: "bootstrap", Level: api.CheckWarn, Text: "0 of 1 answer", Fix: "look whether these nodes run"},
		{Name: "space", Level: api.CheckFail, Text: "0.5 GB are free, 1.0 GB of them stay so", Fix: `make room ("moot cache ls" says what could go), or lower min_free_mb`},
	}}
	if req.Speed {
		c.Checks = append(c.Checks, api.Check{Name: "disk", Level: api.CheckWarn, Text: "it writes 5 MB/s", Fix: "a faster disk makes pulls faster"})
	}
	return c, nil
}

// Report implements api.Backend.
func (f *Fake) Report(ctx context.Context, w io.Writer) error {
	if err := f.enter(ctx, "Report"); err != nil {
		return err
	}
	z := zip.NewWriter(w)
	file, err := z.Create("report.txt")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(file, "FAIL  space\n"); err != nil {
		return err
	}
	return z.Close()
}

// AddUsage adds a sample to what the machine was used for.
func (f *Fake) AddUsage(span string, s api.UsageSample) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.used == nil {
		f.used = make(map[string][]api.UsageSample)
	}
	f.used[span] = append(f.used[span], s)
}

// Logs implements api.Backend; a line is added with AddLog.
func (f *Fake) Logs(ctx context.Context, req api.LogsRequest) (api.Logs, error) {
	if err := f.enter(ctx, "Logs"); err != nil {
		return api.Logs{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := api.Logs{Last: uint64(len(f.log))}
	for _, e := range f.log {
		if e.N > req.After && slices.Index(api.LogLevels, e.Level) >= slices.Index(api.LogLevels, req.Level) {
			out.Entries = append(out.Entries, e)
		}
	}
	out.Entries = out.Entries[max(0, len(out.Entries)-req.Limit):]
	return out, nil
}

// AddLog adds a line to the log.
func (f *Fake) AddLog(e api.LogEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.N = uint64(len(f.log)) + 1
	f.log = append(f.log, e)
}

// Coverage implements api.Backend: of three shards the first was seen whole.
func (f *Fake) Coverage(ctx context.Context, id string) (api.Coverage, error) {
	if err := f.enter(ctx, "Coverage"); err != nil {
		return api.Coverage{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(id)
	if err != nil {
		return api.Coverage{}, err
	}
	return api.Coverage{
		Run: id, Round: r.Round, Rows: 3000, Seen: 1500, Draws: 2000, Passes: []uint64{1500, 1000, 500},
		Shards:     []api.CoverageShard{{First: 0, Last: 0, Rows: 1000, Seen: 1000, Draws: 1400}, {First: 1, Last: 1, Rows: 1000, Seen: 500, Draws: 600}, {First: 2, Last: 2, Rows: 1000}},
		ShardCount: 3, ShardsSeen: 2, Lost: 300, EvalRows: 200, Leaks: new(uint64(0)),
		Grid: api.CoverageGrid{
			Shards: []api.CoverageSpan{{First: 0, Last: 0, Rows: 1000}, {First: 1, Last: 1, Rows: 1000}, {First: 2, Last: 2, Rows: 1000}},
			Passes: []api.CoveragePass{
				{First: 1, Last: 1, FromRound: 1, ToRound: 20, Draws: []uint64{1100, 500, 0}, Lost: []uint64{0, 200, 100}},
				{First: 2, Last: 2, FromRound: 20, ToRound: 25, Draws: []uint64{300, 100, 0}, Lost: []uint64{0, 0, 0}},
			},
		},
	}, nil
}

// RunFileOf implements api.Backend; of the settings it writes name, model and data.
func (f *Fake) RunFileOf(ctx context.Context, id string) (api.ClonedRunFile, error) {
	if err := f.enter(ctx, "RunFileOf"); err != nil {
		return api.ClonedRunFile{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(id)
	if err != nil {
		return api.ClonedRunFile{}, err
	}
	return api.ClonedRunFile{Run: id, TOML: fmt.Sprintf("name = %q\nmodel = %q\ndata = %q\n", r.Name, r.Model, r.Dataset)}, nil
}

// Series implements api.Backend.
func (f *Fake) Series(ctx context.Context, id string, limit int) (api.Series, error) {
	d, err := f.digest(ctx, "Series", id)
	if err != nil {
		return api.Series{}, err
	}
	s := d.Series(limit)
	s.Run, s.Head = id, s.Round
	return s, nil
}

// RunPeers implements api.Backend.
func (f *Fake) RunPeers(ctx context.Context, id string) (api.RunPeers, error) {
	d, err := f.digest(ctx, "RunPeers", id)
	if err != nil {
		return api.RunPeers{}, err
	}
	v := d.Peers()
	v.Run, v.Head = id, v.Round
	return v, nil
}

func (f *Fake) digest(ctx context.Context, method, id string) (*api.Digest, error) {
	if err := f.enter(ctx, method); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(id)
	if err != nil {
		return nil, err
	}
	from, _ := r.digest.Last()
	for _, x := range r.rounds {
		if x.Round > from {
			r.digest.Add(x)
		}
	}
	return r.digest.With(nil), nil
}

// Online implements api.Backend: three peers came, one after the other, and one
// went.
func (f *Fake) Online(ctx context.Context, id string) (api.Online, error) {
	if err := f.enter(ctx, "Online"); err != nil {
		return api.Online{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(id)
	if err != nil {
		return api.Online{}, err
	}
	o := api.Online{Run: id}
	for i, n := range []int{1, 2, 3, 2} {
		o.Samples = append(o.Samples, api.OnlineSample{Time: r.Created.Add(time.Duration(i) * time.Minute), Online: n, Working: n - i%2, Seats: 2})
	}
	return o, nil
}
