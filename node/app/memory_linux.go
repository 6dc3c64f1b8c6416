package app

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// freeMemory is what this process may still take: of the machine, of the groups
// of processes to which it belongs (a container, a unit of systemd), and of the
// addresses that "ulimit -v" leaves it.
func freeMemory() (int64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &l); err != nil {
		return 0, err
	}
	return freeMemoryIn(os.DirFS("/"), l.Cur)
}

// freeMemoryIn is freeMemory by the files of a system.
func freeMemoryIn(root fs.FS, addresses uint64) (int64, error) {
	machine, err := field(root, "proc/meminfo", "MemAvailable:")
	if err != nil {
		return 0, err
	}
	free := machine << 10 // it is in KiB
	if addresses != unix.RLIM_INFINITY && addresses < 1<<62 {
		if taken, err := field(root, "proc/self/status", "VmSize:"); err == nil {
			free = min(free, int64(addresses)-taken<<10)
		}
	}
	for _, g := range memoryGroups(root) {
		limit, err := number(root, path.Join(g.dir, g.limit))
		if err != nil {
			continue // there is no bound
		}
		used, err := number(root, path.Join(g.dir, g.used))
		if err != nil {
			continue
		}
		for _, cache := range g.caches { // is given up when needed
			if n, err := field(root, path.Join(g.dir, "memory.stat"), cache); err == nil {
				used -= n
			}
		}
		free = min(free, limit-used)
	}
	return max(free, 0), nil
}

// memoryGroup is a group of processes that may have a bound, and the names of
// its files.
type memoryGroup struct {
	dir         string
	limit, used string
	caches      []string
}

// memoryGroups are those of this process, each with those that it is in, by
// both versions of cgroups. Within a container a group can be one that is not
// seen; then the outermost that is seen bounds it.
func memoryGroups(root fs.FS) (groups []memoryGroup) {
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, name, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		g := memoryGroup{"sys/fs/cgroup", "memory.max", "memory.current", []string{"active_file", "inactive_file"}}
		if controllers != "" {
			if !strings.Contains(","+controllers+",", ",memory,") {
				continue
			}
			g = memoryGroup{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", []string{"total_active_file", "total_inactive_file"}}
		}
		top := g.dir
		for dir := path.Clean("/" + name); ; dir = path.Dir(dir) {
			g.dir = path.Join(top, dir)
			groups = append(groups, g)
			if dir == "/" {
				break
			}
		}
	}
	return groups
}

// number reads a file that is one number.
func number(root fs.FS, name string) (int64, error) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// field reads the number behind a name that begins a line.
func field(root fs.FS, name, key string) (int64, error) {
	f, err := root.Open(name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) > 1 && w[0] == key {
			return strconv.ParseInt(w[1], 10, 64)
		}
	}
	return 0, errors.New("/" + name + " has no " + key)
}
