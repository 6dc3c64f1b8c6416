package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/fence"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// memberProtocol is how two peers of a private run show each other that they are
// in it. The bytes are specified in proto/README.md.
const memberProtocol = "/moot/member/1"

const (
	showEvery = time.Second // whether there is somebody new
	showWait  = 15 * time.Second
)

// claimsFile lists what a private run has in the store, so that it stays with its
// members when the run is not open.
const claimsFile = "private-shards"

var errStranger = errors.New("not in that run")

// ground is what a run has of the node's fence.
type ground struct {
	*fence.Run
	store *shard.Store
	path  string

	mu     sync.Mutex
	listed map[cid.Cid]bool // guarded by mu; in the file
}

// ground is what the fence has of a run whose files are in the folder dir. It
// stays when the run is closed.
func (h *Hub) ground(ctx context.Context, dir string, id cid.Cid, m *run.Manifest) (*ground, error) {
	private := m.Admission.Mode != run.AdmissionOpen
	g := &ground{
		Run:   h.o.Fence.Open(id, private, gossip.RunTopic(id), append(slices.Clone(m.Admission.Allowed), m.Launcher)),
		store: h.o.Store, path: filepath.Join(dir, claimsFile), listed: make(map[cid.Cid]bool),
	}
	roots := []cid.Cid{m.Model, m.Dataset}
	if private {
		more, err := g.read(ctx)
		if err != nil {
			return nil, fmt.Errorf("read what run %s has: %w", id, err)
		}
		roots = append(roots, more...)
	}
	for _, c := range roots {
		g.Claim(c, blocksOf(ctx, h.o.Store, c))
	}
	return g, nil
}

// read returns the roots of the file that are still here, and leaves the others
// out of it.
func (g *ground) read(ctx context.Context) ([]cid.Cid, error) {
	b, err := os.ReadFile(g.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var roots []cid.Cid
	var kept strings.Builder
	for s := bufio.NewScanner(strings.NewReader(string(b))); s.Scan(); {
		c, err := cid.Decode(s.Text())
		if err != nil {
			continue // a line that was not written to its end
		}
		if ok, err := g.store.Has(ctx, c); err == nil && !ok || g.listed[c] {
			continue
		}
		g.listed[c] = true
		roots = append(roots, c)
		fmt.Fprintln(&kept, c)
	}
	if err := os.WriteFile(g.path+".tmp", []byte(kept.String()), 0o600); err != nil {
		return nil, err
	}
	return roots, os.Rename(g.path+".tmp", g.path)
}

// claim says that the run has a DAG, of which all may not be here yet.
func (g *ground) claim(ctx context.Context, root cid.Cid) error {
	g.Claim(root, blocksOf(ctx, g.store, root))
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.Private() || g.listed[root] {
		return nil
	}
	f, err := os.OpenFile(g.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, root); err != nil {
		return errors.Join(err, f.Close())
	}
	g.listed[root] = true
	return f.Close()
}

// blocksOf lists the blocks of a DAG, as far as its inner nodes are here.
func blocksOf(ctx context.Context, store *shard.Store, root cid.Cid) []cid.Cid {
	seen := map[cid.Cid]bool{root: true}
	out := []cid.Cid{root}
	for i := 0; i < len(out); i++ {
		if out[i].Prefix().Codec == cid.Raw {
			continue
		}
		b, err := store.Get(ctx, out[i])
		if err != nil {
			continue
		}
		links, err := shard.Links(b)
		if err != nil {
			continue
		}
		for _, l := range links {
			if !seen[l.CID] {
				seen[l.CID] = true
				out = append(out, l.CID)
			}
		}
	}
	return out
}

// know makes members of those whom the record of a round let in.
func (g *ground) know(r *msg.Record) {
	for _, s := range r.NextSeats {
		g.Admit(s.Peer)
	}
	for _, s := range r.Standings {
		g.Admit(s.Peer)
	}
}

// member is what answers a peer that may not know of a run.
func (h *Hub) member(id cid.Cid, from peer.ID) (*Runner, error) {
	h.mu.Lock()
	r := h.runs[id]
	h.mu.Unlock()
	if r == nil || !r.ground.Member(from) {
		return nil, errStranger
	}
	return r, nil
}

// answerMember answers a request of memberProtocol.
func (h *Hub) answerMember(_ context.Context, from peer.ID, b []byte) ([]byte, error) {
	j, _, err := msg.OpenAs[*msg.JoinRequest](b)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	r := h.runs[j.Run]
	h.mu.Unlock()
	if r == nil || j.Peer != from || !r.welcome(j) {
		return nil, errStranger
	}
	return r.badge.get(), nil
}

// welcome makes a member of who shows what lets it in.
func (r *Runner) welcome(j *msg.JoinRequest) bool {
	if !r.ground.Member(j.Peer) && !r.rules.Welcomes(j, r.ledger.Head().Record.Round+1) {
		return false
	}
	r.ground.Admit(j.Peer)
	return true
}

// badge is what this node shows to others of a run.
type badge struct {
	mu       sync.Mutex
	envelope []byte        // guarded by mu; nil: it is not needed, or not here
	changed  chan struct{} // guarded by mu; closed when it is another one
}

func (c *badge) get() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.envelope
}

func (c *badge) set(envelope []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.envelope = envelope
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *badge) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// draw makes the badge of what is in the run's folder.
func (r *Runner) draw() error {
	b, err := r.hub.badge(r.dir, r.id, r.manifest)
	if err != nil || b == nil {
		return err
	}
	r.badge.set(b)
	return nil
}

// badge shows that this node is in a run whose files are in the folder dir; nil
// if others know, or if there is no invitation.
func (h *Hub) badge(dir string, id cid.Cid, m *run.Manifest) ([]byte, error) {
	if m.Admission.Mode != run.AdmissionInvite || m.Launcher == h.self {
		return nil, nil
	}
	c, err := h.ticket(dir, id)
	if err != nil || len(c.Invite) == 0 {
		return nil, err
	}
	s, err := msg.Seal(h.o.Key, &msg.JoinRequest{Run: id, Peer: h.self, Invite: c.Invite, Proof: c.Proof})
	return s.Envelope, err
}

// Introduce shows the invitation to a run that is not open yet to peers that are
// in it, so that they give what has to be known before it is. It is no error if
// none of them is there.
func (h *Hub) Introduce(ctx context.Context, dir string, m *run.Manifest, to []peer.ID) error {
	id, err := m.ID()
	if err != nil {
		return err
	}
	b, err := h.badge(dir, id, m)
	if err != nil || b == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, showWait)
	defer cancel()
	var shown sync.WaitGroup
	for _, p := range slices.Concat(to, h.o.Host.Members(id.String())) {
		shown.Go(func() {
			if _, err := h.o.Host.Request(ctx, p, memberProtocol, b, msg.MaxMessageBytes); err != nil {
				h.o.Log.DebugContext(ctx, "invitation was not shown", "peer", p, "err", err)
			}
		})
	}
	shown.Wait()
	return nil
}

// present shows others that this node is in the run, until ctx is done: each
// once for each connection, as they may have forgotten.
func (r *Runner) present(ctx context.Context) error {
	if r.manifest.Admission.Mode != run.AdmissionInvite {
		return nil
	}
	shown := make(map[peer.ID]string) // connections
	t := time.NewTicker(showEvery)
	defer t.Stop()
	for {
		changed := r.badge.next()
		if b := r.badge.get(); b != nil {
			r.showAll(ctx, b, shown)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-changed:
			clear(shown)
		}
	}
}

func (r *Runner) showAll(ctx context.Context, badge []byte, shown map[peer.ID]string) {
	host := r.hub.o.Host
	type answer struct {
		to   peer.ID
		conn string
		err  error
	}
	var asked sync.WaitGroup
	members := host.Members(r.id.String())
	answers := make(chan answer, len(members))
	for _, p := range members {
		conns := host.Libp2p().Network().ConnsToPeer(p)
		if len(conns) == 0 || shown[p] == conns[0].ID() {
			continue
		}
		asked.Go(func() { answers <- answer{p, conns[0].ID(), r.showTo(ctx, p, badge)} })
	}
	asked.Wait()
	close(answers)
	for a := range answers {
		shown[a.to] = a.conn // also if it did not help: not again before there is another one
		if a.err != nil {
			r.log.DebugContext(ctx, "peer does not take this node for a member", "peer", a.to, "err", a.err)
			continue
		}
		r.stage.haveMet()
	}
}

func (r *Runner) showTo(ctx context.Context, p peer.ID, badge []byte) error {
	ctx, cancel := context.WithTimeout(ctx, showWait)
	defer cancel()
	b, err := r.hub.o.Host.Request(ctx, p, memberProtocol, badge, msg.MaxMessageBytes)
	if err != nil || len(b) == 0 {
		return err
	}
	j, _, err := msg.OpenAs[*msg.JoinRequest](b)
	if err != nil {
		return err
	}
	if j.Peer != p || j.Run != r.id || !r.welcome(j) {
		return errStranger
	}
	return nil
}

// met waits until somebody took this node for a member, if that has to be shown:
// before it nobody gives it anything.
func (r *Runner) met(ctx context.Context) error {
	if r.manifest.Admission.Mode != run.AdmissionInvite || r.manifest.Launcher == r.hub.self {
		return nil
	}
	for {
		s, drawn := r.stage.now(), r.badge.next()
		if s.met {
			return nil
		}
		text := "looking for others of the run, to show them the invitation"
		if r.badge.get() == nil {
			text = "the run asks for an invitation: \"moot join --invite\" gives it"
		}
		if s.progress.Text != text {
			r.stage.tell(api.Progress{Phase: "state", Text: text})
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		case <-drawn:
		}
	}
}

// ticket is the invitation in the folder of a run, if there is one.
func (h *Hub) ticket(dir string, id cid.Cid) (round.Credentials, error) {
	var c round.Credentials
	b, err := os.ReadFile(filepath.Join(dir, InviteFile))
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	t, err := msg.ParseTicket(strings.TrimSpace(string(b)))
	if err != nil {
		return c, fmt.Errorf("read %s: %w", InviteFile, err)
	}
	c.Invite, c.Proof = t.Invite, t.Prove(id, h.self)
	return c, nil
}
