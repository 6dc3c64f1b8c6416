package msg

import wirev1 "github.com/moot-net/moot/proto/wire/v1"

// Tempo is how many inner steps rounds have and how long they last, in a run
// that finds one of them, or both, by itself.
type Tempo struct {
	// Steps are those of the next round, at most, and StepsBefore of this one; 0 in
	// a run that does not change them.
	Steps, StepsBefore uint32
	KappaPPM           uint32 // of the round before, 1e-6; 0: not known
	Low                uint32 // rounds in a row with a low kappa, and with as many steps as now
	// DeadlineMillis is that of the next round; 0: the period.
	DeadlineMillis uint64
	// ArrivalMillis is when nearly all deltas of this round were there, since it
	// began; 0: they were not, or training was cut short by the deadline.
	ArrivalMillis uint64
	Arrivals      []uint64 // of the last rounds, the oldest first
}

func (c *checker) tempo(m Tempo) {
	c.between("tempo: steps", uint64(m.Steps), 0, MaxSteps)
	c.between("tempo: steps before", uint64(m.StepsBefore), 0, MaxSteps)
	c.that((m.Steps == 0) == (m.StepsBefore == 0), "tempo: steps are %d after %d, must be 0 both or neither", m.Steps, m.StepsBefore)
	c.between("tempo: kappa", uint64(m.KappaPPM), 0, MaxKappaPPM)
	c.between("tempo: low", uint64(m.Low), 0, MaxLow)
	c.that(m.Steps > 0 || m.KappaPPM == 0 && m.Low == 0, "tempo: a kappa without steps")
	c.between("tempo: deadline", m.DeadlineMillis, 0, MaxArrivalMillis)
	c.between("tempo: arrival", m.ArrivalMillis, 0, MaxArrivalMillis)
	c.that(len(m.Arrivals) <= MaxArrivals, "tempo: arrivals are %d, must be at most %d", len(m.Arrivals), MaxArrivals)
	for _, a := range m.Arrivals {
		c.between("tempo: arrivals", a, 1, MaxArrivalMillis)
	}
}

func (m *Tempo) toWire() *wirev1.Tempo {
	return &wirev1.Tempo{
		Steps: m.Steps, StepsBefore: m.StepsBefore, KappaPpm: m.KappaPPM, Low: m.Low,
		DeadlineMillis: m.DeadlineMillis, ArrivalMillis: m.ArrivalMillis, Arrivals: m.Arrivals,
	}
}

func tempoFromWire(w *wirev1.Tempo) *Tempo {
	return &Tempo{
		Steps: w.Steps, StepsBefore: w.StepsBefore, KappaPPM: w.KappaPpm, Low: w.Low,
		DeadlineMillis: w.DeadlineMillis, ArrivalMillis: w.ArrivalMillis, Arrivals: w.Arrivals,
	}
}
