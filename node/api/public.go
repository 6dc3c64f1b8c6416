package api

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// Source is where a Public gets what it shows; a *client.Client is one.
type Source interface {
	Status(ctx context.Context) (Status, error)
	Runs(ctx context.Context) (Runs, error)
	Run(ctx context.Context, id string) (RunDetail, error)
	Rounds(ctx context.Context, id string, from uint64, limit int) (Rounds, error)
	Round(ctx context.Context, id string, n uint64) (Round, error)
	Coverage(ctx context.Context, id string) (Coverage, error)
	Online(ctx context.Context, id string) (Online, error)
	Series(ctx context.Context, id string, limit int) (Series, error)
	RunPeers(ctx context.Context, id string) (RunPeers, error)
}

// PublicOptions are the settings of a Public.
type PublicOptions struct {
	// Source is asked, and must be set.
	Source Source
	// Follow calls emit with each event of the source until ctx is done.
	Follow func(ctx context.Context, emit func(Event) error) error
	// Runs are the IDs of the runs that are shown. Default: all that the node
	// is in.
	Runs []string
	// Log gets a line per failure. Default: nothing is logged.
	Log *slog.Logger
	// MaxWatchers bounds the open event streams. Default 2000.
	MaxWatchers int
	// TLS, if not nil, is how connections are secured. Default: they are not.
	TLS *tls.Config
}

// Public shows runs to everybody who can reach it: no token, nothing that can
// be changed, no addresses, folders or names of machines. It has the routes of
// the API that it needs, and no others, and asks its source as often for one
// watcher as for a thousand.
type Public struct {
	server *Server
	follow func(ctx context.Context, emit func(Event) error) error
	shown  *shownNode
	tls    *tls.Config
}

// NewPublic makes a Public. It starts nothing; Serve does.
func NewPublic(o PublicOptions) *Public {
	if o.MaxWatchers <= 0 {
		o.MaxWatchers = 2000
	}
	shown := &shownNode{
		source: o.Source, only: o.Runs, log: NewEventLog(keptPublic),
		limit: rate.NewLimiter(askedPerSecond, 2*askedPerSecond), answers: make(map[string]answered),
	}
	s := newServer(shown, Options{Log: o.Log, MaxWatchers: o.MaxWatchers})
	s.public, s.visitors = true, newVisitors()
	s.handle(s.publicRoutes())
	return &Public{server: s, follow: o.Follow, shown: shown, tls: o.TLS}
}

const (
	keptPublic     = 1000            // events for who comes late
	askedPerSecond = 50              // questions to the source, in the mean
	keptAnswers    = 200             // answers that are kept
	answerAge      = 2 * time.Second // how long, if nothing happens
	gapEvery       = time.Second     // how often who watches is told to ask again, at most
)

// Serve answers on l until ctx is done, and then returns nil. It closes l. An
// error is that of the listener, or of following the source.
func (p *Public) Serve(ctx context.Context, l net.Listener) error {
	l = p.server.visitors.listener(l)
	if p.tls != nil {
		c := p.tls.Clone()
		c.NextProtos = []string{"h2", "http/1.1"}
		l = tls.NewListener(l, c)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.server.Serve(ctx, l) })
	group.Go(func() error {
		return p.follow(ctx, func(e Event) error {
			p.shown.take(ctx, e)
			return nil
		})
	})
	return group.Wait()
}

// shownNode is a Backend that has what a Public shows. Other methods are not
// there: no route leads to them.
type shownNode struct {
	Backend

	// constant after NewPublic
	source Source
	only   []string
	log    *EventLog
	limit  *rate.Limiter

	mu sync.Mutex
	// guarded by mu
	answers map[string]answered
	happens uint64    // counts events: an answer from before one is old
	gapAt   time.Time // when the last gap was told
	gapDue  bool      // one will be told
}

type answered struct {
	v       any
	at      time.Time
	happens uint64
}

// kept answers key from what is kept, or asks.
func kept[T any](ctx context.Context, n *shownNode, key string, ask func() (T, error)) (T, error) {
	n.mu.Lock()
	a, ok := n.answers[key]
	happens := n.happens
	n.mu.Unlock()
	if ok && a.happens == happens && time.Since(a.at) < answerAge {
		return a.v.(T), nil
	}
	var none T
	if !n.limit.Allow() {
		return none, Errorf(CodeRetry, "too much is asked of this page at once").WithHint("try again in a moment")
	}
	v, err := ask()
	if err != nil {
		if ctx.Err() != nil {
			return none, err
		}
		e := AsError(err)
		return none, Errorf(e.Code, "%s", publicText(e.Message)) // its hint is for the node's owner
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.answers) >= keptAnswers {
		clear(n.answers)
	}
	n.answers[key] = answered{v, time.Now(), happens}
	return v, nil
}

// take hands on an event, if it is for everybody.
func (n *shownNode) take(ctx context.Context, e Event) {
	n.mu.Lock()
	n.happens++
	n.mu.Unlock()
	switch e.Type {
	case EventNode:
		e = Event{Type: e.Type, Time: e.Time, State: e.State, Why: publicText(e.Why)}
	case EventRunState, EventPhase, EventCommit, EventRound, EventEval, EventJoined, EventLeft:
		shown, err := n.shows(ctx, e.Run)
		if err != nil { // nobody can tell whether it is for everybody: who watches asks again
			n.gap(e.Time)
			return
		}
		if !shown {
			return
		}
		e.Why, e.Text, e.Progress = publicText(e.Why), "", nil
		if e.Round != nil {
			e.Round = new(publicRound(*e.Round))
		}
	case EventGap:
		e = Event{Type: EventGap, Time: e.Time}
	default: // what is pulled, and alerts, which are for the node's owner
		return
	}
	n.log.Publish(e)
}

// gap tells who watches to ask again: at once, or when gapEvery is over since it
// was told the last time. What happens until then is in that one.
func (n *shownNode) gap(at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gapDue {
		return
	}
	tell := func(at time.Time) {
		n.gapAt, n.gapDue = time.Now(), false
		n.log.Publish(Event{Type: EventGap, Time: at})
	}
	if wait := gapEvery - time.Since(n.gapAt); wait > 0 {
		n.gapDue = true
		time.AfterFunc(wait, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			tell(time.Now())
		})
		return
	}
	tell(at)
}

// shows reports whether a run is shown.
func (n *shownNode) shows(ctx context.Context, id string) (bool, error) {
	runs, err := n.Runs(ctx)
	return slices.ContainsFunc(runs, func(r Run) bool { return r.ID == id }), err
}

// mustShow is an error if a run is not shown.
func (n *shownNode) mustShow(ctx context.Context, id string) error {
	shown, err := n.shows(ctx, id)
	if err == nil && !shown {
		err = Errorf(CodeNotFound, "no run %s is shown here", clip(id))
	}
	return err
}

// Status implements Backend.
func (n *shownNode) Status(ctx context.Context) (Status, error) {
	s, err := kept(ctx, n, "status", func() (Status, error) { return n.source.Status(ctx) })
	return Status{
		Version: s.Version, Peer: s.Peer, Addrs: []string{}, Started: s.Started, State: s.State, Why: publicText(s.Why), Reason: s.Reason, Peers: s.Peers, Runs: s.Runs,
	}, err
}

// Runs implements Backend.
func (n *shownNode) Runs(ctx context.Context) ([]Run, error) {
	all, err := kept(ctx, n, "runs", func() (Runs, error) { return n.source.Runs(ctx) })
	shown := []Run{}
	for _, r := range all.Runs {
		if slices.Contains(n.only, r.ID) || len(n.only) == 0 && r.Joined {
			r.Why = publicText(r.Why)
			shown = append(shown, r)
		}
	}
	return shown, err
}

// Run implements Backend.
func (n *shownNode) Run(ctx context.Context, id string) (RunDetail, error) {
	if err := n.mustShow(ctx, id); err != nil {
		return RunDetail{}, err
	}
	d, err := kept(ctx, n, "run "+id, func() (RunDetail, error) { return n.source.Run(ctx, id) })
	d.Why = publicText(d.Why)
	d.Members = slices.Clone(d.Members)
	for i := range d.Members {
		m := &d.Members[i]
		m.Agent, m.Device = publicText(m.Agent), publicText(m.Device)
	}
	d.Rounds = publicRounds(d.Rounds)
	d.Pending = slices.Clone(d.Pending)
	for i := range d.Pending {
		d.Pending[i].Note = publicText(d.Pending[i].Note)
	}
	return d, err
}

// Rounds implements Backend.
func (n *shownNode) Rounds(ctx context.Context, id string, from uint64, limit int) ([]Round, error) {
	if err := n.mustShow(ctx, id); err != nil {
		return nil, err
	}
	l, err := kept(ctx, n, "rounds "+id+" "+Cursor{"x", from}.String()+" "+Cursor{"x", uint64(limit)}.String(), func() (Rounds, error) {
		return n.source.Rounds(ctx, id, from, limit)
	})
	return publicRounds(l.Rounds), err
}

// Round implements Backend.
func (n *shownNode) Round(ctx context.Context, id string, number uint64) (Round, error) {
	if err := n.mustShow(ctx, id); err != nil {
		return Round{}, err
	}
	r, err := kept(ctx, n, "round "+id+" "+Cursor{"x", number}.String(), func() (Round, error) { return n.source.Round(ctx, id, number) })
	return publicRound(r), err
}

// publicRounds and publicRound take what is of machines out of the notes of
// orders, which is all that people write into a round.
func publicRounds(l []Round) []Round {
	l = slices.Clone(l)
	for i := range l {
		l[i] = publicRound(l[i])
	}
	return l
}

func publicRound(r Round) Round {
	r.Orders = slices.Clone(r.Orders)
	for i := range r.Orders {
		r.Orders[i].Note = publicText(r.Orders[i].Note)
	}
	return r
}

// Coverage implements Backend.
func (n *shownNode) Coverage(ctx context.Context, id string) (Coverage, error) {
	if err := n.mustShow(ctx, id); err != nil {
		return Coverage{}, err
	}
	return kept(ctx, n, "coverage "+id, func() (Coverage, error) { return n.source.Coverage(ctx, id) })
}

// Online implements Backend.
func (n *shownNode) Online(ctx context.Context, id string) (Online, error) {
	if err := n.mustShow(ctx, id); err != nil {
		return Online{}, err
	}
	return kept(ctx, n, "online "+id, func() (Online, error) { return n.source.Online(ctx, id) })
}

// Series implements Backend. Whoever asks for however many points gets the same
// ones, which are kept once.
func (n *shownNode) Series(ctx context.Context, id string, _ int) (Series, error) {
	if err := n.mustShow(ctx, id); err != nil {
		return Series{}, err
	}
	return kept(ctx, n, "series "+id, func() (Series, error) { return n.source.Series(ctx, id, points) })
}

// RunPeers implements Backend.
func (n *shownNode) RunPeers(ctx context.Context, id string) (RunPeers, error) {
	if err := n.mustShow(ctx, id); err != nil {
		return RunPeers{}, err
	}
	return kept(ctx, n, "peers "+id, func() (RunPeers, error) { return n.source.RunPeers(ctx, id) })
}

// Watch implements Backend.
func (n *shownNode) Watch(ctx context.Context, run string, after Cursor, emit func(Event) error) error {
	return n.log.Watch(ctx, run, after, emit)
}

// private is what a text may have in it that is of a machine: addresses and
// paths.
var private = regexp.MustCompile(`/(?:ip4|ip6|dns|dns4|dns6|dnsaddr|unix)/[^\s,;"')]+` +
	`|\b\d{1,3}(?:\.\d{1,3}){3}(?:[:/]\d+)?` +
	`|\[[0-9a-fA-F:.%]{2,}\](?::\d+)?` +
	`|(?:\b[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}\b|(?:\b[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*)?::(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*\b)?` +
	`|\b[A-Za-z]:\\[^\s"']+` +
	`|(?:~|\B)/[\w.@+~-]+(?:/[\w.@+~-]*)+`)

// publicText takes out of a text what is of a machine.
func publicText(s string) string { return private.ReplaceAllString(s, "…") }
