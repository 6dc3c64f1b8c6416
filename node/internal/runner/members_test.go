package runner

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// private is how a run is that not everybody may take part in.
func private(mode run.AdmissionMode, allowed ...peer.ID) func(m *run.Manifest) {
	return func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.Inner.MaxSteps = 2, 300, 2
		m.PeriodMillis = 12_000 // the machine may be busy; rounds end when all is there
		m.Admission = run.Admission{Mode: mode, Allowed: allowed}
	}
}

// A stranger who knows everything of a private run, its ID, the addresses of its
// peers and all CIDs, gets the manifest and nothing else, and hears nothing; and members find
// each other in spite of it.
func TestStranger(t *testing.T) {
	for _, mode := range []run.AdmissionMode{run.AdmissionList, run.AdmissionInvite} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			n := 70 + 5*int(mode)
			a := newNode(t, n)
			b := newNode(t, n+1, a.addr())
			stranger := newNode(t, n+2, a.addr(), b.addr())
			var allowed []peer.ID
			if mode == run.AdmissionList {
				allowed = []peer.ID{b.hub.self}
			}
			man := launch(t, a, private(mode, allowed...))
			id, err := man.ID()
			if err != nil {
				t.Fatal(err)
			}
			encoded, err := man.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.store.PutBytes(t.Context(), encoded); err != nil {
				t.Fatal(err)
			}
			// The stranger listens before the run begins, and says that it is in it.
			var heard atomic.Int64
			gs := stranger.hub.o.Gossip
			topic, err := gs.Join(gossip.RunTopic(id), func(context.Context, peer.ID, []byte) (any, gossip.Verdict) {
				heard.Add(1)
				return nil, gossip.Accept
			})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for range topic.Messages() {
				}
			}()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { _ = stranger.host.Rendezvous(ctx, id.String()) }()
			for _, addr := range []string{a.addr(), b.addr()} {
				until(t, "a connection", func() bool { return stranger.host.Connect(t.Context(), addr) == nil })
			}

			ra, _ := a.takePart(t, man)
			if mode == run.AdmissionInvite {
				v, err := ra.Invite(0)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.MkdirAll(filepath.Join(b.dir, "run"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(b.dir, "run", InviteFile), []byte(v.Invite), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b.takePart(t, man)
			var head *msg.Record
			until(t, "rounds that trained", func() bool {
				head = ra.ledger.Head().Record
				return head.TrainedRounds > 2 && len(head.Contributions) > 0
			})
			delta := head.Contributions[0].Delta
			_, _, total, err := a.store.Missing(t.Context(), man.Dataset)
			if err != nil || total == 0 {
				t.Fatal(total, err)
			}
			ask := func(c cid.Cid, d time.Duration) error {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				return stranger.hub.o.Puller.Fetch(ctx, c, pull.FetchOptions{MaxBytes: 1 << 24, Providers: []peer.ID{a.hub.self, b.hub.self}})
			}
			if err := ask(id, time.Minute); err != nil {
				t.Errorf("the manifest: %v", err)
			}
			for what, root := range map[string]cid.Cid{"model": man.Model, "data": man.Dataset, "state": head.State, "delta": delta} {
				if err := ask(root, time.Second); err == nil {
					t.Errorf("a stranger gets the %s", what)
				}
				for _, c := range blocksOf(t.Context(), a.store, root) {
					if a.hub.o.Fence.Serves(stranger.hub.self, c) || b.hub.o.Fence.Serves(stranger.hub.self, c) {
						t.Errorf("a block of the %s is for everybody", what)
						break
					}
					if !a.hub.o.Fence.Serves(b.hub.self, c) {
						t.Errorf("a block of the %s is not for a member", what)
						break
					}
				}
			}
			req := syncRequest{Run: id, Locator: ra.ledger.Locator(4)}
			for _, x := range []*testNode{a, b} {
				for _, protocol := range []string{syncProtocol, branchProtocol, proofProtocol} {
					if _, err := stranger.host.Request(t.Context(), x.hub.self, protocol, req.encode(), maxSyncResponse); err == nil {
						t.Errorf("a stranger is answered by %s", protocol)
					}
				}
				// Its own word that it is invited is none.
				key, self := nodeKey(t, n+2)
				forged, err := msg.NewTicket(key, id, 0, [32]byte{1})
				if err != nil {
					t.Fatal(err)
				}
				s, err := msg.Seal(key, &msg.JoinRequest{Run: id, Peer: self, Invite: forged.Invite, Proof: forged.Prove(id, self)})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := stranger.host.Request(t.Context(), x.hub.self, memberProtocol, s.Envelope, msg.MaxMessageBytes); err == nil {
					t.Error("a forged invitation makes a member")
				}
			}
			if n := heard.Load(); n > 0 {
				t.Errorf("a stranger heard %d messages", n)
			}
			// That it listens at all: what somebody says who knows no members, it hears.
			other := newNode(t, n+3, stranger.addr())
			until(t, "a connection", func() bool { return other.host.Connect(t.Context(), stranger.addr()) == nil })
			loud, err := other.hub.o.Gossip.Join(gossip.RunTopic(id), func(context.Context, peer.ID, []byte) (any, gossip.Verdict) {
				return nil, gossip.Accept
			})
			if err != nil {
				t.Fatal(err)
			}
			until(t, "the stranger to hear another one", func() bool {
				if err := loud.Publish(t.Context(), []byte(time.Now().String())); err != nil {
					t.Log(err)
				}
				return heard.Load() > 0
			})
		})
	}
}

// Somebody else's proof that it is invited makes no member.
func TestBorrowedBadge(t *testing.T) {
	t.Parallel()
	a := newNode(t, 90)
	b, thief := newNode(t, 91, a.addr()), newNode(t, 92, a.addr())
	man := launch(t, a, private(run.AdmissionInvite))
	ra, _ := a.takePart(t, man)
	v, err := ra.Invite(0)
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := msg.ParseTicket(v.Invite)
	if err != nil {
		t.Fatal(err)
	}
	key, self := nodeKey(t, 91)
	s, err := msg.Seal(key, &msg.JoinRequest{Run: ra.id, Peer: self, Invite: ticket.Invite, Proof: ticket.Prove(ra.id, self)})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a connection", func() bool { return thief.host.Connect(t.Context(), a.addr()) == nil })
	if _, err := thief.host.Request(t.Context(), a.hub.self, memberProtocol, s.Envelope, msg.MaxMessageBytes); err == nil || ra.ground.Member(thief.hub.self) {
		t.Errorf("somebody else's proof makes a member: %v", err)
	}
	if ra.ground.Member(self) {
		t.Error("the one who did not come is a member")
	}
	until(t, "a connection", func() bool { return b.host.Connect(t.Context(), a.addr()) == nil })
	if _, err := b.host.Request(t.Context(), a.hub.self, memberProtocol, s.Envelope, msg.MaxMessageBytes); err != nil || !ra.ground.Member(self) {
		t.Errorf("a proof does not make a member: %v", err)
	}
}

// What a private run has stays with its members when the run is closed, and
// when the node starts again.
func TestPrivateAfterwards(t *testing.T) {
	t.Parallel()
	a := newNode(t, 95)
	man := launch(t, a, func(m *run.Manifest) {
		private(run.AdmissionInvite)(m)
		m.MinPeers, m.MaxRounds = 1, 2
	})
	r, stop := a.takePart(t, man)
	until(t, "end", func() bool { return r.ledger.Head().Record.Final })
	state := r.ledger.Head().Record.State
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	stranger := peer.ID("stranger")
	if a.hub.o.Fence.Serves(stranger, state) || a.hub.o.Fence.Serves(stranger, man.Model) {
		t.Error("after the run was closed all is for everybody")
	}
	// As a process that begins.
	x := newNode(t, 95)
	x.store.Close()
	h := x.hub
	h.o.Store = a.store
	if !h.o.Fence.Serves(stranger, state) {
		t.Fatal("the new process knows already")
	}
	again, err := h.Open(filepath.Join(a.dir, "run"), man)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if h.o.Fence.Serves(stranger, state) || h.o.Fence.Serves(stranger, man.Model) || h.o.Fence.Serves(stranger, man.Dataset) {
		t.Error("after a new start it is for everybody")
	}
	b, err := os.ReadFile(filepath.Join(a.dir, "run", claimsFile))
	if err != nil || !strings.Contains(string(b), state.String()) {
		t.Errorf("%s has %d bytes, %v", claimsFile, len(b), err)
	}
}
