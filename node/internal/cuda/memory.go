//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/moot-net/moot/node/internal/cuda/cuext"
)

// alignment is that of every allocation: wide enough for any vector load.
const alignment = 256

// arena is the device memory in use: chunks from the driver, cut into pieces.
// The first chunk is to hold all that was planned, so that nothing is asked for
// while training.
type arena struct {
	chunks []chunk
	pieces map[uintptr]int // size of each piece that is out
	limit  int             // bytes of all chunks, 0: what the device has
	used   int             // bytes of all pieces
	peak   int             // the most that used ever was
	grown  int             // chunks after the first
}

// chunk is what one call to the driver returned. Its free list is in rising
// order, and no two entries touch.
type chunk struct {
	base uintptr
	size int
	free []extent
}

type extent struct {
	at   uintptr
	size int
}

// minChunk is the least that the driver is asked for, so that small tensors
// share a chunk.
const minChunk = 8 << 20

// reserve asks the driver for a chunk of memory.
func (d *device) reserve(bytes int) error {
	bytes = blocks(bytes, alignment) * alignment
	a := &d.arena
	if have := a.size(); a.limit > 0 && have+bytes > a.limit {
		return fmt.Errorf("%s more than the limit of %s, %s in use: %w", mebi(bytes), mebi(a.limit), mebi(have), cuext.ErrOutOfMemory)
	}
	var p cu.DevicePtr
	var err error
	d.do(func() error {
		if p, err = cu.MemAlloc(int64(bytes)); err != nil {
			free, total, infoErr := cu.MemInfo()
			err = errors.Join(fmt.Errorf("%s of device memory (%s of %s free): %w", mebi(bytes), mebi(int(free)), mebi(int(total)), call("cuMemAlloc", err)), call("cuMemGetInfo", infoErr))
		}
		return nil
	})
	if err == nil {
		err = d.err()
	}
	if err != nil {
		return err
	}
	if len(a.chunks) > 0 {
		a.grown++
	}
	a.chunks = append(a.chunks, chunk{base: uintptr(p), size: bytes, free: []extent{{uintptr(p), bytes}}})
	return nil
}

func mebi(n int) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func (a *arena) size() int {
	n := 0
	for _, c := range a.chunks {
		n += c.size
	}
	return n
}

// take cuts a piece off the first extent that is large enough.
func (a *arena) take(bytes int) (uintptr, bool) {
	for i := range a.chunks {
		c := &a.chunks[i]
		for j, e := range c.free {
			if e.size < bytes {
				continue
			}
			if e.size == bytes {
				c.free = slices.Delete(c.free, j, j+1)
			} else {
				c.free[j] = extent{e.at + uintptr(bytes), e.size - bytes}
			}
			a.pieces[e.at] = bytes
			a.used += bytes
			a.peak = max(a.peak, a.used)
			return e.at, true
		}
	}
	return 0, false
}

// put gives a piece back.
func (a *arena) put(p uintptr) {
	bytes, ok := a.pieces[p]
	if !ok {
		panic(fmt.Sprintf("bug: %#x is not allocated", p))
	}
	delete(a.pieces, p)
	a.used -= bytes
	for i := range a.chunks {
		c := &a.chunks[i]
		if p < c.base || p >= c.base+uintptr(c.size) {
			continue
		}
		j, _ := slices.BinarySearchFunc(c.free, p, func(e extent, p uintptr) int {
			if e.at < p {
				return -1
			}
			return 1
		})
		c.free = slices.Insert(c.free, j, extent{p, bytes})
		if j+1 < len(c.free) && c.free[j].at+uintptr(c.free[j].size) == c.free[j+1].at {
			c.free[j].size += c.free[j+1].size
			c.free = slices.Delete(c.free, j+1, j+2)
		}
		if j > 0 && c.free[j-1].at+uintptr(c.free[j-1].size) == c.free[j].at {
			c.free[j-1].size += c.free[j].size
			c.free = slices.Delete(c.free, j, j+1)
		}
	}
}

// alloc returns device memory. Its values are anything.
func (d *device) alloc(bytes int) (uintptr, error) {
	if d.arena.pieces == nil {
		d.arena.pieces = map[uintptr]int{}
	}
	bytes = blocks(max(1, bytes), alignment) * alignment
	if p, ok := d.arena.take(bytes); ok {
		return p, nil
	}
	if err := d.reserve(max(bytes, minChunk)); err != nil {
		if bytes >= minChunk {
			return 0, err
		}
		if err := d.reserve(bytes); err != nil {
			return 0, err
		}
	}
	p, _ := d.arena.take(bytes)
	return p, nil
}

// free gives memory back to the arena. What is queued may still use it, and
// whatever gets it next comes after that.
func (d *device) free(p uintptr) {
	if p != 0 {
		d.arena.put(p)
	}
}

// release gives all memory back to the driver.
func (d *device) release() {
	chunks := d.arena.chunks
	d.arena = arena{limit: d.arena.limit}
	d.work, d.ring.device = workspace{}, 0
	d.always(func() error {
		err := call("cuStreamSynchronize", d.stream.Synchronize())
		for _, c := range chunks {
			err = errors.Join(err, call("cuMemFree", cu.MemFree(cu.DevicePtr(c.base))))
		}
		return err
	})
}

// workspace is memory for the time of one operation.
type workspace struct {
	ptr   uintptr
	bytes int
}

// workspace returns device memory that belongs to the caller until the next
// operation; a second call returns the same memory.
func (d *device) workspace(bytes int) uintptr {
	if bytes > d.work.bytes {
		d.free(d.work.ptr)
		d.work = workspace{}
		p, err := d.alloc(bytes)
		if err != nil {
			d.fail(fmt.Errorf("workspace of an operation: %w", err))
			return 0
		}
		d.work = workspace{p, bytes}
	}
	return d.work.ptr
}

// ring carries small arguments of operations to the device: indices, spans.
// What is written to it is there for the operations that are queued until the
// ring has come round.
type ring struct {
	host   []byte // pinned
	device uintptr
	at     int
}

// ringBytes is the least size of the ring.
const ringBytes = 1 << 20

// send copies values to the device and returns where they are, for operations
// that are queued before send was called some hundred times more.
func send[T int32 | int64 | float32 | uint64](d *device, values []T) uint64 {
	if len(values) == 0 {
		return 0
	}
	return d.sendBytes(bytesOf(values))
}

// bytesOf returns the memory of values.
func bytesOf[T any](values []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*int(unsafe.Sizeof(one)))
}

func (d *device) sendBytes(b []byte) uint64 {
	if d.failed.Load() != nil {
		return 0
	}
	r, n := &d.ring, blocks(len(b), alignment)*alignment
	if 4*n > len(r.host) || r.device == 0 {
		if err := d.growRing(4 * n); err != nil {
			d.fail(fmt.Errorf("memory for arguments of operations: %w", err))
			return 0
		}
	}
	if r.at+n > len(r.host) {
		d.sync() // all that was sent was used
		r.at = 0
	}
	from, to := r.host[r.at:r.at+len(b)], r.device+uintptr(r.at)
	r.at += n
	copy(from, b)
	d.later(func() error { return cuext.ToDevice(to, from, d.stream) })
	return uint64(to)
}

func (d *device) growRing(bytes int) (err error) {
	r := &d.ring
	d.sync()
	d.free(r.device)
	r.device, r.at = 0, 0
	if bytes = max(bytes, ringBytes); bytes > len(r.host) {
		d.freeRing()
		d.do(func() error {
			r.host, err = cuext.HostAlloc(bytes)
			return nil
		})
	}
	if err == nil {
		err = d.err()
	}
	if err == nil {
		r.device, err = d.alloc(len(r.host))
	}
	return err
}

func (d *device) freeRing() {
	host := d.ring.host
	d.ring.host = nil
	d.always(func() error { return cuext.HostFree(host) })
}
