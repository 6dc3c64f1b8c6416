package p2p

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
)

// A connection to a peer that did not say what it speaks ends after a while, so that
// a new one asks it again; no other one does.
func TestUnidentified(t *testing.T) {
	t.Parallel()
	h, mute, other := newHost(t, Options{}), newHost(t, Options{}), newHost(t, Options{})
	mute.host.RemoveStreamHandler(identify.ID)
	h.host.RemoveStreamHandler(identify.IDPush) // it could say it later
	for _, o := range []*Host{mute, other} {
		waitFor(t, "a connection", func() bool {
			if h.Connect(t.Context(), o.Addrs()[0]) == nil && (o == mute || h.speaks(o.ID(), peersProtocol)) {
				return true
			}
			_ = h.host.Network().ClosePeer(o.ID()) // nobody asks twice over one connection
			return false
		})
	}
	connected := func(p peer.ID) bool { return h.host.Network().Connectedness(p) == network.Connected }
	if h.speaks(mute.ID(), peersProtocol) {
		t.Fatal("the peer that says nothing was identified")
	}
	opened := time.Now()
	for _, c := range h.host.Network().Conns() {
		if at := c.Stat().Opened; at.Before(opened) {
			opened = at
		}
	}
	h.closeUnidentified(t.Context(), opened.Add(unidentifiedFor-time.Millisecond))
	if !connected(mute.ID()) || !connected(other.ID()) {
		t.Error("a connection ended before its time")
	}
	h.closeUnidentified(t.Context(), time.Now().Add(unidentifiedFor))
	if connected(mute.ID()) {
		t.Error("the peer that says nothing is still connected")
	}
	if !connected(other.ID()) {
		t.Error("the connection to a peer that is known ended")
	}
}
