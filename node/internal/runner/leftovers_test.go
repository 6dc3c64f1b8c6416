package runner

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
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
	r.removeLeftovers(t.Context(), 2, nil)
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

// One peer that says it is ahead does not keep a newcomer from being ready.
func TestAhead(t *testing.T) {
	_, s1 := nodeKey(t, 1)
	_, s2 := nodeKey(t, 2)
	_, s3 := nodeKey(t, 3)
	_, x := nodeKey(t, 4)
	_, y := nodeKey(t, 5)
	seats := []msg.Seat{{Peer: s1}, {Peer: s2}, {Peer: s3}}
	at := func(n msg.Round) round.Member { return round.Member{Status: &msg.Status{Round: n}} }
	of := func(m round.Member, id string) round.Member {
		i := slices.Index([]string{"s1", "s2", "s3", "x", "y"}, id)
		m.Status.Peer = []msg.Seat{{Peer: s1}, {Peer: s2}, {Peer: s3}, {Peer: x}, {Peer: y}}[i].Peer
		return m
	}
	const now, far = 5, msg.MaxRound
	for _, tt := range []struct {
		name    string
		members []round.Member
		want    bool
	}{
		{"nobody was heard", nil, true},
		{"a seat is where we are", []round.Member{of(at(now), "s1")}, false},
		{"a stranger lies", []round.Member{of(at(now), "s1"), of(at(far), "x"), of(at(far), "y")}, false},
		{"one seat of three lies", []round.Member{of(at(now), "s1"), of(at(now), "s2"), of(at(far), "s3")}, false},
		{"two seats of three are ahead", []round.Member{of(at(now), "s1"), of(at(6), "s2"), of(at(6), "s3"), of(at(now), "x")}, true},
		{"only strangers, ahead", []round.Member{of(at(6), "x")}, true},
		{"only strangers, here", []round.Member{of(at(now), "x"), of(at(now), "y")}, false},
	} {
		v := &round.View{Round: now, Members: tt.members, Head: round.Link{Record: &msg.Record{NextSeats: seats}}}
		if got := ahead(v); got != tt.want {
			t.Errorf("%s: ahead is %v, want %v", tt.name, got, tt.want)
		}
	}
}
