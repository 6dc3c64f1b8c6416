package api

import (
	"context"
	"net/http"
	"time"
)

// Verdict says whether something suffices.
type Verdict string

// The verdicts, the best first.
const (
	VerdictFits    Verdict = "fits"    // with a quarter to spare
	VerdictTight   Verdict = "tight"   // just
	VerdictUnknown Verdict = "unknown" // it cannot be told
	VerdictExceeds Verdict = "exceeds" // it does not suffice
	VerdictRefused Verdict = "refused" // it is not allowed
)

// FitPart is a part of what is needed.
type FitPart struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// FitItem is one thing that a run needs of a machine.
type FitItem struct {
	Name    string  `json:"name"` // memory, disk, traffic, licence or admission
	Verdict Verdict `json:"verdict"`
	// NeedBytes is how much is needed, HaveBytes how much there is for it; 0 for
	// what is not counted in bytes, and HaveBytes -1 when it cannot be told.
	NeedBytes int64     `json:"need_bytes"`
	HaveBytes int64     `json:"have_bytes"`
	Parts     []FitPart `json:"parts,omitempty"` // of NeedBytes
	Text      string    `json:"text"`
	// Way is the setting with which it would fit.
	Way string `json:"way,omitempty"`
	// Code is that of the error with which a node refuses the run because of
	// this; empty: it does not.
	Code Code `json:"code,omitempty"`
}

// Fit says what a run needs of a machine, and whether that is there.
type Fit struct {
	Run          string    `json:"run"` // ID
	Name         string    `json:"name"`
	Launcher     string    `json:"launcher"`
	Model        string    `json:"model"`
	ModelBytes   int64     `json:"model_bytes"`
	MissingBytes int64     `json:"missing_bytes"` // of model and data, to be pulled
	ModelLicence string    `json:"model_licence,omitempty"`
	ModelSource  string    `json:"model_source,omitempty"`
	Dataset      string    `json:"dataset"`
	DatasetBytes int64     `json:"dataset_bytes"`
	DataLicence  string    `json:"data_licence,omitempty"`
	DataSource   string    `json:"data_source,omitempty"`
	Use          string    `json:"use"` // unstated, research or commercial
	Device       string    `json:"device"`
	Verdict      Verdict   `json:"verdict"` // the worst of the items', but for an unknown link
	Items        []FitItem `json:"items"`
}

// Err is the error with which a node refuses the run, nil if it does not.
func (f *Fit) Err() error {
	for i := range f.Items {
		if err := f.Items[i].Err(); err != nil {
			return err
		}
	}
	return nil
}

// Err is the error with which a node refuses a run because of i, if it does.
func (i *FitItem) Err() error {
	if i.Code == "" {
		return nil
	}
	err := Errorf(i.Code, "%s", i.Text)
	if i.Way != "" {
		return err.WithHint("%s", i.Way)
	}
	return err
}

// Worst is the worse of two verdicts.
func Worst(a, b Verdict) Verdict {
	rank := map[Verdict]int{VerdictFits: 0, VerdictUnknown: 1, VerdictTight: 2, VerdictExceeds: 3, VerdictRefused: 4}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// CheckRunRequest asks whether a run fits this machine.
type CheckRunRequest struct {
	// Run is taken from the route.
	Run string `json:"-"`
	// Peers are as in JoinRequest.
	Peers []string `json:"peers,omitempty"`
	// LinkMbit is the speed of the link, in both directions, in 1e6 bits per
	// second. Default: the limits in the configuration.
	LinkMbit float64 `json:"link_mbit,omitempty"`
}

// Plan is what is known of a run before anybody else sees it.
type Plan struct {
	Name string `json:"name"`
	// Refused is why the run cannot be launched, empty: it can.
	Refused  []Error   `json:"refused"`
	Warnings []string  `json:"warnings"`
	Model    PlanModel `json:"model"`
	Data     PlanData  `json:"data"`
	// Use is what the result is for: unstated, research or commercial.
	Use string `json:"use"`
	// Here is what the run needs of this machine, which takes part in it.
	Here    Fit          `json:"here"`
	Devices []PlanDevice `json:"devices"`
	Traffic PlanTraffic  `json:"traffic"`
	Length  PlanLength   `json:"length"`
	Eval    PlanEval     `json:"eval"`
	Pace    PlanPace     `json:"pace"`
	Swarms  []PlanSwarm  `json:"swarms"`
}

// PlanModel is the base model of a plan.
type PlanModel struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Parameters int64  `json:"parameters"`
	// Trained is how many parameters are trained: of the adapter, or all.
	Trained int64  `json:"trained"`
	Bytes   int64  `json:"bytes"`
	Context int    `json:"context"`
	Licence string `json:"licence,omitempty"`
	Source  string `json:"source,omitempty"`
}

// PlanData is the data set of a plan, as the model sees it.
type PlanData struct {
	Dataset
	// Train and Eval are what its rows come to. Places are files in the data
	// set, with lines.
	Train FileCheck `json:"train"`
	Eval  FileCheck `json:"eval"`
}

// PlanDevice says whether a kind of device can take part.
type PlanDevice struct {
	Name   string  `json:"name"`
	Memory FitItem `json:"memory"`
}

// PlanTraffic is what a seat sends and receives in a round.
type PlanTraffic struct {
	DeltaBytes int64 `json:"delta_bytes"`
	StateBytes int64 `json:"state_bytes"` // once, by who joins
	// Seconds is how long a round leaves for the exchange.
	Seconds float64    `json:"seconds"`
	Links   []PlanLink `json:"links"`
	// OverlapSteps is how many steps of the next round each link's busy_overlapped
	// is reckoned with: those that the run asks for if Overlaps, else a third of a
	// round's.
	OverlapSteps int64 `json:"overlap_steps"`
	Overlaps     bool  `json:"overlaps"`
}

// PlanLink is the exchange of a round over a link.
type PlanLink struct {
	Mbit  float64 `json:"mbit"`
	Seats int     `json:"seats"`
	// UpBytes and DownBytes are each about as much.
	UpBytes   int64   `json:"up_bytes"`
	DownBytes int64   `json:"down_bytes"`
	Seconds   float64 `json:"seconds"`
	Verdict   Verdict `json:"verdict"`
	// Busy is which part of the time a seat computes whose steps take all the time
	// that a round leaves for them, and BusyOverlapped is that with early steps.
	Busy           float64 `json:"busy"`
	BusyOverlapped float64 `json:"busy_overlapped"`
}

// PlanLength is how long a run lasts.
type PlanLength struct {
	Rounds        uint64  `json:"rounds"` // at most
	PeriodSeconds float64 `json:"period_s"`
	Seconds       float64 `json:"seconds"` // at most
	// SamplesPerSeat and TokensPerSeat are of a round, at most.
	SamplesPerSeat int64 `json:"samples_per_seat"`
	TokensPerSeat  int64 `json:"tokens_per_seat"`
}

// PlanEval is how the loss on held-out rows is measured.
type PlanEval struct {
	// Peers is how many are drawn to measure it after each round. 0: each does for
	// itself, when it has nothing to train, or all do, where the run ends or goes
	// back by it.
	Peers int `json:"peers"`
	// Rows are those on which it is measured.
	Rows int `json:"rows"`
	// Share is how much longer a peer that measures has to compute in a round, as
	// a part of its training.
	Share float64 `json:"share"`
}

// PlanSwarm is a run with a number of peers.
type PlanSwarm struct {
	Peers     int       `json:"peers"`
	Seats     int       `json:"seats"`
	Guarantee Guarantee `json:"guarantee"`
	// Rounds is when the run ends, after max_tokens or its rounds, if every seat
	// takes all its steps; Passes is how often it then went over the data.
	Rounds  uint64  `json:"rounds"`
	Seconds float64 `json:"seconds"`
	Passes  float64 `json:"passes"`
	// Expected is what comes out if all machines are like this one, with links of
	// 100 Mbit/s, and nobody comes or goes. 0: it was not timed; see PlanPace.Why.
	ExpectedRounds       uint64  `json:"expected_rounds"`
	ExpectedRoundSeconds float64 `json:"expected_round_s"`
	ExpectedSeconds      float64 `json:"expected_s"`
}

// PlanPace is how fast this machine is, timed with some steps of the run.
type PlanPace struct {
	Device string `json:"device,omitempty"`
	// Sharing is how many peers are thought to compute on this machine.
	Sharing int `json:"sharing,omitempty"`
	// StepSeconds is that of one peer alone; 0: it was not timed, for the reason in
	// Why.
	StepSeconds float64 `json:"step_s"`
	// Steps are those that it then takes in a round, and TrainSeconds how long that
	// takes.
	Steps        uint64  `json:"steps"`
	TrainSeconds float64 `json:"train_s"`
	// Timed is when that was: of a quick plan it may be long ago.
	Timed time.Time `json:"timed,omitzero"`
	Why   string    `json:"why,omitempty"`
}

func (s *Server) fillPlan(ctx context.Context, req *LaunchRequest) error {
	if req.Sharing < 0 || req.Sharing > maxSharing {
		return Errorf(CodeUsage, "sharing is %d, must be from 0 to %d", req.Sharing, maxSharing)
	}
	return s.fillLaunch(ctx, req)
}

// maxSharing bounds LaunchRequest.Sharing.
const maxSharing = 1000

func (q *CheckRunRequest) check() error {
	if len(q.Peers) > maxJoinPeers {
		return Errorf(CodeUsage, "peers has %d addresses, at most %d are tried", len(q.Peers), maxJoinPeers)
	}
	if !(q.LinkMbit >= 0 && q.LinkMbit <= 1e6) {
		return Errorf(CodeUsage, "link_mbit is %v, must be from 0 to 1000000", q.LinkMbit)
	}
	return nil
}

func (s *Server) checkRun(w http.ResponseWriter, r *http.Request) {
	var req CheckRunRequest
	err := decode(w, r, &req)
	if err == nil {
		err = req.check()
	}
	if err == nil {
		req.Run, err = s.run(r.Context(), r.PathValue("id"))
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		return s.backend.CheckRun(ctx, req, progress)
	})
}

// maxJoinPeers bounds the peers that are named to begin with.
const maxJoinPeers = 100
