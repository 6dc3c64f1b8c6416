package usage

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Process says what this process takes of the machine.
type Process struct {
	registry *prometheus.Registry

	// owned by who calls Look
	at      time.Time
	seconds float64 // of processor time, until at
}

// NewProcess returns a Process.
func NewProcess() *Process {
	p := &Process{registry: prometheus.NewRegistry()}
	p.registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return p
}

// Look returns how much memory it has, and how much of the time of all
// processors it took since the last call; nil where the system does not tell.
func (p *Process) Look() (bytes *int64, percent *float64) {
	families, err := p.registry.Gather()
	if err != nil {
		return nil, nil // as on a system that does not tell
	}
	now := time.Now()
	for _, f := range families {
		if len(f.GetMetric()) != 1 {
			continue
		}
		switch m := f.GetMetric()[0]; f.GetName() {
		case "process_resident_memory_bytes":
			bytes = new(int64(m.GetGauge().GetValue()))
		case "process_cpu_seconds_total":
			seconds := m.GetCounter().GetValue()
			if took := now.Sub(p.at).Seconds(); !p.at.IsZero() && took > 0 {
				share := 100 * (seconds - p.seconds) / took / float64(runtime.NumCPU())
				percent = new(float64(int(10*min(max(share, 0), 100)+0.5)) / 10)
			}
			p.at, p.seconds = now, seconds
		}
	}
	return bytes, percent
}
