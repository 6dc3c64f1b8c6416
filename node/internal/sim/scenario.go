package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Scenario is one thing that can befall a run, and what has to come of it.
type Scenario struct {
	Name  string
	About string
	// Quick says that "all-quick" runs it.
	Quick bool
	run   func(*trial) error
}

// Options say how to run a scenario.
type Options struct {
	Seed uint64
	// Quick is the short form: fewer rounds, and limits are the same.
	Quick bool
	// Progress, if not nil, is told now and then how it goes.
	Progress func(string)
	// Lab, if not nil, is shared by several scenarios.
	Lab *Lab
}

// Result is what a scenario came to.
type Result struct {
	Scenario string `json:"scenario"`
	Seed     uint64 `json:"seed"`
	Quick    bool   `json:"quick"`
	Pass     bool   `json:"pass"`
	// Figures are what was measured, Limits what some of them must not leave.
	Figures map[string]Figure `json:"figures"`
	Limits  map[string]Limit  `json:"limits"`
	// Missed names the figures that left their limits; Cause says why, where it
	// is known.
	Missed []string `json:"missed,omitempty"`
	Cause  string   `json:"cause,omitempty"`
	// Transcript is the hash of all that was published and adopted.
	Transcript string  `json:"transcript"`
	WallS      float64 `json:"wall_s"`

	// Of several seeds Figures are the means, Each what each of them came to
	// and Deviation how far they scatter (the sample's standard deviation).
	Seeds     []uint64            `json:"seeds,omitempty"`
	Each      map[string][]Figure `json:"each,omitempty"`
	Deviation map[string]Figure   `json:"deviation,omitempty"`

	Charts []Chart `json:"-"`
}

// Figure is a measured number. One that is not finite is null.
type Figure float64

// MarshalJSON implements json.Marshaler.
func (f Figure) MarshalJSON() ([]byte, error) {
	if v := float64(f); math.IsNaN(v) || math.IsInf(v, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// Limit bounds a figure.
type Limit struct {
	AtMost  *float64 `json:"at_most,omitempty"`
	AtLeast *float64 `json:"at_least,omitempty"`
	// OfMean says that of several seeds the mean has to keep it, and not each.
	OfMean bool `json:"of_mean,omitempty"`
}

// holds is false for a figure that is no number.
func (l Limit) holds(f Figure) bool {
	v := float64(f)
	return !math.IsNaN(v) && (l.AtMost == nil || v <= *l.AtMost) && (l.AtLeast == nil || v >= *l.AtLeast)
}

// String is for people.
func (l Limit) String() string {
	if l.AtMost != nil {
		return fmt.Sprintf("at most %g", *l.AtMost)
	}
	return fmt.Sprintf("at least %g", *l.AtLeast)
}

// All lists the scenarios.
func All() []Scenario {
	var list []Scenario
	for _, group := range [][]Scenario{
		agreementScenarios(), churnScenarios(), learningScenarios(), overlapScenarios(), strangerScenarios(), scaleScenarios(), tempoScenarios(),
	} {
		list = append(list, group...)
	}
	return list
}

// Find returns the scenario with a name.
func Find(name string) (Scenario, error) {
	for _, s := range All() {
		if s.Name == name {
			return s, nil
		}
	}
	return Scenario{}, fmt.Errorf("there is no scenario %q", name)
}

// Run runs a scenario. An error says that the simulation could not be done; what
// the protocol does not hold is in the Result.
func (s Scenario) Run(ctx context.Context, o Options) (r Result, err error) {
	began := time.Now()
	if o.Lab == nil {
		o.Lab = new(Lab)
		defer func() { err = errors.Join(err, o.Lab.Close()) }()
	}
	t := &trial{ctx: ctx, Options: o, figures: make(map[string]Figure), limits: make(map[string]Limit)}
	if err := s.run(t); err != nil {
		return Result{}, fmt.Errorf("scenario %s, seed %d: %w", s.Name, o.Seed, err)
	}
	r = Result{
		Scenario: s.Name, Seed: o.Seed, Quick: o.Quick, Figures: t.figures, Limits: t.limits, Transcript: t.transcript, Charts: t.charts,
		WallS: math.Round(100*time.Since(began).Seconds()) / 100,
	}
	for _, name := range slices.Sorted(maps.Keys(t.limits)) {
		if f, ok := t.figures[name]; !ok || !t.limits[name].holds(f) {
			r.Missed = append(r.Missed, name)
		}
	}
	r.Pass = len(r.Missed) == 0
	if !r.Pass {
		r.Cause = strings.Join(t.causes, "; ")
	}
	return r, nil
}

// trial is a scenario under way.
type trial struct {
	Options
	ctx        context.Context
	demo       bool // the demo's model is trained, and not the lesson's
	figures    map[string]Figure
	limits     map[string]Limit
	causes     []string
	charts     []Chart
	transcript string
}

func (t *trial) figure(name string, v float64) { t.figures[name] = Figure(v) }

func (t *trial) atMost(name string, v, limit float64) {
	t.figure(name, v)
	t.limits[name] = Limit{AtMost: &limit}
}

func (t *trial) atLeast(name string, v, limit float64) {
	t.figure(name, v)
	t.limits[name] = Limit{AtLeast: &limit}
}

// meanAtMost is atMost for what scatters between seeds.
func (t *trial) meanAtMost(name string, v, limit float64) {
	t.figure(name, v)
	t.limits[name] = Limit{AtMost: &limit, OfMean: true}
}

// meanAtLeast is atLeast for what scatters between seeds.
func (t *trial) meanAtLeast(name string, v, limit float64) {
	t.figure(name, v)
	t.limits[name] = Limit{AtLeast: &limit, OfMean: true}
}

// because is told in the result if a limit is missed.
func (t *trial) because(format string, args ...any) {
	t.causes = append(t.causes, fmt.Sprintf(format, args...))
}

func (t *trial) say(format string, args ...any) {
	if t.Progress != nil {
		t.Progress(fmt.Sprintf(format, args...))
	}
}

// long is n, or less in the short form.
func (t *trial) long(n, short int) int {
	if t.Quick {
		return short
	}
	return n
}

// safety holds what no scenario may break: no two certificates for one head, no
// honest node blamed, and the chain of a node computed again from genesis.
func (t *trial) safety(w *world) {
	// Of several worlds the worst counts.
	t.atMost("certified_forks", max(float64(t.figures["certified_forks"]), float64(w.seen.forks)), 0)
	blamed := 0
	for _, n := range w.nodes {
		if n.fault == honest && w.seen.evidence[n.i] {
			blamed++
		}
		if n.fault != honest {
			continue
		}
		for id := range n.misbehaved {
			if w.nodes[w.index[id]].fault == honest {
				blamed++
			}
		}
	}
	t.atMost("honest_blamed", max(float64(t.figures["honest_blamed"]), float64(blamed)), 0)
	replayed := 0.0
	for _, n := range w.nodes {
		if !n.up || n.fault != honest {
			continue
		}
		if err := w.replay(n); err != nil {
			t.because("replay: %v", err)
		} else {
			replayed = 1
		}
		break
	}
	if before, ok := t.figures["replayed_from_genesis"]; ok {
		replayed = min(replayed, float64(before))
	}
	t.atLeast("replayed_from_genesis", replayed, 1)
	t.figure("events", float64(t.figures["events"])+float64(w.events))
	t.figure("virtual_hours", math.Round(w.now.Hours()*100)/100)
	t.transcript = combined(t.transcript, w.transcriptHash())
}

// exclusions says which part of what honest seats did was refused or judged
// damaging, and whether there is a limit for it.
func (t *trial) exclusions(s tally, limited bool) {
	seats := float64(max(s.honestSeats, 1))
	t.figure("honest_excluded", float64(s.excluded)/seats)
	if limited {
		t.meanAtMost("honest_excluded", float64(s.excluded)/seats, 0.02)
	}
	t.figure("honest_taken_for_copies", float64(s.takenForCopies)/seats)
	t.figure("honest_without_weight", float64(s.uncounted)/seats)
	if limited {
		t.meanAtMost("honest_without_weight", float64(s.uncounted)/seats, 0.02)
	}
}

// combined is the hash of several transcripts.
func combined(before, next string) string {
	if before == "" {
		return next
	}
	sum := sha256.Sum256([]byte(before + next))
	return hex.EncodeToString(sum[:])
}
