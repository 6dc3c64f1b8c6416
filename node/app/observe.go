package app

import (
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/device"
	"github.com/moot-net/moot/node/internal/volunteer"
)

// watchGPU returns what tells the keeper about a GPU, nil if the processor
// trains.
//
// NVML is asked, which the binary with CUDA loads by its shim, and only about
// the GPU that trains: the binary without CUDA trains on the processor, and has
// nothing on a GPU to make way with.
func watchGPU(g *device.GPU) func() ([]volunteer.GPU, error) {
	if g == nil {
		return nil
	}
	return func() ([]volunteer.GPU, error) {
		u, err := g.Look()
		if u.Name == "" {
			return nil, err
		}
		return []volunteer.GPU{{
			Name: u.Name, Celsius: u.Celsius, Util: u.Busy, Watts: u.Watts, UsedMemory: u.UsedBytes, TotalMemory: u.TotalBytes,
			OtherUtil: u.OtherBusy, OtherMemory: u.OtherBytes,
		}}, err
	}
}

// devices are what the keeper saw last of the processor and the GPUs.
func (k *keeper) devices() (list []api.Device) {
	k.mu.Lock()
	defer k.mu.Unlock()
	processor := api.Device{Name: "processor"}
	for _, t := range k.seen.Temps {
		processor.Celsius = &t.Celsius
	}
	if l := k.seen.CPU; l != nil {
		processor.UtilPercent, processor.UsedBytes, processor.TotalBytes = &l.Util, &l.UsedMemory, &l.TotalMemory
	}
	if len(k.seen.Temps) > 0 || k.seen.CPU != nil {
		list = append(list, processor)
	}
	for _, g := range k.seen.GPUs {
		list = append(list, api.Device{
			Name: g.Name, Celsius: g.Celsius, UtilPercent: g.Util, Watts: g.Watts, UsedBytes: g.UsedMemory, TotalBytes: g.TotalMemory,
			OtherBytes: g.OtherMemory,
		})
	}
	return list
}

// schedule is what the schedule says at a time, nil where there is none.
func (k *keeper) schedule(now time.Time) *api.ScheduleState {
	k.mu.Lock()
	s := k.settings.Schedule
	k.mu.Unlock()
	if s.Always() {
		return nil
	}
	out := &api.ScheduleState{Open: s.Active(now)}
	if next := s.Next(now); !next.IsZero() {
		out.Until = &next
	}
	return out
}

// blind are the settings that have no effect on this machine, and why.
func (k *keeper) blind() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.looked {
		return nil
	}
	out := map[string]string{}
	for sight, why := range volunteer.Blind(k.settings, k.seen) {
		out[string(sight)] = why
	}
	return out
}

// deviceName is the device of a configuration, as pauses name it.
func deviceName(configured string) string {
	ordinal, err := device.Parse(configured)
	if err != nil || ordinal < 0 {
		return device.CPU
	}
	return device.Name(ordinal)
}
