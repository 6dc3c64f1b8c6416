package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/ledger"
	"github.com/moot-net/moot/node/internal/replay"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// ReplayOptions say what Replay does.
type ReplayOptions struct {
	// DataDir is the data folder of a node whose daemon does not run, or a
	// folder with the data folders of several.
	DataDir string
	// Run is an ID, its first characters, or "last".
	Run string
	// From is the round from whose state it begins; 0: genesis.
	From uint64
	// Progress, if not nil, is told of each record that was checked.
	Progress api.ProgressFunc
}

// Replay computes a run again from what is in a data folder and compares it
// with the records there. Of several folders it takes the records that are
// certified furthest, and deltas from where they are. The error says why it
// could not begin; what it found wrong is in the result.
func Replay(ctx context.Context, o ReplayOptions) (api.Replay, error) {
	dirs, err := nodeDirs(o.DataDir)
	if err != nil {
		return api.Replay{}, err
	}
	id, err := findRun(o.DataDir, dirs, o.Run)
	if err != nil {
		return api.Replay{}, err
	}
	a := new(archive)
	defer a.close()
	if err := a.open(ctx, dirs, id); err != nil {
		return api.Replay{}, err
	}
	began := time.Now()
	l := a.furthest()
	last := int64(l.Head().Record.Round)
	if o.From > uint64(last) {
		return api.Replay{}, api.Errorf(api.CodeUsage, "from round %d: the last round in %s is %d", o.From, o.DataDir, last)
	}
	if floor, below, ok := l.Gap(); ok && o.From <= uint64(floor) {
		return api.Replay{}, api.Errorf(api.CodeNotFound, "records of rounds %d to %d are not in %s yet: the node joined the run late, and brings them while it takes part", below+1, floor-1, o.DataDir).
			WithHint("let it run until \"moot run show\" lists no more missing records, replay in the folder of another node, or begin with --from %d", floor+1)
	}
	ro := replay.Options{Manifest: a.manifest, Chain: records{l}, Store: a, From: msg.Round(o.From)}
	if o.Progress != nil {
		ro.Progress = func(r replay.Round) {
			o.Progress(api.Progress{Phase: "replay", Done: int64(r.Round), Total: last, Unit: "rounds"})
		}
	}
	res, err := replay.Run(ctx, ro)
	out := api.Replay{
		Run: id.String(), OK: err == nil, From: o.From, Rounds: res.Rounds, Folded: res.Folded, Certified: res.Certified,
		Contributions: res.Contributions, Refused: res.Refused, Tokens: res.Tokens, Final: res.Final,
		Head: res.Head.String(), StateCID: res.State.String(), Seconds: time.Since(began).Seconds(),
	}
	if len(dirs) > 1 {
		out.Folders = a.folders(l)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return api.Replay{}, ctx.Err()
	case errors.Is(err, replay.ErrMissing):
		out.Missing = a.missing(ctx, l, msg.Round(o.From))
		also := ""
		if n := len(out.Missing); n > 1 {
			also = fmt.Sprintf("; %d more deltas are not there (--json lists them)", n-1)
		}
		out.Error = api.Errorf(api.CodeNotFound, "%w%s", err, also).
			WithHint("a node that came late, or was away, lacks deltas; replay in the folder of another, in a folder that has both, or begin later with --from")
	case errors.Is(err, replay.ErrMismatch):
		out.Error = api.Errorf(api.CodeIntegrity, "%w", err)
	default:
		out.Error = api.AsError(err)
	}
	return out, nil
}

// nodeDirs is dir, when that is the data folder of a node, or the data folders
// in it.
func nodeDirs(dir string) ([]string, error) {
	is := func(dir string) bool {
		info, err := os.Stat(filepath.Join(dir, storeDir))
		return err == nil && info.IsDir()
	}
	if is(dir) {
		return []string{dir}, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, api.Errorf(api.CodeNotFound, "%w", err)
	}
	var dirs []string
	for _, e := range entries {
		if sub := filepath.Join(dir, e.Name()); is(sub) {
			dirs = append(dirs, sub)
		}
	}
	if len(dirs) == 0 {
		return nil, api.Errorf(api.CodeNotFound, "%s is not the data folder of a node, and has none in it", dir).
			WithHint("name a folder with --data; \"mootd paths\" says where that of your own node is")
	}
	return dirs, nil
}

// archive is what the data folders of nodes have of a run.
type archive struct {
	manifest *run.Manifest
	stores   []*shard.Store
	ledgers  []*ledger.Ledger
	dirs     []string // of the ledgers
}

// open opens the folders; those without the run may have its deltas. What it
// opened is closed by close, also after an error.
func (a *archive) open(ctx context.Context, dirs []string, id cid.Cid) error {
	for _, dir := range dirs {
		s, err := openStore(dir)
		if err != nil {
			return err
		}
		a.stores = append(a.stores, s)
	}
	b, err := a.ReadBytes(ctx, id, run.MaxManifestBytes)
	if err != nil {
		return api.Errorf(api.CodeNotFound, "the manifest of run %s is not in %s: %w", id, strings.Join(dirs, ", "), err)
	}
	if a.manifest, err = run.Decode(b); err != nil {
		return notAManifest(id, err)
	}
	_, genesis, err := run.Genesis(a.manifest)
	if err != nil {
		return notAManifest(id, err)
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, runsDir, id.String(), "ledger")
		if _, err := os.Stat(path); err != nil {
			continue // it was not in the run
		}
		l, err := ledger.Open(path, genesis)
		if err != nil {
			return api.Errorf(api.CodeIntegrity, "run %s in %s: %w", id, dir, err)
		}
		a.ledgers, a.dirs = append(a.ledgers, l), append(a.dirs, dir)
	}
	if len(a.ledgers) == 0 {
		return api.Errorf(api.CodeNotFound, "there are no records of run %s in %s", id, strings.Join(dirs, ", "))
	}
	return nil
}

// close closes what was only read.
func (a *archive) close() {
	for _, l := range a.ledgers {
		_ = l.Close()
	}
	for _, s := range a.stores {
		_ = s.Close()
	}
}

// ReadBytes implements replay.Store.
func (a *archive) ReadBytes(ctx context.Context, root cid.Cid, limit int64) (b []byte, err error) {
	for _, s := range a.stores {
		if b, err = s.ReadBytes(ctx, root, limit); err == nil || ctx.Err() != nil {
			return b, err
		}
	}
	return nil, err
}

// furthest is the ledger to replay. Chains of honest nodes differ in their
// last records at most; what is certified is in all of them.
func (a *archive) furthest() *ledger.Ledger {
	return slices.MaxFunc(a.ledgers, func(x, y *ledger.Ledger) int {
		p, q := x.Head(), y.Head()
		return cmp.Or(
			cmp.Compare(certified(x), certified(y)),
			cmp.Compare(p.Record.Round, q.Record.Round),
			cmp.Compare(p.Record.Tokens, q.Record.Tokens),
			strings.Compare(q.ID.KeyString(), p.ID.KeyString()),
		)
	})
}

// certified counts the certified records of a ledger.
func certified(l *ledger.Ledger) uint64 {
	e, _ := l.Entry(l.Head().Record.Round)
	return e.Certified
}

// folders compares the ledgers with the one that is replayed.
func (a *archive) folders(with *ledger.Ledger) []api.ReplayFolder {
	list := make([]api.ReplayFolder, len(a.ledgers))
	for i, l := range a.ledgers {
		h := l.Head()
		e, ok := with.Entry(h.Record.Round)
		list[i] = api.ReplayFolder{
			Dir: a.dirs[i], Round: uint64(h.Record.Round), Head: h.ID.String(), Agrees: ok && e.ID.Equals(h.ID),
		}
	}
	return list
}

// missing lists the deltas after a round that are in no folder.
func (a *archive) missing(ctx context.Context, l *ledger.Ledger, from msg.Round) []string {
	var list []string
	for n := from + 1; ; n++ {
		k, _, ok := l.At(n)
		if !ok {
			return list
		}
		for _, c := range k.Record.Contributions {
			held := slices.ContainsFunc(a.stores, func(s *shard.Store) bool {
				has, err := s.Has(ctx, c.Delta)
				return has && err == nil
			})
			if !held {
				list = append(list, c.Delta.String())
			}
		}
	}
}

// records shows a ledger to a replay.
type records struct{ l *ledger.Ledger }

func (r records) Record(n msg.Round) (round.Link, bool) {
	k, _, ok := r.l.At(n)
	return k, ok
}

// openStore opens the store of a data folder for a command that runs instead of
// the daemon.
func openStore(dataDir string) (*shard.Store, error) {
	dir := filepath.Join(dataDir, storeDir)
	if _, err := os.Stat(dir); err != nil {
		return nil, api.Errorf(api.CodeNotFound, "%s is not the data folder of a node: %w", dataDir, err)
	}
	store, err := shard.Open(dir)
	switch {
	case errors.Is(err, shard.ErrLocked):
		return nil, api.Errorf(api.CodeConflict, "%s is in use by a daemon: %w", dataDir, err).
			WithHint("stop the daemon first, or name the folder of another node")
	case err != nil:
		return nil, api.Errorf(api.CodeIntegrity, "%w", err)
	}
	return store, nil
}

// findRun finds a run in the data folders in parent by its ID, the beginning of
// that, or "last".
func findRun(parent string, dirs []string, given string) (cid.Cid, error) {
	newest := make(map[string]time.Time) // that match, with when they changed
	var all []string
	for _, dir := range dirs {
		entries, _ := os.ReadDir(filepath.Join(dir, runsDir)) // a node without a run may have none
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || !e.IsDir() {
				continue
			}
			if !slices.Contains(all, e.Name()) {
				all = append(all, e.Name())
			}
			match := given == "last" || given != "" && strings.HasPrefix(e.Name(), given)
			if match && !newest[e.Name()].After(info.ModTime()) {
				newest[e.Name()] = info.ModTime()
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(newest), func(a, b string) int {
		return cmp.Or(newest[b].Compare(newest[a]), strings.Compare(a, b))
	})
	switch {
	case len(all) == 0:
		return cid.Undef, api.Errorf(api.CodeNotFound, "there is no run in %s", parent)
	case len(names) == 0:
		slices.Sort(all)
		return cid.Undef, api.Errorf(api.CodeNotFound, "there is no run %q in %s", given, parent).
			WithHint("it has %s", strings.Join(all, ", "))
	case len(names) > 1 && given != "last":
		return cid.Undef, api.Errorf(api.CodeUsage, "%s is the beginning of %d runs", given, len(names)).
			WithHint("give more of it: %s", strings.Join(names, ", "))
	}
	id, err := cid.Decode(names[0])
	if err != nil {
		return cid.Undef, api.Errorf(api.CodeNotFound, "%s in %s is not the folder of a run: %w", names[0], parent, err)
	}
	return id, nil
}
