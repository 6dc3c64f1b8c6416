package p2p

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
)

// What libp2p's services may take is what its constructor gives them.
func TestServiceLimits(t *testing.T) {
	ours, theirs := rcmgr.DefaultLimits, rcmgr.DefaultLimits
	before := ours.Scale(networkMemory, networkFiles)
	addServiceLimits(&ours)
	libp2p.SetDefaultServiceLimits(&theirs)
	got, want := ours.Scale(networkMemory, networkFiles).ToPartialLimitConfig(), theirs.Scale(networkMemory, networkFiles).ToPartialLimitConfig()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("limits (-libp2p's +ours):\n%s", diff)
	}
	if cmp.Equal(before.ToPartialLimitConfig(), want) {
		t.Error("the limits of services change nothing")
	}
}
