package app

import (
	"context"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
	"github.com/moot-net/moot/node/internal/pull"
)

// A run for invited peers: who has no invitation is refused soon and gets
// nothing but the manifest, by neither protocol; who has one takes part, and is told what the run needs before.
func TestPrivateRun(t *testing.T) {
	t.Parallel()
	seed, _ := testNode(t, t.TempDir(), nil)
	m, d := imported(t, seed)
	r, err := seed.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: runText(m, d,
		"period = \"12s\"\nmin_peers = 2\nrounds = 100\n[inner]\nsequence_tokens = 64\nmax_steps = 2\nbatch_samples = 2\n[admission]\nmode = \"invite\"\n")}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	v, err := seed.Invite(t.Context(), api.InviteRequest{Run: r.ID})
	if err != nil {
		t.Fatal(err)
	}
	peers := seed.host.Addrs()[:1]

	stranger, _ := testNode(t, t.TempDir(), nil, func(n *node) { n.configPatience = time.Hour }) // of which it needs nothing
	soon, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	_, err = stranger.Join(soon, api.JoinRequest{Run: r.ID, Peers: peers}, quiet)
	wantCode(t, err, api.CodeRefused, "there is none")
	had := stranger.exchange.Stats().PulledBytes + stranger.puller.Stats().PulledBytes // the manifest
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	model := cid.MustParse(m.ID)
	if err := stranger.puller.Fetch(ctx, model, pull.FetchOptions{Providers: []peer.ID{seed.host.ID()}}); err == nil {
		t.Error("a stranger gets the model")
	}
	if has := stranger.exchange.Stats().PulledBytes + stranger.puller.Stats().PulledBytes; has != had {
		t.Errorf("a stranger got %d bytes more", has-had)
	}

	friend, _ := testNode(t, t.TempDir(), nil, func(n *node) { n.configPatience = time.Hour }) // a slow machine, too, shows it what the run needs
	var fit *api.Fit
	if _, err := friend.Join(t.Context(), api.JoinRequest{Run: r.ID, Peers: peers, Invite: v.Invite}, func(p api.Progress) {
		if p.Fit != nil {
			fit = p.Fit
		}
	}); err != nil {
		t.Fatalf("with an invitation: %v", err)
	}
	if fit == nil || len(fit.Items) == 0 || fit.Items[0].Verdict == api.VerdictUnknown {
		t.Errorf("what the run needs was not known: %+v", fit)
	}
	apitest.Await(t, seed, r.ID, "a round has trained with the one that was invited", func(r api.Run) bool { return r.TrainedRounds > 0 })
}
