//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"runtime"

	"gorgonia.org/cu"

	"github.com/moot-net/moot/node/internal/cuda/cublas"
	"github.com/moot-net/moot/node/internal/cuda/cushim"
	"github.com/moot-net/moot/node/internal/tensor"
)

// minCUDA is the version of PTX's toolkit, minDriver the drivers that read it.
const (
	minCUDA   = 11080
	minDriver = "520 or later"
)

// Devices lists the GPUs, whether they can be used or not. It allocates nothing
// on them but the driver's own context, for a moment.
func Devices() ([]Info, error) {
	if err := cushim.Open(); err != nil {
		return nil, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, call("cuDeviceGetCount", err)
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: there is none (CUDA_VISIBLE_DEVICES can hide them)", cushim.ErrNoDevice)
	}
	list := make([]Info, n)
	for i := range list {
		list[i] = query(i)
	}
	return list, nil
}

// Query describes a GPU, and fails if it cannot be used.
func Query(ordinal int) (Info, error) {
	list, err := Devices()
	switch {
	case err != nil:
		return Info{}, err
	case ordinal < 0 || ordinal >= len(list):
		return Info{}, fmt.Errorf("cuda:%d: %w: there are %d, counted from 0", ordinal, cushim.ErrNoDevice, len(list))
	case list[ordinal].Err != nil:
		return list[ordinal], fmt.Errorf("cuda:%d: %w", ordinal, list[ordinal].Err)
	}
	return list[ordinal], nil
}

// query reads what there is to know about a device.
func query(ordinal int) Info {
	i := Info{Ordinal: ordinal, CUDA: cu.Version()}
	i.Driver, _ = cushim.DriverVersion() // not known without NVML
	i.Err = i.read()
	if i.Err == nil && i.CUDA < minCUDA {
		i.Err = fmt.Errorf("%w: it is for CUDA %s, must be for %s or later: update the driver (%s)", ErrOldDriver, version(i.CUDA), version(minCUDA), minDriver)
	}
	if i.Err == nil && i.Capability < targets[0] {
		_, i.Err = modules(i.Capability)
	}
	return i
}

// read fills what the driver tells.
func (i *Info) read() error {
	dev, err := cu.GetDevice(i.Ordinal)
	if err != nil {
		return call("cuDeviceGet", err)
	}
	if i.Name, err = dev.Name(); err != nil {
		return call("cuDeviceGetName", err)
	}
	a, err := dev.Attributes(cu.ComputeCapabilityMajor, cu.ComputeCapabilityMinor, cu.MultiprocessorCount, cu.PciDomainID, cu.PciBusID, cu.PciDeviceID)
	if err != nil {
		return call("cuDeviceGetAttribute", err)
	}
	i.Capability, i.SMs, i.Bus = 10*a[0]+a[1], a[2], fmt.Sprintf("%08X:%02X:%02X.0", a[3], a[4], a[5])
	if i.TotalBytes, err = dev.TotalMem(); err != nil {
		return call("cuDeviceTotalMem", err)
	}
	if s, err := cushim.ReadSensors(i.Bus); err == nil {
		i.Celsius, i.Watts, i.LimitWatts, i.Busy, i.Fan = s.Celsius, s.Watts, s.LimitWatts, s.Busy, s.Fan
	}
	if i.CuBLAS, err = cublas.Open(); err != nil {
		i.CuBLAS, i.NoCuBLAS = "", err
	}
	runtime.LockOSThread() // on which the context is current
	defer runtime.UnlockOSThread()
	context, err := dev.RetainPrimaryCtx()
	if err != nil {
		return call("cuDevicePrimaryCtxRetain", err)
	}
	err = call("cuCtxSetCurrent", cu.SetCurrentContext(context))
	if err == nil {
		i.FreeBytes, _, err = cu.MemInfo()
		err = call("cuMemGetInfo", err)
	}
	return errors.Join(err, call("cuDevicePrimaryCtxRelease", dev.ReleasePrimaryCtx()))
}

// Sizes says what a backend on this device takes memory for.
func (i Info) Sizes(float32s bool) tensor.Sizes {
	d := &device{capability: i.Capability, sms: i.SMs}
	s := tensor.Sizes{ActivationBytes: 2, LogitsValues: logitsValues, HostTables: true, Offload: true}
	if float32s {
		s.ActivationBytes = 4
	}
	s.Scratch = func(list []tensor.Product, tokens, heads int) int64 {
		return int64(d.scratchBytes(list, tokens, heads, float32s))
	}
	return s
}

// logitsValues gives the products of the output layer many rows: 256 MiB.
const logitsValues = 64 << 20

// overheadBytes are for arguments and results of operations, and for what
// rounding up takes.
const overheadBytes = ringBytes + 128<<10

// scratchBytes returns what operations need: a workspace, and the overhead.
func (d *device) scratchBytes(list []tensor.Product, tokens, heads int, float32s bool) int {
	most := 4 * (tokens*heads + 257) // of attention's backward pass
	for _, t := range list {
		most = max(most, d.productBytes(phantom(t, float32s)))
	}
	return blocks(most, alignment)*alignment + overheadBytes
}

// phantom is a product of matrices that are nowhere, and lie well.
func phantom(t tensor.Product, float32s bool) product {
	at := uintptr(alignment)
	matrix := func(rows, cols int, trans bool, kind tensor.Kind) view {
		if trans {
			rows, cols = cols, rows
		}
		return view{ptr: at, rows: rows, cols: cols, stride: cols, bf16: kind == tensor.Half || kind == tensor.Activation && !float32s}
	}
	p := product{
		c: matrix(t.Rows, t.Cols, false, t.C), a: matrix(t.Rows, t.Inner, t.TransA, t.A), b: matrix(t.Inner, t.Cols, t.TransB, t.B),
		transA: t.TransA, transB: t.TransB, add: t.Add, exact: float32s,
	}
	if t.Rank > 0 {
		p.a2, p.b2 = matrix(t.Rows, t.Rank, t.TransA, tensor.Activation), matrix(t.Rank, t.Cols, t.TransB, tensor.Plain)
	}
	if t.B == tensor.FourBits {
		p.nf4 = &nf4Matrix{rows: p.b.rows, cols: p.b.cols}
		p.b = view{}
	}
	return p
}
