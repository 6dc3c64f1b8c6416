package run

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	wirev1 "github.com/moot-net/moot/proto/wire/v1"
)

// ManifestVersion is the version of the manifests that this package
// understands.
const ManifestVersion = 1

// MaxManifestBytes bounds an encoded manifest.
const MaxManifestBytes = 1 << 20

// Mode is what of the model is trained.
type Mode uint32

// The modes.
const (
	ModeLoRA Mode = 0 // an adapter
	// ModeFull trains all parameters. The state holds how far they are from
	// those of the base model, so genesis is zero.
	ModeFull Mode = 1
)

// Schedule is how the inner learning rate falls over the rounds.
type Schedule uint32

// The schedules. What they mean in floats is private to a peer; proto/README.md
// recommends formulas.
const (
	ScheduleCosine   Schedule = 1 // half a cosine over MaxRounds, to zero
	ScheduleConstant Schedule = 2
	ScheduleLinear   Schedule = 3 // a straight line over MaxRounds, to zero
	ScheduleWSD      Schedule = 4 // constant, then half a cosine over the last DecayRounds
)

// Optimizer is the inner optimizer.
type Optimizer uint32

// The optimizers.
const (
	OptimizerAdamW     Optimizer = 0
	OptimizerAdamW8bit Optimizer = 1 // AdamW with moments of eight bits, as bitsandbytes has it
	OptimizerSGD       Optimizer = 2 // with Momentum, as PyTorch has it
)

// OverLong is what a trainer does with rows of more than MaxTokens.
type OverLong uint32

// The rules for rows that are too long.
const (
	// OverLongShorten leaves out the earliest turns of a conversation, and the
	// end of a text; other rows are left out.
	OverLongShorten OverLong = 0
	OverLongDrop    OverLong = 1 // all such rows are left out
)

// The names that run.toml uses, by value.
var (
	modeNames      = []string{"lora", "full"}
	scheduleNames  = []string{1: "cosine", 2: "constant", 3: "linear", 4: "wsd"}
	optimizerNames = []string{"adamw", "adamw-8bit", "sgd"}
	overLongNames  = []string{"shorten", "drop"}
)

// String returns the name used in run.toml.
func (m Mode) String() string { return nameOf(modeNames, "mode", uint32(m)) }

// String returns the name used in run.toml.
func (s Schedule) String() string { return nameOf(scheduleNames, "schedule", uint32(s)) }

// String returns the name used in run.toml.
func (o Optimizer) String() string { return nameOf(optimizerNames, "optimizer", uint32(o)) }

// String returns the name used in run.toml.
func (o OverLong) String() string { return nameOf(overLongNames, "over-long", uint32(o)) }

// ParseMode is the inverse of String.
func ParseMode(name string) (Mode, error) { return parseName[Mode](modeNames, name) }

// ParseSchedule is the inverse of String.
func ParseSchedule(name string) (Schedule, error) { return parseName[Schedule](scheduleNames, name) }

// ParseOptimizer is the inverse of String.
func ParseOptimizer(name string) (Optimizer, error) {
	return parseName[Optimizer](optimizerNames, name)
}

// ParseOverLong is the inverse of String.
func ParseOverLong(name string) (OverLong, error) { return parseName[OverLong](overLongNames, name) }

func nameOf(names []string, kind string, v uint32) string {
	if known(names, v) {
		return names[v]
	}
	return fmt.Sprintf("%s-%d", kind, v)
}

func known(names []string, v uint32) bool { return int64(v) < int64(len(names)) && names[v] != "" }

func parseName[T ~uint32](names []string, name string) (T, error) {
	if i := slices.Index(names, name); i >= 0 && name != "" {
		return T(i), nil
	}
	return 0, fmt.Errorf("is %q, must be %s", name, choices(names))
}

// choices lists names for people.
func choices(names []string) string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" })
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// Manifest is what all peers of a run share. It is immutable: its CID is the
// run ID. Validate has the bounds.
type Manifest struct {
	Version      uint32
	Name         string
	Model        cid.Cid // root of the base model's folder
	Dataset      cid.Cid // root of the data set's folder
	ModelBytes   uint64
	DatasetBytes uint64
	Mode         Mode     `json:",omitzero"`
	LoRA         LoRA     // zero in ModeFull
	Tensors      []Tensor // of what is trained, sorted bytewise by name
	GenesisSeed  uint64
	Inner        Inner
	Outer        Outer
	CodecBits    uint32 // 1, 2, 4 or 8
	PeriodMillis uint64 // the round period
	Seats        uint32 // at most
	MinPeers     uint32 // the first round that trains waits for so many seats
	MaxRounds    uint64 // rounds with a contribution, then the run is final
	MaxTokens    uint64 // likewise, tokens; 0: no bound
	Schedule     Schedule
	EvalSamples  uint32 // held-out samples that an evaluation reads
	Licences     Licences
	Launcher     peer.ID
	Created      int64     // Unix seconds, informational
	Template     string    // prompt template, "alpaca"
	Trust        Trust     `json:",omitzero"` // zero: every seat is believed
	Admission    Admission `json:",omitzero"` // zero: everybody may take part
	Stop         Stop      `json:",omitzero"` // zero: only rounds and tokens end the run
	Rollback     Rollback  `json:",omitzero"` // zero: it never goes back
	// SkipLinks: records name some of the records before their parents, so that
	// a head can be checked with few of them.
	SkipLinks bool `json:",omitzero"`
	// Pledges: proposals come with a signed word short enough for a record, so that
	// who proposes two records in one attempt is banned for it.
	Pledges bool `json:",omitzero"`
	// DatedRequests: a request for a seat says until which round it has an effect, so
	// that an old one has no effect when somebody says it again later.
	DatedRequests bool `json:",omitzero"`
	// RotateRounds is after how many rounds some seats of a full run go to peers
	// that wait for one; 0: never.
	RotateRounds uint32 `json:",omitzero"`
	// KeepRounds is for how many rounds the seat of a peer that has worked, and is
	// away, is kept for it; peers that have worked come before others then. 0: whoever
	// asks gets a free seat.
	KeepRounds uint32 `json:",omitzero"`
	// MinCodecBits is down to which codec a run goes whose deltas do not come in
	// time; CodecBits is the one that it begins with and comes back to. 0: it stays
	// at that.
	MinCodecBits uint32 `json:",omitzero"`
	// FollowArrivals: the deadline of a round is when the deltas of the rounds
	// before it were there, within half of the period and 1.2 of it.
	FollowArrivals bool `json:",omitzero"`
	// EvalPeers is how many witnesses, drawn in each round, measure the held-out
	// loss of the state before it. 0: none; all, in a run with Stop or Rollback.
	EvalPeers uint32 `json:",omitzero"`
}

// Stop ends a run by its held-out loss.
type Stop struct {
	// Patience is for how many losses in a row none has to be lower than the
	// lowest by MinImprovementPPM; 0: for ever.
	Patience          uint32
	MinImprovementPPM uint32
	// TargetMicro is the loss, in 1e-6 nats, at which the run ends; 0: none.
	TargetMicro uint64
}

// Rollback lets a run go back to its best state when, for so many losses in a
// row, all were worse than the best by more than WorsePPM.
type Rollback struct {
	Rounds   uint32 // 0: never
	WorsePPM uint32
}

// Steers reports whether the held-out loss decides what becomes of the run.
func (m *Manifest) Steers() bool { return m.Stop != Stop{} || m.Rollback != Rollback{} }

// Measures reports whether the held-out loss is recorded.
func (m *Manifest) Measures() bool { return m.EvalPeers > 0 || m.Steers() }

// AdmissionMode says who may take part in a run.
type AdmissionMode uint32

// The modes. The launcher always may.
const (
	AdmissionOpen   AdmissionMode = 0
	AdmissionList   AdmissionMode = 1 // the peers in Allowed
	AdmissionInvite AdmissionMode = 2 // whoever has an invite of the launcher
)

var admissionNames = []string{"open", "list", "invite"}

// String returns the name used in run.toml.
func (a AdmissionMode) String() string { return nameOf(admissionNames, "admission", uint32(a)) }

// ParseAdmission is the inverse of String.
func ParseAdmission(name string) (AdmissionMode, error) {
	return parseName[AdmissionMode](admissionNames, name)
}

// Admission says who may take part.
type Admission struct {
	Mode     AdmissionMode
	Allowed  []peer.ID // sorted bytewise
	WorkBits uint32    // of a join request: about 2^bits hashes, once for each identity
}

// Trust says how much of what peers send is audited.
type Trust struct {
	Auditors     uint32 // of each delta; 0: no audits
	AuditSamples uint32 // held-out samples that an audit reads
	Probation    uint32 // useful audits that it takes until a new peer's deltas count
	// TakeBack: what a damaging delta did to the state is undone when its
	// verdict is recorded.
	TakeBack bool `json:",omitzero"`
	// RetracePPM is how many of a million deltas are drawn for a retrace: a
	// part of their training is done again. 0: none, and no commit has a trace.
	RetracePPM uint32 `json:",omitzero"`
	// Outsiders is how many peers without a seat, that have worked for the run,
	// audit each delta beside the auditors with one.
	Outsiders uint32 `json:",omitzero"`
	// Judgement says by which rules audits are judged; 0: those of the first
	// runs. NewestJudgement is for new ones.
	Judgement uint32 `json:",omitzero"`
}

// NewestJudgement has what follows from audits when some auditors lie, or
// audits tell little, also when most of what tells is a lie, or gains are close
// together by chance.
const NewestJudgement = 3

// LoRA is the shape of the adapter. Which layers it is on, and their ranks,
// is what Tensors say.
type LoRA struct {
	Rank    uint32        // of most layers
	Alpha   uint32        // of all layers that are not among Alphas
	Targets []string      // names of the adapted modules, sorted bytewise
	RSLoRA  bool          `json:",omitzero"` // scales by alpha/sqrt(rank), not alpha/rank
	Alphas  []ModuleAlpha `json:",omitzero"` // sorted bytewise by module
}

// ModuleAlpha is a module, by its whole name, and its alpha.
type ModuleAlpha struct {
	Module string
	Alpha  uint32
}

// Tensor is one tensor of what is trained. Of an adapter's, A is (rank, in), B
// is (out, rank); in ModeFull a vector has one row.
type Tensor struct {
	Name string
	Rows uint32
	Cols uint32
}

// Inner is the inner optimizer and how long a seat trains.
type Inner struct {
	Optimizer        Optimizer `json:",omitzero"`
	LearningRateNano uint64    // 1e-9
	Beta1PPM         uint32    // 1e-6
	Beta2PPM         uint32    // 1e-6
	EpsilonPico      uint64    // 1e-12
	MomentumPPM      uint32    `json:",omitzero"` // 1e-6; of SGD
	WeightDecayPPM   uint32    // 1e-6
	ClipMilli        uint32    // bound of the gradient's norm, 1e-3; 0: none
	LoRAPlusMilli    uint32    `json:",omitzero"` // learning rate of B by that of A (LoRA+), 1e-3; 0: 1
	WarmupSteps      uint32
	DecayRounds      uint64 `json:",omitzero"` // of ScheduleWSD
	MinSteps         uint32 // fewer steps in a round are not committed
	MaxSteps         uint32 // a seat stops here, or at 0.8 of the period
	// StartSteps is where a seat stops in the first rounds of a run that finds by
	// itself, from MinSteps to MaxSteps, how many are good; 0: always at MaxSteps.
	StartSteps   uint32 `json:",omitzero"`
	BatchSamples uint32
	MaxTokens    uint32   // of one sequence
	Unpacked     bool     `json:",omitzero"` // each sample is computed alone
	OverLong     OverLong `json:",omitzero"`
	// OverlapSteps is how many steps of the next round a seat may take before that
	// round's head is known, while its delta travels; 0: none.
	OverlapSteps uint32 `json:",omitzero"`
}

// Outer is the outer optimizer, Nesterov momentum, in Q16.
type Outer struct {
	LearningRateQ16 uint32
	MomentumQ16     uint32
}

// Use is what a run says that its result is for.
type Use uint32

// The uses.
const (
	UseUnstated   Use = 0
	UseResearch   Use = 1
	UseCommercial Use = 2
)

var useNames = []string{"unstated", "research", "commercial"}

// String returns the name used in run.toml.
func (u Use) String() string { return nameOf(useNames, "use", uint32(u)) }

// ParseUse is the inverse of String.
func ParseUse(name string) (Use, error) { return parseName[Use](useNames, name) }

// Licences are those of the base model and of the data, as their makers name
// them, what the launcher says that the result is for, and where it says that
// model and data are from.
type Licences struct {
	Model       string
	Data        string
	Use         Use    `json:",omitzero"`
	ModelSource string `json:",omitzero"`
	DataSource  string `json:",omitzero"`
}

// Encode validates m and returns its canonical bytes.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	b, err := marshal(m.toWire())
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	if len(b) > MaxManifestBytes {
		return nil, fmt.Errorf("encode manifest: it has %d bytes, must have at most %d", len(b), MaxManifestBytes)
	}
	return b, nil
}

// ErrVersion is wrapped when a manifest is of another version.
var ErrVersion = errors.New("it has version")

// Decode decodes and validates a manifest. It refuses bytes that Encode would
// not have written.
func Decode(b []byte) (*Manifest, error) {
	if len(b) > MaxManifestBytes {
		return nil, fmt.Errorf("decode manifest: it has %d bytes, must have at most %d", len(b), MaxManifestBytes)
	}
	var w wirev1.Manifest
	if err := proto.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	// Before what another version may have changed.
	if w.Version != ManifestVersion {
		return nil, fmt.Errorf("decode manifest: %w %d, this program knows version %d; the older of the two has to be updated", ErrVersion, w.Version, ManifestVersion)
	}
	m, err := fromWire(&w)
	if err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if again, err := marshal(m.toWire()); err != nil || !bytes.Equal(again, b) {
		var known wirev1.Manifest
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, &known); err == nil && proto.Size(&known) < proto.Size(&w) {
			return nil, fmt.Errorf("decode manifest: it has settings that this program does not know; update it to take part")
		}
		return nil, fmt.Errorf("decode manifest: it is not in the canonical encoding")
	}
	return m, nil
}

func marshal(w proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(w)
}

// ID returns the run ID: the CID (version 1, raw, sha2-256) of the canonical
// bytes.
func (m *Manifest) ID() (cid.Cid, error) {
	b, err := m.Encode()
	if err != nil {
		return cid.Undef, err
	}
	return msg.RawCID(b), nil
}

// Layout returns the layout of the adapter's parameters.
func (m *Manifest) Layout() (*fold.Layout, error) {
	tensors := make([]fold.Tensor, len(m.Tensors))
	for i, t := range m.Tensors {
		tensors[i] = fold.Tensor{Name: t.Name, Rows: int(t.Rows), Cols: int(t.Cols)}
	}
	return fold.NewLayout(tensors)
}

// FoldOuter returns the outer step in the terms of the fold.
func (m *Manifest) FoldOuter() fold.Outer { return fold.Outer(m.Outer) }
