package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

const orderLong = `

What the launcher of the run orders takes effect with the next round, for all who
take part. When the launcher has gone, peers with two thirds of the audited work
can order the same together: each gives this command. It need not stay connected:
the order is passed on by the others.`

// orderFlags are those of all orders.
type orderFlags struct {
	note string
	wait time.Duration
}

func (f *orderFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.note, "note", "", "why, as a `text` that everybody is shown")
	cmd.Flags().DurationVar(&f.wait, "wait", 2*time.Minute, "wait for `time` until it takes effect; 0 waits for nothing")
}

func newRunPause(e *env) *cobra.Command {
	return newOrder(e, api.OrderPause, "Let no round of a run train, until it is resumed",
		"Pauses a run for everybody. Peers stay members and may come and go."+orderLong+"\n\nTo pause only this machine, use \"mootd pause\".")
}

func newRunResume(e *env) *cobra.Command {
	return newOrder(e, api.OrderResume, "Let a paused run go on", "Lets a paused run go on."+orderLong)
}

func newRunStop(e *env) *cobra.Command {
	return newOrder(e, api.OrderStop, "End a run with its next round",
		"Ends a run with its next round, for ever. What it trained stays and can be exported."+orderLong+
			"\n\nTo leave a run that others go on with, use \"moot leave\".")
}

func newOrder(e *env, action, short, long string) *cobra.Command {
	var f orderFlags
	cmd := &cobra.Command{
		Use: action + " ID", Short: short, Long: long,
		Example: "  moot run " + action + " last\n  moot run " + action + " last --note \"new data on Monday\"",
		Args:    needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runOrder(cmd.Context(), e, api.OrderRequest{Run: args[0], Action: action, Note: f.note}, f.wait)
		},
	}
	f.register(cmd)
	return cmd
}

func newRunAmend(e *env) *cobra.Command {
	var (
		f   orderFlags
		req = api.OrderRequest{Action: api.OrderSet}
	)
	cmd := &cobra.Command{
		Use:   "amend ID",
		Short: "Change when a run is over, or its learning rate",
		Long: `Changes when a run is over, or its learning rate, while it goes on. A schedule
that ends with the run ends with the new number of rounds.` + orderLong,
		Example: `  moot run amend last --rounds 300
  moot run amend last --rate 0.5 --note "the loss jumps"`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Run, req.Note = args[0], f.note
			for name, zero := range map[string]bool{"rounds": req.Rounds == 0, "tokens": req.Tokens == 0, "rate": req.Rate == 0} {
				if zero && cmd.Flags().Changed(name) {
					return api.Errorf(api.CodeUsage, "--%s is 0, must be more", name).WithHint("%q pauses a run", "moot run pause "+args[0])
				}
			}
			return runOrder(cmd.Context(), e, req, f.wait)
		},
	}
	cmd.Flags().Uint64Var(&req.Rounds, "rounds", 0, "be over after this `number` of trained rounds")
	cmd.Flags().Uint64Var(&req.Tokens, "tokens", 0, "be over after this `number` of tokens")
	cmd.Flags().Float64Var(&req.Rate, "rate", 0, "multiply the learning rate of the run file by this `factor`")
	cmd.MarkFlagsOneRequired("rounds", "tokens", "rate")
	f.register(cmd)
	return cmd
}

// newRunExtend is the amendment that is asked for most.
func newRunExtend(e *env) *cobra.Command {
	var (
		f    orderFlags
		more uint64
	)
	cmd := &cobra.Command{
		Use:     "extend ID --by ROUNDS",
		Short:   "Let a run train for more rounds",
		Long:    "Lets a run train for more rounds than it would. It must not be over yet." + orderLong,
		Example: "  moot run extend last --by 50",
		Args:    needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if more == 0 {
				return api.Errorf(api.CodeUsage, "--by is 0, must be at least 1").WithHint("%q ends a run sooner", "moot run amend "+args[0]+" --rounds NUMBER")
			}
			c, err := e.open()
			if err != nil {
				return err
			}
			d, err := c.Run(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return runOrder(cmd.Context(), e, api.OrderRequest{Run: args[0], Action: api.OrderSet, Rounds: d.MaxRounds + more, Note: f.note}, f.wait)
		},
	}
	cmd.Flags().Uint64Var(&more, "by", 0, "this `number` of rounds more")
	_ = cmd.MarkFlagRequired("by") // it is there
	f.register(cmd)
	return cmd
}

// orderPoll is how often a run is looked at until an order took effect.
const orderPoll = 300 * time.Millisecond

func runOrder(ctx context.Context, e *env, req api.OrderRequest, wait time.Duration) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	before, err := c.Run(ctx, req.Run)
	if err != nil {
		return err
	}
	r, err := c.Order(ctx, req)
	if err != nil {
		return err
	}
	if r, err = effect(ctx, c, r, before.Run, wait); err != nil {
		return err
	}
	var pending []api.PendingOrder
	if ordersOf(r) == ordersOf(before.Run) {
		now, err := c.Run(ctx, r.ID)
		if err != nil {
			return err
		}
		r = now.Run
		if r.State != api.RunFinal {
			pending = now.Pending
		}
	}
	return e.answer(struct {
		api.Run
		Pending []api.PendingOrder `json:"pending_orders,omitempty"`
	}{r, pending}, func(p *page) {
		runFields(p, r)
		pendingOrders(p, pending)
		switch {
		case ordersOf(r) != ordersOf(before.Run):
		case r.State == api.RunFinal:
			p.line("")
			p.line("The order has no effect any more: the run is over.")
		default:
			p.line("")
			p.line("The order is given and has not taken effect yet: \"moot run show %s\" tells.", api.ShortID(r.ID))
			if before.Launcher != "" && before.Launcher != self(ctx, c) {
				p.line("This node did not launch the run: peers with two thirds of the audited work have to order the same.")
			}
		}
	})
}

// pendingOrders says which orders wait for others to give them, too.
func pendingOrders(p *page, list []api.PendingOrder) {
	for _, o := range list {
		p.field("waits", "%s", pendingText(o))
	}
}

// pendingText says who gave an order that has not taken effect, and what it lacks.
func pendingText(o api.PendingOrder) string {
	names := make([]string, len(o.Peers))
	for i, id := range o.Peers {
		names[i] = api.ShortID(id)
	}
	if most := 8; len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	text := "order of " + strings.Join(names, ", ") + ": " + orderWhat(o.Order)
	if o.Needed == 0 {
		return text + "; it takes effect with the next round"
	}
	return text + fmt.Sprintf("; they did %.1f %% of the audited work, %.1f %% are needed. It holds until another order takes effect", 100*o.Work, 100*o.Needed)
}

// self is this node's peer ID, "" if it cannot be told.
func self(ctx context.Context, c *client.Client) string {
	s, err := c.Status(ctx)
	if err != nil {
		return ""
	}
	return s.Peer
}

// effect waits until an order took effect, and returns the run as it is then.
func effect(ctx context.Context, c *client.Client, r, before api.Run, most time.Duration) (api.Run, error) {
	until := time.Now().Add(most)
	for ordersOf(r) == ordersOf(before) && r.State != api.RunFinal && time.Now().Before(until) {
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(orderPoll):
		}
		d, err := c.Run(ctx, r.ID)
		if err != nil {
			return r, err
		}
		r = d.Run
	}
	return r, nil
}

// ordersOf is the number of the last order that took effect.
func ordersOf(r api.Run) uint64 {
	if r.Course == nil {
		return 0
	}
	return r.Course.Orders
}
