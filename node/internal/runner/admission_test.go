package runner

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// A run that asks for invitations lets those in who have one, also while it is open; and who has
// none gets nothing of it.
func TestInvited(t *testing.T) {
	t.Parallel()
	a := newNode(t, 60)
	b, c := newNode(t, 61, a.addr()), newNode(t, 62, a.addr())
	man := launch(t, a, func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.Inner.MaxSteps, m.PeriodMillis = 2, 200, 2, 12_000
		m.Admission = run.Admission{Mode: run.AdmissionInvite, WorkBits: 8}
	})
	ra, _ := a.takePart(t, man)
	invite := func(x *testNode) {
		v, err := ra.Invite(1000)
		if err != nil || v.Until < 1000 {
			t.Fatal(v, err)
		}
		if err := os.MkdirAll(filepath.Join(x.dir, "run"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(x.dir, "run", InviteFile), []byte(v.Invite+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seated := func(x *testNode) func() bool {
		return func() bool {
			return slices.ContainsFunc(ra.ledger.Head().Record.NextSeats, func(s msg.Seat) bool { return s.Peer == x.hub.self })
		}
	}
	invite(b)
	rb, _ := b.takePart(t, man)
	rc, _ := c.takePart(t, man)
	until(t, "seat of the first", seated(b))
	until(t, "rounds", func() bool { return ra.ledger.Head().Record.Round > 4 })
	if s := rc.stage.now(); s.pulled || s.met || !strings.Contains(s.progress.Text, "invitation") {
		t.Errorf("without an invitation: %+v", s)
	}
	if missing, have, _, err := c.store.Missing(t.Context(), man.Model); err != nil || len(missing) == 0 || have > 0 {
		t.Errorf("without an invitation %d bytes of the model came, %v", have, err)
	}
	if seated(c)() {
		t.Error("a seat without an invitation")
	}
	invite(c)
	if err := rc.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "seat of the second, whose run was open", seated(c))
	if _, err := rb.Invite(0); api.AsError(err).Code != api.CodeConflict {
		t.Errorf("a peer that did not launch the run invites: %v", err)
	}
}

// A member that follows and waits for a seat uses an invitation that comes later.
func TestRenew(t *testing.T) {
	t.Parallel()
	a := newNode(t, 64)
	b := newNode(t, 65, a.addr())
	man := launch(t, a, func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.Inner.MaxSteps, m.PeriodMillis = 1, 200, 2, 12_000
		m.Admission = run.Admission{Mode: run.AdmissionInvite}
	})
	ra, _ := a.takePart(t, man)
	ra.ground.Admit(b.hub.self) // as if it had shown one that is over
	rb, _ := b.takePart(t, man)
	rb.stage.haveMet()
	rb.ground.Admit(a.hub.self)
	until(t, "follower", func() bool { return rb.ledger.Head().Record.Round > 2 })
	v, err := ra.Invite(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "run", InviteFile), []byte(v.Invite), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rb.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "seat", func() bool { return len(ra.ledger.Head().Record.NextSeats) == 2 })
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
