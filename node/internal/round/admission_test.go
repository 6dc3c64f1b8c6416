package round

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// TestAdmits: who is let in, one case for each rule.
func TestAdmits(t *testing.T) {
	key0, launcher := testKey(0)
	_, friend := testKey(1)
	_, stranger := testKey(2)
	allowed := []peer.ID{launcher, friend}
	slices.Sort(allowed)
	for _, tt := range []struct {
		name string
		a    run.Admission
		id   peer.ID
		with func(j *msg.JoinRequest, r *Rules)
		want bool
	}{
		{"open", run.Admission{}, stranger, nil, true},
		{"on the list", run.Admission{Mode: run.AdmissionList, Allowed: allowed}, friend, nil, true},
		{"not on the list", run.Admission{Mode: run.AdmissionList, Allowed: allowed}, stranger, nil, false},
		{"not on the list, and leaves", run.Admission{Mode: run.AdmissionList}, stranger, func(j *msg.JoinRequest, _ *Rules) { j.Leave = true }, true},
		{"the launcher", run.Admission{Mode: run.AdmissionList}, launcher, nil, true},
		{"not invited", run.Admission{Mode: run.AdmissionInvite}, stranger, nil, false},
		{"invited", run.Admission{Mode: run.AdmissionInvite}, friend, func(j *msg.JoinRequest, r *Rules) {
			ticket, err := msg.NewTicket(key0, r.run, 0, [32]byte{1})
			if err != nil {
				t.Fatal(err)
			}
			j.Invite, j.Proof = ticket.Invite, ticket.Prove(r.run, friend)
		}, true},
		{"no work", run.Admission{WorkBits: 12}, friend, nil, false},
		{"work", run.Admission{WorkBits: 12}, friend, func(j *msg.JoinRequest, r *Rules) {
			j.Nonce, _ = msg.FindNonce(r.run, friend, 12, nil)
		}, true},
	} {
		r, err := NewRules(testManifest(func(m *run.Manifest) { m.Admission = tt.a }))
		if err != nil {
			t.Fatal(err)
		}
		j := &msg.JoinRequest{Run: r.run, Peer: tt.id, Seq: 1}
		if tt.with != nil {
			tt.with(j, r)
		}
		if got := r.Admits(j, 5); got != tt.want {
			t.Errorf("%s: Admits() = %v", tt.name, got)
		}
	}
}

// TestNotAdmitted: a request that the run does not admit has no effect, whoever
// lists it.
func TestNotAdmitted(t *testing.T) {
	s := newScene(t, 4, func(m *run.Manifest, _ *msg.Record) { m.Admission.Mode = run.AdmissionList })
	id := s.join(9, 1, false)
	c := s.consequence(s.have(0, nil, id), s.have(1, nil, id), s.have(2, nil, id), s.have(3, nil, id))
	if len(c.Record.Joins) > 0 || len(c.Record.NextSeats) != 4 {
		t.Errorf("%d requests have an effect, %d seats", len(c.Record.Joins), len(c.Record.NextSeats))
	}
}

// TestInvited: who has an invite gets a seat, who has none does not; nor do its
// requests take the room of others.
func TestInvited(t *testing.T) {
	m := testManifest(func(m *run.Manifest) {
		m.MinPeers, m.Admission = 2, run.Admission{Mode: run.AdmissionInvite, WorkBits: 4}
	})
	s := newSim(t, 61, 4, m, simOpts{})
	for i, n := range s.nodes {
		nonce, _ := msg.FindNonce(s.runID, n.id, 4, nil)
		n.credentials = Credentials{Nonce: nonce}
		if i == 3 {
			continue
		}
		ticket, err := msg.NewTicket(s.nodes[0].priv, s.runID, 0, [32]byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		n.credentials.Invite, n.credentials.Proof = ticket.Invite, ticket.Prove(s.runID, n.id)
	}
	s.startAll()
	s.runFor(2 * time.Minute)
	seats := s.nodes[0].chain.Head().Record.NextSeats
	if len(seats) != 3 || seatOf(seats, s.nodes[3].id) >= 0 {
		t.Errorf("%d seats, of the one that was not invited %d\n%s", len(seats), seatOf(seats, s.nodes[3].id), s.describe())
	}
	if _, ok := s.nodes[0].m.joins.byPeer[s.nodes[3].id]; ok {
		t.Error("the request of a peer that is not let in is kept")
	}
}
