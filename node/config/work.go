package config

import (
	"fmt"
	"time"

	"github.com/moot-net/moot/node/internal/volunteer"
)

// Work is when a machine works for others, and how hard. What its system does
// not tell (battery, temperature, what fills the screen) stops nothing, but for
// IdleMinutes; "mootd doctor" says what can be seen.
type Work struct {
	// Schedule is a list of windows of local time in which it may compute,
	// "Mon-Fri 22:00-07:00" or "Sat,Sun 00:00-24:00". Default none: always.
	Schedule []string `toml:"schedule,omitempty"`
	// DutyPercent is how much of the time it computes; after each step it
	// rests. Less is quieter and cooler. Default 100.
	DutyPercent int `toml:"duty_percent"`
	// OnBattery lets it work when it is not plugged in. Default false.
	OnBattery bool `toml:"on_battery"`
	// MaxTempC is the temperature in degrees Celsius above which it stops,
	// until a device is 8 degrees below. 0: any. Default 90.
	MaxTempC int `toml:"max_temp_c"`
	// IdleMinutes is how long nobody may have touched the computer before it
	// works. Where that cannot be seen it does not work at all. Default 0: it
	// works beside somebody.
	IdleMinutes int `toml:"idle_minutes"`
	// Fullscreen stops it while something fills the screen. Default true.
	Fullscreen bool `toml:"fullscreen"`
	// GameMode stops it while the desktop says that a game runs
	// (com.feralinteractive.GameMode on Linux). Default true.
	GameMode bool `toml:"gamemode"`
	// ExclusiveApps are programs that it makes way for, by name. Default none.
	ExclusiveApps []string `toml:"exclusive_apps,omitempty"`
	// OtherGPUPercent is how much of the time other processes may use the GPU
	// that trains, for 5 seconds, before it makes way. 0: any. Default 25.
	OtherGPUPercent int `toml:"other_gpu_percent"`
	// OtherGPUMB is how much of that GPU's memory they may hold, in 1,000,000
	// bytes. 0: any. Default 1500.
	OtherGPUMB int64 `toml:"other_gpu_mb"`
	// ResumeAfterSeconds is how long it waits when what it made way for is
	// gone. Default 120.
	ResumeAfterSeconds int `toml:"resume_after_seconds"`
	// VRAMReserveMB is how much of what is free on the GPU training leaves, in
	// 1,000,000 bytes, for what is started later. Default 0.
	VRAMReserveMB int64 `toml:"vram_reserve_mb"`
	// Priority of the process: low gives way to every other program, normal is
	// like them. Default low.
	Priority string `toml:"priority"`
}

// DefaultWork makes way for games, heat and an empty socket.
func DefaultWork() Work {
	return Work{
		DutyPercent: 100, MaxTempC: 90, Fullscreen: true, GameMode: true, OtherGPUPercent: 25, OtherGPUMB: 1500, ResumeAfterSeconds: 120,
		Priority: PriorityLow,
	}
}

// The values of Work.Priority.
const (
	PriorityLow    = "low"
	PriorityNormal = "normal"
)

// Settings returns w as package volunteer takes it.
func (w *Work) Settings() (volunteer.Settings, error) {
	schedule, err := volunteer.ParseSchedule(w.Schedule)
	if err != nil {
		return volunteer.Settings{}, fmt.Errorf("work.schedule: %w", err)
	}
	return volunteer.Settings{
		Schedule: schedule, OnBattery: w.OnBattery, MaxTemp: w.MaxTempC, ExclusiveApps: w.ExclusiveApps,
		IdleOnly: time.Duration(w.IdleMinutes) * time.Minute, Fullscreen: w.Fullscreen, GameMode: w.GameMode,
		OtherUtil: w.OtherGPUPercent, OtherMemory: w.OtherGPUMB * 1e6,
		ResumeAfter: time.Duration(w.ResumeAfterSeconds) * time.Second,
	}, nil
}

func (w *Work) validate() error {
	for _, x := range []struct {
		key       string
		v         int64
		low, high int64
	}{
		{"duty_percent", int64(w.DutyPercent), 1, 100},
		{"idle_minutes", int64(w.IdleMinutes), 0, 24 * 60},
		{"other_gpu_percent", int64(w.OtherGPUPercent), 0, 100},
		{"other_gpu_mb", w.OtherGPUMB, 0, maxMB},
		{"resume_after_seconds", int64(w.ResumeAfterSeconds), 0, 86400},
		{"vram_reserve_mb", w.VRAMReserveMB, 0, maxMB},
	} {
		if x.v < x.low || x.v > x.high {
			return fmt.Errorf("work.%s is %d, must be between %d and %d", x.key, x.v, x.low, x.high)
		}
	}
	if w.MaxTempC != 0 && (w.MaxTempC < 40 || w.MaxTempC > 120) {
		return fmt.Errorf("work.max_temp_c is %d, must be 0 or between 40 and 120", w.MaxTempC)
	}
	if w.Priority != PriorityLow && w.Priority != PriorityNormal {
		return fmt.Errorf("work.priority is %q, must be %s or %s", w.Priority, PriorityLow, PriorityNormal)
	}
	_, err := w.Settings()
	return err
}
