package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

// node is a daemon on a host of its own. Its methods are called from one
// goroutine, but for alive and client, which any may call.
type node struct {
	// constant after it was made
	name  string
	host  *host
	dir   string
	mootd string
	boot  []string      // addresses that it is started with
	skew  time.Duration // by which its clock is wrong

	// known after the first start
	peer string

	door *door // to its API, while it runs

	mu     sync.Mutex
	api    *client.Client // guarded by mu; nil while nobody answers
	cmd    *exec.Cmd      // guarded by mu; nil when no process is there
	exited chan struct{}  // guarded by mu; closed when the process has ended
}

// startTimeout is how long a daemon may take to answer.
const startTimeout = 60 * time.Second

// listen are the addresses of a daemon.
func (n *node) listen() string {
	return fmt.Sprintf("/ip4/%s/tcp/4717,/ip4/%s/udp/4717/quic-v1", n.host.addr, n.host.addr)
}

// addr is an address by which others find it.
func (n *node) addr() string { return fmt.Sprintf("/ip4/%s/tcp/4717/p2p/%s", n.host.addr, n.peer) }

func (n *node) logPath() string { return filepath.Join(n.dir, "..", n.name+".log") }

// start starts the daemon and waits until it answers.
func (n *node) start(ctx context.Context) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	for _, f := range []string{api.EndpointFile, api.TokenFile} {
		os.Remove(filepath.Join(n.dir, f)) // of a process that was killed
	}
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{
		"--data-dir", n.dir, "--listen", n.listen(), "--api", "127.0.0.1:0", "--no-mdns",
		"--threads", "1", "--log-level", "info,run=debug", "--log-format", "json",
	}
	if len(n.boot) > 0 {
		args = append(args, "--bootstrap", strings.Join(n.boot, ","))
	}
	cmd := exec.Command(n.mootd, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "MOOT_") { // of the user's own
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+filepath.Join(n.dir, "..", "config"), "MOOT_MIN_FREE_MB=0")
	if n.skew != 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", clockVariable, int(n.skew.Seconds())))
	}
	// Who reads the log needs to know how wrong the times are that follow.
	fmt.Fprintf(log, "%s%v\n", startMark, n.skew)
	cmd.Stdout, cmd.Stderr = log, log
	if err := n.host.inside(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	exited := make(chan struct{})
	n.mu.Lock()
	n.cmd, n.exited = cmd, exited
	n.mu.Unlock()
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}()
	return n.await(ctx, cmd.Process.Pid, exited)
}

// await waits until the process answers, and connects to it.
func (n *node) await(ctx context.Context, pid int, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		e, err := api.ReadEndpoint(n.dir)
		if err == nil && e.PID == pid {
			return n.connect(e)
		}
		select {
		case <-exited:
			return fmt.Errorf("start %s: it ended:\n%s", n.name, n.tail())
		case <-ctx.Done():
			return fmt.Errorf("start %s: no answer:\n%s", n.name, n.tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// connect opens a door to the daemon's API, and a client that uses it.
func (n *node) connect(e api.Endpoint) error {
	n.peer = e.Peer
	n.disconnect()
	var err error
	if n.door, err = openDoor(n.host, strings.TrimPrefix(e.URL, "http://")); err != nil {
		return err
	}
	// The client finds the daemon by two files; these have the door's address.
	shadow := filepath.Join(n.dir, "..", "api", n.name)
	if err := os.MkdirAll(shadow, 0o700); err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(n.dir, api.TokenFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(shadow, api.TokenFile), token, 0o600)
	}
	if err != nil {
		return err
	}
	e.URL = "http://" + n.door.listener.Addr().String()
	if err := api.WriteEndpoint(shadow, e); err != nil {
		return err
	}
	c, err := client.Open(shadow)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.api = c
	return nil
}

func (n *node) disconnect() {
	n.mu.Lock()
	c := n.api
	n.api = nil
	n.mu.Unlock()
	if c != nil {
		c.Close()
		n.door.close()
	}
}

// client asks the daemon; nil when it does not run.
func (n *node) client() *client.Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.api
}

// process is what runs now.
func (n *node) process() (*exec.Cmd, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd, n.exited
}

// alive reports whether the daemon runs.
func (n *node) alive() bool {
	cmd, exited := n.process()
	if cmd == nil {
		return false
	}
	select {
	case <-exited:
		return false
	default:
		return true
	}
}

// clockVariable says by how many seconds the clock of a skewed mootd is wrong.
const clockVariable = "MOOT_CHAOS_CLOCK"

// setClock sets the clock of a node that does not run.
func (n *node) setClock(mootd string, skew time.Duration) { n.mootd, n.skew = mootd, skew }

// startMark begins the line in a log that says that a daemon was started, and
// how wrong its clock is.
const startMark = "chaos: started with a clock that is wrong by "

// signal sends the daemon a signal.
func (n *node) signal(s syscall.Signal) error {
	cmd, _ := n.process()
	if cmd == nil || !n.alive() {
		return fmt.Errorf("signal %v to %s: it does not run:\n%s", s, n.name, n.tail())
	}
	return cmd.Process.Signal(s)
}

// kill ends the daemon as a power cut does.
func (n *node) kill() {
	cmd, exited := n.process()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // it may have ended
	<-exited
	n.disconnect()
	n.mu.Lock()
	n.cmd = nil
	n.mu.Unlock()
}

// stop ends the daemon as its user does.
func (n *node) stop() error {
	_, exited := n.process()
	if !n.alive() {
		return nil
	}
	if err := n.signal(syscall.SIGINT); err != nil && n.alive() && !errors.Is(err, os.ErrProcessDone) {
		return err // else it ended meanwhile
	}
	select {
	case <-exited:
		n.kill() // what is left of it
		return nil
	case <-time.After(startTimeout):
		n.kill()
		return fmt.Errorf("stop %s: it did not end in %v:\n%s", n.name, startTimeout, n.tail())
	}
}

// tail is the end of the log.
func (n *node) tail() string {
	b, err := os.ReadFile(n.logPath())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// usage is how much memory the daemon has, in bytes, and how many files it
// has open.
func (n *node) usage() (rss int64, fds int, err error) {
	cmd, _ := n.process()
	if cmd == nil {
		return 0, 0, errors.New("no process")
	}
	proc := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
	b, err := os.ReadFile(proc + "/statm")
	if err != nil {
		return 0, 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, 0, err
	}
	l, err := os.ReadDir(proc + "/fd")
	return resident * int64(os.Getpagesize()), len(l), err
}
