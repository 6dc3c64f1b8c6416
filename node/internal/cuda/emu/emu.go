//go:build cuda && cgo

// Package emu builds an emulated CUDA driver for tests: a libcuda.so.1 whose
// kernels are the real .cu files, compiled by g++ and run on the CPU. See
// src/cuemu.h for what it checks, src/emudrv.cpp for the environment variables that say
// what device it pretends to be.
package emu

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/cpuid/v2"
	"golang.org/x/sync/errgroup"
)

//go:embed src
var sources embed.FS

// ErrNoCompiler is returned where there is no g++, or no processor that the
// fibres know.
var ErrNoCompiler = errors.New("the emulated CUDA driver needs g++ on an amd64 machine")

// Options say what to build.
type Options struct {
	// Kernels holds the .cu and .cuh files.
	Kernels fs.FS
	// Targets are the compute capabilities to compile for, 61 for 6.1.
	// Default 61, 75 and 80.
	Targets []int
	// Dir keeps what was built, for the next call with the same sources.
	// Default: the user's cache folder.
	Dir string
}

// Driver is an emulated driver.
type Driver struct {
	Path   string // of libcuda.so.1
	CUBLAS string // path of an emulated cuBLAS
	lib
}

// Build compiles the driver and the kernels, or finds them as an earlier call
// left them.
func Build(o Options) (*Driver, error) {
	gxx, err := exec.LookPath("g++")
	if err != nil || runtime.GOARCH != "amd64" || runtime.GOOS != "linux" {
		return nil, ErrNoCompiler
	}
	if len(o.Targets) == 0 {
		o.Targets = []int{61, 75, 80}
	}
	if o.Dir == "" {
		o.Dir = cacheDir()
	}
	b := &builder{gxx: gxx, dir: o.Dir, flags: flags()}
	if out, err := exec.Command(gxx, "--version").Output(); err == nil {
		b.version, _, _ = strings.Cut(string(out), "\n")
	}
	if err := b.read(o.Kernels); err != nil {
		return nil, fmt.Errorf("build the emulated driver: %w", err)
	}
	path, err := b.build(o.Targets)
	if err != nil {
		return nil, fmt.Errorf("build the emulated driver: %w", err)
	}
	return &Driver{Path: path, CUBLAS: filepath.Join(filepath.Dir(path), "libcublas.so.12")}, nil
}

func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "moot-emu")
}

func flags() []string {
	f := []string{
		"-std=c++20", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-fno-threadsafe-statics",
		"-fno-exceptions", "-fsanitize=alignment", "-DHOST_EMU", "-w",
	}
	if cpuid.CPU.Supports(cpuid.AVX2, cpuid.FMA3, cpuid.F16C) {
		f = append(f, "-mavx2", "-mfma", "-mf16c")
	}
	return f
}

// builder holds all sources, and keeps what it makes under names that are
// hashes of what went into them.
type builder struct {
	gxx, version, dir string
	flags             []string
	headers, kernels  map[string][]byte
}

func (b *builder) read(kernels fs.FS) error {
	b.headers, b.kernels = map[string][]byte{}, map[string][]byte{}
	for _, f := range []fs.FS{sources, kernels} {
		err := fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := fs.ReadFile(f, path)
			switch filepath.Ext(path) {
			case ".cu":
				b.kernels[filepath.Base(path)] = text
			case ".cuh", ".h", ".cpp":
				b.headers[filepath.Base(path)] = text
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(b.kernels) == 0 {
		return errors.New("no .cu files")
	}
	return nil
}

func (b *builder) build(targets []int) (string, error) {
	src, err := os.MkdirTemp("", "moot-emu-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(src)
	for _, files := range []map[string][]byte{b.headers, b.kernels} {
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(src, name), text, 0o644); err != nil {
				return "", err
			}
		}
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return "", err
	}
	c := &compilation{builder: b, src: src}
	path, err := c.all(targets)
	b.prune()
	return path, err
}

// prune removes what nobody has used for a week.
func (b *builder) prune() {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > 7*24*time.Hour {
			os.RemoveAll(filepath.Join(b.dir, e.Name())) // the next call tries again
		}
	}
}

// compilation is a builder with its sources written to a folder.
type compilation struct {
	*builder
	src string
}

// all makes one folder with libcuda.so.1, libcublas.so.12 and a library of kernels for each
// target, and returns the path of the former.
func (c *compilation) all(targets []int) (string, error) {
	var g errgroup.Group
	g.SetLimit(max(1, min(runtime.NumCPU(), 8)))
	driver := ""
	g.Go(func() (err error) {
		driver, err = c.made("driver", ".so", c.headers["emudrv.cpp"], func(out string) error {
			return c.run("-shared", "-Wl,-soname,libcuda.so.1", "-o", out, filepath.Join(c.src, "emudrv.cpp"), "-ldl", "-lpthread")
		})
		return err
	})
	cublas := ""
	g.Go(func() (err error) {
		cublas, err = c.made("cublas", ".so", c.headers["cublas.cpp"], func(out string) error {
			return c.run("-shared", "-Wl,-soname,libcublas.so.12", "-o", out, filepath.Join(c.src, "cublas.cpp"), "-ldl")
		})
		return err
	})
	names := make([]string, 0, len(c.kernels))
	for name := range c.kernels {
		names = append(names, name)
	}
	slices.Sort(names)
	objects := make([][]string, len(targets))
	for i, target := range targets {
		objects[i] = make([]string, len(names)+1)
		for j, name := range names {
			g.Go(func() (err error) {
				objects[i][j], err = c.object(name, target)
				return err
			})
		}
		g.Go(func() (err error) {
			end := filepath.Join(c.src, "kernels.cpp")
			objects[i][len(names)], err = c.made("end", ".o", slices.Concat(c.headers["kernels.cpp"], c.headers["cuemu.h"]), func(out string) error {
				return c.run("-c", "-o", out, end)
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}

	all := []string{driver, cublas}
	libs := make([]string, len(targets))
	for i := range targets {
		var err error
		libs[i], err = c.made("kernels", ".so", []byte(strings.Join(objects[i], "\n")), func(out string) error {
			return c.run(append([]string{"-shared", "-o", out}, objects[i]...)...)
		})
		if err != nil {
			return "", err
		}
		all = append(all, libs[i])
	}
	// The folder holds links, so that drivers that differ in one kernel share
	// the rest.
	dir, err := c.made("emu", "", []byte(strings.Join(all, "\n")), func(out string) error {
		if err := os.MkdirAll(out, 0o755); err != nil {
			return err
		}
		if err := os.Link(driver, filepath.Join(out, "libcuda.so.1")); err != nil {
			return err
		}
		if err := os.Link(cublas, filepath.Join(out, "libcublas.so.12")); err != nil {
			return err
		}
		for i, target := range targets {
			if err := os.Link(libs[i], filepath.Join(out, fmt.Sprintf("sm%d.so", target))); err != nil {
				return err
			}
		}
		return nil
	})
	return filepath.Join(dir, "libcuda.so.1"), err
}

// made returns the path of what make makes, under a name that stands for
// content and compiler; it is made once.
func (c *compilation) made(name, ext string, content []byte, make func(out string) error) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, c.version, c.flags)
	h.Write(content)
	path := filepath.Join(c.dir, name+"-"+hex.EncodeToString(h.Sum(nil)[:10])+ext)
	if now := time.Now(); os.Chtimes(path, now, now) == nil {
		return path, nil
	}
	tmp, err := os.MkdirTemp(c.dir, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "out"+ext)
	if err := make(out); err != nil {
		return "", err
	}
	if err := os.Rename(out, path); err != nil {
		if _, serr := os.Stat(path); serr != nil { // else another process was faster
			return "", err
		}
	}
	return path, nil
}

var (
	kernelName = regexp.MustCompile(`CUEMU_GLOBAL\s+void\s+(\w+)\s*\(`)
	include    = regexp.MustCompile(`(?m)^\s*#\s*include\s+"([^"]+)"`)
)

// object compiles one .cu file for a target, with a registration of each kernel
// that the preprocessor's output defines.
func (c *compilation) object(name string, target int) (string, error) {
	content := slices.Concat(c.kernels[name], c.headers["cuemu.h"], c.included(c.kernels[name], map[string]bool{}), fmt.Append(nil, target))
	return c.made(strings.TrimSuffix(name, ".cu"), ".o", content, func(out string) error {
		arch := fmt.Sprintf("-D__CUDA_ARCH__=%d", target*10)
		file := filepath.Join(c.src, name)
		text, err := c.output("-E", "-P", "-x", "c++", arch, "-DCUEMU_SCAN", file)
		if err != nil {
			return err
		}
		var unit bytes.Buffer
		fmt.Fprintf(&unit, "#include \"cuemu.h\"\n#include %q\n", file)
		for _, m := range kernelName.FindAllSubmatch(text, -1) {
			fmt.Fprintf(&unit, "CUEMU_REGISTER(%s)\n", m[1])
		}
		tu := filepath.Join(filepath.Dir(out), "unit.cpp")
		if err := os.WriteFile(tu, unit.Bytes(), 0o644); err != nil {
			return err
		}
		return c.run("-c", arch, "-I", c.src, "-o", out, tu)
	})
}

// included returns the text of the headers that text includes.
func (c *compilation) included(text []byte, seen map[string]bool) []byte {
	var all []byte
	for _, m := range include.FindAllSubmatch(text, -1) {
		name := string(m[1])
		if seen[name] {
			continue
		}
		seen[name] = true
		all = slices.Concat(all, c.headers[name], c.included(c.headers[name], seen))
	}
	return all
}

func (c *compilation) run(args ...string) error {
	_, err := c.output(args...)
	return err
}

func (c *compilation) output(args ...string) ([]byte, error) {
	cmd := exec.Command(c.gxx, append(slices.Clone(c.flags), args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("g++: %w\n%s", err, stderr.String())
	}
	return out, nil
}
