package lora

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/moot-net/moot/shard/safetensors"
)

// The files of a PEFT folder.
const (
	ConfigFile  = "adapter_config.json"
	WeightsFile = "adapter_model.safetensors"
)

const maxConfigBytes = 1 << 20

// peftConfig is adapter_config.json as it is written: the settings that every
// version of PEFT knows, sorted by name as PEFT sorts them.
type peftConfig struct {
	AlphaPattern  overrides `json:"alpha_pattern"`
	Base          string    `json:"base_model_name_or_path"`
	Bias          string    `json:"bias"`
	FanInFanOut   bool      `json:"fan_in_fan_out"`
	InferenceMode bool      `json:"inference_mode"`
	Init          bool      `json:"init_lora_weights"`
	LayersPattern *string   `json:"layers_pattern"`
	Layers        []int     `json:"layers_to_transform"`
	Alpha         int       `json:"lora_alpha"`
	Dropout       decimal   `json:"lora_dropout"`
	ModulesToSave *string   `json:"modules_to_save"`
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
		AlphaPattern: s.Alphas, Base: base, Bias: "none", InferenceMode: true, Init: true, Layers: s.Blocks,
		Alpha: s.Alpha, Type: "LORA", Rank: s.Rank, RankPattern: s.Ranks,
		Targets: slices.Compact(targets), Task: "CAUSAL_LM", UseRSLoRA: s.RSLoRA,
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
	a, err := read(dir, modules)
	if err != nil {
		return nil, fmt.Errorf("read adapter %s: %w", dir, err)
	}
	return a, nil
}

func read(dir string, modules []Module) (*Adapter, error) {
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
	a, err := New(s, modules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	f, err := safetensors.Open(filepath.Join(dir, WeightsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: adapters without %s: %w", ErrUnsupported, WeightsFile, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return a, a.readTensors(f)
}

func (a *Adapter) readTensors(f *safetensors.File) error {
	for i, t := range a.layout {
		info, ok := f.Header().Lookup(t.Name)
		if !ok {
			return fmt.Errorf("%s: tensor %s is missing", WeightsFile, t.Name)
		}
		if len(info.Shape) != 2 || info.Shape[0] != int64(t.Rows) || info.Shape[1] != int64(t.Cols) {
			return fmt.Errorf("%s: tensor %s, want (%d,%d)", WeightsFile, info, t.Rows, t.Cols)
		}
		if err := f.ReadFloat32(t.Name, a.Tensor(i)); err != nil {
			return err
		}
	}
	for _, info := range f.Header().Tensors {
		if _, ok := slices.BinarySearchFunc(a.layout, info.Name, func(t TensorInfo, name string) int {
			return compareStrings(t.Name, name)
		}); !ok {
			return fmt.Errorf("%s: %w: tensor %s belongs to no target", WeightsFile, ErrUnsupported, info)
		}
	}
	return nil
}

func compareStrings(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// plain are settings that say nothing about a forward pass, or do not matter
// once an adapter is trained.
var plain = []string{
	"auto_mapping", "base_model_name_or_path", "inference_mode", "layers_pattern", "lora_dropout", "megatron_config", "megatron_core",
	"peft_type", "peft_version", "qalora_group_size", "revision", "task_type", "loftq_config", "runtime_config",
}

// ParseConfig reads adapter_config.json.
func ParseConfig(b []byte) (Spec, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return Spec{}, err
	}
	s := Spec{Rank: 8} // PEFT's defaults
	alpha := 8.0
	var kind, bias string
	var ranks, alphas overrides
	var initial any
	for key, v := range map[string]any{
		"peft_type": &kind, "r": &s.Rank, "lora_alpha": &alpha, "use_rslora": &s.RSLoRA, "bias": &bias,
		"rank_pattern": &ranks, "alpha_pattern": &alphas, "init_lora_weights": &initial,
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
	case bias != "" && bias != "none":
		return Spec{}, fmt.Errorf("%w: bias is %q", ErrUnsupported, bias)
	}
	if err := s.takeTargets(raw); err != nil {
		return Spec{}, err
	}
	// Some ways to start change the base weights too.
	if initial != nil && initial != true && initial != false && initial != "gaussian" {
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

// takeTargets reads target_modules and layers_to_transform.
func (s *Spec) takeTargets(raw map[string]json.RawMessage) error {
	targets, blocks := bytes.TrimSpace(raw["target_modules"]), bytes.TrimSpace(raw["layers_to_transform"])
	delete(raw, "target_modules")
	delete(raw, "layers_to_transform")
	var err error
	if len(targets) > 0 && targets[0] == '"' {
		err = json.Unmarshal(targets, &s.Pattern)
		if s.Pattern == AllLinear {
			s.Pattern, s.Targets = "", []string{AllLinear}
		}
	} else if len(targets) > 0 {
		err = json.Unmarshal(targets, &s.Targets)
	}
	if err != nil {
		return fmt.Errorf("target_modules: %w", err)
	}
	if len(s.Targets) == 0 && s.Pattern == "" {
		return errors.New("target_modules is missing")
	}
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
