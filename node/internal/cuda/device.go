//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"

	"gorgonia.org/cu"

	"github.com/moot-net/moot/node/internal/cuda/cuext"
)

// device is a GPU in use. One goroutine on one thread, its own, makes all calls
// to the driver, because a context belongs to a thread; others hand it commands
// through a queue. Launches are not waited for; what returns a result is.
//
// The first error stays: everything after it is skipped, and what reads results
// reads NaN.
type device struct {
	// constant after newDevice
	ordinal    int
	name       string
	capability int // major*10 + minor
	sms        int // multiprocessors
	maxShared  int // bytes of shared memory that a block can have
	stream     cu.Stream
	modules    map[string]*module

	queue  chan command
	ended  chan struct{}
	failed atomic.Pointer[error] // the first error

	// owned by the goroutine that calls
	kernels map[string]*kernel
	arena   arena
	work    workspace
	ring    ring
	blas    *blas // or nil

	// owned by run
	context cu.CUContext
}

// command is a launch, or fn to be called by the device's own goroutine.
type command struct {
	k           *kernel
	grid, block [3]int
	shared, n   int
	args        [cuext.MaxArgs]uint64
	fn          func() error
	done        chan<- struct{} // closed afterwards, unless nil
}

// queueLength is how many commands can wait for the driver.
const queueLength = 256

// newDevice starts to use a GPU.
func newDevice(ordinal int) (*device, error) {
	d := &device{
		ordinal: ordinal, queue: make(chan command, queueLength), ended: make(chan struct{}),
		kernels: map[string]*kernel{},
	}
	started := make(chan error)
	go d.run(started)
	if err := <-started; err != nil {
		<-d.ended
		return nil, fmt.Errorf("cuda:%d: %w", ordinal, err)
	}
	return d, nil
}

// run owns the driver's context until the queue is closed.
func (d *device) run(started chan<- error) {
	defer close(d.ended)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := d.start()
	started <- err
	if err != nil {
		return
	}
	for c := range d.queue {
		d.execute(&c)
		if c.done != nil {
			close(c.done)
		}
	}
	d.finish()
}

func (d *device) execute(c *command) {
	switch {
	case c.fn != nil:
		if err := c.fn(); err != nil {
			d.fail(err)
		}
	case d.failed.Load() != nil:
	default:
		if err := cuext.Launch(c.k.fn, c.grid, c.block, c.shared, d.stream, c.args[:c.n]); err != nil {
			d.fail(fmt.Errorf("kernel %s, grid %v, block %v, %d bytes of shared memory: %w", c.k.name, c.grid, c.block, c.shared, err))
		}
	}
}

// start is called by run: it takes the primary context and reads what the
// device can do.
func (d *device) start() (err error) {
	dev, err := cu.GetDevice(d.ordinal)
	if err != nil {
		return call("cuDeviceGet", err)
	}
	if d.name, err = dev.Name(); err != nil {
		return call("cuDeviceGetName", err)
	}
	attributes, err := dev.Attributes(cu.ComputeCapabilityMajor, cu.ComputeCapabilityMinor, cu.MultiprocessorCount)
	if err != nil {
		return call("cuDeviceGetAttribute", err)
	}
	d.capability, d.sms = attributes[0]*10+attributes[1], attributes[2]
	if d.maxShared, err = cuext.MaxSharedPerBlock(d.ordinal); err != nil {
		return err
	}
	if d.modules, err = modules(d.capability); err != nil {
		return err
	}
	if d.context, err = dev.RetainPrimaryCtx(); err != nil {
		return call("cuDevicePrimaryCtxRetain", err)
	}
	if err := cu.SetCurrentContext(d.context); err != nil {
		return errors.Join(call("cuCtxSetCurrent", err), call("cuDevicePrimaryCtxRelease", dev.ReleasePrimaryCtx()))
	}
	if d.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return errors.Join(call("cuStreamCreate", err), call("cuDevicePrimaryCtxRelease", dev.ReleasePrimaryCtx()))
	}
	return nil
}

// finish is called by run after the last command.
func (d *device) finish() {
	seen := map[*module]bool{}
	for _, m := range d.modules {
		if m.loaded && !seen[m] {
			seen[m] = true
			if err := m.m.Unload(); err != nil {
				d.fail(call("cuModuleUnload", err))
			}
		}
	}
	if err := d.stream.Destroy(); err != nil {
		d.fail(call("cuStreamDestroy", err))
	}
	if err := cu.Device(d.ordinal).ReleasePrimaryCtx(); err != nil {
		d.fail(call("cuDevicePrimaryCtxRelease", err))
	}
}

// call names the failed call of gorgonia.org/cu.
func call(name string, err error) error {
	if err == nil {
		return nil
	}
	return cuext.Failed(name, err)
}

// close gives all memory back and ends the device's goroutine. It returns the
// first error that the device ever had.
func (d *device) close() error {
	d.release()
	d.freeRing()
	close(d.queue)
	<-d.ended
	return d.err()
}

// fail keeps the first error.
func (d *device) fail(err error) { d.failed.CompareAndSwap(nil, &err) }

// err returns the first error.
func (d *device) err() error {
	if p := d.failed.Load(); p != nil {
		return fmt.Errorf("cuda:%d: %w", d.ordinal, *p)
	}
	return nil
}

// do calls fn on the device's own thread, after all commands before it, and
// waits for it. After an error it does nothing.
func (d *device) do(fn func() error) {
	if d.failed.Load() != nil {
		return
	}
	d.always(fn)
}

// always is do after an error too, for what frees memory.
func (d *device) always(fn func() error) {
	done := make(chan struct{})
	d.queue <- command{fn: fn, done: done}
	<-done
}

// later is do without waiting.
func (d *device) later(fn func() error) {
	if d.failed.Load() == nil {
		d.queue <- command{fn: fn}
	}
}

// kernel returns a kernel by name. The driver compiles its module at the first
// use.
func (d *device) kernel(name string) *kernel {
	if k := d.kernels[name]; k != nil {
		return k
	}
	k := &kernel{name: name}
	d.do(func() error {
		m := d.modules[name]
		if m == nil {
			return fmt.Errorf("bug: no kernel %s for compute capability %d.%d", name, d.capability/10, d.capability%10)
		}
		if !m.loaded {
			var err error
			if m.m, err = cu.LoadData(m.ptx); err != nil {
				return fmt.Errorf("compile kernels of %s.cu: %w", m.name, call("cuModuleLoadData", err))
			}
			m.loaded = true
		}
		var err error
		if k.fn, err = m.m.Function(name); err != nil {
			return fmt.Errorf("kernel %s: %w", name, call("cuModuleGetFunction", err))
		}
		return nil
	})
	d.kernels[name] = k
	return k
}

// launch starts a kernel with shared bytes of dynamic shared memory, after
// everything before it.
func (d *device) launch(k *kernel, grid, block [3]int, shared int, args ...uint64) {
	if d.failed.Load() != nil || grid[0]*grid[1]*grid[2] == 0 {
		return
	}
	if shared > 48<<10 && shared > k.shared {
		d.do(func() error {
			if err := cuext.SetMaxDynamicShared(k.fn, shared); err != nil {
				return fmt.Errorf("kernel %s, %d bytes of shared memory: %w", k.name, shared, err)
			}
			return nil
		})
		k.shared = shared
	}
	c := command{k: k, grid: grid, block: block, shared: shared, n: len(args)}
	copy(c.args[:], args)
	d.queue <- c
}

// sync waits until everything before it is done.
func (d *device) sync() {
	d.do(func() error { return call("cuStreamSynchronize", d.stream.Synchronize()) })
}

// double returns a float as an argument of a kernel, where it is a double.
func double(f float64) uint64 { return math.Float64bits(f) }

// blocks returns how many blocks of size each cover n.
func blocks(n, size int) int { return (n + size - 1) / size }
