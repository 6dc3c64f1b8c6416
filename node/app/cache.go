package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/shard"
)

// The kinds of roots in the store.
const (
	modelKind  = "model"
	dataKind   = "data"
	shardsKind = "shards"
)

// keepListed tells the store of everything that is in the catalogues.
func (n *node) keepListed() error {
	for _, m := range n.models.list() {
		if err := n.keep(m.ID, modelKind, m.Name, m.Imported); err != nil {
			return err
		}
	}
	for _, d := range n.datasets.list() {
		if err := n.keep(d.ID, dataKind, d.Name, d.Imported); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) keep(id, kind, name string, now time.Time) error {
	c, err := cid.Decode(id)
	if err != nil {
		return nil //nolint:nilerr // an entry that somebody wrote by hand keeps nothing
	}
	return n.store.Keep(c, kind, name, now)
}

// inUse are the models and data sets of the runs that this node is in. They
// count as used now.
func (n *node) inUse() ([]cid.Cid, error) {
	var out []cid.Cid
	now := time.Now()
	for _, m := range n.runs.joined() {
		for kind, c := range map[string]cid.Cid{modelKind: m.Model, dataKind: m.Dataset} {
			if err := errors.Join(n.store.Keep(c, kind, "", now), n.store.Touch(c, now)); err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

func entryOf(h *shard.Held, inUse []cid.Cid) api.CacheEntry {
	return api.CacheEntry{
		ID: h.CID.String(), Kind: h.Kind, Name: h.Name, Bytes: h.Bytes, Have: h.Have, Total: h.Total,
		Dir: h.Dir, InPlace: h.Dir != "" && !h.Ours, Pinned: h.Pinned, InUse: slices.Contains(inUse, h.CID), Added: h.Added, Used: h.Used,
	}
}

// Cache implements api.Backend.
func (n *node) Cache(ctx context.Context) (api.Cache, error) {
	inUse, err := n.inUse()
	if err != nil {
		return api.Cache{}, err
	}
	held, err := n.store.Held(ctx)
	if err != nil {
		return api.Cache{}, fmt.Errorf("list cache: %w", err)
	}
	c := api.Cache{MaxBytes: n.maxBytes.Load(), MinFreeBytes: n.minFree.Load()}
	for _, h := range held {
		c.Entries = append(c.Entries, entryOf(&h, inUse))
	}
	if _, c.Bytes, err = n.store.Usage(ctx); err != nil {
		return api.Cache{}, fmt.Errorf("list cache: %w", err)
	}
	c.FreeBytes, _ = freeBytes(n.dir) // 0 where it cannot be told
	return c, nil
}

// PruneCache implements api.Backend.
func (n *node) PruneCache(ctx context.Context, req api.PruneRequest) (api.Pruned, error) {
	inUse, err := n.inUse()
	if err != nil {
		return api.Pruned{}, err
	}
	var p shard.Pruned
	if len(req.IDs) > 0 {
		p, err = n.dropNamed(ctx, req, inUse)
	} else {
		p, err = n.store.Prune(ctx, shard.PruneOptions{Bytes: req.Bytes, All: req.All, DryRun: req.DryRun, Keep: inUse})
	}
	out := api.Pruned{Bytes: p.Bytes, DryRun: req.DryRun}
	for _, h := range p.Roots {
		out.Removed = append(out.Removed, entryOf(&h, inUse))
		if !req.DryRun {
			err = errors.Join(err, n.unlist(ctx, h.CID))
		}
	}
	return out, err
}

// dropNamed removes what was named, all or nothing.
func (n *node) dropNamed(ctx context.Context, req api.PruneRequest, inUse []cid.Cid) (p shard.Pruned, err error) {
	held, err := n.store.Held(ctx)
	if err != nil {
		return p, err
	}
	for _, h := range held {
		switch {
		case !slices.Contains(req.IDs, h.CID.String()):
			continue
		case slices.Contains(inUse, h.CID):
			return shard.Pruned{}, api.Errorf(api.CodeConflict, "%s %s is in use by a run", h.Kind, h.CID).WithHint("leave the run first: moot leave")
		case h.Pinned:
			return shard.Pruned{}, api.Errorf(api.CodeConflict, "%s %s is pinned", h.Kind, h.CID).WithHint("moot cache unpin %s", h.CID)
		}
		p.Roots = append(p.Roots, h)
		p.Bytes += h.Bytes
	}
	if req.DryRun {
		return p, nil
	}
	p.Bytes = 0
	for _, h := range p.Roots {
		freed, err := n.store.Drop(ctx, h.CID, inUse...)
		if err != nil {
			return shard.Pruned{}, err
		}
		p.Bytes += freed
	}
	return p, nil
}

// unlist takes what is not here any more out of the catalogues.
func (n *node) unlist(ctx context.Context, c cid.Cid) error {
	n.log.InfoContext(ctx, "removed from the cache", "component", "node", "shard", c)
	return errors.Join(n.models.remove(c.String()), n.datasets.remove(c.String()))
}

// PinCache implements api.Backend.
func (n *node) PinCache(ctx context.Context, req api.PinRequest) (api.CacheEntry, error) {
	c, err := parseID("model or data set", req.ID)
	if err != nil {
		return api.CacheEntry{}, err
	}
	switch err := n.store.Pin(c, req.Pinned); {
	case errors.Is(err, fs.ErrNotExist):
		return api.CacheEntry{}, api.Errorf(api.CodeNotFound, "%s is not here", c).WithHint(`"moot cache ls" lists what is`)
	case err != nil:
		return api.CacheEntry{}, err
	}
	cache, err := n.Cache(ctx)
	if err != nil {
		return api.CacheEntry{}, err
	}
	for _, e := range cache.Entries {
		if e.ID == req.ID {
			return e, nil
		}
	}
	return api.CacheEntry{}, api.Errorf(api.CodeNotFound, "%s is not here", c)
}

// makeRoom removes what was used longest ago until need bytes more fit under
// the cap of the cache and on the disk, or reports E_DISK. Where the free space
// cannot be told, there is enough.
func (n *node) makeRoom(ctx context.Context, need int64) error {
	if need <= 0 {
		return nil
	}
	over, err := n.lack(ctx, need)
	if err != nil || over <= 0 {
		return err
	}
	inUse, err := n.inUse()
	if err != nil {
		return err
	}
	p, err := n.store.Prune(ctx, shard.PruneOptions{Bytes: over, Keep: inUse, DryRun: true})
	if err != nil {
		return err
	}
	if p.Bytes < over { // nothing is removed in vain
		return n.noRoom(ctx, need)
	}
	p, err = n.store.Prune(ctx, shard.PruneOptions{Bytes: over, Keep: inUse})
	for _, h := range p.Roots {
		err = errors.Join(err, n.unlist(ctx, h.CID))
	}
	if err != nil {
		return err
	}
	if over, err = n.lack(ctx, need); err == nil && over > 0 {
		err = n.noRoom(ctx, need)
	}
	return err
}

// trimEvery is how often it is looked whether the cache is over its cap, which
// runs and a new configuration can bring about.
const trimEvery = 10 * time.Minute

// keepCap keeps the cache below its cap, as far as it can, until ctx is done.
func (n *node) keepCap(ctx context.Context) error {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	told := ""
	for {
		if _, err := n.uploads(ctx); err != nil { // which removes the old ones
			n.log.WarnContext(ctx, "old uploads were not removed", "component", "node", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		err := n.makeRoom(ctx, 1)
		if err != nil && ctx.Err() == nil && err.Error() != told {
			n.log.WarnContext(ctx, "cache is larger than it should be", "component", "node", "err", err)
			told = err.Error()
		}
	}
}

// lack is how many bytes too few there are for need more.
func (n *node) lack(ctx context.Context, need int64) (int64, error) {
	var over int64
	if free, err := freeBytes(n.dir); err == nil {
		over = need + n.minFree.Load() - free
	}
	if n.maxBytes.Load() > 0 {
		_, used, err := n.store.Usage(ctx)
		if err != nil {
			return 0, err
		}
		over = max(over, used+need-n.maxBytes.Load())
	}
	return over, nil
}

func (n *node) noRoom(ctx context.Context, need int64) error {
	if err := n.checkSpace(need); err != nil {
		return err
	}
	_, used, err := n.store.Usage(ctx)
	if err != nil {
		return err
	}
	return api.Errorf(api.CodeDisk, "%s more are needed, %s of at most %s are used, and the rest is pinned or in use",
		megabytes(need), megabytes(used), megabytes(n.maxBytes.Load())).WithHint("raise cache_max_mb, or see \"moot cache ls\" for what could be unpinned or left")
}

// ExportShards implements api.Backend.
func (n *node) ExportShards(ctx context.Context, req api.ExportShardsRequest, progress api.ProgressFunc) (a api.Archive, err error) {
	c, err := parseID("model or data set", req.ID)
	if err != nil {
		return api.Archive{}, err
	}
	if _, err := os.Lstat(req.File); err == nil {
		return api.Archive{}, api.Errorf(api.CodeConflict, "%s is there already", req.File).WithHint("give another name")
	}
	temp := req.File + ".partial"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return api.Archive{}, importError(ctx, api.CodeNotFound, fmt.Errorf("export %s: %w", c, err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	made, err := n.store.ExportCAR(ctx, c, f, bytesOf("export", progress))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		if errors.Is(err, shard.ErrIncomplete) {
			return api.Archive{}, api.Errorf(api.CodeNotFound, "%w", err).WithHint(`"moot shard verify --repair" pulls what is missing`)
		}
		return api.Archive{}, importError(ctx, api.CodeIntegrity, err)
	}
	if err := os.Rename(temp, req.File); err != nil {
		return api.Archive{}, err
	}
	return n.archive(ctx, req.File, &made)
}

// archive describes a CAR.
func (n *node) archive(ctx context.Context, file string, made *shard.CAR) (api.Archive, error) {
	a := api.Archive{File: file, Blocks: made.Blocks, Bytes: made.Bytes, Roots: []api.CacheEntry{}}
	cache, err := n.Cache(ctx)
	for _, e := range cache.Entries {
		if slices.ContainsFunc(made.Roots, func(c cid.Cid) bool { return c.String() == e.ID }) {
			a.Roots = append(a.Roots, e)
		}
	}
	return a, err
}

// ImportShards implements api.Backend.
func (n *node) ImportShards(ctx context.Context, req api.ImportShardsRequest, progress api.ProgressFunc) (api.Archive, error) {
	f, err := os.Open(req.File)
	if err != nil {
		return api.Archive{}, importError(ctx, api.CodeNotFound, fmt.Errorf("import shards: %w", err))
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return api.Archive{}, err
	}
	if err := n.makeRoom(ctx, fi.Size()); err != nil {
		return api.Archive{}, err
	}
	told := bytesOf("import", progress)
	made, err := n.store.ImportCAR(ctx, io.Reader(f), shard.ImportCAROptions{
		Folder:   func(root cid.Cid) (string, shard.FolderOptions) { return n.folderOfModel(ctx, root) },
		Progress: func(done int64) { told(done, fi.Size()) },
	})
	if err != nil {
		return api.Archive{}, importError(ctx, api.CodeIntegrity, fmt.Errorf("import %s: %w", req.File, err))
	}
	name := strings.TrimSuffix(filepath.Base(req.File), filepath.Ext(req.File))
	for _, root := range made.Roots {
		missing, _, _, err := n.store.Missing(ctx, root)
		switch {
		case err != nil:
			return api.Archive{}, importError(ctx, api.CodeIntegrity, fmt.Errorf("import %s: %w", req.File, err))
		case len(missing) > 0:
			return api.Archive{}, api.Errorf(api.CodeIntegrity, "import %s: it lacks %d blocks of %s, %s first", req.File, len(missing), root, missing[0]).
				WithHint("what it has is here; export it again where it is complete")
		}
		if err := n.listFound(ctx, root, name); err != nil {
			return api.Archive{}, err
		}
	}
	return n.archive(ctx, req.File, &made)
}

// folderOfModel says where a root becomes a folder, if it looks like a model.
func (n *node) folderOfModel(ctx context.Context, root cid.Cid) (string, shard.FolderOptions) {
	entries, err := n.store.ReadDir(ctx, root)
	if err != nil || !slices.ContainsFunc(entries, func(e shard.Entry) bool { return e.Name == "config.json" }) {
		return "", shard.FolderOptions{}
	}
	return n.modelPath(root), n.folderLimit()
}

// folderLimit bounds a folder by what fits on the disk.
func (n *node) folderLimit() shard.FolderOptions {
	free, err := freeBytes(n.dir)
	if err != nil {
		free = 1 << 50
	}
	return shard.FolderOptions{MaxBytes: max(free-spareBytes, 1)}
}

// listFound adds what came without a word what it is to the catalogues, or only
// to the cache.
func (n *node) listFound(ctx context.Context, root cid.Cid, name string) error {
	if _, err := n.store.CheckModel(ctx, root); err == nil {
		if err := n.listModel(ctx, root, name); err != nil {
			return err
		}
		return n.host.Provide(ctx, root)
	}
	kind := shardsKind
	if _, err := shard.OpenDataset(ctx, n.store, root); err == nil {
		kind = dataKind
		if err := n.listDataset(ctx, root, name); err != nil {
			return err
		}
	}
	if err := n.store.Keep(root, kind, name, time.Now()); err != nil {
		return err
	}
	return n.host.Provide(ctx, root)
}

// repairPatience is how long a repair waits for a peer that has what is broken.
const repairPatience = 30 * time.Second

// VerifyShards implements api.Backend.
func (n *node) VerifyShards(ctx context.Context, req api.VerifyRequest, progress api.ProgressFunc) (api.Verification, error) {
	var opts shard.CheckOptions
	if req.ID != "" {
		c, err := parseID("model or data set", req.ID)
		if err != nil {
			return api.Verification{}, err
		}
		opts.Roots = []cid.Cid{c}
	}
	opts.Progress = bytesOf("verify", progress)
	found, err := n.store.Check(ctx, opts)
	if err != nil {
		return api.Verification{}, importError(ctx, api.CodeIntegrity, err)
	}
	v := api.Verification{Blocks: found.Blocks, Bytes: found.Bytes, Damaged: found.Damaged}
	if req.Repair && len(found.Broken) > 0 {
		was := missingBlocks(found.Broken)
		var roots []cid.Cid
		for _, b := range found.Broken {
			if !slices.Contains(roots, b.Root) {
				roots = append(roots, b.Root)
			}
		}
		for _, root := range roots {
			if err := n.repair(ctx, root, progress); err != nil {
				return v, err
			}
		}
		opts = shard.CheckOptions{Roots: roots}
		if found, err = n.store.Check(ctx, opts); err != nil {
			return v, err
		}
		v.Repaired = max(was-missingBlocks(found.Broken), 0)
	}
	for _, b := range found.Broken {
		v.Broken = append(v.Broken, api.BrokenFile{ID: b.Root.String(), Path: b.Path, Disk: b.Disk, Missing: b.Missing, Bytes: b.Bytes})
	}
	return v, nil
}

func missingBlocks(l []shard.BrokenFile) (sum int) {
	for _, b := range l {
		sum += b.Missing
	}
	return sum
}

// repair pulls what is missing of a root, as long as somebody sends something.
// That nobody does is no error.
func (n *node) repair(ctx context.Context, root cid.Cid, progress api.ProgressFunc) error {
	layers := n.store.Layers(root)
	missing, _, total, err := n.store.Missing(ctx, root)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		fetching, cancel := context.WithCancel(ctx)
		defer cancel()
		patience := time.AfterFunc(repairPatience, cancel)
		defer patience.Stop()
		last := int64(-1)
		told := bytesOf("repair", progress)
		o := pull.FetchOptions{MaxBytes: total + total/256 + 1<<20, Progress: func(done, total int64) {
			if done > last {
				last = done
				patience.Reset(repairPatience)
			}
			told(done, total)
		}}
		if layers != nil {
			err = n.pullLayers(fetching, root, o, api.Layers{First: layers.First, Last: layers.Last})
		} else {
			err = n.puller.Fetch(fetching, root, o)
		}
		if err != nil {
			if ctx.Err() != nil || fetching.Err() == nil {
				return fmt.Errorf("repair %s: %w", root, err)
			}
			n.log.WarnContext(ctx, "nobody has what is broken", "component", "node", "shard", root)
			return nil
		}
	}
	if p := n.store.Place(root); layers == nil && p.Dir != "" && p.Ours && !p.Complete {
		if _, err := n.store.Folder(ctx, root, n.modelPath(root), n.folderLimit()); err != nil {
			return fmt.Errorf("repair %s: %w", root, err)
		}
	}
	return nil
}
