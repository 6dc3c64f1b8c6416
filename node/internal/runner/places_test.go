package runner

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

func TestNetworkOf(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"/ip4/203.0.113.77/tcp/4001", "203.0.113.0/24"},
		{"/ip4/203.0.113.78/udp/4001/quic-v1", "203.0.113.0/24"},
		{"/ip4/203.0.114.77/tcp/4001", "203.0.114.0/24"},
		{"/ip6/2600:db8:1:2::3/tcp/4001", "2600:db8:1::/48"},
		{"/ip6/2600:db8:1:ff::3/tcp/4001", "2600:db8:1::/48"},
		{"/ip6/2600:db8:2:2::3/tcp/4001", "2600:db8:2::/48"},
		{"/ip6/::ffff:203.0.113.77/tcp/4001", "203.0.113.0/24"},
		{"/ip4/127.0.0.1/tcp/4001", round.Exempt},
		{"/ip4/192.168.1.7/tcp/4001", round.Exempt},
		{"/ip4/10.3.1.7/tcp/4001", round.Exempt},
		{"/ip6/fe80::1/tcp/4001", round.Exempt},
		{"/ip6/fd00::1/tcp/4001", round.Exempt},
		{"/ip4/203.0.113.9/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit", "203.0.113.0/24"},
		{"/dns4/example.org/tcp/4001", ""},
	} {
		if got := networkOf(ma.StringCast(tt.addr)); got != tt.want {
			t.Errorf("networkOf(%s) = %q, want %q", tt.addr, got, tt.want)
		}
	}
}

// conn is a connection of which only the place is looked at.
type conn struct {
	network.Conn
	addr    string
	relayed bool
}

func (c conn) RemoteMultiaddr() ma.Multiaddr { return ma.StringCast(c.addr) }

func (c conn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Limited: c.relayed}}
}

func TestPlaceOf(t *testing.T) {
	relayed := conn{addr: "/ip4/203.0.113.9/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit", relayed: true}
	direct := conn{addr: "/ip4/198.51.100.1/tcp/1"}
	for _, tt := range []struct {
		conns []network.Conn
		want  string
	}{
		{nil, ""},
		{[]network.Conn{relayed}, "203.0.113.0/24"},
		{[]network.Conn{relayed, direct}, "198.51.100.0/24"},
		{[]network.Conn{direct, relayed}, "198.51.100.0/24"},
	} {
		if got := placeOf(tt.conns); got != tt.want {
			t.Errorf("placeOf(%v) = %q, want %q", tt.conns, got, tt.want)
		}
	}
}

// Requests for a seat that can have no effect are neither kept nor passed on:
// a flood of them ends at the first honest peer.
func TestRequestsPassedOn(t *testing.T) {
	t.Parallel()
	x := newNode(t, 60)
	friendKey, friend := nodeKey(t, 61)
	strangerKey, stranger := nodeKey(t, 62)
	man := launch(t, x, func(m *run.Manifest) {
		m.Admission = run.Admission{Mode: run.AdmissionList, Allowed: []peer.ID{friend}, WorkBits: 8}
	})
	r, _ := x.takePart(t, man)
	until(t, "the loop", func() bool { return r.view.Load() != nil })
	nonce, _ := msg.FindNonce(r.id, friend, 8, nil)
	idle := uint64(1)
	for (&msg.JoinRequest{Run: r.id, Peer: friend, Nonce: idle}).Work() >= 8 {
		idle++
	}
	theirs, _ := msg.FindNonce(r.id, stranger, 8, nil)
	judge := func(j *msg.JoinRequest) gossip.Verdict {
		t.Helper()
		key := friendKey
		if j.Peer == stranger {
			key = strangerKey
		}
		s, err := msg.Seal(key, j)
		if err != nil {
			t.Fatal(err)
		}
		_, v := r.validate(t.Context(), j.Peer, s.Envelope)
		return v
	}
	for _, tt := range []struct {
		name string
		j    *msg.JoinRequest
		want gossip.Verdict
	}{
		{"as it must be", &msg.JoinRequest{Run: r.id, Peer: friend, Seq: 1, Nonce: nonce}, gossip.Accept},
		{"without the work", &msg.JoinRequest{Run: r.id, Peer: friend, Seq: 1, Nonce: idle}, gossip.Reject},
		{"of a stranger", &msg.JoinRequest{Run: r.id, Peer: stranger, Seq: 1, Nonce: theirs}, gossip.Reject},
		{"a stranger leaves", &msg.JoinRequest{Run: r.id, Peer: stranger, Seq: 1, Leave: true}, gossip.Ignore},
	} {
		if got := judge(tt.j); got != tt.want {
			t.Errorf("%s: verdict %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestPlaces: where a peer was seen is remembered as long as it has a seat or asks for
// one, and who is not found is looked for again, ever more rarely.
func TestPlaces(t *testing.T) {
	p := newPlaces()
	p.update(map[peer.ID]string{"a": "203.0.113.0/24", "b": "", "c": round.Exempt})
	p.update(map[peer.ID]string{"a": "", "b": "", "d": ""})
	if p.peers["a"].network != "203.0.113.0/24" || p.peers["b"].network != "" || p.peers["c"] != nil || len(p.peers) != 3 {
		t.Errorf("places are %v", p.peers)
	}
	p.update(map[peer.ID]string{"a": "198.51.100.0/24"})
	if p.peers["a"].network != "198.51.100.0/24" {
		t.Error("who moved is where it was")
	}
	now := time.Now()
	if p.peers["a"].due(now) {
		t.Error("a peer whose place is known is looked for")
	}
	var lost placed
	var waits []time.Duration
	last := now
	for ; now.Before(last.Add(time.Hour)) && len(waits) < 7; now = now.Add(time.Second) {
		if lost.due(now) {
			waits, last = append(waits, now.Sub(last)), now
		}
	}
	want := []time.Duration{0, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 300 * time.Second, 300 * time.Second}
	if !slices.Equal(waits, want) {
		t.Errorf("it is looked for after %v, want %v", waits, want)
	}
}
