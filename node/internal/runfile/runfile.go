// Package runfile reads run.toml, the file in which a coordinator describes a
// run. Parse checks what can be checked without model and data; the daemon
// turns the result into the immutable manifest (proto/run).
package runfile

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// File is run.toml as written. Zero values are replaced by Parse with the
// defaults that the comments name.
type File struct {
	// Name is what people call the run; at most 64 characters.
	Name string `toml:"name"`
	// Model and Data are the CIDs that "moot model import" and "moot data
	// import" print.
	Model string `toml:"model"`
	Data  string `toml:"data"`
	// Template is how a row becomes a prompt. Default: the one that the data
	// set names.
	Template string `toml:"template"`
	// Period is how long a round lasts, for example "10m". Default 10m.
	Period Duration `toml:"period"`
	// Rounds is how many rounds with at least one contribution are trained.
	// Default 100.
	Rounds uint32 `toml:"rounds"`
	// MaxTokens ends the run earlier, after that many trained tokens; the
	// schedule goes by Rounds all the same, but with Inner.StartSteps. Default 0:
	// only Rounds counts.
	MaxTokens uint64 `toml:"max_tokens"`
	// Seats is how many peers train in a round. Default 32. More than 48, at most
	// 1024, work in cells of about 32; trust.retrace, trust.outsiders and
	// trust.take_back are not for them.
	Seats uint32 `toml:"seats"`
	// RotateRounds is after how many rounds up to a quarter of the seats of a full
	// run go to peers that wait for one; who did more audited work keeps its seat
	// longer. Default 16; 0: never.
	RotateRounds uint32 `toml:"rotate_rounds"`
	// KeepRounds is for how many rounds the seat of a peer that has worked, and is
	// away, stays empty for it when others wait; of those who ask for a free seat, who has
	// worked comes first then. Where peers restart for longer than that, more is better; where
	// they go for good, a seat is empty so long. Default 8 with audits; without them nobody
	// knows who has worked, and it is 0: whoever asks gets a free seat.
	KeepRounds uint32 `toml:"keep_rounds"`
	// MinPeers is how many peers have to be there before training starts;
	// once it has started it goes on with any number. Default 1.
	MinPeers uint32 `toml:"min_peers"`
	// CodecBits is the size of a value of a delta: 1, 2, 4 or 8. Default 2.
	CodecBits uint32 `toml:"codec_bits"`
	// MinCodecBits lets the codec become coarser, down to so many bits, when more
	// than an eighth of the deltas come too late; after sixteen rounds without that
	// it becomes finer again, up to codec_bits. Deltas are not retraced in such a run.
	// Default 0: the codec stays as it is.
	MinCodecBits uint32 `toml:"min_codec_bits"`
	// FollowArrivals makes the deadline of a round follow when the deltas of the
	// last eight were there, within half of the period and 1.2 of it: who waits for
	// few slow peers waits less. Default true, false with more than 48 seats.
	FollowArrivals bool `toml:"follow_arrivals"`
	// EvalSamples is on how many held-out samples the loss is measured after each
	// round. Default 64.
	EvalSamples uint32 `toml:"eval_samples"`
	// EvalPeers is how many peers, drawn by lot in each round, measure that loss;
	// their median is recorded. Where [stop] or [rollback] decide by it, all do.
	// Default 5; 0: nothing is recorded, each peer measures for itself.
	EvalPeers uint32 `toml:"eval_peers"`
	// Seed draws the adapter's initial values. Default 1.
	Seed uint64 `toml:"seed"`
	// Mode is "lora" (default) or "full": all parameters are trained, without
	// an adapter, which is for models of at most 150 million parameters.
	Mode string `toml:"mode"`

	LoRA      LoRA      `toml:"lora"`
	Inner     Inner     `toml:"inner"`
	Outer     Outer     `toml:"outer"`
	Trust     Trust     `toml:"trust"`
	Stop      Stop      `toml:"stop"`
	Rollback  Rollback  `toml:"rollback"`
	Admission Admission `toml:"admission"`
	Licence   Licence   `toml:"licence"`
}

// Admission is who may take part. The launcher always may.
type Admission struct {
	// Mode is "open" (default), "list" (the peers in Allowed) or "invite"
	// (whoever has what "moot invite" prints).
	Mode string `toml:"mode"`
	// Allowed are peer IDs, for "list".
	Allowed []string `toml:"allowed"`
	// WorkBits is how much work a newcomer has to do once, about 2^bits hashes,
	// so that new identities are not for nothing: at most 32; 20 takes a second.
	// Default 0.
	WorkBits uint32 `toml:"work_bits"`
}

// Stop ends a run before its last round, by the held-out loss: the median of
// what the peers measure after each round.
type Stop struct {
	// Patience is after how many rounds in a row without improvement the run
	// ends. Default 0: never.
	Patience uint32 `toml:"patience"`
	// MinImprovement is by which part of itself the loss has to fall to be an
	// improvement. Default 0.001; without patience it is nothing.
	MinImprovement *float64 `toml:"min_improvement"`
	// TargetLoss is the loss, in nats per token, at which the run ends. Default
	// 0: none.
	TargetLoss float64 `toml:"target_loss"`
}

// Rollback returns a run to its best state when it gets worse and worse.
type Rollback struct {
	// Rounds is for how many rounds in a row the loss has to be too high.
	// Default 0: the run never goes back.
	Rounds uint32 `toml:"rounds"`
	// Worse is by which part the loss has to be above the best one. Default 0.03.
	Worse *float64 `toml:"worse"`
}

// Trust is how peers are kept honest: others measure what their deltas do.
type Trust struct {
	// Auditors is how many peers measure each delta, at most 16; 0 believes
	// everybody. Deltas of peers that were found wanting lately are measured by all
	// that vote. Default 3.
	Auditors *uint32 `toml:"auditors"`
	// AuditSamples is how many held-out samples a measurement reads. Default:
	// as many as make audits a tenth of the work of a round, 8 to 256.
	AuditSamples uint32 `toml:"audit_samples"`
	// Probation is how many useful deltas a peer that is new to a run has to
	// send before one counts. Who is there before training starts is not new.
	// Default 5; fewer in a run of fewer than 50 rounds.
	Probation *uint32 `toml:"probation"`
	// TakeBack is whether what a damaging delta did to the adapter is undone when
	// auditors found it out, which is a round later. What others trained in
	// between then makes up for a part of it twice. Default: false.
	TakeBack *bool `toml:"take_back"`
	// Retrace is of which part of all deltas, drawn by lot, auditors do a part of
	// the training again, 0 to 1. For that every seat keeps where its training
	// stood, about 90 bytes on its disk for each trained value. Default: 0.02
	// with auditors and up to 16 million trained values, else 0; 0
	// with more than 48 seats.
	Retrace *float64 `toml:"retrace"`
	// Outsiders is how many peers that have worked for the run, and have no seat
	// just now, audit each delta beside the auditors with one. Default: half as
	// many as Auditors, rounded up; 0 with more than 48 seats.
	Outsiders *uint32 `toml:"outsiders"`
}

// LoRA is the adapter's shape. Layers are chosen as PEFT chooses them. None of
// it is there with Mode "full".
type LoRA struct {
	// Rank is r, default 16; Alpha is the scaling's numerator, default 2r.
	Rank  uint32 `toml:"rank"`
	Alpha uint32 `toml:"alpha"`
	// Targets are the linear layers: a list of names, each of which stands for
	// all layers whose path is it or ends with "." and it; or a string, a
	// regular expression of whole paths. Default: "all-linear".
	Targets Names `toml:"-"`
	// ExcludeModules are layers that are no targets after all, likewise.
	ExcludeModules Names `toml:"-"`
	// LayersToTransform are the numbers of the blocks, from 0 on, that have
	// targets. Default: all.
	LayersToTransform []int `toml:"layers_to_transform"`
	// RSLoRA scales by alpha/sqrt(rank), which suits ranks above 32. Default
	// false: alpha/rank.
	RSLoRA bool `toml:"rslora"`
	// RankPattern and AlphaPattern give some layers another rank or alpha. A
	// key is a regular expression for the end of a path, behind a dot; where
	// several match, the longest counts, of two the one that sorts first.
	RankPattern  map[string]uint32 `toml:"rank_pattern"`
	AlphaPattern map[string]uint32 `toml:"alpha_pattern"`

	RawTargets any `toml:"targets"`         // Targets, as written
	RawExclude any `toml:"exclude_modules"` // ExcludeModules, as written
}

// Names are layers: those of a list, or those that match a pattern.
type Names struct {
	List    []string
	Pattern string
}

// Inner is what a peer does within a round.
type Inner struct {
	// Optimizer is "adamw" (default), "adamw-8bit" (a quarter of its memory)
	// or "sgd".
	Optimizer string `toml:"optimizer"`
	// LearningRate, default 2e-4. Schedule is how it goes over Rounds:
	// "cosine" (default) and "linear" fall to zero, "constant" stays, "wsd"
	// stays and falls to zero in the last DecayRounds (default a tenth of
	// Rounds).
	LearningRate float64 `toml:"learning_rate"`
	Schedule     string  `toml:"schedule"`
	DecayRounds  uint32  `toml:"decay_rounds"`
	// LoRAPlusRatio is the learning rate of each B by that of its A (LoRA+,
	// whose paper takes 16 and a lower rate). Default 1.
	LoRAPlusRatio float64 `toml:"lora_plus_ratio"`
	// Beta1 0.9, Beta2 0.95 and Epsilon 1e-8 are of AdamW, Momentum 0.9 of SGD;
	// WeightDecay 0, Clip 1.0 (global gradient norm) of all.
	Beta1       *float64 `toml:"beta1"`
	Beta2       *float64 `toml:"beta2"`
	Epsilon     *float64 `toml:"epsilon"`
	Momentum    *float64 `toml:"momentum"`
	WeightDecay float64  `toml:"weight_decay"`
	Clip        *float64 `toml:"clip"`
	// WarmupSteps are the steps over which a peer that joins raises its
	// learning rate. Default 0.
	WarmupSteps uint32 `toml:"warmup_steps"`
	// MinSteps and MaxSteps bound H, the inner steps of a round; within the
	// bounds a peer stops at 0.8 of the period. Default 1 and 30.
	MinSteps uint32 `toml:"min_steps"`
	MaxSteps uint32 `toml:"max_steps"`
	// StartSteps is H in the first rounds of a run that finds it by itself, from
	// MinSteps to MaxSteps: half as many when the deltas of a round go far apart, a
	// quarter more when they do not at all. Such a run ends by MaxTokens, and its
	// schedule goes by them. Default 0: H is MaxSteps.
	StartSteps uint32 `toml:"start_steps"`
	// OverlapSteps is how many steps of the next round a peer may take while the
	// deltas of this one travel, from what its own delta alone would make of the
	// adapter. They are not lost, but each is worth a little less. Default 0.
	OverlapSteps uint32 `toml:"overlap_steps"`
	// BatchSamples is the number of samples in a step, default 16. Packing
	// computes several of them at once, one after the other without padding and
	// without seeing each other; false is slower and changes nothing but
	// rounding. Default true.
	BatchSamples uint32 `toml:"batch_samples"`
	Packing      *bool  `toml:"packing"`
	// SequenceTokens is how long a sample can be, default 512, or less where
	// the model was made for less. OverLong is what
	// becomes of longer rows: with "shorten" (default) a conversation loses its
	// earliest turns and a text its end, and other rows are left out; with
	// "drop" all are left out. They are counted.
	SequenceTokens uint32 `toml:"sequence_tokens"`
	OverLong       string `toml:"over_long"`
	// SequenceSet says that SequenceTokens is the file's, not the default.
	SequenceSet bool `toml:"-"`
}

// Outer is the step that the whole swarm takes with the averaged delta:
// Nesterov with LearningRate 0.7 and Momentum 0.6 by default.
type Outer struct {
	LearningRate *float64 `toml:"learning_rate"`
	Momentum     *float64 `toml:"momentum"`
}

// Licence names what the model and the data are under.
type Licence struct {
	Model string `toml:"model"`
	Data  string `toml:"data"`
	// Use is what the result is for, "research" or "commercial": a licence that
	// forbids that is refused. Default: not stated, and nothing is refused.
	Use string `toml:"use"`
	// ModelSource and DataSource say where they are from. Default: what was said
	// when they were imported.
	ModelSource string `toml:"model_source"`
	DataSource  string `toml:"data_source"`
}

// Duration is a time.Duration written as "10m" or "90s".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 10m or 90s", b)
	}
	*d = Duration(v)
	return nil
}

// Error is a value in a run file that cannot be used: where and why.
type Error struct {
	File string
	Line int // 0 when the key is missing
	Msg  string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Msg)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

// MaxBytes is the largest run file that Parse reads.
const MaxBytes = 64 << 10

// Parse reads a run file, fills in defaults and checks every value. name is
// the file's name for error messages. Errors are of type *Error.
func Parse(name string, text []byte) (*File, error) {
	if len(text) > MaxBytes {
		return nil, &Error{File: name, Msg: fmt.Sprintf("is %d bytes long, at most %d are read", len(text), MaxBytes)}
	}
	f := new(File)
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	err := d.Decode(f)
	if strict := new(toml.StrictMissingError); errors.As(err, &strict) {
		e := strict.Errors[0]
		line, _ := e.Position()
		return nil, &Error{name, line, fmt.Sprintf("unknown key %q", strings.Join(e.Key(), "."))}
	}
	if de := new(toml.DecodeError); errors.As(err, &de) {
		line, _ := de.Position()
		return nil, &Error{name, line, strings.TrimPrefix(de.Error(), "toml: ")}
	}
	if err != nil {
		return nil, &Error{File: name, Msg: err.Error()}
	}
	f.defaults(text)
	if key, msg := f.check(); key != "" {
		return nil, KeyError(name, text, key, msg)
	}
	return f, nil
}

// KeyError makes the error for a key (table.name or name) whose value turned
// out to be of no use later.
func KeyError(name string, text []byte, key, msg string) *Error {
	return &Error{name, lineOf(text, key), key + " " + msg}
}

func (f *File) defaults(text []byte) {
	setU := func(p *uint32, v uint32) {
		if *p == 0 {
			*p = v
		}
	}
	setF := func(p **float64, v float64) {
		if *p == nil {
			*p = &v
		}
	}
	if f.Period == 0 {
		f.Period = Duration(10 * time.Minute)
	}
	if f.Seed == 0 {
		f.Seed = 1
	}
	setU(&f.Rounds, 100)
	setU(&f.Seats, 32)
	setU(&f.MinPeers, 1)
	if lineOf(text, "rotate_rounds") == 0 {
		f.RotateRounds = 16
	}
	if lineOf(text, "follow_arrivals") == 0 {
		f.FollowArrivals = f.Seats <= oneCell
	}
	setU(&f.CodecBits, 2)
	setU(&f.EvalSamples, 64)
	if lineOf(text, "eval_peers") == 0 {
		f.EvalPeers = 5
	}
	setS := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	setS(&f.Mode, modeLoRA)
	setS(&f.Admission.Mode, "open")
	if f.Mode != modeFull {
		setU(&f.LoRA.Rank, 16)
		setU(&f.LoRA.Alpha, 2*f.LoRA.Rank)
	}
	if f.Inner.LearningRate == 0 {
		f.Inner.LearningRate = 2e-4
	}
	if f.Inner.LoRAPlusRatio == 0 && lineOf(text, "inner.lora_plus_ratio") == 0 {
		f.Inner.LoRAPlusRatio = 1
	}
	setS(&f.Licence.Use, "unstated")
	setS(&f.Inner.Optimizer, "adamw")
	setS(&f.Inner.Schedule, "cosine")
	setS(&f.Inner.OverLong, "shorten")
	if f.Inner.Schedule == scheduleWSD {
		setU(&f.Inner.DecayRounds, max(1, f.Rounds/10))
	}
	if f.Inner.Optimizer == optimizerSGD {
		setF(&f.Inner.Momentum, 0.9)
	}
	if f.Inner.Packing == nil {
		f.Inner.Packing = new(true)
	}
	setF(&f.Inner.Beta1, 0.9)
	setF(&f.Inner.Beta2, 0.95)
	setF(&f.Inner.Epsilon, 1e-8)
	setF(&f.Inner.Clip, 1)
	setU(&f.Inner.MinSteps, 1)
	setU(&f.Inner.MaxSteps, 30)
	setU(&f.Inner.BatchSamples, 16)
	f.Inner.SequenceSet = f.Inner.SequenceTokens != 0
	setU(&f.Inner.SequenceTokens, 512)
	setF(&f.Outer.LearningRate, 0.7)
	setF(&f.Outer.Momentum, 0.6)
	f.Trust.defaults(f)
	if lineOf(text, "keep_rounds") == 0 && *f.Trust.Auditors > 0 {
		f.KeepRounds = 8
	}
	if f.Stop.MinImprovement == nil {
		f.Stop.MinImprovement = new(0.0)
		if f.Stop.Patience > 0 {
			*f.Stop.MinImprovement = 0.001
		}
	}
	if f.Rollback.Worse == nil {
		f.Rollback.Worse = new(0.0)
		if f.Rollback.Rounds > 0 {
			*f.Rollback.Worse = 0.03
		}
	}
}

func (t *Trust) defaults(f *File) {
	if t.Auditors == nil {
		t.Auditors = new(uint32(3))
	}
	if *t.Auditors > 0 && t.AuditSamples == 0 {
		// An audit takes one pass forward before and one after each delta, a step
		// about three.
		perRound := 3 * uint64(f.Inner.MaxSteps) * uint64(f.Inner.BatchSamples)
		t.AuditSamples = uint32(min(max(perRound/10/uint64(*t.Auditors+1), 8), 256))
	}
	inCells := f.Seats > oneCell
	if t.Retrace == nil && (f.MinCodecBits > 0 || inCells) {
		t.Retrace = new(0.0)
	}
	if t.Outsiders == nil {
		t.Outsiders = new(uint32(0))
		if !inCells {
			*t.Outsiders = (*t.Auditors + 1) / 2
		}
	}
	if t.TakeBack == nil {
		t.TakeBack = new(false)
	}
	if t.Probation == nil {
		t.Probation = new(uint32(0))
		if *t.Auditors > 0 {
			*t.Probation = min(5, max(1, f.Rounds/10))
		}
	}
}

// oneCell is how many seats a run has at most that works without cells.
const oneCell = 48

// maxRetraced is how many trained values a run has at most that retraces if
// its file does not say.
const maxRetraced = 16 << 20

func (t *Trust) retrace() float64 {
	if t.Retrace == nil {
		return 0
	}
	return *t.Retrace
}

// RetracePPM is how many of a million deltas are retraced in a run that trains
// so many values.
func (t *Trust) RetracePPM(params int) uint32 {
	switch {
	case t.Retrace != nil:
		return uint32(math.Round(*t.Retrace * 1e6))
	case *t.Auditors > 0 && params <= maxRetraced:
		return 20_000
	}
	return 0
}

// The values that others depend on.
const (
	modeLoRA     = "lora"
	modeFull     = "full"
	scheduleWSD  = "wsd"
	optimizerSGD = "sgd"
)

// check returns the first key whose value cannot be used and what is wrong.
func (f *File) check() (key, msg string) {
	type bound struct {
		key    string
		v      float64
		lo, hi float64
	}
	least := 1.0 // of rank and alpha
	if f.Mode == modeFull {
		least = 0
	}
	for _, b := range []bound{
		{"rounds", float64(f.Rounds), 1, 1e6},
		{"seats", float64(f.Seats), 1, 1024},
		{"min_peers", float64(f.MinPeers), 1, float64(min(f.Seats, oneCell))},
		{"rotate_rounds", float64(f.RotateRounds), 0, 1e6},
		{"keep_rounds", float64(f.KeepRounds), 0, 1000},
		{"eval_samples", float64(f.EvalSamples), 1, 1e5},
		{"eval_peers", float64(f.EvalPeers), 0, 48},
		{"lora.rank", float64(f.LoRA.Rank), least, maxRank},
		{"lora.alpha", float64(f.LoRA.Alpha), least, maxAlpha},
		{"inner.learning_rate", f.Inner.LearningRate, 1e-8, 1},
		{"inner.beta1", *f.Inner.Beta1, 0, 0.9999},
		{"inner.beta2", *f.Inner.Beta2, 0, 0.9999},
		{"inner.epsilon", *f.Inner.Epsilon, 1e-12, 1e-2},
		{"inner.lora_plus_ratio", f.Inner.LoRAPlusRatio, 0.01, 1000},
		{"inner.weight_decay", f.Inner.WeightDecay, 0, 1},
		{"inner.clip", *f.Inner.Clip, 0, 1e6},
		{"inner.warmup_steps", float64(f.Inner.WarmupSteps), 0, 1e5},
		{"inner.min_steps", float64(f.Inner.MinSteps), 1, float64(f.Inner.MaxSteps)},
		{"inner.max_steps", float64(f.Inner.MaxSteps), 1, 1e4},
		{"inner.start_steps", float64(f.Inner.StartSteps), 0, float64(f.Inner.MaxSteps)},
		{"inner.overlap_steps", float64(f.Inner.OverlapSteps), 0, float64(f.Inner.MaxSteps)},
		{"inner.batch_samples", float64(f.Inner.BatchSamples), 1, 4096},
		{"inner.sequence_tokens", float64(f.Inner.SequenceTokens), 8, 1 << 17},
		{"outer.learning_rate", *f.Outer.LearningRate, 0.01, 4},
		{"outer.momentum", *f.Outer.Momentum, 0, 0.99},
		{"stop.patience", float64(f.Stop.Patience), 0, 1e6},
		{"stop.min_improvement", *f.Stop.MinImprovement, 0, 1},
		{"stop.target_loss", f.Stop.TargetLoss, 0, 1e5},
		{"rollback.rounds", float64(f.Rollback.Rounds), 0, 1e6},
		{"rollback.worse", *f.Rollback.Worse, 0, 1},
		{"admission.work_bits", float64(f.Admission.WorkBits), 0, 32},
		{"trust.auditors", float64(*f.Trust.Auditors), 0, 16},
		{"trust.audit_samples", float64(f.Trust.AuditSamples), 0, 1e5},
		{"trust.probation", float64(*f.Trust.Probation), 0, 1000},
		{"trust.retrace", f.Trust.retrace(), 0, 1},
		{"trust.outsiders", float64(*f.Trust.Outsiders), 0, 16},
		{"period", time.Duration(f.Period).Seconds(), 1, 86400},
	} {
		if math.IsNaN(b.v) || b.v < b.lo {
			return b.key, fmt.Sprintf("is %v, must be at least %v", b.v, b.lo)
		}
		if b.v > b.hi {
			return b.key, fmt.Sprintf("is %v, must be at most %v", b.v, b.hi)
		}
	}
	switch {
	case f.KeepRounds > 0 && *f.Trust.Auditors == 0:
		return "keep_rounds", fmt.Sprintf("is %d, must be 0 without audits, which say who has worked", f.KeepRounds)
	case f.Stop.Patience == 0 && *f.Stop.MinImprovement > 0:
		return "stop.min_improvement", "is set without patience; say after how many rounds without it the run ends"
	case f.Rollback.Rounds == 0 && *f.Rollback.Worse > 0:
		return "rollback.worse", "is set without rounds; say after how many of them the run goes back"
	case f.Rollback.Rounds > 0 && *f.Rollback.Worse < 1e-6:
		return "rollback.worse", "is 0, must be at least 0.000001"
	case f.Name == "":
		return "name", "is missing; give the run a name of at most 64 characters"
	case len(f.Name) > 64:
		return "name", fmt.Sprintf("is %d bytes long, must be at most 64", len(f.Name))
	case f.Model == "":
		return "model", `is missing; "moot model import DIR" prints the CID to put here, or give it with --model`
	case f.Data == "":
		return "data", `is missing; "moot data import FILE" prints the CID to put here, or give it with --data`
	case f.CodecBits != 1 && f.CodecBits != 2 && f.CodecBits != 4 && f.CodecBits != 8:
		return "codec_bits", fmt.Sprintf("is %d, must be 1, 2, 4 or 8", f.CodecBits)
	}
	for _, c := range []struct {
		key, v  string
		choices []string
	}{
		{"mode", f.Mode, []string{modeLoRA, modeFull}},
		{"inner.optimizer", f.Inner.Optimizer, []string{"adamw", "adamw-8bit", optimizerSGD}},
		{"inner.schedule", f.Inner.Schedule, []string{"cosine", "constant", "linear", scheduleWSD}},
		{"inner.over_long", f.Inner.OverLong, []string{"shorten", "drop"}},
		{"licence.use", f.Licence.Use, []string{"unstated", "research", "commercial"}},
	} {
		if !slices.Contains(c.choices, c.v) {
			last := len(c.choices) - 1
			return c.key, fmt.Sprintf("is %q, must be %s or %s", c.v, strings.Join(c.choices[:last], ", "), c.choices[last])
		}
	}
	if key, msg := f.checkInner(); key != "" {
		return key, msg
	}
	return f.checkLoRA()
}

// checkInner refuses settings of the inner steps that would have no effect.
func (f *File) checkInner() (key, msg string) {
	in := &f.Inner
	switch {
	case in.Schedule == scheduleWSD && in.DecayRounds > f.Rounds:
		return "inner.decay_rounds", fmt.Sprintf("is %d, must be at most rounds, %d", in.DecayRounds, f.Rounds)
	case in.Schedule != scheduleWSD && in.DecayRounds != 0:
		return "inner.decay_rounds", fmt.Sprintf("is for the schedule wsd, not %s", in.Schedule)
	case in.Optimizer != optimizerSGD && in.Momentum != nil:
		return "inner.momentum", fmt.Sprintf("is for the optimizer sgd, not %s; that of adamw is beta1", in.Optimizer)
	case in.Momentum != nil && !(*in.Momentum >= 0 && *in.Momentum <= 0.9999):
		return "inner.momentum", fmt.Sprintf("is %v, must be 0 to 0.9999", *in.Momentum)
	case f.Mode == modeFull && in.LoRAPlusRatio != 1:
		return "inner.lora_plus_ratio", "is for adapters, not for mode full"
	}
	return "", ""
}

func (f *File) checkLoRA() (key, msg string) {
	l := &f.LoRA
	if f.Mode == modeFull {
		for _, k := range []struct {
			key string
			set bool
		}{
			{"rank", l.Rank != 0},
			{"alpha", l.Alpha != 0},
			{"targets", l.RawTargets != nil},
			{"exclude_modules", l.RawExclude != nil},
			{"layers_to_transform", l.LayersToTransform != nil},
			{"rslora", l.RSLoRA},
			{"rank_pattern", l.RankPattern != nil},
			{"alpha_pattern", l.AlphaPattern != nil},
		} {
			if k.set {
				return "lora." + k.key, "is for adapters, not for mode full"
			}
		}
		return "", ""
	}
	for _, p := range []struct {
		key    string
		values map[string]uint32
		most   uint32
	}{{"lora.rank_pattern", l.RankPattern, maxRank}, {"lora.alpha_pattern", l.AlphaPattern, maxAlpha}} {
		for _, name := range slices.Sorted(maps.Keys(p.values)) {
			if v := p.values[name]; v < 1 || v > p.most {
				return p.key, fmt.Sprintf("has %d for %q, must have 1 to %d", v, name, p.most)
			}
			if _, err := regexp.Compile(name); err != nil {
				return p.key, fmt.Sprintf("has %q, which is not a regular expression: %v", name, err)
			}
		}
	}
	for _, n := range []struct {
		key string
		raw any
		to  *Names
	}{{"lora.targets", l.RawTargets, &l.Targets}, {"lora.exclude_modules", l.RawExclude, &l.ExcludeModules}} {
		var ok bool
		if *n.to, ok = namesOf(n.raw); !ok {
			return n.key, "must be a list of names, or a string with a regular expression"
		}
		if _, err := regexp.Compile(n.to.Pattern); err != nil {
			return n.key, fmt.Sprintf("is not a regular expression: %v", err)
		}
	}
	for _, i := range l.LayersToTransform {
		if i < 0 {
			return "lora.layers_to_transform", fmt.Sprintf("has %d, must be numbers from 0 on", i)
		}
	}
	return "", ""
}

// The bounds of ranks and alphas.
const (
	maxRank  = 1024
	maxAlpha = 65536
)

// namesOf reads what a file has where it may have a string or a list of them.
func namesOf(raw any) (Names, bool) {
	switch v := raw.(type) {
	case nil:
		return Names{}, true
	case string:
		return Names{Pattern: v}, v != ""
	case []any:
		var n Names
		for _, e := range v {
			s, ok := e.(string)
			if !ok || s == "" {
				return n, false
			}
			n.List = append(n.List, s)
		}
		return n, len(v) > 0
	}
	return Names{}, false
}

// lineOf finds the line on which a key (table.name or name) is set; 0 when it
// is not there.
func lineOf(text []byte, key string) int {
	table, name, ok := strings.Cut(key, ".")
	if !ok {
		table, name = "", key
	}
	at := ""
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			at = strings.Trim(line, "[] ")
			continue
		}
		k, _, ok := strings.Cut(line, "=")
		k = strings.Trim(strings.TrimSpace(k), `"`)
		if ok && (at == table && k == name || at == "" && k == key) {
			return i + 1
		}
	}
	return 0
}
