package runner

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// proofWorth is by how many rounds others have to be ahead for a proof of their
// head to be asked for before all records up to it.
const proofWorth = 64

// proveHead asks a peer that is far ahead for a proof of its head. Then the head
// is known to be the run's before its records are brought, and its state is
// pulled meanwhile. It returns false if the peer has shown a proof that is none.
func (r *Runner) proveHead(ctx context.Context, from peer.ID) bool {
	known, ok := r.lastCertified()
	claims, worth := r.claims(from), r.hub.proofWorth
	if p := r.proven.Load(); !r.manifest.SkipLinks || !ok || claims < known.Record.Round+worth || p != nil && claims < p.Record.Round+worth {
		return true
	}
	req := syncRequest{Run: r.id}
	req.Locator = append(req.Locator, known.ID)
	b, err := r.hub.o.Host.Request(ctx, from, proofProtocol, req.encode(), maxSyncResponse)
	var items []syncItem
	if err == nil {
		items, err = decodeSyncItems(b)
	}
	if err != nil || len(items) == 0 {
		return true // it may be of an older version, or on another branch
	}
	head, err := r.rules.VerifyProof(known, items)
	if err != nil {
		r.log.WarnContext(ctx, "peer showed a proof that is none", "peer", from, "err", err)
		return false
	}
	r.log.InfoContext(ctx, "head was proven", "round", head.Record.Round, "records", len(items), "bytes", len(b), "peer", from)
	r.proven.Store(&head)
	r.bringState(ctx, head)
	return true
}

// lastCertified is the last record of the own chain that has a certificate, or
// the genesis record.
func (r *Runner) lastCertified() (round.Link, bool) {
	for n := r.ledger.Head().Record.Round; ; n-- {
		k, _, ok := r.ledger.At(n)
		if !ok || n == 0 || k.Certificate != nil {
			return k, ok
		}
	}
}

// claims is the round of the head that a peer says it has; 0 if it said nothing.
func (r *Runner) claims(id peer.ID) msg.Round {
	v := r.view.Load()
	if v == nil {
		return 0
	}
	for _, m := range v.Members {
		if m.Status.Peer == id {
			return m.Status.Round - min(m.Status.Round, 1)
		}
	}
	return 0
}
