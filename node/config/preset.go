package config

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
)

// Preset is a choice of settings with a name: nothing but their numbers.
type Preset struct {
	Name string
	// About says whom it is for.
	About string
	Sets  []Set
}

// Presets are all there are, for a machine with so many logical processors (0:
// this one).
func Presets(processors int) []Preset {
	if processors == 0 {
		processors = runtime.NumCPU()
	}
	preset := func(name, about string, threads, duty, temp, idle int, makeWay bool, otherPercent, otherMB int, priority string) Preset {
		p := Preset{Name: name, About: about}
		for _, kv := range [][2]string{
			{"threads", strconv.Itoa(max(1, threads))},
			{"work.duty_percent", strconv.Itoa(duty)},
			{"work.max_temp_c", strconv.Itoa(temp)},
			{"work.idle_minutes", strconv.Itoa(idle)},
			{"work.fullscreen", strconv.FormatBool(makeWay)},
			{"work.gamemode", strconv.FormatBool(makeWay)},
			{"work.other_gpu_percent", strconv.Itoa(otherPercent)},
			{"work.other_gpu_mb", strconv.Itoa(otherMB)},
			{"work.on_battery", "false"},
			{"work.priority", priority},
		} {
			p.Sets = append(p.Sets, Set{kv[0], []string{kv[1]}})
		}
		return p
	}
	return []Preset{
		preset("quiet", "nobody shall notice it: a quarter of the processors, only while nobody is there", processors/4, 40, 70, 5, true, 10, 500, PriorityLow),
		preset("balanced", "beside daily work: half of the processors, out of the way of games", processors/2, 70, 80, 0, true, 25, 1500, PriorityLow),
		preset("all", "a machine that is for this: all processors, whatever else runs", processors, 100, 90, 0, false, 0, 0, PriorityNormal),
	}
}

// FindPreset returns the preset of that name.
func FindPreset(name string) (Preset, error) {
	var names []string
	for _, p := range Presets(0) {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Preset{}, fmt.Errorf("there is no preset %q, only %s", name, strings.Join(names, ", "))
}
