package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/shard"
)

// PullShards implements api.Backend.
func (n *node) PullShards(ctx context.Context, req api.PullShardsRequest, progress api.ProgressFunc) (api.CacheEntry, error) {
	root, err := parseID("model or data set", req.ID)
	if err != nil {
		return api.CacheEntry{}, err
	}
	var from []peer.ID
	for _, a := range req.Peers {
		info, err := peer.AddrInfoFromString(a)
		if err != nil {
			return api.CacheEntry{}, api.Errorf(api.CodeUsage, "%q is not the address of a peer: %v", a, err).
				WithHint("it ends in /p2p/ and the peer ID")
		}
		from = append(from, info.ID)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, a := range req.Peers {
		wg.Go(func() { n.runs.connect(ctx, a) })
	}
	if err := n.waitForHours(ctx, root, from, req.Layers, progress); err != nil {
		return api.CacheEntry{}, pullError(root, err)
	}
	if err := n.pullRoot(ctx, root, from, req.Layers, progress); err != nil {
		return api.CacheEntry{}, pullError(root, err)
	}
	if req.Layers == nil {
		err = n.listFound(ctx, root, "pulled "+time.Now().UTC().Format("2006-01-02"))
	} else {
		layers := shard.LayerRange{First: req.Layers.First, Last: req.Layers.Last}
		err = n.store.KeepLayers(root, shardsKind, fmt.Sprintf("layers %d to %d", layers.First, layers.Last), layers, time.Now())
	}
	if err != nil {
		return api.CacheEntry{}, err
	}
	cache, err := n.Cache(ctx)
	for _, e := range cache.Entries {
		if e.ID == root.String() {
			return e, err
		}
	}
	return api.CacheEntry{}, errors.Join(err, api.Errorf(api.CodeNotFound, "%s is gone again", root))
}

// waitForHours waits for the hours of network.schedule, unless all that is asked for
// is here already, or a peer that was named is on the LAN.
func (n *node) waitForHours(ctx context.Context, root cid.Cid, from []peer.ID, layers *api.Layers, progress api.ProgressFunc) error {
	missing, _, _, err := n.store.Missing(ctx, root)
	if err != nil || len(missing) == 0 {
		return err
	}
	if layers != nil {
		sel, err := n.store.SelectLayers(ctx, root, layers.First, layers.Last)
		if err == nil && sel.Final && !slices.ContainsFunc(sel.Leaves, func(c cid.Cid) bool { return slices.Contains(missing, c) }) {
			return nil
		}
	}
	return n.traffic.WaitOpen(ctx, func(until time.Time) {
		progress(api.Progress{Phase: "pull", Unit: api.UnitBytes, Text: "waits for the hours of network.schedule, until " + until.Format("Mon 15:04")})
	}, func() bool { return slices.ContainsFunc(from, n.host.Near) })
}

func (n *node) pullRoot(ctx context.Context, root cid.Cid, from []peer.ID, layers *api.Layers, progress api.ProgressFunc) error {
	o := pull.FetchOptions{
		Providers: from, Progress: bytesOf("pull", progress),
		Before: func(missing, _ int64) error { return n.makeRoom(ctx, missing) },
	}
	progress(api.Progress{Phase: "pull", Unit: api.UnitBytes, Text: "looking for peers that have it"})
	if layers != nil {
		return n.pullLayers(ctx, root, o, *layers)
	}
	o.Before = func(missing, _ int64) error {
		if err := n.makeRoom(ctx, missing); err != nil {
			return err
		}
		// What is a model has its name for this before its leaves are here.
		dir, limit := n.folderOfModel(ctx, root)
		if dir == "" {
			return nil
		}
		return n.store.Grow(ctx, root, dir, limit)
	}
	return n.puller.Fetch(ctx, root, o)
}

// pullLayers pulls what some layers of a model need: first the headers of its
// weights, which tell where they are.
func (n *node) pullLayers(ctx context.Context, root cid.Cid, o pull.FetchOptions, layers api.Layers) error {
	o.Leaves = map[cid.Cid]bool{}
	if err := n.puller.Fetch(ctx, root, o); err != nil { // the inner nodes
		return err
	}
	for {
		sel, err := n.store.SelectLayers(ctx, root, layers.First, layers.Last)
		if err != nil {
			return err
		}
		for _, c := range sel.Leaves {
			o.Leaves[c] = true
		}
		if err := n.puller.Fetch(ctx, root, o); err != nil {
			return err
		}
		if sel.Final {
			return nil
		}
	}
}

// pullError says what to do about a pull that ended.
func pullError(root cid.Cid, err error) error {
	switch {
	case errors.Is(err, shard.ErrInvalid), errors.Is(err, pull.ErrTooLarge):
		return api.Errorf(api.CodeRefused, "pull: %w", err).WithHint("%s is nothing that this version stores", api.ShortID(root.String()))
	case errors.Is(err, traffic.ErrQuota):
		return api.Errorf(api.CodeRefused, "pull: %w", err).WithHint("raise the monthly quota")
	}
	return fmt.Errorf("pull: %w", err)
}
