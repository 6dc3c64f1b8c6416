// Package demotest has a fake daemon for tests of the demo: a process with the
// command line and the API of mootd, whose rounds are decided by a world in
// the test.
package demotest

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// WorldEnv is the environment variable with the address of the world that a
// daemon takes part in.
const WorldEnv = "DEMO_TEST_WORLD"

// FaultEnv is the variable that makes daemons fail, by the names of their data
// folders: node2=die,node5=idle. Faults are die (at start), mute (never
// answers), unjoined (cannot join), idle (contributes nothing), disagree (has
// another state in the end), stray (sees another last round before the right
// one) and stubborn (does not stop when asked).
const FaultEnv = "DEMO_TEST_FAULTS"

// fakeDaemon is an apitest.Fake that tells a world what it is asked, and
// decides the rounds that the world does.
type fakeDaemon struct {
	*apitest.Fake
	fault string

	launched chan struct{} // the world has begun the run that was launched here
	strayed  chan struct{} // gets a token when somebody has been told another last round

	mu  sync.Mutex
	out *json.Encoder
}

// up is what a daemon tells the world, and down what it is told.
type (
	up struct {
		Peer   string `json:"peer,omitempty"`
		Join   string `json:"join,omitempty"`
		Rounds uint64 `json:"rounds,omitempty"`
		Mute   bool   `json:"mute,omitempty"`
	}
	down struct {
		Run      string      `json:"run,omitempty"`
		Launched bool        `json:"launched,omitempty"`
		Round    *api.Round  `json:"round,omitempty"`
		Peers    *[]api.Peer `json:"peers,omitempty"`
	}
)

// Daemon is the main function of the fake mootd.
func Daemon() {
	if err := daemon(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "mootd: %v\n", err)
		os.Exit(1)
	}
}

func daemon(args []string) error {
	f := flag.NewFlagSet("mootd", flag.ContinueOnError)
	dir := f.String("data-dir", "", "")
	listen := f.String("listen", "", "")
	apiAddr := f.String("api", "", "")
	f.String("bootstrap", "", "")
	noMDNS := f.Bool("no-mdns", false, "")
	threads := f.Int("threads", 0, "")
	f.String("log-level", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "args", strings.Join(args, " "))
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "MOOT_") {
			return fmt.Errorf("the environment has %s", kv)
		}
	}
	if *listen != "/ip4/127.0.0.1/tcp/0" || *apiAddr != "127.0.0.1:0" || !*noMDNS || *threads != 1 {
		return fmt.Errorf("not confined to loopback and one thread: %q", args)
	}
	name := filepath.Base(*dir)
	d := &fakeDaemon{Fake: apitest.New(name), launched: make(chan struct{}, 1), strayed: make(chan struct{}, 1)}
	for _, kv := range strings.Split(os.Getenv(FaultEnv), ",") {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			d.fault = v
		}
	}
	switch d.fault {
	case "die":
		return fmt.Errorf("listen %s: address already in use", *listen)
	case "mute":
		select {}
	}
	return d.serve(*dir)
}

func (d *fakeDaemon) serve(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	d.OnShutdown = stop
	world, err := net.Dial("tcp", os.Getenv(WorldEnv))
	if err != nil {
		return err
	}
	d.out = json.NewEncoder(world)
	d.tell(up{Peer: d.Node.Peer, Mute: d.fault == "idle"})
	go d.listen(world)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	token, err := api.NewToken(dir)
	if err != nil {
		return err
	}
	e := api.Endpoint{
		URL: "http://" + l.Addr().String(), Peer: d.Node.Peer, PID: os.Getpid(),
		Addrs: []string{"/ip4/192.0.2.1/tcp/1/p2p/" + d.Node.Peer, "/ip4/127.0.0.1/tcp/" + l.Addr().String()[len("127.0.0.1:"):]},
	}
	if err := api.WriteEndpoint(dir, e); err != nil {
		return err
	}
	if d.fault == "stubborn" {
		signal.Ignore(os.Interrupt)
		d.OnShutdown = nil
		ctx = context.Background()
	}
	return api.NewServer(d, api.Options{Token: token}).Serve(ctx, l)
}

func (d *fakeDaemon) tell(u up) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.out.Encode(u) // the world may have ended
}

// listen decides what the world decides.
func (d *fakeDaemon) listen(world net.Conn) {
	in := json.NewDecoder(world)
	for {
		var x down
		if in.Decode(&x) != nil {
			return
		}
		switch {
		case x.Launched:
			d.launched <- struct{}{}
		case x.Peers != nil:
			for _, p := range *x.Peers {
				d.AddPeer(p)
			}
		case x.Round != nil:
			if d.fault == "disagree" && x.Round.Final {
				x.Round.State = apitest.ID("something else")
			}
			if d.fault == "stray" && x.Round.Final {
				other := *x.Round
				other.Final, other.Record, other.State, other.Contributions = false, stray, apitest.ID("something else"), nil
				other.TrainedRounds--
				d.Decide(x.Run, other)
				<-d.strayed
			}
			d.Decide(x.Run, *x.Round)
		}
	}
}

// stray is the record of a last round that others did not agree on.
var stray = apitest.ID("stray")

// Rounds implements api.Backend.
func (d *fakeDaemon) Rounds(ctx context.Context, id string, from uint64, limit int) ([]api.Round, error) {
	l, err := d.Fake.Rounds(ctx, id, from, limit)
	for i, r := range l {
		switch {
		case r.Record != stray:
		case i+1 < len(l):
			return slices.Delete(l, i, i+1), err
		default:
			select {
			case d.strayed <- struct{}{}:
			default:
			}
		}
	}
	return l, err
}

// Round implements api.Backend.
func (d *fakeDaemon) Round(ctx context.Context, id string, n uint64) (api.Round, error) {
	l, err := d.Rounds(ctx, id, n, 2)
	if err != nil || len(l) == 0 {
		return d.Fake.Round(ctx, id, n)
	}
	return l[0], nil
}

// Launch implements api.Backend. It returns when the world knows of the run, so
// that nobody joins one that another demo has left there.
func (d *fakeDaemon) Launch(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Run, error) {
	r, err := d.Fake.Launch(ctx, req, progress)
	if err == nil {
		rounds := uint64(8)
		for _, l := range strings.Split(req.TOML, "\n") {
			if v, ok := strings.CutPrefix(l, "rounds = "); ok {
				rounds, err = strconv.ParseUint(v, 10, 64)
			}
		}
		d.tell(up{Join: r.ID, Rounds: rounds})
		select {
		case <-d.launched:
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
	return r, err
}

// Join implements api.Backend.
func (d *fakeDaemon) Join(ctx context.Context, req api.JoinRequest, progress api.ProgressFunc) (api.Run, error) {
	if d.fault == "unjoined" {
		return api.Run{}, api.Errorf(api.CodeNet, "join run %s: no peer has it", req.Run)
	}
	r, err := d.Fake.Join(ctx, req, progress)
	if err == nil {
		d.tell(up{Join: r.ID})
	}
	return r, err
}

// world is what the fake daemons share: it decides rounds, at the pace of what
// happens.
type world struct {
	stall uint64 // no round is decided after this one

	mu sync.Mutex
	// guarded by mu
	run     string
	max     uint64
	members []*member
	rounds  []api.Round
}

// member is a daemon in a world.
type member struct {
	peer   string
	mute   bool // contributes nothing
	joined bool
	seated bool
	gone   bool
	out    *json.Encoder
}

// NewWorld starts a world, which decides no round after stall unless that is
// 0. It returns its address, and what ends it.
func NewWorld(stall uint64) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	w := &world{stall: stall}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { w.serve(c) })
		}
	})
	return l.Addr().String(), func() {
		l.Close()
		wg.Wait()
	}, nil
}

func (w *world) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	m := &member{out: json.NewEncoder(c)}
	in := bufio.NewScanner(c)
	for in.Scan() {
		var u up
		if json.Unmarshal(in.Bytes(), &u) != nil {
			break
		}
		w.mu.Lock()
		switch {
		case u.Peer != "":
			m.peer, m.mute = u.Peer, u.Mute
			w.members = append(w.members, m)
			for _, o := range w.members { // everybody meets
				if o != m && !o.gone {
					_ = o.out.Encode(down{Peers: &[]api.Peer{{ID: m.peer}}})
					_ = m.out.Encode(down{Peers: &[]api.Peer{{ID: o.peer}}})
				}
			}
		case u.Join != "":
			if u.Rounds > 0 { // the launch of a run, and the end of an earlier one, also for who is still hanging up
				w.members = slices.DeleteFunc(w.members, func(o *member) bool { return o.gone || o.joined })
				w.rounds = nil
				w.run, w.max, m.seated = u.Join, u.Rounds, true
				_ = m.out.Encode(down{Run: w.run, Launched: true})
			}
			m.joined = true
			for i := range w.rounds {
				_ = m.out.Encode(down{Run: w.run, Round: &w.rounds[i]})
			}
		}
		w.advance()
		w.mu.Unlock()
	}
	w.mu.Lock()
	m.gone = true
	w.advance()
	w.mu.Unlock()
}

// advance decides rounds as far as what happened allows: the first trained one
// when four have joined, the third when two are dead, the fifth when somebody
// came for them. It needs mu.
func (w *world) advance() {
	for {
		joined, gone := 0, 0
		for _, m := range w.members {
			if m.joined {
				joined++
			}
			if m.joined && m.gone {
				gone++
			}
		}
		trained := uint64(0)
		if n := len(w.rounds); n > 0 {
			trained = w.rounds[n-1].TrainedRounds
		}
		n := uint64(len(w.rounds)) + 1
		if w.run == "" || joined < 4 || trained >= 2 && gone < 2 || trained >= 4 && joined < 5 || trained >= w.max ||
			w.stall > 0 && n > w.stall {
			return
		}
		w.decide(n, trained)
	}
}

func (w *world) decide(n, trained uint64) {
	var who, joins []string
	seats := 0
	for _, m := range w.members {
		if m.seated {
			seats++
		}
		if m.seated && !m.gone && !m.mute && n > 1 { // round 1 lets peers in
			who = append(who, m.peer)
		}
		if m.joined && !m.seated && !m.gone {
			joins = append(joins, m.peer)
			m.seated = true
		}
	}
	if len(who) > 0 {
		trained++
	}
	r := apitest.DecidedRound("demo", n, trained == w.max, append(slices.Clone(who), apitest.PeerID("node1"))...)
	r.Contributions = r.Contributions[:len(who)]
	r.Joined, r.TrainedRounds, r.Seats, r.Certified = joins, trained, seats, 2*len(who) > seats
	w.rounds = append(w.rounds, r)
	for _, m := range w.members {
		if m.joined && !m.gone {
			_ = m.out.Encode(down{Run: w.run, Round: &r})
		}
	}
}
