package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/shard"
)

// cellProtocol brings a message of a cell's own round to a seat of the cell: the
// request is the envelope, and there is no answer but that it came.
const cellProtocol = "/moot/cellmsg/1"

// cellPatience is how long one seat may take to receive a message. What does not
// arrive is sent again as what is gossiped is.
const cellPatience = 30 * time.Second

// maxTelling is how many seats are told something at a time.
const maxTelling = 8

// tellCell sends an own message to the seats of a cell, each by itself: nobody
// passes it on, and others have no use for it.
func (r *Runner) tellCell(ctx context.Context, s msg.Signed, to []peer.ID) {
	for _, id := range to {
		if id == r.hub.self {
			continue
		}
		r.running.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, cellPatience)
			defer cancel()
			if !acquire(ctx, r.telling) {
				return
			}
			defer func() { <-r.telling }()
			if _, err := r.hub.o.Host.Request(ctx, id, cellProtocol, s.Envelope, 1); err != nil && ctx.Err() == nil {
				r.log.DebugContext(ctx, "message did not reach a seat of the cell", "peer", id, "err", err)
			}
		})
	}
}

// answerCell takes a message of a cell. Each seat speaks for itself; nobody else
// has anything to say.
func (h *Hub) answerCell(ctx context.Context, from peer.ID, b []byte) ([]byte, error) {
	if !h.o.Host.Preferred(from) {
		return nil, errStranger // before any signature is checked
	}
	s, err := msg.Open(b)
	if err != nil {
		return nil, err
	}
	if s.From != from {
		return nil, fmt.Errorf("a message of %s, and not of who brought it", s.From)
	}
	r, err := h.member(s.Message.RunID(), from)
	if err != nil {
		return nil, err
	}
	r.post(ctx, round.Received{Signed: s})
	return nil, nil
}

// pullMean brings what a cell came to.
func (r *Runner) pullMean(e round.Pull) {
	ctx := r.scopes.of(e.Round)
	r.running.Go(func() {
		d, err := r.deltas.getBits(ctx, e.Aggregate, fold.CellBits, e.Round, e.From)
		if ctx.Err() != nil {
			return
		}
		reason := msg.Held
		switch {
		case errors.Is(err, errSize), errors.Is(err, pull.ErrTooLarge):
			reason = msg.BadSize
		case errors.Is(err, fold.ErrRange), errors.Is(err, fold.ErrCodec), errors.Is(err, shard.ErrInvalid):
			reason = msg.BadCodec
		case err != nil:
			reason = msg.Timeout
		case d.Bits() != fold.CellBits:
			reason = msg.BadCodec
		}
		r.post(ctx, round.Checked{Commit: e.Commit, Reason: reason})
	})
}

// foldCell computes the mean of a cell and makes it available to others.
func (r *Runner) foldCell(ctx context.Context, e round.Fold) (round.Folded, error) {
	c, err := e.ComputeCell(payloads{ctx, r, e.Round})
	if err != nil {
		return round.Folded{}, fmt.Errorf("mean of a cell: %w", err)
	}
	id, err := r.states.store.PutBytes(ctx, c.Delta)
	if err != nil {
		return round.Folded{}, fmt.Errorf("store the mean of a cell: %w", err)
	}
	r.deltas.leftovers.made(id, e.Round)
	return round.Folded{ID: e.ID, State: id, Applied: c.Applied}, nil
}

// sharesOfCells are the contributions of the seats of a round with cells. In a run
// without audits it is not known what each of them gave, and those of a cell have
// equal shares.
func sharesOfCells(known []round.Share, rec *msg.Record) []api.Contribution {
	out := []api.Contribution{}
	cells := round.CellsOf(rec.Parent, rec.Seats)
	for i, c := range rec.Contributions {
		if int(c.Seat) >= len(cells) || i >= len(rec.Commits) {
			continue
		}
		res, _, err := msg.OpenAs[*msg.CellResult](rec.Commits[i])
		if err != nil {
			continue
		}
		var shares []round.Share
		for _, s := range known {
			if s.Cell == c.Seat+1 {
				shares = append(shares, s)
			}
		}
		if len(shares) == 0 {
			shares = equalShares(c, &res.Summary, cells[c.Seat])
		}
		var sum float64
		for _, s := range shares {
			sum += weightOf(s)
		}
		for _, s := range shares {
			a := api.Contribution{
				Peer: rec.Seats[s.Seat].Peer.String(), Commit: c.Commit.String(), Delta: c.Delta.String(), Tokens: s.Tokens, Clip: q16(c.ClipQ16),
			}
			if sum > 0 {
				a.Weight = uint64(float64(c.Weight) * weightOf(s) / sum)
			}
			switch {
			case s.Reason != msg.Held:
				a.Reason = s.Reason.String()
			case c.Reason != msg.Held:
				a.Reason = c.Reason.String()
			}
			out = append(out, a)
		}
	}
	return out
}

// weightOf is the weight of a share beside others of its cell.
func weightOf(s round.Share) float64 { return float64(s.Counted) * float64(s.FactorQ16) }

// equalShares divides what a cell gave among those of its members that gave.
func equalShares(c msg.Contribution, sum *msg.CellSummary, members []int) []round.Share {
	var list []round.Share
	for k, seat := range members {
		if msg.Has(sum.Included, k) {
			list = append(list, round.Share{Seat: uint32(seat), Cell: c.Seat + 1, FactorQ16: fold.FactorFull})
		}
	}
	for i := range list {
		list[i].Tokens = c.Tokens / uint64(len(list))
		list[i].Counted = list[i].Tokens
	}
	return list
}

// comparableDeltas is how many deltas a delta of this round is compared with.
func comparableDeltas(seats int) int {
	if c := round.Cells(seats); c > 0 {
		return seats / c
	}
	return seats
}
