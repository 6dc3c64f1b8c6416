package runner

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// A seat that sends what is no delta, round after round, does not fill the disks of
// others; and what a peer has in use does not go because somebody calls it a delta.
func TestLeftoversGo(t *testing.T) {
	t.Parallel()
	a := newNode(t, 80)
	man := launch(t, a, func(*run.Manifest) {})
	r, err := a.hub.Open(filepath.Join(a.dir, "run"), man)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	other := newNode(t, 81, a.addr())
	until(t, "connection", func() bool { return len(a.host.Peers()) > 0 })
	size := func() int64 {
		_, n, err := a.store.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := size()
	layout, err := man.Layout()
	if err != nil {
		t.Fatal(err)
	}
	check := func(n msg.Round, delta cid.Cid) msg.Reason {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return r.deltas.check(ctx, &msg.Commit{Round: n, Delta: delta, DeltaBytes: uint64(fold.EncodedBytes(layout, int(man.CodecBits))), CodecBits: man.CodecBits, Peer: other.host.ID(), Norm: 1})
	}
	for n := msg.Round(1); n <= 3; n++ {
		junk := make([]byte, fold.EncodedBytes(layout, int(man.CodecBits)))
		junk[0] = byte(n)
		id, err := other.store.PutBytes(t.Context(), junk)
		if err != nil {
			t.Fatal(err)
		}
		if reason := check(n, id); reason != msg.BadCodec {
			t.Fatalf("reason %v", reason)
		}
	}
	if reason := check(2, man.Dataset); reason == msg.Held {
		t.Fatal("a data set was held for a delta")
	}
	if size() == before {
		t.Fatal("nothing came")
	}
	// What was checked is known after a restart, too.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err = a.hub.Open(filepath.Join(a.dir, "run"), man); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	own, err := a.store.PutBytes(t.Context(), []byte("a delta that went into the mean of a cell"))
	if err != nil {
		t.Fatal(err)
	}
	r.deltas.leftovers.made(own, 2)
	used, err := a.store.PutBytes(t.Context(), []byte("a delta that is something else, too"))
	if err != nil {
		t.Fatal(err)
	}
	r.deltas.leftovers.made(used, 2)
	r.removeLeftovers(t.Context(), 2, []cid.Cid{used})
	for _, tt := range []struct {
		id   cid.Cid
		want bool
	}{{own, false}, {used, true}} {
		if ok, err := a.store.Has(t.Context(), tt.id); err != nil || ok != tt.want {
			t.Errorf("%s is here: %v, %v, want %v", tt.id, ok, err, tt.want)
		}
	}
	if _, err := a.store.Delete(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	if left := r.deltas.leftovers.upTo(9); len(left) != 1 {
		t.Errorf("%d deltas are left, want that of round 3", len(left))
	}
	if r.removeLeftovers(t.Context(), 3, nil); size() != before {
		t.Errorf("%d bytes more than before are left", size()-before)
	}
	if missing, _, _, err := a.store.Missing(t.Context(), man.Dataset); err != nil || len(missing) > 0 {
		t.Errorf("of the data set %d shards are missing: %v", len(missing), err)
	}
}
