package api

import "time"

// LaunchRequest is a run file.
type LaunchRequest struct {
	// Name is the file's name, for error messages.
	Name string `json:"name"`
	// TOML is its text.
	TOML string `json:"toml"`
	// Model and Dataset, if given, take the place of the file's keys model and
	// data. A Backend finds them in TOML and these fields empty.
	Model   string `json:"model,omitempty"`
	Dataset string `json:"dataset,omitempty"`
	// Sharing is, of a plan alone, how many peers of the run are to compute on one
	// machine. Default 1. Quick leaves out of a plan what takes time: how fast this
	// machine is, unless that was timed before.
	Sharing int  `json:"sharing,omitempty"`
	Quick   bool `json:"quick,omitempty"`
}

// JoinRequest asks to become a member of a run.
type JoinRequest struct {
	// Run is taken from the route.
	Run string `json:"-"`
	// Peers are multiaddrs of nodes that are in the run, to begin with.
	Peers []string `json:"peers,omitempty"`
	// Invite is what the launcher's "moot invite" printed, for a run that asks
	// for it.
	Invite string `json:"invite,omitempty"`
}

// InviteRequest asks for an invitation to a run that this node launched.
type InviteRequest struct {
	// Run is taken from the route.
	Run string `json:"-"`
	// Rounds is how many rounds from now on let a peer in by it; 0: all.
	Rounds uint64 `json:"rounds,omitempty"`
}

// Invite is an invitation. Whoever has it can let any peer into the run.
type Invite struct {
	Run    string `json:"run"`
	Invite string `json:"invite"`
	Until  uint64 `json:"until"` // last round that lets a peer in by it; 0: any
}

// RunState is where a run stands, seen from one node.
type RunState string

// The states of a run.
const (
	RunKnown    RunState = "known"    // heard of, not joined
	RunSyncing  RunState = "syncing"  // joined; manifest, model, data or state are being pulled
	RunAssembly RunState = "assembly" // waits for enough peers to begin
	RunPaused   RunState = "paused"   // by an order: no round trains
	RunWaiting  RunState = "waiting"  // in the run, without a seat yet
	RunTraining RunState = "training" // has a seat
	RunFinal    RunState = "final"    // the stop rule holds
	RunLeft     RunState = "left"     // was a member
	RunFailed   RunState = "failed"   // this node cannot go on; see Why
)

// Run is a run, seen from one node.
type Run struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Model   string   `json:"model"`
	Dataset string   `json:"dataset"`
	State   RunState `json:"state"`
	// Phase is the part of the round that this node is in (idle, sync,
	// assembly, train, exchange, vote, done); Why is one sentence that says
	// why it does not train, empty while it does.
	Phase  string `json:"phase"`
	Why    string `json:"why,omitempty"`
	Joined bool   `json:"joined"`

	Round           uint64 `json:"round"` // of the head: the last that is decided
	TrainedRounds   uint64 `json:"trained_rounds"`
	MaxRounds       uint64 `json:"max_rounds"` // after orders, like MaxTokens
	CertifiedRounds uint64 `json:"certified_rounds"`
	// RecordsFrom is from which round on no record is missing here; 0: all are here.
	// Who joins late brings the older ones later.
	RecordsFrom uint64 `json:"records_from,omitempty"`
	Tokens      uint64 `json:"tokens"`
	MaxTokens   uint64 `json:"max_tokens"` // 0: no bound
	Final       bool   `json:"final"`

	Head      string    `json:"head"`      // CID of the last record
	StateCID  string    `json:"state_cid"` // of the adapter and momentum after it
	Seats     int       `json:"seats"`     // of the next round
	MaxSeats  int       `json:"max_seats"`
	Guarantee Guarantee `json:"guarantee"`

	// TokensPerSecond is how fast this node trains, 0 until it has.
	TokensPerSecond float64 `json:"tokens_per_second,omitempty"`

	// TrainLoss and EvalLoss are of the last round that has one.
	TrainLoss *float64 `json:"train_loss"`
	EvalLoss  *float64 `json:"eval_loss"`
	// Ended is why a final run ended: "rounds", "tokens", "target-loss",
	// "plateau" or "order"; empty: it goes on.
	Ended string `json:"ended,omitempty"`

	// Course is what orders have made of the run; null without any.
	Course *Course `json:"course"`

	Launcher string    `json:"launcher"` // peer ID
	Created  time.Time `json:"created"`  // as the manifest says
}

// Guarantee says how strong the agreement on the next round can be.
type Guarantee struct {
	// Level is "none" (one seat), "agreement" (all must agree: 2 or 3 seats)
	// or "byzantine" (Faulty liars are survived).
	Level  string `json:"level"`
	Seats  int    `json:"seats"`
	Quorum int    `json:"quorum"`
	Faulty int    `json:"faulty"`
	Text   string `json:"text"` // the same in words
}

// Runs answers a list of runs.
type Runs struct {
	Runs []Run `json:"runs"`
	// Next is what to ask after for the next page, empty on the last.
	Next string `json:"next,omitempty"`
}

// RunDetail is all about one run.
type RunDetail struct {
	Run
	Manifest  Manifest `json:"manifest"`
	NextSeats []Seat   `json:"next_seats"`
	Rounds    []Round  `json:"rounds"` // the last few, newest last
	// Members are the peers that this node heard of in the last two minutes.
	Members []Member `json:"members"`
	// Pending are orders that this node has heard of and that have not taken effect.
	Pending []PendingOrder `json:"pending_orders,omitempty"`
}

// Seat is a peer that trains and witnesses.
type Seat struct {
	Peer   string `json:"peer"`
	Since  uint64 `json:"since"`
	Missed uint32 `json:"missed"`
	Fresh  bool   `json:"fresh"` // its next contribution has weight 0
	// Trainee: it trains and does not vote yet.
	Trainee bool `json:"trainee,omitempty"`
}

// Member is what a peer said about itself in a heartbeat. Nobody vouches for
// it.
type Member struct {
	Peer            string    `json:"peer"`
	Seen            time.Time `json:"seen"`
	Phase           string    `json:"phase"`
	Round           uint64    `json:"round"`
	Head            string    `json:"head"`
	TokensPerSecond float64   `json:"tokens_per_second"`
	Agent           string    `json:"agent,omitempty"`
	Device          string    `json:"device,omitempty"`
}

// Manifest is the immutable description of a run, in floats for people. The
// integers that count are those of proto/run.
type Manifest struct {
	Version           uint32   `json:"version"`
	ModelBytes        uint64   `json:"model_bytes"`
	DatasetBytes      uint64   `json:"dataset_bytes"`
	LoRARank          uint32   `json:"lora_rank"`
	LoRAAlpha         uint32   `json:"lora_alpha"`
	Mode              string   `json:"mode"`         // lora or full: all parameters, and then no LoRA
	LoRATargets       []string `json:"lora_targets"` // null in mode full
	RSLoRA            bool     `json:"rslora"`
	LoRAPlusRatio     float64  `json:"lora_plus_ratio"` // 1: B learns as fast as A
	Optimizer         string   `json:"optimizer"`
	Momentum          float64  `json:"momentum"`     // of sgd
	DecayRounds       uint64   `json:"decay_rounds"` // of the schedule wsd
	Packing           bool     `json:"packing"`
	OverLong          string   `json:"over_long"`
	AdapterParameters uint64   `json:"adapter_parameters"`
	Seed              uint64   `json:"seed"`
	LearningRate      float64  `json:"learning_rate"`
	Schedule          string   `json:"schedule"`
	Beta1             float64  `json:"beta1"`
	Beta2             float64  `json:"beta2"`
	WeightDecay       float64  `json:"weight_decay"`
	Clip              float64  `json:"clip"`
	WarmupSteps       uint32   `json:"warmup_steps"`
	MinSteps          uint32   `json:"min_steps"`
	MaxSteps          uint32   `json:"max_steps"`
	StartSteps        uint32   `json:"start_steps,omitempty"`     // of a run that finds its steps by itself
	FollowArrivals    bool     `json:"follow_arrivals,omitempty"` // its deadlines follow when deltas came
	BatchSamples      uint32   `json:"batch_samples"`
	SequenceTokens    uint32   `json:"sequence_tokens"`
	OuterLearningRate float64  `json:"outer_learning_rate"`
	OuterMomentum     float64  `json:"outer_momentum"`
	CodecBits         uint32   `json:"codec_bits"`
	PeriodSeconds     float64  `json:"period_s"`
	MinPeers          uint32   `json:"min_peers"`
	EvalSamples       uint32   `json:"eval_samples"`
	// EvalPeers is how many peers, drawn in each round, measure the loss on
	// EvalSamples held-out rows. 0: each for itself; all, where the run has Ends.
	EvalPeers uint32 `json:"eval_peers,omitempty"`
	// Ends is by which held-out loss the run ends early, or goes back; not there
	// if by none. TakesBack: what damaging deltas did is undone.
	Ends         *EndRules `json:"ends,omitempty"`
	TakesBack    bool      `json:"takes_back,omitempty"`
	ModelLicence string    `json:"model_licence,omitempty"`
	ModelSource  string    `json:"model_source,omitempty"`
	DataLicence  string    `json:"data_licence,omitempty"`
	DataSource   string    `json:"data_source,omitempty"`
	Template     string    `json:"template"`
}

// Round is one decided round.
type Round struct {
	Round     uint64 `json:"round"`
	Record    string `json:"record"` // CID; the head after this round
	Parent    string `json:"parent"`
	State     string `json:"state"` // CID after the fold
	Attempt   uint32 `json:"attempt"`
	Proposer  string `json:"proposer"`
	Certified bool   `json:"certified"` // else provisional
	Votes     int    `json:"votes"`
	Quorum    int    `json:"quorum"`
	Seats     int    `json:"seats"`
	Witnesses int    `json:"witnesses"` // seats that vote

	Contributions []Contribution `json:"contributions"`    // sorted by seat
	Refused       []Refusal      `json:"refused"`          // likewise
	Joined        []string       `json:"joined,omitempty"` // seats from the next round on
	Left          []string       `json:"left,omitempty"`
	// LeftWhy says for each of Left: "left", "absent", or why it was banned.
	LeftWhy []string `json:"left_why,omitempty"`
	// Judged is what auditors found of the contributions of the round before.
	Judged    []Judged   `json:"judged,omitempty"`
	Standings []Standing `json:"standings,omitempty"` // after this round
	// Merged is a branch that had lost and came back in this round.
	Merged *Merged `json:"merged,omitempty"`
	// Proven are peers of which the record proves that they lied.
	Proven []string `json:"proven,omitempty"`
	// Orders took effect with this round.
	Orders []Order `json:"orders,omitempty"`

	Tokens        uint64 `json:"tokens"`         // since the beginning
	TrainedRounds uint64 `json:"trained_rounds"` // likewise
	Final         bool   `json:"final"`

	// TrainLoss is the mean over the contributions by tokens; EvalLoss is on
	// held-out rows: MedianLoss, or else OwnLoss. null when there is none.
	TrainLoss *float64 `json:"train_loss"`
	EvalLoss  *float64 `json:"eval_loss"`
	// MedianLoss is the median of what witnesses of the next round, drawn by lot,
	// measured of this one's state; it is in the next one's record. By it a run
	// stops early or goes back. Not there in runs that do not ask for it, and for
	// the last round.
	MedianLoss *float64 `json:"median_loss,omitempty"`
	// OwnLoss is what this node measured, if it did.
	OwnLoss *float64 `json:"own_loss,omitempty"`
	// Tempo is how many steps this round had and how long it could last, in a run
	// that finds one of them by itself.
	Tempo *Tempo `json:"tempo,omitempty"`
	// WentBack says that the run returned to an earlier state in this round, as
	// the loss was too high for too long.
	WentBack *WentBack `json:"went_back,omitempty"`
	// Ended is why the run ended with this round, as in Run.
	Ended string `json:"ended,omitempty"`
	// Decided is when this node adopted the round, Seconds how long it took. Of
	// rounds whose records it was given when it joined late, or after that, it does
	// not know them: Decided is left out, Seconds 0.
	Decided time.Time `json:"decided,omitzero"`
	Seconds float64   `json:"seconds"`
}

// Tempo is of a round of a run that finds by itself how many steps its rounds have,
// or how long they last.
type Tempo struct {
	Steps    uint32  `json:"steps"`      // that a seat took at most
	Deadline float64 `json:"deadline_s"` // since the round began
	// Kappa is how far the deltas went apart: the norm of what is lost by averaging
	// A and B each on its own, beside that of the update. The next round says it.
	// null when it is not known.
	Kappa *float64 `json:"kappa"`
	// Arrival is when nearly all deltas were there, since the round began; null if
	// they were not, or training was cut short.
	Arrival *float64 `json:"arrival_s"`
	// NextSteps and NextDeadline are those of the next round.
	NextSteps    uint32  `json:"next_steps"`
	NextDeadline float64 `json:"next_deadline_s"`
}

// EndRules are those of a run for its held-out loss.
type EndRules struct {
	TargetLoss     float64 `json:"target_loss,omitempty"`
	Patience       uint32  `json:"patience,omitempty"`        // rounds without improvement after which it ends
	MinImprovement float64 `json:"min_improvement,omitempty"` // part of the loss
	RollbackRounds uint32  `json:"rollback_rounds,omitempty"` // that are too bad in a row
	RollbackWorse  float64 `json:"rollback_worse,omitempty"`  // part by which they are above the best
}

// WentBack is to which state a run returned.
type WentBack struct {
	Round uint64  `json:"round"` // after which that state was
	State string  `json:"state"`
	Loss  float64 `json:"loss"` // held-out, the lowest so far
}

// Contribution is a delta that entered a round.
type Contribution struct {
	Peer       string  `json:"peer"`
	Commit     string  `json:"commit"`
	Delta      string  `json:"delta"`
	DeltaBytes uint64  `json:"delta_bytes"`
	Tokens     uint64  `json:"tokens"`
	Steps      uint64  `json:"steps"`
	Weight     uint64  `json:"weight"`
	Clip       float64 `json:"clip"` // factor, 1 when not clipped
	Loss       float64 `json:"loss"` // mean training loss as claimed
	// Reason is why it counts for nothing, such as "probation", or "taken-back"
	// after the round that followed; empty: it counts.
	Reason string `json:"reason,omitempty"`
}

// Merged is a branch of a run that had lost.
type Merged struct {
	Fork   string  `json:"fork"` // record that both chains have
	Head   string  `json:"head"` // last record of the branch
	State  string  `json:"state"`
	Tokens uint64  `json:"tokens"`
	Weight float64 `json:"weight"`
}

// Judged is what auditors found of a contribution.
type Judged struct {
	Peer     string  `json:"peer"`
	Auditors uint32  `json:"auditors"` // that measured it
	Gain     float64 `json:"gain"`     // nats that the loss falls by a fifth of the delta
	Worth    float64 `json:"worth"`    // gain per token beside the others', at most 1
	Verdict  string  `json:"verdict"`  // unaudited, useful, useless, damaging
	// TakenBack: what the delta did to the adapter was undone in this round.
	TakenBack bool `json:"taken_back,omitempty"`
	// Retraced is how many auditors did a part of its training again, Error the
	// least that they found: 0 is the same, more than 0.2 another training, from
	// 999 on not even one that could be done again.
	Retraced uint32  `json:"retraced,omitempty"`
	Error    float64 `json:"error,omitempty"`
}

// Standing is what a run remembers of a peer.
type Standing struct {
	Peer    string  `json:"peer"`
	Owed    uint32  `json:"owed"`    // useful deltas until one counts
	Strikes float64 `json:"strikes"` // fading; 3 bring a ban
	// BannedUntil is the round before which it gets no seat, 0 if it may; Reason
	// says why.
	BannedUntil uint64  `json:"banned_until,omitempty"`
	Reason      string  `json:"reason,omitempty"`
	Pace        uint64  `json:"pace"`  // audited tokens of a round
	Worth       float64 `json:"worth"` // mean, fading
	Work        uint64  `json:"work"`  // audited tokens in all
}

// Refusal is a delta that a round left out.
type Refusal struct {
	Peer   string `json:"peer"`
	Commit string `json:"commit"`
	Reason string `json:"reason"` // such as "timeout", "bad-norm"
}

// Rounds answers a page of rounds.
type Rounds struct {
	Rounds []Round `json:"rounds"`
}

// MaxRoundsPerPage bounds a page of rounds.
const MaxRoundsPerPage = 1000
