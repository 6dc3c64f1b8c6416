package app

import (
	"errors"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/train"
)

// spareMemory stays free beside a trainer.
const spareMemory = 64 << 20

// planMemory makes a trainer fit into the memory that is free: activations that
// do not fit are computed again in the backward pass, which changes no bit of
// the result. E_RAM says with numbers why that is not enough. Where free memory
// cannot be told, there is enough.
func (n *node) planMemory(o *train.Options) error {
	free, err := n.room(o)
	if err != nil {
		return err
	}
	if free < 0 {
		return nil
	}
	o.ActivationBytes = 0
	need, err := train.EstimateMemory(*o)
	if err != nil {
		if errors.Is(err, model.ErrUnsupported) {
			return api.Errorf(api.CodeModel, "%w", err)
		}
		return err
	}
	if need.Total()+spareMemory <= free {
		return nil
	}
	if room := free - spareMemory - need.Weights - need.Training - need.Scratch; room > 0 {
		o.ActivationBytes = room
		if _, err := train.EstimateMemory(*o); err == nil {
			return nil
		}
	}
	e := ramError(need.Total()+spareMemory, free, "%s of weights, %s of adapter and optimizer, %s of activations, %s for single operations",
		megabytes(need.Weights), megabytes(need.Training), megabytes(need.Activations), megabytes(need.Scratch))
	if n.gpu != nil {
		return api.Errorf(api.CodeVRAM, "on the GPU %w", e).WithHint("%s", e.Hint)
	}
	return e
}

// room returns the free memory of the device that trains, -1 if it cannot be
// told, and says in o how that device takes memory.
func (n *node) room(o *train.Options) (int64, error) {
	if n.gpu == nil {
		free, err := n.freeMemory()
		if err != nil {
			return -1, nil //nolint:nilerror // then there is enough
		}
		return free, nil
	}
	sizes, free, err := n.gpu.Room()
	if err != nil {
		return 0, n.gpuError(err)
	}
	o.Sizes = sizes
	return free, nil
}

// openGPU gives the options of a trainer a backend on the GPU.
func (n *node) openGPU(o *train.Options) error {
	err := n.gpu.Open(o)
	if err != nil && !errors.Is(err, model.ErrUnsupported) {
		return n.gpuError(err)
	}
	return err
}

func (n *node) gpuError(err error) error {
	return api.Errorf(api.CodeGPU, "%w", err).WithHint("%s", n.gpu.Hint(err))
}

func ramError(need, free int64, format string, args ...any) *api.Error {
	return api.Errorf(api.CodeRAM, "training takes %s of memory ("+format+"), %s are free", append(append([]any{megabytes(need)}, args...), megabytes(free))...).
		WithHint("close other programs, or choose a run with a smaller model, one in four bits (--quantize nf4), or shorter samples")
}
