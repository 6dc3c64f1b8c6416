// Package runfile reads run.toml, the file in which a coordinator describes a
// run. Parse checks what can be checked without model and data; the daemon
// turns the result into the immutable manifest (proto/run).
package runfile

import (
	"bytes"
	"errors"
	"fmt"
	"math"
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
	// MaxTokens ends the run earlier, after that many trained tokens. Default
	// 0: only Rounds counts.
	MaxTokens uint64 `toml:"max_tokens"`
	// Seats is how many peers train in a round. Default 32, at most 48.
	Seats uint32 `toml:"seats"`
	// MinPeers is how many peers have to be there before training starts;
	// once it has started it goes on with any number. Default 1.
	MinPeers uint32 `toml:"min_peers"`
	// CodecBits is the size of a value of a delta: 1, 2, 4 or 8. Default 2.
	CodecBits uint32 `toml:"codec_bits"`
	// EvalSamples is how many held-out samples a node measures per round.
	// Default 64.
	EvalSamples uint32 `toml:"eval_samples"`
	// Seed draws the adapter's initial values. Default 1.
	Seed uint64 `toml:"seed"`

	LoRA    LoRA    `toml:"lora"`
	Inner   Inner   `toml:"inner"`
	Outer   Outer   `toml:"outer"`
	Licence Licence `toml:"licence"`
}

// LoRA is the adapter's shape.
type LoRA struct {
	// Rank is r, default 16; Alpha is the scaling's numerator, default 2r.
	Rank  uint32 `toml:"rank"`
	Alpha uint32 `toml:"alpha"`
	// Targets are the names of the linear layers. Default: all of them.
	Targets []string `toml:"targets"`
}

// Inner is what a peer does within a round.
type Inner struct {
	// LearningRate of AdamW, default 2e-4; Schedule is "cosine" (default,
	// over Rounds, down to zero) or "constant".
	LearningRate float64 `toml:"learning_rate"`
	Schedule     string  `toml:"schedule"`
	// Beta1 0.9, Beta2 0.95, Epsilon 1e-8, WeightDecay 0, Clip 1.0 (global
	// gradient norm).
	Beta1       *float64 `toml:"beta1"`
	Beta2       *float64 `toml:"beta2"`
	Epsilon     *float64 `toml:"epsilon"`
	WeightDecay float64  `toml:"weight_decay"`
	Clip        *float64 `toml:"clip"`
	// WarmupSteps are the steps over which a peer that joins raises its
	// learning rate. Default 0.
	WarmupSteps uint32 `toml:"warmup_steps"`
	// MinSteps and MaxSteps bound H, the inner steps of a round; within the
	// bounds a peer stops at 0.8 of the period. Default 1 and 30.
	MinSteps uint32 `toml:"min_steps"`
	MaxSteps uint32 `toml:"max_steps"`
	// BatchSamples is the number of samples in a step, default 16; samples
	// longer than SequenceTokens (default 512) are left out and counted.
	BatchSamples   uint32 `toml:"batch_samples"`
	SequenceTokens uint32 `toml:"sequence_tokens"`
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
	f.defaults()
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

func (f *File) defaults() {
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
	setU(&f.CodecBits, 2)
	setU(&f.EvalSamples, 64)
	setU(&f.LoRA.Rank, 16)
	setU(&f.LoRA.Alpha, 2*f.LoRA.Rank)
	if f.Inner.LearningRate == 0 {
		f.Inner.LearningRate = 2e-4
	}
	if f.Inner.Schedule == "" {
		f.Inner.Schedule = "cosine"
	}
	setF(&f.Inner.Beta1, 0.9)
	setF(&f.Inner.Beta2, 0.95)
	setF(&f.Inner.Epsilon, 1e-8)
	setF(&f.Inner.Clip, 1)
	setU(&f.Inner.MinSteps, 1)
	setU(&f.Inner.MaxSteps, 30)
	setU(&f.Inner.BatchSamples, 16)
	setU(&f.Inner.SequenceTokens, 512)
	setF(&f.Outer.LearningRate, 0.7)
	setF(&f.Outer.Momentum, 0.6)
}

// check returns the first key whose value cannot be used and what is wrong.
func (f *File) check() (key, msg string) {
	type bound struct {
		key    string
		v      float64
		lo, hi float64
	}
	for _, b := range []bound{
		{"rounds", float64(f.Rounds), 1, 1e6},
		{"seats", float64(f.Seats), 1, 48},
		{"min_peers", float64(f.MinPeers), 1, float64(f.Seats)},
		{"eval_samples", float64(f.EvalSamples), 1, 1e5},
		{"lora.rank", float64(f.LoRA.Rank), 1, 1024},
		{"lora.alpha", float64(f.LoRA.Alpha), 1, 65536},
		{"inner.learning_rate", f.Inner.LearningRate, 1e-8, 1},
		{"inner.beta1", *f.Inner.Beta1, 0, 0.9999},
		{"inner.beta2", *f.Inner.Beta2, 0, 0.9999},
		{"inner.epsilon", *f.Inner.Epsilon, 1e-12, 1e-2},
		{"inner.weight_decay", f.Inner.WeightDecay, 0, 1},
		{"inner.clip", *f.Inner.Clip, 0, 1e6},
		{"inner.warmup_steps", float64(f.Inner.WarmupSteps), 0, 1e5},
		{"inner.min_steps", float64(f.Inner.MinSteps), 1, float64(f.Inner.MaxSteps)},
		{"inner.max_steps", float64(f.Inner.MaxSteps), 1, 1e4},
		{"inner.batch_samples", float64(f.Inner.BatchSamples), 1, 4096},
		{"inner.sequence_tokens", float64(f.Inner.SequenceTokens), 8, 1 << 17},
		{"outer.learning_rate", *f.Outer.LearningRate, 0.01, 4},
		{"outer.momentum", *f.Outer.Momentum, 0, 0.99},
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
	case f.Name == "":
		return "name", "is missing; give the run a name of at most 64 characters"
	case len(f.Name) > 64:
		return "name", fmt.Sprintf("is %d bytes long, must be at most 64", len(f.Name))
	case f.Model == "":
		return "model", `is missing; "moot model import DIR" prints the CID to put here`
	case f.Data == "":
		return "data", `is missing; "moot data import FILE" prints the CID to put here`
	case f.CodecBits != 1 && f.CodecBits != 2 && f.CodecBits != 4 && f.CodecBits != 8:
		return "codec_bits", fmt.Sprintf("is %d, must be 1, 2, 4 or 8", f.CodecBits)
	case f.Inner.Schedule != "cosine" && f.Inner.Schedule != "constant":
		return "inner.schedule", fmt.Sprintf("is %q, must be cosine or constant", f.Inner.Schedule)
	}
	return "", ""
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
