package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/device"
	"github.com/moot-net/moot/node/internal/exchange"
	"github.com/moot-net/moot/node/internal/fence"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/logs"
	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// Options are what Run needs.
type Options struct {
	// Config is the configuration; Run validates it.
	Config config.Config
	// File and Reload make the node follow its configuration while it runs:
	// when File changes, Reload returns what is to be in effect. Default: it
	// does not follow it.
	File   string
	Reload func() (*config.Config, error)
	// Consent is what somebody just said about whether this machine works for
	// others, nil if nobody was asked.
	Consent *bool
	// Levels, if not nil, are those of Log; they follow the configuration.
	Levels *logs.Levels
	// Log is where it is told what happened. Default: nowhere.
	Log *slog.Logger
	// Started, if not nil, is called once the node answers.
	Started func(api.Endpoint)

	// open takes the place of a runner.Hub in tests.
	open func(dir string, m *run.Manifest) (participant, error)
}

// What is in the data folder, beside api.EndpointFile and api.TokenFile.
const (
	storeDir    = "store"
	modelsDir   = "models"
	datasetsDir = "datasets"
	runsDir     = "runs"
	peersFile   = "peers"
	trafficFile = "traffic.json"
	usageFile   = "usage.ndjson"
	eventsFile  = "events.ndjson"
)

// keptLogs is how many lines of the log the API can show.
const keptLogs = 2000

// keptEvents is how many events a watcher that comes late can still see.
const keptEvents = 4096

// banTime is how long a peer that sent wrong bytes is refused.
const banTime = 24 * time.Hour

// Run is the daemon. It returns nil when ctx is done, or the API asked for the
// end, and everything was saved. Errors are of type *api.Error where a way out
// is known.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	recent := newRecent(keptLogs)
	o.Log = slog.New(recent.handler(o.Log.Handler()))
	if err := o.Config.Validate(); err != nil {
		return api.Errorf(api.CodeConfig, "configuration: %w", err).WithHint(`"mootd config show" prints what is in effect`)
	}
	store, err := openDataDir(o.Config.DataDir, o.Log)
	if err != nil {
		return err
	}
	err = runNode(ctx, o, store, recent)
	return errors.Join(err, store.Close())
}

// openDataDir makes the data folder and takes it for this process. Nothing else
// in it may be touched before.
func openDataDir(dir string, log *slog.Logger) (*shard.Store, error) {
	// The folder may be one that somebody made, and open to other users; what a
	// node makes in it is not.
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		if err = os.MkdirAll(filepath.Join(dir, storeDir), 0o700); readOnly(err) {
			return nil, notWritable(dir, err)
		}
	}
	if err != nil {
		return nil, api.Errorf(api.CodeConfig, "make data folder: %w", err).WithHint("give another one with --data-dir")
	}
	store, err := shard.OpenOptions{Problem: func(p shard.Problem) {
		log.Warn("file was not as it should be", "component", "store", "err", p.Text)
	}}.Open(filepath.Join(dir, storeDir))
	if errors.Is(err, shard.ErrLocked) {
		who := "another mootd"
		if e, err := api.ReadEndpoint(dir); err == nil {
			who = fmt.Sprintf("another mootd (process %d)", e.PID)
		}
		return nil, api.Errorf(api.CodeConflict, "%s uses %s", who, dir).
			WithHint("stop it first, or give this one a folder of its own with --data-dir")
	}
	if readOnly(err) {
		return nil, notWritable(dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// A daemon that was killed left its own.
	if err := api.RemoveEndpoint(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("remove the last daemon's address: %w", err), store.Close())
	}
	// What imports were writing when a process was killed.
	old, _ := filepath.Glob(filepath.Join(dir, importTemp+"*")) // the pattern is right
	for _, path := range old {
		if err := os.RemoveAll(path); err != nil {
			return nil, errors.Join(fmt.Errorf("remove an interrupted import: %w", err), store.Close())
		}
	}
	return store, nil
}

func notWritable(dir string, err error) error {
	return api.Errorf(api.CodeConfig, "data folder %s cannot be written: %w", dir, err).
		WithHint("make it writable for this user, or give another one with --data-dir")
}

// readOnly reports whether an error is that of a folder that cannot be written.
func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || err != nil && strings.Contains(err.Error(), "read-only file system")
}

func runNode(ctx context.Context, o Options, store *shard.Store, recent *recent) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	n, err := newNode(o, store, stop)
	if err != nil {
		return err
	}
	n.recent = recent
	defer func() { _ = errors.Join(n.host.Close(), n.closeEvents()) }() // the stages did, unless they were not reached
	defer context.AfterFunc(ctx, func() {
		n.stopping.Store(true)
		n.poke()
	})()
	listener, err := listenAPI(&o.Config, o.Log)
	if err != nil {
		return err
	}
	defer listener.Close()
	token, err := api.NewToken(o.Config.DataDir)
	if err != nil {
		return err
	}
	n.endpoint.URL = "http://" + listener.Addr().String()
	if err := api.WriteEndpoint(o.Config.DataDir, n.endpoint); err != nil {
		return err
	}
	readToken, err := api.NewReadToken(o.Config.DataDir)
	if err != nil {
		return err
	}
	server := api.NewServer(n, api.Options{Token: token, ReadToken: readToken, Metrics: n.metrics, Log: o.Log.With("component", "api")})
	if o.Started != nil {
		o.Started(n.endpoint)
	}
	err = runStages(ctx, o.Log, append(n.stages(), stage{"API", func(ctx context.Context) error {
		err := server.Serve(ctx, listener)
		return errors.Join(err, api.RemoveEndpoint(o.Config.DataDir))
	}}))
	if err == nil {
		o.Log.InfoContext(ctx, "node stopped", "peer", n.endpoint.Peer)
	}
	return err
}

// stages are the components below the API, each after those that it needs.
func (n *node) stages() []stage {
	return []stage{
		{"events", n.runEvents},
		{"network", n.host.Run},
		{"traffic", n.traffic.Run},
		{"exchange", n.exchange.Run},
		{"pull", n.puller.Run},
		{"gossip", n.gossip.Run},
		{"presence", n.runPresence},
		{"keeper", n.keeper.run},
		{"usage", n.usage.Run},
		{"configuration", n.follow.run},
		{"runs", n.runs.run},
		{"cache", n.keepCap},
		{"status", n.watchState},
	}
}

// newNode builds the components. It starts nothing, but the host listens.
func newNode(o Options, store *shard.Store, stop func()) (*node, error) {
	cfg := &o.Config
	key, id, err := loadIdentity(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	precision, err := cpu.ParsePrecision(cfg.Precision)
	if err != nil {
		return nil, api.Errorf(api.CodeConfig, "%w", err)
	}
	gpu, err := device.Find(cfg.Device, o.Log.With("component", "gpu"))
	if err != nil {
		return nil, api.Errorf(api.CodeConfig, "%w", err)
	}
	if gpu != nil && !cuda.Built { // a driver may be back in a minute, this never
		_, err := gpu.Text()
		return nil, api.Errorf(api.CodeGPU, "device is %s: %w", cfg.Device, err).WithHint("%s", gpu.Hint(err))
	}
	if gpu != nil {
		gpu.Reserve(cfg.Work.VRAMReserveMB * 1e6)
	}
	version := api.ThisVersion().Version
	metrics := prometheus.NewRegistry()
	host, err := p2p.New(p2p.Options{
		Key: key, Listen: cfg.Listen, AnyPort: cfg.AnyPort, Bootstrap: cfg.Bootstrap, LocalDiscovery: cfg.MDNS,
		Public: cfg.Network.Public, NoRelay: !cfg.Network.Relay, NoPortMap: !cfg.Network.PortMapping, RelayShardBytes: int64(cfg.Network.RelayShardsMB) * 1e6,
		IPFSBootstrap: cfg.Network.IPFSBootstrap,
		PeerCache:     filepath.Join(cfg.DataDir, peersFile), Agent: "moot/" + version, Metrics: metrics, Log: o.Log,
	})
	if err != nil {
		return nil, listenError("start network", err, "give other addresses with --listen; port 0 takes a free one")
	}
	n := &node{
		limits: cfg.Network.Limits(), overRelay: cfg.Network.ShardsOverRelay, configPatience: configPatience, snapshotPatience: snapshotPatience, freeMemory: freeMemory,
		program: programPath(), dir: cfg.DataDir, threads: cfg.Threads, log: o.Log, stop: stop, started: time.Now(),
		store: store, host: host,
		device:   deviceText(cfg.Threads, cpu.New(cpu.Options{Precision: precision})),
		endpoint: api.Endpoint{Peer: id.String(), Addrs: host.Addrs(), PID: os.Getpid(), Version: version},
		changed:  make(chan struct{}, 1), compute: make(chan struct{}, 1), metrics: metrics, gpu: gpu,
		checkedRows: memo[[2]api.FileCheck]{most: 8}, paces: memo[pace]{most: 32},
	}
	fail := func(err error) (*node, error) { return nil, errors.Join(err, n.closeEvents(), host.Close()) }
	n.openEvents()
	n.processor = n.device
	n.setCaps(cfg)
	openDevice := (func(*train.Options) error)(nil)
	if gpu != nil {
		openDevice = n.openGPU
		if n.device, err = gpu.Text(); err != nil {
			o.Log.Warn("the GPU cannot be used, nothing is trained", "err", err, "hint", gpu.Hint(err))
		}
	}
	n.presence = n.newPresence(key)
	if err := n.attach(); err != nil {
		return fail(err)
	}
	settings, err := cfg.Work.Settings()
	if err != nil {
		return fail(api.Errorf(api.CodeConfig, "%w", err))
	}
	n.keeper = newKeeper(keeperOptions{
		dir: cfg.DataDir, settings: settings, duty: cfg.Work.DutyPercent, device: deviceName(cfg.Device), gpus: watchGPU(gpu),
		log: o.Log, changed: n.poke, stop: stop,
		runs: func() []api.Run { return n.runs.list() },
	})
	n.usage = n.newUsage()
	n.follow = newFollower(o, n)
	if o.open == nil {
		hub := runner.NewHub(runner.HubOptions{
			Key: key, Host: host, Gossip: n.gossip, Puller: n.puller, Store: store, Fence: n.fence, ModelDir: n.modelDir, GrowModel: n.growModel, MayPull: n.traffic.ClosedUntil, PlanMemory: n.planMemory, OpenDevice: openDevice, Threads: cfg.Threads, Precision: precision,
			Device: n.device, Agent: "moot/" + version, Gate: n.keeper.gate, Emit: n.emit, Log: o.Log.With("component", "run"),
		})
		o.open, n.introduce = openRunner(hub), hub.Introduce
	}
	if n.runs, err = newRuns(n, filepath.Join(cfg.DataDir, runsDir), o.open); err != nil {
		return fail(err)
	}
	if err := n.keeper.begin(context.Background(), o.Consent, n.runs.any()); err != nil {
		return fail(err)
	}
	return n, nil
}

// deviceText is what people and other peers are told about the device.
func deviceText(threads int, b *cpu.Backend) string {
	if threads == 1 {
		return fmt.Sprintf("cpu (1 thread, %s, %s)", b.Kernels(), b.Precision())
	}
	return fmt.Sprintf("cpu (%d threads, %s, %s)", threads, b.Kernels(), b.Precision())
}

func openRunner(hub *runner.Hub) func(dir string, m *run.Manifest) (participant, error) {
	return func(dir string, m *run.Manifest) (participant, error) {
		r, err := hub.Open(dir, m)
		if err != nil {
			return nil, err // not a nil *Runner in an interface
		}
		return r, nil
	}
}

// attach makes what stands on host and store.
func (n *node) attach() (err error) {
	ban := func(p peer.ID, reason string) { n.host.Block(p, reason, banTime) }
	n.fence = fence.New(n.host.ID())
	n.traffic, err = traffic.New(traffic.Options{Limits: n.limits, Near: n.host.Near, File: filepath.Join(n.dir, trafficFile), Log: n.log})
	if err != nil {
		return err
	}
	n.host.MeterRelay(n.traffic)
	if err := n.metrics.Register(n.traffic); err != nil {
		return err
	}
	n.exchange, err = exchange.New(n.host.Libp2p(), n.store, exchange.Options{Router: n.host, Ban: ban, Serves: n.fence.Serves, Meter: n.traffic, Log: n.log})
	if err != nil {
		return err
	}
	n.puller, err = pull.New(n.host.Libp2p(), n.store, pull.Options{Fallback: n.exchange, Router: n.host, Ban: ban, Serves: n.fence.Serves, OverRelay: n.overRelay, Meter: n.traffic, Log: n.log})
	if err != nil {
		return err
	}
	n.gossip, err = gossip.New(n.host.Libp2p(), gossip.Options{
		Log: n.log, Fence: n.fence, Trusted: n.host.Preferred,
		AppScore: func(p peer.ID) float64 {
			if n.host.Blocked(p) {
				return -1000
			}
			return 0
		},
	})
	if err != nil {
		return err
	}
	n.models, err = openCatalogue(filepath.Join(n.dir, modelsDir), n.log, func(m api.Model) (string, time.Time) { return m.ID, m.Imported })
	if err != nil {
		return err
	}
	n.datasets, err = openCatalogue(filepath.Join(n.dir, datasetsDir), n.log, func(d api.Dataset) (string, time.Time) { return d.ID, d.Imported })
	if err != nil {
		return err
	}
	return n.keepListed()
}

// listenAPI opens the port of the API, or a free one when nobody asked for the
// default port and it is taken.
func listenAPI(cfg *config.Config, log *slog.Logger) (net.Listener, error) {
	l, err := net.Listen("tcp", cfg.API)
	if err != nil && cfg.AnyAPIPort {
		log.Warn("port was taken, a free one is used", "address", cfg.API)
		host, _, _ := net.SplitHostPort(cfg.API) // was validated
		l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return nil, listenError("start API", err, "give another port with --api, such as 127.0.0.1:0 for a free one")
	}
	return l, nil
}

// listenError tells a port that is taken from other failures. It looks at the
// text because libp2p does not wrap the error.
func listenError(op string, err error, way string) error {
	text := err.Error()
	if strings.Contains(text, "address already in use") || strings.Contains(text, "Only one usage of each socket address") {
		return api.Errorf(api.CodeConflict, "%s: %w", op, err).WithHint("another program uses the port: %s", way)
	}
	return api.Errorf(api.CodeConfig, "%s: %w", op, err).WithHint("%s", way)
}
