package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/device"
	"github.com/moot-net/moot/node/internal/exchange"
	"github.com/moot-net/moot/node/internal/fence"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/journal"
	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/node/internal/presence"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/node/internal/usage"
	"github.com/moot-net/moot/node/internal/volunteer"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// node is what lies behind the API. It implements api.Backend.
type node struct {
	// constant after newNode
	dir       string
	threads   int
	device    string
	gpu       *device.GPU // nil: the processor trains
	processor string      // what it is called where it computes
	started   time.Time
	endpoint  api.Endpoint
	metrics   *prometheus.Registry // of libp2p
	log       *slog.Logger
	stop      func() // ends the daemon
	store     *shard.Store
	host      *p2p.Host
	exchange  *exchange.Exchange // for peers that do not speak pull's protocol
	puller    *pull.Puller
	traffic   *traffic.Meter // bounds and counts what both carry
	limits    traffic.Limits
	fence     *fence.Fence
	// overRelay is whether shards may travel over relays.
	overRelay bool
	// introduce, if not nil, shows the invitation to a run to peers that are in it.
	introduce func(ctx context.Context, dir string, m *run.Manifest, to []peer.ID) error
	gossip    *gossip.Gossip
	events    *api.EventLog
	journal   *journal.Journal // what is in events, for the next start; nil: it cannot be kept
	recent    *recent
	covered   perRun[covered]
	digests   perRun[digest]
	models    *catalogue[api.Model]
	datasets  *catalogue[api.Dataset]
	runs      *runs
	keeper    *keeper
	usage     *usage.History
	daily     daily
	program   string // its path, "" if that is not known
	presence  *presence.Presence
	follow    *follower

	// maxBytes is how much of the disk the store may take (0: all there is),
	// minFree what stays free. They may be changed at any time.
	maxBytes, minFree atomic.Int64

	// configPatience is how long a peer is looked for that has a model's configuration.
	configPatience time.Duration

	// snapshotPatience is how long a peer is looked for that has a snapshot.
	snapshotPatience time.Duration

	// freeMemory is what a trainer may take, in bytes.
	freeMemory func() (int64, error)

	stopping atomic.Bool
	changed  chan struct{} // holds a token when the state may have changed
	compute  chan struct{} // holds a token while somebody generates or evaluates

	uploading sync.Mutex
	// guarded by uploading: what is under way
	uploadingBytes int64
	uploadingFiles int
	uploadingParts map[string]bool // by ID: a part is written, or the file finished

	// What plans found out, of the last ones.
	checkedRows memo[[2]api.FileCheck]
	paces       memo[pace]

	measuring sync.Mutex // by who measures how fast disk and processor are

	folders sync.Map // of cid.Cid to chan struct{}: who writes the folder of a model
}

var _ api.Backend = (*node)(nil)

// Status implements api.Backend.
func (n *node) Status(context.Context) (api.Status, error) {
	bulk, bitswap := n.puller.Stats(), n.exchange.Stats()
	s := api.Status{
		Version: n.endpoint.Version, Peer: n.endpoint.Peer, Addrs: n.host.Addrs(), API: n.endpoint.URL, DataDir: n.dir,
		PID: os.Getpid(), Started: n.started, Device: n.device, Peers: len(n.host.Peers()),
		Traffic: api.Traffic{PulledBytes: bulk.PulledBytes + bitswap.PulledBytes, SentBytes: bulk.SentBytes + bitswap.SentBytes},
	}
	runs := n.runs.list()
	for _, r := range runs {
		if r.Joined {
			s.Runs++
		}
	}
	s.ConfigError, s.RestartNeeded = n.follow.state()
	s.Reachability = string(n.host.Reachability())
	s.Devices, s.Blind = n.keeper.devices(), n.keeper.blind()
	s.Schedule = n.keeper.schedule(time.Now())
	s.ClockError = clockError(n.presence.Offset())
	activity := n.activity(runs)
	s.State, s.Why, s.Reason, s.Do, s.Until = activity.state, activity.why, activity.reason, activity.do, activity.until
	return s, nil
}

// Control implements api.Backend.
func (n *node) Control(ctx context.Context, req api.ControlRequest) (api.Status, error) {
	if req.Until != nil && !req.Until.After(time.Now()) {
		return api.Status{}, api.Errorf(api.CodeUsage, "until is %s, which is over", req.Until.Format(time.RFC3339))
	}
	if d := n.keeper.device; req.Action == api.ControlPause && req.Device != "" && req.Device != d {
		return api.Status{}, api.Errorf(api.CodeUsage, "%s is not used, this node computes on %s", req.Device, d).
			WithHint(`"mootd pause --device %s" pauses it`, d)
	}
	if err := n.keeper.ask(ctx, req); err != nil {
		return api.Status{}, err
	}
	return n.Status(ctx)
}

// activity is what the node does as a whole, and why it does not train.
type activity struct {
	state           api.NodeState
	why, reason, do string
	until           *time.Time
}

// activity looks at the runs, and at whether the machine may work.
func (n *node) activity(runs []api.Run) activity {
	a := activity{}
	a.state, a.why = nodeState(runs, n.stopping.Load())
	v := n.keeper.now()
	switch {
	case a.state == api.NodeTraining && v.Works():
	case a.state == api.NodeTraining && n.keeper.drains():
		a.why = "it was asked to finish: the work of this round is still done"
	case a.state == api.NodeStopping || v.Works(), v.Reason == volunteer.Consent && !n.runs.any():
		a.reason = string(a.state)
	default:
		a = activity{state: api.NodePaused, why: v.Text, reason: string(v.Reason), do: v.Do}
		if !v.Until.IsZero() {
			a.until = &v.Until
		}
	}
	return a
}

// nodeState says what a node in these runs does as a whole, and why it does
// not train.
func nodeState(runs []api.Run, stopping bool) (api.NodeState, string) {
	if stopping {
		return api.NodeStopping, "it was told to stop"
	}
	rank := map[api.RunState]int{
		api.RunTraining: 6, api.RunSyncing: 5, api.RunWaiting: 4, api.RunAssembly: 3, api.RunPaused: 3, api.RunFailed: 2, api.RunFinal: 1,
	}
	best := api.Run{}
	joined := 0
	for _, r := range runs {
		if !r.Joined {
			continue
		}
		joined++
		if rank[r.State] > rank[best.State] {
			best = r
		}
	}
	why := best.Why
	if why == "" {
		why = fmt.Sprintf("run %s is %s", api.ShortID(best.ID), best.State)
	}
	switch best.State {
	case api.RunTraining:
		return api.NodeTraining, ""
	case api.RunSyncing:
		return api.NodeSyncing, why
	case api.RunWaiting, api.RunAssembly, api.RunPaused:
		return api.NodeWaiting, why
	case api.RunFailed:
		return api.NodeIdle, why
	}
	switch joined {
	case 0:
		return api.NodeIdle, "in no run"
	case 1:
		return api.NodeIdle, "its run is complete"
	}
	return api.NodeIdle, "its runs are complete"
}

// emit publishes an event. It does not block.
func (n *node) emit(e api.Event) {
	n.events.Publish(e)
	n.poke()
}

// poke makes watchState look again.
func (n *node) poke() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// watchState tells when the state of the node changed, until ctx is done.
func (n *node) watchState(ctx context.Context) error {
	last, lastWhy := api.NodeState(""), ""
	for {
		a := n.activity(n.runs.list())
		state, why := a.state, a.why
		if state != last || why != lastWhy {
			n.events.Publish(api.Event{Type: api.EventNode, State: string(state), Why: why})
			n.log.InfoContext(ctx, "state changed", "component", "node", "state", string(state), "why", why)
			last, lastWhy = state, why
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.changed:
		}
	}
}

// Peers implements api.Backend.
func (n *node) Peers(context.Context) ([]api.Peer, error) {
	runs := make(map[string][]string) // by peer
	for _, r := range n.runs.list() {
		for _, p := range n.host.Members(r.ID) {
			runs[p.String()] = append(runs[p.String()], r.ID)
		}
	}
	devices := n.runs.devices()
	var peers []api.Peer
	for _, p := range n.host.Peers() {
		direction := "out"
		if p.Inbound {
			direction = "in"
		}
		peers = append(peers, api.Peer{
			ID: p.ID.String(), Addr: p.Addr, Where: string(p.Where), Direction: direction,
			RTTMillis: float64(p.Latency.Microseconds()) / 1000, Agent: p.Agent, Runs: runs[p.ID.String()], Device: devices[p.ID.String()],
		})
	}
	return peers, nil
}

// openEvents makes the log of events, which goes on after those of the last
// start. Where these cannot be kept it is in memory: no training waits for that.
func (n *node) openEvents() {
	j, past, err := journal.Open(filepath.Join(n.dir, eventsFile), journal.DefaultMaxBytes, keptEvents)
	if err != nil {
		n.log.Warn("events are not kept for the next start", "component", "events", "err", err)
		n.events = api.NewEventLog(keptEvents)
		return
	}
	n.journal = j
	n.events = api.OpenEventLog(api.EventLogOptions{Keep: keptEvents, Journal: j, Past: past, Log: n.log})
}

// closeEvents may be called again.
func (n *node) closeEvents() error {
	if n.journal == nil {
		return nil
	}
	return n.journal.Close()
}

// runEvents hands out events until ctx is done.
func (n *node) runEvents(ctx context.Context) error {
	return errors.Join(n.events.Run(ctx), n.closeEvents())
}

// Watch implements api.Backend.
func (n *node) Watch(ctx context.Context, run string, after api.Cursor, emit func(api.Event) error) error {
	return n.events.Watch(ctx, run, after, emit)
}

// Shutdown implements api.Backend.
func (n *node) Shutdown(context.Context) error {
	n.stop()
	return nil
}

// parseID reads the CID of a run, a model or a data set.
func parseID(noun, id string) (cid.Cid, error) {
	c, err := cid.Decode(id)
	if err != nil {
		return cid.Undef, api.Errorf(api.CodeUsage, "%q is not the ID of a %s: %v", id, noun, err)
	}
	return c, nil
}
