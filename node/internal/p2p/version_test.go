package p2p

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A peer of another version is told apart from one that is no peer of ours, in a
// sentence, before anything is sent.
func TestVersions(t *testing.T) {
	old, err := New(Options{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Agent: "moot/0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { old.Close() })
	called := false
	old.Handle("/moot/thing/1", 10, func(context.Context, peer.ID, []byte) ([]byte, error) {
		called = true
		return nil, nil
	})
	old.Libp2p().SetStreamHandler("/moot/thing/2", func(s network.Stream) { _ = s.Reset() })
	h, err := New(Options{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	waitFor(t, "a connection", func() bool { return h.Connect(t.Context(), old.Addrs()[0]) == nil })
	for proto, want := range map[string]string{
		"/moot/thing/3": "the peer (moot/0.1.0) speaks version 1, 2 of /moot/thing, this node version 3; the older of the two has to be updated",
		"/moot/other/1": "the peer (moot/0.1.0) does not speak /moot/other",
	} {
		_, err := h.Request(t.Context(), old.ID(), proto, []byte("x"), 10)
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", proto, err, want)
		}
	}
	if called {
		t.Error("the other was asked all the same")
	}
}
