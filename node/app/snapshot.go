package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// The files of a snapshot, which is a folder.
const (
	snapshotKind        = "snapshot"
	snapshotManifest    = "manifest"
	snapshotRecord      = "record"
	snapshotCertificate = "certificate" // not there if the record is provisional
	snapshotState       = "state"
	// snapshotContributors says whose tokens the state was trained on; not there if
	// the node that made it lacked records.
	snapshotContributors = "contributors"
)

// Snapshot implements api.Backend. The state lies in the store once: its blocks
// are those that the run has.
func (n *node) Snapshot(ctx context.Context, req api.SnapshotRequest, progress api.ProgressFunc) (api.Snapshot, error) {
	p, err := n.runs.opened(req.Run)
	if err != nil {
		return api.Snapshot{}, err
	}
	if req.Best {
		if req.Round, err = bestRound(p); err != nil {
			return api.Snapshot{}, err
		}
	}
	progress(api.Progress{Phase: "state"})
	s, err := p.StateAt(ctx, req.Round, cid.Undef)
	if err != nil {
		return api.Snapshot{}, err
	}
	r, ok := p.(interface {
		Link(cid.Cid) (round.Link, bool)
	})
	if !ok {
		return api.Snapshot{}, api.Errorf(api.CodeConflict, "run %s is not open on this node", api.ShortID(req.Run))
	}
	k, ok := r.Link(s.Head)
	if !ok {
		return api.Snapshot{}, api.Errorf(api.CodeNotFound, "record %s is not in the chain any more", s.Head)
	}
	contributors, err := contributorsOf(p, s.Round)
	if err != nil {
		return api.Snapshot{}, err
	}
	v, err := n.writeSnapshot(ctx, p.Manifest(), k, s, contributors)
	if err != nil {
		return v, fmt.Errorf("snapshot of run %s: %w", req.Run, err)
	}
	v.Run = req.Run
	return v, nil
}

func (n *node) writeSnapshot(ctx context.Context, m *run.Manifest, k round.Link, s runner.Snapshot, contributors []byte) (api.Snapshot, error) {
	v := api.Snapshot{Name: m.Name, Round: s.Round, Head: s.Head.String(), State: s.ID.String()}
	v.Quorum, _ = round.Quorum(round.Witnesses(k.Record.Seats))
	temp, err := os.MkdirTemp(n.dir, importTemp)
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(temp)
	files := map[string]func() ([]byte, error){
		snapshotManifest: m.Encode, snapshotRecord: k.Record.Encode,
		snapshotState: func() ([]byte, error) { return s.State.Marshal(), nil },
	}
	if c := k.Certificate; c != nil {
		v.Votes, files[snapshotCertificate] = len(c.Votes), c.Encode
	}
	if contributors != nil {
		files[snapshotContributors] = func() ([]byte, error) { return contributors, nil }
	}
	for name, encode := range files {
		b, err := encode()
		if err == nil {
			err = os.WriteFile(filepath.Join(temp, name), b, 0o644)
		}
		if err != nil {
			return v, err
		}
		v.Bytes += int64(len(b))
	}
	i, err := n.store.ImportDir(ctx, temp, shard.ImportOptions{})
	if err != nil {
		return v, importError(ctx, api.CodeData, err)
	}
	v.ID = i.Root.String()
	name := fmt.Sprintf("%s, round %d", m.Name, s.Round)
	if err := errors.Join(n.store.Keep(i.Root, snapshotKind, name, time.Now()), n.store.Pin(i.Root, true)); err != nil {
		return v, err
	}
	return v, n.host.Provide(ctx, i.Root)
}

// openedSnapshot is a snapshot that was read.
type openedSnapshot struct {
	id       string // of the run
	manifest *run.Manifest
	record   *msg.Record
	votes    int // 0: provisional
	// contributors is what who made it says; nil: nothing.
	contributors []contributor
	runner.Snapshot
}

// openSnapshot brings a snapshot here and checks all that can be checked without
// the records before: that record, state and votes belong together and to the
// run. That the seats are those of the run, only its records tell.
func (n *node) openSnapshot(ctx context.Context, id string, progress api.ProgressFunc) (*openedSnapshot, error) {
	root, err := parseID("snapshot", id)
	if err != nil {
		return nil, err
	}
	if missing, _, _, err := n.store.Missing(ctx, root); err != nil || len(missing) > 0 {
		if err := n.pullSnapshot(ctx, root, progress); err != nil {
			return nil, err
		}
		if err := n.store.Keep(root, snapshotKind, "pulled "+time.Now().UTC().Format("2006-01-02"), time.Now()); err != nil {
			return nil, err
		}
	}
	s, err := n.readSnapshot(ctx, root)
	if err != nil {
		return nil, api.Errorf(api.CodeData, "%s is no snapshot of a run: %w", id, err).
			WithHint("\"moot run snapshot\" makes one, and prints its CID")
	}
	return s, nil
}

// snapshotPatience is for how long somebody who has a snapshot is looked for. A
// pull for a run goes on for as long as the run; here somebody waits.
const snapshotPatience = 2 * time.Minute

var errNobody = errors.New("nobody who has it was found")

// pullSnapshot brings a snapshot: its folder first, which tells whether it is one,
// so that nothing large is pulled that is none.
func (n *node) pullSnapshot(ctx context.Context, root cid.Cid, progress api.ProgressFunc) error {
	search, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(n.snapshotPatience, func() { cancel(errNobody) })
	defer timer.Stop()
	progress(api.Progress{Phase: "pull", Unit: api.UnitBytes, Text: "looking for peers that have it"})
	err := n.puller.Fetch(search, root, pull.FetchOptions{Leaves: map[cid.Cid]bool{}})
	if errors.Is(context.Cause(search), errNobody) {
		return api.Errorf(api.CodeNet, "pull snapshot %s: %w within %s", api.ShortID(root.String()), errNobody, n.snapshotPatience).
			WithHint("see whether the CID is complete, and whether a node that has it is running and can be reached; \"moot peer list\" has those that this one knows")
	}
	if err != nil {
		return pullError(root, err)
	}
	timer.Stop()
	for _, name := range []string{snapshotManifest, snapshotRecord, snapshotState} {
		if _, err := n.store.Lookup(ctx, root, name); err != nil {
			return api.Errorf(api.CodeData, "%s is no snapshot of a run: it has no file %s", root, name).
				WithHint("\"moot run snapshot\" makes one, and prints its CID")
		}
	}
	if err := n.pullRoot(ctx, root, nil, nil, progress); err != nil {
		return pullError(root, err)
	}
	return nil
}

func (n *node) readSnapshot(ctx context.Context, root cid.Cid) (*openedSnapshot, error) {
	read := func(name string, limit int64) ([]byte, error) {
		e, err := n.store.Lookup(ctx, root, name)
		if err != nil {
			return nil, err
		}
		return n.store.ReadBytes(ctx, e.CID, limit)
	}
	s := &openedSnapshot{}
	b, err := read(snapshotManifest, run.MaxManifestBytes)
	if err != nil {
		return nil, err
	}
	if s.manifest, err = run.Decode(b); err != nil {
		return nil, err
	}
	id, err := s.manifest.ID()
	if err != nil {
		return nil, err
	}
	s.id = id.String()
	if b, err = read(snapshotRecord, msg.MaxRecordBytes); err != nil {
		return nil, err
	}
	if s.record, err = msg.DecodeRecord(b); err != nil {
		return nil, err
	}
	if !s.record.Run.Equals(id) {
		return nil, fmt.Errorf("its record is of run %s, its manifest of %s", s.record.Run, id)
	}
	s.Head, s.Round = msg.RawCID(b), uint64(s.record.Round)
	switch b, err = read(snapshotCertificate, msg.MaxRecordBytes); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		c, err := msg.DecodeCertificate(b)
		if err == nil {
			err = round.VerifyCertificate(c, s.Head, s.record)
		}
		if err != nil {
			return nil, err
		}
		s.votes = len(c.Votes)
	}
	switch b, err = read(snapshotContributors, maxContributorsBytes); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if s.contributors, err = readContributors(b); err != nil {
			return nil, err
		}
	}
	layout, err := s.manifest.Layout()
	if err != nil {
		return nil, err
	}
	if b, err = read(snapshotState, fold.StateBytes(layout)); err != nil {
		return nil, err
	}
	if s.State, err = fold.UnmarshalState(layout, b); err != nil {
		return nil, err
	}
	if s.ID = s.State.CID(); !s.ID.Equals(s.record.State) {
		return nil, fmt.Errorf("its state is %s, its record says %s", s.ID, s.record.State)
	}
	return s, nil
}

// history is what a snapshot tells of the rounds before it, as if they were one.
func (s *openedSnapshot) history() []api.Round {
	r := api.Round{Round: s.Round, TrainedRounds: s.record.TrainedRounds, Tokens: s.record.Tokens}
	for _, c := range s.contributors {
		r.Contributions = append(r.Contributions, api.Contribution{Peer: c.Peer, Tokens: c.Tokens})
	}
	return []api.Round{r}
}

// contributor is a peer on whose tokens a state was trained.
type contributor struct {
	Peer   string `json:"peer"`
	Tokens uint64 `json:"tokens"`
}

// maxContributorsBytes bounds the file that lists them.
const maxContributorsBytes = 8 << 20

// contributorsOf lists whose tokens were included until a round, by peer: the same
// bytes for everybody who has all records. It is nil for who has not.
func contributorsOf(p participant, last uint64) ([]byte, error) {
	if p.Summary().RecordsFrom > 0 {
		return nil, nil
	}
	rounds, err := roundsUntil(p, last)
	if err != nil {
		return nil, err
	}
	tokens := tokensByPeer(rounds)
	list := []contributor{}
	for _, id := range slices.Sorted(maps.Keys(tokens)) {
		list = append(list, contributor{id, tokens[id]})
	}
	b, err := json.Marshal(list)
	if err != nil || len(b) > maxContributorsBytes {
		return nil, err
	}
	return b, nil
}

// readContributors reads what a stranger wrote.
func readContributors(b []byte) ([]contributor, error) {
	var list []contributor
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("its list of contributors: %w", err)
	}
	for _, c := range list {
		if _, err := peer.Decode(c.Peer); err != nil {
			return nil, fmt.Errorf("its list of contributors names %.60q: %w", c.Peer, err)
		}
	}
	return list, nil
}
