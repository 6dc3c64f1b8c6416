package runner

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/ledger"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

const (
	detailRounds = 20              // in a RunDetail
	memberFor    = 2 * time.Minute // after its last heartbeat; there are four in that time
)

// Summary may be called at any time after Open, also after Run has ended.
func (r *Runner) Summary() api.Run {
	head := r.ledger.Head()
	m := round.Under(r.manifest, head.Record.Course)
	s := api.Run{
		ID: r.id.String(), Name: m.Name, Model: m.Model.String(), Dataset: m.Dataset.String(), Joined: true,
		Round: uint64(head.Record.Round), TrainedRounds: head.Record.TrainedRounds, MaxRounds: m.MaxRounds,
		CertifiedRounds: head.Certified, Tokens: head.Record.Tokens, MaxTokens: m.MaxTokens,
		Final: head.Record.Final, Head: head.ID.String(), StateCID: head.Record.State.String(),
		Seats: len(head.Record.NextSeats), MaxSeats: int(m.Seats), Guarantee: Guarantee(round.Witnesses(head.Record.NextSeats)),
		Launcher: m.Launcher.String(), Created: time.Unix(m.Created, 0).UTC(), TokensPerSecond: float64(r.rate.Load()) * 1e-3,
	}
	if floor, _, ok := r.ledger.Gap(); ok {
		s.RecordsFrom = uint64(floor)
	}
	s.Course = courseOf(head.Record)
	s.Ended = string(round.Ends(r.manifest, head.Record))
	s.TrainLoss, s.EvalLoss = r.lastLosses(head)
	r.tellState(&s, head)
	return s
}

// lastLosses finds the newest of each within the last few rounds.
func (r *Runner) lastLosses(head round.Link) (trainLoss, evalLoss *float64) {
	first := msg.Round(1)
	if n := head.Record.Round; n > detailRounds {
		first = n - detailRounds
	}
	for n := head.Record.Round; n >= first && (trainLoss == nil || evalLoss == nil); n-- {
		k, _, ok := r.ledger.At(n)
		if !ok {
			continue
		}
		if trainLoss == nil {
			trainLoss = meanLoss(r.contributions(k.Record))
		}
		if evalLoss == nil {
			evalLoss = r.heldOut(n)
		}
	}
	return trainLoss, evalLoss
}

// heldOut is the loss on held-out rows after round n: as it is recorded, or else
// as this node measured it.
func (r *Runner) heldOut(n msg.Round) *float64 {
	if loss := r.recorded(n); loss != nil {
		return loss
	}
	if _, e, ok := r.ledger.At(n); ok {
		return number(e.EvalLoss)
	}
	return nil
}

// recorded is the loss after round n that the record of the next one has.
func (r *Runner) recorded(n msg.Round) *float64 {
	next, _, ok := r.ledger.At(n + 1)
	if !ok || next.Record.Trend == nil || next.Record.Trend.LossMicro == 0 {
		return nil
	}
	loss := float64(next.Record.Trend.LossMicro) * 1e-6
	return &loss
}

// tellRecorded tells of a loss that a record brings, if this node did not
// measure it itself.
func (r *Runner) tellRecorded(k round.Link) {
	n := k.Record.Round - 1
	loss := r.recorded(n)
	if e, ok := r.ledger.Entry(n); ok && loss != nil && n > 0 && math.IsNaN(e.EvalLoss) {
		r.emit(api.Event{Type: api.EventEval, N: uint64(n), Loss: loss})
	}
}

// tellState fills in State, Phase and Why.
func (r *Runner) tellState(s *api.Run, head round.Link) {
	st, v := r.stage.now(), r.view.Load()
	s.Phase = msg.PhaseIdle.String()
	switch {
	case st.ended && st.err != nil:
		s.State, s.Why = api.RunFailed, st.err.Error()
		return
	case head.Record.Final:
		s.State, s.Why, s.Phase = api.RunFinal, "the run is over"+endedBy(round.Ends(r.manifest, head.Record)), msg.PhaseDone.String()
		if c := head.Record.Course; c != nil && c.Stopped {
			s.Why = "the run was stopped" + r.lastOrder(head)
		}
		return
	case st.ended:
		s.State, s.Why = api.RunKnown, errEnded.Error()
		return
	case !st.pulled:
		s.State, s.Phase = api.RunSyncing, msg.PhaseSync.String()
		s.Why = "what the run needs is being prepared"
		switch p := st.progress; {
		case p.Total > 0 && p.Done == 0 && p.Text != "":
			s.Why = fmt.Sprintf("the %s: %s", p.Phase, p.Text)
		case p.Total > 0:
			s.Why = fmt.Sprintf("the %s is being pulled: %.1f of %.1f MB", p.Phase, float64(p.Done)/1e6, float64(p.Total)/1e6)
		}
		return
	case v == nil:
		s.State, s.Why = api.RunSyncing, "the trainer is being prepared"
		return
	}
	s.Phase = v.Phase.String()
	switch {
	case !st.ready:
		s.State, s.Why = api.RunSyncing, "the others of the run are being looked for"
		if n := head.Record.Round; n > 0 {
			s.Why = fmt.Sprintf("round %d is here; what came after it is asked for", n)
		}
		if p := r.proven.Load(); p != nil && p.Record.Round > head.Record.Round {
			s.Why = fmt.Sprintf("records of %d of %d rounds are here", head.Record.Round, p.Record.Round)
		}
	case round.Paused(head.Record):
		s.State, s.Why = api.RunPaused, "the run is paused"+r.lastOrder(head)
	case v.Phase == msg.PhaseAssembly:
		s.State = api.RunAssembly
		s.Why = fmt.Sprintf("%d of the %d peers are here with which the run begins", len(v.Seats), r.manifest.MinPeers)
	case v.Seat < 0:
		s.State, s.Why = api.RunWaiting, "a seat was asked for; seats are given at the end of a round"
		if len(v.Seats) >= int(r.manifest.Seats) {
			s.Why = fmt.Sprintf("all %d seats are taken", r.manifest.Seats)
		}
	default:
		s.State = api.RunTraining
		switch v.Phase {
		case msg.PhaseTrain:
			if !r.hub.o.Gate.Open() {
				s.State, s.Why = api.RunWaiting, "this machine does not work just now"
			} else if r.hub.o.Gate.Draining() {
				s.Why = "this machine takes no further work"
			}
		case msg.PhaseExchange:
			s.Why = fmt.Sprintf("this round's work is done; %d of %d deltas are here", v.Held, len(v.Seats))
		default:
			s.Why = "this round's work is done; the seats are agreeing on its result"
		}
	}
}

// judged tells what the audits in a record came to, and what is remembered of
// each peer.
func (r *Runner) judged(d *api.Round, rec *msg.Record) {
	parent, ok := r.ledger.Link(rec.Parent)
	for _, j := range rec.Judgements {
		if !ok || int(j.Seat) >= len(parent.Record.Seats) {
			continue
		}
		d.Judged = append(d.Judged, api.Judged{
			Peer: parent.Record.Seats[j.Seat].Peer.String(), Auditors: j.Measured, Gain: float64(j.GainNano) * 1e-9,
			Worth: q16(j.WorthQ16), Verdict: j.Verdict.String(), TakenBack: j.TakenBack,
			Retraced: j.Retraced, Error: float64(j.ErrorPPM) / 1e6,
		})
	}
	for _, p := range rec.Proofs {
		if s, err := msg.Open(p.First); err == nil {
			d.Proven = append(d.Proven, s.From.String())
		}
	}
	if m := rec.Merge; m != nil {
		d.Merged = &api.Merged{
			Fork: m.Fork.String(), Head: m.Head.String(), State: m.State.String(), Tokens: m.Tokens, Weight: q16(m.WeightQ16),
		}
	}
	for _, s := range rec.Standings {
		a := api.Standing{
			Peer: s.Peer.String(), Owed: s.Owed, Strikes: float64(s.StrikesQ8) / 256, BannedUntil: uint64(s.Until),
			Pace: s.Pace, Worth: 1 - q16(s.LackQ16), Work: s.Work,
		}
		if s.Until != 0 {
			a.Reason = s.Reason.String()
		}
		d.Standings = append(d.Standings, a)
	}
}

// whyLeft says why a peer has no seat after rec.
func whyLeft(rec *msg.Record, id string) string {
	for _, s := range rec.Standings {
		if s.Peer.String() == id && s.Until != 0 {
			return s.Reason.String()
		}
	}
	for _, e := range rec.Joins {
		if s, err := msg.Open(e); err == nil && s.From.String() == id {
			return "left"
		}
	}
	return "absent"
}

// Guarantee says how strong the agreement of n witnesses can be.
func Guarantee(n int) api.Guarantee {
	if n == 0 {
		return api.Guarantee{Level: "none", Text: "no seat"}
	}
	q, f := round.Quorum(n)
	g := api.Guarantee{Level: "byzantine", Seats: n, Quorum: q, Faulty: f}
	switch n {
	case 1:
		g.Level, g.Text = "none", "one seat: nobody else checks the result"
	case 2:
		g.Level, g.Text = "agreement", "2 seats: both must agree, or rounds are provisional"
	case 3:
		g.Level, g.Text = "agreement", "3 seats: 2 must agree; one may be gone, none may lie"
	default:
		g.Text = fmt.Sprintf("%d seats: %d must agree; %d may be gone or lie", n, q, f)
	}
	return g
}

// Detail is Summary with all the rest.
func (r *Runner) Detail() api.RunDetail {
	m := r.manifest
	d := api.RunDetail{Run: r.Summary(), Manifest: api.Manifest{
		Version: m.Version, ModelBytes: m.ModelBytes, DatasetBytes: m.DatasetBytes, Mode: m.Mode.String(),
		RSLoRA: m.LoRA.RSLoRA, LoRAPlusRatio: plusRatio(m), Optimizer: m.Inner.Optimizer.String(),
		Momentum: float64(m.Inner.MomentumPPM) / 1e6, DecayRounds: m.Inner.DecayRounds, Packing: !m.Inner.Unpacked,
		OverLong: m.Inner.OverLong.String(),
		LoRARank: m.LoRA.Rank, LoRAAlpha: m.LoRA.Alpha, LoRATargets: m.LoRA.Targets, AdapterParameters: uint64(r.layout.Params()),
		Seed: m.GenesisSeed, LearningRate: float64(m.Inner.LearningRateNano) / 1e9, Schedule: m.Schedule.String(),
		Beta1: float64(m.Inner.Beta1PPM) / 1e6, Beta2: float64(m.Inner.Beta2PPM) / 1e6,
		WeightDecay: float64(m.Inner.WeightDecayPPM) / 1e6, Clip: float64(m.Inner.ClipMilli) / 1e3,
		WarmupSteps: m.Inner.WarmupSteps, MinSteps: m.Inner.MinSteps, MaxSteps: m.Inner.MaxSteps,
		StartSteps: m.Inner.StartSteps, FollowArrivals: m.FollowArrivals,
		BatchSamples: m.Inner.BatchSamples, SequenceTokens: m.Inner.MaxTokens,
		OuterLearningRate: q16(m.Outer.LearningRateQ16), OuterMomentum: q16(m.Outer.MomentumQ16),
		CodecBits: m.CodecBits, PeriodSeconds: float64(m.PeriodMillis) / 1e3, MinPeers: m.MinPeers, EvalSamples: m.EvalSamples, EvalPeers: m.EvalPeers,
		ModelLicence: m.Licences.Model, DataLicence: m.Licences.Data, ModelSource: m.Licences.ModelSource, DataSource: m.Licences.DataSource, Template: m.Template,
	}}
	d.Manifest.Ends, d.Manifest.TakesBack = endRules(r.manifest), r.manifest.Trust.TakeBack
	for _, s := range r.ledger.Head().Record.NextSeats {
		d.NextSeats = append(d.NextSeats, api.Seat{Peer: s.Peer.String(), Since: uint64(s.Since), Missed: s.Missed, Fresh: s.Fresh, Trainee: s.Trainee})
	}
	from := uint64(1)
	if d.Round > detailRounds {
		from = d.Round - detailRounds + 1
	}
	d.Rounds, _ = r.Rounds(from, detailRounds)
	if v := r.view.Load(); v != nil {
		d.Pending = r.pendingOrders(v)
		for _, k := range v.Members {
			if time.Since(k.Seen) > memberFor && time.Now().After(k.Silent) {
				continue
			}
			d.Members = append(d.Members, api.Member{
				Peer: k.Status.Peer.String(), Seen: k.Seen, Phase: k.Status.Phase.String(), Round: uint64(k.Status.Round),
				Head: k.Status.Head.String(), TokensPerSecond: float64(k.Status.TokensPerSecMilli) * 1e-3,
				Agent: k.Status.Agent, Device: k.Status.Device,
			})
		}
	}
	return d
}

// Rounds lists up to limit decided rounds from round from on, in order, of those
// whose records are here.
func (r *Runner) Rounds(from uint64, limit int) ([]api.Round, error) {
	out := []api.Round{}
	last := uint64(r.ledger.Head().Record.Round)
	for n := max(from, 1); len(out) < limit && n <= last; n++ {
		k, e, ok := r.ledger.At(msg.Round(n))
		if !ok {
			continue // it was joined late, and that record is not here yet
		}
		out = append(out, r.describe(k, e))
	}
	return out, nil
}

// describe tells people what a round decided.
func (r *Runner) describe(k round.Link, e ledger.Entry) api.Round {
	rec := k.Record
	witnesses := round.Witnesses(rec.Seats)
	q, _ := round.Quorum(max(1, witnesses))
	d := api.Round{
		Round: uint64(rec.Round), Record: k.ID.String(), Parent: rec.Parent.String(), State: rec.State.String(),
		Attempt: rec.Attempt, Proposer: rec.Proposer.String(), Certified: k.Certificate != nil, Quorum: q, Seats: len(rec.Seats),
		Witnesses: witnesses,
		Tokens:    rec.Tokens, TrainedRounds: rec.TrainedRounds, Final: rec.Final,
		Contributions: r.contributions(rec), Refused: []api.Refusal{},
		EvalLoss: r.heldOut(rec.Round), MedianLoss: r.recorded(rec.Round), OwnLoss: number(e.EvalLoss), Decided: e.Adopted, Seconds: e.Took.Seconds(),
	}
	if k.Certificate != nil {
		d.Votes = len(k.Certificate.Votes)
	}
	for _, x := range rec.Refused {
		if int(x.Seat) < len(rec.Seats) {
			who := rec.Seats[x.Seat].Peer.String()
			if round.Cells(len(rec.Seats)) > 0 {
				who = fmt.Sprintf("cell %d", x.Seat+1)
			}
			d.Refused = append(d.Refused, api.Refusal{Peer: who, Commit: x.Commit.String(), Reason: x.Reason.String()})
		}
	}
	d.Joined = seatsOnlyIn(rec.NextSeats, rec.Seats)
	d.Left = seatsOnlyIn(rec.Seats, rec.NextSeats)
	for _, id := range d.Left {
		d.LeftWhy = append(d.LeftWhy, whyLeft(rec, id))
	}
	d.Orders = ordersOf(rec)
	r.judged(&d, rec)
	r.takenBack(d.Contributions, rec)
	r.trend(&d, rec)
	d.Tempo = r.tempo(rec)
	d.TrainLoss = meanLoss(d.Contributions)
	return d
}

// takenBack marks what the round after rec took back.
func (r *Runner) takenBack(list []api.Contribution, rec *msg.Record) {
	next, _, ok := r.ledger.At(rec.Round + 1)
	if !ok {
		return
	}
	for _, j := range next.Record.Judgements {
		if !j.TakenBack || int(j.Seat) >= len(rec.Seats) {
			continue
		}
		id := rec.Seats[j.Seat].Peer.String()
		for i := range list {
			if c := &list[i]; c.Peer == id {
				c.Weight, c.Reason = 0, msg.TakenBack.String()
			}
		}
	}
}

// trend tells what the held-out losses came to.
func (r *Runner) trend(d *api.Round, rec *msg.Record) {
	d.Ended = string(round.Ends(r.manifest, rec))
	if t := rec.Trend; t != nil && t.Back {
		d.WentBack = &api.WentBack{Round: uint64(t.BestRound), State: t.BestState.String(), Loss: float64(t.BestMicro) * 1e-6}
	}
}

func endRules(m *run.Manifest) *api.EndRules {
	if !m.Steers() {
		return nil
	}
	return &api.EndRules{
		TargetLoss: float64(m.Stop.TargetMicro) * 1e-6, Patience: m.Stop.Patience, MinImprovement: float64(m.Stop.MinImprovementPPM) * 1e-6,
		RollbackRounds: m.Rollback.Rounds, RollbackWorse: float64(m.Rollback.WorsePPM) * 1e-6,
	}
}

// endedBy is why a run is over, in words that go on.
func endedBy(e round.Ending) string {
	switch e {
	case round.EndRounds:
		return ": all rounds are trained"
	case round.EndTokens:
		return ": all tokens are trained"
	case round.EndTarget:
		return ": the held-out loss reached its target"
	case round.EndPlateau:
		return ": the held-out loss did not fall any more"
	}
	return ""
}

func (r *Runner) contributions(rec *msg.Record) []api.Contribution {
	if round.Cells(len(rec.Seats)) > 0 {
		before := &msg.Record{}
		if k, _, ok := r.ledger.At(rec.Round - 1); ok {
			before = k.Record
		}
		return sharesOfCells(r.rules.Shares(before, rec), rec)
	}
	out := []api.Contribution{}
	for i, c := range rec.Contributions {
		if int(c.Seat) >= len(rec.Seats) || i >= len(rec.Commits) {
			continue
		}
		a := api.Contribution{
			Peer: rec.Seats[c.Seat].Peer.String(), Commit: c.Commit.String(), Delta: c.Delta.String(),
			Tokens: c.Tokens, Weight: c.Weight, Clip: q16(c.ClipQ16),
		}
		if c.Reason != msg.Held {
			a.Reason = c.Reason.String()
		}
		if k, err := msg.Known[*msg.Commit](rec.Commits[i]); err == nil {
			a.DeltaBytes, a.Steps, a.Loss = k.DeltaBytes, k.Steps, float64(k.LossMicro)*1e-6
		}
		out = append(out, a)
	}
	return out
}

// meanLoss is the mean over contributions by their tokens, as they claim it.
func meanLoss(cs []api.Contribution) *float64 {
	var sum, tokens float64
	for _, c := range cs {
		if c.Steps == 0 {
			continue // of a cell, whose seats alone know
		}
		sum += c.Loss * float64(c.Tokens)
		tokens += float64(c.Tokens)
	}
	if tokens == 0 {
		return nil
	}
	mean := sum / tokens
	return &mean
}

func seatsOnlyIn(a, b []msg.Seat) []string {
	has := func(p peer.ID) bool { return slices.ContainsFunc(b, func(s msg.Seat) bool { return s.Peer == p }) }
	var out []string
	for _, s := range a {
		if !has(s.Peer) {
			out = append(out, s.Peer.String())
		}
	}
	return out
}

func q16(v uint32) float64 { return float64(v) / 65536 }

func number(f float64) *float64 {
	if math.IsNaN(f) {
		return nil
	}
	return &f
}
