package train

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

// llamaCppCase is a small model of a family, and what its GGUF file says.
type llamaCppCase struct {
	config string // config.json
	arch   string
	keys   map[string]any    // without the architecture in front
	names  map[string]string // of modules in a block
	qkv    func(t *testing.T, values []float32, name string, cols int) []float32
	norm   float32 // added to weights of norms
}

var llamaNames = map[string]string{
	"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
	"self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
	"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}

var gemma2Names = func() map[string]string {
	names := map[string]string{"pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}
	for k, v := range llamaNames {
		if names[k] == "" {
			names[k] = v
		}
	}
	names["post_attention_layernorm"] = "post_attention_norm"
	return names
}()

func llamaCppCases() map[string]llamaCppCase {
	const small = `"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300, "max_position_embeddings": 512, "initializer_range": 0.2, `
	const gated = small + `"intermediate_size": 96, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, `
	return map[string]llamaCppCase{
		"llama": {
			config: `{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", ` + gated + `"num_key_value_heads": 2, "tie_word_embeddings": false}`,
			arch:   "llama", keys: map[string]any{"attention.head_count_kv": 2, "rope.dimension_count": 16}, names: llamaNames, qkv: rotatedPairs(4, 2),
		},
		"qwen2": {
			config: `{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", ` + gated + `"num_key_value_heads": 2, "use_sliding_window": false, "tie_word_embeddings": true}`,
			arch:   "qwen2", keys: map[string]any{"attention.head_count_kv": 2}, names: llamaNames,
		},
		"qwen3": {
			config: `{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu", ` + gated + `"head_dim": 32, "num_key_value_heads": 2, "use_sliding_window": false, "tie_word_embeddings": false}`,
			arch:   "qwen3", keys: map[string]any{"attention.head_count_kv": 2, "attention.key_length": 32, "attention.value_length": 32}, names: llamaNames,
		},
		"gemma": {
			config: `{"architectures": ["GemmaForCausalLM"], "model_type": "gemma", "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", ` + gated + `"head_dim": 32, "num_key_value_heads": 1}`,
			arch:   "gemma", keys: map[string]any{"attention.head_count_kv": 1, "attention.key_length": 32, "attention.value_length": 32}, names: llamaNames, norm: 1,
		},
		"gemma2": {
			config: `{"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", ` + gated +
				`"head_dim": 32, "num_key_value_heads": 2, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 32, "sliding_window": 16}`,
			arch: "gemma2", keys: map[string]any{
				"attention.head_count_kv": 2, "attention.key_length": 32, "attention.value_length": 32, "attention.sliding_window": 16,
				"attn_logit_softcapping": float32(50), "final_logit_softcapping": float32(30),
			}, names: gemma2Names, norm: 1,
		},
		"phi": {
			config: `{"architectures": ["PhiForCausalLM"], "model_type": "phi", "hidden_act": "gelu_new", ` + small +
				`"intermediate_size": 96, "layer_norm_eps": 1e-05, "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "qk_layernorm": false, "num_key_value_heads": 4, "tie_word_embeddings": false}`,
			arch: "phi2", keys: map[string]any{"attention.head_count_kv": 4, "rope.dimension_count": 8}, names: map[string]string{
				"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
				"self_attn.dense": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
			},
		},
		"phi3": {
			config: `{"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu", ` + gated +
				`"num_key_value_heads": 2, "original_max_position_embeddings": 512, "tie_word_embeddings": false}`,
			arch: "phi3", keys: map[string]any{"attention.head_count_kv": 2, "rope.dimension_count": 16, "rope.scaling.original_context_length": 512, "attention.sliding_window": 0}, names: map[string]string{
				"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
				"mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
			},
		},
		"gpt_neox": {
			config: `{"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "hidden_act": "gelu", ` + small +
				`"intermediate_size": 96, "layer_norm_eps": 1e-05, "rotary_emb_base": 10000, "rotary_pct": 0.25, "use_parallel_residual": true, "tie_word_embeddings": false}`,
			arch: "gptneox", keys: map[string]any{"rope.dimension_count": 4, "use_parallel_residual": true}, names: map[string]string{
				"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output",
				"mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
			}, qkv: fusedHeads(4, 1),
		},
		"falcon7": {
			config: `{"architectures": ["FalconForCausalLM"], "model_type": "falcon", "alibi": false, "bias": false, "multi_query": true, "new_decoder_architecture": false, "parallel_attn": true, ` +
				small + `"layer_norm_epsilon": 1e-05}`,
			arch: "falcon", keys: map[string]any{"attention.head_count_kv": 1}, names: map[string]string{
				"input_layernorm": "attn_norm", "self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output",
				"mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
			}, qkv: fusedHeads(1, 4),
		},
		"falcon40": {
			config: `{"architectures": ["FalconForCausalLM"], "model_type": "falcon", "alibi": false, "bias": false, "multi_query": true, "new_decoder_architecture": true, "num_kv_heads": 2, "parallel_attn": true, ` +
				small + `"layer_norm_epsilon": 1e-05}`,
			arch: "falcon", keys: map[string]any{"attention.head_count_kv": 2}, names: map[string]string{
				"ln_attn": "attn_norm_2", "ln_mlp": "attn_norm", "self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output",
				"mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
			}, qkv: fusedHeads(2, 2),
		},
		"mpt": {
			config: `{"architectures": ["MPTForCausalLM"], "model_type": "mpt", "attn_config": {"alibi": true, "alibi_bias_max": 8, "attn_type": "multihead_attention", "clip_qkv": 2},
				"d_model": 64, "n_heads": 4, "n_layers": 2, "expansion_ratio": 4, "max_seq_len": 512, "no_bias": true, "vocab_size": 300, "learned_pos_emb": true, "initializer_range": 0.2}`,
			arch: "mpt", keys: map[string]any{"attention.max_alibi_bias": float32(8), "attention.clamp_kqv": float32(2)}, names: map[string]string{
				"norm_1": "attn_norm", "norm_2": "ffn_norm", "attn.Wqkv": "attn_qkv", "attn.out_proj": "attn_output", "ffn.up_proj": "ffn_up", "ffn.down_proj": "ffn_down",
			},
		},
	}
}

// rotatedPairs reorders q and k as llama.cpp's rotary embedding of Llama needs
// it: what is half a head apart becomes neighbours.
func rotatedPairs(heads, kvHeads int) func(*testing.T, []float32, string, int) []float32 {
	return func(_ *testing.T, values []float32, name string, cols int) []float32 {
		n := map[string]int{"attn_q": heads, "attn_k": kvHeads}[name]
		if n == 0 {
			return values
		}
		size, out := len(values)/cols/n, make([]float32, 0, len(values))
		for h := range n {
			for i := range size {
				row := h*size + i/2 + i%2*size/2
				out = append(out, values[row*cols:(row+1)*cols]...)
			}
		}
		return out
	}
}

// fusedHeads takes groups of queries with a key and a value apart: all queries,
// all keys, all values.
func fusedHeads(groups, queries int) func(*testing.T, []float32, string, int) []float32 {
	return func(_ *testing.T, values []float32, name string, cols int) []float32 {
		if name != "attn_qkv" {
			return values
		}
		size := len(values) / (groups * (queries + 2)) // of a head
		var parts [3][]float32
		for i := range groups * (queries + 2) {
			part := max(0, i%(queries+2)-queries+1)
			parts[part] = append(parts[part], values[i*size:(i+1)*size]...)
		}
		return append(append(parts[0], parts[1]...), parts[2]...)
	}
}

// llamaCppTolerance is for keys and values in float16.
const llamaCppTolerance = 4e-3

// TestLlamaCpp compares logits with those of llama.cpp, for every family that
// an adapter can be exported for. The base file is made here by other code than
// the adapter.
func TestLlamaCpp(t *testing.T) {
	where := os.Getenv("MOOT_LLAMACPP")
	if where == "" {
		t.Skip("MOOT_LLAMACPP does not name a folder with node-llama-cpp: see scripts/golden/llamacpp.mjs")
	}
	script, err := filepath.Abs("../../../scripts/golden/llamacpp.mjs")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range llamaCppCases() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg, err := model.ParseConfig([]byte(tt.config))
			if err != nil {
				t.Fatal(err)
			}
			cfg.InitRange = 0.2
			m, err := model.New(cfg, 7, model.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Save(dir, safetensors.F32); err != nil {
				t.Fatal(err)
			}
			base := filepath.Join(dir, "base.gguf")
			if err := os.WriteFile(base, llamaCppBase(t, m, &tt), 0o600); err != nil {
				t.Fatal(err)
			}
			ids := randomTexts(cfg, 1, 40)[0]
			run := func(adapter string) []float32 { return llamaCppLogits(t, where, script, base, adapter, ids) }
			want, err := logitsOf(m, [][]int32{ids})
			if err != nil {
				t.Fatal(err)
			}
			alone := append([]float32{}, want...)
			d := distance(run("-"), want)
			if d > llamaCppTolerance {
				t.Fatalf("the base model's logits differ by %v", d)
			}
			t.Logf("the base model's logits differ by %.2g", d)
			a, err := lora.New(lora.Spec{Rank: 4, Alpha: 6, Targets: []string{lora.AllLinear}, RSLoRA: true, Ranks: []lora.Override{{Key: ".*[01].*(up|fc1|h_to).*", Value: 2}}}, modules(cfg))
			if err != nil {
				t.Fatal(err)
			}
			for i := range a.Values() {
				a.Values()[i] = float32(i*7919%23-11) / 60
			}
			if err := Apply(m, a); err != nil {
				t.Fatal(err)
			}
			if want, err = logitsOf(m, [][]int32{ids}); err != nil {
				t.Fatal(err)
			}
			gguf, err := lora.ReadGGUFBase(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, dtype := range []safetensors.DType{safetensors.F32, safetensors.F16} {
				var b bytes.Buffer
				if err := a.WriteGGUF(&b, gguf, dtype); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, "adapter.gguf")
				if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				got := run(path)
				if d, effect := distance(got, want), distance(alone, want); d > llamaCppTolerance || effect < 0.1 {
					t.Errorf("%s: logits with the adapter differ by %v; it does %v", dtype, d, effect)
				} else {
					t.Logf("%s: logits with the adapter differ by %.2g; it does %.2g", dtype, d, effect)
				}
			}
		})
	}
}

func llamaCppLogits(t *testing.T, where, script, base, adapter string, ids []int32) []float32 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "logits.json")
	cmd := exec.Command("node", script, base, adapter, strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ","), "[]"), path)
	cmd.Dir = where
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]float32
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	return slices.Concat(rows...)
}

var inBlock = regexp.MustCompile(`^(?:.*\.)?(?:layers|h|blocks)\.([0-9]+)\.(.*)\.(weight|bias)$`)

// llamaCppName returns llama.cpp's name of a parameter, and its part in a
// block.
func llamaCppName(t *testing.T, tt *llamaCppCase, name string) (full, part string) {
	if m := inBlock.FindStringSubmatch(name); m != nil {
		part, ok := tt.names[m[2]]
		if !ok {
			t.Fatalf("what is %s?", name)
		}
		return "blk." + m[1] + "." + part + "." + m[3], part
	}
	path, leaf, _ := strings.Cut(name[strings.LastIndexByte(name[:strings.LastIndexByte(name, '.')], '.')+1:], ".")
	full, ok := map[string]string{
		"embed_tokens": "token_embd", "embed_in": "token_embd", "word_embeddings": "token_embd", "wte": "token_embd", "norm": "output_norm",
		"final_layernorm": "output_norm", "final_layer_norm": "output_norm", "ln_f": "output_norm", "norm_f": "output_norm", "lm_head": "output", "embed_out": "output",
	}[path]
	if !ok {
		t.Fatalf("what is %s?", name)
	}
	return full + "." + leaf, full
}

// llamaCppBase is the file of a base model, with a vocabulary that only has the
// right size.
func llamaCppBase(t *testing.T, m *model.Model, tt *llamaCppCase) []byte {
	t.Helper()
	c := m.Config()
	var meta, infos, data bytes.Buffer
	le := binary.LittleEndian
	text := func(w *bytes.Buffer, s string) {
		w.Write(le.AppendUint64(nil, uint64(len(s))))
		w.WriteString(s)
	}
	entries := 0
	put := func(key string, v any) {
		entries++
		text(&meta, key)
		u32 := func(n uint32) { meta.Write(le.AppendUint32(nil, n)) }
		switch v := v.(type) {
		case int:
			u32(4)
			u32(uint32(v))
		case float32:
			u32(6)
			u32(math.Float32bits(v))
		case bool:
			u32(7)
			meta.WriteByte(map[bool]byte{true: 1}[v])
		case string:
			u32(8)
			text(&meta, v)
		case []string:
			u32(9)
			u32(8)
			meta.Write(le.AppendUint64(nil, uint64(len(v))))
			for _, s := range v {
				text(&meta, s)
			}
		case []float32:
			u32(9)
			u32(6)
			meta.Write(le.AppendUint64(nil, uint64(len(v))))
			for _, x := range v {
				u32(math.Float32bits(x))
			}
		case []int32:
			u32(9)
			u32(5)
			meta.Write(le.AppendUint64(nil, uint64(len(v))))
			for _, x := range v {
				u32(uint32(x))
			}
		}
	}
	put("general.architecture", tt.arch)
	put("general.type", "model")
	put(tt.arch+".context_length", c.Context)
	put(tt.arch+".embedding_length", c.Hidden)
	put(tt.arch+".block_count", c.Layers)
	put(tt.arch+".feed_forward_length", c.Intermediate)
	put(tt.arch+".attention.head_count", c.Heads)
	put(tt.arch+".attention.layer_norm_epsilon", float32(1e-5))
	put(tt.arch+".attention.layer_norm_rms_epsilon", float32(1e-5))
	put(tt.arch+".rope.freq_base", float32(10000))
	for k, v := range tt.keys {
		put(tt.arch+"."+k, v)
	}
	tokens, scores, types := make([]string, c.Vocab), make([]float32, c.Vocab), make([]int32, c.Vocab)
	for i := range tokens {
		if tokens[i], types[i] = fmt.Sprintf("t%d", i), 1; i < 256 {
			tokens[i], types[i] = fmt.Sprintf("<0x%02X>", i), 6
		}
	}
	put("tokenizer.ggml.model", "llama")
	put("tokenizer.ggml.tokens", tokens)
	put("tokenizer.ggml.scores", scores)
	put("tokenizer.ggml.token_type", types)
	for _, p := range m.Params() {
		name, part := llamaCppName(t, tt, p.Name)
		values := m.Stored(p)
		if tt.qkv != nil {
			values = tt.qkv(t, values, part, len(values)/int(p.Shape[0]))
		}
		if strings.HasSuffix(part, "norm") && strings.HasSuffix(name, "weight") {
			for i := range values {
				values[i] += tt.norm
			}
		}
		text(&infos, name)
		infos.Write(le.AppendUint32(nil, uint32(len(p.Shape))))
		for i := range p.Shape {
			infos.Write(le.AppendUint64(nil, uint64(p.Shape[len(p.Shape)-1-i])))
		}
		infos.Write(le.AppendUint32(nil, 0))
		infos.Write(le.AppendUint64(nil, uint64(data.Len())))
		data.Write(safetensors.AppendFloats(nil, values, safetensors.F32))
		data.Write(make([]byte, -data.Len()&31))
	}
	head := append([]byte("GGUF"), 3, 0, 0, 0)
	head = le.AppendUint64(le.AppendUint64(head, uint64(len(m.Params()))), uint64(entries))
	head = append(append(head, meta.Bytes()...), infos.Bytes()...)
	head = append(head, make([]byte, -len(head)&31)...)
	return append(head, data.Bytes()...)
}
