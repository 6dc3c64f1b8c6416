package main

import (
	"context"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/tensor"
)

//go:embed sgemm.py
var sgemmScript string

// shapes are the products M x N x K that are compared: a square, which is the
// figure reported, and those of the two models' layers.
var shapes = []string{"1024x1024x1024", "1024x288x288", "1024x768x288", "1024x768x768", "1024x2048x768"}

const productReps = 40

// products is what a program says about the speed of its matrix products.
type products struct {
	BLAS     string `json:"blas"`
	Products []struct {
		Shape        string  `json:"shape"`
		GFlops       float64 `json:"gflops"` // of the fastest one
		GFlopPerCPUs float64 `json:"gflop_per_cpu_s"`
	} `json:"products"`
}

func measureProducts(ctx context.Context, o *options, result figures) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	peer := o.pythonHas(ctx, "numpy", "True")
	var ours, theirs []products
	for range o.runs {
		var p products
		if err := output(ctx, &p, self, append([]string{workerCommand, "sgemm", strconv.Itoa(o.threads)}, shapes...)...); err != nil {
			return err
		}
		ours = append(ours, p)
		if !peer {
			continue
		}
		for _, v := range []string{"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} {
			if err := os.Setenv(v, strconv.Itoa(o.threads)); err != nil {
				return err
			}
		}
		var q products
		if err := output(ctx, &q, o.python, append([]string{"-c", sgemmScript, strconv.Itoa(productReps)}, shapes...)...); err != nil {
			return err
		}
		if peer = q.BLAS == "openblas"; peer {
			theirs = append(theirs, q)
		}
	}
	fmt.Printf("matrix products X W^T, %d threads: GFLOP/s of the fastest call, and per second of processor time (median)\n", o.threads)
	fmt.Printf("%-16s %8s %8s %7s   %8s %8s %7s\n", "M x N x K", "moot", "openblas", "ratio", "moot", "openblas", "ratio")
	for i, shape := range shapes {
		fastest := func(list []products) (wall, processor float64) {
			var all []float64
			for _, p := range list {
				wall = max(wall, p.Products[i].GFlops)
				all = append(all, p.Products[i].GFlopPerCPUs)
			}
			return wall, median(all)
		}
		w, p := fastest(ours)
		if len(theirs) == 0 {
			fmt.Printf("%-16s %8.1f %8s %7s   %8.1f\n", shape, w, "-", "-", p)
			continue
		}
		w2, p2 := fastest(theirs)
		fmt.Printf("%-16s %8.1f %8.1f %7.2f   %8.1f %8.1f %7.2f\n", shape, w, w2, w/w2, p, p2, p/p2)
		if i == 0 {
			result.set("sgemm_ratio_openblas", w/w2)
			result.set("sgemm_ratio_openblas_cpu", p/p2)
		}
	}
	fmt.Println()
	return nil
}

// ownProducts measures the products of package cpu.
func ownProducts(threads int, shapes []string) (products, error) {
	b := cpu.New(cpu.Options{Threads: threads})
	var out products
	out.BLAS = b.Kernels()
	r := rand.New(rand.NewPCG(1, 1))
	for _, shape := range shapes {
		var m, n, k int
		if _, err := fmt.Sscanf(shape, "%dx%dx%d", &m, &n, &k); err != nil {
			return products{}, fmt.Errorf("shape %q: %w", shape, err)
		}
		x, w, c := b.Alloc(m*k).Mat(0, m, k), b.Alloc(n*k).Mat(0, n, k), b.Alloc(m*n).Mat(0, m, n)
		for _, v := range []tensor.Mat{x, w} {
			for i := range v.Host() {
				v.Host()[i] = float32(r.NormFloat64())
			}
		}
		b.MatMul(c, x, w, tensor.MatMul{TransB: true})
		var wall, processor []float64
		for range productReps {
			start, used := time.Now(), processorSeconds()
			b.MatMul(c, x, w, tensor.MatMul{TransB: true})
			wall = append(wall, time.Since(start).Seconds())
			processor = append(processor, processorSeconds()-used)
		}
		flops := 2e-9 * float64(m) * float64(n) * float64(k)
		p := struct {
			Shape        string  `json:"shape"`
			GFlops       float64 `json:"gflops"`
			GFlopPerCPUs float64 `json:"gflop_per_cpu_s"`
		}{shape, flops / slices.Min(wall), 0}
		if used := median(processor); used > 0 {
			p.GFlopPerCPUs = flops / used
		}
		out.Products = append(out.Products, p)
	}
	return out, nil
}
