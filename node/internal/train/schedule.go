package train

import (
	"fmt"
	"math"
)

// ScheduleKind is how a learning rate goes from its peak to its floor.
type ScheduleKind int

const (
	// Constant stays at the peak.
	Constant ScheduleKind = iota
	// Linear falls in a straight line, from the end of the warm-up on.
	Linear
	// Cosine falls along half a wave.
	Cosine
	// WSD (warm-up, stable, decay) stays at the peak until the last Decay
	// steps, in which it falls along half a wave.
	WSD
)

var scheduleNames = [...]string{"constant", "linear", "cosine", "wsd"}

func (k ScheduleKind) String() string {
	if k < 0 || int(k) >= len(scheduleNames) {
		return fmt.Sprintf("ScheduleKind(%d)", int(k))
	}
	return scheduleNames[k]
}

// ParseSchedule returns the kind of that name.
func ParseSchedule(name string) (ScheduleKind, error) {
	for k, n := range scheduleNames {
		if n == name {
			return ScheduleKind(k), nil
		}
	}
	return 0, fmt.Errorf("schedule is %q, must be one of %q", name, scheduleNames)
}

// Schedule is a learning rate as a function of the step: those of the
// transformers library of the same names.
type Schedule struct {
	Kind ScheduleKind
	Peak float64
	// Floor is the rate at the end. Default 0.
	Floor float64
	// Warmup is how many steps the rate takes from 0 to the peak, in a
	// straight line: the first step has a rate of 0. Default 0, no warm-up.
	Warmup int
	// Steps is how many steps there are, the warm-up included. Constant does
	// without.
	Steps int
	// Decay is how many of them WSD falls for.
	Decay int
}

// Validate checks that the settings fit together.
func (s Schedule) Validate() error {
	switch {
	case s.Kind < Constant || s.Kind > WSD:
		return fmt.Errorf("schedule is %v, must be one of %q", s.Kind, scheduleNames)
	case !(s.Floor >= 0 && s.Floor <= s.Peak) || math.IsInf(s.Peak, 0):
		return fmt.Errorf("learning rate goes from %v to %v, must fall and be at least 0", s.Peak, s.Floor)
	case s.Warmup < 0 || s.Decay < 0 || s.Kind != Constant && s.Warmup+s.Decay > s.Steps:
		return fmt.Errorf("warm-up of %d steps and decay of %d do not fit in %d steps", s.Warmup, s.Decay, s.Steps)
	}
	return nil
}

// At returns the learning rate of a step, counted from 0.
func (s Schedule) At(step int) float64 {
	if step < s.Warmup {
		return s.Peak * float64(step) / float64(s.Warmup)
	}
	from := s.Warmup
	switch s.Kind {
	case Constant:
		return s.Peak
	case WSD:
		if from = s.Steps - s.Decay; step >= s.Steps {
			return s.Floor
		}
	}
	// done goes from 0 to 1 between the peak and the end.
	done := min(1, max(0, float64(step-from)/float64(max(1, s.Steps-from))))
	if step < from {
		done = 0
	}
	left := 1 - done
	if s.Kind != Linear {
		left = (1 + math.Cos(math.Pi*done)) / 2
	}
	return s.Floor + (s.Peak-s.Floor)*left
}
