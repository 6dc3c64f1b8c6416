package app

import (
	"math"
	"testing"
	"testing/fstest"
)

// What is free is bounded by every group of processes, in both versions of
// cgroups, and by ulimit.
func TestFreeMemoryOfGroups(t *testing.T) {
	const none = math.MaxUint64
	for _, tt := range []struct {
		name      string
		files     map[string]string
		addresses uint64
		want      int64
	}{
		{"machine", map[string]string{}, none, 1_000_000 << 10},
		{"addresses", map[string]string{"proc/self/status": "Name:\tmootd\nVmSize:\t   1000 kB\n"}, 3000 << 10, 2000 << 10},
		{"container", map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "5000\n", "sys/fs/cgroup/memory.current": "3000\n",
			"sys/fs/cgroup/memory.stat": "anon 7\nactive_file 200\ninactive_file 300\n",
		}, none, 2500},
		{"unit", map[string]string{ // of systemd, whose slice is the narrower one
			"proc/self/cgroup":                                     "0::/user.slice/moot.service\n",
			"sys/fs/cgroup/user.slice/memory.max":                  "4000",
			"sys/fs/cgroup/user.slice/memory.current":              "3900",
			"sys/fs/cgroup/user.slice/moot.service/memory.max":     "3000",
			"sys/fs/cgroup/user.slice/moot.service/memory.current": "100",
		}, none, 100},
		{"unbounded unit", map[string]string{
			"proc/self/cgroup": "0::/moot.service\n", "sys/fs/cgroup/moot.service/memory.max": "max", "sys/fs/cgroup/moot.service/memory.current": "3900",
		}, none, 1_000_000 << 10},
		{"version 1", map[string]string{
			"proc/self/cgroup":                               "5:cpu:/x\n4:memory:/a/b\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712",
			"sys/fs/cgroup/memory/memory.usage_in_bytes":     "50",
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "900",
			"sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": "500",
			"sys/fs/cgroup/memory/a/b/memory.stat":           "total_inactive_file 60\n",
		}, none, 460},
		{"a group that is not seen", map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/123\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "800",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "900",
		}, none, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal: 2000000 kB\nMemAvailable: 1000000 kB\n")}}
			for name, text := range tt.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if got, err := freeMemoryIn(root, tt.addresses); err != nil || got != tt.want {
				t.Errorf("%d bytes are free, %v, want %d", got, err, tt.want)
			}
		})
	}
	if _, err := freeMemoryIn(fstest.MapFS{}, none); err == nil {
		t.Error("without /proc something is free")
	}
}
