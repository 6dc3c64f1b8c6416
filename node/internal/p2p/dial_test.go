package p2p

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/multiformats/go-multiaddr"
)

// Strangers that fill the address book, which takes no more then, keep nobody from
// being dialled.
func TestFullAddressBook(t *testing.T) {
	t.Parallel()
	h, other := newHost(t, Options{}), newHost(t, Options{})
	book := h.host.Peerstore()
	for i := range maxAddresses/64 + 1 {
		var list []multiaddr.Multiaddr
		for k := range 64 {
			list = append(list, multiaddr.StringCast(fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/1", i/256, i%256, k)))
		}
		book.AddAddrs(peer.ID(fmt.Sprint("stranger ", i)), list, 24*time.Hour)
	}
	nowhere, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	dead := multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")
	if book.AddAddr(nowhere, dead, peerstore.TempAddrTTL); len(book.Addrs(nowhere)) != 0 {
		t.Fatal("the address book is not full")
	}
	waitFor(t, "a connection", func() bool { return h.Connect(t.Context(), other.Addrs()[0]) == nil })
	if err := h.Connect(t.Context(), fmt.Sprintf("%s/p2p/%s", dead, nowhere)); err == nil {
		t.Error("connected to nobody")
	}
	if list := book.Addrs(nowhere); len(list) != 0 {
		t.Errorf("addresses of who was not reached are kept beyond the bound: %v", list)
	}
}
