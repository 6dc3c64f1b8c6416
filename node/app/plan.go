package app

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/plain"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// Plan implements api.Backend.
func (n *node) Plan(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Plan, error) {
	_, p, err := n.plan(ctx, &req, time.Now(), progress)
	if err != nil {
		return api.Plan{}, err
	}
	return *p, nil
}

// CheckRun implements api.Backend.
func (n *node) CheckRun(ctx context.Context, req api.CheckRunRequest, progress api.ProgressFunc) (api.Fit, error) {
	id, err := checkRunID(req.Run, req.Peers)
	if err != nil {
		return api.Fit{}, err
	}
	aside, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, a := range req.Peers {
		wg.Go(func() { n.runs.connect(aside, a) })
	}
	m, err := n.runs.localManifest(ctx, id)
	if err == nil && m == nil {
		progress(api.Progress{Phase: "manifest", Text: "looks for a peer that has the manifest"})
		m, err = n.runs.fetchManifest(ctx, id, req.Peers)
	}
	if err != nil {
		return api.Fit{}, err
	}
	progress(api.Progress{Phase: "fit"})
	f, err := n.fit(ctx, m, fitting{id: id, from: peersOf(req.Peers), linkMbit: req.LinkMbit})
	if err != nil {
		return api.Fit{}, fmt.Errorf("check run %s: %w", id, err)
	}
	return *f, nil
}

// plan makes the manifest of a run file and looks at all that can be known
// before the run begins. A launch goes this way too, and is refused for what
// the plan has in Refused. Errors are about what no plan can be made without.
func (n *node) plan(ctx context.Context, req *api.LaunchRequest, now time.Time, progress api.ProgressFunc) (*run.Manifest, *api.Plan, error) {
	progress(api.Progress{Phase: "check"})
	m, err := n.manifest(ctx, req, now)
	if err != nil {
		return nil, nil, err
	}
	layout, err := m.Layout()
	if err != nil {
		return nil, nil, err
	}
	p := &api.Plan{Name: m.Name, Refused: []api.Error{}, Warnings: []string{}, Use: m.Licences.Use.String()}
	here, err := n.fit(ctx, m, fitting{})
	if err != nil {
		return nil, nil, err
	}
	p.Here = *here
	for _, i := range here.Items {
		if err := i.Err(); err != nil {
			p.Refused = append(p.Refused, *api.AsError(err))
		}
	}
	if p.Data, err = n.planData(ctx, m, progress); err != nil {
		return nil, nil, err
	}
	if err := dataRefused(&p.Data); err != nil {
		p.Refused = append(p.Refused, *err)
	}
	facts, err := n.modelFacts(ctx, m, fitting{})
	if err != nil {
		return nil, nil, err
	}
	if facts == nil {
		return nil, nil, fmt.Errorf("read model %s: it is gone", m.Model)
	}
	p.Model = n.planModel(m, facts, layout)
	if p.Devices, err = planDevices(m, facts); err != nil {
		return nil, nil, err
	}
	p.Traffic, p.Length = planTraffic(m, layout), planLength(m, &p.Data)
	p.Eval = planEval(m, &p.Data)
	if p.Pace, err = n.planPace(ctx, m, here, req, progress); err != nil {
		return nil, nil, err
	}
	for _, peers := range planPeers(m) {
		s := planSwarm(m, &p.Data, peers)
		paceSwarm(m, &p.Data, p.Traffic.DeltaBytes, &p.Pace, &s)
		p.Swarms = append(p.Swarms, s)
	}
	p.Warnings = append(p.Warnings, n.planWarnings(m, p)...)
	return m, p, nil
}

// planData encodes all rows as the run would.
func (n *node) planData(ctx context.Context, m *run.Manifest, progress api.ProgressFunc) (api.PlanData, error) {
	p := api.PlanData{}
	p.Dataset, _ = n.datasets.get(m.Dataset.String())
	dir, err := n.modelDir(ctx, m.Model)
	if err != nil {
		return p, err
	}
	e, err := encoderOf(m, dir)
	if err != nil {
		return p, err
	}
	// What is named by a CID is the same the next time.
	key := fmt.Sprint(m.Model, m.Dataset, m.Template, m.Inner.MaxTokens, m.Inner.OverLong)
	if v, ok := n.checkedRows.get(key); ok {
		p.Train, p.Eval = v[0], v[1]
		return p, nil
	}
	d, err := shard.OpenDataset(ctx, n.store, m.Dataset)
	if err != nil {
		return p, fmt.Errorf("read data set %s: %w", m.Dataset, err)
	}
	training, heldOut, err := dataset.CheckSet(ctx, d, e, dataset.CheckOptions{}, func(done, total int64) {
		progress(api.Progress{Phase: "data", Done: done, Total: total, Unit: "rows"})
	})
	if err != nil {
		return p, importError(ctx, api.CodeData, err)
	}
	p.Train, p.Eval = fileCheck("train", m.Template, training), fileCheck("eval", m.Template, heldOut)
	p.Eval.Samples = []api.SampleShown{} // those of the other are enough
	n.checkedRows.put(key, [2]api.FileCheck{p.Train, p.Eval})
	return p, nil
}

// encoderOf makes tokens of rows as a run does.
func encoderOf(m *run.Manifest, dir string) (*dataset.Encoder, error) {
	t, err := dataset.ParseTemplate(m.Template)
	if err != nil {
		return nil, err
	}
	e, err := dataset.LoadEncoder(dir, t, int(m.Inner.MaxTokens))
	if err != nil {
		return nil, encoderError(m.Model.String(), err)
	}
	if m.Inner.OverLong == run.OverLongDrop {
		e.DropLong()
	}
	return e, nil
}

// dataRefused is why nothing can be learned from a data set, or nothing be
// measured on it.
func dataRefused(p *api.PlanData) *api.Error {
	switch t := &p.Train; {
	case p.Eval.Leaks > 0:
		return api.Errorf(api.CodeData, "%d of the held-out rows are trained on too, so that what is measured on them is memory; %s", p.Eval.Leaks, firstProblem(&p.Eval, "leak")).
			WithHint("take them out of one side, and import the rows again")
	case t.Rows == 0 || t.Dropped == t.Rows:
		return api.Errorf(api.CodeData, "none of %d rows gives a sample; %s", t.Rows, firstProblem(t, "dropped")).
			WithHint("raise inner.sequence_tokens, or choose another template")
	case t.Tokens == nil || t.Tokens.Counted == 0:
		return api.Errorf(api.CodeData, "the loss counts no token of any row: there is nothing to learn").
			WithHint("choose another template")
	}
	return nil
}

func firstProblem(c *api.FileCheck, kind string) string {
	for _, p := range c.Problems {
		if p.Kind == kind {
			return fmt.Sprintf("the first is %s: %s", p.Place, p.Why)
		}
	}
	return "see \"moot run plan\""
}

func (n *node) planModel(m *run.Manifest, facts *modelFacts, l *fold.Layout) api.PlanModel {
	entry, _ := n.models.get(m.Model.String())
	return api.PlanModel{
		ID: m.Model.String(), Name: entry.Name, Type: entry.Type, Parameters: int64(facts.config.Params()), Trained: int64(l.Params()),
		Bytes: int64(m.ModelBytes), Context: facts.config.Context, Licence: m.Licences.Model, Source: m.Licences.ModelSource,
	}
}

// What a GPU has less than its name says: what the driver and a desktop take,
// and what a node leaves free.
const gpuTakenBytes = 704 << 20

// planDevices plans the memory of kinds of devices.
func planDevices(m *run.Manifest, facts *modelFacts) ([]api.PlanDevice, error) {
	var list []api.PlanDevice
	add := func(name string, at machine) error {
		i, _, err := memoryItem(m, facts, at)
		if err != nil {
			return err
		}
		list = append(list, api.PlanDevice{Name: name, Memory: i})
		return nil
	}
	for _, gib := range []int64{8, 12, 16, 24} {
		if err := add(fmt.Sprintf("GPU, %d GB", gib), machine{planSizes(), gib<<30 - gpuTakenBytes, true}); err != nil {
			return nil, err
		}
	}
	return list, add("CPU", machine{free: -1})
}

func planTraffic(m *run.Manifest, l *fold.Layout) api.PlanTraffic {
	most := m.Inner.MaxSteps
	t := api.PlanTraffic{
		OverlapSteps: int64(cmp.Or(m.Inner.OverlapSteps, max(1, most/3))), Overlaps: m.Inner.OverlapSteps > 0,
		DeltaBytes: fold.EncodedBytes(l, int(m.CodecBits)), StateBytes: fold.StateBytes(l), Seconds: exchangeSeconds(m), Links: []api.PlanLink{},
	}
	for _, mbit := range []float64{10, 50, 100, 1000} {
		for _, seats := range swarmSeats(m) {
			l := linkOf(m, t.DeltaBytes, seats, mbit)
			training := float64(m.PeriodMillis)/1e3 - t.Seconds
			early := min(l.Seconds, training*float64(t.OverlapSteps)/float64(most))
			l.Busy, l.BusyOverlapped = training/(training+l.Seconds), training/(training+l.Seconds-early)
			t.Links = append(t.Links, l)
		}
	}
	return t
}

// swarmSeats are the seats of the swarms of a plan, each number once.
func swarmSeats(m *run.Manifest) []int {
	var list []int
	for _, peers := range manyPeers {
		if seats := min(peers, int(m.Seats)); len(list) == 0 || seats > list[len(list)-1] {
			list = append(list, seats)
		}
	}
	return list
}

func planLength(m *run.Manifest, d *api.PlanData) api.PlanLength {
	l := api.PlanLength{Rounds: m.MaxRounds, PeriodSeconds: float64(m.PeriodMillis) / 1e3}
	l.Seconds = float64(l.Rounds) * l.PeriodSeconds
	l.SamplesPerSeat = int64(m.Inner.MaxSteps) * int64(m.Inner.BatchSamples)
	l.TokensPerSeat = int64(float64(l.SamplesPerSeat) * tokensPerSample(d))
	return l
}

// planEval counts a pass forward, which a row takes to be measured on, as a third
// of a step's work on it.
func planEval(m *run.Manifest, d *api.PlanData) api.PlanEval {
	e := api.PlanEval{Peers: int(m.EvalPeers), Rows: min(int(m.EvalSamples), d.Eval.Rows-d.Eval.Dropped)}
	if m.Steers() {
		e.Peers = 0
	}
	e.Share = float64(e.Rows) / (3 * float64(m.Inner.MaxSteps) * float64(m.Inner.BatchSamples))
	return e
}

// tokensPerSample is how many of a row's tokens the loss counts, on average: a
// run counts those.
func tokensPerSample(d *api.PlanData) float64 {
	rows := d.Train.Rows - d.Train.Dropped
	if rows <= 0 || d.Train.Tokens == nil {
		return 0
	}
	return float64(d.Train.Tokens.Counted) / float64(rows)
}

// manyPeers are the numbers of peers that each plan tells of.
var manyPeers = [...]int{4, 16, 64}

// planPeers are the numbers of peers that a plan tells of: also of those that the
// run begins with, when these are fewer.
func planPeers(m *run.Manifest) []int {
	if few := int(m.MinPeers); 0 < few && few < manyPeers[0] {
		return append([]int{few}, manyPeers[:]...)
	}
	return manyPeers[:]
}

func planSwarm(m *run.Manifest, d *api.PlanData, peers int) api.PlanSwarm {
	s := api.PlanSwarm{Peers: peers, Seats: min(peers, int(m.Seats)), Rounds: m.MaxRounds}
	s.Guarantee = runner.Guarantee(s.Seats)
	samples := float64(s.Seats) * float64(cmp.Or(m.Inner.StartSteps, m.Inner.MaxSteps)) * float64(m.Inner.BatchSamples)
	if tokens := samples * tokensPerSample(d); m.MaxTokens > 0 && tokens > 0 {
		s.Rounds = min(s.Rounds, uint64(math.Ceil(float64(m.MaxTokens)/tokens)))
	}
	s.Seconds = float64(s.Rounds) * float64(m.PeriodMillis) / 1e3
	if rows := d.Train.Rows - d.Train.Dropped; rows > 0 {
		s.Passes = samples * float64(s.Rounds) / float64(rows)
	}
	return s
}

// planWarnings is what a launcher should know, and may want so.
func (n *node) planWarnings(m *run.Manifest, p *api.Plan) []string {
	var list []string
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if _, notes := licenceRules(&m.Licences); m.Licences.Use == run.UseUnstated {
		for _, note := range notes {
			warn("%s", note)
		}
	}
	t, e := &p.Data.Train, &p.Data.Eval
	if e.Rows-e.Dropped == 0 {
		warn("no row is held out, so that nobody can tell whether the run learns: import with --eval-fraction or --eval")
	}
	if t.Dropped > 0 {
		warn("%d of %d rows give no sample", t.Dropped, t.Rows)
	}
	if t.Cut > 0 {
		warn("%d of %d rows are longer than %d tokens and are shortened", t.Cut, t.Rows, m.Inner.MaxTokens)
	}
	if t.Repeated > 0 {
		warn("%d of %d rows are there before, word for word", t.Repeated, t.Rows)
	}
	usual := p.Swarms[slices.IndexFunc(p.Swarms, func(s api.PlanSwarm) bool { return s.Peers >= manyPeers[0] })]
	if usual.Passes > 10 {
		warn("with %d peers the run goes %.0f times over its data, which it may learn by heart", usual.Peers, usual.Passes)
	}
	for _, l := range p.Traffic.Links {
		if l.Verdict == api.VerdictExceeds && l.Mbit == 10 {
			warn("with %d seats a link of %g Mbit/s takes %.0f s for a round's deltas, and has %.0f s", l.Seats, l.Mbit, l.Seconds, p.Traffic.Seconds)
			break
		}
	}
	if in := &m.Inner; in.StartSteps > 0 {
		if most := float64(m.MaxRounds) * float64(usual.Seats) * float64(in.StartSteps) * float64(in.BatchSamples) * tokensPerSample(&p.Data); most > 0 && most < float64(m.MaxTokens) {
			warn("with %d peers, %d rounds of %d steps are %.0f of max_tokens = %d: unless its rounds get more steps, the run ends before that, and its learning rate, which goes by tokens, does not fall as far as it should",
				usual.Peers, m.MaxRounds, in.StartSteps, most, m.MaxTokens)
		}
	}
	if most := uint64(cmp.Or(m.Inner.StartSteps, m.Inner.MaxSteps)); p.Pace.Steps > 0 && 2*p.Pace.Steps < most {
		warn("a machine like this one takes %d of %d steps in a round: a longer period, or fewer rows in a step, would give it more", p.Pace.Steps, most)
	}
	if period := float64(m.PeriodMillis) / 1e3; p.Pace.TrainSeconds > period {
		fewest := ""
		if p.Pace.Steps == uint64(m.Inner.MinSteps) {
			fewest = ", the fewest that count,"
		}
		warn("on a machine like this one %s%s take %.0f s, and a round has %.0f s: its deltas come too late", plain.Plural(p.Pace.Steps, "step"), fewest, p.Pace.TrainSeconds, period)
	}
	if int(m.MinPeers) < 4 {
		peers := "1 peer"
		if m.MinPeers > 1 {
			peers = fmt.Sprintf("%d peers", m.MinPeers)
		}
		warn("the run begins with %s; from 4 on a liar among them is survived", peers)
	}
	return list
}
