package runner

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// fetched notes what is fetched, and from whom; nobody has what is gone.
type fetched struct {
	ids  []cid.Cid
	from []peer.ID
	gone cid.Cid
}

func (f *fetched) Fetch(_ context.Context, root cid.Cid, _ int64, from []peer.ID) error {
	f.ids, f.from = append(f.ids, root), append(f.from, from...)
	if root.Equals(f.gone) {
		return errors.New("nobody has it")
	}
	return nil
}

// TestBringBranch: all deltas of a branch are asked for, of their makers, the
// newest first, also when one is not to be had.
func TestBringBranch(t *testing.T) {
	layout, err := fold.NewLayout([]fold.Tensor{{Name: "a", Rows: 1, Cols: 8}})
	if err != nil {
		t.Fatal(err)
	}
	_, a := nodeKey(t, 1)
	_, b := nodeKey(t, 2)
	seats := []msg.Seat{{Peer: a}, {Peer: b}}
	record := func(deltas ...string) round.Link {
		r := &msg.Record{Seats: seats}
		for i, d := range deltas {
			r.Contributions = append(r.Contributions, msg.Contribution{Seat: uint32(i), Delta: rawCID(t, d)})
		}
		return round.Link{Record: r}
	}
	many := record("of a cell")
	many.Record.Seats = make([]msg.Seat, 60)
	f := &fetched{gone: rawCID(t, "2a")}
	r := &Runner{manifest: &run.Manifest{CodecBits: 2}, layout: layout, log: slog.New(slog.DiscardHandler), deltas: newDeltas(nil, f, layout, 2, 2)}
	r.bringBranch(t.Context(), []round.Link{record("1a", "1b"), many, record(), record("2a", "2b")})
	r.running.Wait()
	want := []cid.Cid{rawCID(t, "2a"), rawCID(t, "2b"), rawCID(t, "1a"), rawCID(t, "1b")}
	if !slices.Equal(f.ids, want) || !slices.Equal(f.from, []peer.ID{a, b, a, b}) {
		t.Errorf("fetched %v from %v", f.ids, f.from)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.ids = nil
	r.bringBranch(ctx, []round.Link{record("1a", "1b")})
	if r.running.Wait(); len(f.ids) > 1 {
		t.Errorf("%d are fetched at the end", len(f.ids))
	}
}
