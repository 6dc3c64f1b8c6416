package app

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/volunteer"
)

// What the keeper sees is told with the limits, and is not told any more when
// it cannot look.
func TestUsageSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, t.TempDir(), volunteer.Settings{MaxTemp: 83})
		k.set(func() {
			k.sees = volunteer.Observation{
				CPU:  &volunteer.Load{Util: 40, UsedMemory: 5, TotalMemory: 9},
				GPUs: []volunteer.GPU{{Name: "gpu", Celsius: new(70), Util: new(90), Watts: new(200), UsedMemory: new(int64(6)), TotalMemory: new(int64(8)), OtherMemory: new(int64(1))}},
			}
		})
		k.after(observeInterval)
		s := k.sample(time.Now())
		if len(s.Devices) != 2 || *s.Devices[0].UtilPercent != 40 || *s.Devices[1].Watts != 200 || *s.Devices[1].OtherBytes != 1 || s.MaxCelsius != 83 || s.DutyPercent != 100 {
			t.Errorf("a sample is %+v", s)
		}
		asleep := make(chan struct{})
		k.set(func() { k.asleep = asleep }) // the driver hangs
		k.after(staleAfter + 2*observeInterval)
		if s := k.sample(time.Now()); len(s.Devices) != 0 || s.DutyPercent != 100 {
			t.Errorf("what was seen long ago is told as of now: %+v", s)
		}
		close(asleep)
		k.set(func() { k.asleep = nil })
	})
}

// A daemon tells what its machine was used for, and the process's own part.
func TestUsageOfDaemon(t *testing.T) {
	d := startDaemon(t, testConfig(t.TempDir()))
	u, err := d.Usage(t.Context(), api.UsageRequest{})
	if err != nil || u.Span != api.UsageHour || u.StepSeconds != 5 || u.Samples == nil {
		t.Errorf("usage %+v, %v", u, err)
	}
	if u, err := d.Usage(t.Context(), api.UsageRequest{Span: api.UsageDay, After: time.Now()}); err != nil || u.StepSeconds != 60 {
		t.Errorf("usage of the day %+v, %v", u, err)
	}
	_, err = d.Usage(t.Context(), api.UsageRequest{Span: "week"})
	wantCode(t, err, api.CodeUsage, `span is "week"`)
}
