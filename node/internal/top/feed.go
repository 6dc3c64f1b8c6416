package top

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

// Source is a daemon, as *client.Client is one.
type Source interface {
	Status(ctx context.Context) (api.Status, error)
	Runs(ctx context.Context) (api.Runs, error)
	Run(ctx context.Context, id string) (api.RunDetail, error)
	Rounds(ctx context.Context, id string, from uint64, limit int) (api.Rounds, error)
	Peers(ctx context.Context) (api.Peers, error)
	Control(ctx context.Context, req api.ControlRequest) (api.Status, error)
	Watch(ctx context.Context, o client.WatchOptions, emit func(api.Event) error) error
	Close()
}

// snapshot is what is shown. It is not changed after it was handed out.
type snapshot struct {
	// down is why the daemon does not answer, "" while it does. The rest is then
	// as it was last.
	down   string
	loaded bool // the daemon has answered once

	status api.Status
	runs   []api.Run // joined ones first
	run    *api.RunDetail
	peers  []api.Peer
	// committed are the peers whose work for the round after the run's head is
	// held.
	committed map[string]bool
	history   history
}

// How often the daemon is asked: after something happened, if nothing did, and
// while it does not answer.
const (
	settle   = 250 * time.Millisecond
	interval = 2 * time.Second
	retry    = time.Second
	timeout  = 10 * time.Second // of one question
)

// pageRounds is how many rounds are asked for at a time.
const pageRounds = 500

// feed asks a daemon for what is shown, again and again.
type feed struct {
	// constant after newFeed
	open func() (Source, error)
	send func(snapshot)
	poke chan struct{} // holds a token when something may have changed

	mu sync.Mutex
	// guarded by mu
	chosen  string // ID of the run to show; "": the one that matters most
	source  Source // nil: none answers
	commits map[string]map[uint64]map[string]bool

	// owned by run
	last      snapshot
	histories map[string]*history
}

func newFeed(open func() (Source, error), send func(snapshot)) *feed {
	return &feed{
		open: open, send: send, poke: make(chan struct{}, 1), commits: map[string]map[uint64]map[string]bool{},
		histories: map[string]*history{},
	}
}

// choose shows another run.
func (f *feed) choose(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chosen = id
	f.changed()
}

// control asks the daemon to pause, or to go on.
func (f *feed) control(ctx context.Context, req api.ControlRequest) error {
	f.mu.Lock()
	s := f.source
	f.mu.Unlock()
	if s == nil {
		return api.Errorf(api.CodeDaemon, "no daemon answers")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := s.Control(ctx, req)
	f.changed()
	return err
}

func (f *feed) changed() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// run asks until ctx is done. A daemon that ends is waited for.
func (f *feed) run(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := f.open()
		if err == nil {
			err = f.follow(ctx, s)
			s.Close()
		}
		if ctx.Err() != nil {
			return
		}
		f.last.down = api.AsError(err).Message
		f.send(f.last)
		wait(ctx, retry)
	}
}

// follow asks s until ctx is done or it does not answer any more.
func (f *feed) follow(ctx context.Context, s Source) error {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	defer func() {
		cancel()
		<-watched
	}()
	f.mu.Lock()
	f.source, f.commits = s, map[string]map[uint64]map[string]bool{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.source = nil
		f.mu.Unlock()
	}()
	go func() {
		defer close(watched)
		// What ends it shows in the questions, too; they go on without.
		_ = s.Watch(ctx, client.WatchOptions{OnDown: func(error) { f.changed() }}, f.event)
	}()
	for {
		if err := f.ask(ctx, s); err != nil {
			return err
		}
		f.send(f.last)
		wait(ctx, settle)
		t := time.NewTimer(interval - settle)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-f.poke:
		case <-t.C:
		}
		t.Stop()
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// keptCommits is how many rounds of a run are remembered.
const keptCommits = 8

// event notes whose work of a round is there.
func (f *feed) event(e api.Event) error {
	if e.Type == api.EventCommit {
		f.mu.Lock()
		rounds := f.commits[e.Run]
		if rounds == nil {
			rounds = map[uint64]map[string]bool{}
			f.commits[e.Run] = rounds
		}
		if rounds[e.N] == nil {
			rounds[e.N] = map[string]bool{}
		}
		rounds[e.N][e.Peer] = true
		for n := range rounds {
			if n+keptCommits < e.N {
				delete(rounds, n)
			}
		}
		f.mu.Unlock()
	}
	f.changed()
	return nil
}

// ask makes f.last what the daemon says now.
func (f *feed) ask(ctx context.Context, s Source) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	next := snapshot{loaded: true}
	var err error
	if next.status, err = s.Status(ctx); err != nil {
		return err
	}
	runs, err := s.Runs(ctx)
	if err != nil {
		return err
	}
	peers, err := s.Peers(ctx)
	if err != nil {
		return err
	}
	next.runs, next.peers = order(runs.Runs), peers.Peers
	f.mu.Lock()
	id := f.chosen
	f.mu.Unlock()
	if !slices.ContainsFunc(next.runs, func(r api.Run) bool { return r.ID == id }) {
		id = ""
		if len(next.runs) > 0 {
			id = next.runs[0].ID
		}
	}
	if id != "" {
		d, err := s.Run(ctx, id)
		if err != nil {
			return err
		}
		next.run = &d
		h, err := f.past(ctx, s, next.status.Peer, &d)
		if err != nil {
			return err
		}
		next.history = h
		f.mu.Lock()
		next.committed = maps.Clone(f.commits[id][d.Round+1])
		f.mu.Unlock()
	}
	f.last = next
	return nil
}

// past counts what is new in the history of a run.
func (f *feed) past(ctx context.Context, s Source, self string, d *api.RunDetail) (history, error) {
	h := f.histories[d.ID]
	if h == nil || h.stale(d) {
		h = new(history)
		f.histories[d.ID] = h
	}
	for max(h.next, 1) <= d.Round {
		page, err := s.Rounds(ctx, d.ID, max(h.next, 1), pageRounds)
		if err != nil {
			return history{}, err
		}
		before := h.next
		if len(page.Rounds) > 0 && h.next == 0 {
			h.next = page.Rounds[0].Round // a node may not have the first ones
		}
		h.add(self, page.Rounds)
		h.measure(page.Rounds)
		if h.next == before {
			break
		}
	}
	h.measure(d.Rounds)
	c := *h
	c.points = slices.Clone(h.points)
	return c, nil
}

// order puts the runs that matter most first: those that train, then other
// joined ones.
func order(runs []api.Run) []api.Run {
	rank := func(r api.Run) int {
		if !r.Joined {
			return 9
		}
		switch r.State {
		case api.RunTraining:
			return 0
		case api.RunWaiting, api.RunAssembly, api.RunPaused:
			return 1
		case api.RunSyncing:
			return 2
		case api.RunFailed:
			return 3
		}
		return 4
	}
	runs = slices.Clone(runs)
	slices.SortStableFunc(runs, func(a, b api.Run) int { return rank(a) - rank(b) })
	return runs
}
