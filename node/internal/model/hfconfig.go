package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// maxConfigBytes bounds config.json.
const maxConfigBytes = 1 << 20

// harmless are settings that do not change what a forward or backward pass
// computes: those of generation, of serialisation, and of other tasks.
var harmless = []string{
	"_attn_implementation_autoset", "_name_or_path", "architectures", "auto_map", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
	"chunk_size_feed_forward", "custom_pipelines", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype", "early_stopping",
	"encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty", "finetuning_task",
	"forced_bos_token_id", "forced_eos_token_id", "id2label", "initializer_range", "label2id", "length_penalty",
	"max_length", "max_position_embeddings", "min_length", "model_type", "no_repeat_ngram_size", "num_beam_groups",
	"num_beams", "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores",
	"pad_token_id", "prefix", "pretraining_tp", "problem_type", "remove_invalid_values", "repetition_penalty",
	"return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
	"tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p",
	"unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache",
}

// ParseConfig reads config.json. A setting that changes the arithmetic and is
// not understood is an error that names it.
func ParseConfig(data []byte) (Config, error) {
	c, err := parseConfig(data)
	if err != nil {
		return Config{}, fmt.Errorf("config.json: %w", err)
	}
	return c, nil
}

func parseConfig(data []byte) (Config, error) {
	s, err := readSettings(data)
	if err != nil {
		return Config{}, err
	}
	f, err := s.family()
	if err != nil {
		return Config{}, err
	}
	c := Config{Architecture: f.architectures[0], InitRange: s.number("initializer_range", 0.02), BOS: -1}
	f.read(s, &c)
	if bos := s.integers("bos_token_id"); len(bos) == 1 {
		c.BOS = bos[0]
	}
	c.EOS = s.integers("eos_token_id")
	s.quantized()
	s.rest()
	if s.err != nil {
		return Config{}, s.err
	}
	return c, c.Validate()
}

// settings are the fields of a JSON object, taken one by one. The first error
// is kept.
type settings struct {
	in   string // name of the object, for errors
	raw  map[string]json.RawMessage
	seen map[string]bool
	err  error
}

func readSettings(data []byte) (*settings, error) {
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), maxConfigBytes)
	}
	if !json.Valid(data) {
		return nil, errors.New("not JSON")
	}
	s := &settings{raw: map[string]json.RawMessage{}, seen: map[string]bool{}}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		key := t.(string)
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		if _, ok := s.raw[key]; ok {
			return nil, fmt.Errorf("%q is given twice", key)
		}
		s.raw[key] = v
	}
	return s, nil
}

func (s *settings) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// take decodes field key into v and reports whether it is there and not null.
func (s *settings) take(key string, v any) bool {
	s.seen[key] = true
	raw, ok := s.raw[key]
	if !ok || string(raw) == "null" {
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		s.fail(fmt.Errorf("%s%s is %s: %w", s.in, key, short(raw), err))
		return false
	}
	return true
}

func short(raw json.RawMessage) string {
	if len(raw) > 60 {
		return string(raw[:57]) + "..."
	}
	return string(raw)
}

func (s *settings) integer(key string, otherwise int) int {
	v := otherwise
	if s.take(key, &v) {
		return v
	}
	return otherwise
}

func (s *settings) number(key string, otherwise float64) float64 {
	v := otherwise
	if s.take(key, &v) {
		return v
	}
	return otherwise
}

func (s *settings) boolean(key string, otherwise bool) bool {
	v := otherwise
	if s.take(key, &v) {
		return v
	}
	return otherwise
}

func (s *settings) text(key, otherwise string) string {
	v := otherwise
	if s.take(key, &v) {
		return v
	}
	return otherwise
}

// integers takes a number or a list of numbers.
func (s *settings) integers(key string) []int32 {
	var list []int32
	if raw := bytes.TrimSpace(s.raw[key]); len(raw) > 0 && raw[0] == '[' {
		s.take(key, &list)
		return list
	}
	var one int32
	if s.take(key, &one) {
		list = []int32{one}
	}
	return list
}

// has reports whether a field is there, be it null.
func (s *settings) has(key string) bool { _, ok := s.raw[key]; return ok }

// same takes an integer that several fields may give, all the same.
func (s *settings) same(otherwise int, keys ...string) int {
	v := otherwise
	for i, key := range keys {
		w := s.integer(key, v)
		if i > 0 && w != v && s.has(keys[0]) {
			s.fail(fmt.Errorf("%s is %d and %s is %d", keys[0], v, key, w))
		}
		v = w
	}
	return v
}

// object takes a field that is an object; nil if it is missing.
func (s *settings) object(key string) *settings {
	var raw json.RawMessage
	if !s.take(key, &raw) {
		return nil
	}
	sub, err := readSettings(raw)
	if err != nil {
		s.fail(fmt.Errorf("%s: %w", key, err))
		return nil
	}
	sub.in = key + "."
	return sub
}

// must fails unless a field is missing or has a value.
func (s *settings) must(key string, want any) {
	var v any
	if s.take(key, &v) && v != want {
		s.fail(fmt.Errorf("%w: %s%s is %v", ErrUnsupported, s.in, key, v))
	}
}

// noDropout fails for dropout.
func (s *settings) noDropout(keys ...string) {
	for _, key := range keys {
		s.must(key, 0.0)
	}
}

// ignore takes fields that change nothing, whatever they say.
func (s *settings) ignore(keys ...string) {
	for _, key := range keys {
		s.seen[key] = true
	}
}

var activations = map[string]Activation{
	"silu": SiLU, "swish": SiLU, "gelu": GELU, "gelu_python": GELU,
	"gelu_new": GELUTanh, "gelu_fast": GELUTanh, "gelu_pytorch_tanh": GELUTanh,
}

// activation takes the name of an activation.
func (s *settings) activation(key, otherwise string, allowed ...Activation) Activation {
	name := s.text(key, otherwise)
	a, ok := activations[name]
	if !ok || !slices.Contains(allowed, a) {
		s.fail(fmt.Errorf("%w: %s is %q", ErrUnsupported, key, name))
	}
	return a
}

func (s *settings) family() (*family, error) {
	var names []string
	s.take("architectures", &names)
	modelType := s.text("model_type", "")
	if s.err != nil {
		return nil, s.err
	}
	for i, f := range families {
		if len(names) == 1 && slices.Contains(f.architectures, names[0]) && (modelType == "" || modelType == f.modelType) ||
			len(names) == 0 && modelType == f.modelType {
			return &families[i], nil
		}
	}
	return nil, fmt.Errorf("%w: architecture %s (model_type %q)", ErrUnsupported, strings.Join(names, ", "), modelType)
}

// quantized takes the settings of weights in four bits, of which the weights
// themselves say all that is needed. Others are left for rest to refuse.
func (s *settings) quantized() {
	const key = "quantization_config"
	var q struct {
		Method string `json:"quant_method"`
		Four   bool   `json:"load_in_4bit"`
		Type   string `json:"bnb_4bit_quant_type"`
	}
	if json.Unmarshal(s.raw[key], &q) == nil && q.Method == "bitsandbytes" && q.Four && q.Type == "nf4" {
		s.seen[key] = true
	}
}

// rest fails for a field that nobody took, unless it is known to be harmless
// or says nothing.
func (s *settings) rest() {
	for _, key := range slices.Sorted(maps.Keys(s.raw)) {
		raw := string(s.raw[key])
		if s.seen[key] || s.in != "rope_scaling." && s.in != "rope_parameters." && slices.Contains(harmless, key) ||
			raw == "null" || raw == "false" || raw == "{}" || raw == "[]" || raw == `""` {
			continue
		}
		s.fail(fmt.Errorf("%w: setting %s%s is %s, and nothing here knows what it changes", ErrUnsupported, s.in, key, short(s.raw[key])))
	}
}

// hfConfig is config.json as it is written, in this order.
type hfConfig struct {
	Architectures []string `json:"architectures"`
	ModelType     string   `json:"model_type"`
	Hidden        int      `json:"hidden_size"`
	Intermediate  int      `json:"intermediate_size"`
	Layers        int      `json:"num_hidden_layers"`
	Heads         int      `json:"num_attention_heads"`
	KVHeads       int      `json:"num_key_value_heads"`
	HeadDim       int      `json:"head_dim"`
	HiddenAct     string   `json:"hidden_act"`
	Vocab         int      `json:"vocab_size"`
	Context       int      `json:"max_position_embeddings"`
	NormEps       float64  `json:"rms_norm_eps"`
	RopeTheta     float64  `json:"rope_theta"`
	RopeScaling   *hfRope  `json:"rope_scaling"`
	AttentionBias bool     `json:"attention_bias"`
	MLPBias       bool     `json:"mlp_bias"`
	AttentionDrop float64  `json:"attention_dropout"`
	TiedHead      bool     `json:"tie_word_embeddings"`
	InitRange     float64  `json:"initializer_range"`
	BOS           *int32   `json:"bos_token_id"`
	EOS           any      `json:"eos_token_id"`
	DType         string   `json:"torch_dtype"`
	UseCache      bool     `json:"use_cache"`
}

type hfRope struct {
	Type            string  `json:"rope_type"`
	Factor          float64 `json:"factor,omitempty"`
	LowFreqFactor   float64 `json:"low_freq_factor,omitempty"`
	HighFreqFactor  float64 `json:"high_freq_factor,omitempty"`
	OriginalContext int     `json:"original_max_position_embeddings,omitempty"`

	AttentionFactor float64   `json:"attention_factor,omitempty"`
	BetaFast        float64   `json:"beta_fast,omitempty"`
	BetaSlow        float64   `json:"beta_slow,omitempty"`
	Truncate        *bool     `json:"truncate,omitempty"`
	ShortFactors    []float64 `json:"short_factor,omitempty"`
	LongFactors     []float64 `json:"long_factor,omitempty"`
}

// fields are those of config.json, written sorted by name.
type fields map[string]any

// marshal returns config.json.
func (c Config) marshal(dtype string) ([]byte, error) {
	f := c.family()
	if f == nil {
		return nil, fmt.Errorf("%w: writing %s", ErrUnsupported, c.Architecture)
	}
	var v any = c.llamaFields(dtype)
	if f.write != nil {
		w := fields{
			"architectures": f.architectures[:1], "model_type": f.modelType, "vocab_size": c.Vocab, "tie_word_embeddings": c.TiedHead,
			"initializer_range": c.InitRange, "eos_token_id": eosValue(c.EOS), "torch_dtype": dtype, "use_cache": true,
			"bos_token_id": nil,
		}
		if c.BOS >= 0 {
			w["bos_token_id"] = c.BOS
		}
		f.write(&c, w)
		v = w
	}
	b, err := marshalIndent(v)
	if err != nil {
		return nil, err
	}
	// What the architecture has no setting for would be lost.
	again, err := ParseConfig(b)
	if err != nil {
		return nil, fmt.Errorf("%w: writing a %s: %w", ErrUnsupported, c.Architecture, err)
	}
	if !reflect.DeepEqual(again, c.canonical()) {
		return nil, fmt.Errorf("%w: a setting of this model is none that %s has", ErrUnsupported, c.Architecture)
	}
	return b, nil
}

// canonical returns c as ParseConfig would.
func (c Config) canonical() Config {
	if len(c.EOS) == 0 {
		c.EOS = nil
	}
	if !slices.ContainsFunc(c.Windows, func(w int) bool { return w != 0 }) {
		c.Windows = nil
	}
	if c.Rope.Dims == c.HeadDim {
		c.Rope.Dims = 0
	}
	return c
}

func (c Config) llamaFields(dtype string) hfConfig {
	h := hfConfig{
		Architectures: []string{c.Architecture}, ModelType: "llama",
		Hidden: c.Hidden, Intermediate: c.Intermediate, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, HiddenAct: "silu", Vocab: c.Vocab, Context: c.Context, NormEps: c.NormEps,
		RopeTheta: c.Rope.Theta, RopeScaling: c.ropeScaling(), AttentionBias: c.QKVBias, MLPBias: c.MLPBias, TiedHead: c.TiedHead,
		InitRange: c.InitRange, DType: dtype, UseCache: true, EOS: eosValue(c.EOS),
	}
	if c.BOS >= 0 {
		h.BOS = &c.BOS
	}
	return h
}

func (c Config) ropeScaling() *hfRope {
	s := c.Rope.Scaling
	if s.Kind == "" {
		return nil
	}
	h := &hfRope{
		Type: s.Kind, Factor: s.Factor, LowFreqFactor: s.LowFreqFactor, HighFreqFactor: s.HighFreqFactor, OriginalContext: s.OriginalContext,
		AttentionFactor: s.AttentionFactor, BetaFast: s.BetaFast, BetaSlow: s.BetaSlow, ShortFactors: s.ShortFactors, LongFactors: s.LongFactors,
	}
	if s.NoTruncate {
		h.Truncate = new(bool)
	}
	return h
}

func eosValue(eos []int32) any {
	switch len(eos) {
	case 0:
		return nil
	case 1:
		return eos[0]
	}
	return eos
}

// marshalIndent is JSON as people read it, ending with a newline.
func marshalIndent(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}
