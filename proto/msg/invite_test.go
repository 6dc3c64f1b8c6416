package msg

import (
	"strings"
	"testing"
)

func sampleTicket(t testing.TB) Ticket {
	t.Helper()
	priv, _ := testKey(t, 1)
	ticket, err := NewTicket(priv, testCID("run"), 20, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

func TestTicket(t *testing.T) {
	_, launcher := testKey(t, 1)
	_, guest := testKey(t, 2)
	_, other := testKey(t, 3)
	ticket := sampleTicket(t)
	again, err := ParseTicket(ticket.String())
	if err != nil {
		t.Fatal(err)
	}
	good := JoinRequest{Run: testCID("run"), Peer: guest, Seq: 1, Invite: again.Invite, Proof: again.Prove(testCID("run"), guest)}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*JoinRequest)
		round  Round
		want   bool
	}{
		{"the guest", func(*JoinRequest) {}, 20, true},
		{"too late", func(*JoinRequest) {}, 21, false},
		{"another with the guest's proof", func(j *JoinRequest) { j.Peer = other }, 1, false},
		{"for another run", func(j *JoinRequest) { j.Run = testCID("other") }, 1, false},
		{"without", func(j *JoinRequest) { j.Invite, j.Proof = nil, nil }, 1, false},
		{"no proof", func(j *JoinRequest) { j.Proof = nil }, 1, false},
		{"no invite", func(j *JoinRequest) { j.Invite = []byte("x") }, 1, false},
		{"another message for an invite", func(j *JoinRequest) {
			priv, _ := testKey(t, 1)
			j.Invite = mustSeal(t, priv, sampleVote(launcher)).Envelope
		}, 1, false},
	} {
		j := good
		tt.change(&j)
		if got := j.Invited(launcher, tt.round); got != tt.want {
			t.Errorf("%s: Invited() = %v", tt.name, got)
		}
	}
	if good.Invited(other, 1) {
		t.Error("the invite of somebody else counts")
	}
	priv2, _ := testKey(t, 2)
	stolen := ticket
	if forged, err := NewTicket(priv2, testCID("run"), 0, [32]byte{8}); err != nil {
		t.Fatal(err)
	} else {
		stolen.Key = forged.Key
	}
	text := ticket.String()
	for _, bad := range []string{"", "moot1-", "x", text[:len(text)-4], strings.ToUpper(text), text + "AAAA", stolen.String()} {
		if _, err := ParseTicket(bad); err == nil {
			t.Errorf("ParseTicket(%q) accepts it", bad)
		}
	}
}

func TestWork(t *testing.T) {
	_, id := testKey(t, 1)
	nonce, ok := FindNonce(testCID("run"), id, 12, nil)
	if !ok {
		t.Fatal("no nonce")
	}
	j := JoinRequest{Run: testCID("run"), Peer: id, Nonce: nonce}
	if j.Work() < 12 {
		t.Errorf("%d bits", j.Work())
	}
	_, j.Peer = testKey(t, 2)
	if j.Work() >= 12 {
		t.Error("the work of one peer is that of another")
	}
	stop := make(chan struct{})
	close(stop)
	if _, ok := FindNonce(testCID("run"), id, 200, stop); ok {
		t.Error("a search that was ended found something")
	}
}
