package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/moot-net/moot/node/api"
)

// programs are what is run, and how slow it may be.
type programs struct {
	mootd  string
	skewed string // a mootd whose clock can be set; "" if there is none
	// period is that of the runs. A round ends sooner when all is there, as a
	// rule in two seconds; where others want the processor too, it takes longer.
	period time.Duration
	peers  int // of cells
}

const runFile = `name = "chaos"
period = "%s"
rounds = %d
seats = 16
min_peers = 3
codec_bits = 2
eval_samples = 30
[lora]
rank = 8
[inner]
learning_rate = 4e-3
min_steps = 2
max_steps = %d
batch_samples = 8
sequence_tokens = 96
[licence]
model = "cc0-1.0"
data = "cc0-1.0"
`

// maxSteps bounds a peer's steps of a round. Few enough that several daemons on
// two cores take all of them.
const maxSteps = 8

// mbit is the speed of a line in each direction: that of a good home's uplink.
const mbit = 20

// swarm is daemons in one run.
type swarm struct {
	programs
	lab     *lab
	dir     string
	rng     *rand.Rand
	say     func(format string, args ...any)
	run     string
	base    float64 // held-out loss of the base model
	runFile string  // of the run; "": the usual one

	nodes  []*node // in the order in which they came; never removed
	faults []fault
	began  time.Time

	watch   context.CancelFunc
	watched sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	seen  map[parent]map[string]bool // certified records by what they follow
	loads float64                    // of the machine, sum
	looks int
}

// parent is what a record follows.
type parent struct {
	round  uint64 // that follows
	record string
}

// fault is a time in which a node could not do what it should.
type fault struct {
	node     *node
	from, to time.Time // to is zero while it lasts
}

// addNode makes a node that is not started yet.
func (s *swarm) addNode(ctx context.Context, boot ...string) (*node, error) {
	h, err := s.lab.add(ctx, mbit)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("node%d", len(s.nodes)+1)
	n := &node{name: name, host: h, dir: filepath.Join(s.dir, name), mootd: s.mootd, boot: boot}
	s.nodes = append(s.nodes, n)
	return n, nil
}

// begin starts peers, of which all but the first know that one, and launches a
// run of so many rounds.
func (s *swarm) begin(ctx context.Context, peers, rounds int, prepare func(i int, n *node) error) error {
	for i := range peers {
		var boot []string
		if i > 0 {
			boot = []string{s.nodes[0].addr()}
		}
		n, err := s.addNode(ctx, boot...)
		if err == nil && prepare != nil {
			err = prepare(i, n)
		}
		if err == nil && (i == 0 || peers <= startAtOnce*4) {
			err = n.start(ctx)
		}
		if err != nil {
			return err
		}
	}
	if peers > startAtOnce*4 {
		if err := startAll(ctx, s.nodes[1:]); err != nil {
			return err
		}
	}
	c := s.nodes[0].client()
	assets, err := c.DemoAssets(ctx, filepath.Join(s.dir, "assets"))
	if err != nil {
		return err
	}
	m, err := c.ImportModel(ctx, api.ImportModelRequest{Dir: assets.ModelDir}, quiet)
	if err != nil {
		return err
	}
	d, err := c.ImportDataset(ctx, assets.Data, quiet)
	if err != nil {
		return err
	}
	e, err := c.Evaluate(ctx, api.EvaluateRequest{Subject: api.Subject{Model: m.ID}, Dataset: d.ID, MaxRows: evalRows, LossOnly: true}, quiet)
	if err != nil {
		return err
	}
	s.base = e.Loss
	toml := s.runFile
	if toml == "" {
		toml = fmt.Sprintf(runFile, s.period, rounds, maxSteps)
	}
	r, err := c.Launch(ctx, api.LaunchRequest{Name: "run.toml", TOML: toml, Model: m.ID, Dataset: d.ID}, quiet)
	if err != nil {
		return err
	}
	s.run, s.began = r.ID, time.Now()
	if err := s.join(ctx, s.nodes[1:]...); err != nil {
		return err
	}
	s.say("%d peers in run %s", peers, api.ShortID(s.run))
	wctx, cancel := context.WithCancel(ctx)
	s.watch = cancel
	s.watched.Go(func() { s.look(wctx) })
	return nil
}

// evalRows is how many held-out rows are measured before and after.
const evalRows = 60

func quiet(api.Progress) {}

// join lets nodes join the run.
func (s *swarm) join(ctx context.Context, nodes ...*node) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		g.Go(func() error {
			if _, err := n.client().Join(gctx, api.JoinRequest{Run: s.run}, quiet); err != nil {
				return fmt.Errorf("join on %s: %w\n%s", n.name, err, n.tail())
			}
			return nil
		})
	}
	return g.Wait()
}

// end ends what is left of the swarm.
func (s *swarm) end() {
	if s.watch != nil {
		s.watch()
	}
	s.watched.Wait()
	for _, n := range s.nodes {
		n.kill()
		n.host.remove()
	}
}

// live lists the nodes that run.
func (s *swarm) live() []*node {
	return slices.DeleteFunc(slices.Clone(s.nodes), func(n *node) bool { return !n.alive() })
}

// begun notes that a fault of a node begins, and over that all of its have
// ended.
func (s *swarm) begun(n *node) { s.faults = append(s.faults, fault{node: n, from: time.Now()}) }

func (s *swarm) over(n *node) {
	for i := range s.faults {
		if f := &s.faults[i]; f.node == n && f.to.IsZero() {
			f.to = time.Now()
		}
	}
}

// look collects certified records until ctx is done: a node may leave a branch
// later.
func (s *swarm) look(ctx context.Context) {
	last := make(map[*node]uint64)
	nodes := slices.Clone(s.nodes) // of the beginning; those that come later are asked in the end
	for {
		for _, n := range nodes {
			if ctx.Err() != nil {
				return
			}
			from := uint64(1)
			if last[n] > 5 {
				from = last[n] - 5
			}
			last[n] = max(last[n], s.collect(ctx, n, from))
		}
		s.mu.Lock()
		s.loads, s.looks = s.loads+loadNow(), s.looks+1
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// collect notes the certified records of a node from a round on, and returns
// the last round. A node that does not answer has nothing to say.
func (s *swarm) collect(ctx context.Context, n *node, from uint64) (last uint64) {
	c := n.client()
	if c == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	page, err := c.Rounds(ctx, s.run, from, 0)
	if err != nil {
		return 0
	}
	s.note(page.Rounds)
	for _, r := range page.Rounds {
		last = max(last, r.Round)
	}
	return last
}

func (s *swarm) note(rounds []api.Round) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rounds {
		if !r.Certified {
			continue
		}
		on := parent{r.Round, r.Parent}
		if s.seen[on] == nil {
			s.seen[on] = make(map[string]bool)
		}
		s.seen[on][r.Record] = true
	}
}

// errEnded is returned for a run that was over before the story was.
var errEnded = errors.New("the run ended before that")

// roundTimeout is how long the run may stand still, which is far more than it
// should: figures say how long it did.
const roundTimeout = 90 * time.Second

// patience is roundTimeout, or more with long periods.
func (s *swarm) patience() time.Duration { return max(roundTimeout, 4*s.period) }

// until waits until the run, as node n sees it, has trained so many rounds.
func (s *swarm) until(ctx context.Context, n *node, trained uint64) error {
	var r api.Run
	err := s.await(ctx, s.patience(), func(ctx context.Context) (progress string, done bool, err error) {
		d, err := n.client().Run(ctx, s.run)
		if err != nil {
			return "", false, err
		}
		r = d.Run
		return r.Head, r.TrainedRounds >= trained || r.Final, nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("wait for trained round %d on %s: %w: it is in round %d (%s, %s)\n%s", trained, n.name, err, r.Round, r.Phase, r.Why, n.tail())
	case r.TrainedRounds < trained:
		return fmt.Errorf("wait for trained round %d: %w", trained, errEnded)
	}
	return nil
}

// await asks every 200 ms until it is done. It gives up when nothing has changed
// for so long.
func (s *swarm) await(ctx context.Context, patience time.Duration, ask func(context.Context) (progress string, done bool, err error)) error {
	last, since := "", time.Now()
	for {
		qctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		progress, done, err := ask(qctx)
		cancel()
		if done {
			return nil
		}
		if progress != last {
			last, since = progress, time.Now()
		}
		if time.Since(since) > patience {
			if err == nil {
				err = errors.New("nothing changes")
			}
			return fmt.Errorf("given up after %v: %w", patience, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// sleep waits for a time, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// between draws a time.
func (s *swarm) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.rng.Int64N(int64(high-low)))
}

// newSwarm makes a swarm whose nodes are in dir, which is made.
func newSwarm(l *lab, p programs, dir string, seed uint64, say func(string, ...any)) (*swarm, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &swarm{
		programs: p, lab: l, dir: dir, rng: rand.New(rand.NewPCG(seed, 0)), say: say, seen: make(map[parent]map[string]bool),
	}, nil
}
