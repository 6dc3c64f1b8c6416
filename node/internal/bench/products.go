package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/tensor"
)

//go:embed sgemm.py
var sgemmScript string

// shapes are the products M x N x K that are compared: squares, and those of the
// two models' layers, of the vocabulary and of adapters. They are X W^T, or dY W
// where an n follows.
var shapes = []string{
	"512x512x512", "1024x1024x1024", "2048x2048x2048", "4096x4096x4096",
	"1024x288x288", "1024x768x288", "1024x288x768", "256x32000x288",
	"1024x768x768", "1024x2048x768", "1024x768x2048", "256x32000x768",
	"1024x288x288:n", "1024x288x768:n", "1024x768x2048:n", "256x768x32000:n",
	"1024x16x768", "1024x768x16",
}

// turnTime is about how long one program multiplies before it is the other's
// turn.
const turnTime = 20 * time.Millisecond

// turn is how long a product took, in seconds: on average, the fastest one, and
// of processor time.
type turn struct {
	Seconds float64 `json:"seconds"`
	Fastest float64 `json:"fastest"`
	CPU     float64 `json:"cpu"`
}

// multiplier is a program that multiplies when it is told to.
type multiplier struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startMultiplier starts a program, which first says what it multiplies with.
func startMultiplier(ctx context.Context, threads int, program string, args ...string) (m *multiplier, kind string, err error) {
	m = &multiplier{cmd: command(ctx, program, args...)}
	for _, v := range []string{"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} {
		m.cmd.Env = append(m.cmd.Env, v+"="+strconv.Itoa(threads))
	}
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, "", err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	m.out = bufio.NewReader(out)
	if err := m.cmd.Start(); err != nil {
		return nil, "", err
	}
	if err := m.read(&kind); err != nil {
		return nil, "", errors.Join(err, m.close())
	}
	return m, kind, nil
}

func (m *multiplier) read(v any) error {
	line, err := m.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.cmd.Path, err)
	}
	return nil
}

func (m *multiplier) multiply(shape string) (t turn, err error) {
	if _, err := io.WriteString(m.in, shape+"\n"); err != nil {
		return t, fmt.Errorf("%s: %w", m.cmd.Path, err)
	}
	return t, m.read(&t)
}

func (m *multiplier) close() error {
	if err := m.in.Close(); err != nil {
		return err
	}
	return m.cmd.Wait()
}

func measureProducts(ctx context.Context, o *options, result figures) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours, _, err := startMultiplier(ctx, o.threads, self, workerCommand, "sgemm", strconv.Itoa(o.threads))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.close()) }()
	var theirs *multiplier
	if o.pythonHas(ctx, "numpy", "True") {
		var blas string
		if theirs, blas, err = startMultiplier(ctx, o.threads, o.python, "-c", sgemmScript); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, theirs.close()) }()
		if blas != "openblas" {
			theirs = nil
		}
	}
	fmt.Printf("matrix products in float32, %d threads: GFLOP/s of the fastest call, of the median turn, and per second of processor time\n", o.threads)
	fmt.Printf("%-17s %8s %8s %7s   %8s %8s %7s   %8s %8s %7s\n", "M x N x K", "moot", "openblas", "ratio", "moot", "openblas", "ratio", "moot", "openblas", "ratio")
	var all [3][]float64
	for _, shape := range shapes {
		c, err := compare(ours, theirs, shape, 5*o.runs)
		if err != nil {
			return err
		}
		fmt.Printf("%-17s", shape)
		for i, v := range c {
			if theirs == nil {
				fmt.Printf(" %8.1f %8s %7s  ", v.ours, "-", "-")
				continue
			}
			fmt.Printf(" %8.1f %8.1f %7.2f  ", v.ours, v.theirs, v.ratio)
			all[i] = append(all[i], v.ratio)
		}
		fmt.Println()
		if theirs != nil {
			result.set("sgemm_"+strings.ReplaceAll(shape, ":", "_")+"_ratio_openblas", c[1].ratio)
		}
	}
	fmt.Println()
	if theirs != nil {
		// The figures are those of the product that does worst.
		result.set("sgemm_ratio_openblas_fastest", slices.Min(all[0]))
		result.set("sgemm_ratio_openblas", slices.Min(all[1]))
		result.set("sgemm_ratio_openblas_cpu", slices.Min(all[2]))
	}
	return nil
}

// comparison are GFLOP/s.
type comparison struct{ ours, theirs, ratio float64 }

// compare lets the programs take turns and returns what came out by the fastest
// call, by the median turn, and by processor time. theirs may be nil.
func compare(ours, theirs *multiplier, shape string, turns int) (c [3]comparison, err error) {
	var a, b []turn
	start := time.Now()
	for i := 0; i < turns && (i < 3 || time.Since(start) < 20*time.Second); i++ {
		t, err := ours.multiply(shape)
		if err != nil {
			return c, err
		}
		a = append(a, t)
		if theirs == nil {
			continue
		}
		if t, err = theirs.multiply(shape); err != nil {
			return c, err
		}
		b = append(b, t)
	}
	m, n, k, _, err := parseShape(shape)
	if err != nil {
		return c, err
	}
	flops := 2e-9 * float64(m) * float64(n) * float64(k)
	for i, of := range []func(turn) float64{
		func(t turn) float64 { return t.Fastest }, func(t turn) float64 { return t.Seconds }, func(t turn) float64 { return t.CPU },
	} {
		typical := median
		if i == 0 {
			typical = slices.Min[[]float64]
		}
		x, y, ratios := column(a, of), column(b, of), []float64{}
		for j := range y {
			ratios = append(ratios, y[j]/x[j])
		}
		c[i].ours = flops / typical(x)
		if theirs == nil {
			continue
		}
		c[i].theirs, c[i].ratio = flops/typical(y), median(ratios)
		if i == 0 {
			c[i].ratio = c[i].ours / c[i].theirs
		}
	}
	return c, nil
}

func column[T any](list []T, of func(T) float64) (v []float64) {
	for _, t := range list {
		v = append(v, of(t))
	}
	return v
}

func parseShape(shape string) (m, n, k int, plain bool, err error) {
	dims, form, _ := strings.Cut(shape, ":")
	if _, err := fmt.Sscanf(dims, "%dx%dx%d", &m, &n, &k); err != nil {
		return 0, 0, 0, false, fmt.Errorf("shape %q: %w", shape, err)
	}
	return m, n, k, form == "n", nil
}

// multiplyOnDemand is the multiplier of package cpu.
func multiplyOnDemand(threads int, in io.Reader, out io.Writer) error {
	b := cpu.New(cpu.Options{Threads: threads})
	answer := json.NewEncoder(out)
	if err := answer.Encode(b.Kernels()); err != nil {
		return err
	}
	var shape string
	var product func()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if lines.Text() != shape {
			shape = lines.Text()
			var err error
			if product, err = ownProduct(b, shape); err != nil {
				return err
			}
			product()
		}
		var t turn
		calls, start, used := 0., time.Now(), processorSeconds()
		t.Fastest = 1e9
		for passed := time.Duration(0); passed < turnTime; passed = time.Since(start) {
			begin := time.Now()
			product()
			t.Fastest = min(t.Fastest, time.Since(begin).Seconds())
			calls++
		}
		t.Seconds, t.CPU = time.Since(start).Seconds()/calls, (processorSeconds()-used)/calls
		if err := answer.Encode(t); err != nil {
			return err
		}
	}
	return nil
}

func ownProduct(b *cpu.Backend, shape string) (func(), error) {
	m, n, k, plain, err := parseShape(shape)
	if err != nil {
		return nil, err
	}
	x, w, c := b.Alloc(m*k).Mat(0, m, k), b.Alloc(n*k).Mat(0, n, k), b.Alloc(m*n).Mat(0, m, n)
	r := rand.New(rand.NewPCG(1, 1))
	for _, v := range []tensor.Mat{x, w} {
		for i := range v.Host() {
			v.Host()[i] = float32(r.NormFloat64())
		}
	}
	if plain {
		w = w.Reshape(k, n)
	}
	return func() { b.MatMul(c, x, w, tensor.MatMul{TransB: !plain}) }, nil
}
