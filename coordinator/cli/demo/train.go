package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

// killAfter is the number of trained rounds after which the launcher is
// killed, and lateAfter how many more train before the latecomer is started.
const (
	killAfter = 2
	lateAfter = 1
)

// train follows the run to its end, as the first survivor sees it. On the way
// it kills the launcher and the first volunteer, and starts a latecomer.
func (d *demo) train(ctx context.Context, launcher *node, volunteers []*node) (joiner *node, err error) {
	eye, other := volunteers[1], volunteers[2]
	d.o.Screen.Say("")
	d.o.Screen.Say("round      loss  deltas  seats       s  agreement")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := make(chan lateJoin, 1)
	started := false
	err = d.follow(ctx, eye, func(r api.Round) error {
		d.sayRound(r)
		if d.report.LauncherKilledAfterRound == 0 && r.TrainedRounds >= killAfter && !r.Final {
			d.kill(ctx, launcher, volunteers[0])
			d.report.LauncherKilledAfterRound, d.report.Ledger.LauncherKilledAfter = r.TrainedRounds, r.Round
		}
		killed := d.report.LauncherKilledAfterRound
		if killed > 0 && !started && r.TrainedRounds >= killed+lateAfter && !r.Final {
			started = true
			d.wg.Go(func() {
				x, err := d.latecomer(ctx, eye)
				late <- lateJoin{x, err}
			})
		}
		return nil
	}, late, &joiner)
	if err != nil {
		return nil, err
	}
	if joiner == nil {
		return nil, api.Errorf(api.CodeVerify, "the run ended before the latecomer was in it%s", d.stateOf(eye, other)).
			WithHint("give it more rounds with --rounds")
	}
	return joiner, nil
}

// lateJoin is how the latecomer fared.
type lateJoin struct {
	node *node
	err  error
}

// follow calls fn with each round that x decides, until the run is final. It
// takes in the latecomer meanwhile.
func (d *demo) follow(ctx context.Context, x *node, fn func(api.Round) error, late <-chan lateJoin, joiner **node) error {
	wctx, cancel := context.WithCancel(ctx)
	changed := make(chan struct{}, 1)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		// Events only say when to look, and what is going on meanwhile; should
		// they fail, the ticker below does.
		_ = x.client.Watch(wctx, client.WatchOptions{Run: d.report.Run}, func(e api.Event) error {
			d.showEvent(e)
			if e.Type == api.EventRound || e.Type == api.EventRunState {
				select {
				case changed <- struct{}{}:
				default:
				}
			}
			return nil
		})
	}()
	defer func() {
		cancel()
		<-watched
		d.o.Screen.Clear()
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	next, since := uint64(1), time.Now()
	for {
		now, err := x.client.Run(ctx, d.report.Run)
		if err != nil {
			return d.blame("follow the run", err, x)
		}
		page, err := x.client.Rounds(ctx, d.report.Run, next, 0)
		if err != nil {
			return d.blame("follow the run", err, x)
		}
		if now.Final && len(page.Rounds) == 0 {
			// The last round is another one than was seen: the others had agreed on it.
			last, err := x.client.Round(ctx, d.report.Run, now.Round)
			if err != nil {
				return d.blame("follow the run", err, x)
			}
			if err := fn(last); err != nil {
				return err
			}
			return d.takeLate(ctx, late, joiner)
		}
		for _, r := range page.Rounds {
			if err := fn(r); err != nil {
				return err
			}
			next, since = r.Round+1, time.Now()
			if r.Final {
				return d.takeLate(ctx, late, joiner)
			}
		}
		if time.Since(since) > d.limits.round {
			return api.Errorf(api.CodeRetry, "no round was decided in %v%s%s", d.limits.round, d.stateOf(d.ready()...), d.tails())
		}
		select {
		case <-ctx.Done():
			return cancelled(ctx)
		case l := <-late:
			if l.err != nil {
				return l.err
			}
			*joiner, late = l.node, nil
		case <-changed:
		case <-tick.C:
		}
	}
}

// takeLate waits a moment for a latecomer that is just arriving.
func (d *demo) takeLate(ctx context.Context, late <-chan lateJoin, joiner **node) error {
	if *joiner != nil {
		return nil
	}
	t := time.NewTimer(2 * time.Second)
	defer t.Stop()
	select {
	case l := <-late:
		*joiner = l.node
		return l.err
	case <-t.C:
		return nil
	case <-ctx.Done():
		return cancelled(ctx)
	}
}

// kill ends nodes as a power cut would.
func (d *demo) kill(ctx context.Context, nodes ...*node) {
	d.stopBase() // what was not measured by now is measured elsewhere
	for _, x := range nodes {
		x.sample(ctx)
	}
	for _, x := range nodes {
		x.proc.kill()
	}
	d.o.Screen.Say("%s     which launched the run, and %s: killed (SIGKILL)", nodes[0].name, nodes[1].name)
}

// latecomer starts a daemon with a new identity that knows the address of one
// survivor, and joins it to the run.
func (d *demo) latecomer(ctx context.Context, survivor *node) (*node, error) {
	x, err := d.startNode(ctx, 5, survivor.addr)
	if err == nil {
		err = d.await(ctx, x)
	}
	if err != nil {
		return nil, err
	}
	d.o.Screen.Say("%s     started, a new identity that knows %s alone", x.name, survivor.name)
	ctx, cancel := context.WithTimeoutCause(ctx, d.limits.join, errTimeout)
	defer cancel()
	if err := d.joinOne(ctx, x); err != nil {
		return nil, err
	}
	return x, nil
}

// sayRound shows a round, unless it came before training began. It is counted
// as in the report: among those that trained.
func (d *demo) sayRound(r api.Round) {
	if r.TrainedRounds == 0 {
		return
	}
	agreement := "provisional"
	if r.Certified {
		agreement = fmt.Sprintf("certified by %d of %d", r.Votes, r.Seats)
	}
	trained := "-"
	if len(r.Contributions) > 0 {
		trained = fmt.Sprint(r.TrainedRounds)
	}
	d.o.Screen.Say("%5s  %s  %6d  %5d  %6.1f  %s", trained, number(r.TrainLoss), len(r.Contributions), r.Seats, r.Seconds, agreement)
}

func number(v *float64) string {
	if v == nil {
		return "       -"
	}
	return fmt.Sprintf("%8.4f", *v)
}

// showEvent shows what is going on within a round.
func (d *demo) showEvent(e api.Event) {
	switch e.Type {
	case api.EventPhase:
		text := fmt.Sprintf("round %d: %s", e.N, e.Phase)
		if e.Why != "" {
			text += ", " + e.Why
		}
		d.o.Screen.Now(text)
	case api.EventAlert:
		d.o.Screen.Say("alert      %s", e.Text)
	}
}

// stateOf says what nodes are doing, for an error.
func (d *demo) stateOf(nodes ...*node) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s := ""
	for _, x := range nodes {
		r, err := x.client.Run(ctx, d.report.Run)
		if err != nil {
			s += fmt.Sprintf("\n  %s: %v", x.name, err)
			continue
		}
		s += fmt.Sprintf("\n  %s: %s, %s, round %d, head %s", x.name, r.State, r.Phase, r.Round, r.Head)
		if r.Why != "" {
			s += ": " + r.Why
		}
	}
	return s
}

// agree waits until all live nodes see the run as final, with the same head
// and the same state.
func (d *demo) agree(ctx context.Context, nodes []*node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.limits.agree, errTimeout)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		heads, states, final := map[string]string{}, map[string]string{}, 0
		for _, x := range nodes {
			r, err := x.client.Run(ctx, d.report.Run)
			if err != nil && ctx.Err() == nil {
				return d.blame("ask for the result", err, x)
			}
			heads[x.peer], states[x.peer] = r.Head, r.StateCID
			if r.Final {
				final++
			}
		}
		if ctx.Err() == nil {
			d.report.Heads, d.report.StateCIDs = heads, states
			if final == len(nodes) && same(heads) && same(states) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return api.Errorf(api.CodeVerify, "after %v the live peers do not agree on the result%s%s", d.limits.agree, d.stateOf(nodes...), d.tails())
		case <-tick.C:
		}
	}
}

// same reports whether all values are one, and there is one.
func same(m map[string]string) bool {
	var values []string
	for _, v := range m {
		values = append(values, v)
	}
	return len(values) > 0 && values[0] != "" && !slices.ContainsFunc(values, func(v string) bool { return v != values[0] })
}

// ledger reads from the decided rounds what is reported.
func (d *demo) ledger(ctx context.Context, x, joiner *node) error {
	rounds, err := x.client.AllRounds(ctx, d.report.Run)
	if err != nil {
		return d.blame("read the ledger", err, x)
	}
	seated := false // the latecomer has a seat in the round
	for _, r := range rounds {
		if seated && d.report.JoinedAtRound == 0 && len(r.Contributions) > 0 {
			d.report.JoinedAtRound, d.report.Ledger.JoinedAt = r.TrainedRounds, r.Round
		}
		seated = seated || slices.Contains(r.Joined, joiner.peer)
		for _, c := range r.Contributions {
			d.report.Bytes.Deltas += c.DeltaBytes
			if c.Peer == joiner.peer {
				d.report.JoinerDeltas++
			}
		}
		if r.Certified {
			d.report.CertifiedRounds++
		}
		d.report.Rounds, d.report.Ledger.Last = r.TrainedRounds, r.Round
	}
	d.o.Screen.Say("")
	d.o.Screen.Say("agreed     %d live peers have the same state and head", len(d.report.StateCIDs))
	for _, x := range d.ready() {
		d.o.Screen.Say("  %s   %s", x.name, d.report.StateCIDs[x.peer])
	}
	return nil
}
