package msg

import (
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// sampleTempo has fewer steps in its next round than in its own, and a deadline.
func sampleTempo(t testing.TB) *Record {
	t.Helper()
	r := sampleRecord(t)
	r.Tempo = &Tempo{
		Steps: 60, StepsBefore: 120, KappaPPM: 250_000, DeadlineMillis: 450_000, ArrivalMillis: 360_000, Arrivals: []uint64{350_000, 350_000, 360_000},
	}
	return r
}

// sampleTimes is a have that says how far deltas went apart and when they came.
func sampleTimes(from peer.ID) *Have {
	h := sampleHave(from)
	h.KappaPPM, h.ArrivalMillis = 120_000, 400_000
	return h
}

func TestValidateTempo(t *testing.T) {
	for _, tt := range []struct {
		change func(*Tempo)
		want   string
	}{
		{func(m *Tempo) { m.StepsBefore = 0 }, "tempo: steps are 60 after 0"},
		{func(m *Tempo) { m.Steps, m.StepsBefore = 0, 0 }, "tempo: a kappa without steps"},
		{func(m *Tempo) { m.KappaPPM = MaxKappaPPM + 1 }, "tempo: kappa is 1000000001"},
		{func(m *Tempo) { m.Low = MaxLow + 1 }, "tempo: low is 3"},
		{func(m *Tempo) { m.DeadlineMillis = MaxArrivalMillis + 1 }, "tempo: deadline is 1073741825"},
		{func(m *Tempo) { m.ArrivalMillis = MaxArrivalMillis + 1 }, "tempo: arrival is 1073741825"},
		{func(m *Tempo) { m.Arrivals[1] = 0 }, "tempo: arrivals is 0"},
		{func(m *Tempo) { m.Arrivals = slices.Repeat(m.Arrivals, 3) }, "tempo: arrivals are 9"},
	} {
		r := sampleTempo(t)
		tt.change(r.Tempo)
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Validate() = %v, want %q", err, tt.want)
		}
	}
	_, id := testKey(t, 1)
	h := sampleTimes(id)
	h.KappaPPM = MaxKappaPPM + 1
	if err := h.Validate(); err == nil || !strings.Contains(err.Error(), "kappa is") {
		t.Errorf("Validate() = %v, want a bound of kappa", err)
	}
	h = sampleTimes(id)
	h.ArrivalMillis = MaxArrivalMillis + 1
	if err := h.Validate(); err == nil || !strings.Contains(err.Error(), "arrival is") {
		t.Errorf("Validate() = %v, want a bound of arrivals", err)
	}
}
