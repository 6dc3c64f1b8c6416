package volunteer

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// readBattery reports whether the machine runs on battery, by
// /sys/class/power_supply (Documentation/ABI/testing/sysfs-class-power in
// Linux). A machine without a battery of its own does not; those of mice and
// headphones have scope "Device" and do not count. root is the file system.
func readBattery(root fs.FS) *bool {
	const dir = "sys/class/power_supply"
	supplies, err := fs.ReadDir(root, dir)
	if err != nil {
		return nil
	}
	discharging := false
	for _, s := range supplies {
		read := func(name string) string { return readLine(root, path.Join(dir, s.Name(), name)) }
		if read("type") == "Battery" && read("scope") != "Device" && read("status") == "Discharging" {
			discharging = true
		}
	}
	return &discharging
}

// readTemps reads the temperatures of the processor: those of the drivers
// coretemp, k10temp and zenpower under /sys/class/hwmon, or else of thermal
// zones that are the processor's.
func readTemps(root fs.FS) []Temp {
	hottest := -1 << 31
	see := func(file string) {
		if v, err := strconv.Atoi(readLine(root, file)); err == nil {
			hottest = max(hottest, v/1000)
		}
	}
	sensors, _ := fs.Glob(root, "sys/class/hwmon/*/name") // the pattern is right
	for _, name := range sensors {
		if slices.Contains([]string{"coretemp", "k10temp", "zenpower", "cpu_thermal"}, readLine(root, name)) {
			inputs, _ := fs.Glob(root, path.Join(path.Dir(name), "temp*_input"))
			for _, file := range inputs {
				see(file)
			}
		}
	}
	zones, _ := fs.Glob(root, "sys/class/thermal/thermal_zone*/type")
	for _, zone := range zones {
		if hottest < 0 && slices.Contains([]string{"x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc-thermal"}, readLine(root, zone)) {
			see(path.Join(path.Dir(zone), "temp"))
		}
	}
	if hottest < 0 {
		return nil
	}
	return []Temp{{"the processor", hottest}}
}

// cpuTimes are what /proc/stat counts.
type cpuTimes struct{ busy, all uint64 }

// readLoad reads how much of the time since the last call the processors
// computed, and what the memory holds: /proc/stat and /proc/meminfo (proc(5)).
func readLoad(root fs.FS, last *cpuTimes) *Load {
	fields := strings.Fields(readLine(root, "proc/stat"))
	if len(fields) < 5 || fields[0] != "cpu" {
		return nil
	}
	var now cpuTimes
	for i, f := range fields[1:min(len(fields), 9)] { // what guests take is in user, too
		v, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return nil
		}
		now.all += v
		if i != 3 && i != 4 { // idle, iowait
			now.busy += v
		}
	}
	before := *last
	*last = now
	l := &Load{}
	if before.all > 0 && now.all > before.all && now.busy >= before.busy {
		l.Util = int(100 * (now.busy - before.busy) / (now.all - before.all))
	}
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return l
	}
	var free int64
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "MemTotal":
			l.TotalMemory = kib << 10
		case "MemAvailable":
			free = kib << 10
		}
	}
	l.UsedMemory = max(0, l.TotalMemory-free)
	return l
}

// readApps returns the names of running programs: of the executable where it
// may be read, of the first argument, and as the kernel calls it, which is cut
// after 15 characters. A program under Wine is known by its first argument.
func readApps(root fs.FS) []string {
	processes, err := fs.ReadDir(root, "proc")
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	for _, p := range processes {
		if _, err := strconv.ParseUint(p.Name(), 10, 32); err != nil {
			continue
		}
		dir := path.Join("proc", p.Name())
		if name := readLine(root, path.Join(dir, "comm")); name != "" {
			seen[name] = true
		}
		if b, err := fs.ReadFile(root, path.Join(dir, "cmdline")); err == nil {
			first, _, _ := strings.Cut(string(b), "\x00")
			if i := strings.LastIndexAny(first, `/\`); i >= 0 {
				first = first[i+1:]
			}
			if first != "" {
				seen[first] = true
			}
		}
	}
	apps := make([]string, 0, len(seen))
	for name := range seen {
		apps = append(apps, name)
	}
	slices.Sort(apps)
	return apps
}

// readLine returns the first line of a file, or nothing.
func readLine(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}
