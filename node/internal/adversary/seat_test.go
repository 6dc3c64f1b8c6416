package adversary

import (
	"context"
	"math/rand/v2"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// seatState is what a hostile seat knows of its run.
type seatState struct {
	mu   sync.Mutex
	at   cid.Cid     // guarded by mu
	rec  *msg.Record // guarded by mu
	said msg.Round   // guarded by mu; it spoke in rounds up to this one
	had  bool        // guarded by mu; it had a seat
	size uint64      // guarded by mu; of deltas
	lies uint64      // guarded by mu
}

// follow brings the records after the last that is known.
func (h *hostileSeat) follow(ctx context.Context) {
	after := h.first
	if id, _ := h.now(); id.Defined() {
		after = id
	}
	list, ids := h.sees.records(ctx, after)
	if len(list) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at, h.rec = ids[len(ids)-1], list[len(list)-1]
	h.had = h.had || seatOf(h.rec, h.id()) >= 0
	for _, r := range list {
		for _, e := range r.Commits {
			if c, _, err := msg.OpenAs[*msg.Commit](e); err == nil {
				h.size = c.DeltaBytes
			}
		}
	}
}

func (h *hostileSeat) now() (cid.Cid, *msg.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at, h.rec
}

func (h *hostileSeat) seated() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.had
}

func (h *hostileSeat) deltaBytes() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(h.size, 1)
}

// once calls fn if it was not called in this round.
func (h *hostileSeat) once(n msg.Round, fn func()) {
	h.mu.Lock()
	again := n <= h.said
	h.said = max(h.said, n)
	h.mu.Unlock()
	if !again {
		fn()
	}
}

// random is a stream of its own for each lie: they are told at the same time.
func (h *hostileSeat) random() *rand.Rand {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lies++
	return rand.New(rand.NewPCG(*seed, h.lies))
}
