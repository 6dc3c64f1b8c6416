package runner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/run"
)

// A run that asks for invitations lets those in who have one.
func TestInvited(t *testing.T) {
	t.Parallel()
	a := newNode(t, 60)
	b, c := newNode(t, 61, a.addr()), newNode(t, 62, a.addr())
	man := launch(t, a, func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds = 2, 4
		m.Admission = run.Admission{Mode: run.AdmissionInvite, WorkBits: 8}
	})
	ra, _ := a.takePart(t, man)
	v, err := ra.Invite(100)
	if err != nil || v.Until < 100 {
		t.Fatal(v, err)
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "run", InviteFile), []byte(v.Invite+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rc, _ := c.takePart(t, man)
	rb, _ := b.takePart(t, man)
	sameEnd(t, ra, rb, rc)
	rounds, err := ra.Rounds(1, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rounds {
		for _, x := range r.Contributions {
			if x.Peer == c.hub.self.String() {
				t.Errorf("round %d has a delta of a peer that was not invited", r.Round)
			}
		}
	}
	if _, err := rb.Invite(0); api.AsError(err).Code != api.CodeConflict {
		t.Errorf("a peer that did not launch the run invites: %v", err)
	}
}

// An invitation that cannot be read ends the run with a reason.
func TestBadInvite(t *testing.T) {
	t.Parallel()
	a := newNode(t, 63)
	man := launch(t, a, nil)
	if err := os.MkdirAll(filepath.Join(a.dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "run", InviteFile), []byte("moot1-x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := a.hub.Open(filepath.Join(a.dir, "run"), man)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "invitation") {
		t.Errorf("Run() = %v", err)
	}
	if _, err := r.Invite(0); api.AsError(err).Code != api.CodeConflict {
		t.Errorf("an invitation to an open run: %v", err)
	}
}
