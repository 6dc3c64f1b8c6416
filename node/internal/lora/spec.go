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

	// What follows is resolved when a run is launched: its manifest names
	// modules and their ranks.

	// Pattern, if not empty, replaces Targets: a regular expression that
	// matches the whole path.
	Pattern string
	// Blocks restricts targets to these blocks; empty: all. BlocksIn are the
	// names (regular expressions) of the lists that blocks are counted in
	// ("layers"); empty: any.
	Blocks   []int
	BlocksIn []string
	// Exclude are names of layers that are no targets, or ExcludePattern
	// matches their whole path.
	Exclude        []string
	ExcludePattern string
	// RSLoRA scales by alpha/sqrt(rank) instead of alpha/rank.
	RSLoRA bool
	// DoRA gives each adapted layer a magnitude for each output.
	DoRA bool
	// Bias says which biases were trained too, in PEFT's words: "lora_only"
	// or "all"; empty: none.
	Bias string
	// SaveModules are names of modules that were trained as a whole.
	SaveModules []string
	// FanInFanOut says that the base model has its weights as (in, out). The
	// adapter's tensors are the same. New sets it where a target is Transposed.
	FanInFanOut bool
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
	// Transposed: the checkpoint has the weight as (in,out), as GPT-2's has.
	Transposed bool
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
	Alpha int
	Scale float32 // that follows from them
	A, B  int     // index in the layout
	DoRA  bool    // has a magnitude too; see Adapter.Magnitude
}

const (
	namePrefix = "base_model.model."
	suffixA    = ".lora_A.weight"
	suffixB    = ".lora_B.weight"

	suffixMagnitude = ".lora_magnitude_vector"
	infixBase       = ".base_layer" // what PEFT calls a layer that it wraps
)

// ModuleOf returns the path of the layer whose A a tensor is.
func ModuleOf(tensor string) (path string, ok bool) {
	rest, ok := strings.CutPrefix(tensor, namePrefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, suffixA)
}

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
	excluded, err := s.excluder()
	if err != nil {
		return nil, nil, err
	}
	ranks, err := overrider(s.Ranks)
	if err != nil {
		return nil, nil, err
	}
	alphas, err := overrider(s.Alphas)
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
		if excluded(m.Path) {
			continue
		}
		rank, alpha := ranks(m.Path, s.Rank), alphas(m.Path, s.Alpha)
		if rank < 1 || rank > MaxRank {
			return nil, nil, fmt.Errorf("lora rank of %s is %d, must be 1 to %d", m.Path, rank, MaxRank)
		}
		parts = append(parts, Part{Module: m, Rank: rank, Alpha: alpha, Scale: s.scale(rank, alpha), DoRA: s.DoRA})
		layout = append(layout,
			TensorInfo{namePrefix + m.Path + suffixA, rank, m.In},
			TensorInfo{namePrefix + m.Path + suffixB, m.Out, rank})
	}
	if len(parts) == 0 && len(hits) > 0 {
		return nil, nil, fmt.Errorf("all targets of the adapter (%s) are excluded", s.describeTargets())
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
	whole, err := wholePath("target", s.Pattern)
	if err != nil {
		return nil, err
	}
	inBlocks, err := s.blockFilter()
	if err != nil {
		return nil, err
	}
	return func(path string) (string, bool) {
		if whole != nil {
			return s.Pattern, whole.MatchString(path) && inBlocks(path)
		}
		if slices.Contains(s.Targets, path) { // named as a whole: in any block, as PEFT has it
			return path, true
		}
		for _, t := range s.Targets {
			// The output layer is linear, but not in a block.
			if t == AllLinear && numbered(path) || strings.HasSuffix(path, "."+t) {
				return t, inBlocks(path)
			}
		}
		return "", false
	}, nil
}

// excluder returns a function that says whether a target is none after all.
func (s Spec) excluder() (func(path string) bool, error) {
	whole, err := wholePath("exclude", s.ExcludePattern)
	if err != nil {
		return nil, err
	}
	return func(path string) bool {
		return whole != nil && whole.MatchString(path) || named(path, s.Exclude)
	}, nil
}

// named reports whether a path is one of the names or ends with "." and one.
func named(path string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return path == n || strings.HasSuffix(path, "."+n) })
}

func wholePath(what, pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	re, err := regexp.Compile(`^(?:` + pattern + `)$`)
	if err != nil {
		return nil, fmt.Errorf("lora %s pattern: %w", what, err)
	}
	return re, nil
}

// blockFilter returns a function that says whether a path is in one of Blocks:
// PEFT's rule, by which the last number counts that follows a name in a module.
func (s Spec) blockFilter() (func(path string) bool, error) {
	if len(s.Blocks) == 0 {
		return func(string) bool { return true }, nil
	}
	in := s.BlocksIn
	if len(in) == 0 {
		in = []string{`[^.]*`}
	}
	var list []*regexp.Regexp
	for _, name := range in {
		re, err := regexp.Compile(`^.*\.(?:` + name + `)\.([0-9]+)\.`)
		if err != nil {
			return nil, fmt.Errorf("lora layers pattern: %w", err)
		}
		list = append(list, re)
	}
	return func(path string) bool {
		for _, re := range list {
			if m := re.FindStringSubmatch(path); m != nil {
				n, err := strconv.Atoi(m[len(m)-1])
				return err == nil && slices.Contains(s.Blocks, n)
			}
		}
		return false
	}, nil
}

// numbered reports whether a layer is in a block.
func numbered(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "."), func(part string) bool {
		_, err := strconv.Atoi(part)
		return err == nil
	})
}

// overrider returns a function that looks up the value for a path: that of the
// first entry whose key matches.
func overrider(list []Override) (func(path string, otherwise int) int, error) {
	keys := make([]*regexp.Regexp, len(list))
	for i, o := range list {
		var err error
		if keys[i], err = compileKey(o.Key); err != nil {
			return nil, fmt.Errorf("lora pattern %q: %w", o.Key, err)
		}
	}
	return func(path string, otherwise int) int {
		for i, re := range keys {
			if re.MatchString(path) {
				return list[i].Value
			}
		}
		return otherwise
	}, nil
}

func compileKey(key string) (*regexp.Regexp, error) {
	return regexp.Compile(`^(?:.*\.)?(?:` + key + `)$`)
}

// KeyMatches reports whether the key of an Override matches a path.
func KeyMatches(key, path string) bool {
	re, err := compileKey(key)
	return err == nil && re.MatchString(path)
}
