package runner

import (
	"context"
	"log/slog"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/exchange"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// HubOptions are what the runs of a node share. All but Log are needed.
type HubOptions struct {
	Key      crypto.PrivKey
	Host     *p2p.Host
	Gossip   *gossip.Gossip
	Exchange *exchange.Exchange
	Store    *shard.Store

	// ModelDir returns the folder of a model whose DAG is local. It may write
	// it first.
	ModelDir func(ctx context.Context, model cid.Cid) (string, error)
	// Threads is how many goroutines of a run compute.
	Threads int
	// Device and Agent are what other peers are told: "cpu (2 threads, avx2)",
	// "moot/0.1.0".
	Device string
	Agent  string
	// Emit is told what happens. It must not block.
	Emit func(api.Event)
	// Log is where it is told in words. Default: nowhere.
	Log *slog.Logger
}

// Hub is what the runs of a node share.
type Hub struct {
	o HubOptions
}

// NewHub makes a hub, and makes the node answer other peers of its runs.
func NewHub(o HubOptions) *Hub {
	return &Hub{o: o}
}

// Open prepares a run whose files are, or will be, in the folder dir. It
// starts nothing. A run can be open once at a time.
func (h *Hub) Open(dir string, m *run.Manifest) (*Runner, error) { panic("bug: not written yet") }
