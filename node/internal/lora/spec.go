package lora

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrUnsupported is wrapped by the error for a kind of adapter that this
// package does not know. The message names the setting.
var ErrUnsupported = errors.New("unsupported")

// AllLinear as the only target stands for every linear layer of the blocks.
const AllLinear = "all-linear"

// MaxRank bounds ranks.
const MaxRank = 1024

// Spec says which linear layers get an adapter, and of what kind.
type Spec struct {
	Rank  int
	Alpha int
	// Targets are the names of layers ("q_proj", "layers.0.mlp.up_proj"): a
	// layer is a target when its path is the name or ends with "." and it.
	Targets []string

	// What follows exists in adapters made elsewhere; a run does not use it.

	// Pattern, if not empty, replaces Targets: a regular expression that
	// matches the whole path.
	Pattern string
	// Blocks restricts targets to these blocks; empty: all.
	Blocks []int
	// RSLoRA scales by alpha/sqrt(rank) instead of alpha/rank.
	RSLoRA bool
	// Ranks and Alphas override Rank and Alpha for layers whose path ends with
	// a key (a regular expression) at a dot.
	Ranks, Alphas []Override
}

// Override is an entry of a rank or alpha pattern.
type Override struct {
	Key   string
	Value int
}

// Module is a linear layer of a model: its path in the checkpoint without
// ".weight" ("model.layers.0.self_attn.q_proj") and its width.
type Module struct {
	Path    string
	In, Out int
}

// TensorInfo is a tensor of an adapter. A is (rank, in), B is (out, rank).
type TensorInfo struct {
	Name       string // as PEFT names it in adapter_model.safetensors
	Rows, Cols int
}

// Part is the adapter of one layer: where its tensors are in a layout, and its
// rank and scaling.
type Part struct {
	Module
	Rank  int
	Scale float32
	A, B  int // index in the layout
}

const (
	namePrefix = "base_model.model."
	suffixA    = ".lora_A.weight"
	suffixB    = ".lora_B.weight"
)

// Layout lists the tensors that s makes on modules, sorted bytewise by name.
// Laid out row-major one after the other they are the adapter's parameters.
func (s Spec) Layout(modules []Module) ([]TensorInfo, error) {
	layout, _, err := s.resolve(modules)
	return layout, err
}

// Params returns the number of parameters of a layout.
func Params(layout []TensorInfo) int {
	n := 0
	for _, t := range layout {
		n += t.Rows * t.Cols
	}
	return n
}

// resolve applies s to the layers of a model.
func (s Spec) resolve(modules []Module) ([]TensorInfo, []Part, error) {
	match, err := s.matcher()
	if err != nil {
		return nil, nil, err
	}
	var layout []TensorInfo
	var parts []Part
	hits := map[string]bool{}
	for _, m := range modules {
		target, ok := match(m.Path)
		if !ok {
			continue
		}
		hits[target] = true
		rank, err := override(s.Ranks, m.Path, s.Rank)
		if err != nil {
			return nil, nil, err
		}
		alpha, err := override(s.Alphas, m.Path, s.Alpha)
		if err != nil {
			return nil, nil, err
		}
		if rank < 1 || rank > MaxRank {
			return nil, nil, fmt.Errorf("lora rank of %s is %d, must be 1 to %d", m.Path, rank, MaxRank)
		}
		parts = append(parts, Part{Module: m, Rank: rank, Scale: s.scale(rank, alpha)})
		layout = append(layout,
			TensorInfo{namePrefix + m.Path + suffixA, rank, m.In},
			TensorInfo{namePrefix + m.Path + suffixB, m.Out, rank})
	}
	if len(parts) == 0 {
		return nil, nil, fmt.Errorf("no layer of the model is a target of the adapter (%s)", s.describeTargets())
	}
	for _, t := range s.Targets {
		if s.Pattern == "" && !hits[t] && t != AllLinear {
			return nil, nil, fmt.Errorf("%w: lora target %q is the name of no linear layer in the model's blocks", ErrUnsupported, t)
		}
	}
	slices.SortFunc(layout, func(a, b TensorInfo) int { return strings.Compare(a.Name, b.Name) })
	at := make(map[string]int, len(layout))
	for i, t := range layout {
		at[t.Name] = i
	}
	for i := range parts {
		parts[i].A, parts[i].B = at[namePrefix+parts[i].Path+suffixA], at[namePrefix+parts[i].Path+suffixB]
	}
	return layout, parts, nil
}

func (s Spec) describeTargets() string {
	if s.Pattern != "" {
		return strconv.Quote(s.Pattern)
	}
	return strings.Join(s.Targets, ", ")
}

func (s Spec) scale(rank, alpha int) float32 {
	if s.RSLoRA {
		return float32(float64(alpha) / math.Sqrt(float64(rank)))
	}
	return float32(float64(alpha) / float64(rank))
}

// matcher returns a function that says whether a path is a target, and which.
func (s Spec) matcher() (func(path string) (string, bool), error) {
	var whole *regexp.Regexp
	if s.Pattern != "" {
		var err error
		if whole, err = regexp.Compile(`^(?:` + s.Pattern + `)$`); err != nil {
			return nil, fmt.Errorf("lora target pattern: %w", err)
		}
	}
	return func(path string) (string, bool) {
		if len(s.Blocks) > 0 && !slices.Contains(s.Blocks, block(path)) {
			return "", false
		}
		if whole != nil {
			return s.Pattern, whole.MatchString(path)
		}
		for _, t := range s.Targets {
			if t == AllLinear || t == path || strings.HasSuffix(path, "."+t) {
				return t, true
			}
		}
		return "", false
	}, nil
}

// block returns the number of the block that a layer is in, -1 for none.
func block(path string) int {
	for _, part := range strings.Split(path, ".") {
		if n, err := strconv.Atoi(part); err == nil {
			return n
		}
	}
	return -1
}

func override(list []Override, path string, otherwise int) (int, error) {
	for _, o := range list {
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + o.Key + `)$`)
		if err != nil {
			return 0, fmt.Errorf("lora pattern %q: %w", o.Key, err)
		}
		if re.MatchString(path) {
			return o.Value, nil
		}
	}
	return otherwise, nil
}
