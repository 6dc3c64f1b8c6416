package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/shard/safetensors"
)

// published are config.json files as they are published, of smaller models.
var published = map[string]string{
	"gemma": `{"architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 2, "eos_token_id": 1,
		"head_dim": 32, "hidden_act": "gelu", "hidden_activation": null, "hidden_size": 64, "initializer_range": 0.02,
		"intermediate_size": 96, "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 4, "num_hidden_layers": 2,
		"num_key_value_heads": 1, "pad_token_id": 0, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000.0,
		"torch_dtype": "bfloat16", "transformers_version": "4.38.0.dev0", "use_cache": true, "vocab_size": 320}`,
	"gemma2": `{"architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "attn_logit_softcapping": 50.0,
		"bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 107], "final_logit_softcapping": 30.0, "head_dim": 32,
		"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 64, "initializer_range": 0.02,
		"intermediate_size": 96, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 4, "num_hidden_layers": 3,
		"num_key_value_heads": 2, "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
		"sliding_window": 16, "sliding_window_size": 16, "torch_dtype": "float32", "use_cache": true, "vocab_size": 320}`,
	"qwen3": `{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
		"head_dim": 32, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96,
		"max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 4, "num_hidden_layers": 2,
		"num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
		"tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false, "vocab_size": 320}`,
	"phi": `{"architectures": ["PhiForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 2,
		"hidden_act": "gelu_new", "hidden_size": 80, "initializer_range": 0.02, "intermediate_size": 96, "layer_norm_eps": 1e-05,
		"max_position_embeddings": 2048, "model_type": "phi", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 4,
		"partial_rotary_factor": 0.4, "qk_layernorm": false, "resid_pdrop": 0.1, "rope_scaling": null, "rope_theta": 10000.0,
		"tie_word_embeddings": false, "torch_dtype": "float16", "use_cache": true, "vocab_size": 320}`,
	"phi3": `{"_name_or_path": "x", "architectures": ["Phi3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
		"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 2,
		"hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 4096,
		"model_type": "phi3", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 4,
		"original_max_position_embeddings": 4096, "pad_token_id": 3, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": null,
		"rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 320}`,
	"phi3-long": `{"architectures": ["Phi3ForCausalLM"], "hidden_act": "silu", "hidden_size": 16, "intermediate_size": 96,
		"max_position_embeddings": 131072, "model_type": "phi3", "num_attention_heads": 4, "num_hidden_layers": 2,
		"original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05,
		"rope_scaling": {"long_factor": [1.5, 20], "short_factor": [1.0, 1.25], "type": "su"},
		"rope_theta": 10000.0, "sliding_window": 262144, "vocab_size": 320}`,
	"falcon7": `{"alibi": false, "apply_residual_connection_post_layernorm": false, "architectures": ["FalconForCausalLM"],
		"attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_falcon.FalconConfig"}, "bias": false, "bos_token_id": 11,
		"eos_token_id": 11, "hidden_dropout": 0.0, "hidden_size": 64, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
		"model_type": "falcon", "multi_query": true, "new_decoder_architecture": false, "num_attention_heads": 4,
		"num_hidden_layers": 2, "num_kv_heads": 4, "parallel_attn": true, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 320}`,
	"falcon40": `{"alibi": false, "architectures": ["FalconForCausalLM"], "attention_dropout": 0.0, "bias": false, "bos_token_id": 11,
		"eos_token_id": 11, "hidden_dropout": 0.0, "hidden_size": 64, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
		"model_type": "falcon", "multi_query": true, "new_decoder_architecture": true, "num_attention_heads": 4,
		"num_hidden_layers": 2, "num_kv_heads": 2, "parallel_attn": true, "vocab_size": 320}`,
	"falcon11": `{"activation": "gelu", "alibi": false, "architectures": ["FalconForCausalLM"], "attention_dropout": 0.0, "bias": false,
		"ffn_hidden_size": 128, "hidden_dropout": 0.0, "hidden_size": 64, "layer_norm_epsilon": 1e-05, "max_position_embeddings": 8192,
		"model_type": "falcon", "multi_query": true, "new_decoder_architecture": true, "num_attention_heads": 4, "num_hidden_layers": 2,
		"num_kv_heads": 2, "num_ln_in_parallel_attn": 1, "parallel_attn": true, "rope_scaling": null, "rope_theta": 500042.0,
		"tie_word_embeddings": false, "vocab_size": 320}`,
	"mpt": `{"architectures": ["MPTForCausalLM"], "attn_config": {"alibi": true, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0,
		"attn_type": "multihead_attention", "attn_uses_sequence_id": false, "clip_qkv": 6, "prefix_lm": false, "qk_ln": false,
		"softmax_scale": null}, "d_model": 48, "emb_pdrop": 0, "embedding_fraction": 1.0, "expansion_ratio": 4,
		"init_config": {"init_div_is_residual": true}, "init_device": "cpu", "learned_pos_emb": true, "logit_scale": null,
		"max_seq_len": 2048, "model_type": "mpt", "n_heads": 3, "n_layers": 2, "no_bias": true, "norm_type": "low_precision_layernorm",
		"resid_pdrop": 0, "tokenizer_name": "EleutherAI/gpt-neox-20b", "torch_dtype": "bfloat16", "use_cache": false, "verbose": 0,
		"vocab_size": 320}`,
	"neox": `{"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu", "hidden_size": 64,
		"initializer_range": 0.02, "intermediate_size": 256, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
		"model_type": "gpt_neox", "num_attention_heads": 4, "num_hidden_layers": 2, "rotary_emb_base": 10000, "rotary_pct": 0.25,
		"tie_word_embeddings": false, "torch_dtype": "float16", "use_cache": true, "use_parallel_residual": true, "vocab_size": 320}`,
	"gpt2": `{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 256,
		"embd_pdrop": 0.1, "eos_token_id": 256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
		"n_ctx": 1024, "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
		"summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
		"task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 320}`,
}

// changed returns a published configuration with other fields; a value of nil
// removes one.
func changed(t testing.TB, name string, change map[string]any) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(published[name]), &m); err != nil {
		t.Fatal(err)
	}
	for key, v := range change {
		at := m
		for {
			outer, rest, ok := strings.Cut(key, "/")
			if !ok {
				break
			}
			at, key = at[outer].(map[string]any), rest
		}
		if at[key] = v; v == nil {
			delete(at, key)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// publishedConfigs are what the files above mean.
func publishedConfigs() map[string]Config {
	is := func(architecture string, change func(c *Config)) Config {
		c := Llama(64, 96, 2, 4, 320, 2048)
		c.Architecture = architecture
		change(&c)
		return c
	}
	falcon := func(c *Config) {
		c.Norm, c.Activation, c.Parallel, c.TiedHead, c.Intermediate = LayerNorm, GELU, true, true, 256
	}
	return map[string]Config{
		"gemma": is("GemmaForCausalLM", func(c *Config) {
			c.Norm, c.Activation, c.TiedHead, c.NormEps, c.Context = RMSNormPlusOne, GELUTanh, true, 1e-6, 8192
			c.HeadDim, c.KVHeads, c.EmbedScale, c.BOS, c.EOS = 32, 1, 8, 2, []int32{1}
		}),
		"gemma2": is("Gemma2ForCausalLM", func(c *Config) {
			c.Norm, c.Activation, c.TiedHead, c.NormEps, c.Context = RMSNormPlusOne, GELUTanh, true, 1e-6, 8192
			c.HeadDim, c.KVHeads, c.EmbedScale, c.BOS, c.EOS = 32, 2, 8, 2, []int32{1, 107}
			c.Layers, c.PostNorms, c.Windows, c.AttentionScale, c.AttentionCap, c.LogitCap = 3, true, []int{16, 0, 16}, 1./16, 50, 30
		}),
		"qwen3": is("Qwen3ForCausalLM", func(c *Config) {
			c.QKNorm, c.HeadDim, c.KVHeads, c.TiedHead, c.NormEps, c.Context = true, 32, 2, true, 1e-6, 40960
			c.Rope.Theta, c.BOS, c.EOS = 1e6, 1, []int32{2}
		}),
		"phi": is("PhiForCausalLM", func(c *Config) {
			c.Hidden, c.HeadDim, c.Norm, c.Activation, c.Parallel, c.SharedNorm = 80, 20, LayerNorm, GELUTanh, true, true
			c.QKVBias, c.OBias, c.MLPBias, c.HeadBias, c.Rope.Dims, c.BOS, c.EOS = true, true, true, true, 8, 1, []int32{2}
		}),
		"phi3": is("Phi3ForCausalLM", func(c *Config) { c.Context, c.Windows, c.BOS, c.EOS = 4096, []int{2047, 2047}, 1, []int32{2} }),
		"phi3-long": is("Phi3ForCausalLM", func(c *Config) {
			c.Hidden, c.HeadDim, c.Context, c.Windows = 16, 4, 131072, []int{262144, 262144}
			c.Rope.Scaling = RopeScaling{
				Kind: "longrope", OriginalContext: 4096, ShortFactors: []float64{1, 1.25}, LongFactors: []float64{1.5, 20},
				AttentionFactor: math.Sqrt(1 + 5./12), // log 32 by log 4096
			}
		}),
		"falcon7":  is("FalconForCausalLM", func(c *Config) { falcon(c); c.KVHeads, c.SharedNorm, c.BOS, c.EOS = 1, true, 11, []int32{11} }),
		"falcon40": is("FalconForCausalLM", func(c *Config) { falcon(c); c.KVHeads, c.BOS, c.EOS = 2, 11, []int32{11} }),
		"falcon11": is("FalconForCausalLM", func(c *Config) {
			falcon(c)
			c.KVHeads, c.SharedNorm, c.TiedHead, c.Rope.Theta, c.Intermediate, c.Context = 2, true, false, 500042, 128, 8192
		}),
		"mpt": is("MptForCausalLM", func(c *Config) {
			c.Hidden, c.Heads, c.KVHeads, c.Intermediate, c.ClipQKV = 48, 3, 3, 192, 6
			c.Norm, c.Activation, c.Position, c.TiedHead, c.Rope = LayerNormNoBias, GELU, ALiBi, true, Rope{}
		}),
		"neox": is("GPTNeoXForCausalLM", func(c *Config) {
			c.Norm, c.Activation, c.Parallel, c.Intermediate, c.Rope.Dims = LayerNorm, GELU, true, 256, 4
			c.QKVBias, c.OBias, c.MLPBias, c.BOS, c.EOS = true, true, true, 0, []int32{0}
		}),
		"gpt2": is("GPT2LMHeadModel", func(c *Config) {
			c.Norm, c.Activation, c.Position, c.TiedHead, c.Intermediate = LayerNorm, GELUTanh, Learned, true, 256
			c.QKVBias, c.OBias, c.MLPBias, c.Context, c.Rope, c.BOS, c.EOS = true, true, true, 1024, Rope{}, 256, []int32{256}
		}),
	}
}

// nearly compares numbers that are computed, such as square roots.
var nearly = cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-12*math.Abs(b) })

func TestPublishedConfigs(t *testing.T) {
	for name, want := range publishedConfigs() {
		got, err := ParseConfig([]byte(published[name]))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got, nearly); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestConfigSpellings: other spellings of the same, and other values.
func TestConfigSpellings(t *testing.T) {
	object := func(list ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(list); i += 2 {
			m[list[i].(string)] = list[i+1]
		}
		return m
	}
	null := json.RawMessage("null")
	same := func(*Config) {}
	long := object("rope_type", "longrope", "short_factor", []float64{1, 1.25}, "long_factor", []float64{1.5, 20})
	for _, tt := range []struct {
		name   string
		change map[string]any
		want   func(c *Config)
	}{
		{"gemma", object("hidden_act", "gelu_pytorch_tanh", "dtype", "float32", "torch_dtype", nil), same},
		{"gemma", object("hidden_act", nil), same},
		{"gemma", object("hidden_activation", "gelu"), func(c *Config) { c.Activation = GELU }},
		{"gemma", object("attention_bias", true, "tie_word_embeddings", false), func(c *Config) { c.QKVBias, c.OBias, c.TiedHead = true, true, false }},
		{"gemma", object("head_dim", nil, "num_attention_heads", 16, "num_key_value_heads", nil), func(c *Config) {
			c.Heads, c.KVHeads, c.HeadDim = 16, 16, 256
		}},
		{"gemma", object("rope_theta", nil, "rope_parameters", object("rope_theta", 5000.0, "rope_type", "default")), func(c *Config) { c.Rope.Theta = 5000 }},
		{"gemma2", object("layer_types", []string{"full_attention", "sliding_attention", "full_attention"}), func(c *Config) { c.Windows = []int{0, 16, 0} }},
		{"gemma2", object("query_pre_attn_scalar", 144), func(c *Config) { c.AttentionScale = 1. / 12 }},
		{"gemma2", object("attn_logit_softcapping", null, "final_logit_softcapping", null, "sliding_window", null), func(c *Config) {
			c.AttentionCap, c.LogitCap, c.Windows = 0, 0, nil
		}},
		{"gemma2", object("attn_logit_softcapping", nil, "final_logit_softcapping", nil, "sliding_window", nil, "query_pre_attn_scalar", nil), func(c *Config) {
			c.Windows = []int{4096, 0, 4096}
		}},
		{"qwen3", object("use_sliding_window", true, "sliding_window", 8, "max_window_layers", 1), func(c *Config) { c.Windows = []int{0, 8} }},
		{"qwen3", object("layer_types", []string{"full_attention", "full_attention"}), same},
		{"phi", object("partial_rotary_factor", nil, "rope_parameters", object("partial_rotary_factor", 0.4, "rope_theta", 10000.0, "rope_type", "default")), same},
		{"phi", object("partial_rotary_factor", nil), func(c *Config) { c.Rope.Dims = 10 }},
		{"phi", object("num_key_value_heads", 2, "hidden_act", "gelu"), func(c *Config) { c.KVHeads, c.Activation = 2, GELU }},
		{"phi3", object("sliding_window", null, "partial_rotary_factor", 0.75), func(c *Config) { c.Windows, c.Rope.Dims = nil, 12 }},
		{"phi3-long", object("rope_scaling", long), same},
		{"phi3-long", object("rope_scaling", nil, "rope_theta", nil, "rope_parameters", object(
			"rope_type", "longrope", "short_factor", []float64{1, 1.25}, "long_factor", []float64{1.5, 20},
			"rope_theta", 10000.0, "original_max_position_embeddings", 4096, "partial_rotary_factor", 1.0, "factor", 32.0)), same},
		{"phi3-long", object("rope_scaling/type", "yarn", "rope_scaling/attention_factor", 1.5), func(c *Config) { c.Rope.Scaling.AttentionFactor = 1.5 }},
		{"falcon7", object("n_layer", 3, "num_hidden_layers", nil), func(c *Config) { c.Layers = 3 }},
		{"falcon7", object("multi_query", false, "bias", true), func(c *Config) { c.KVHeads, c.QKVBias, c.OBias, c.MLPBias = 4, true, true, true }},
		{"falcon7", object("multi_query", nil, "parallel_attn", false, "num_kv_heads", nil), func(c *Config) { c.Parallel, c.SharedNorm = false, false }},
		{"mpt", object("attn_config/clip_qkv", null, "attn_config/softmax_scale", 0.5, "architectures", []string{"MptForCausalLM"}), func(c *Config) {
			c.ClipQKV, c.AttentionScale = 0, 0.5
		}},
		{"mpt", object("attn_config", nil), func(c *Config) { c.ClipQKV = 0 }},
		{"neox", object("rotary_emb_base", nil, "rotary_pct", nil, "rope_parameters", object("rope_theta", 10000.0, "partial_rotary_factor", 0.25, "rope_type", "default")), same},
		{"neox", object("rope_theta", 10000, "partial_rotary_factor", 0.25, "attention_bias", true, "attention_dropout", 0.0, "hidden_dropout", 0.0, "classifier_dropout", 0.1), same},
		{"neox", object("rotary_pct", 1.0, "use_parallel_residual", false, "hidden_act", "gelu_fast", "attention_bias", false), func(c *Config) {
			c.Rope.Dims, c.Parallel, c.Activation, c.QKVBias, c.OBias = 0, false, GELUTanh, false, false
		}},
		{"neox", object("rope_scaling", object("type", "linear", "factor", 2.0)), func(c *Config) { c.Rope.Scaling = RopeScaling{Kind: "linear", Factor: 2} }},
		{"gpt2", object("n_inner", 100, "scale_attn_weights", false, "activation_function", "gelu"), func(c *Config) {
			c.Intermediate, c.AttentionScale, c.Activation = 100, 1, GELU
		}},
		{"gpt2", object("hidden_size", 64, "num_hidden_layers", 2, "n_inner", null), same},
	} {
		want := publishedConfigs()[tt.name]
		tt.want(&want)
		got, err := ParseConfig(changed(t, tt.name, tt.change))
		if err != nil {
			t.Errorf("%s with %v: %v", tt.name, tt.change, err)
			continue
		}
		if diff := cmp.Diff(want, got, nearly); diff != "" {
			t.Errorf("%s with %v: %s", tt.name, tt.change, diff)
		}
	}
}

// TestFamilyRefuses: a setting that changes the arithmetic in a way that is
// not computed is an error that names it.
func TestFamilyRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		value     any
		want      string
	}{
		{"gemma", "hidden_act", "silu", "hidden_act"},
		{"gemma", "use_bidirectional_attention", true, "use_bidirectional_attention"},
		{"gemma", "final_logit_softcapping", 30, "final_logit_softcapping"},
		{"gemma", "attention_dropout", 0.1, "attention_dropout"},
		{"gemma2", "query_pre_attn_scalar", 0, "query_pre_attn_scalar"},
		{"gemma2", "attn_logit_softcapping", -1, "soft cap of scores"},
		{"gemma2", "layer_types", []string{"full_attention"}, "layer_types has 1 entries"},
		{"gemma2", "layer_types", []string{"full_attention", "chunked_attention", "full_attention"}, "chunked_attention"},
		{"gemma2", "hidden_activation", "relu", "hidden_activation"},
		{"qwen3", "layer_types", []string{"full_attention", "sliding_attention"}, "there is no window"},
		{"qwen3", "partial_rotary_factor", 0.5, "partial_rotary_factor"},
		{"phi", "qk_layernorm", true, "qk_layernorm"},
		{"phi", "embd_pdrop", 0.1, "embd_pdrop"},
		{"phi", "partial_rotary_factor", 1.5, "1.5 of a head"},
		{"phi", "partial_rotary_factor", 0.45, "odd"}, // 9 of 20
		{"phi", "hidden_act", "relu", "hidden_act"},
		{"phi3", "resid_pdrop", 0.1, "resid_pdrop"},
		{"phi3", "full_attn_mod", 2, "full_attn_mod"},
		{"phi3", "sliding_window", -5, "sliding_window is -5"},
		{"phi3-long", "rope_scaling/short_factor", []float64{1}, "1 short and 2 long factors"},
		{"phi3-long", "rope_scaling/long_factor", []float64{1, 0}, "factors 1 are 1.25 and 0"},
		{"phi3-long", "rope_scaling/factor", 8, "another ratio"},
		{"phi3-long", "rope_scaling/beta_fast", 8, "beta_fast"},
		{"falcon7", "alibi", true, "alibi is true"},
		{"falcon7", "apply_residual_connection_post_layernorm", true, "apply_residual_connection_post_layernorm"},
		{"falcon7", "num_ln_in_parallel_attn", 2, "num_ln_in_parallel_attn"},
		{"falcon7", "hidden_dropout", 0.1, "hidden_dropout"},
		{"falcon7", "activation", "relu", "activation"},
		{"falcon7", "n_head", 8, "num_attention_heads is 4 and n_head is 8"},
		{"falcon40", "parallel_attn", false, "parallel_attn false"},
		{"falcon40", "num_kv_heads", 3, "cannot share"},
		{"mpt", "logit_scale", 0.5, "logit_scale"},
		{"mpt", "no_bias", false, "no_bias"},
		{"mpt", "expansion_ratio", 3, "expansion_ratio"},
		{"mpt", "norm_type", "rmsnorm", "norm_type"},
		{"mpt", "resid_pdrop", 0.1, "resid_pdrop"},
		{"mpt", "attn_config/alibi", false, "attn_config.alibi is false"},
		{"mpt", "attn_config/alibi_bias_max", 16, "attn_config.alibi_bias_max"},
		{"mpt", "attn_config/qk_ln", true, "attn_config.qk_ln"},
		{"mpt", "attn_config/attn_type", "multiquery_attention", "attn_config.attn_type"},
		{"mpt", "attn_config/prefix_lm", true, "attn_config.prefix_lm"},
		{"mpt", "attn_config/clip_qkv", -1, "limit of q, k and v"},
		{"mpt", "attn_config/kv_n_heads", 1, "attn_config.kv_n_heads"},
		{"neox", "rope_theta", 5000, "rotary_emb_base"},
		{"neox", "hidden_act", "relu", "hidden_act"},
		{"neox", "rotary_pct", 0.01, "0.01"},
		{"neox", "hidden_dropout", 0.1, "hidden_dropout"},
		{"gpt2", "scale_attn_by_inverse_layer_idx", true, "scale_attn_by_inverse_layer_idx"},
		{"gpt2", "add_cross_attention", true, "add_cross_attention"},
		{"gpt2", "activation_function", "relu", "activation_function"},
		{"gpt2", "hidden_size", 32, "n_embd is 64 and hidden_size is 32"},
		{"gpt2", "rotary_dim", 8, "rotary_dim"},
	} {
		_, err := ParseConfig(changed(t, tt.name, map[string]any{tt.key: tt.value}))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with %s %v: err = %v, want one with %q", tt.name, tt.key, tt.value, err, tt.want)
		}
	}
}

// TestNames: modules and parameters have the names of published checkpoints.
func TestNames(t *testing.T) {
	bias := func(paths ...string) []string {
		var list []string
		for _, p := range paths {
			list = append(list, p+".weight", p+".bias")
		}
		return list
	}
	weight := func(paths ...string) []string {
		var list []string
		for _, p := range paths {
			list = append(list, p+".weight")
		}
		return list
	}
	llama := "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj"
	for _, tt := range []struct {
		name, layer, modules string
		others               []string // parameters of a layer beside its modules
		outside              []string
	}{
		{"gemma", "model.layers.1.", llama, weight("input_layernorm", "post_attention_layernorm"), weight("model.embed_tokens", "model.norm")},
		{
			"gemma2", "model.layers.1.", llama,
			weight("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
			weight("model.embed_tokens", "model.norm"),
		},
		{
			"qwen3", "model.layers.1.", llama, weight("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"),
			weight("model.embed_tokens", "model.norm"),
		},
		{
			"phi", "model.layers.1.", "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.dense mlp.fc1 mlp.fc2", bias("input_layernorm"),
			slices.Concat(weight("model.embed_tokens"), bias("model.final_layernorm", "lm_head")),
		},
		{
			"phi3", "model.layers.1.", "self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj",
			weight("input_layernorm", "post_attention_layernorm"), weight("model.embed_tokens", "model.norm", "lm_head"),
		},
		{
			"falcon7", "transformer.h.1.", "self_attention.query_key_value self_attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h",
			bias("input_layernorm"), slices.Concat(weight("transformer.word_embeddings"), bias("transformer.ln_f")),
		},
		{
			"falcon40", "transformer.h.1.", "self_attention.query_key_value self_attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h",
			bias("ln_attn", "ln_mlp"), slices.Concat(weight("transformer.word_embeddings"), bias("transformer.ln_f")),
		},
		{
			"falcon11", "transformer.h.1.", "self_attention.query_key_value self_attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h",
			bias("input_layernorm"), slices.Concat(weight("transformer.word_embeddings", "lm_head"), bias("transformer.ln_f")),
		},
		{
			"mpt", "transformer.blocks.1.", "attn.Wqkv attn.out_proj ffn.up_proj ffn.down_proj", weight("norm_1", "norm_2"),
			weight("transformer.wte", "transformer.norm_f"),
		},
		{
			"neox", "gpt_neox.layers.1.", "attention.query_key_value attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h",
			bias("input_layernorm", "post_attention_layernorm"), slices.Concat(weight("gpt_neox.embed_in", "embed_out"), bias("gpt_neox.final_layer_norm")),
		},
		{
			"gpt2", "transformer.h.1.", "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj", bias("ln_1", "ln_2"),
			slices.Concat(weight("transformer.wte", "transformer.wpe"), bias("transformer.ln_f")),
		},
	} {
		c := publishedConfigs()[tt.name]
		var modules, params, outside []string
		biases := tt.name == "phi" || tt.name == "neox" || tt.name == "gpt2"
		for _, m := range c.Modules() {
			if p, ok := strings.CutPrefix(m.Path, tt.layer); ok {
				modules = append(modules, p)
			}
		}
		if got := strings.Join(modules, " "); got != tt.modules {
			t.Errorf("%s: modules %s, want %s", tt.name, got, tt.modules)
		}
		want := slices.Concat(tt.others, weight(modules...))
		if biases {
			want = slices.Concat(tt.others, bias(modules...))
		}
		for _, p := range c.params() {
			if name, ok := strings.CutPrefix(p.name, tt.layer); ok {
				params = append(params, name)
			} else if !strings.HasPrefix(p.name, strings.Replace(tt.layer, "1", "0", 1)) && !strings.HasPrefix(p.name, strings.Replace(tt.layer, "1", "2", 1)) {
				outside = append(outside, p.name)
			}
		}
		slices.Sort(want)
		slices.Sort(params)
		slices.Sort(tt.outside)
		if diff := cmp.Diff(want, params); diff != "" {
			t.Errorf("%s: parameters of a layer: %s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.outside, outside); diff != "" {
			t.Errorf("%s: other parameters: %s", tt.name, diff)
		}
	}
}

func mustLogits(t *testing.T, m *Model) []float32 {
	t.Helper()
	logits, err := m.Logits(batchOf(t, sequences(m.cfg.Vocab, 9, 4)))
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

func TestSaveLoadFamilies(t *testing.T) {
	for name, c := range familyConfigs() {
		c.BOS, c.EOS = 1, []int32{2, 3}
		if name == "gpt2" {
			c.BOS, c.EOS = -1, nil
		}
		m, err := lively(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		dir, again := t.TempDir(), t.TempDir()
		if err := m.Save(dir, safetensors.F32); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := Load(dir, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(m.cfg, got.cfg); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if !slices.Equal(mustLogits(t, m), mustLogits(t, got)) {
			t.Errorf("%s: other logits after saving and loading", name)
		}
		if err := got.Save(again, safetensors.F32); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"config.json", "generation_config.json", weightsFile} {
			a, errA := os.ReadFile(filepath.Join(dir, file))
			b, errB := os.ReadFile(filepath.Join(again, file))
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Errorf("%s: %s saved again differs (%v, %v)", name, file, errA, errB)
			}
		}
	}
}

// TestSaveRefuses: what an architecture has no setting for is not lost.
func TestSaveRefuses(t *testing.T) {
	for name, change := range map[string]func(c *Config){
		"mistral": func(c *Config) { c.Windows = []int{3, 4} },
		"qwen3":   func(c *Config) { c.EmbedScale = 2 },
		"gemma":   func(c *Config) { c.LogitCap = 2 },
		"phi3":    func(c *Config) { c.OBias = true },
		"mpt":     func(c *Config) { c.MLPBias = true },
		"gpt2":    func(c *Config) { c.Windows = []int{3, 3} },
		"neox":    func(c *Config) { c.KVHeads = 1 },
	} {
		c := familyConfigs()[name]
		change(&c)
		m, err := New(c, 1, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Save(t.TempDir(), safetensors.F32); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: err = %v", name, err)
		}
	}
}

// TestStoredAs: a checkpoint with names as some are published is the same
// model: without the prefix of the base, with what is redundant.
func TestStoredAs(t *testing.T) {
	extra := map[string][]string{
		"gpt2": {"h.0.attn.bias", "h.1.attn.masked_bias", "lm_head.weight"},
		"neox": {"gpt_neox.layers.0.attention.bias", "layers.1.attention.masked_bias", "layers.1.attention.rotary_emb.inv_freq"},
		"mpt":  {"lm_head.weight"},
	}
	for name, c := range familyConfigs() {
		m, err := lively(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := m.Save(dir, safetensors.F32); err != nil {
			t.Fatal(err)
		}
		rewrite(t, dir, func(list []safetensors.Tensor) []safetensors.Tensor {
			for i := range list {
				list[i].Name = strings.TrimPrefix(list[i].Name, c.family().base)
			}
			for _, name := range extra[name] {
				list = append(list, safetensors.Tensor{Name: name, DType: safetensors.F32, Shape: []int64{1, 1, 2, 2}, Values: make([]float32, 4)})
			}
			return list
		})
		got, err := Load(dir, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(mustLogits(t, m), mustLogits(t, got)) {
			t.Errorf("%s: other logits without the prefix", name)
		}
		// A tensor under both names is one too many.
		rewrite(t, dir, func(list []safetensors.Tensor) []safetensors.Tensor {
			i := slices.IndexFunc(list, func(x safetensors.Tensor) bool {
				return strings.HasSuffix(x.Name, "0."+c.family().linears[oSlot]+".weight")
			})
			twice := list[i]
			twice.Name = c.family().base + twice.Name
			return append(list, twice)
		})
		if _, err := Load(dir, Options{}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: a tensor under two names gave %v", name, err)
		}
	}
}

// rewrite changes the tensors of a saved model.
func rewrite(t *testing.T, dir string, edit func([]safetensors.Tensor) []safetensors.Tensor) {
	t.Helper()
	path := filepath.Join(dir, weightsFile)
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []safetensors.Tensor
	for _, info := range f.Header().Tensors {
		v, _, err := f.ReadTensor(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, safetensors.Tensor{Name: info.Name, DType: info.DType, Shape: info.Shape, Values: v})
	}
	f.Close()
	if err := writeTensors(path, edit(list)); err != nil {
		t.Fatal(err)
	}
}

// TestTransposed: GPT-2's linear layers are stored (in,out).
func TestTransposed(t *testing.T) {
	m, err := lively(familyConfigs()["gpt2"], Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := m.Save(dir, safetensors.F32); err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(filepath.Join(dir, weightsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const name = "transformer.h.1.attn.c_attn.weight"
	stored, info, err := f.ReadTensor(name)
	if err != nil || fmt.Sprint(info.Shape) != "[8 24]" {
		t.Fatalf("%v, %v", info, err)
	}
	for _, p := range m.Params() {
		if p.Name != name {
			continue
		}
		for out := range 24 {
			for in, v := range p.Value.HostRow(out) {
				if stored[in*24+out] != v {
					t.Fatalf("element (%d,%d) of what is stored is %v, want %v", in, out, stored[in*24+out], v)
				}
			}
		}
	}
}

// TestSettingsMatter: each setting, misread, changes logits.
func TestSettingsMatter(t *testing.T) {
	for _, tt := range []struct {
		name, setting string
		change        func(c *Config)
		least         float64
	}{
		{"mistral", "window", func(c *Config) { c.Windows = []int{4, 4} }, 1e-2},
		{"mistral", "norm epsilon", func(c *Config) { c.NormEps = 1e-3 }, 1e-4},
		{"qwen2", "layer of the window", func(c *Config) { c.Windows = []int{3, 0} }, 1e-2},
		{"gemma", "norm", func(c *Config) { c.Norm = RMSNorm }, 1e-1},
		{"gemma", "embedding scale", func(c *Config) { c.EmbedScale = 0 }, 1e-2},
		{"gemma", "activation", func(c *Config) { c.Activation = GELU }, 1e-5},
		{"gemma2", "soft cap of scores", func(c *Config) { c.AttentionCap = 0 }, 1e-2},
		{"gemma2", "soft cap of logits", func(c *Config) { c.LogitCap = 0 }, 1e-2},
		{"gemma2", "attention scale", func(c *Config) { c.AttentionScale = 0 }, 1e-3},
		{"gemma2", "windows", func(c *Config) { c.Windows = []int{0, 3} }, 1e-3},
		{"phi", "rotary part", func(c *Config) { c.Rope.Dims = 4 }, 1e-2},
		{"phi3-long", "factors", func(c *Config) { c.Rope.Scaling.ShortFactors = []float64{1, 2} }, 1e-4},
		{"phi3-long", "long factors", func(c *Config) { c.Rope.Scaling.LongFactors = []float64{1, 4} }, 1e-4},
		{"phi3-long", "context", func(c *Config) { c.Rope.Scaling.OriginalContext = 9 }, 1e-3},
		{"phi3-long", "attention factor", func(c *Config) { c.Rope.Scaling.AttentionFactor = 0 }, 1e-3},
		{"yarn", "attention factor", func(c *Config) { c.Rope.Scaling.AttentionFactor = 0 }, 1e-3},
		{"yarn", "kind", func(c *Config) { c.Rope.Scaling.Kind = "linear" }, 1e-3},
		{"neox", "parallel", func(c *Config) { c.Parallel = false }, 1e-1},
		{"neox", "rotary part", func(c *Config) { c.Rope.Dims = 4 }, 1e-2},
		{"neox", "activation", func(c *Config) { c.Activation = GELUTanh }, 1e-5},
		{"mpt-clip", "limit", func(c *Config) { c.ClipQKV = 0.9 }, 1e-3},
		{"mpt-clip", "attention scale", func(c *Config) { c.AttentionScale = 0 }, 1e-3},
		{"gpt2", "attention scale", func(c *Config) { c.AttentionScale = 1 }, 1e-2},
	} {
		logits := func(change func(c *Config)) []float32 {
			m, err := lively(familyConfigs()[tt.name], Options{})
			if err != nil {
				t.Fatal(err)
			}
			c := m.cfg
			change(&c)
			other := newModel(c, m.b)
			for i, p := range other.Params() {
				copy(p.Value.Host(), m.Params()[i].Value.Host())
			}
			return mustLogits(t, other)
		}
		a, b := logits(func(*Config) {}), logits(tt.change)
		worst := 0.0
		for i := range a {
			worst = max(worst, math.Abs(float64(a[i]-b[i])))
		}
		if worst < tt.least {
			t.Errorf("%s: misreading the %s changes logits by %v only", tt.name, tt.setting, worst)
		}
	}
}

// TestPositionLimits: positions without an embedding, or behind which the
// frequencies would be others, are refused.
func TestPositionLimits(t *testing.T) {
	for _, name := range []string{"gpt2", "dynamic"} {
		c := familyConfigs()[name]
		m, err := lively(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for length, ok := range map[int]bool{c.Context: true, c.Context + 1: false} {
			if _, err := m.Logits(batchOf(t, sequences(c.Vocab, length))); (err == nil) != ok {
				t.Errorf("%s: a sequence of %d gave %v", name, length, err)
			}
		}
	}
}

// TestLongRopeInBatch: which factors a sequence is turned by depends on its own
// length alone.
func TestLongRopeInBatch(t *testing.T) {
	m, err := lively(familyConfigs()["phi3-long"], Options{})
	if err != nil {
		t.Fatal(err)
	}
	list := sequences(m.cfg.Vocab, 8, 12)
	together, err := m.Logits(batchOf(t, list))
	if err != nil {
		t.Fatal(err)
	}
	var alone []float32
	for i := range list {
		logits, err := m.Logits(batchOf(t, list[i:i+1]))
		if err != nil {
			t.Fatal(err)
		}
		alone = append(alone, logits...)
	}
	if !slices.Equal(together, alone) {
		t.Error("a longer sequence in the batch changes the factors of a shorter one")
	}
}

func TestSlopes(t *testing.T) {
	for heads, want := range map[int][]float32{
		1: {1. / 256},
		4: {1. / 4, 1. / 16, 1. / 64, 1. / 256},
		8: {1. / 2, 1. / 4, 1. / 8, 1. / 16, 1. / 32, 1. / 64, 1. / 128, 1. / 256},
		6: {1. / 4, 1. / 16, 1. / 64, 1. / 256, 1. / 2, 1. / 8},
	} {
		if got := (Config{Heads: heads, Position: ALiBi}).slopes(); !slices.Equal(got, want) {
			t.Errorf("%d heads: %v, want %v", heads, got, want)
		}
	}
	if (Config{Heads: 4}).slopes() != nil {
		t.Error("slopes without ALiBi")
	}
}

func FuzzFamilyConfigs(f *testing.F) {
	for _, text := range slices.Sorted(maps.Values(published)) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted a configuration that is not valid: %v", err)
		}
		out, err := c.marshal("float32")
		if errors.Is(err, ErrUnsupported) {
			return // a number that is not kept to the last bit
		}
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseConfig(out); err != nil || !cmp.Equal(c.canonical(), again) {
			t.Fatalf("what was written reads otherwise: %v\n%s", err, out)
		}
	})
}

// TestGenerateAcrossContext: keys that were turned by the factors of short
// sequences do not stay in the cache of a long one.
func TestGenerateAcrossContext(t *testing.T) {
	m, err := lively(familyConfigs()["phi3-long"], Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sequences(m.cfg.Vocab, 2, 3, 4, 5, 6, 7, 8, 9, 3, 4, 5, 6) {
		got, err := m.Generate(t.Context(), s.ids, GenerateOptions{MaxTokens: 14})
		if err != nil {
			t.Fatal(err)
		}
		ids := slices.Clone(s.ids)
		for range 14 {
			b := &Batch{}
			if err := b.Add(ids, nil); err != nil {
				t.Fatal(err)
			}
			logits, err := m.Logits(b)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, pick(logits[len(logits)-m.cfg.Vocab:], 0, nil))
		}
		if !slices.Equal(got, ids[len(s.ids):]) {
			t.Errorf("after %v: %v, want %v", s.ids, got, ids[len(s.ids):])
		}
	}
}
