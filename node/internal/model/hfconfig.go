package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxConfigBytes bounds config.json.
const maxConfigBytes = 1 << 20

// family is what the architectures of the Llama shape differ in beyond what
// their config.json says.
type family struct {
	architecture, modelType string
	qkvBias                 bool     // without a setting for it
	own                     []string // settings that only this family has
}

var families = []family{
	{"LlamaForCausalLM", "llama", false, []string{"attention_bias", "mlp_bias"}},
	{"MistralForCausalLM", "mistral", false, []string{"sliding_window"}},
	{"Qwen2ForCausalLM", "qwen2", true, []string{"sliding_window", "use_sliding_window", "max_window_layers"}},
}

// harmless are settings that do not change what a forward or backward pass
// computes: those of generation, of serialisation, and of other tasks.
var harmless = []string{
	"_attn_implementation_autoset", "_name_or_path", "architectures", "auto_map", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
	"chunk_size_feed_forward", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype", "early_stopping",
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
	c := Config{
		Architecture: f.architecture,
		Hidden:       s.integer("hidden_size", 0),
		Intermediate: s.integer("intermediate_size", 0),
		Layers:       s.integer("num_hidden_layers", 0),
		Heads:        s.integer("num_attention_heads", 0),
		Vocab:        s.integer("vocab_size", 0),
		Context:      s.integer("max_position_embeddings", 2048),
		NormEps:      s.number("rms_norm_eps", 1e-6),
		TiedHead:     s.boolean("tie_word_embeddings", false),
		QKVBias:      f.qkvBias,
		BOS:          -1,
		InitRange:    s.number("initializer_range", 0.02),
	}
	c.KVHeads = s.integer("num_key_value_heads", c.Heads)
	c.HeadDim = s.integer("head_dim", 0)
	if c.HeadDim == 0 && c.Heads > 0 {
		if c.Hidden%c.Heads != 0 {
			return Config{}, fmt.Errorf("hidden_size %d is not a multiple of %d heads", c.Hidden, c.Heads)
		}
		c.HeadDim = c.Hidden / c.Heads
	}
	if slices.Contains(f.own, "attention_bias") && s.boolean("attention_bias", false) {
		c.QKVBias, c.OBias = true, true
	}
	if slices.Contains(f.own, "mlp_bias") {
		c.MLPBias = s.boolean("mlp_bias", false)
	}
	if act := s.text("hidden_act", "silu"); act != "silu" && act != "swish" {
		s.fail(fmt.Errorf("%w: hidden_act is %q", ErrUnsupported, act))
	}
	if p := s.number("attention_dropout", 0); p != 0 {
		s.fail(fmt.Errorf("%w: attention_dropout is %v", ErrUnsupported, p))
	}
	c.Rope = s.rope()
	if bos := s.integers("bos_token_id"); len(bos) == 1 {
		c.BOS = bos[0]
	}
	c.EOS = s.integers("eos_token_id")
	s.windows(f, &c)
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

func (s *settings) family() (family, error) {
	var names []string
	s.take("architectures", &names)
	modelType := s.text("model_type", "")
	if s.err != nil {
		return family{}, s.err
	}
	for _, f := range families {
		if len(names) == 1 && names[0] == f.architecture && (modelType == "" || modelType == f.modelType) ||
			len(names) == 0 && modelType == f.modelType {
			return f, nil
		}
	}
	return family{}, fmt.Errorf("%w: architecture %s (model_type %q)", ErrUnsupported, strings.Join(names, ", "), modelType)
}

// rope takes the rotary settings in the old and the new spelling.
func (s *settings) rope() Rope {
	r := Rope{Theta: s.number("rope_theta", 10000)}
	for _, key := range []string{"rope_scaling", "rope_parameters"} {
		var raw json.RawMessage
		if !s.take(key, &raw) {
			continue
		}
		sub, err := readSettings(raw)
		if err != nil {
			s.fail(fmt.Errorf("%s: %w", key, err))
			continue
		}
		sub.in = key + "."
		r.Theta = sub.number("rope_theta", r.Theta)
		r.Scaling = sub.scaling()
		sub.rest()
		if sub.err != nil {
			s.fail(sub.err)
		}
	}
	return r
}

func (s *settings) scaling() RopeScaling {
	kind := s.text("type", "default")
	kind = s.text("rope_type", kind)
	switch kind {
	case "default":
		return RopeScaling{}
	case "linear":
		return RopeScaling{Kind: kind, Factor: s.number("factor", 0)}
	case "llama3":
		return RopeScaling{
			Kind: kind, Factor: s.number("factor", 0),
			LowFreqFactor: s.number("low_freq_factor", 0), HighFreqFactor: s.number("high_freq_factor", 0),
			OriginalContext: s.integer("original_max_position_embeddings", 0),
		}
	}
	s.fail(fmt.Errorf("%w: %srope_type is %q", ErrUnsupported, s.in, kind))
	return RopeScaling{}
}

// windows takes the settings of sliding-window attention.
func (s *settings) windows(f family, c *Config) {
	if !slices.Contains(f.own, "sliding_window") || c.Layers < 1 || c.Layers > maxLayers {
		return
	}
	window, from := 4096, 0 // what is meant where the setting is missing
	if _, ok := s.raw["sliding_window"]; ok {
		window = s.integer("sliding_window", 0)
	}
	if slices.Contains(f.own, "use_sliding_window") {
		from = s.integer("max_window_layers", 28)
		if !s.boolean("use_sliding_window", false) {
			window = 0
		}
	}
	if window < 0 {
		s.fail(fmt.Errorf("sliding_window is %d", window))
	}
	if window == 0 {
		return
	}
	c.Windows = make([]int, c.Layers)
	for i := max(0, from); i < c.Layers; i++ {
		c.Windows[i] = window
	}
}

// rest fails for a field that nobody took, unless it is known to be harmless
// or says nothing.
func (s *settings) rest() {
	for _, key := range slices.Sorted(maps.Keys(s.raw)) {
		raw := string(s.raw[key])
		if s.seen[key] || s.in == "" && slices.Contains(harmless, key) ||
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
	Factor          float64 `json:"factor"`
	LowFreqFactor   float64 `json:"low_freq_factor,omitempty"`
	HighFreqFactor  float64 `json:"high_freq_factor,omitempty"`
	OriginalContext int     `json:"original_max_position_embeddings,omitempty"`
}

// marshal returns config.json. Only the Llama architecture is written.
func (c Config) marshal(dtype string) ([]byte, error) {
	if c.Architecture != families[0].architecture {
		return nil, fmt.Errorf("%w: writing %s", ErrUnsupported, c.Architecture)
	}
	if c.QKVBias != c.OBias || c.Windows != nil {
		return nil, fmt.Errorf("%w: a Llama has biases on all of q, k, v and o or on none, and no attention windows", ErrUnsupported)
	}
	h := hfConfig{
		Architectures: []string{c.Architecture}, ModelType: families[0].modelType,
		Hidden: c.Hidden, Intermediate: c.Intermediate, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, HiddenAct: "silu", Vocab: c.Vocab, Context: c.Context, NormEps: c.NormEps,
		RopeTheta: c.Rope.Theta, AttentionBias: c.QKVBias, MLPBias: c.MLPBias, TiedHead: c.TiedHead,
		InitRange: c.InitRange, DType: dtype, UseCache: true, EOS: eosValue(c.EOS),
	}
	if s := c.Rope.Scaling; s.Kind != "" {
		h.RopeScaling = &hfRope{s.Kind, s.Factor, s.LowFreqFactor, s.HighFreqFactor, s.OriginalContext}
	}
	if c.BOS >= 0 {
		h.BOS = &c.BOS
	}
	return marshalIndent(h)
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
