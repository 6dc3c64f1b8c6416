// Package demo shows a whole run on one machine: real daemons, each a process
// with its own identity, find each other over libp2p on loopback, pull model
// and data, train, lose their launcher, take in a latecomer and agree on every
// byte of the result. It uses what every user has: the daemon's command line
// and its API.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/moot-net/moot/node/api"
)

// Options are the settings of a demo.
type Options struct {
	// Mootd is the path of the daemon's program.
	Mootd string
	// Dir is an empty folder, absolute.
	Dir string
	// Rounds is how many rounds train, at least MinRounds. Default: as the
	// bundled run file says.
	Rounds int
	// Timeout is how long all may take. Default 10 minutes.
	Timeout time.Duration
	// Screen shows what happens.
	Screen Screen
	// Hold, if not nil, is called when all went well, with the daemons that
	// live. They go on until it returns.
	Hold func(ctx context.Context, r Report, open []Open) error

	limits *limits // of tests
}

// Open is a daemon that can be looked at.
type Open struct {
	Name      string // such as node 3
	Dashboard string // address of its page; who has it can do what its user can
}

// MinRounds is how many rounds a demo needs: two before the launcher is
// killed, and some for the latecomer to come and to contribute.
const MinRounds = 6

// Screen shows what happens. Its methods may be called at the same time.
type Screen interface {
	// Say shows a line that stays.
	Say(format string, args ...any)
	// Progress shows how far something is, under a name.
	Progress(name string) api.ProgressFunc
	// Now shows what is going on, until Clear.
	Now(text string)
	// Clear takes away what Progress and Now show.
	Clear()
}

// limits are how long single steps may take.
type limits struct {
	start   time.Duration // until a daemon answers
	join    time.Duration // until a volunteer has all it needs
	round   time.Duration // from one round to the next
	agree   time.Duration // until all are final and agree
	grace   time.Duration // for a daemon to stop
	measure time.Duration // for export, evaluation and answers
}

// defaultLimits are for a machine that has other things to do: that a daemon has
// ended is seen at once.
var defaultLimits = limits{
	start: time.Minute, join: 2 * time.Minute, round: 90 * time.Second, agree: 90 * time.Second,
	grace: 10 * time.Second, measure: 3 * time.Minute,
}

var errTimeout = errors.New("timed out")

// cancelled is the error of a context that ended.
func cancelled(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errTimeout) {
		return api.Errorf(api.CodeRetry, "the demo took too long: %w", cause).WithHint("give it more time with --timeout, or close what keeps this machine busy")
	}
	e := api.Errorf(api.CodeInterrupted, "%w", ctx.Err())
	e.Message = "interrupted"
	return e
}

// demo is the state of one Run.
type demo struct {
	// constant after Run begins
	o      Options
	limits limits
	begin  time.Time

	// owned by Run
	report   Report
	base     chan api.Evaluation // has the base model's figures, if they were in time
	stopBase context.CancelFunc  // gives up on them
	prompts  []api.DemoPrompt
	wg       sync.WaitGroup // all that runs beside Run

	mu sync.Mutex
	// guarded by mu
	nodes []*node
}

// Run runs the demo. The report has what was found out, also when there is an
// error; all daemons have ended when Run returns.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Minute
	}
	d := &demo{o: o, limits: defaultLimits, begin: time.Now(), base: make(chan api.Evaluation, 1), stopBase: func() {}}
	if o.limits != nil {
		d.limits = *o.limits
	}
	d.report.StateCIDs, d.report.Heads, d.report.Answers = map[string]string{}, map[string]string{}, []Answer{}
	err := d.tell(ctx)
	if err == nil && o.Hold != nil {
		err = o.Hold(ctx, d.report, d.open())
	}
	d.stopAll(context.WithoutCancel(ctx))
	return d.report, err
}

// tell runs the story, and makes the report complete.
func (d *demo) tell(outer context.Context) error {
	ctx, cancel := context.WithTimeoutCause(outer, d.o.Timeout, errTimeout)
	defer cancel()
	story, end := context.WithCancel(ctx)
	d.wg.Go(func() { d.sample(story) })
	err := d.run(story)
	if err != nil && ctx.Err() != nil {
		err = d.late(ctx, err)
	}
	end()
	d.wg.Wait()
	d.o.Screen.Clear()
	if ctx.Err() != nil { // nobody waits for a good end
		d.stopAll(ctx)
	}
	for _, x := range d.all() {
		d.report.Bytes.Pulled += x.pulledBytes()
	}
	d.report.Peers = len(d.all())
	d.report.WallS = float64(time.Since(d.begin).Milliseconds()) / 1000
	d.report.OK = err == nil
	d.report.Error = api.AsError(err)
	return err
}

// open lists the daemons that can be looked at.
func (d *demo) open() []Open {
	var list []Open
	for _, x := range d.ready() {
		list = append(list, Open{Name: x.name, Dashboard: x.client.DashboardURL()})
	}
	return list
}

// late is the error of a demo whose time is over or that was interrupted,
// instead of what broke because of that.
func (d *demo) late(ctx context.Context, err error) error {
	x := api.AsError(cancelled(ctx))
	if x.Code == api.CodeInterrupted {
		return x
	}
	x.Message = fmt.Sprintf("%s after %v; it was at: %s%s", x.Message, d.o.Timeout, err, d.tails())
	return x
}

// all returns the nodes that were started, dead ones included.
func (d *demo) all() []*node {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.nodes)
}

// tails shows the logs of the nodes that live.
func (d *demo) tails() string {
	var s strings.Builder
	for _, x := range d.all() {
		if x.proc.alive() {
			s.WriteString(x.proc.tail())
		}
	}
	return s.String()
}

// stopAll ends all daemons, at once when nobody waits for a good end.
func (d *demo) stopAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, x := range d.all() {
		wg.Go(func() {
			if ctx.Err() != nil {
				x.proc.kill()
				return
			}
			d.stop(x)
		})
	}
	wg.Wait()
}

// sample asks the nodes now and then what they pulled: who is killed cannot be
// asked afterwards.
func (d *demo) sample(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, x := range d.ready() {
			x.sample(ctx)
		}
	}
}

// ready returns the nodes that can be asked, by name.
func (d *demo) ready() []*node {
	d.mu.Lock()
	defer d.mu.Unlock()
	var l []*node
	for _, x := range d.nodes {
		if x.up && x.proc.alive() {
			l = append(l, x)
		}
	}
	slices.SortFunc(l, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return l
}

// run is the story, step by step.
func (d *demo) run(ctx context.Context) error {
	d.o.Screen.Say("Five daemons of your own on this machine; nothing leaves it.")
	d.o.Screen.Say("folder     %s", d.o.Dir)
	first, err := d.startNode(ctx, 1, "")
	if err == nil {
		err = d.await(ctx, first)
	}
	if err != nil {
		return err
	}
	// The volunteers start while node 1 imports.
	volunteers := make([]*node, 3)
	g, gctx := errgroup.WithContext(ctx)
	for i := range volunteers {
		g.Go(func() (err error) {
			if volunteers[i], err = d.startNode(gctx, i+2, first.addr); err != nil {
				return err
			}
			return d.await(gctx, volunteers[i])
		})
	}
	var assets api.DemoAssets
	g.Go(func() (err error) {
		assets, err = d.importAssets(gctx, first)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	d.o.Screen.Clear()
	for _, x := range append([]*node{first}, volunteers...) {
		d.o.Screen.Say("%s     %s  process %d", x.name, x.peer, x.proc.pid())
	}
	d.measureBase(ctx, first)
	if err := d.launch(ctx, first, assets); err != nil {
		return err
	}
	if err := d.join(ctx, volunteers); err != nil {
		return err
	}
	d.meet(ctx, volunteers[1], volunteers[2])
	joiner, err := d.train(ctx, first, volunteers)
	if err != nil {
		return err
	}
	survivors := []*node{volunteers[1], volunteers[2]}
	if err := d.agree(ctx, append(survivors, joiner)); err != nil {
		return err
	}
	if err := d.ledger(ctx, survivors[0], joiner); err != nil {
		return err
	}
	if err := d.compare(ctx, survivors); err != nil {
		return err
	}
	return d.verdict(first, joiner)
}

// importAssets writes the bundled model and data, and stores them in x.
func (d *demo) importAssets(ctx context.Context, x *node) (api.DemoAssets, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.limits.measure, errTimeout)
	defer cancel()
	assets, err := x.client.DemoAssets(ctx, filepath.Join(d.o.Dir, "assets"))
	if err != nil {
		return assets, d.blame("write the bundled model and data", err, x)
	}
	m, err := x.client.ImportModel(ctx, api.ImportModelRequest{Dir: assets.ModelDir}, d.o.Screen.Progress("model"))
	if err != nil {
		return assets, d.blame("import the bundled model", err, x)
	}
	s, err := x.client.ImportDataset(ctx, assets.Data, d.o.Screen.Progress("data"))
	if err != nil {
		return assets, d.blame("import the bundled data", err, x)
	}
	d.report.Model, d.report.Dataset, d.prompts = m.ID, s.ID, assets.Prompts
	d.o.Screen.Say("model      %s, %d parameters, %s", m.Type, m.Parameters, size(m.Bytes))
	d.o.Screen.Say("           %s", m.ID)
	d.o.Screen.Say("data       %d rows to train on, %d held out", s.TrainRows, s.EvalRows)
	d.o.Screen.Say("           %s", s.ID)
	return assets, nil
}

// blame adds to an error what was done and the log of the node that failed.
func (d *demo) blame(what string, err error, x *node) error {
	e := api.AsError(err)
	e.Message = fmt.Sprintf("%s on %s: %s%s", what, x.name, e.Message, x.proc.tail())
	return e
}

// measureBase begins to measure the base model. Until the volunteers are
// there, node 1 has nothing else to do.
func (d *demo) measureBase(ctx context.Context, x *node) {
	ctx, d.stopBase = context.WithCancel(ctx)
	req := api.EvaluateRequest{Subject: api.Subject{Model: d.report.Model}, Dataset: d.report.Dataset}
	d.wg.Go(func() {
		defer close(d.base)
		if e, err := x.client.Evaluate(ctx, req, nil); err == nil {
			d.base <- e
		}
	})
}

func (d *demo) launch(ctx context.Context, x *node, assets api.DemoAssets) error {
	text, err := os.ReadFile(assets.RunFile)
	if err != nil {
		return api.Errorf(api.CodeInternal, "read the bundled run file: %w", err)
	}
	toml := string(text)
	if d.o.Rounds > 0 {
		toml = setRounds(toml, d.o.Rounds)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.limits.join, errTimeout)
	defer cancel()
	req := api.LaunchRequest{Name: assets.RunFile, TOML: toml, Model: d.report.Model, Dataset: d.report.Dataset}
	r, err := x.client.Launch(ctx, req, d.o.Screen.Progress("launch"))
	if err != nil {
		return d.blame("launch the run", err, x)
	}
	d.report.Run = r.ID
	d.o.Screen.Clear()
	d.o.Screen.Say("run        %s", r.ID)
	d.o.Screen.Say("           launched by node 1, %d rounds", r.MaxRounds)
	return nil
}

// join lets all nodes join at the same time. They know the run's ID and pull
// everything else.
func (d *demo) join(ctx context.Context, nodes []*node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.limits.join, errTimeout)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	for _, x := range nodes {
		g.Go(func() error { return d.joinOne(gctx, x) })
	}
	err := g.Wait()
	d.o.Screen.Clear()
	return err
}

func (d *demo) joinOne(ctx context.Context, x *node) error {
	begin := time.Now()
	if _, err := x.client.Join(ctx, api.JoinRequest{Run: d.report.Run}, d.o.Screen.Progress(x.name)); err != nil {
		return d.blame("join the run", err, x)
	}
	x.sample(ctx)
	d.o.Screen.Say("%s     joined, pulled %s in %.1f s", x.name, size(x.pulledBytes()), time.Since(begin).Seconds())
	return nil
}

// meet waits until two nodes are connected: each was given the address of
// node 1 alone, and node 1 will be gone.
func (d *demo) meet(ctx context.Context, a, b *node) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		peers, err := a.client.Peers(ctx)
		if err == nil && slices.ContainsFunc(peers.Peers, func(p api.Peer) bool { return p.ID == b.peer }) {
			return
		}
		select {
		case <-ctx.Done():
			d.o.Screen.Say("warning    %s and %s have not found each other yet", a.name, b.name)
			return
		case <-tick.C:
		}
	}
}
