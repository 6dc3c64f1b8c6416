// Package device chooses what a node computes with, and opens it for a trainer.
// It never takes the processor where a GPU was asked for.
package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/node/internal/train"
)

// Names of devices, beside cuda:N.
const (
	Auto = "auto" // the first GPU in a binary built with CUDA, else the processor
	CPU  = "cpu"
)

// Parse reads the name of a device. The processor has ordinal -1.
func Parse(name string) (ordinal int, err error) {
	switch {
	case name == CPU, name == Auto && !cuda.Built:
		return -1, nil
	case name == Auto:
		return 0, nil
	}
	number, ok := strings.CutPrefix(name, "cuda:")
	if ordinal, err = strconv.Atoi(number); !ok || err != nil || ordinal < 0 || ordinal > 1023 {
		return 0, fmt.Errorf("device is %q, must be auto, cpu or cuda:N, N counted from 0", name)
	}
	return ordinal, nil
}

// Name is the name of the GPU with that ordinal.
func Name(ordinal int) string { return fmt.Sprintf("cuda:%d", ordinal) }

// GPU is a graphics card that a node computes with.
type GPU struct {
	ordinal int
	reserve int64 // bytes that are left free beside spareBytes
	log     *slog.Logger
	query   func(ordinal int) (cuda.Info, error)
	watch   watch
}

// Find returns the GPU of that name, nil if it is the processor. Whether it can
// be used is told by its methods, each time.
func Find(name string, log *slog.Logger) (*GPU, error) {
	ordinal, err := Parse(name)
	if ordinal < 0 || err != nil {
		return nil, err
	}
	return &GPU{ordinal: ordinal, log: log, query: cuda.Query, watch: watch{read: cuda.ReadUse, pid: os.Getpid()}}, nil
}

// Reserve makes training leave so many bytes of what is free. It is called
// before the device is used.
func (g *GPU) Reserve(bytes int64) { g.reserve = bytes }

// maxText is how long a device's text can be in a status.
const maxText = 64

// Text is what people and other peers are told about the device, and why it
// cannot be used.
func (g *GPU) Text() (string, error) {
	i, err := g.query(g.ordinal)
	if err != nil {
		return fmt.Sprintf("cuda:%d cannot be used (%s)", g.ordinal, cuda.ErrorKind(err)), err
	}
	tail := fmt.Sprintf(", %d GB, %s)", (i.TotalBytes+1<<29)>>30, i.CapabilityText())
	head := fmt.Sprintf("cuda:%d (%s", i.Ordinal, i.Name)
	for len(head)+len(tail) > maxText {
		_, size := utf8.DecodeLastRuneInString(head)
		head = head[:len(head)-size]
	}
	return head + tail, nil
}

// Hint is the way out of an error.
func (g *GPU) Hint(err error) string {
	if hint := cuda.Hint(err); hint != "" {
		return hint + `; or compute on the processor with --device cpu`
	}
	return `compute on the processor with --device cpu`
}

// spareBytes stay free: for code, and for cuBLAS.
const spareBytes = 192 << 20

// Room returns how a trainer takes memory there, and how much there is for it.
func (g *GPU) Room() (tensor.Sizes, int64, error) {
	i, err := g.query(g.ordinal)
	if err != nil {
		return tensor.Sizes{}, 0, err
	}
	return i.Sizes(false), max(0, i.FreeBytes-spareBytes-g.reserve), nil
}

// most bounds what a backend takes, 0: what there is.
func (g *GPU) most(free int64) int64 {
	if g.reserve == 0 {
		return 0
	}
	return max(1, free-g.reserve)
}

// choicesFile says in a checkpoint's folder which products cuBLAS computes. They
// are kept, since another choice would give other bits after a restart.
const choicesFile = "products.json"

// Open gives o a backend on the GPU, with the memory that training takes.
func (g *GPU) Open(o *train.Options) error {
	i, err := g.query(g.ordinal)
	if err != nil {
		return err
	}
	o.Sizes = i.Sizes(false)
	plan, err := train.EstimateMemory(*o)
	if err != nil {
		return err
	}
	products, err := train.Products(*o)
	if err != nil {
		return err
	}
	known, err := readChoices(o.CheckpointDir)
	if err != nil {
		return err
	}
	b, err := cuda.Open(cuda.Options{
		Device: g.ordinal, MemoryBytes: g.most(i.FreeBytes), ReserveBytes: plan.Total(), ScratchBytes: plan.Scratch, Products: products,
		Choices: known, Log: g.log,
	})
	if err != nil {
		return err
	}
	g.log.Info("device memory was planned", "device", i.Name, "weights", plan.Weights, "training", plan.Training,
		"activations", plan.Activations, "scratch", plan.Scratch, "bytes", plan.Total(), "free", i.FreeBytes, "host", plan.Host,
		"precision", b.Precision())
	if err := writeChoices(o.CheckpointDir, known, b.Choices()); err != nil {
		return errors.Join(err, b.Close())
	}
	o.Backend = b
	g.watch.opened.Store(true)
	return nil
}

func readChoices(dir string) (map[string]string, error) {
	if dir == "" {
		return nil, nil
	}
	path := filepath.Join(dir, choicesFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	known := map[string]string{}
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err != nil {
		return nil, fmt.Errorf("read choices of products in %s: %w (remove it to measure again)", path, err)
	}
	return known, nil
}

func writeChoices(dir string, known, choices map[string]string) error {
	if dir == "" || len(choices) == len(known) {
		return nil
	}
	b, err := json.MarshalIndent(choices, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, choicesFile)
	if err := os.WriteFile(path+".tmp", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
