package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

func newJoin(e *env) *cobra.Command {
	var (
		peers  []string
		invite string
		check  bool
		link   float64
		yes    bool
	)
	cmd := &cobra.Command{
		Use:   "join ID",
		Short: "Help with a run",
		Long: `Makes the node a member of a run: it pulls the manifest, the model, the data and
the adapter from those who have them, asks for a seat, and trains. When this
command is interrupted, the node goes on; "moot leave" ends the membership.

Before anything of the model but its configuration is pulled, it says what the run
needs of memory, disk and network, and what is there. The exit code is 10 when
memory does not suffice, 11 when the disk does not, 16 when the run is not for this
node: then nothing is pulled and joined. With --check nothing is in any case.`,
		Example: `  moot join bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy
  moot join bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy \
    --peer /ip4/192.0.2.7/tcp/4717/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA
  moot join bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy --check --link 20`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check {
				return runJoinCheck(cmd.Context(), e, api.CheckRunRequest{Run: args[0], Peers: peers, LinkMbit: link})
			}
			if cmd.Flags().Changed("link") {
				return api.Errorf(api.CodeUsage, "--link is given without --check").WithHint("a node goes by upload_mbit and download_mbit in its configuration")
			}
			return runJoin(cmd.Context(), e, api.JoinRequest{Run: args[0], Peers: peers, Invite: invite}, yes)
		},
	}
	cmd.Flags().StringSliceVar(&peers, "peer", nil, "`address` of a node that is in the run (may be given again)")
	cmd.Flags().StringVar(&invite, "invite", "", "`invitation` that the launcher's \"moot invite\" printed")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask before it pulls")
	cmd.Flags().BoolVar(&check, "check", false, "only say whether the run fits this machine")
	cmd.Flags().Float64Var(&link, "link", 0, "speed of the link in `Mbit/s` (default: the limits in the configuration)")
	return cmd
}

// runJoinCheck says whether a run fits.
func runJoinCheck(ctx context.Context, e *env, req api.CheckRunRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	f, err := c.CheckRun(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	if err := e.answer(f, func(p *page) { fitPage(p, &f) }); err != nil {
		return err
	}
	err = f.Err()
	if err != nil && e.json {
		return reported{err}
	}
	return err
}

// tellFit shows what a run needs as soon as it is known.
func (e *env) tellFit(next api.ProgressFunc) api.ProgressFunc {
	return func(p api.Progress) {
		if p.Fit == nil {
			next(p)
			return
		}
		text := new(page)
		fitPage(text, p.Fit)
		e.board.around(func() { _, _ = e.err.Write(text.Bytes()) }) // nobody to tell
	}
}

func runJoin(ctx context.Context, e *env, req api.JoinRequest, yes bool) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	progress := e.tellFit(e.board.progress(""))
	if in := e.asks(); in != nil && !yes {
		if err := confirmJoin(ctx, e, c, req, in); err != nil {
			return err
		}
		tell := e.board.progress("")
		progress = func(p api.Progress) {
			if p.Fit == nil { // that was told
				tell(p)
			}
		}
	}
	r, err := c.Join(ctx, req, progress)
	if err != nil {
		return err
	}
	return e.answer(r, func(p *page) { runFields(p, r) })
}

// asks returns where answers of a person come from, nil where there is none.
func (e *env) asks() io.Reader {
	w, ok := e.err.(*os.File)
	if e.json || !ok || !term.IsTerminal(int(w.Fd())) || !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil
	}
	return os.Stdin
}

// confirmJoin says what a run needs and asks whether to go on.
func confirmJoin(ctx context.Context, e *env, c *client.Client, req api.JoinRequest, in io.Reader) error {
	f, err := c.CheckRun(ctx, api.CheckRunRequest{Run: req.Run, Peers: req.Peers}, e.board.progress(""))
	if err != nil {
		return err
	}
	e.board.close()
	text := new(page)
	fitPage(text, &f)
	_, _ = e.err.Write(text.Bytes()) // nobody to tell
	if err := f.Err(); err != nil {
		return err
	}
	fmt.Fprint(e.err, "Pull what is missing, and join? [y/N] ")
	answered := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n') // the end is a no
		answered <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return api.Errorf(api.CodeInterrupted, "interrupted; nothing was pulled and joined")
	case a := <-answered:
		if a == "y" || a == "yes" {
			return nil
		}
	}
	return api.Errorf(api.CodeInterrupted, "nothing was pulled and joined")
}
