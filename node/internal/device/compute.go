package device

import (
	"errors"
	"fmt"

	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/tensor"
)

// ErrNoRoom is wrapped by the error for what does not fit into the memory of a
// GPU.
var ErrNoRoom = errors.New("not enough memory on the GPU")

// Computing is what a model that is not trained is to do.
type Computing struct {
	Dir    string // of the model
	Tokens int    // of the largest batch that is measured
	Text   int    // tokens of the longest text that is written
	// Replaced tells that all parameters are replaced, which takes them a second
	// time, in float32.
	Replaced bool
}

// OpenModel takes the device, with the memory that computing with a model takes
// beside what others hold there, a trainer of this node among them. The caller
// closes the backend.
func (g *GPU) OpenModel(m Computing) (*cuda.Backend, error) {
	c, err := model.ReadConfig(m.Dir)
	if err != nil {
		return nil, err
	}
	weights, err := model.Weights(m.Dir)
	if err != nil {
		return nil, err
	}
	i, err := g.query(g.ordinal)
	if err != nil {
		return nil, err
	}
	load := model.Workload{Tokens: m.Tokens, Counted: m.Tokens, Sizes: i.Sizes(false)}
	scratch := load.Sizes.Scratch(c.Products(load, weights), load.Tokens, c.Heads)
	need := scratch + c.WorkspaceBytes(load) + c.RopeBytes(max(m.Tokens, m.Text))
	need += 2 * int64(load.Sizes.ActivationBytes) * int64(c.Layers*c.KVHeads*c.HeadDim) * int64(m.Text) // keys and values
	for _, w := range weights {
		if !w.Gathered || w.Kind == tensor.Plain || !load.Sizes.HostTables {
			need += w.Bytes()
		}
	}
	if m.Replaced {
		need += 4 * int64(c.Params())
	}
	if room := max(0, i.FreeBytes-spareBytes-g.reserve); need > room {
		return nil, fmt.Errorf("%s takes %d MB of memory on cuda:%d, %d MB are free for it: %w", c.Architecture, need/1e6, g.ordinal, room/1e6, ErrNoRoom)
	}
	b, err := cuda.Open(cuda.Options{
		Device: g.ordinal, MemoryBytes: g.most(i.FreeBytes), ReserveBytes: need, ScratchBytes: scratch, Log: g.log,
	})
	if err != nil {
		return nil, g.Failed(err)
	}
	g.watch.opened.Store(true)
	return b, nil
}

// Failed adds ErrNoRoom to an error of a backend that had no memory.
func (g *GPU) Failed(err error) error {
	if cuda.ErrorKind(err) == "no_memory" && !errors.Is(err, ErrNoRoom) {
		return errors.Join(ErrNoRoom, err)
	}
	return err
}
