package lora

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/shard/safetensors"
)

// GGUFBase is what llama.cpp's file of the base model depends on.
type GGUFBase struct {
	ModelType string // model_type of config.json
	Heads     int    // of attention
	KVHeads   int    // heads, or groups of heads, with a key and value of their own
	Tied      bool   // the output layer is the embedding
	Name      string // of the base model, for people; may be empty
}

// ReadGGUFBase reads config.json of the base model's folder.
func ReadGGUFBase(dir string) (GGUFBase, error) {
	c, err := checkpoint.ReadConfig(dir)
	if err != nil {
		return GGUFBase{}, fmt.Errorf("base model of a GGUF adapter: %w", err)
	}
	b := GGUFBase{ModelType: c.Text("model_type"), Heads: 1}
	b.Tied = slices.Contains([]string{"falcon", "gemma", "gemma2", "mpt"}, b.ModelType) // if it does not say
	var multiQuery, newDecoder bool
	for _, setting := range []struct {
		name string
		to   any
	}{
		{"num_attention_heads", &b.Heads}, {"tie_word_embeddings", &b.Tied}, {"multi_query", &multiQuery}, {"new_decoder_architecture", &newDecoder},
	} {
		if err := decodeField(c, setting.name, setting.to); err != nil {
			return GGUFBase{}, fmt.Errorf("base model of a GGUF adapter: %w", err)
		}
	}
	b.KVHeads = b.Heads
	key := "num_key_value_heads"
	if b.ModelType == "falcon" {
		key = "num_kv_heads"
	}
	if err := decodeField(c, key, &b.KVHeads); err != nil {
		return GGUFBase{}, fmt.Errorf("base model of a GGUF adapter: %w", err)
	}
	if b.ModelType == "falcon" && !newDecoder { // then the number above does not count
		b.KVHeads = b.Heads
		if multiQuery {
			b.KVHeads = 1
		}
	}
	return b, nil
}

// ggufFamily is how llama.cpp names a family of models, and orders its rows.
type ggufFamily struct {
	arch    string
	modules map[string]string // name of a module in a block to name of a tensor
	rows    map[string]rowOrder
}

// rowOrder returns for each row of llama.cpp's tensor the row of ours.
type rowOrder func(b GGUFBase, rows int) ([]int, error)

var llamaModules = map[string]string{
	"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
	"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}

var ggufFamilies = map[string]ggufFamily{
	"llama":   {"llama", llamaModules, llamaRows},
	"mistral": {"llama", llamaModules, llamaRows},
	"qwen2":   {"qwen2", llamaModules, nil},
	"qwen3":   {"qwen3", llamaModules, nil},
	"gemma":   {"gemma", llamaModules, nil},
	"gemma2":  {"gemma2", llamaModules, nil},
	"phi": {"phi2", map[string]string{
		"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.dense": "attn_output",
		"mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
	}, nil},
	"phi3": {"phi3", map[string]string{
		"self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
	}, nil},
	"mpt": {"mpt", map[string]string{
		"attn.Wqkv": "attn_qkv", "attn.out_proj": "attn_output", "ffn.up_proj": "ffn_up", "ffn.down_proj": "ffn_down",
	}, nil},
	"gpt_neox": {"gptneox", map[string]string{
		"attention.query_key_value": "attn_qkv", "attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
	}, map[string]rowOrder{"attn_qkv": neoxRows}},
	"falcon": {"falcon", map[string]string{
		"self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
	}, map[string]rowOrder{"attn_qkv": falconRows}},
}

var llamaRows = map[string]rowOrder{
	"attn_q": func(b GGUFBase, rows int) ([]int, error) { return interleaved(b.Heads, rows) },
	"attn_k": func(b GGUFBase, rows int) ([]int, error) { return interleaved(b.KVHeads, rows) },
}

// interleaved is the order of llama.cpp's rotary embedding for Llama: pairs
// are neighbours there, and a half of a head apart here.
func interleaved(heads, rows int) ([]int, error) {
	if heads < 1 || rows%(2*heads) != 0 {
		return nil, fmt.Errorf("%d rows are not %d heads of pairs", rows, heads)
	}
	size := rows / heads
	order := make([]int, 0, rows)
	for h := range heads {
		for i := range size / 2 {
			order = append(order, h*size+i, h*size+size/2+i)
		}
	}
	return order, nil
}

// neoxRows: here each head has its q, k and v; there all q, then k, then v.
func neoxRows(b GGUFBase, rows int) ([]int, error) { return grouped(b.Heads, 1, rows) }

// falconRows: the same, for groups of heads that share k and v.
func falconRows(b GGUFBase, rows int) ([]int, error) {
	if b.KVHeads < 1 || b.Heads%b.KVHeads != 0 {
		return nil, fmt.Errorf("%d heads in %d groups", b.Heads, b.KVHeads)
	}
	return grouped(b.KVHeads, b.Heads/b.KVHeads, rows)
}

func grouped(groups, queries, rows int) ([]int, error) {
	if groups < 1 || rows%(groups*(queries+2)) != 0 {
		return nil, fmt.Errorf("%d rows are not %d groups of %d heads", rows, groups, queries+2)
	}
	size := rows / (groups * (queries + 2))
	var q, k, v []int
	for g := range groups {
		for i := range queries * size {
			q = append(q, g*(queries+2)*size+i)
		}
		for i := range size {
			at := (g*(queries+2)+queries)*size + i
			k, v = append(k, at), append(v, at+size)
		}
	}
	return slices.Concat(q, k, v), nil
}

const (
	ggufMagic     = "GGUF"
	ggufVersion   = 3
	ggufAlignment = 32
	ggufFloat32   = 6 // types of values
	ggufString    = 8
	ggufF32       = 0 // types of tensors
	ggufF16       = 1
	maxGGUFName   = 63
	ggufA         = ".weight.lora_a" // ends of names
	ggufB         = ".weight.lora_b"
)

// ggufTensor is (rows, cols), row-major.
type ggufTensor struct {
	name       string
	rows, cols int
	values     []float32
}

// WriteGGUF writes the adapter as llama.cpp loads it (--lora), with values of
// type F32 or F16. It is an error that wraps ErrUnsupported when llama.cpp could
// not: merge the adapter then.
//
// llama.cpp scales every layer by adapter.lora.alpha divided by the layer's
// rank; it knows neither rsLoRA nor an alpha for each layer. Alpha is therefore
// written so that the first layer is scaled as it should, and B of a layer to
// which it gives another scale is multiplied by the ratio.
func (a *Adapter) WriteGGUF(w io.Writer, base GGUFBase, dtype safetensors.DType) error {
	if err := a.writeGGUF(w, base, dtype); err != nil {
		return fmt.Errorf("write GGUF adapter: %w", err)
	}
	return nil
}

func (a *Adapter) writeGGUF(w io.Writer, base GGUFBase, dtype safetensors.DType) error {
	kind, ok := map[safetensors.DType]uint32{safetensors.F32: ggufF32, safetensors.F16: ggufF16}[dtype]
	if !ok {
		return fmt.Errorf("%w: values of type %s", ErrUnsupported, dtype)
	}
	if err := a.Plain(); err != nil {
		return fmt.Errorf("llama.cpp only adds B A to layers: %w", err)
	}
	family, ok := ggufFamilies[base.ModelType]
	if !ok {
		return fmt.Errorf("%w: no names of llama.cpp are known for models of type %q", ErrUnsupported, base.ModelType)
	}
	first := a.parts[0]
	alpha := float32(float64(first.Scale) * float64(first.Rank))
	if alpha == 0 { // which llama.cpp takes for a scale of 1
		return fmt.Errorf("%w: the scale of %s is 0", ErrUnsupported, first.Path)
	}
	var tensors []ggufTensor
	for _, p := range a.parts {
		pair, err := a.ggufPair(p, family, base, alpha)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Path, err)
		}
		for _, t := range pair {
			if dtype == safetensors.F16 && slices.ContainsFunc(t.values, func(x float32) bool { return math.Abs(float64(x)) >= 65520 }) {
				return fmt.Errorf("%w: a value of %s is too large for %s", ErrUnsupported, t.name, dtype)
			}
		}
		tensors = append(tensors, pair...)
	}
	slices.SortFunc(tensors, func(x, y ggufTensor) int { return strings.Compare(x.name, y.name) })

	b := []byte(ggufMagic)
	b = binary.LittleEndian.AppendUint32(b, ggufVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensors)))
	values := [][2]string{{"general.architecture", family.arch}, {"general.type", "adapter"}, {"adapter.type", "lora"}}
	if base.Name != "" {
		values = append(values, [2]string{"general.base_model.0.name", base.Name})
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(len(values)+1))
	for _, v := range values {
		b = ggufText(binary.LittleEndian.AppendUint32(ggufText(b, v[0]), ggufString), v[1])
	}
	b = binary.LittleEndian.AppendUint32(ggufText(b, "adapter.lora.alpha"), ggufFloat32)
	b = binary.LittleEndian.AppendUint32(b, math.Float32bits(alpha))
	at := uint64(0)
	for _, t := range tensors {
		b = binary.LittleEndian.AppendUint32(ggufText(b, t.name), 2)
		b = binary.LittleEndian.AppendUint64(b, uint64(t.cols)) // the innermost first
		b = binary.LittleEndian.AppendUint64(b, uint64(t.rows))
		b = binary.LittleEndian.AppendUint32(b, kind)
		b = binary.LittleEndian.AppendUint64(b, at)
		at += aligned(uint64(len(t.values)) * uint64(dtype.Size()))
	}
	out := bufio.NewWriterSize(w, 1<<20)
	_, _ = out.Write(pad(b)) // errors stay until Flush
	for _, t := range tensors {
		b = safetensors.AppendFloats(b[:0], t.values, dtype)
		_, _ = out.Write(pad(b))
	}
	return out.Flush()
}

// ggufPair names A and B of a layer, and orders the rows of B.
func (a *Adapter) ggufPair(p Part, family ggufFamily, base GGUFBase, alpha float32) ([]ggufTensor, error) {
	name, err := family.tensor(p.Path)
	if err != nil {
		return nil, err
	}
	if name == "output" && base.Tied {
		return nil, fmt.Errorf("%w: llama.cpp has no output layer of its own in a model that uses its embedding as one", ErrUnsupported)
	}
	ratio := float64(p.Scale) / (float64(alpha) / float64(p.Rank))
	if math.Abs(ratio-1) < 1e-6 { // rounding of the scales
		ratio = 1
	}
	values := make([]float32, 0, p.Out*p.Rank)
	from, err := family.order(name, base, p.Out)
	if err != nil {
		return nil, err
	}
	b := a.Tensor(p.B)
	for o := range p.Out {
		row := o
		if from != nil {
			row = from[o]
		}
		for _, v := range b[row*p.Rank : (row+1)*p.Rank] {
			values = append(values, float32(float64(v)*ratio))
		}
	}
	if len(name+ggufA) > maxGGUFName {
		return nil, fmt.Errorf("%w: tensor name %q is too long", ErrUnsupported, name)
	}
	return []ggufTensor{{name + ggufA, p.Rank, p.In, a.Tensor(p.A)}, {name + ggufB, p.Out, p.Rank, values}}, nil
}

// order returns for each row of llama.cpp's tensor of that name the row of
// ours; nil: the same.
func (f ggufFamily) order(name string, base GGUFBase, rows int) ([]int, error) {
	order := f.rows[name[strings.LastIndexByte(name, '.')+1:]]
	if order == nil {
		return nil, nil
	}
	return order(base, rows)
}

// tensor returns the name of a layer's tensor without ".weight".
func (f ggufFamily) tensor(path string) (string, error) {
	if path == "lm_head" || path == "embed_out" {
		return "output", nil
	}
	for module, name := range f.modules {
		prefix, ok := strings.CutSuffix(path, "."+module)
		if !ok {
			continue
		}
		block := prefix[lastDot(prefix)+1:]
		if !isNumber(block) {
			break
		}
		return "blk." + block + "." + name, nil
	}
	return "", fmt.Errorf("%w: llama.cpp has no such layer in models of type %s", ErrUnsupported, f.arch)
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func ggufText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

func aligned(n uint64) uint64 { return (n + ggufAlignment - 1) / ggufAlignment * ggufAlignment }

func pad(b []byte) []byte {
	return append(b, make([]byte, aligned(uint64(len(b)))-uint64(len(b)))...)
}
