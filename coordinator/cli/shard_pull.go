package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newShardPull(e *env) *cobra.Command {
	var req api.PullShardsRequest
	var layers string
	cmd := &cobra.Command{
		Use:   "pull ID",
		Short: "Get a model or data set from peers",
		Long: `Pulls a model, a data set or another folder by its ID from all peers that have it, and
serves it from then on. What is here already is not asked for again, so that a pull that
was interrupted goes on where it was. With --peer any IPFS node is asked, such as kubo.
It begins in the hours of network.schedule, unless --peer names a node on the LAN.

With --layers only what some layers of a model need is pulled: those layers, and what
is in none, such as the embedding and the tokenizer.`,
		Example: `  moot shard pull bafybeidhz5o3vmlugmjgfghm7vshjxjcva6zfjfvyzemhe3p6bfxvxbh3u
  moot shard pull bafybeidhz5o3vmlugmjgfghm7vshjxjcva6zfjfvyzemhe3p6bfxvxbh3u --layers 0-3 \
    --peer /ip4/192.0.2.7/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			req.ID = args[0]
			if layers != "" {
				if req.Layers, err = parseLayers(layers); err != nil {
					return err
				}
			}
			return runShardPull(cmd.Context(), e, req)
		},
	}
	cmd.Flags().StringSliceVar(&req.Peers, "peer", nil, "`address` of a node that has it (may be given again)")
	cmd.Flags().StringVar(&layers, "layers", "", "pull only these of a model: `first-last`, counted from 0")
	return cmd
}

// parseLayers reads "3" or "0-3".
func parseLayers(s string) (*api.Layers, error) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		last = first
	}
	a, err := strconv.Atoi(first)
	b, err2 := strconv.Atoi(last)
	if err != nil || err2 != nil || a < 0 || b < a {
		return nil, api.Errorf(api.CodeUsage, "--layers is %q, must be like 0-3", s)
	}
	return &api.Layers{First: a, Last: b}, nil
}

func runShardPull(ctx context.Context, e *env, req api.PullShardsRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	x, err := c.PullShards(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.answer(x, func(p *page) {
		p.field(x.Kind, "%s", x.ID)
		p.field("name", "%s", x.Name)
		have := size(x.Have)
		if x.Have < x.Total {
			have = fmt.Sprintf("%s of %s", size(x.Have), size(x.Total))
		}
		p.field("size", "%s", have)
		if x.Dir != "" {
			p.field("where", "%s", place(x.Dir, x.InPlace))
		}
	})
}
