package lora

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/shard/safetensors"
)

// The files of a PEFT folder.
const (
	ConfigFile  = "adapter_config.json"
	WeightsFile = "adapter_model.safetensors"
	// LegacyFile holds the weights of older folders; it is only read.
	LegacyFile = "adapter_model.bin"
)

const maxConfigBytes = 1 << 20

// peftConfig is adapter_config.json as it is written: the settings that every
// version of PEFT knows, sorted by name as PEFT sorts them.
type peftConfig struct {
	AlphaPattern  overrides `json:"alpha_pattern"`
	Base          string    `json:"base_model_name_or_path"`
	Bias          string    `json:"bias"`
	Exclude       any       `json:"exclude_modules,omitempty"`
	FanInFanOut   bool      `json:"fan_in_fan_out"`
	InferenceMode bool      `json:"inference_mode"`
	Init          bool      `json:"init_lora_weights"`
	LayersPattern []string  `json:"layers_pattern"`
	Layers        []int     `json:"layers_to_transform"`
	Alpha         int       `json:"lora_alpha"`
	Dropout       decimal   `json:"lora_dropout"`
	ModulesToSave []string  `json:"modules_to_save"`
	Type          string    `json:"peft_type"`
	Rank          int       `json:"r"`
	RankPattern   overrides `json:"rank_pattern"`
	Revision      *string   `json:"revision"`
	Targets       any       `json:"target_modules"`
	Task          string    `json:"task_type"`
	UseDoRA       bool      `json:"use_dora"`
	UseRSLoRA     bool      `json:"use_rslora"`
}

// decimal is written with a point, because some readers tell 0 from 0.0.
type decimal float64

// MarshalJSON writes a float.
func (d decimal) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%.1f", float64(d)), nil }

// overrides is a JSON object in the order in which it was written, which
// decides which entry matches first.
type overrides []Override

// MarshalJSON writes the entries in their order.
func (o overrides) MarshalJSON() ([]byte, error) {
	b := []byte("{")
	for i, e := range o {
		if i > 0 {
			b = append(b, ',')
		}
		key, err := json.Marshal(e.Key)
		if err != nil {
			return nil, err
		}
		b = fmt.Appendf(append(b, key...), ":%d", e.Value)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON keeps the order of the entries.
func (o *overrides) UnmarshalJSON(b []byte) error {
	*o = nil
	if string(b) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not an object of numbers")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		var v int
		if err := d.Decode(&v); err != nil {
			return err
		}
		*o = append(*o, Override{t.(string), v})
	}
	return nil
}

// Write writes the adapter as a PEFT folder for the base model of the given
// name. The bytes depend on the adapter and the name alone.
func (a *Adapter) Write(dir, base string) error {
	if err := a.write(dir, base); err != nil {
		return fmt.Errorf("write adapter %s: %w", dir, err)
	}
	return nil
}

func (a *Adapter) write(dir, base string) error {
	if a.whole {
		return a.Plain()
	}
	s := a.spec
	targets := slices.Clone(s.Targets)
	if slices.Contains(targets, AllLinear) { // PEFT expands it too
		targets = nil
		for _, p := range a.parts {
			targets = append(targets, p.Path[lastDot(p.Path)+1:])
		}
	}
	slices.Sort(targets)
	c := peftConfig{
		AlphaPattern: s.Alphas, Base: base, Bias: "none", FanInFanOut: s.FanInFanOut, InferenceMode: true, Init: true,
		LayersPattern: s.BlocksIn, Layers: s.Blocks, Alpha: s.Alpha, ModulesToSave: s.SaveModules,
		Type: "LORA", Rank: s.Rank, RankPattern: s.Ranks,
		Targets: slices.Compact(targets), Task: "CAUSAL_LM", UseDoRA: s.DoRA, UseRSLoRA: s.RSLoRA,
	}
	if s.Bias != "" {
		c.Bias = s.Bias
	}
	if len(s.Exclude) > 0 {
		c.Exclude = s.Exclude
	}
	if s.ExcludePattern != "" {
		c.Exclude = s.ExcludePattern
	}
	if s.Pattern != "" {
		c.Targets = s.Pattern
	}
	config, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	var weights bytes.Buffer
	if err := safetensors.Write(&weights, a.tensors(), map[string]string{"format": "pt"}); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, WeightsFile), weights.Bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ConfigFile), config, 0o644)
}

func lastDot(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '.' {
			return i
		}
	}
	return -1
}

// Read reads a PEFT folder for a model with the given linear layers. Anything
// that would make the adapter compute something else than plain LoRA is an
// error that names it.
func Read(dir string, modules []Module) (*Adapter, error) {
	a, err := read(dir, modules, true)
	if err != nil {
		return nil, fmt.Errorf("read adapter %s: %w", dir, err)
	}
	return a, nil
}

// ReadAny is like Read, and also reads adapters with magnitudes (DoRA), whole
// modules or biases: who applies it must look at Magnitude and Saved.
func ReadAny(dir string, modules []Module) (*Adapter, error) {
	a, err := read(dir, modules, false)
	if err != nil {
		return nil, fmt.Errorf("read adapter %s: %w", dir, err)
	}
	return a, nil
}

func read(dir string, modules []Module, plain bool) (*Adapter, error) {
	st, err := os.Stat(filepath.Join(dir, ConfigFile))
	if err != nil {
		return nil, err
	}
	if st.Size() > maxConfigBytes {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", ConfigFile, st.Size(), maxConfigBytes)
	}
	b, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		return nil, err
	}
	s, err := ParseConfig(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	if plain && (s.DoRA || len(s.SaveModules) > 0) {
		return nil, fmt.Errorf("%s: %w: use_dora is %v, modules_to_save is %q", ConfigFile, ErrUnsupported, s.DoRA, s.SaveModules)
	}
	a, err := New(s, modules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	if err := a.readWeights(dir); err != nil {
		return nil, err
	}
	if plain {
		err = a.Plain()
	}
	return a, err
}

func (a *Adapter) readWeights(dir string) error {
	name := WeightsFile
	f, err := checkpoint.OpenFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		name = LegacyFile
		f, err = checkpoint.OpenFile(filepath.Join(dir, name))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: adapters without %s or %s: %w", ErrUnsupported, WeightsFile, LegacyFile, err)
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := a.readTensors(f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (a *Adapter) readTensors(f *checkpoint.Folder) error {
	used := map[string]bool{}
	for i, t := range a.layout {
		used[t.Name] = true
		if err := readTensor(f, t.Name, a.Tensor(i), int64(t.Rows), int64(t.Cols)); err != nil {
			return err
		}
	}
	adapted := map[string]bool{}
	for _, p := range a.parts {
		adapted[p.Path] = true
		m := a.Magnitude(p)
		if m == nil {
			continue
		}
		name := namePrefix + p.Path + suffixMagnitude
		if _, ok := f.Lookup(name); !ok { // some versions of PEFT
			name += ".weight"
		}
		used[name] = true
		if err := readTensor(f, name, m, int64(p.Out)); err != nil {
			return err
		}
	}
	for _, t := range f.Tensors() {
		if used[t.Name] {
			continue
		}
		name, ok := a.savedName(t.Name, adapted)
		if !ok {
			return fmt.Errorf("%w: tensor %s belongs to no target", ErrUnsupported, t)
		}
		s := Saved{Name: name, Shape: t.Shape, Values: make([]float32, t.Elements())}
		if err := f.ReadFloat32(t.Name, s.Values); err != nil {
			return err
		}
		if err := finite(t.Name, s.Values); err != nil {
			return err
		}
		a.saved = append(a.saved, s)
	}
	slices.SortFunc(a.saved, func(x, y Saved) int { return strings.Compare(x.Name, y.Name) })
	for i := 1; i < len(a.saved); i++ {
		if a.saved[i].Name == a.saved[i-1].Name {
			return fmt.Errorf("%w: %s is there twice", ErrUnsupported, a.saved[i].Name)
		}
	}
	return nil
}

func readTensor(f *checkpoint.Folder, name string, dst []float32, shape ...int64) error {
	t, ok := f.Lookup(name)
	if !ok {
		return fmt.Errorf("tensor %s is missing", name)
	}
	if !slices.Equal(t.Shape, shape) {
		return fmt.Errorf("tensor %s, want (%s)", t, strings.ReplaceAll(strings.Trim(fmt.Sprint(shape), "[]"), " ", ","))
	}
	if err := f.ReadFloat32(name, dst); err != nil {
		return err
	}
	return finite(name, dst)
}

// ErrNotFinite is in the errors about a value that is no number: with it, all
// answers are empty.
var ErrNotFinite = errors.New("not finite")

func finite(name string, values []float32) error {
	for i, v := range values {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("tensor %s: value %d is %v, %w: the file is damaged, or its training diverged", name, i, f, ErrNotFinite)
		}
	}
	return nil
}

// embeddings are the layers that PEFT saves whole when the vocabulary was
// extended or when they are targets, whatever the configuration says.
var embeddings = []string{"lm_head", "embed_tokens", "embed_in", "embed_out", "word_embeddings", "wte"}

// savedName returns the name in the base model of a tensor that the adapter
// replaces; ok is false if it should not be there.
func (a *Adapter) savedName(name string, adapted map[string]bool) (base string, ok bool) {
	rest, ok := strings.CutPrefix(name, namePrefix)
	dot := lastDot(rest)
	if !ok || dot < 0 {
		return "", false
	}
	path, leaf := rest[:dot], rest[dot:]
	if leaf != ".weight" && leaf != ".bias" {
		return "", false
	}
	if inner, ok := strings.CutSuffix(path, infixBase); ok {
		if path = inner; !adapted[path] {
			return "", false
		}
	}
	switch {
	case leaf == ".bias" && (a.spec.Bias == biasAll || a.spec.Bias == biasLoRA && adapted[path]):
		return path + leaf, true
	case named(path, embeddings):
		return path + leaf, true
	}
	for module := path; ; module = module[:lastDot(module)] { // it, or one that it is part of
		if named(module, a.spec.SaveModules) {
			return path + leaf, true
		}
		if lastDot(module) < 0 {
			return "", false
		}
	}
}

// plain are settings that say nothing about a forward pass, or do not matter
// once an adapter is trained.
var plain = []string{
	"auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "megatron_config", "megatron_core",
	"peft_type", "peft_version", "qalora_group_size", "revision", "task_type", "loftq_config", "runtime_config",
}

// The values of bias, beside "none".
const (
	biasAll  = "all"
	biasLoRA = "lora_only"
)

// harmless are ways to start that leave the base weights as they are.
var harmless = []any{nil, true, false, "gaussian", "eva", "orthogonal"}

// ParseConfig reads adapter_config.json.
func ParseConfig(b []byte) (Spec, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return Spec{}, err
	}
	s := Spec{Rank: 8} // PEFT's defaults
	alpha := 8.0
	var kind string
	var ranks, alphas overrides
	var initial any
	for key, v := range map[string]any{
		"peft_type": &kind, "r": &s.Rank, "lora_alpha": &alpha, "use_rslora": &s.RSLoRA, "bias": &s.Bias,
		"rank_pattern": &ranks, "alpha_pattern": &alphas, "init_lora_weights": &initial,
		"use_dora": &s.DoRA, "fan_in_fan_out": &s.FanInFanOut, "modules_to_save": &s.SaveModules,
	} {
		if err := decodeField(raw, key, v); err != nil {
			return Spec{}, err
		}
		delete(raw, key)
	}
	s.Ranks, s.Alphas, s.Alpha = ranks, alphas, int(alpha)
	switch {
	case float64(s.Alpha) != alpha:
		return Spec{}, fmt.Errorf("%w: lora_alpha is %v", ErrUnsupported, alpha)
	case kind != "LORA":
		return Spec{}, fmt.Errorf("%w: peft_type is %q", ErrUnsupported, kind)
	case s.Bias == "none":
		s.Bias = ""
	case s.Bias != "" && s.Bias != biasAll && s.Bias != biasLoRA:
		return Spec{}, fmt.Errorf("%w: bias is %q", ErrUnsupported, s.Bias)
	}
	if len(s.SaveModules) == 0 {
		s.SaveModules = nil
	}
	if err := s.takeTargets(raw); err != nil {
		return Spec{}, err
	}
	if !slices.Contains(harmless, initial) {
		return Spec{}, fmt.Errorf("%w: init_lora_weights is %v", ErrUnsupported, initial)
	}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		v := string(raw[key])
		if slices.Contains(plain, key) || v == "null" || v == "false" || v == "{}" || v == "[]" || v == `""` {
			continue
		}
		return Spec{}, fmt.Errorf("%w: setting %s is %.60s", ErrUnsupported, key, v)
	}
	return s, nil
}

// takeTargets reads the settings that choose layers.
func (s *Spec) takeTargets(raw map[string]json.RawMessage) error {
	var err error
	if s.Pattern, s.Targets, err = oneOrMany(raw, "target_modules"); err != nil {
		return err
	}
	if s.Pattern == AllLinear {
		s.Pattern, s.Targets = "", []string{AllLinear}
	}
	if len(s.Targets) == 0 && s.Pattern == "" {
		return errors.New("target_modules is missing")
	}
	if s.ExcludePattern, s.Exclude, err = oneOrMany(raw, "exclude_modules"); err != nil {
		return err
	}
	one, in, err := oneOrMany(raw, "layers_pattern")
	if err != nil {
		return err
	}
	if s.BlocksIn = in; one != "" {
		s.BlocksIn = []string{one}
	}
	blocks := bytes.TrimSpace(raw["layers_to_transform"])
	delete(raw, "layers_to_transform")
	if len(blocks) > 0 && blocks[0] != '[' && string(blocks) != "null" {
		blocks = fmt.Appendf(nil, "[%s]", blocks)
	}
	if len(blocks) > 0 {
		if err := json.Unmarshal(blocks, &s.Blocks); err != nil {
			return fmt.Errorf("layers_to_transform: %w", err)
		}
	}
	return nil
}

// oneOrMany takes a setting that is a string or a list of them.
func oneOrMany(raw map[string]json.RawMessage, key string) (one string, many []string, err error) {
	b := bytes.TrimSpace(raw[key])
	delete(raw, key)
	switch {
	case len(b) == 0:
		return "", nil, nil
	case b[0] == '"':
		err = json.Unmarshal(b, &one)
	default:
		if err = json.Unmarshal(b, &many); len(many) == 0 {
			many = nil
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", key, err)
	}
	return one, many, err
}

func decodeField(raw map[string]json.RawMessage, key string, v any) error {
	b, ok := raw[key]
	if !ok || string(b) == "null" {
		return nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is %.60s: %w", key, b, err)
	}
	return nil
}
