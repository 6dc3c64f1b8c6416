package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/plain"
)

func newWatch(e *env) *cobra.Command {
	var lines bool
	cmd := &cobra.Command{
		Use:   "watch ID",
		Short: "Follow a run until it is final",
		Long: `Prints a line for each round of a run with its loss, for peers that come and go,
and for measurements on held-out rows. It ends when the run is final. With --json,
and where its output is no terminal, it prints every event as a line of JSON
(NDJSON); --text prints lines for people there too.`,
		Example: `  moot watch last
  moot watch last | jq -r 'select(.type == "eval.done") | .loss'
  moot watch last --text | tee run.log`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runWatch(cmd.Context(), e, args[0], e.json || !lines && !isTerminal(e.out))
		},
	}
	cmd.Flags().BoolVar(&lines, "text", false, "lines for people, also where the output is no terminal")
	return cmd
}

// isTerminal reports whether somebody reads along.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// errOver ends a watch in good order.
var errOver = errors.New("over")

// lastWords is how long a watch goes on after the last round, for what still
// is told of it.
const lastWords = 5 * time.Second

func runWatch(ctx context.Context, e *env, id string, json bool) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	d, err := c.Run(ctx, id)
	if err != nil {
		return err
	}
	w := &watcher{e: e, c: c, run: d.ID, json: json}
	if d.Final {
		return w.past(d)
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	w.stop = stop
	err = c.Watch(watching, client.WatchOptions{Run: d.ID, OnDown: w.down}, func(ev api.Event) error { return w.event(ctx, ev) })
	if err == nil && ctx.Err() == nil { // the last round came, and nothing after it
		if err = w.check(ctx); err == nil {
			err = errOver
		}
	}
	switch {
	case errors.Is(err, errOver):
		return nil
	case err == nil:
		return api.Errorf(api.CodeInterrupted, "interrupted").WithHint("the run goes on; see %q", "moot run show "+api.ShortID(d.ID))
	}
	return err
}

// timeWidth is how many columns the time takes at the beginning of a line.
const timeWidth = len(time.TimeOnly) + 2

// watcher prints what happens in a run.
type watcher struct {
	e   *env
	c   *client.Client
	run string
	// json prints all of each event, as a line of JSON.
	json bool

	stop    func() // ends the watch
	round   uint64 // the last that was printed
	commits int    // of the round that is going on
}

// past prints a run that is over, as its events would have.
func (w *watcher) past(d api.RunDetail) error {
	for _, r := range d.Rounds {
		if err := w.print(api.Event{Type: api.EventRound, Time: r.Decided, Run: d.ID, N: r.Round, Round: &r}); err != nil {
			return err
		}
	}
	return w.final(d)
}

// final prints that a run is over, as of its last round.
func (w *watcher) final(d api.RunDetail) error {
	at := d.Created
	if n := len(d.Rounds); n > 0 && !d.Rounds[n-1].Decided.IsZero() {
		at = d.Rounds[n-1].Decided
	}
	return w.print(api.Event{Type: api.EventRunState, Time: at, Run: d.ID, State: string(d.State), Why: d.Why})
}

func (w *watcher) down(err error) {
	w.e.board.around(func() { fmt.Fprintf(w.e.err, "moot: %s; trying again\n", plain.Clean(err.Error())) })
}

// event prints an event, and returns errOver after the last.
func (w *watcher) event(ctx context.Context, ev api.Event) error {
	if err := w.print(ev); err != nil {
		return err
	}
	switch ev.Type {
	case api.EventRunState:
		switch api.RunState(ev.State) {
		case api.RunFinal:
			return errOver
		case api.RunFailed, api.RunLeft:
			return w.check(ctx) // it may be an old event
		}
	case api.EventRound:
		if ev.Round != nil && ev.Round.Final {
			time.AfterFunc(lastWords, w.stop)
		}
	case api.EventGap:
		return w.check(ctx)
	}
	return nil
}

// check asks whether the run has ended.
func (w *watcher) check(ctx context.Context) error {
	d, err := w.c.Run(ctx, w.run)
	if err != nil {
		if api.AsError(err).Code == api.CodeDaemon {
			return nil // the connection is made again, and brings the same
		}
		return err
	}
	switch d.State {
	case api.RunFinal:
		if err := w.final(d); err != nil {
			return err
		}
		return errOver
	case api.RunFailed:
		return api.Errorf(api.CodeInternal, "this node cannot go on with run %s: %s", api.ShortID(d.ID), d.Why).
			WithHint("see the daemon's log")
	case api.RunLeft:
		return api.Errorf(api.CodeConflict, "this node left run %s", api.ShortID(d.ID)).WithHint("%q enters it again", "moot join "+d.ID)
	}
	return nil
}

// print prints an event: as JSON all of it, else what people want to know.
func (w *watcher) print(ev api.Event) error {
	var b []byte
	if w.json {
		var err error
		if b, err = api.Marshal(ev); err != nil {
			return api.Errorf(api.CodeInternal, "%w", err)
		}
	} else if text := w.text(ev); text != "" {
		at := "--:--:--" // of a round that was decided before this node came
		if !ev.Time.IsZero() {
			at = ev.Time.Local().Format(time.TimeOnly)
		}
		b = fmt.Appendf(nil, "%s  %s", at, plain.Clean(text))
	}
	w.status(ev)
	if b == nil {
		return nil
	}
	var err error
	w.e.board.around(func() { err = w.e.write(append(b, '\n')) })
	return err
}

func (w *watcher) text(ev api.Event) string {
	switch ev.Type {
	case api.EventRound:
		if ev.Round == nil || ev.Round.Round <= w.round {
			return "" // told already, before the daemon was restarted
		}
		w.round = ev.Round.Round
		if b := w.e.board; b.fd >= 0 && runes(roundText(*ev.Round)) > b.size()-timeWidth {
			short := *ev.Round
			short.Tempo = nil
			return roundText(short)
		}
		return roundText(*ev.Round)
	case api.EventEval:
		if ev.N == 0 {
			return fmt.Sprintf("eval   before training  loss %s on held-out rows", withPerplexity(ev.Loss))
		}
		return fmt.Sprintf("eval   round %d  loss %s on held-out rows", ev.N, withPerplexity(ev.Loss))
	case api.EventJoined:
		return fmt.Sprintf("peer   %s got a seat", api.ShortID(ev.Peer))
	case api.EventLeft:
		return fmt.Sprintf("peer   %s lost its seat", api.ShortID(ev.Peer))
	case api.EventRunState:
		return "run    " + withWhy(ev.State, ev.Why)
	case api.EventAlert:
		return "alert  " + ev.Text
	case api.EventGap:
		return `gap    some events were lost; "moot run show" has all rounds`
	}
	return ""
}

// status shows on a terminal what is going on right now.
func (w *watcher) status(ev api.Event) {
	b := w.e.board
	if b.fd < 0 {
		return // lines would say the same again and again
	}
	switch ev.Type {
	case api.EventPhase:
		w.commits = 0
		b.set("now", fmt.Sprintf("round %d: %s", ev.N, withWhy(ev.Phase, ev.Why)))
	case api.EventCommit:
		w.commits++
		b.set("now", fmt.Sprintf("round %d: %s from %s", ev.N, plain.Plural(w.commits, "delta"), api.ShortID(ev.Peer)))
	case api.EventPull:
		if ev.Progress != nil {
			b.set("now", progressText(*ev.Progress, true, true))
		}
	case api.EventRound:
		w.commits = 0
	}
}

func withWhy(state, why string) string {
	if why == "" {
		return state
	}
	return state + ": " + why
}

// roundText is a round in one line.
func roundText(r api.Round) string {
	text := fmt.Sprintf("round  %d  loss %s  eval %s  deltas %d/%d  %s  %s",
		r.Round, loss(r.TrainLoss), loss(r.EvalLoss), len(r.Contributions), r.Seats, agreement(r), lasted(r))
	if t := r.Tempo; t != nil {
		text += fmt.Sprintf("  next %s within %s", plain.Plural(uint64(t.NextSteps), "step"), seconds(t.NextDeadline))
	}
	return text
}
