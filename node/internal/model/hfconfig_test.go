package model

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// llamaJSON is a config.json with the given fields changed; nil removes one.
func llamaJSON(t testing.TB, change map[string]any) []byte {
	t.Helper()
	fields := map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu",
		"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3, "num_attention_heads": 4,
		"num_key_value_heads": 2, "vocab_size": 320, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
		"max_position_embeddings": 256, "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
		"torch_dtype": "float32", "use_cache": true, "transformers_version": "4.40.0", "pretraining_tp": 1,
	}
	for k, v := range change {
		if v == nil {
			delete(fields, k)
		} else {
			fields[k] = v
		}
	}
	b, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseConfig(t *testing.T) {
	base := Llama(64, 176, 3, 4, 320, 256)
	base.KVHeads, base.BOS, base.EOS = 2, 1, []int32{2}
	with := func(fn func(c *Config)) Config {
		c := base
		fn(&c)
		return c
	}
	mistral := map[string]any{"architectures": []string{"MistralForCausalLM"}, "model_type": "mistral"}
	qwen := map[string]any{"architectures": []string{"Qwen2ForCausalLM"}, "model_type": "qwen2"}
	both := func(a, b map[string]any) map[string]any {
		c := maps.Clone(a)
		maps.Copy(c, b)
		return c
	}
	null := json.RawMessage("null")
	tests := []struct {
		name   string
		change map[string]any
		want   Config
	}{
		{"plain", nil, base},
		{"no architectures", map[string]any{"architectures": nil}, base},
		{"no model type", map[string]any{"model_type": nil}, base},
		{"MHA by default", map[string]any{"num_key_value_heads": nil}, with(func(c *Config) { c.KVHeads = 4 })},
		{"head_dim", map[string]any{"head_dim": 32}, with(func(c *Config) { c.HeadDim = 32 })},
		{"head_dim null", map[string]any{"head_dim": null}, base},
		{"tied", map[string]any{"tie_word_embeddings": true}, with(func(c *Config) { c.TiedHead = true })},
		{"biases", map[string]any{"attention_bias": true, "mlp_bias": true}, with(func(c *Config) { c.QKVBias, c.OBias, c.MLPBias = true, true, true })},
		{"several ends", map[string]any{"eos_token_id": []int{2, 3}}, with(func(c *Config) { c.EOS = []int32{2, 3} })},
		{"no special tokens", map[string]any{"eos_token_id": null, "bos_token_id": null}, with(func(c *Config) { c.BOS, c.EOS = -1, nil })},
		{"swish", map[string]any{"hidden_act": "swish"}, base},
		{"no scaling", map[string]any{"rope_scaling": null}, base},
		{"old spelling of scaling", map[string]any{"rope_scaling": map[string]any{"type": "linear", "factor": 2}}, with(func(c *Config) {
			c.Rope.Scaling = RopeScaling{Kind: "linear", Factor: 2}
		})},
		{"llama3 scaling", map[string]any{"rope_scaling": map[string]any{
			"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64,
		}}, with(func(c *Config) {
			c.Rope.Scaling = RopeScaling{Kind: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 64}
		})},
		{"new spelling", map[string]any{"rope_theta": nil, "torch_dtype": nil, "dtype": "bfloat16", "rope_parameters": map[string]any{
			"rope_theta": 5e5, "rope_type": "default",
		}}, with(func(c *Config) { c.Rope.Theta = 5e5 })},
		{"says nothing", map[string]any{"quantization_config": null, "pruned_heads": map[string]any{}, "is_decoder": false}, base},
		{"mistral", both(mistral, map[string]any{"sliding_window": 16}), with(func(c *Config) {
			c.Architecture, c.Windows = "MistralForCausalLM", []int{16, 16, 16}
		})},
		{"mistral without window", both(mistral, map[string]any{"sliding_window": null}), with(func(c *Config) { c.Architecture = "MistralForCausalLM" })},
		{"mistral's default window", mistral, with(func(c *Config) {
			c.Architecture, c.Windows = "MistralForCausalLM", []int{4096, 4096, 4096}
		})},
		{"qwen2 with the window off", both(qwen, map[string]any{"sliding_window": 32, "use_sliding_window": false, "max_window_layers": 3}), with(func(c *Config) {
			c.Architecture, c.QKVBias = "Qwen2ForCausalLM", true
		})},
		{"qwen2 with a window from layer 2", both(qwen, map[string]any{"sliding_window": 32, "use_sliding_window": true, "max_window_layers": 2}), with(func(c *Config) {
			c.Architecture, c.QKVBias, c.Windows = "Qwen2ForCausalLM", true, []int{0, 0, 32}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseConfig(llamaJSON(t, tt.change))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseConfigRefuses(t *testing.T) {
	tests := []struct {
		name        string
		change      map[string]any
		unsupported bool
		want        string // in the error
	}{
		{"architecture", map[string]any{"architectures": []string{"BloomForCausalLM"}, "model_type": "bloom"}, true, "BloomForCausalLM"},
		{"architecture and type disagree", map[string]any{"model_type": "gemma"}, true, "gemma"},
		{"two architectures", map[string]any{"architectures": []string{"LlamaForCausalLM", "X"}}, true, "X"},
		{"activation", map[string]any{"hidden_act": "gelu"}, true, `hidden_act is "gelu"`},
		{"dropout", map[string]any{"attention_dropout": 0.1}, true, "attention_dropout is 0.1"},
		{"unknown scaling", map[string]any{"rope_scaling": map[string]any{"type": "xpos", "factor": 4}}, true, `rope_scaling.rope_type is "xpos"`},
		{"yarn that shrinks", map[string]any{"rope_scaling": map[string]any{"type": "yarn", "factor": 0.5}}, false, "factor is 0.5"},
		{"unknown scaling field", map[string]any{"rope_scaling": map[string]any{"type": "linear", "factor": 4, "beta": 2}}, true, "rope_scaling.beta is 2"},
		{"partial rotary", map[string]any{"partial_rotary_factor": 0.5}, true, "partial_rotary_factor is 0.5"},
		{"unknown setting", map[string]any{"logit_scale": 0.0625}, true, "logit_scale is 0.0625"},
		{"unknown true", map[string]any{"clip_qkv": true}, true, "clip_qkv is true"},
		{"quantised", map[string]any{"quantization_config": map[string]any{"bits": 4}}, true, `quantization_config is {"bits":4}`},
		{"eight bits", map[string]any{"quantization_config": map[string]any{"quant_method": "bitsandbytes", "load_in_8bit": true}}, true, "quantization_config is"},
		{"window of another family", map[string]any{"sliding_window": 16}, true, "sliding_window is 16"},
		{"missing", map[string]any{"hidden_size": nil}, false, "hidden size is 0"},
		{"not a number", map[string]any{"hidden_size": "64"}, false, `hidden_size is "64"`},
		{"not an integer", map[string]any{"num_hidden_layers": 2.5}, false, "num_hidden_layers is 2.5"},
		{"negative", map[string]any{"num_hidden_layers": -1}, false, "number of layers is -1"},
		{"huge", map[string]any{"vocab_size": 1 << 40}, false, "vocabulary is 1099511627776"},
		{"heads do not divide", map[string]any{"num_attention_heads": 3}, false, "not a multiple of 3 heads"},
		{"groups do not divide", map[string]any{"num_key_value_heads": 3}, false, "cannot share"},
		{"odd heads", map[string]any{"head_dim": 15}, false, "odd"},
		{"token outside", map[string]any{"eos_token_id": 320}, false, "special token 320"},
		{"no factor", map[string]any{"rope_scaling": map[string]any{"type": "linear"}}, false, "factor is 0"},
		{"llama3 without context", map[string]any{"rope_scaling": map[string]any{"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}}, false, "llama3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseConfig(llamaJSON(t, tt.change))
			if err == nil || errors.Is(err, ErrUnsupported) != tt.unsupported || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one with %q (unsupported: %v)", err, tt.want, tt.unsupported)
			}
		})
	}
	for name, text := range map[string]string{
		"empty": "", "array": "[]", "twice": `{"model_type":"llama","model_type":"llama"}`, "rest": "{} {}", "null": "null",
		"long": "{" + strings.Repeat(" ", maxConfigBytes) + "}",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(llamaJSON(f, nil))
	f.Add(llamaJSON(f, map[string]any{"rope_scaling": map[string]any{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}}))
	f.Add(llamaJSON(f, map[string]any{"architectures": []string{"Qwen2ForCausalLM"}, "model_type": "qwen2", "use_sliding_window": true, "max_window_layers": -1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted a configuration that is not valid: %v", err)
		}
		if c.Architecture != "LlamaForCausalLM" || c.QKVBias != c.OBias {
			return
		}
		out, err := c.marshal("float32")
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(out)
		if err != nil {
			t.Fatalf("what was written is refused: %v\n%s", err, out)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatalf("written and read again: %s", diff)
		}
	})
}
