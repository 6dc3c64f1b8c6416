package model

import (
	"fmt"
	"slices"
	"strings"
)

// The linear layers of a block, by what they are for. Architectures lack some:
// a fused layer takes the place of the first of those that it joins.
const (
	qSlot = iota
	kSlot
	vSlot
	oSlot
	gateSlot
	upSlot
	downSlot
	slots
)

// fusion is how one linear layer holds q, k and v.
type fusion int

const (
	notFused fusion = iota
	inThirds        // all of q, then k, then v
	byGroup         // for each key-value head its query heads, its key, its value
)

// family is what the models of an architecture have in common: names, and what
// their config.json does not say.
type family struct {
	architectures []string // the first one is written
	modelType     string
	base          string // prefix of the names; published checkpoints may lack it
	layers        string // behind it; then a number and a dot

	// names of tensors without ".weight", "" where there are none
	embed, positions, norm, head string    // the first three behind the base
	norms                        [2]string // before attention and MLP, in a layer
	branchNorms                  [2]string // the same, of parallel branches with a norm each, if that differs
	postNorms                    [2]string
	qkNorms                      [2]string
	linears                      [slots]string

	fused     fusion
	fusedGate bool // the gate's layer is the gate's and up's
	// transposed: weights of the linear layers are stored (in,out).
	transposed bool
	redundant  []string // ends of names of tensors that say nothing

	read  func(s *settings, c *Config)
	write func(c *Config, w fields)
}

var llamaNorms = [2]string{"input_layernorm", "post_attention_layernorm"}

var llamaLinears = [slots]string{
	"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
}

// llamaLike returns a family with the names of Llama.
func llamaLike(architecture, modelType string) family {
	return family{
		architectures: []string{architecture}, modelType: modelType, base: "model.", layers: "layers.",
		embed: "embed_tokens", norm: "norm", head: "lm_head", norms: llamaNorms, linears: llamaLinears,
	}
}

var families = makeFamilies()

func makeFamilies() []family {
	llama := llamaLike("LlamaForCausalLM", "llama")
	llama.read = readLlama

	mistral := llamaLike("MistralForCausalLM", "mistral")
	mistral.read, mistral.write = readMistral, writeMistral

	qwen2 := llamaLike("Qwen2ForCausalLM", "qwen2")
	qwen2.read, qwen2.write = readQwen2, writeQwen2

	qwen3 := llamaLike("Qwen3ForCausalLM", "qwen3")
	qwen3.qkNorms = [2]string{"self_attn.q_norm", "self_attn.k_norm"}
	qwen3.read, qwen3.write = readQwen3, writeQwen3

	gemma := llamaLike("GemmaForCausalLM", "gemma")
	gemma.read, gemma.write = readGemma, writeGemma

	gemma2 := llamaLike("Gemma2ForCausalLM", "gemma2")
	gemma2.norms = [2]string{"input_layernorm", "pre_feedforward_layernorm"}
	gemma2.postNorms = [2]string{"post_attention_layernorm", "post_feedforward_layernorm"}
	gemma2.read, gemma2.write = readGemma2, writeGemma2

	phi := llamaLike("PhiForCausalLM", "phi")
	phi.norm, phi.norms = "final_layernorm", [2]string{"input_layernorm", ""}
	phi.linears = [slots]string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense", "", "mlp.fc1", "mlp.fc2"}
	phi.read, phi.write = readPhi, writePhi

	phi3 := llamaLike("Phi3ForCausalLM", "phi3")
	phi3.linears = [slots]string{"self_attn.qkv_proj", "", "", "self_attn.o_proj", "mlp.gate_up_proj", "", "mlp.down_proj"}
	phi3.fused, phi3.fusedGate = inThirds, true
	phi3.read, phi3.write = readPhi3, writePhi3

	return []family{llama, mistral, qwen2, qwen3, gemma, gemma2, phi, phi3, {
		architectures: []string{"FalconForCausalLM"}, modelType: "falcon", base: "transformer.", layers: "h.",
		embed: "word_embeddings", norm: "ln_f", head: "lm_head",
		norms: llamaNorms, branchNorms: [2]string{"ln_attn", "ln_mlp"},
		linears: [slots]string{"self_attention.query_key_value", "", "", "self_attention.dense", "", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"},
		fused:   byGroup,
		read:    readFalcon, write: writeFalcon,
	}, {
		architectures: []string{"MptForCausalLM", "MPTForCausalLM"}, modelType: "mpt", base: "transformer.", layers: "blocks.",
		embed: "wte", norm: "norm_f", head: "lm_head", norms: [2]string{"norm_1", "norm_2"},
		linears: [slots]string{"attn.Wqkv", "", "", "attn.out_proj", "", "ffn.up_proj", "ffn.down_proj"},
		fused:   inThirds,
		read:    readMPT, write: writeMPT,
	}, {
		architectures: []string{"GPTNeoXForCausalLM"}, modelType: "gpt_neox", base: "gpt_neox.", layers: "layers.",
		embed: "embed_in", norm: "final_layer_norm", head: "embed_out", norms: llamaNorms,
		linears:   [slots]string{"attention.query_key_value", "", "", "attention.dense", "", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"},
		fused:     byGroup,
		redundant: []string{".attention.bias", ".attention.masked_bias"},
		read:      readNeoX, write: writeNeoX,
	}, {
		architectures: []string{"GPT2LMHeadModel"}, modelType: "gpt2", base: "transformer.", layers: "h.",
		embed: "wte", positions: "wpe", norm: "ln_f", head: "lm_head", norms: [2]string{"ln_1", "ln_2"},
		linears: [slots]string{"attn.c_attn", "", "", "attn.c_proj", "", "mlp.c_fc", "mlp.c_proj"},
		fused:   inThirds, transposed: true,
		redundant: []string{".attn.bias", ".attn.masked_bias"},
		read:      readGPT2, write: writeGPT2,
	}}
}

// family returns what the configuration's architecture is like, nil if it is
// unknown.
func (c Config) family() *family {
	for i := range families {
		if families[i].architectures[0] == c.Architecture {
			return &families[i]
		}
	}
	return nil
}

func (c Config) layerPath(i int) string {
	f := c.family()
	return fmt.Sprintf("%s%s%d.", f.base, f.layers, i)
}

// normNames returns the names of the norms of a layer: before attention and
// MLP and behind them, of queries and keys.
func (c Config) normNames() (before, behind, qk [2]string) {
	f := c.family()
	before = f.norms
	if c.Parallel && !c.SharedNorm && f.branchNorms[0] != "" {
		before = f.branchNorms
	}
	if c.SharedNorm {
		before[1] = ""
	}
	if c.PostNorms {
		behind = f.postNorms
	}
	if c.QKNorm {
		qk = f.qkNorms
	}
	return before, behind, qk
}

// Module is a linear layer that can carry an adapter: its path in the
// checkpoint, without ".weight", and its width.
type Module struct {
	Path    string
	In, Out int
	// Transposed: the checkpoint has the weight as (in,out).
	Transposed bool
}

type moduleSpec struct {
	Module         // without a path: there is no such layer
	bias, residual bool
}

// modules lists the linear layers of layer i by slot.
func (c Config) modules(i int) [slots]moduleSpec {
	f, q, kv := c.family(), c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	list := [slots]moduleSpec{
		qSlot:    {Module{In: c.Hidden, Out: q}, c.QKVBias, false},
		kSlot:    {Module{In: c.Hidden, Out: kv}, c.QKVBias, false},
		vSlot:    {Module{In: c.Hidden, Out: kv}, c.QKVBias, false},
		oSlot:    {Module{In: q, Out: c.Hidden}, c.OBias, true},
		gateSlot: {Module{In: c.Hidden, Out: c.Intermediate}, c.MLPBias, false},
		upSlot:   {Module{In: c.Hidden, Out: c.Intermediate}, c.MLPBias, false},
		downSlot: {Module{In: c.Intermediate, Out: c.Hidden}, c.MLPBias, true},
	}
	if f.fused != notFused {
		list[qSlot].Out = q + 2*kv
	}
	if f.fusedGate {
		list[gateSlot].Out = 2 * c.Intermediate
	}
	for j, name := range f.linears {
		if name != "" {
			list[j].Path, list[j].Transposed = c.layerPath(i)+name, f.transposed
		}
	}
	return list
}

// Modules lists the linear layers of all blocks.
func (c Config) Modules() []Module {
	var list []Module
	for i := range c.Layers {
		for _, m := range c.modules(i) {
			if m.Path != "" {
				list = append(list, m.Module)
			}
		}
	}
	return list
}

// TransposedPath reports whether a linear layer of that path is one whose
// weight checkpoints have as (in,out), for who knows nothing else of the model.
func TransposedPath(path string) bool {
	return slices.ContainsFunc(families, func(f family) bool {
		rest, ok := strings.CutPrefix(path, f.base+f.layers)
		_, name, numbered := strings.Cut(rest, ".")
		return f.transposed && ok && numbered && name != "" && slices.Contains(f.linears[:], name)
	})
}

// Head returns the output layer. It can have an adapter that is applied, not
// one that is trained; see Attach.
func (c Config) Head() Module {
	return Module{Path: c.family().head, In: c.Hidden, Out: c.Vocab}
}

// EmbeddingPath is where the table is that tokens are looked up in.
func (c Config) EmbeddingPath() string { return c.family().base + c.family().embed }

// paramSpec is a parameter that a configuration asks for.
type paramSpec struct {
	name       string
	rows, cols int  // rows 0: a vector
	residual   bool // its layer writes to the residual stream
	transposed bool // stored (cols,rows)
}

func (p paramSpec) size() int { return max(1, p.rows) * p.cols }

// shape is that in the checkpoint.
func (p paramSpec) shape() []int64 {
	switch {
	case p.rows == 0:
		return []int64{int64(p.cols)}
	case p.transposed:
		return []int64{int64(p.cols), int64(p.rows)}
	}
	return []int64{int64(p.rows), int64(p.cols)}
}

// Parameter is what Param is of a model that is not there: a vector has one row.
type Parameter struct {
	Name       string
	Rows, Cols int
}

// Parameters lists all parameters, sorted bytewise by name.
func (c Config) Parameters() []Parameter {
	var list []Parameter
	for _, p := range c.params() {
		list = append(list, Parameter{p.name, max(1, p.rows), p.cols})
	}
	return list
}

// Params returns the number of parameters.
func (c Config) Params() int {
	n := 0
	for _, p := range c.params() {
		n += p.size()
	}
	return n
}

// params lists all parameters, sorted bytewise by name.
func (c Config) params() []paramSpec {
	f := c.family()
	list := []paramSpec{{name: f.base + f.embed + ".weight", rows: c.Vocab, cols: c.Hidden}}
	norm := func(path string, width int, bias bool) {
		list = append(list, paramSpec{name: path + ".weight", cols: width})
		if bias {
			list = append(list, paramSpec{name: path + ".bias", cols: width})
		}
	}
	norm(f.base+f.norm, c.Hidden, c.Norm == LayerNorm)
	if c.Position == Learned {
		list = append(list, paramSpec{name: f.base + f.positions + ".weight", rows: c.Context, cols: c.Hidden})
	}
	if !c.TiedHead {
		list = append(list, paramSpec{name: f.head + ".weight", rows: c.Vocab, cols: c.Hidden})
	}
	if c.HeadBias {
		list = append(list, paramSpec{name: f.head + ".bias", cols: c.Vocab})
	}
	before, behind, qk := c.normNames()
	for i := range c.Layers {
		for _, name := range slices.Concat(before[:], behind[:]) {
			if name != "" {
				norm(c.layerPath(i)+name, c.Hidden, c.Norm == LayerNorm)
			}
		}
		for _, name := range qk {
			if name != "" {
				norm(c.layerPath(i)+name, c.HeadDim, false)
			}
		}
		for _, m := range c.modules(i) {
			if m.Path == "" {
				continue
			}
			list = append(list, paramSpec{name: m.Path + ".weight", rows: m.Out, cols: m.In, residual: m.residual, transposed: m.Transposed})
			if m.bias {
				list = append(list, paramSpec{name: m.Path + ".bias", cols: m.Out})
			}
		}
	}
	slices.SortFunc(list, func(a, b paramSpec) int { return strings.Compare(a.name, b.name) })
	return list
}
