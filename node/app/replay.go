package app

import (
	"context"
	"errors"
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
	DataDir string // of a node whose daemon does not run
	// Run is an ID, its first characters, or "last".
	Run string
	// From is the round from whose state it begins; 0: genesis.
	From uint64
	// Progress, if not nil, is told of each record that was checked.
	Progress api.ProgressFunc
}

// Replay computes a run again from what is in a data folder and compares it
// with the records there. The error says why it could not begin; what it found
// wrong is in the result.
func Replay(ctx context.Context, o ReplayOptions) (api.Replay, error) {
	id, err := findRun(o.DataDir, o.Run)
	if err != nil {
		return api.Replay{}, err
	}
	store, err := openStore(o.DataDir)
	if err != nil {
		return api.Replay{}, err
	}
	defer func() { _ = store.Close() }() // it was only read
	b, err := store.ReadBytes(ctx, id, run.MaxManifestBytes)
	if err != nil {
		return api.Replay{}, api.Errorf(api.CodeNotFound, "the manifest of run %s is not in %s: %w", id, o.DataDir, err)
	}
	m, err := run.Decode(b)
	if err != nil {
		return api.Replay{}, notAManifest(id, err)
	}
	_, genesis, err := run.Genesis(m)
	if err != nil {
		return api.Replay{}, notAManifest(id, err)
	}
	l, err := ledger.Open(filepath.Join(o.DataDir, runsDir, id.String(), "ledger"), genesis)
	if err != nil {
		return api.Replay{}, api.Errorf(api.CodeIntegrity, "run %s: %w", id, err)
	}
	defer func() { _ = l.Close() }() // likewise

	began := time.Now()
	last := int64(l.Head().Record.Round)
	if o.From > uint64(last) {
		return api.Replay{}, api.Errorf(api.CodeUsage, "from round %d: the last round in %s is %d", o.From, o.DataDir, last)
	}
	ro := replay.Options{Manifest: m, Chain: records{l}, Store: store, From: msg.Round(o.From)}
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
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return api.Replay{}, ctx.Err()
	case errors.Is(err, replay.ErrMissing):
		out.Error = api.Errorf(api.CodeNotFound, "%w", err).
			WithHint("a node keeps what the last rounds need; replay in the folder of a node that has it, or begin later with --from")
	case errors.Is(err, replay.ErrMismatch):
		out.Error = api.Errorf(api.CodeIntegrity, "%w", err)
	default:
		out.Error = api.AsError(err)
	}
	return out, nil
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

// findRun finds a run in a data folder by its ID, the beginning of that, or
// "last".
func findRun(dataDir, given string) (cid.Cid, error) {
	entries, err := os.ReadDir(filepath.Join(dataDir, runsDir))
	if err != nil {
		return cid.Undef, api.Errorf(api.CodeNotFound, "%s is not the data folder of a node: %w", dataDir, err)
	}
	type found struct {
		id  string
		mod time.Time
	}
	var all []found
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && e.IsDir() && (given == "last" || given != "" && strings.HasPrefix(e.Name(), given)) {
			all = append(all, found{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b found) int { return a.mod.Compare(b.mod) })
	switch {
	case len(all) == 0:
		return cid.Undef, api.Errorf(api.CodeNotFound, "there is no run %q in %s", given, dataDir)
	case len(all) > 1 && given != "last":
		return cid.Undef, api.Errorf(api.CodeUsage, "%s is the beginning of %d runs", given, len(all)).WithHint("give more of it")
	}
	id, err := cid.Decode(all[len(all)-1].id)
	if err != nil {
		return cid.Undef, api.Errorf(api.CodeNotFound, "%s in %s is not the folder of a run: %w", all[len(all)-1].id, dataDir, err)
	}
	return id, nil
}
