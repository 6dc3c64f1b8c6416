package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// lab is the network: a switch in two halves, and hosts with a link to one of
// them.
type lab struct {
	hosts int
}

// The halves of the switch.
const (
	mainHalf  = "br0"
	otherHalf = "br1"
)

// errNotAlone is the reason for which nothing can be run.
var errNotAlone = errors.New("network namespaces are not permitted here")

// newLab makes the switch. It refuses to do so in the network of the machine.
func newLab(ctx context.Context) (*lab, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 && l.Flags&net.FlagUp != 0 {
			return nil, fmt.Errorf("the network of this process has %s: %w", l.Name, errNotAlone)
		}
	}
	// Names of namespaces are files in a folder that only this process sees.
	if err := unix.Mount("chaos", "/run", "tmpfs", 0, ""); err != nil {
		return nil, fmt.Errorf("mount a folder for namespaces: %w: %w", err, errNotAlone)
	}
	for _, line := range []string{
		"ip link set lo up",
		"ip link add br0 type bridge", "ip link set br0 up",
		"ip link add br1 type bridge", "ip link set br1 up",
	} {
		if err := do(ctx, "%s", line); err != nil {
			return nil, fmt.Errorf("%w: %w", err, errNotAlone)
		}
	}
	return &lab{}, nil
}

// do runs a command, whose words have no spaces.
func do(ctx context.Context, format string, args ...any) error {
	f := strings.Fields(fmt.Sprintf(format, args...))
	if out, err := exec.CommandContext(ctx, f[0], f[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(f, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// host is a machine of the lab.
type host struct {
	name string
	addr string // of IPv4
	link string // the switch's end of its line
	ns   *os.File
}

// add makes a host with a line of so many Mbit/s in each direction.
func (l *lab) add(ctx context.Context, mbit int) (*host, error) {
	l.hosts++
	h := &host{
		name: fmt.Sprintf("h%d", l.hosts), addr: fmt.Sprintf("10.77.%d.%d", l.hosts/250, 1+l.hosts%250), link: fmt.Sprintf("w%d", l.hosts),
	}
	bucket := fmt.Sprintf("root tbf rate %dmbit burst 64kb latency 400ms", mbit)
	for _, line := range []string{
		"ip netns add " + h.name,
		"ip -n " + h.name + " link set lo up",
		"ip link add " + h.link + " type veth peer name wan netns " + h.name,
		"ip -n " + h.name + " addr add " + h.addr + "/16 dev wan",
		"ip -n " + h.name + " link set wan up",
		"tc qdisc add dev " + h.link + " " + bucket,
		"tc -n " + h.name + " qdisc add dev wan " + bucket,
		"ip link set " + h.link + " master " + mainHalf,
		"ip link set " + h.link + " up",
	} {
		if err := do(ctx, "%s", line); err != nil {
			return nil, err
		}
	}
	var err error
	h.ns, err = os.Open("/run/netns/" + h.name)
	return h, err
}

// remove takes a host away, whose processes have ended.
func (h *host) remove() {
	h.ns.Close()
	_ = do(context.Background(), "ip link del %s", h.link)
	_ = do(context.Background(), "ip netns del %s", h.name)
}

// plug connects a host to a half of the switch.
func (h *host) plug(ctx context.Context, half string) error {
	return do(ctx, "ip link set %s master %s", h.link, half)
}

// line lets the host's line work, or not.
func (h *host) line(ctx context.Context, up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return do(ctx, "ip link set %s %s", h.link, state)
}

// inside calls fn on a thread whose network is that of the host. Sockets and
// processes that it makes are there for good.
func (h *host) inside(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread ends with the goroutine, for it is not unlocked.
		runtime.LockOSThread()
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network of %s: %w", h.name, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// dial connects to an address within the host's network.
func (h *host) dial(addr string) (conn net.Conn, err error) {
	err = h.inside(func() error {
		conn, err = net.Dial("tcp", addr)
		return err
	})
	return conn, err
}

// door makes an address in a host's network reachable from here.
type door struct {
	listener net.Listener
	wg       sync.WaitGroup
}

func openDoor(h *host, to string) (*door, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &door{listener: l}
	d.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			d.wg.Go(func() { carry(h, in, to) })
		}
	})
	return d, nil
}

// carry copies what goes through a door, until one side ends.
func carry(h *host, in net.Conn, to string) {
	out, err := h.dial(to)
	if err != nil {
		_ = in.Close() // as if nobody listened
		return
	}
	end := sync.OnceFunc(func() { _, _ = in.Close(), out.Close() })
	var wg sync.WaitGroup
	wg.Go(func() { defer end(); _, _ = io.Copy(out, in) })
	wg.Go(func() { defer end(); _, _ = io.Copy(in, out) })
	wg.Wait()
}

// close closes the door; what goes through ends with the daemon behind it.
func (d *door) close() { d.listener.Close() }
