package usage

import (
	"math"
	"slices"
	"time"

	"github.com/moot-net/moot/node/api"
)

// bucket makes one sample of those of a minute: of how busy a device was and of
// the power that it took the mean, of all else the highest, so that a peak of
// temperature or memory is not lost.
type bucket struct {
	at  time.Time
	n   int // samples
	max api.UsageSample

	process mean
	devices []means // of max.Devices
}

type means struct{ util, watts mean }

type mean struct {
	sum float64
	n   int
}

func (m *mean) add(v float64) { m.sum, m.n = m.sum+v, m.n+1 }

// whole is the mean as a whole number, nil of nothing.
func (m *mean) whole() *int {
	if m.n == 0 {
		return nil
	}
	return new(int(math.Round(m.sum / float64(m.n))))
}

func (b *bucket) add(s api.UsageSample) {
	b.n++
	b.max.MaxCelsius, b.max.DutyPercent = s.MaxCelsius, s.DutyPercent
	b.max.ProcessBytes = highest(b.max.ProcessBytes, s.ProcessBytes)
	if s.ProcessPercent != nil {
		b.process.add(*s.ProcessPercent)
	}
	for _, d := range s.Devices {
		i := slices.IndexFunc(b.max.Devices, func(x api.Device) bool { return x.Name == d.Name })
		if i < 0 {
			if len(b.max.Devices) >= maxDevices {
				continue
			}
			i = len(b.max.Devices)
			b.max.Devices, b.devices = append(b.max.Devices, api.Device{Name: d.Name}), append(b.devices, means{})
		}
		x, m := &b.max.Devices[i], &b.devices[i]
		x.Celsius = highest(x.Celsius, d.Celsius)
		x.UsedBytes, x.TotalBytes = highest(x.UsedBytes, d.UsedBytes), highest(x.TotalBytes, d.TotalBytes)
		x.OtherBytes = highest(x.OtherBytes, d.OtherBytes)
		if d.UtilPercent != nil {
			m.util.add(float64(*d.UtilPercent))
		}
		if d.Watts != nil {
			m.watts.add(float64(*d.Watts))
		}
	}
}

func (b *bucket) sample() api.UsageSample {
	s := b.max
	s.Time = b.at
	if b.process.n > 0 {
		s.ProcessPercent = new(math.Round(10*b.process.sum/float64(b.process.n)) / 10)
	}
	for i := range s.Devices {
		s.Devices[i].UtilPercent, s.Devices[i].Watts = b.devices[i].util.whole(), b.devices[i].watts.whole()
	}
	return s
}

// highest is the higher of two figures, of which each may be unknown.
func highest[T int | int64](a, b *T) *T {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}
