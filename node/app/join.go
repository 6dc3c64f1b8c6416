package app

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// Launch implements api.Backend.
func (n *node) Launch(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Run, error) {
	req.Quick = true // nothing that takes time decides whether it is refused
	manifest, plan, err := n.plan(ctx, &req, time.Now(), progress)
	if err != nil {
		return api.Run{}, err
	}
	if len(plan.Refused) > 0 {
		return api.Run{}, &plan.Refused[0]
	}
	b, err := manifest.Encode()
	if err != nil {
		return api.Run{}, api.Errorf(api.CodeConfig, "%s: %w", req.Name, err)
	}
	id := msg.RawCID(b)
	if _, err := n.runs.find(id.String()); err == nil {
		return api.Run{}, api.Errorf(api.CodeConflict, "run %s is launched already", id)
	}
	stored, err := n.store.PutBytes(ctx, b)
	if err != nil {
		return api.Run{}, fmt.Errorf("store manifest of run %s: %w", id, err)
	}
	if stored != id {
		panic(fmt.Sprintf("bug: the manifest of run %s is stored as %s", id, stored))
	}
	progress(api.Progress{Phase: "start"})
	m, s, err := n.runs.join(ctx, id, nil)
	if err != nil {
		return api.Run{}, err
	}
	for _, c := range []cid.Cid{id, manifest.Model, manifest.Dataset} {
		if err := n.host.Provide(ctx, c); err != nil {
			return api.Run{}, fmt.Errorf("announce %s: %w", c, err)
		}
	}
	if _, err := n.waitOpen(ctx, m, s, progress); err != nil {
		return api.Run{}, err
	}
	n.log.InfoContext(ctx, "run launched", "component", "node", "run", api.ShortID(id.String()), "name", manifest.Name)
	return n.runs.view(m).summary(), nil
}

// Join implements api.Backend.
func (n *node) Join(ctx context.Context, req api.JoinRequest, progress api.ProgressFunc) (api.Run, error) {
	id, err := checkRunID(req.Run, req.Peers)
	if err != nil {
		return api.Run{}, err
	}
	was := false
	if m, err := n.runs.find(req.Run); err == nil {
		was = n.runs.view(m).file.Joined
	}
	if req.Invite != "" {
		if err := n.keepInvite(id, req.Invite); err != nil {
			return api.Run{}, err
		}
	}
	m, s, err := n.runs.join(ctx, id, req.Peers)
	if err != nil {
		return api.Run{}, err
	}
	p, err := n.waitOpen(ctx, m, s, progress)
	if r, ok := p.(interface {
		Renew(ctx context.Context) error
	}); ok && err == nil && req.Invite != "" {
		err = r.Renew(ctx)
	}
	if err == nil {
		err = p.Ready(ctx, progress)
	}
	if err != nil {
		if v := n.runs.view(m); v.err != nil {
			err = v.err
		}
		err = n.runs.fullDisk(err)
		if !was && isRefusal(err) { // it would be refused again
			_ = n.runs.leave(ctx, m) // then it is a member that cannot take part
		}
		return api.Run{}, fmt.Errorf("join run %s: %w", id, err)
	}
	return n.runs.view(m).summary(), nil
}

// checkRunID checks what names a run, and addresses of peers that are in it.
func checkRunID(given string, peers []string) (cid.Cid, error) {
	id, err := parseID("run", given)
	if err != nil {
		return cid.Undef, err
	}
	if !msg.IsRawCID(id) {
		return cid.Undef, api.Errorf(api.CodeUsage, "%s is not the ID of a run: it names a file or folder", id).
			WithHint("IDs of runs begin with bafkrei; the launcher's \"moot run list\" shows it")
	}
	for _, a := range peers {
		if _, err := peer.AddrInfoFromString(a); err != nil {
			return cid.Undef, api.Errorf(api.CodeUsage, "%q is not the address of a peer: %v", a, err).
				WithHint("mootd prints its addresses when it starts; they end in /p2p/ and the peer ID")
		}
	}
	return id, nil
}

// waitOpen waits until the manifest of a run is here.
func (n *node) waitOpen(ctx context.Context, m *member, s *stay, progress api.ProgressFunc) (participant, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told := false
	tellFit := func() {
		if f := s.fit.Load(); f != nil && !told {
			told = true
			progress(api.Progress{Phase: "fit", Text: string(f.Verdict), Fit: f})
		}
	}
	defer tellFit()
	fitted := s.fitted
	for {
		select {
		case <-fitted:
			fitted = nil
			tellFit()
		case <-s.opened:
			if p := n.runs.view(m).runner; p != nil {
				return p, nil
			}
			return nil, errStopping
		case <-s.done:
			if err := n.runs.view(m).err; err != nil {
				return nil, err
			}
			return nil, api.Errorf(api.CodeInterrupted, "the membership ended")
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
			text := fmt.Sprintf("waits for a peer that has the manifest; %d peers are connected", len(n.host.Peers()))
			progress(api.Progress{Phase: "manifest", Text: text})
		}
	}
}

// keepInvite puts an invitation where the run will look for it.
func (n *node) keepInvite(id cid.Cid, invite string) error {
	t, err := msg.ParseTicket(invite)
	if err != nil {
		return api.Errorf(api.CodeUsage, "%w", err).WithHint("ask whoever launched the run for the line that \"moot invite\" prints")
	}
	if v, _, err := msg.OpenAs[*msg.Invite](t.Invite); err != nil || v.Run != id {
		return api.Errorf(api.CodeUsage, "the invitation is to another run than %s", api.ShortID(id.String()))
	}
	dir := n.runs.folder(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep invitation: %w", err)
	}
	if err := writeFileDurably(filepath.Join(dir, runner.InviteFile), []byte(invite+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep invitation: %w", err)
	}
	return nil
}

// Invite implements api.Backend.
func (n *node) Invite(_ context.Context, req api.InviteRequest) (api.Invite, error) {
	m, err := n.runs.find(req.Run)
	if err != nil {
		return api.Invite{}, err
	}
	r, ok := n.runs.view(m).runner.(interface {
		Invite(rounds uint64) (api.Invite, error)
	})
	if !ok {
		return api.Invite{}, api.Errorf(api.CodeConflict, "run %s is not open on this node", api.ShortID(req.Run))
	}
	return r.Invite(req.Rounds)
}

// Order implements api.Backend.
func (n *node) Order(ctx context.Context, req api.OrderRequest) (api.Run, error) {
	m, err := n.runs.find(req.Run)
	if err != nil {
		return api.Run{}, err
	}
	r, ok := n.runs.view(m).runner.(interface {
		Order(ctx context.Context, o msg.Order) error
	})
	if !ok {
		return api.Run{}, api.Errorf(api.CodeConflict, "run %s is not open on this node", api.ShortID(req.Run))
	}
	o := msg.Order{MaxRounds: req.Rounds, MaxTokens: req.Tokens, RatePermille: uint32(math.Round(req.Rate * 1e3)), Note: req.Note}
	switch req.Action {
	case api.OrderPause:
		o.Action = msg.ActionPause
	case api.OrderResume:
		o.Action = msg.ActionResume
	case api.OrderStop:
		o.Action = msg.ActionStop
	default:
		o.Action = msg.ActionSet
	}
	if err := r.Order(ctx, o); err != nil {
		return api.Run{}, err
	}
	return n.runs.view(m).summary(), nil
}

// Leave implements api.Backend.
func (n *node) Leave(ctx context.Context, id string) (api.Run, error) {
	m, err := n.runs.find(id)
	if err != nil {
		return api.Run{}, err
	}
	if err := n.runs.leave(ctx, m); err != nil {
		return api.Run{}, err
	}
	return n.runs.view(m).summary(), nil
}

// Runs implements api.Backend.
func (n *node) Runs(context.Context) ([]api.Run, error) { return n.runs.list(), nil }

// Run implements api.Backend.
func (n *node) Run(_ context.Context, id string) (api.RunDetail, error) {
	m, err := n.runs.find(id)
	if err != nil {
		return api.RunDetail{}, err
	}
	v := n.runs.view(m)
	if v.runner == nil {
		return api.RunDetail{Run: v.summary()}, nil
	}
	d := v.runner.Detail()
	v.adjust(&d.Run)
	return d, nil
}

// Rounds implements api.Backend.
func (n *node) Rounds(_ context.Context, id string, from uint64, limit int) ([]api.Round, error) {
	p, err := n.runs.opened(id)
	if err != nil {
		return nil, err
	}
	return p.Rounds(from, limit)
}

// Online implements api.Backend.
func (n *node) Online(_ context.Context, id string) (api.Online, error) {
	p, err := n.runs.opened(id)
	if err != nil {
		return api.Online{}, err
	}
	return api.Online{Run: id, Samples: p.Online()}, nil
}

// Round implements api.Backend.
func (n *node) Round(_ context.Context, id string, number uint64) (api.Round, error) {
	p, err := n.runs.opened(id)
	if err != nil {
		return api.Round{}, err
	}
	rounds, err := p.Rounds(number, 1)
	if err != nil {
		return api.Round{}, err
	}
	if len(rounds) == 0 || rounds[0].Round != number {
		if s := p.Summary(); number > 0 && number < s.RecordsFrom {
			return api.Round{}, api.Errorf(api.CodeNotFound, "the record of round %d is not here yet: this node joined run %s late, has all from round %d on, and brings the older ones while it takes part", number, id, s.RecordsFrom).
				WithHint("ask again later, or another node")
		}
		return api.Round{}, api.Errorf(api.CodeNotFound, "run %s has no round %d", id, number).
			WithHint("its last round is %d", p.Summary().Round)
	}
	return rounds[0], nil
}

// localManifest reads the manifest of a run from the store, nil if it is not
// there.
func (r *runs) localManifest(ctx context.Context, id cid.Cid) (*run.Manifest, error) {
	if ok, err := r.node.store.Has(ctx, id); err != nil || !ok {
		return nil, err
	}
	b, err := r.node.store.ReadBytes(ctx, id, run.MaxManifestBytes)
	if errors.Is(err, shard.ErrIncomplete) {
		return nil, nil // it was damaged, and is gone
	}
	if err != nil {
		return nil, notAManifest(id, err)
	}
	m, err := run.Decode(b)
	if err != nil {
		return nil, notAManifest(id, err)
	}
	return m, nil
}

func notAManifest(id cid.Cid, err error) error {
	return api.Errorf(api.CodeRefused, "%s is not a run that this version can take part in: %w", id, err).
		WithHint("check the ID with whom you have it from; \"moot version\" shows the version")
}

// findManifest gets the manifest of a run from a peer, however long it takes.
func (r *runs) findManifest(ctx context.Context, m *member) (*run.Manifest, error) {
	manifest, err := r.localManifest(ctx, m.id)
	if manifest != nil || err != nil {
		return manifest, err
	}
	return r.fetchManifest(ctx, m.id, r.view(m).file.Peers)
}

// fetchManifest gets the manifest of a run from a peer, of which some addresses
// may be known.
func (r *runs) fetchManifest(ctx context.Context, root cid.Cid, addrs []string) (*run.Manifest, error) {
	id := root.String()
	r.log.InfoContext(ctx, "manifest is looked for", "run", api.ShortID(id))
	r.node.emit(api.Event{Type: api.EventPull, Run: id, Progress: &api.Progress{Phase: "manifest", Text: "looks for a peer that has the manifest"}})
	aside, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := r.node.host.Rendezvous(aside, id); err != nil {
			r.log.WarnContext(ctx, "rendezvous failed", "run", api.ShortID(id), "err", err)
		}
	})
	err := r.node.puller.Fetch(ctx, root, pull.FetchOptions{MaxBytes: run.MaxManifestBytes, Providers: peersOf(addrs)})
	if errors.Is(err, pull.ErrTooLarge) || errors.Is(err, shard.ErrInvalid) {
		return nil, notAManifest(root, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch manifest of run %s: %w", id, err)
	}
	manifest, err := r.localManifest(ctx, root)
	if manifest == nil && err == nil {
		err = fmt.Errorf("fetch manifest of run %s: it is gone again", id)
	}
	return manifest, err
}

// peersOf are the peers with these addresses.
func peersOf(addrs []string) []peer.ID {
	var list []peer.ID
	for _, a := range addrs {
		if info, err := peer.AddrInfoFromString(a); err == nil {
			list = append(list, info.ID)
		}
	}
	return list
}

// How often the peers that somebody named are dialled.
const (
	firstRedial = time.Second
	lastRedial  = 30 * time.Second
)

// connect dials a peer that was named when the run was joined, until it answers
// once or ctx is done. Staying connected is the host's business.
func (r *runs) connect(ctx context.Context, addr string) {
	for wait := firstRedial; ; wait = min(2*wait, lastRedial) {
		err := r.node.host.Connect(ctx, addr)
		if err == nil || ctx.Err() != nil {
			return
		}
		r.log.DebugContext(ctx, "peer was not reached", "addr", addr, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// checkRoom says what a run needs, and reports why this node cannot or may not
// take part. Nothing of the model but its configuration was pulled then, if the
// run was not begun here before.
func (r *runs) checkRoom(ctx context.Context, m *member, s *stay, manifest *run.Manifest, begun bool) error {
	from := peersOf(r.view(m).file.Peers)
	if show := r.node.introduce; show != nil {
		if err := show(ctx, r.folder(m.id), manifest, from); err != nil {
			return err
		}
	}
	f, err := r.node.fit(ctx, manifest, fitting{id: m.id, from: from})
	if err != nil {
		return err
	}
	s.manifest = manifest
	s.fit.Store(f)
	close(s.fitted)
	for _, i := range f.Items {
		err := i.Err()
		if err != nil && i.Code == api.CodeDisk && begun {
			// Much of what it takes is here already, and it takes as much only when all
			// seats are taken: whether the disk suffices will show.
			r.log.WarnContext(ctx, "the disk may not suffice for a run", "run", api.ShortID(m.id.String()), "err", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return r.checkSpace(ctx, manifest)
}

// isRefusal reports whether a run was refused because of what it needs, so that
// it would be refused again.
func isRefusal(err error) bool {
	if isDiskFull(err) {
		return false // it goes on when there is room
	}
	switch api.AsError(err).Code {
	case api.CodeRAM, api.CodeVRAM, api.CodeDisk, api.CodeRefused:
		return true
	}
	return false
}

// checkSpace makes room for what a run has to bring here.
func (r *runs) checkSpace(ctx context.Context, m *run.Manifest) error {
	need := int64(m.ModelBytes) + int64(m.DatasetBytes)
	for _, c := range []cid.Cid{m.Model, m.Dataset} {
		_, have, _, err := r.node.store.Missing(ctx, c)
		if err != nil {
			return fmt.Errorf("check what is here of %s: %w", c, err)
		}
		need -= have
	}
	return r.node.makeRoom(ctx, need)
}
