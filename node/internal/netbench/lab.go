package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// errNoLab is wrapped when this machine or user cannot make namespaces.
var errNoLab = errors.New("needs root on Linux, with ip and tc of iproute2")

// line is the way of a host to the others, in Mbit/s.
type line struct{ up, down float64 }

// lab is hosts in network namespaces of their own around a switch.
type lab struct {
	names []string
	all   []string // the switch too
}

// newLab makes hosts on lines. It must be closed also when it fails.
func newLab(lines []line) (*lab, error) {
	l := &lab{}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return l, errNoLab
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return l, errNoLab
		}
	}
	prefix := fmt.Sprintf("mb%d", os.Getpid()%100000)
	sw := prefix + "s"
	l.all = append(l.all, sw)
	if err := command("ip", "netns", "add", sw); err != nil {
		return l, fmt.Errorf("%w: %w", errNoLab, err)
	}
	do := func(format string, args ...any) error {
		return command(strings.Fields(fmt.Sprintf(format, args...))...)
	}
	if err := errors.Join(
		do("ip -n %s link add br0 type bridge", sw),
		do("ip -n %s link set br0 up", sw),
	); err != nil {
		return l, err
	}
	for i, line := range lines {
		ns, port := fmt.Sprint(prefix, "h", i), fmt.Sprint("v", i)
		l.all, l.names = append(l.all, ns), append(l.names, ns)
		for _, c := range []string{
			fmt.Sprintf("ip netns add %s", ns),
			fmt.Sprintf("ip -n %s link set lo up", ns),
			fmt.Sprintf("ip -n %s link add %s type veth peer name eth0 netns %s", sw, port, ns),
			fmt.Sprintf("ip -n %s link set %s master br0 up", sw, port),
			fmt.Sprintf("ip -n %s addr add %s/24 dev eth0", ns, l.addr(i)),
			fmt.Sprintf("ip -n %s link set eth0 up", ns),
			fmt.Sprintf("tc -n %s qdisc add dev eth0 root tbf rate %gmbit burst 64kb latency 100ms", ns, line.up),
			fmt.Sprintf("tc -n %s qdisc add dev %s root tbf rate %gmbit burst 64kb latency 100ms", sw, port, line.down),
		} {
			if err := do("%s", c); err != nil {
				return l, err
			}
		}
	}
	return l, nil
}

// addr is the IP of host i. It counts as one of the internet, not of the LAN.
func (l *lab) addr(i int) string { return fmt.Sprintf("5.77.0.%d", i+1) }

// in is what to write before a command that runs on host i.
func (l *lab) in(i int) []string { return []string{"ip", "netns", "exec", l.names[i]} }

func (l *lab) close() {
	for _, ns := range l.all {
		if err := command("ip", "netns", "del", ns); err != nil {
			fmt.Fprintf(os.Stderr, "netbench: %v\n", err)
		}
	}
}

func command(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
