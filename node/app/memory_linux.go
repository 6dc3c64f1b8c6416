package app

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
)

// freeMemory is what this process may still take: of the machine, and of the
// group of processes to which it belongs.
func freeMemory() (int64, error) {
	machine, err := field("/proc/meminfo", "MemAvailable:")
	if err != nil {
		return 0, err
	}
	free := machine << 10 // it is in KiB
	const group = "/sys/fs/cgroup/"
	limit, err := number(group + "memory.max")
	if err != nil {
		return free, nil // there is no bound
	}
	used, err := number(group + "memory.current")
	if err != nil {
		return free, nil
	}
	for _, cache := range []string{"active_file", "inactive_file"} { // is given up when needed
		if n, err := field(group+"memory.stat", cache); err == nil {
			used -= n
		}
	}
	return max(min(free, limit-used), 0), nil
}

// number reads a file that is one number.
func number(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// field reads the number behind a name that begins a line.
func field(path, name string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) > 1 && w[0] == name {
			return strconv.ParseInt(w[1], 10, 64)
		}
	}
	return 0, errors.New(path + " has no " + name)
}
