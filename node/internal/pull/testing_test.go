package pull

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/fetchtest"
	"github.com/moot-net/moot/node/internal/p2p"
)

const mib = fetchtest.MiB

// What the suite brings along.
var (
	memory    = fetchtest.Memory
	content   = fetchtest.Content
	dagOf     = fetchtest.DAG
	openShard = fetchtest.OpenShard
	copySome  = fetchtest.Copy
	wantAll   = fetchtest.WantAll
	newHost   = fetchtest.NewHost
	running   = fetchtest.Running
	within    = fetchtest.Within
	waitFor   = fetchtest.WaitFor
	forger    = fetchtest.Forger
	slowly    = fetchtest.Slowly
)

type (
	watcher = fetchtest.Watcher
	altered = fetchtest.Altered
)

// bans are the peers that were banned.
type bans struct {
	mu  sync.Mutex
	ids []peer.ID
}

func (b *bans) add(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ids = append(b.ids, p)
}

func (b *bans) list() []peer.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]peer.ID(nil), b.ids...)
}

// node is a host on loopback with a puller that runs.
type node struct {
	h    *p2p.Host
	p    *Puller
	bs   blockstore.Blockstore
	bans bans
	stop func() // of the puller, and then the host
}

type nodeOptions struct {
	key    crypto.PrivKey
	listen string
	seeds  []*node // to connect to
	alone  bool    // asks no router
	opt    Options
}

func newNode(t testing.TB, bs blockstore.Blockstore, o nodeOptions) *node {
	t.Helper()
	if o.listen == "" {
		o.listen = "/ip4/127.0.0.1/tcp/0"
	}
	n := &node{h: newHost(t, o.key, o.listen), bs: bs}
	if !o.alone {
		o.opt.Router = n.h
	}
	o.opt.Ban = func(p peer.ID, reason string) {
		n.bans.add(p)
		n.h.Block(p, reason, time.Hour)
	}
	var err error
	if n.p, err = New(n.h.Libp2p(), bs, o.opt); err != nil {
		t.Fatal(err)
	}
	stop := running(t, n.p.Run)
	n.stop = sync.OnceFunc(func() {
		stop()
		n.h.Close()
	})
	t.Cleanup(n.stop)
	for _, s := range o.seeds {
		fetchtest.Connect(t, n.h, s.h.Addrs()[0])
	}
	return n
}

// full is a store that takes nothing.
type full struct{ blockstore.Blockstore }

var errDiskFull = errors.New("no space left on device")

func (full) Put(context.Context, blocks.Block) error       { return errDiskFull }
func (full) PutMany(context.Context, []blocks.Block) error { return errDiskFull }
