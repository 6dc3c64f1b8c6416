package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newCacheList(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List what the node holds, and what it takes of the disk",
		Long: `Lists models, data sets and shards, those used longest ago first: they go first
when room is needed. What is pinned, or in use by a run, stays. SIZE is what it
takes of the disk in the data folder; what lies in a folder of yours takes nothing.`,
		Example: `  moot cache ls`,
		Args:    needs(false),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runCacheList(cmd.Context(), e) },
	}
}

func runCacheList(ctx context.Context, e *env) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	cache, err := c.Cache(ctx)
	if err != nil {
		return err
	}
	return e.answer(cache, func(p *page) {
		if len(cache.Entries) > 0 {
			p.entries(cache.Entries)
		}
		limit := ""
		if cache.MaxBytes > 0 {
			limit = " of at most " + size(cache.MaxBytes)
		}
		p.line("%s used%s, %s free on the disk, %s stay free", size(cache.Bytes), limit, size(cache.FreeBytes), size(cache.MinFreeBytes))
	})
}

// entries writes a table of what a node holds.
func (p *page) entries(l []api.CacheEntry) {
	rows := make([][]string, 0, len(l))
	for _, x := range l {
		var stays []string
		if x.InUse {
			stays = append(stays, "in use")
		}
		if x.Pinned {
			stays = append(stays, "pinned")
		}
		rows = append(rows, []string{
			api.ShortID(x.ID), x.Kind, clip(x.Name, 24), size(x.Bytes), complete(x), x.Used.Format(time.DateOnly), strings.Join(stays, ", "), place(x.Dir, x.InPlace),
		})
	}
	p.table([]string{"ID", "KIND", "NAME", ">SIZE", ">HERE", "USED", "STAYS", "WHERE"}, rows)
}

// complete says how much of an entry is here.
func complete(x api.CacheEntry) string {
	switch {
	case x.Total == 0:
		return "-"
	case x.Have >= x.Total:
		return "all"
	}
	// Not 100 % before it is all.
	return strconv.FormatInt(min(99, x.Have/max(x.Total/100, 1)), 10) + " %"
}

// place says where something lies.
func place(dir string, inPlace bool) string {
	if inPlace {
		return dir
	}
	return "data folder"
}

func newCachePrune(e *env) *cobra.Command {
	var req api.PruneRequest
	var bytes string
	cmd := &cobra.Command{
		Use:   "prune [ID...]",
		Short: "Remove what is not needed from the node",
		Long: `Removes what the IDs name, or with --size what was used longest ago, until so much is
free, or with --all all that is neither pinned nor in use by a run. Folders of yours
are not touched: a model that was imported in place is only forgotten, and only if
its ID is given.`,
		Example: `  moot cache prune --size 20GB --dry-run
  moot cache prune --all`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.IDs = args
			var err error
			if req.Bytes, err = parseSize("--size", bytes); err != nil {
				return err
			}
			if len(args) == 0 && req.Bytes == 0 && !req.All {
				return api.Errorf(api.CodeUsage, "nothing says what to remove").WithHint("give IDs, --size or --all; --dry-run only shows what would go")
			}
			return runCachePrune(cmd.Context(), e, req)
		},
	}
	cmd.Flags().StringVar(&bytes, "size", "", "remove what was used longest ago until so `much` is free, such as 20GB")
	cmd.Flags().BoolVar(&req.All, "all", false, "remove all that may be")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "only show what would be removed")
	return cmd
}

func runCachePrune(ctx context.Context, e *env, req api.PruneRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	pruned, err := c.PruneCache(ctx, req)
	if err != nil {
		return err
	}
	return e.answer(pruned, func(p *page) {
		if len(pruned.Removed) > 0 {
			p.entries(pruned.Removed)
		}
		verb := "freed"
		if pruned.DryRun {
			verb = "would be freed"
		}
		p.line("%s %s", size(pruned.Bytes), verb)
	})
}

// parseSize reads a number of bytes, such as 500MB or 1.5GiB.
func parseSize(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	number := strings.TrimRight(s, "kKMGTiB ")
	unit := strings.ToUpper(strings.TrimSpace(s[len(number):]))
	scale, ok := map[string]float64{
		"": 1, "B": 1, "K": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9, "T": 1e12, "TB": 1e12,
		"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
	}[unit]
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(v*scale >= 1) || v*scale > 1<<60 {
		return 0, api.Errorf(api.CodeUsage, "%s is %q, must be a number of bytes such as 500MB or 20GB", flag, clip(s, 30))
	}
	return int64(v * scale), nil
}

func newCachePin(e *env, pinned bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "pin ID",
		Short:   "Keep a model or data set from being pruned",
		Example: `  moot cache pin last`,
		Args:    needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCachePin(cmd.Context(), e, api.PinRequest{ID: args[0], Pinned: pinned})
		},
	}
	if !pinned {
		cmd.Use, cmd.Short, cmd.Example = "unpin ID", "Let a model or data set be pruned again", `  moot cache unpin last`
	}
	return cmd
}

func runCachePin(ctx context.Context, e *env, req api.PinRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	entry, err := c.PinCache(ctx, req)
	if err != nil {
		return err
	}
	return e.answer(entry, func(p *page) { p.entries([]api.CacheEntry{entry}) })
}
