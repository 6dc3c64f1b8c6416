package p2p

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Strangers that take all places to be served leave some for the peers that a run
// depends on.
func TestPreferredAreServed(t *testing.T) {
	t.Parallel()
	var a admission
	for i := range 1000 {
		a.enter(peer.ID(fmt.Sprint(i/10)), false)
	}
	if a.enter("stranger", false) {
		t.Error("one more stranger is served")
	}
	if !a.enter("seat", true) {
		t.Error("who has a seat is not served")
	}
	for range 1000 {
		a.enter("seat", true)
	}
	if a.from["seat"] != maxRequestsPerPeer || a.all != maxStrangers+maxRequestsPerPeer {
		t.Errorf("%d requests of one seat, %d in all", a.from["seat"], a.all)
	}
	for range maxRequestsPerPeer {
		a.leave("seat", true)
	}
	for p, n := range a.from {
		for range n {
			a.leave(p, false)
		}
	}
	if a.all != 0 || a.strangers != 0 || len(a.from) != 0 {
		t.Errorf("%+v is left", &a)
	}
}

func TestPrefer(t *testing.T) {
	t.Parallel()
	h, other := pair(t)
	h.Prefer("run", []peer.ID{other.ID(), h.ID()})
	h.Prefer("more", []peer.ID{other.ID()})
	if !h.Preferred(other.ID()) || h.Preferred(h.ID()) || !h.host.ConnManager().IsProtected(other.ID(), "seat run") {
		t.Error("who has a seat is not preferred, or this node is")
	}
	h.Prefer("run", nil)
	if !h.Preferred(other.ID()) || h.host.ConnManager().IsProtected(other.ID(), "seat run") {
		t.Error("one run's seats are another's")
	}
	if h.Prefer("more", nil); h.Preferred(other.ID()) || len(h.preferred.byRun) != 0 {
		t.Error("it is preferred still")
	}
}

// Who asks for large answers and takes none gets no more of them than there is
// room for, and keeps preferred peers from none.
func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	server, client := pair(t)
	const size = 4 << 20
	server.Handle(echo, 10, func(context.Context, peer.ID, []byte) ([]byte, error) { return make([]byte, size), nil })
	takeNone := func() {
		for range maxRequestsPerPeer {
			s, err := client.host.NewStream(t.Context(), server.ID(), echo)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte{0}); err != nil {
				t.Fatal(err)
			}
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
	}
	bytes := func() int {
		server.answers.mu.Lock()
		defer server.answers.mu.Unlock()
		return server.answers.bytes[0]
	}
	deadline := time.Now().Add(5 * time.Minute)
	for { // again on a slow machine: an answer that is not taken ends after pieceTimeout
		takeNone()
		for asked := time.Now(); bytes() < maxAnswersBytes/2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("not so many answers are on their way")
			}
			if time.Since(asked) > pieceTimeout {
				takeNone()
				asked = time.Now()
			}
		}
		if n := bytes(); n > maxAnswersBytes/2 {
			t.Errorf("%d MiB are on their way to one peer", n>>20)
		}
		_, err := client.Request(t.Context(), server.ID(), echo, nil, size)
		if errors.Is(err, ErrBusy) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("one more answer: %v, want ErrBusy", err)
		}
	}
	third := newHost(t, Options{})
	waitFor(t, "a connection", func() bool { return third.Connect(t.Context(), server.Addrs()[0]) == nil })
	waitFor(t, "another peer to get all of it", func() bool { // again on a machine that does nothing for a while
		b, err := third.Request(t.Context(), server.ID(), echo, nil, size)
		if errors.Is(err, ErrBusy) {
			t.Fatal("there is no room for another peer")
		}
		return err == nil && len(b) == size
	})
}
