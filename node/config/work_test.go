package config

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestWork(t *testing.T) {
	c := Default()
	for _, kv := range [][]string{
		{"work.idle_minutes", "5"},
		{"work.fullscreen", "false"},
		{"work.gamemode", "true"},
		{"work.other_gpu_percent", "30"},
		{"work.other_gpu_mb", "2000"},
		{"work.exclusive_apps", "cs2,Elden Ring"},
	} {
		if err := c.Set(kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Work.Settings()
	if err != nil {
		t.Fatal(err)
	}
	if s.IdleOnly != 5*time.Minute || s.Fullscreen || !s.GameMode || s.OtherUtil != 30 || s.OtherMemory != 2e9 || len(s.ExclusiveApps) != 2 || s.OnBattery || s.MaxTemp != 90 {
		t.Errorf("settings %+v", s)
	}
	for _, tt := range []struct{ key, value, want string }{
		{"work.idle_minutes", "-1", "work.idle_minutes is -1, must be between 0 and 1440"},
		{"work.duty_percent", "0", "work.duty_percent is 0"},
		{"work.max_temp_c", "39", "must be 0 or between 40 and 120"},
		{"work.other_gpu_percent", "101", "work.other_gpu_percent is 101"},
		{"work.vram_reserve_mb", "-5", "work.vram_reserve_mb is -5"},
		{"work.priority", "high", `work.priority is "high", must be low or normal`},
		{"work.schedule", "Mon 7-8", "work.schedule"},
	} {
		c := Default()
		err := c.Set(tt.key, tt.value)
		if err == nil {
			err = c.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s = %s: %v, want %q", tt.key, tt.value, err, tt.want)
		}
	}
	if Live("work.priority") || Live("work.vram_reserve_mb") || !Live("work.idle_minutes") || !Live("network.schedule") {
		t.Error("what takes effect at once is not what it should be")
	}
}

// Presets set the same keys each, and are valid on machines of any size.
func TestPresets(t *testing.T) {
	for processors := range 130 {
		first := Presets(processors)[0]
		last := 0
		for _, p := range Presets(processors) {
			c := Default()
			for i, s := range p.Sets {
				if s.Key != first.Sets[i].Key {
					t.Fatalf("%s sets %s where %s sets %s", p.Name, s.Key, first.Name, first.Sets[i].Key)
				}
				if err := c.Set(s.Key, s.Values...); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Validate(); err != nil {
				t.Fatalf("%s with %d processors: %v", p.Name, processors, err)
			}
			if processors > 0 && c.Threads > processors || c.Threads < last {
				t.Errorf("%s with %s processors: %d threads", p.Name, strconv.Itoa(processors), c.Threads)
			}
			last = c.Threads
		}
	}
	if _, err := FindPreset("loud"); err == nil || !strings.Contains(err.Error(), "quiet, balanced, all") {
		t.Errorf("FindPreset: %v", err)
	}
}
