package run

import (
	"bytes"
	"fmt"

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

// Schedule is how the inner learning rate falls over the rounds.
type Schedule uint32

// The schedules. What they mean in floats is private to a peer; proto/README.md
// recommends a formula.
const (
	ScheduleCosine   Schedule = 1 // half a cosine over MaxRounds, to zero
	ScheduleConstant Schedule = 2
)

// String returns the name used in run.toml.
func (s Schedule) String() string {
	switch s {
	case ScheduleCosine:
		return "cosine"
	case ScheduleConstant:
		return "constant"
	}
	return fmt.Sprintf("schedule-%d", uint32(s))
}

// ParseSchedule is the inverse of String.
func ParseSchedule(name string) (Schedule, error) {
	for _, s := range []Schedule{ScheduleCosine, ScheduleConstant} {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("schedule is %q, must be cosine or constant", name)
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
	LoRA         LoRA
	Tensors      []Tensor // of the adapter, sorted bytewise by name
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
	Created      int64  // Unix seconds, informational
	Template     string // prompt template, "alpaca"
}

// LoRA is the shape of the adapter.
type LoRA struct {
	Rank    uint32
	Alpha   uint32
	Targets []string // names of the adapted modules, sorted bytewise
}

// Tensor is one tensor of the adapter. A is (rank, in), B is (out, rank).
type Tensor struct {
	Name string
	Rows uint32
	Cols uint32
}

// Inner is the inner optimizer, AdamW, and how long a seat trains.
type Inner struct {
	LearningRateNano uint64 // 1e-9
	Beta1PPM         uint32 // 1e-6
	Beta2PPM         uint32 // 1e-6
	EpsilonPico      uint64 // 1e-12
	WeightDecayPPM   uint32 // 1e-6
	ClipMilli        uint32 // bound of the gradient's norm, 1e-3; 0: none
	WarmupSteps      uint32
	MinSteps         uint32 // fewer steps in a round are not committed
	MaxSteps         uint32 // a seat stops here, or at 0.8 of the period
	BatchSamples     uint32
	MaxTokens        uint32 // of one sequence
}

// Outer is the outer optimizer, Nesterov momentum, in Q16.
type Outer struct {
	LearningRateQ16 uint32
	MomentumQ16     uint32
}

// Licences are those of the base model and of the data, as their makers name
// them.
type Licences struct {
	Model string
	Data  string
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
	m, err := fromWire(&w)
	if err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if again, err := marshal(m.toWire()); err != nil || !bytes.Equal(again, b) {
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
