package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// validate judges what peers publish in the run's topic, by form and signature
// alone. Who repeats the words of others is refused: each speaks for itself.
func (r *Runner) validate(_ context.Context, from peer.ID, data []byte) (any, gossip.Verdict) {
	s, err := msg.Open(data)
	if err != nil || s.From != from || !s.Message.RunID().Equals(r.id) {
		return nil, gossip.Reject
	}
	if j, ok := s.Message.(*msg.JoinRequest); ok {
		switch pass, rejected := r.passes(j); {
		case rejected:
			return nil, gossip.Reject
		case !pass:
			return nil, gossip.Ignore
		}
		r.welcome(j)
	}
	if !r.ground.Member(from) {
		return nil, gossip.Ignore
	}
	if v := r.view.Load(); v != nil && !v.PassesOn(s) {
		return s, gossip.Keep
	}
	return s, gossip.Accept
}

// driver is the loop with what it owns.
type driver struct {
	r       *Runner
	m       *round.Machine
	topic   *gossip.Topic
	device  *device
	phase   msg.Phase
	state   api.RunState
	places  *places
	evicted msg.Round // what belongs to rounds up to this one was removed
}

func (r *Runner) recordAt(n msg.Round) (round.Link, bool) {
	k, _, ok := r.ledger.At(n)
	return k, ok
}

// loop drives the round until ctx is done.
func (r *Runner) loop(ctx context.Context, topic *gossip.Topic, d *device) error {
	var evidence [][2]msg.Signed
	for _, e := range r.ledger.Evidence() {
		evidence = append(evidence, [2]msg.Signed{e.A, e.B})
	}
	credentials, err := r.credentials(ctx)
	if err != nil {
		return err
	}
	m, err := round.New(round.Config{
		Credentials: credentials, Evidence: evidence,
		Manifest: r.manifest, Run: r.id, Self: r.hub.self, Chain: r.ledger, At: r.recordAt, Own: r.ledger.Own(), Spent: r.ledger.Spent(),
		Sign: func(m msg.Message) (msg.Signed, error) { return msg.Seal(r.hub.o.Key, m) },
	}, time.Now())
	if err != nil {
		return err
	}
	r.scopes.begin(ctx)
	r.prefer(r.ledger.Head().Record)
	defer r.hub.o.Host.Prefer(r.id.String(), nil)
	l := &driver{r: r, m: m, topic: topic, device: d, places: newPlaces()}
	if err := l.step(ctx, round.Want{Seat: true}); err != nil {
		return err
	}
	if h := r.ledger.Head(); h.Record.Round > 0 {
		r.bringState(ctx, h)
	}
	r.fillIn(ctx)
	r.greet(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if at := l.m.Deadline(); at.IsZero() { // not of m: a move replaces it
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		var ev round.Event
		select {
		case <-ctx.Done():
			return nil
		case in, ok := <-topic.Messages():
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("gossip ended")
			}
			ev = round.Received{Signed: in.Parsed.(msg.Signed)}
		case mv := <-r.moves:
			if err := l.move(ctx, mv); err != nil {
				return err
			}
			ev = round.Tick{}
		case ev = <-r.events:
		case <-timer.C:
			ev = round.Tick{}
		}
		if err := l.step(ctx, ev); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (l *driver) step(ctx context.Context, ev round.Event) error {
	l.m.SetStatus(l.r.hub.o.Agent, l.r.hub.o.Device, l.r.rate.Load())
	for _, e := range append(l.look(ctx), l.m.Step(time.Now(), ev)...) {
		if err := l.do(ctx, e); err != nil {
			return err
		}
	}
	l.show(ctx)
	return nil
}

// do carries out an effect. An error is one of this machine's disk: without it
// nothing can be promised to others.
func (l *driver) do(ctx context.Context, e round.Effect) error {
	r := l.r
	switch e := e.(type) {
	case round.Store:
		if c, ok := e.Signed.Message.(*msg.Commit); ok {
			l.r.emitCommit(c)
			r.copies.announce(c.Round, e.Signed.CID)
			r.deltas.leftovers.made(c.Delta, c.Round)
			r.running.Go(func() { r.compare(r.scopes.of(c.Round), c, e.Signed.CID) })
		}
		return r.ledger.StoreOwn(e.Signed)
	case round.Pull:
		r.pullMean(e)
	case round.Publish:
		if to := l.m.Audience(e.Signed); to != nil {
			r.tellCell(ctx, e.Signed, to)
			return nil
		}
		if err := l.topic.Publish(ctx, e.Signed.Envelope); err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "message was not published", "err", err)
		}
	case round.Adopt:
		return l.adopt(ctx, e.Links)
	case round.Certify:
		return r.ledger.Certify(e.Certificate)
	case round.Train:
		l.device.train(job{round: e.Round, head: e.Head, state: e.State, bits: e.CodecBits, steps: e.Steps, done: Done{e.Trained, e.Tokens}, course: r.course(e.Head), until: e.Until, before: r.traceBefore(e.Head, r.hub.self), earlier: e.Earlier})
	case round.TrainEarly:
		l.device.trainEarly(earlyJob{round: e.Round, earlier: e.Earlier, course: r.course(e.Earlier.Head), trace: e.Trace})
	case round.StopTraining:
		l.device.stop()
	case round.Check:
		r.check(e)
	case round.Audit:
		l.device.audit(auditJob{round: e.Round, record: e.Record, state: e.State, items: e.Items, retraces: e.Retraces, head: e.Head, done: Done{e.Trained, e.Tokens}, course: r.course(e.Head), earlierCourse: r.courseBefore(e.Head)})
	case round.Evaluate:
		l.device.measure(ctx, e)
	case round.Compare:
		r.compareRound(e)
	case round.Gate:
		l.device.tryMerge(mergeJob(e))
	case round.Fold:
		r.fold(e)
	case round.Sync:
		r.sync(ctx, e)
	case round.Evidence:
		r.log.WarnContext(ctx, "peer contradicted itself", "peer", e.A.From)
		r.emit(api.Event{Type: api.EventAlert, Peer: e.A.From.String(), Text: "this peer signed two messages that contradict each other; the ledger keeps both"})
		return r.ledger.AddEvidence(e.A, e.B)
	case round.Fraud:
		r.log.ErrorContext(ctx, "a quorum voted for a wrong state", "record", e.Certificate.Record, "claimed", e.Claimed, "computed", e.Computed)
		r.emit(api.Event{Type: api.EventAlert, Text: fmt.Sprintf(
			"%d seats voted for a record whose state is not what its deltas give; this node does not follow it. More seats lie than the run can bear: see the log", len(e.Certificate.Votes))})
	case round.Misbehaved:
		r.log.WarnContext(ctx, "peer offered records that break the rules", "peer", e.Peer, "err", e.Err)
	case round.Doubt:
		r.log.InfoContext(ctx, "nothing is signed in this round: the last record shows that this node took part, and its folder has nothing of that; it may have signed for this round as well", "round", e.Round)
	default:
		panic(fmt.Sprintf("bug: effect %T", e))
	}
	return nil
}

// adopt makes records durable and tells of them.
func (l *driver) adopt(ctx context.Context, links []round.Link) error {
	r := l.r
	before := r.ledger.Head()
	if err := r.ledger.Adopt(time.Now(), links); err != nil {
		return err
	}
	head := links[len(links)-1]
	r.ground.know(head.Record)
	r.prefer(head.Record)
	r.scopes.decided(head.Record.Round)
	l.device.dropAudit()
	for _, k := range links {
		n := uint64(k.Record.Round)
		entry, ok := r.ledger.Entry(k.Record.Round)
		if !ok {
			continue
		}
		desc := r.describe(k, entry)
		r.emit(api.Event{Type: api.EventRound, N: n, Round: &desc, Loss: desc.TrainLoss})
		r.tellRecorded(k)
		for _, p := range desc.Joined {
			r.emit(api.Event{Type: api.EventJoined, N: n, Peer: p})
		}
		for _, p := range desc.Left {
			r.emit(api.Event{Type: api.EventLeft, N: n, Peer: p})
		}
		attrs := []any{"round", n, "contributions", len(desc.Contributions), "certified", desc.Certified, "tokens", desc.Tokens}
		if desc.TrainLoss != nil {
			attrs = append(attrs, "loss", *desc.TrainLoss)
		}
		r.log.InfoContext(ctx, "round was decided", attrs...)
	}
	if links[0].Record.Parent != before.ID {
		r.log.WarnContext(ctx, "another branch of the run was better, and is followed now", "round", head.Record.Round)
		r.bringBranch(ctx, links)
	}
	if r.states.cached(head.Record.State) == nil {
		r.bringState(ctx, head)
	}
	// The loss of the last state is in no record; that of others only if the run
	// has it measured.
	if head.Record.Final || len(head.Record.Contributions) > 0 && !r.manifest.Measures() {
		l.device.evaluate(head)
	}
	l.evict(ctx, head.Record.Round)
	return nil
}

// bringState pulls the state of a head that others computed.
func (r *Runner) bringState(ctx context.Context, head round.Link) {
	scope := r.scopes.of(head.Record.Round + 1)
	r.running.Go(func() {
		for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
			err := r.bringStateOf(scope, head)
			if err == nil {
				r.post(scope, round.Tick{}) // so that it shows
				return
			}
			if scope.Err() != nil {
				return
			}
			r.log.WarnContext(ctx, "state was not brought", "round", head.Record.Round, "err", err)
			if !wait(scope, pause) {
				return
			}
		}
	})
}

// show publishes what people are to see after a step.
func (l *driver) show(context.Context) {
	r := l.r
	v := l.m.View()
	r.view.Store(&v)
	if v.Phase != l.phase {
		l.phase = v.Phase
		r.emit(api.Event{Type: api.EventPhase, N: uint64(v.Round), Phase: v.Phase.String()})
	}
	if r.caughtUp(&v) {
		r.stage.haveReady()
	}
	var s api.Run
	if r.tellState(&s, v.Head); s.State != l.state {
		l.state = s.State
		r.emit(api.Event{Type: api.EventRunState, State: string(s.State), Why: s.Why})
	}
}

// prefer names those with a seat as the peers that the run depends on: those of
// the round, and those of the next.
func (r *Runner) prefer(rec *msg.Record) {
	var list []peer.ID
	for _, seats := range [][]msg.Seat{rec.Seats, rec.NextSeats} {
		for _, s := range seats {
			list = append(list, s.Peer)
		}
	}
	r.hub.o.Host.Prefer(r.id.String(), list)
}

// caughtUp reports whether this peer is where the others are, as far as it
// heard, and could begin.
func (r *Runner) caughtUp(v *round.View) bool {
	if r.states.cached(v.Head.Record.State) == nil {
		return false
	}
	if v.Seat >= 0 || v.Head.Record.Final {
		return true
	}
	return !ahead(v)
}

// ahead reports whether others seem to be further: half of those in the seats of our
// head, of all if none of these was heard. One that says so alone may lie.
func ahead(v *round.View) bool {
	var heard, further [2]int // with a seat, all
	for _, m := range v.Members {
		for i := range heard {
			if i == 0 && !slices.ContainsFunc(v.Head.Record.NextSeats, func(s msg.Seat) bool { return s.Peer == m.Status.Peer }) {
				continue
			}
			heard[i]++
			if m.Status.Round > v.Round {
				further[i]++
			}
		}
	}
	i := 0
	if heard[0] == 0 {
		i = 1
	}
	return heard[i] == 0 || 2*further[i] >= heard[i]
}
