package app

import (
	"errors"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/device"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/proto/run"
)

// computer is what computes for one request.
type computer struct {
	text    string // for people
	options model.Options
	gpu     *device.GPU // nil: the processor
	backend *cuda.Backend
	node    *node
}

// computerFor opens what a request asks for. Where nothing was asked for and
// the GPU cannot be had, the processor takes its place, and progress is told so.
func (n *node) computerFor(q *api.Subject, src *source, progress api.ProgressFunc) (computer, error) {
	c := computer{text: n.processor, options: model.Options{Threads: n.threads}, node: n}
	gpu := n.gpu
	auto := q.Device == "" || q.Device == device.Auto
	if !auto && q.Device != n.keeper.device {
		var err error
		if gpu, err = device.Find(q.Device, n.log.With("component", "gpu")); err != nil {
			return c, api.Errorf(api.CodeUsage, "%w", err)
		}
	}
	if gpu == nil {
		return c, nil
	}
	if _, err := model.Weights(src.dir); err != nil {
		return c, modelError(err)
	}
	b, err := gpu.OpenModel(device.Computing{
		Dir: src.dir, Tokens: evalBatchTokens, Text: evalBatchTokens,
		Replaced: src.manifest != nil && src.manifest.Mode == run.ModeFull,
	})
	if err != nil {
		err = n.computerError(gpu, err)
		if auto {
			n.log.Warn("the processor computes in the place of the GPU", "err", err)
			progress(api.Progress{Phase: "load", Text: "computes on the processor: " + err.Error()})
			return c, nil
		}
		return c, err
	}
	c.gpu, c.backend, c.options.Backend = gpu, b, b
	if c.text, err = gpu.Text(); err != nil {
		return c, c.close(err)
	}
	return c, nil
}

// close gives the device back. It returns err, or what the device failed with:
// then what was computed is nothing.
func (c *computer) close(err error) error {
	if c.gpu == nil {
		return err
	}
	failed := c.backend.Close()
	if failed == nil {
		return err
	}
	if err != nil && !errors.Is(err, failed) {
		failed = errors.Join(err, failed)
	}
	return c.node.computerError(c.gpu, failed)
}

// computerError gives an error of a GPU that computes for a request its code.
func (n *node) computerError(gpu *device.GPU, err error) error {
	err = gpu.Failed(err)
	if errors.Is(err, device.ErrNoRoom) {
		return api.Errorf(api.CodeVRAM, "%w", err).WithHint("close programs that use the GPU, wait until the run's training is paused, or compute on the processor with --device cpu")
	}
	return api.Errorf(api.CodeGPU, "%w", err).WithHint("%s", gpu.Hint(err))
}
