package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/cuda"
)

func newGPU() *cobra.Command {
	var asJSON, noTest bool
	c := &cobra.Command{
		Use: "gpu", Short: "List the GPUs, and test them", Args: noArgs,
		Long: `Lists the NVIDIA GPUs of this machine, and tests each: it computes a product of
matrices, compares it with what the processor computes, and measures how fast it
is. Without a GPU that can be used it says why, and exits with code 12.`,
		Example: `  mootd gpu
  mootd gpu --json
  mootd --device cuda:0`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := lookForGPUs(!noTest)
			if err := r.print(cmd.OutOrStdout(), asJSON); err != nil {
				return err
			}
			return r.err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().BoolVar(&noTest, "no-test", false, "only list them")
	return c
}

// gpuReport is the answer. Fields are only ever added.
type gpuReport struct {
	Built   bool      `json:"built"` // with CUDA
	Devices []gpu     `json:"devices"`
	Error   *gpuError `json:"error,omitempty"` // why there is none that can be used

	err error
}

type gpuError struct {
	// Kind is not_built, no_library, no_driver, old_driver, old_device,
	// no_permission, no_device, no_memory or failed.
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

type gpu struct {
	Device     string    `json:"device"` // as for --device
	Name       string    `json:"name"`
	FreeBytes  int64     `json:"free_bytes"`
	TotalBytes int64     `json:"total_bytes"`
	Capability string    `json:"compute_capability"`
	SMs        int       `json:"multiprocessors"`
	Driver     string    `json:"driver,omitempty"`
	CUDA       string    `json:"cuda"` // that the driver is for
	Bus        string    `json:"pci_bus"`
	Precision  string    `json:"precision"`
	CuBLAS     string    `json:"cublas,omitempty"` // the library, or
	NoCuBLAS   string    `json:"no_cublas,omitempty"`
	Celsius    *int      `json:"celsius,omitempty"`
	Watts      *float64  `json:"watts,omitempty"`
	LimitWatts *float64  `json:"limit_watts,omitempty"`
	Busy       *int      `json:"busy_percent,omitempty"`
	Fan        *int      `json:"fan_percent,omitempty"`
	Error      *gpuError `json:"error,omitempty"` // why it cannot be used
	Test       *gpuTest  `json:"test,omitempty"`
}

type gpuTest struct {
	OK           bool    `json:"ok"`
	RelError     float64 `json:"relative_error"`
	Size         int     `json:"size,omitempty"` // of the matrices
	TFLOPS       float64 `json:"tflops,omitempty"`
	CuBLASTFLOPS float64 `json:"cublas_tflops,omitempty"`
	CopyGBs      float64 `json:"copy_gb_per_s,omitempty"`
	Millis       int64   `json:"ms"`
}

func tellGPUError(err error) *gpuError {
	return &gpuError{Kind: cuda.ErrorKind(err), Message: err.Error(), Hint: cuda.Hint(err)}
}

func lookForGPUs(test bool) *gpuReport {
	r := &gpuReport{Built: cuda.Built, Devices: []gpu{}}
	list, err := cuda.Devices()
	usable := 0
	for _, i := range list {
		g := describe(i)
		switch {
		case i.Err != nil:
			err = i.Err
		case test && !g.test(i.Ordinal):
			err = fmt.Errorf("%s: the self-test failed: %s", g.Device, g.Error.Message)
		default:
			usable++
		}
		r.Devices = append(r.Devices, g)
	}
	if usable == 0 && err != nil {
		r.Error = tellGPUError(err)
		e := api.Errorf(api.CodeGPU, "%w", err)
		if r.Error.Hint != "" {
			e = e.WithHint("%s", r.Error.Hint)
		}
		r.err = e
	}
	return r
}

func describe(i cuda.Info) gpu {
	g := gpu{
		Device: fmt.Sprintf("cuda:%d", i.Ordinal), Name: i.Name, FreeBytes: i.FreeBytes, TotalBytes: i.TotalBytes,
		Capability: i.CapabilityText(), SMs: i.SMs, Driver: i.Driver, CUDA: i.CUDAVersion(), Bus: i.Bus, Precision: i.Precision(),
		CuBLAS: i.CuBLAS, Celsius: i.Celsius, Watts: i.Watts, LimitWatts: i.LimitWatts, Busy: i.Busy, Fan: i.Fan,
	}
	if i.NoCuBLAS != nil {
		g.NoCuBLAS = i.NoCuBLAS.Error()
	}
	if i.Err != nil {
		g.Error = tellGPUError(i.Err)
	}
	return g
}

// test reports whether the GPU computes.
func (g *gpu) test(ordinal int) bool {
	began := time.Now()
	t, err := cuda.SelfTest(ordinal)
	g.Test = &gpuTest{
		OK: err == nil, RelError: t.Error, Size: t.Size, TFLOPS: t.TFLOPS, CuBLASTFLOPS: t.CuBLASTFLOPS, CopyGBs: t.CopyGBs,
		Millis: time.Since(began).Milliseconds(),
	}
	if err != nil {
		g.Error = tellGPUError(err)
	}
	return err == nil
}

func (r *gpuReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	for n, g := range r.Devices {
		if n > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s  %s\n", g.Device, g.Name)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, line := range g.lines() {
			fmt.Fprintf(t, "  %s\t%s\n", line[0], line[1])
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (g *gpu) lines() [][2]string {
	const gb = 1e9
	driver := "for CUDA " + g.CUDA
	if g.Driver != "" {
		driver = g.Driver + ", " + driver
	}
	list := [][2]string{
		{"memory", fmt.Sprintf("%.1f of %.1f GB free", float64(g.FreeBytes)/gb, float64(g.TotalBytes)/gb)},
		{"compute capability", fmt.Sprintf("%s, %d multiprocessors", g.Capability, g.SMs)},
		{"driver", driver},
		{"precision", g.Precision},
	}
	if g.CuBLAS != "" {
		list = append(list, [2]string{"cuBLAS", g.CuBLAS})
	} else {
		list = append(list, [2]string{"cuBLAS", "not found, moot's own products are used"})
	}
	var now []string
	if g.Celsius != nil {
		now = append(now, fmt.Sprintf("%d °C", *g.Celsius))
	}
	if g.Watts != nil && g.LimitWatts != nil {
		now = append(now, fmt.Sprintf("%.0f of %.0f W", *g.Watts, *g.LimitWatts))
	} else if g.Watts != nil {
		now = append(now, fmt.Sprintf("%.0f W", *g.Watts))
	}
	if g.Busy != nil {
		now = append(now, fmt.Sprintf("%d %% busy", *g.Busy))
	}
	if g.Fan != nil {
		now = append(now, fmt.Sprintf("fan at %d %%", *g.Fan))
	}
	if len(now) > 0 {
		list = append(list, [2]string{"now", strings.Join(now, ", ")})
	}
	switch t := g.Test; {
	case g.Error != nil:
		list = append(list, [2]string{"cannot be used", g.Error.Message})
		if g.Error.Hint != "" {
			list = append(list, [2]string{"what to do", g.Error.Hint})
		}
	case t != nil:
		speed := fmt.Sprintf("passed: %.3g TFLOP/s", t.TFLOPS)
		if t.CuBLASTFLOPS > 0 {
			speed += fmt.Sprintf(" (cuBLAS %.3g)", t.CuBLASTFLOPS)
		}
		list = append(list, [2]string{"self-test", fmt.Sprintf("%s at %d, copies at %.3g GB/s, error %.1g", speed, t.Size, t.CopyGBs, t.RelError)})
	}
	return list
}
