package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/run"
)

// participant takes part in one run; a *runner.Runner does. Its contract is
// there.
type participant interface {
	Run(ctx context.Context) error
	Close() error
	Ready(ctx context.Context, progress api.ProgressFunc) error
	Leave(ctx context.Context)
	Manifest() *run.Manifest
	Summary() api.Run
	Detail() api.RunDetail
	Rounds(from uint64, limit int) ([]api.Round, error)
	Online() []api.OnlineSample
	StateAt(ctx context.Context, round *uint64, head cid.Cid) (runner.Snapshot, error)
}

// membership is on disk what this node wants of a run. It is written before
// anything else is done for the run.
type membership struct {
	Run    string    `json:"run"`
	Joined bool      `json:"joined"`
	Added  time.Time `json:"added"`
	// Peers are addresses to begin with.
	Peers []string `json:"peers,omitempty"`
}

// leaveTimeout bounds how long others are told that this node leaves a run.
const leaveTimeout = 15 * time.Second

// runs are the runs that this node is in, or was.
type runs struct {
	// constant after newRuns
	node    *node
	dir     string
	log     *slog.Logger
	open    func(dir string, m *run.Manifest) (participant, error)
	running chan struct{} // closed when run has begun
	retry   time.Duration // how often is looked whether a disk that was full has room
	free    func(dir string) (int64, error)

	ctx context.Context // of run; set before running is closed
	wg  sync.WaitGroup  // what take part in runs

	mu      sync.Mutex
	members map[cid.Cid]*member // guarded by mu
	ended   bool                // guarded by mu; nothing is started any more
}

// member is one run.
type member struct {
	id cid.Cid
	// turn holds a token while somebody joins or leaves.
	turn chan struct{}

	// guarded by runs.mu
	file   membership
	runner participant // nil until the manifest is here
	used   bool        // its Run was called
	err    error       // why this node cannot go on
	stay   *stay       // the last one
}

// stay is one time of taking part in a run.
type stay struct {
	cancel context.CancelFunc
	opened chan struct{} // closed when the runner is there
	done   chan struct{} // closed when it is over
	fitted chan struct{} // closed when fit is there, which may never be
	fit    atomic.Pointer[api.Fit]

	manifest *run.Manifest // owned by who stays; nil until there is a fit
}

// newRuns reads the memberships in dir and opens the runs whose manifests are
// here. It starts none.
func newRuns(n *node, dir string, open func(dir string, m *run.Manifest) (participant, error)) (*runs, error) {
	r := &runs{
		node: n, dir: dir, log: n.log.With("component", "runs"), open: open,
		running: make(chan struct{}), members: make(map[cid.Cid]*member), retry: retryFull, free: freeBytes,
	}
	names, err := readEntries(dir)
	if err != nil {
		return nil, fmt.Errorf("read runs: %w", err)
	}
	for _, name := range names {
		var f membership
		if err := readEntry(filepath.Join(dir, name), &f); err != nil {
			r.log.Error("membership was not usable, join the run again", "err", err)
			continue
		}
		id, err := cid.Decode(f.Run)
		if err != nil || f.Run != strings.TrimSuffix(name, entrySuffix) {
			r.log.Error("membership was not usable, join the run again", "err", fmt.Errorf("%s names run %q", name, f.Run))
			continue
		}
		r.members[id] = r.load(id, f)
	}
	return r, nil
}

func newMember(id cid.Cid, f membership) *member {
	return &member{id: id, turn: make(chan struct{}, 1), file: f}
}

// load makes the member of a run known from before.
func (r *runs) load(id cid.Cid, f membership) *member {
	m := newMember(id, f)
	manifest, err := r.localManifest(context.Background(), id)
	if err == nil && manifest != nil {
		m.runner, err = r.open(r.folder(id), manifest)
	}
	if err != nil {
		m.err = err
		r.log.Error("run could not be opened", "run", api.ShortID(f.Run), "err", err)
	}
	return m
}

// folder is where the files of a run are.
func (r *runs) folder(id cid.Cid) string { return filepath.Join(r.dir, id.String()) }

// joined are the manifests of the runs that this node is in, as far as they are
// here.
func (r *runs) joined() (out []*run.Manifest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		if m.file.Joined && m.runner != nil {
			out = append(out, m.runner.Manifest())
		}
	}
	return out
}

// any reports whether this node is in a run.
func (r *runs) any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		if m.file.Joined {
			return true
		}
	}
	return false
}

// run takes part in all runs that were joined until ctx is done. Then it
// returns when what they were doing is saved.
func (r *runs) run(ctx context.Context) error {
	r.ctx = ctx
	r.mu.Lock()
	for _, m := range r.members {
		if m.file.Joined {
			r.start(m)
		}
	}
	r.mu.Unlock()
	close(r.running)
	<-ctx.Done()
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, m := range r.members {
		if m.runner != nil {
			errs = append(errs, m.runner.Close())
		}
	}
	return errors.Join(errs...)
}

// start begins a stay, unless one is under way. It needs mu.
func (r *runs) start(m *member) {
	if r.ended || m.stay != nil && !isClosed(m.stay.done) {
		return
	}
	ctx, cancel := context.WithCancel(r.ctx)
	s := &stay{cancel: cancel, opened: make(chan struct{}), done: make(chan struct{}), fitted: make(chan struct{})}
	m.stay, m.err = s, nil
	r.wg.Go(func() {
		full := r.stayIn(ctx, m, s)
		close(s.done)
		if full {
			r.goOn(m, s)
		}
	})
}

// retryFull is how often is looked whether a disk that was full has room, and
// enoughRoom how much that is: a run writes little, but not only once.
const (
	retryFull  = 5 * time.Second
	enoughRoom = 16 << 20
)

// goOn begins another stay when there is room on the disk again, unless
// somebody else has done something about it.
func (r *runs) goOn(m *member, s *stay) {
	tick := time.NewTicker(r.retry)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		free, ok := r.hasRoom(r.ctx, m, s) // takes mu
		r.mu.Lock()
		mine := m.stay == s && m.file.Joined
		if mine && ok && r.ctx.Err() == nil {
			r.log.InfoContext(r.ctx, "there is room on the disk, the run goes on", "run", api.ShortID(m.id.String()), "bytes", free)
			r.start(m)
			mine = false
		}
		r.mu.Unlock()
		if !mine {
			return
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// stayIn takes part in a run until ctx is done or it is impossible. It reports
// whether that was because the disk was full.
func (r *runs) stayIn(ctx context.Context, m *member, s *stay) (full bool) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.cancel()
	for _, addr := range r.view(m).file.Peers {
		wg.Go(func() { r.connect(ctx, addr) })
	}
	id := m.id.String()
	err := r.openRun(ctx, m, s)
	switch {
	case err == nil:
		close(s.opened)
		r.node.poke()
		err = r.takePart(ctx, m)
	case ctx.Err() == nil: // else the runner tells
		r.node.emit(api.Event{Type: api.EventRunState, Run: id, State: string(api.RunFailed), Why: r.fullDisk(err).Error()})
	}
	if err == nil || ctx.Err() != nil {
		return false
	}
	full = isDiskFull(err)
	r.log.ErrorContext(ctx, "run failed on this node", "run", api.ShortID(id), "err", err)
	err = r.fullDisk(err)
	r.mu.Lock()
	m.err = err
	r.mu.Unlock()
	r.node.emit(api.Event{Type: api.EventAlert, Run: id, Text: err.Error()})
	return full
}

// openRun opens the runner, for which it may have to find the manifest.
func (r *runs) openRun(ctx context.Context, m *member, s *stay) error {
	r.mu.Lock()
	p := m.runner
	used := m.used
	r.mu.Unlock()
	begun := false
	if p != nil {
		now := p.Summary()
		if begun = now.Round > 0; now.Final && !used {
			return nil // it needs nothing any more
		}
	}
	if p != nil && !used {
		return r.checkRoom(ctx, m, s, p.Manifest(), begun)
	}
	manifest, err := r.findManifest(ctx, m)
	if err != nil {
		return err
	}
	if err := r.checkRoom(ctx, m, s, manifest, begun); err != nil {
		return err
	}
	if p != nil { // it runs once, and a run is open once at a time
		r.mu.Lock()
		m.runner = nil
		r.mu.Unlock()
		if err := p.Close(); err != nil {
			return err
		}
	}
	if p, err = r.open(r.folder(m.id), manifest); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m.runner, m.used = p, false
	return nil
}

// takePart runs the runner.
func (r *runs) takePart(ctx context.Context, m *member) error {
	r.mu.Lock()
	p := m.runner
	m.used = true
	r.mu.Unlock()
	aside, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.settle(aside, m.id, p) })
	err := p.Run(ctx)
	cancel()
	wg.Wait()
	if err == nil && ctx.Err() == nil {
		err = errEnded
	}
	return err
}

// settle tells how far the pull of what a run needs is, and lists it when it
// is here.
func (r *runs) settle(ctx context.Context, id cid.Cid, p participant) {
	err := p.Ready(ctx, func(api.Progress) {})
	if err == nil {
		m := p.Manifest()
		err = r.node.listPulled(ctx, m.Name, m.Model, m.Dataset)
	}
	if err != nil && ctx.Err() == nil {
		r.log.WarnContext(ctx, "what the run needs could not be listed", "run", api.ShortID(id.String()), "err", err)
	}
}

// join makes this node a member of a run for good, and begins a stay.
func (r *runs) join(ctx context.Context, id cid.Cid, peers []string) (*member, *stay, error) {
	select {
	case <-r.running:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	r.mu.Lock()
	m := r.members[id]
	if m == nil {
		m = newMember(id, membership{Run: id.String(), Added: time.Now().UTC()})
		r.members[id] = m
	}
	r.mu.Unlock()
	done, err := m.take(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	// Who joins or launches a run agrees to work for others.
	if err := r.node.keeper.agree(ctx); err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	f := m.file
	r.mu.Unlock()
	f.Joined = true
	if len(peers) > 0 {
		f.Peers = peers
	}
	if err := writeEntry(filepath.Join(r.dir, f.Run+entrySuffix), f); err != nil {
		return nil, nil, fmt.Errorf("join run %s: %w", f.Run, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m.file = f
	r.start(m)
	if m.stay == nil {
		return nil, nil, errStopping
	}
	return m, m.stay, nil
}

// leave ends a membership.
func (r *runs) leave(ctx context.Context, m *member) error {
	done, err := m.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	r.mu.Lock()
	f := m.file
	s, p := m.stay, m.runner
	r.mu.Unlock()
	if !f.Joined {
		return api.Errorf(api.CodeConflict, "this node is not in run %s", f.Run)
	}
	f.Joined = false
	if err := writeEntry(filepath.Join(r.dir, f.Run+entrySuffix), f); err != nil {
		return fmt.Errorf("leave run %s: %w", f.Run, err)
	}
	r.mu.Lock()
	m.file = f
	r.mu.Unlock()
	if s != nil {
		if p != nil && isClosed(s.opened) && !isClosed(s.done) {
			lctx, cancel := context.WithTimeout(ctx, leaveTimeout)
			p.Leave(lctx)
			cancel()
		}
		s.cancel()
		<-s.done
	}
	r.node.emit(api.Event{Type: api.EventRunState, Run: f.Run, State: string(api.RunLeft), Why: leftWhy})
	return nil
}

const leftWhy = "you left"

// errStopping is why nothing is begun any more.
var errStopping = api.Errorf(api.CodeRetry, "the daemon is stopping")

// take waits for the turn to join or leave, and returns what gives it back.
func (m *member) take(ctx context.Context) (func(), error) {
	select {
	case m.turn <- struct{}{}:
		return func() { <-m.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// view is a member at one moment.
type view struct {
	file   membership
	runner participant
	err    error
}

func (r *runs) view(m *member) view {
	r.mu.Lock()
	defer r.mu.Unlock()
	return view{m.file, m.runner, m.err}
}

// find returns the member of a run, E_NOTFOUND if this node does not know it.
func (r *runs) find(id string) (*member, error) {
	c, err := parseID("run", id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.members[c]; m != nil {
		return m, nil
	}
	return nil, api.Errorf(api.CodeNotFound, "this node knows no run %s", id).WithHint(`"moot run list" lists what it knows`)
}

// opened returns the runner of a run, E_RETRY if its manifest is not here yet.
func (r *runs) opened(id string) (participant, error) {
	m, err := r.find(id)
	if err != nil {
		return nil, err
	}
	v := r.view(m)
	switch {
	case v.runner != nil:
		return v.runner, nil
	case v.err != nil:
		return nil, v.err
	}
	return nil, api.Errorf(api.CodeRetry, "the manifest of run %s is not here yet", id).
		WithHint("it comes from a peer that is in the run; \"moot peer list\" lists whom this node is connected to")
}

// list returns all runs, oldest first.
func (r *runs) list() []api.Run {
	r.mu.Lock()
	var views []view
	for _, m := range r.members {
		views = append(views, view{m.file, m.runner, m.err})
	}
	r.mu.Unlock()
	slices.SortFunc(views, func(a, b view) int {
		return cmp.Or(a.file.Added.Compare(b.file.Added), cmp.Compare(a.file.Run, b.file.Run))
	})
	var list []api.Run
	for _, v := range views {
		if v.file.Joined || v.runner != nil { // else a join failed before anything was known
			list = append(list, v.summary())
		}
	}
	return list
}

// devices returns what the members of the joined runs say they train on, by
// peer.
func (r *runs) devices() map[string]string {
	r.mu.Lock()
	var open []participant
	for _, m := range r.members {
		if m.file.Joined && m.runner != nil {
			open = append(open, m.runner)
		}
	}
	r.mu.Unlock()
	devices := map[string]string{}
	for _, p := range open {
		for _, m := range p.Detail().Members {
			devices[m.Peer] = m.Device
		}
	}
	return devices
}

// summary is the run as this node sees it: the runner knows nothing of
// memberships.
func (v view) summary() api.Run {
	s := api.Run{
		ID: v.file.Run, Name: api.ShortID(v.file.Run), State: api.RunSyncing, Phase: "sync",
		Why: "it waits for a peer that has the manifest", Guarantee: api.Guarantee{Level: "none", Text: "the run is not known yet"},
	}
	if v.runner != nil {
		s = v.runner.Summary()
	}
	v.adjust(&s)
	return s
}

func (v view) adjust(s *api.Run) {
	s.Joined = v.file.Joined
	switch {
	case !v.file.Joined:
		s.State, s.Phase, s.Why = api.RunLeft, "idle", leftWhy
	case v.err != nil:
		s.State, s.Phase, s.Why = api.RunFailed, "idle", v.err.Error()
	}
}
