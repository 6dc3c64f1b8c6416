package model

import (
	"fmt"
	"math"
)

// What follows reads and writes config.json family by family. A setting that
// is missing means the default of the family's configuration class in
// transformers.

// llamaCore takes the settings that Llama and its relatives share.
func (s *settings) llamaCore(c *Config, context int, eps float64) {
	c.Hidden = s.integer("hidden_size", 0)
	c.Intermediate = s.integer("intermediate_size", 0)
	c.Layers = s.integer("num_hidden_layers", 0)
	c.Heads = s.integer("num_attention_heads", 0)
	c.Vocab = s.integer("vocab_size", 0)
	c.Context = s.integer("max_position_embeddings", context)
	if eps != 0 {
		c.NormEps = s.number("rms_norm_eps", eps)
	}
	s.noDropout("attention_dropout")
}

// heads takes the numbers of heads and their size; kv and dim are what is
// meant where a setting is missing, 0 for what follows from the others.
func (s *settings) heads(c *Config, kv, dim int) {
	c.KVHeads = c.Heads
	if !s.has("num_key_value_heads") && kv != 0 {
		c.KVHeads = kv
	}
	c.KVHeads = s.integer("num_key_value_heads", c.KVHeads)
	if s.has("head_dim") {
		dim = 0
	}
	if c.HeadDim = s.integer("head_dim", dim); c.HeadDim == 0 {
		s.headDim(c)
	}
}

// headDim divides the width among the heads.
func (s *settings) headDim(c *Config) {
	if c.Heads < 1 {
		return // Validate says it
	}
	if c.Hidden%c.Heads != 0 {
		s.fail(fmt.Errorf("hidden_size %d is not a multiple of %d heads", c.Hidden, c.Heads))
	}
	c.HeadDim = c.Hidden / c.Heads
}

// windows gives layers a window: those that layer_types names, or where that
// is missing those that sliding says.
func (s *settings) windows(c *Config, window int, sliding func(layer int) bool) {
	if c.Layers < 1 || c.Layers > maxLayers {
		return // Validate says it
	}
	var types []string
	named := s.take("layer_types", &types)
	if named && len(types) != c.Layers {
		s.fail(fmt.Errorf("layer_types has %d entries for %d layers", len(types), c.Layers))
		return
	}
	if window < 0 {
		s.fail(fmt.Errorf("sliding_window is %d", window))
		return
	}
	list := make([]int, c.Layers)
	for i := range list {
		on := window > 0 && sliding(i)
		if named {
			switch on = types[i] == "sliding_attention"; {
			case !on && types[i] != "full_attention":
				s.fail(fmt.Errorf("%w: layer_types[%d] is %q", ErrUnsupported, i, types[i]))
			case on && window == 0:
				s.fail(fmt.Errorf("layer_types[%d] is %q, and there is no window", i, types[i]))
			}
		}
		if on {
			list[i] = window
			c.Windows = list
		}
	}
}

// window takes sliding_window; null is 0.
func (s *settings) window(otherwise int) int {
	if s.has("sliding_window") {
		otherwise = 0
	}
	return s.integer("sliding_window", otherwise)
}

func everyLayer(int) bool { return true }

// llamaNames are the fields that writes of Llama's relatives share.
func (c *Config) llamaNames(w fields) {
	w["hidden_size"], w["intermediate_size"], w["num_hidden_layers"] = c.Hidden, c.Intermediate, c.Layers
	w["num_attention_heads"], w["num_key_value_heads"] = c.Heads, c.KVHeads
	w["max_position_embeddings"] = c.Context
	w["rope_theta"], w["rope_scaling"] = c.Rope.Theta, c.ropeScaling()
}

// firstWindow is the window of the layers that have one, or nil.
func (c *Config) firstWindow() any {
	for _, w := range c.Windows {
		if w != 0 {
			return w
		}
	}
	return nil
}

// layerTypes says which layers have a window.
func (c *Config) layerTypes() []string {
	list := make([]string, c.Layers)
	for i := range list {
		list[i] = "full_attention"
		if c.window(i) != 0 {
			list[i] = "sliding_attention"
		}
	}
	return list
}

// part is which part of a head is turned.
func (c *Config) part() float64 { return float64(c.RotaryDims()) / float64(c.HeadDim) }

func (a Activation) String() string { return [...]string{"silu", "gelu", "gelu_new"}[a] }

func readLlama(s *settings, c *Config) {
	s.llamaCore(c, 2048, 1e-6)
	s.heads(c, 0, 0)
	c.TiedHead = s.boolean("tie_word_embeddings", false)
	c.Activation = s.activation("hidden_act", "silu", SiLU)
	c.QKVBias = s.boolean("attention_bias", false)
	c.OBias = c.QKVBias
	c.MLPBias = s.boolean("mlp_bias", false)
	s.rope(c, ropeKeys{})
}

func readMistral(s *settings, c *Config) {
	s.llamaCore(c, 4096*32, 1e-6)
	s.heads(c, 8, 0)
	c.TiedHead = s.boolean("tie_word_embeddings", false)
	c.Activation = s.activation("hidden_act", "silu", SiLU)
	s.rope(c, ropeKeys{})
	s.windows(c, s.window(4096), everyLayer)
}

func writeMistral(c *Config, w fields) {
	c.llamaNames(w)
	w["rms_norm_eps"], w["head_dim"], w["hidden_act"], w["sliding_window"] = c.NormEps, c.HeadDim, "silu", c.firstWindow()
}

func readQwen2(s *settings, c *Config) {
	s.llamaCore(c, 32768, 1e-6)
	s.heads(c, 32, 0)
	c.TiedHead = s.boolean("tie_word_embeddings", false)
	c.Activation = s.activation("hidden_act", "silu", SiLU)
	c.QKVBias = true
	s.rope(c, ropeKeys{})
	s.qwenWindows(c)
}

func (s *settings) qwenWindows(c *Config) {
	window, from := s.window(4096), s.integer("max_window_layers", 28)
	if !s.boolean("use_sliding_window", false) {
		window = 0
	}
	s.windows(c, window, func(layer int) bool { return layer >= from })
}

func writeQwen2(c *Config, w fields) {
	c.llamaNames(w)
	w["rms_norm_eps"], w["head_dim"], w["hidden_act"] = c.NormEps, c.HeadDim, "silu"
	w["sliding_window"], w["use_sliding_window"], w["layer_types"] = c.firstWindow(), c.firstWindow() != nil, c.layerTypes()
}

func readQwen3(s *settings, c *Config) {
	s.llamaCore(c, 32768, 1e-6)
	s.heads(c, 32, 128)
	c.TiedHead = s.boolean("tie_word_embeddings", false)
	c.Activation = s.activation("hidden_act", "silu", SiLU)
	c.QKVBias = s.boolean("attention_bias", false)
	c.OBias = c.QKVBias
	c.QKNorm = true
	s.rope(c, ropeKeys{})
	s.qwenWindows(c)
}

func writeQwen3(c *Config, w fields) {
	writeQwen2(c, w)
	w["attention_bias"] = c.QKVBias
}

// gemma takes what Gemma 1 and 2 share.
func (s *settings) gemma(c *Config) {
	c.TiedHead = s.boolean("tie_word_embeddings", true)
	c.Norm = RMSNormPlusOne
	c.QKVBias = s.boolean("attention_bias", false)
	c.OBias = c.QKVBias
	c.EmbedScale = sqrt(c.Hidden)
	s.rope(c, ropeKeys{})
}

func readGemma(s *settings, c *Config) {
	s.llamaCore(c, 8192, 1e-6)
	s.heads(c, 16, 256)
	// hidden_activation is the older name, and comes first. The first files
	// say gelu where the model was trained with the tanh.
	c.Activation = s.activation("hidden_act", "gelu_pytorch_tanh", GELU, GELUTanh)
	if c.Activation == GELU {
		c.Activation = GELUTanh
	}
	if s.text("hidden_activation", "") != "" {
		c.Activation = s.activation("hidden_activation", "", GELU, GELUTanh)
	}
	s.gemma(c)
}

func writeGemma(c *Config, w fields) {
	c.llamaNames(w)
	w["rms_norm_eps"], w["head_dim"], w["attention_bias"] = c.NormEps, c.HeadDim, c.QKVBias
	w["hidden_act"], w["hidden_activation"] = gemmaActivation(c), gemmaActivation(c)
}

func gemmaActivation(c *Config) string {
	if c.Activation == GELU {
		return "gelu"
	}
	return "gelu_pytorch_tanh"
}

func readGemma2(s *settings, c *Config) {
	s.llamaCore(c, 8192, 1e-6)
	s.heads(c, 4, 256)
	c.Activation = s.activation("hidden_activation", "gelu_pytorch_tanh", GELU, GELUTanh)
	s.ignore("hidden_act", "cache_implementation", "sliding_window_size") // no reader of this family uses them
	s.gemma(c)
	c.PostNorms = true
	scalar := s.number("query_pre_attn_scalar", 256)
	if !(scalar > 0) {
		s.fail(fmt.Errorf("query_pre_attn_scalar is %v", scalar))
	}
	c.AttentionScale = 1 / sqrt(scalar)
	c.AttentionCap = s.limit("attn_logit_softcapping", 50)
	c.LogitCap = s.limit("final_logit_softcapping", 30)
	s.windows(c, s.window(4096), func(layer int) bool { return layer%2 == 0 })
}

// limit takes a limit; null is 0, none.
func (s *settings) limit(key string, otherwise float64) float64 {
	if s.has(key) {
		otherwise = 0
	}
	return s.number(key, otherwise)
}

func writeGemma2(c *Config, w fields) {
	writeGemma(c, w)
	w["query_pre_attn_scalar"] = round(1 / (c.AttentionScale * c.AttentionScale))
	w["attn_logit_softcapping"], w["final_logit_softcapping"] = orNull(c.AttentionCap), orNull(c.LogitCap)
	w["sliding_window"], w["layer_types"] = c.firstWindow(), c.layerTypes()
}

func readPhi(s *settings, c *Config) {
	s.llamaCore(c, 2048, 0)
	s.heads(c, 0, 0)
	s.ignore("resid_pdrop") // dropout of the pretraining
	s.noDropout("embd_pdrop")
	c.NormEps = s.number("layer_norm_eps", 1e-5)
	c.TiedHead = s.boolean("tie_word_embeddings", false)
	c.Norm, c.Activation = LayerNorm, s.activation("hidden_act", "gelu_new", GELU, GELUTanh)
	c.QKVBias, c.OBias, c.MLPBias, c.HeadBias = true, true, true, true
	c.Parallel, c.SharedNorm = true, true
	s.rope(c, ropeKeys{part: "partial_rotary_factor", otherwise: 0.5})
}

func writePhi(c *Config, w fields) {
	c.llamaNames(w)
	w["layer_norm_eps"], w["hidden_act"], w["partial_rotary_factor"] = c.NormEps, c.Activation.String(), c.part()
	w["head_dim"] = c.HeadDim
}

func readPhi3(s *settings, c *Config) {
	s.llamaCore(c, 4096, 1e-5)
	s.heads(c, 0, 0)
	s.noDropout("resid_pdrop", "embd_pdrop")
	s.must("full_attn_mod", 1.0)
	s.must("interpolate_factor", 1.0)
	c.TiedHead = s.boolean("tie_word_embeddings", false)
	c.Activation = s.activation("hidden_act", "silu", SiLU)
	s.rope(c, ropeKeys{part: "partial_rotary_factor", otherwise: 1, su: true})
	s.windows(c, s.window(0), everyLayer)
}

func writePhi3(c *Config, w fields) {
	c.llamaNames(w)
	w["rms_norm_eps"], w["head_dim"], w["hidden_act"] = c.NormEps, c.HeadDim, "silu"
	w["partial_rotary_factor"], w["sliding_window"] = c.part(), c.firstWindow()
	if n := c.Rope.Scaling.OriginalContext; n != 0 {
		w["original_max_position_embeddings"] = n
	}
}

func readFalcon(s *settings, c *Config) {
	c.Hidden = s.same(0, "hidden_size", "n_embed")
	c.Layers = s.same(0, "num_hidden_layers", "n_layer")
	c.Heads = s.same(0, "num_attention_heads", "n_head")
	c.Vocab = s.integer("vocab_size", 0)
	c.Context = s.integer("max_position_embeddings", 2048)
	c.Intermediate = s.integer("ffn_hidden_size", 4*c.Hidden)
	c.NormEps = s.number("layer_norm_epsilon", 1e-5)
	c.TiedHead = s.boolean("tie_word_embeddings", true)
	c.Norm, c.Activation = LayerNorm, s.activation("activation", "gelu", GELU, GELUTanh)
	c.QKVBias = s.boolean("bias", false)
	c.OBias, c.MLPBias = c.QKVBias, c.QKVBias
	s.noDropout("hidden_dropout", "attention_dropout")
	// ALiBi of Falcon is rounded to bfloat16, and so part of the arithmetic in
	// a way that this package has not.
	s.must("alibi", false)
	s.headDim(c)

	grouped, single := s.boolean("new_decoder_architecture", false), s.boolean("multi_query", true)
	heads := s.same(c.Heads, "num_kv_heads", "n_head_kv")
	switch {
	case grouped:
		c.KVHeads = heads
	case single:
		c.KVHeads = 1
	case heads != c.Heads:
		s.fail(fmt.Errorf("%w: num_kv_heads is %d of %d heads without new_decoder_architecture", ErrUnsupported, heads, c.Heads))
	default:
		c.KVHeads = c.Heads
	}
	otherwise := 1
	if grouped {
		otherwise = 2
	}
	norms := s.integer("num_ln_in_parallel_attn", otherwise)
	c.Parallel = s.boolean("parallel_attn", true)
	c.SharedNorm = c.Parallel && norms == 1
	if norms != 1 && norms != 2 || norms == 2 && !grouped || grouped && !c.Parallel {
		s.fail(fmt.Errorf("%w: num_ln_in_parallel_attn is %d, with new_decoder_architecture %v and parallel_attn %v", ErrUnsupported, norms, grouped, c.Parallel))
	}
	s.rope(c, ropeKeys{})
}

func writeFalcon(c *Config, w fields) {
	c.llamaNames(w)
	delete(w, "num_key_value_heads")
	delete(w, "intermediate_size")
	w["layer_norm_epsilon"], w["ffn_hidden_size"], w["bias"] = c.NormEps, c.Intermediate, c.QKVBias
	w["activation"], w["alibi"], w["num_kv_heads"], w["parallel_attn"] = c.Activation.String(), false, c.KVHeads, c.Parallel
	old := !c.Parallel || c.SharedNorm && (c.KVHeads == 1 || c.KVHeads == c.Heads)
	w["multi_query"], w["new_decoder_architecture"] = c.KVHeads == 1, !old
	if !old {
		w["num_ln_in_parallel_attn"] = map[bool]int{true: 1, false: 2}[c.SharedNorm]
	}
}

func readMPT(s *settings, c *Config) {
	c.Hidden = s.same(0, "d_model", "hidden_size")
	c.Heads = s.same(0, "n_heads", "num_attention_heads")
	c.Layers = s.same(0, "n_layers", "num_hidden_layers")
	c.Vocab = s.integer("vocab_size", 0)
	c.Context = s.integer("max_seq_len", 2048)
	c.KVHeads, c.Intermediate = c.Heads, 4*c.Hidden
	c.NormEps = s.number("layer_norm_epsilon", 1e-5)
	c.TiedHead = s.boolean("tie_word_embeddings", true)
	c.Norm, c.Activation, c.Position = LayerNormNoBias, GELU, ALiBi
	s.noDropout("resid_pdrop", "emb_pdrop")
	s.must("expansion_ratio", 4.0)
	s.must("no_bias", true)
	s.must("embedding_fraction", 1.0)
	if norm := s.text("norm_type", "low_precision_layernorm"); norm != "low_precision_layernorm" && norm != "layernorm" {
		s.fail(fmt.Errorf("%w: norm_type is %q", ErrUnsupported, norm))
	}
	// Of the positions only ALiBi is made, whatever learned_pos_emb says.
	s.ignore("learned_pos_emb", "init_device", "verbose", "init_config", "tokenizer_name", "fc_type")
	s.headDim(c)
	a := s.object("attn_config")
	if a == nil {
		return
	}
	a.must("attn_type", "multihead_attention")
	a.must("alibi", true)
	a.must("alibi_bias_max", 8.0)
	a.noDropout("attn_pdrop")
	a.ignore("attn_impl")
	c.ClipQKV = a.number("clip_qkv", 0)
	c.AttentionScale = a.number("softmax_scale", 0)
	a.rest()
	if a.err != nil {
		s.fail(a.err)
	}
}

func writeMPT(c *Config, w fields) {
	w["d_model"], w["n_heads"], w["n_layers"], w["max_seq_len"], w["expansion_ratio"] = c.Hidden, c.Heads, c.Layers, c.Context, 4
	w["layer_norm_epsilon"], w["no_bias"], w["norm_type"] = c.NormEps, true, "low_precision_layernorm"
	w["attn_config"] = fields{
		"alibi": true, "alibi_bias_max": 8, "attn_type": "multihead_attention",
		"clip_qkv": orNull(c.ClipQKV), "softmax_scale": orNull(c.AttentionScale),
	}
}

func readNeoX(s *settings, c *Config) {
	s.llamaCore(c, 2048, 0)
	c.KVHeads = c.Heads
	s.headDim(c)
	s.noDropout("hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob")
	s.ignore("classifier_dropout")
	c.NormEps = s.number("layer_norm_eps", 1e-5)
	c.TiedHead = s.boolean("tie_word_embeddings", false)
	c.Norm, c.Activation = LayerNorm, s.activation("hidden_act", "gelu", GELU, GELUTanh)
	c.QKVBias = s.boolean("attention_bias", true)
	c.OBias, c.MLPBias = c.QKVBias, true
	c.Parallel = s.boolean("use_parallel_residual", true)
	s.rope(c, ropeKeys{theta: "rotary_emb_base", part: "rotary_pct", otherwise: 0.25})
}

func writeNeoX(c *Config, w fields) {
	c.llamaNames(w)
	delete(w, "rope_theta")
	delete(w, "num_key_value_heads")
	w["rotary_emb_base"], w["rotary_pct"], w["layer_norm_eps"] = c.Rope.Theta, c.part(), c.NormEps
	w["hidden_act"], w["attention_bias"], w["use_parallel_residual"] = c.Activation.String(), c.QKVBias, c.Parallel
}

func readGPT2(s *settings, c *Config) {
	c.Hidden = s.same(0, "n_embd", "hidden_size")
	c.Layers = s.same(0, "n_layer", "num_hidden_layers")
	c.Heads = s.same(0, "n_head", "num_attention_heads")
	c.Context = s.same(1024, "n_positions", "max_position_embeddings")
	c.Vocab = s.integer("vocab_size", 0)
	c.KVHeads = c.Heads
	c.Intermediate = s.integer("n_inner", 4*c.Hidden)
	c.NormEps = s.number("layer_norm_epsilon", 1e-5)
	c.TiedHead = s.boolean("tie_word_embeddings", true)
	c.Norm, c.Position = LayerNorm, Learned
	c.Activation = s.activation("activation_function", "gelu_new", GELU, GELUTanh)
	c.QKVBias, c.OBias, c.MLPBias = true, true, true
	if !s.boolean("scale_attn_weights", true) {
		c.AttentionScale = 1
	}
	s.must("scale_attn_by_inverse_layer_idx", false)
	// Dropout of the pretraining, a rounding of half types, heads of other
	// tasks, and a repetition of n_positions.
	s.ignore("resid_pdrop", "embd_pdrop", "attn_pdrop", "reorder_and_upcast_attn", "n_ctx", "n_special", "predict_special_tokens",
		"summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj")
	s.headDim(c)
}

func writeGPT2(c *Config, w fields) {
	w["n_embd"], w["n_layer"], w["n_head"], w["n_positions"], w["n_inner"] = c.Hidden, c.Layers, c.Heads, c.Context, c.Intermediate
	w["layer_norm_epsilon"], w["activation_function"], w["scale_attn_weights"] = c.NormEps, c.Activation.String(), c.AttentionScale == 0
}

func sqrt[T int | float64](v T) float64 { return math.Sqrt(float64(v)) }

// round returns the integer that v is but for rounding, or v.
func round(v float64) float64 {
	if r := math.Round(v); math.Abs(r-v) < 1e-9*v {
		return r
	}
	return v
}

func orNull(v float64) any {
	if v == 0 {
		return nil
	}
	return v
}
