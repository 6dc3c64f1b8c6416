package fence

import (
	"fmt"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

func testCID(t *testing.T, s string, codec uint64) cid.Cid {
	t.Helper()
	mh, err := multihash.Sum([]byte(s), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(codec, mh)
}

func TestServes(t *testing.T) {
	raw := func(s string) cid.Cid { return testCID(t, s, cid.Raw) }
	f := New("self")
	secret := f.Open(raw("secret"), true, "topic", []peer.ID{"launcher"})
	club := f.Open(raw("club"), true, "club", nil)
	open := f.Open(raw("open"), false, "open", nil)
	secret.Admit("friend")
	club.Admit("other")
	secret.Claim(raw("model"), []cid.Cid{raw("model"), raw("leaf"), raw("shared")})
	secret.Claim(raw("delta"), []cid.Cid{raw("delta"), raw("leaf")})
	club.Claim(raw("data"), []cid.Cid{raw("data"), raw("shared")})
	secret.Claim(raw("base"), []cid.Cid{raw("base")})
	open.Claim(raw("base"), []cid.Cid{raw("base")})
	for _, tt := range []struct {
		p    peer.ID
		c    cid.Cid
		want bool
	}{
		{"self", raw("model"), true},
		{"launcher", raw("model"), true},
		{"friend", raw("leaf"), true},
		{"stranger", raw("model"), false},
		{"stranger", raw("leaf"), false},
		{"stranger", testCID(t, "leaf", cid.DagProtobuf), false}, // the same bytes by another name
		{"other", raw("leaf"), false},
		{"other", raw("shared"), true},
		{"friend", raw("shared"), true},
		{"stranger", raw("shared"), false},
		{"stranger", raw("base"), true}, // that of an open run as well
		{"stranger", raw("nobody's"), true},
	} {
		if got := f.Serves(tt.p, tt.c); got != tt.want {
			t.Errorf("Serves(%s, %v) = %v", tt.p, tt.c, got)
		}
	}
	secret.Release(raw("delta"))
	if f.Serves("stranger", raw("leaf")) || !f.Serves("stranger", raw("delta")) {
		t.Error("what is gone takes along what is not, or stays")
	}
	secret.Claim(raw("model"), []cid.Cid{raw("model")})
	if !f.Serves("stranger", raw("leaf")) || f.Serves("stranger", raw("model")) {
		t.Error("a claim does not take the place of the one before")
	}
	if again := f.Open(raw("secret"), true, "topic", nil); again != secret {
		t.Error("a run that is opened again is another one")
	}
	var none *Fence
	if !none.Serves("stranger", raw("model")) || !none.Hears("stranger", "topic") || none.Intrudes("stranger") {
		t.Error("without a fence something is kept")
	}
}

func TestListens(t *testing.T) {
	f := New("self")
	f.Listens("early", "topic", true) // before the run was opened
	r := f.Open(testCID(t, "run", cid.Raw), true, "topic", nil)
	f.Open(testCID(t, "open", cid.Raw), false, "open", nil)
	f.Listens("stranger", "topic", true)
	f.Listens("guest", "open", true)
	for p, want := range map[peer.ID]bool{"early": true, "stranger": true, "guest": false, "nobody": false} {
		if f.Intrudes(p) != want {
			t.Errorf("Intrudes(%s) = %v", p, !want)
		}
	}
	if f.Hears("early", "topic") || !f.Hears("early", "open") || !f.Hears("early", "another") {
		t.Error("who hears what")
	}
	r.Admit("early")
	if f.Intrudes("early") || !f.Hears("early", "topic") || !r.Member("early") {
		t.Error("a member intrudes")
	}
	f.Listens("stranger", "topic", false)
	if f.Intrudes("stranger") {
		t.Error("who does not listen any more intrudes")
	}
	f.Listens("stranger", "topic", true)
	f.Gone("stranger")
	if f.Intrudes("stranger") {
		t.Error("who is gone intrudes")
	}
}

func TestMembersAreBounded(t *testing.T) {
	f := New("self")
	r := f.Open(testCID(t, "run", cid.Raw), true, "topic", []peer.ID{"launcher"})
	for i := range maxMembers + 10 {
		r.Admit(peer.ID(fmt.Sprint(i)))
	}
	if len(r.members) != maxMembers || r.Member("0") || r.Member("9") || !r.Member("10") || !r.Member("launcher") {
		t.Errorf("%d members", len(r.members))
	}
}
