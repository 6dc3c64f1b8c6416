package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

// node is a daemon of the demo.
type node struct {
	// constant after startNode
	name string
	dir  string
	proc *process

	// constant after await, which sets up (guarded by demo.mu)
	up     bool
	client *client.Client
	peer   string
	addr   string // on loopback, with peer ID

	mu sync.Mutex
	// guarded by mu
	pulled uint64 // bytes, the last that is known
}

// startNode starts a daemon that knows one address, or none.
func (d *demo) startNode(ctx context.Context, n int, bootstrap string) (*node, error) {
	if ctx.Err() != nil {
		return nil, cancelled(ctx)
	}
	name := fmt.Sprintf("node %d", n)
	x := &node{name: name, dir: filepath.Join(d.o.Dir, fmt.Sprintf("node%d", n))}
	if err := os.Mkdir(x.dir, 0o700); err != nil {
		return nil, api.Errorf(api.CodeInternal, "start %s: %w", name, err)
	}
	args := []string{
		"--data-dir", x.dir, "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0",
		"--no-mdns", "--threads", "1", "--log-level", "info",
	}
	if bootstrap != "" {
		args = append(args, "--bootstrap", bootstrap)
	}
	var err error
	x.proc, err = startProcess(d.o.Mootd, args, d.environ(), filepath.Join(x.dir, "mootd.log"))
	if err != nil {
		return nil, api.Errorf(api.CodeNotFound, "start %s: %w", name, err).WithHint("give the daemon's path with --mootd")
	}
	d.mu.Lock()
	d.nodes = append(d.nodes, x)
	d.mu.Unlock()
	return x, nil
}

// environ is the environment of a daemon: without the user's settings for his
// own one, which could make it talk to others.
func (d *demo) environ() []string {
	config := filepath.Join(d.o.Dir, "config")
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "MOOT_") {
			env = append(env, kv)
		}
	}
	switch runtime.GOOS {
	case "windows":
		return append(env, "AppData="+config)
	case "darwin", "ios":
		return append(env, "HOME="+config)
	}
	return append(env, "XDG_CONFIG_HOME="+config)
}

// await waits until the daemon answers.
func (d *demo) await(ctx context.Context, x *node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.limits.start, errTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := client.Open(x.dir)
		if err == nil {
			if err = c.Healthy(ctx); err == nil {
				e := c.Endpoint()
				d.mu.Lock()
				defer d.mu.Unlock()
				x.client, x.peer, x.addr, x.up = c, e.Peer, loopback(e), true
				return nil
			}
			c.Close()
		}
		select {
		case <-x.proc.exited:
			return api.Errorf(api.CodeInternal, "start %s: the daemon ended (%s) before it answered%s", x.name, x.proc.ending(), x.proc.tail())
		case <-ctx.Done():
			if context.Cause(ctx) == errTimeout { //nolint:errorlint // it is set above, as it is
				return api.Errorf(api.CodeRetry, "start %s: no answer after %v%s", x.name, d.limits.start, x.proc.tail())
			}
			return cancelled(ctx)
		case <-tick.C:
		}
	}
}

// loopback finds the address under which others on this machine reach a node.
func loopback(e api.Endpoint) string {
	best := ""
	for _, a := range e.Addrs {
		if best == "" || strings.HasPrefix(a, "/ip4/127.") && !strings.HasPrefix(best, "/ip4/127.") {
			best = a
		}
	}
	if best != "" && !strings.Contains(best, "/p2p/") {
		best += "/p2p/" + e.Peer
	}
	return best
}

// sample notes what the node has pulled so far.
func (x *node) sample(ctx context.Context) {
	s, err := x.client.Status(ctx)
	if err != nil {
		return // the last figure stands
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pulled = max(x.pulled, s.Traffic.PulledBytes)
}

func (x *node) pulledBytes() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.pulled
}

// stop ends a daemon as its user would, and by force if that takes too long.
func (d *demo) stop(x *node) {
	if !x.proc.alive() {
		return
	}
	if x.client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_ = x.client.Shutdown(ctx) // if it does not hear this, it gets a signal
		cancel()
		if x.proc.wait(d.limits.grace) {
			return
		}
	}
	x.proc.interrupt()
	if !x.proc.wait(d.limits.grace / 2) {
		x.proc.kill()
	}
}
