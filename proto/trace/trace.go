package trace

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

const (
	traceMagic = "mootrace"
	version    = 1
	// earlyVersion is that of a trace with early steps.
	earlyVersion = 2
	// MaxParts is the most parts that the training of a round has.
	MaxParts      = 8
	boundaryBytes = 8 + 8 + 36 + 36
	headerBytes   = 8 + 4 + 4
	// MaxBytes bounds an encoded trace.
	MaxBytes = headerBytes + 8 + (MaxParts+1)*boundaryBytes + 36
	// MovementBits is the codec of movements and residuals.
	MovementBits = 8
)

// ErrForm is wrapped by the errors for bytes that are no trace, or no moments,
// of their form.
var ErrForm = errors.New("not of form")

// Boundary is where the training of a round stood between two parts.
type Boundary struct {
	Steps, Tokens uint64 // since the round began
	// Movement is how far what is trained had come, as a delta: where the round,
	// or its early steps, began, minus here.
	Movement cid.Cid
	Moments  cid.Cid
}

// Trace is the training of a round.
type Trace struct {
	// Early is how many of the steps, the first ones, were taken before the round's
	// head was known.
	Early uint64
	// Boundaries begin with that before the first step and end with that after
	// the last.
	Boundaries []Boundary
	// Residual is what the delta lost of what it should have had, the error
	// feedback of the next one, as a delta.
	Residual cid.Cid
}

// End is the last boundary.
func (t *Trace) End() Boundary { return t.Boundaries[len(t.Boundaries)-1] }

// PartSteps is how many steps a part of a round has that has at most maxSteps;
// the last part may have fewer.
func PartSteps(maxSteps uint64) uint64 { return (maxSteps + MaxParts - 1) / MaxParts }

// Parts is how many parts so many steps have.
func Parts(steps, maxSteps uint64) uint64 {
	n := PartSteps(maxSteps)
	return min((steps+n-1)/n, MaxParts)
}

// Marshal returns the bytes of the trace.
func (t *Trace) Marshal() []byte {
	b := append(make([]byte, 0, MaxBytes), traceMagic...)
	if t.Early == 0 {
		b = binary.LittleEndian.AppendUint32(b, version)
	} else {
		b = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(b, earlyVersion), t.Early)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Boundaries)))
	for _, e := range t.Boundaries {
		b = binary.LittleEndian.AppendUint64(b, e.Steps)
		b = binary.LittleEndian.AppendUint64(b, e.Tokens)
		b = append(append(b, e.Movement.Bytes()...), e.Moments.Bytes()...)
	}
	return append(b, t.Residual.Bytes()...)
}

// Unmarshal decodes a trace. It accepts nothing that Marshal would not have
// written of the trace of some training.
func Unmarshal(b []byte) (*Trace, error) {
	if len(b) < headerBytes+8 || string(b[:8]) != traceMagic {
		return nil, fmt.Errorf("trace: another beginning: %w", ErrForm)
	}
	t := &Trace{}
	rest := b[12:]
	switch v := binary.LittleEndian.Uint32(b[8:]); v {
	case version:
	case earlyVersion:
		t.Early, rest = binary.LittleEndian.Uint64(rest), rest[8:]
		if t.Early == 0 {
			return nil, fmt.Errorf("trace: version 2 without early steps: %w", ErrForm)
		}
	default:
		return nil, fmt.Errorf("trace: version %d: %w", v, ErrForm)
	}
	n := binary.LittleEndian.Uint32(rest)
	if rest = rest[4:]; n < 2 || n > MaxParts+1 || len(rest) != int(n)*boundaryBytes+36 {
		return nil, fmt.Errorf("trace: %d boundaries in %d bytes: %w", n, len(b), ErrForm)
	}
	list := make([]Boundary, n)
	for i := range list {
		r := rest[i*boundaryBytes:]
		e := Boundary{Steps: binary.LittleEndian.Uint64(r), Tokens: binary.LittleEndian.Uint64(r[8:])}
		var err error
		if e.Movement, err = fileCID(r[16:52]); err != nil {
			return nil, err
		}
		if e.Moments, err = fileCID(r[52:88]); err != nil {
			return nil, err
		}
		switch {
		case i == 0 && (e.Steps != 0 || e.Tokens != 0):
			return nil, fmt.Errorf("trace: begins after %d steps: %w", e.Steps, ErrForm)
		case i > 0 && (e.Steps <= list[i-1].Steps || e.Steps > msg.MaxSteps || e.Tokens < list[i-1].Tokens || e.Tokens > msg.MaxTokens):
			return nil, fmt.Errorf("trace: boundary %d is after %d steps and %d tokens: %w", i, e.Steps, e.Tokens, ErrForm)
		}
		list[i] = e
	}
	residual, err := fileCID(b[len(b)-36:])
	if err != nil {
		return nil, err
	}
	t.Boundaries, t.Residual = list, residual
	if t.Early > t.End().Steps {
		return nil, fmt.Errorf("trace: %d early steps of %d: %w", t.Early, t.End().Steps, ErrForm)
	}
	return t, nil
}

func fileCID(b []byte) (cid.Cid, error) {
	c, err := cid.Cast(b)
	if err != nil || !msg.IsFileCID(c) {
		return cid.Undef, fmt.Errorf("trace: a name that is no CID of a file: %w", ErrForm)
	}
	return c, nil
}

// Covers checks that a trace is one of so many steps and tokens, in a run with
// at most maxSteps in a round: its parts are those of the run.
func (t *Trace) Covers(steps, tokens, maxSteps uint64) error {
	parts := Parts(steps, maxSteps)
	if steps > maxSteps || uint64(len(t.Boundaries)) != parts+1 {
		return fmt.Errorf("trace: %d parts of %d steps, must be %d of at most %d: %w", len(t.Boundaries)-1, steps, parts, maxSteps, ErrForm)
	}
	for i, e := range t.Boundaries[:parts] {
		if want := uint64(i) * PartSteps(maxSteps); e.Steps != want {
			return fmt.Errorf("trace: boundary %d is after %d steps, must be after %d: %w", i, e.Steps, want, ErrForm)
		}
	}
	if e := t.End(); e.Steps != steps || e.Tokens != tokens {
		return fmt.Errorf("trace: ends after %d steps and %d tokens, must end after %d and %d: %w", e.Steps, e.Tokens, steps, tokens, ErrForm)
	}
	return nil
}

// Still is a movement of nothing, which is also the residual before the first
// delta.
func Still(l *fold.Layout) []byte {
	b, err := fold.Encode(l, MovementBits, make([]int32, l.Params()), nil)
	if err != nil {
		panic("bug: zeros cannot be encoded: " + err.Error())
	}
	return b
}
