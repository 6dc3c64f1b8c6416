package model

import (
	"maps"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
)

// naive is the model in float64, written to be read: one token, head and
// number at a time, each architecture as its reference has it, and nothing in
// common with the code it checks.
type naive struct {
	c      Config
	param  map[string][]float64
	loaded map[string][]float64 // what a tied output layer is, whatever replaces the embedding
	lora   map[string]naiveLoRA
}

type naiveLoRA struct {
	a, b  []float64
	rank  int
	scale float64
	m     []float64 // magnitudes
}

func newNaive(m *Model) *naive {
	n := &naive{c: m.Config(), param: map[string][]float64{}, lora: map[string]naiveLoRA{}}
	for _, p := range m.Params() {
		n.param[p.Name] = widen(p.Value.Host())
	}
	n.loaded = maps.Clone(n.param)
	for i := range m.layers {
		for _, lin := range m.layers[i].linears {
			if lin.lora != nil {
				n.adapt(lin.Path, lin.lora)
			}
		}
	}
	return n
}

func (n *naive) adapt(path string, a *LowRank) {
	n.lora[path] = naiveLoRA{widen(a.A.Host()), widen(a.B.Host()), a.A.Rows, float64(a.Scale), widen(a.Magnitude)}
}

func widen(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func product(w, x []float64) []float64 {
	out := make([]float64, len(w)/len(x))
	for o := range out {
		for i, v := range x {
			out[o] += w[o*len(x)+i] * v
		}
	}
	return out
}

func (n *naive) linear(path string, x []float64) []float64 {
	y := n.weighted(path, n.param[path+".weight"], x)
	for i, b := range n.param[path+".bias"] {
		y[i] += b
	}
	return y
}

// weighted is what a layer with weight w makes of x, without its bias.
func (n *naive) weighted(path string, w, x []float64) []float64 {
	l, ok := n.lora[path]
	if !ok {
		return product(w, x)
	}
	y := make([]float64, len(w)/len(x))
	for o := range y {
		square := 0.0
		for i, v := range x {
			sum := w[o*len(x)+i]
			for r := range l.rank {
				sum += l.scale * l.b[o*l.rank+r] * l.a[r*len(x)+i]
			}
			square += sum * sum
			y[o] += sum * v
		}
		if len(l.m) > 0 {
			y[o] *= l.m[o] / math.Sqrt(square)
		}
	}
	return y
}

// rms is the RMS norm of x.
func (n *naive) rms(name string, x []float64) []float64 {
	w, mean := n.get(name+".weight"), 0.0
	for _, v := range x {
		mean += v * v / float64(len(x))
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(mean+n.c.NormEps) * w[i]
	}
	return y
}

// gemmaRMS scales by one plus the weight.
func (n *naive) gemmaRMS(name string, x []float64) []float64 {
	w, mean := n.get(name+".weight"), 0.0
	for _, v := range x {
		mean += v * v / float64(len(x))
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(mean+n.c.NormEps) * (1 + w[i])
	}
	return y
}

// layerNorm has no bias if the model has none.
func (n *naive) layerNorm(name string, x []float64) []float64 {
	w, bias := n.get(name+".weight"), n.param[name+".bias"]
	mean, variance := 0.0, 0.0
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x))
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = (v - mean) / math.Sqrt(variance+n.c.NormEps) * w[i]
		if bias != nil {
			y[i] += bias[i]
		}
	}
	return y
}

// get returns a parameter that must be there.
func (n *naive) get(name string) []float64 {
	v, ok := n.param[name]
	if !ok {
		panic("no parameter " + name)
	}
	return v
}

func (n *naive) row(name string, i int) []float64 {
	return append([]float64(nil), n.get(name)[i*n.c.Hidden:(i+1)*n.c.Hidden]...)
}

func naiveSilu(x float64) float64 { return x / (1 + math.Exp(-x)) }

func naiveGelu(x float64) float64 { return x / 2 * (1 + math.Erf(x/math.Sqrt2)) }

func naiveGeluTanh(x float64) float64 {
	return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

func mapEach(fn func(float64) float64, x []float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = fn(v)
	}
	return y
}

func times(x, y []float64) []float64 {
	z := make([]float64, len(x))
	for i := range x {
		z[i] = x[i] * y[i]
	}
	return z
}

func plus(list ...[]float64) []float64 {
	z := make([]float64, len(list[0]))
	for _, x := range list {
		for i, v := range x {
			z[i] += v
		}
	}
	return z
}

// turn is rotary embedding of the first dims values of each head, as complex
// numbers of which the first half holds the real parts.
func (n *naive) turn(x []float64, position, length, dims int) []float64 {
	y, hd := append([]float64(nil), x...), n.c.HeadDim
	for h := 0; h < len(x); h += hd {
		for j := range dims / 2 {
			z := complex(x[h+j], x[h+j+dims/2])
			angle, size := float64(position)*n.frequency(j, dims, length), 1.0
			if f := n.c.Rope.Scaling.AttentionFactor; f != 0 {
				size = f
			}
			z *= complex(size*math.Cos(angle), size*math.Sin(angle))
			y[h+j], y[h+j+dims/2] = real(z), imag(z)
		}
	}
	return y
}

// frequency is that of pair j in a sequence of a length.
func (n *naive) frequency(j, dims, length int) float64 {
	r := n.c.Rope
	f, s := 1/math.Pow(r.Theta, float64(2*j)/float64(dims)), r.Scaling
	context := float64(s.OriginalContext)
	switch s.Kind {
	case "linear":
		return f / s.Factor
	case "llama3":
		turns := context * f / (2 * math.Pi) // in the original context
		switch {
		case turns < s.LowFreqFactor:
			return f / s.Factor
		case turns > s.HighFreqFactor:
			return f
		}
		smooth := (turns - s.LowFreqFactor) / (s.HighFreqFactor - s.LowFreqFactor)
		return (1-smooth)*f/s.Factor + smooth*f
	case "yarn":
		at := func(turns float64) float64 {
			return float64(dims) * math.Log(context/(turns*2*math.Pi)) / (2 * math.Log(r.Theta))
		}
		low, high := math.Max(math.Floor(at(s.BetaFast)), 0), math.Min(math.Ceil(at(s.BetaSlow)), float64(dims-1))
		ramp := math.Max(0, math.Min(1, (float64(j)-low)/(high-low)))
		return f/s.Factor*ramp + f*(1-ramp)
	case "longrope":
		if length > s.OriginalContext {
			return f / s.LongFactors[j]
		}
		return f / s.ShortFactors[j]
	}
	return f
}

// naiveAttention is what attend is to do beyond softmax(q k / sqrt(HD)) v.
type naiveAttention struct {
	heads, kv int
	scale     float64 // 0: 1/sqrt(HD)
	limit     float64 // of the soft cap
	window    int
	slopes    []float64
}

// attend is attention of the newest query.
func (n *naive) attend(q []float64, keys, values [][]float64, o naiveAttention) []float64 {
	hd := n.c.HeadDim
	out := make([]float64, len(q))
	if o.scale == 0 {
		o.scale = 1 / math.Sqrt(float64(hd))
	}
	for h := range o.heads {
		kv := h * o.kv / o.heads
		sum, weights := 0.0, make([]float64, len(keys))
		for j := range keys {
			distance := len(keys) - 1 - j
			if o.window > 0 && distance >= o.window {
				continue
			}
			score := 0.0
			for d := range hd {
				score += q[h*hd+d] * keys[j][kv*hd+d]
			}
			score *= o.scale
			if o.limit != 0 {
				score = o.limit * math.Tanh(score/o.limit)
			}
			if o.slopes != nil {
				score -= o.slopes[h] * float64(distance)
			}
			weights[j] = math.Exp(score)
			sum += weights[j]
		}
		for j, w := range weights {
			for d := range hd {
				out[h*hd+d] += w / sum * values[j][kv*hd+d]
			}
		}
	}
	return out
}

// logits returns those of each token of one sequence.
func (n *naive) logits(ids []int32) [][]float64 {
	run := map[string]func(*naive, []int32) [][]float64{
		"LlamaForCausalLM": (*naive).llama, "MistralForCausalLM": (*naive).llama, "Qwen2ForCausalLM": (*naive).llama,
		"Qwen3ForCausalLM": (*naive).llama, "GemmaForCausalLM": (*naive).gemma, "Gemma2ForCausalLM": (*naive).gemma2,
		"PhiForCausalLM": (*naive).phi, "Phi3ForCausalLM": (*naive).phi3, "FalconForCausalLM": (*naive).falcon,
		"MptForCausalLM": (*naive).mpt, "GPTNeoXForCausalLM": (*naive).neox, "GPT2LMHeadModel": (*naive).gpt2,
	}[n.c.Architecture]
	return run(n, ids)
}

// sequence runs block on each layer and token; block returns the token's state
// after layer l, and gets that before it and a memory for keys and values.
func (n *naive) sequence(h [][]float64, block func(l, t int, x []float64, keys, values *[][]float64) []float64) [][]float64 {
	for l := range n.c.Layers {
		var keys, values [][]float64
		for t := range h {
			h[t] = block(l, t, h[t], &keys, &values)
		}
	}
	return h
}

func path(format string, l int) string { return strings.ReplaceAll(format, "#", strconv.Itoa(l)) }

// llama, and with norms of heads Qwen3.
func (n *naive) llama(ids []int32) [][]float64 {
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = n.row("model.embed_tokens.weight", int(id))
	}
	n.sequence(h, func(l, t int, x []float64, keys, values *[][]float64) []float64 {
		p := path("model.layers.#.", l)
		y := n.rms(p+"input_layernorm", x)
		q, k, v := n.linear(p+"self_attn.q_proj", y), n.linear(p+"self_attn.k_proj", y), n.linear(p+"self_attn.v_proj", y)
		if n.c.Architecture == "Qwen3ForCausalLM" {
			q, k = n.eachHead(p+"self_attn.q_norm", q), n.eachHead(p+"self_attn.k_norm", k)
		}
		*keys = append(*keys, n.turn(k, t, len(ids), n.c.HeadDim))
		*values = append(*values, v)
		o := naiveAttention{heads: n.c.Heads, kv: n.c.KVHeads}
		if n.c.Windows != nil {
			o.window = n.c.Windows[l]
		}
		x = plus(x, n.linear(p+"self_attn.o_proj", n.attend(n.turn(q, t, len(ids), n.c.HeadDim), *keys, *values, o)))
		y = n.rms(p+"post_attention_layernorm", x)
		gate, up := n.linear(p+"mlp.gate_proj", y), n.linear(p+"mlp.up_proj", y)
		return plus(x, n.linear(p+"mlp.down_proj", times(mapEach(naiveSilu, gate), up)))
	})
	return n.head(h, func(x []float64) []float64 { return n.rms("model.norm", x) }, "model.embed_tokens.weight", "lm_head.weight")
}

func (n *naive) eachHead(name string, x []float64) []float64 {
	var y []float64
	for h := 0; h < len(x); h += n.c.HeadDim {
		y = append(y, n.rms(name, x[h:h+n.c.HeadDim])...)
	}
	return y
}

func (n *naive) head(h [][]float64, norm func([]float64) []float64, embed, head string) [][]float64 {
	w := n.param[head]
	if w == nil && n.c.TiedHead {
		w = n.loaded[embed]
	}
	out := make([][]float64, len(h))
	for t := range h {
		out[t] = n.weighted(strings.TrimSuffix(head, ".weight"), w, norm(h[t]))
	}
	return out
}

func (n *naive) gemmaAct() func(float64) float64 {
	if n.c.Activation == GELU {
		return naiveGelu
	}
	return naiveGeluTanh
}

func (n *naive) gemma(ids []int32) [][]float64 {
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = mapEach(func(v float64) float64 { return v * math.Sqrt(float64(n.c.Hidden)) }, n.row("model.embed_tokens.weight", int(id)))
	}
	n.sequence(h, func(l, t int, x []float64, keys, values *[][]float64) []float64 {
		p := path("model.layers.#.", l)
		y := n.gemmaRMS(p+"input_layernorm", x)
		q := n.turn(n.linear(p+"self_attn.q_proj", y), t, len(ids), n.c.HeadDim)
		*keys = append(*keys, n.turn(n.linear(p+"self_attn.k_proj", y), t, len(ids), n.c.HeadDim))
		*values = append(*values, n.linear(p+"self_attn.v_proj", y))
		x = plus(x, n.linear(p+"self_attn.o_proj", n.attend(q, *keys, *values, naiveAttention{heads: n.c.Heads, kv: n.c.KVHeads})))
		y = n.gemmaRMS(p+"post_attention_layernorm", x)
		return plus(x, n.linear(p+"mlp.down_proj", times(mapEach(n.gemmaAct(), n.linear(p+"mlp.gate_proj", y)), n.linear(p+"mlp.up_proj", y))))
	})
	return n.head(h, func(x []float64) []float64 { return n.gemmaRMS("model.norm", x) }, "model.embed_tokens.weight", "lm_head.weight")
}

func (n *naive) gemma2(ids []int32) [][]float64 {
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = mapEach(func(v float64) float64 { return v * math.Sqrt(float64(n.c.Hidden)) }, n.row("model.embed_tokens.weight", int(id)))
	}
	n.sequence(h, func(l, t int, x []float64, keys, values *[][]float64) []float64 {
		p := path("model.layers.#.", l)
		y := n.gemmaRMS(p+"input_layernorm", x)
		q := n.turn(n.linear(p+"self_attn.q_proj", y), t, len(ids), n.c.HeadDim)
		*keys = append(*keys, n.turn(n.linear(p+"self_attn.k_proj", y), t, len(ids), n.c.HeadDim))
		*values = append(*values, n.linear(p+"self_attn.v_proj", y))
		o := naiveAttention{heads: n.c.Heads, kv: n.c.KVHeads, scale: n.c.AttentionScale, limit: n.c.AttentionCap}
		if l%2 == 0 {
			o.window = n.c.Windows[0]
		}
		y = n.linear(p+"self_attn.o_proj", n.attend(q, *keys, *values, o))
		x = plus(x, n.gemmaRMS(p+"post_attention_layernorm", y))
		y = n.gemmaRMS(p+"pre_feedforward_layernorm", x)
		y = n.linear(p+"mlp.down_proj", times(mapEach(n.gemmaAct(), n.linear(p+"mlp.gate_proj", y)), n.linear(p+"mlp.up_proj", y)))
		return plus(x, n.gemmaRMS(p+"post_feedforward_layernorm", y))
	})
	out := n.head(h, func(x []float64) []float64 { return n.gemmaRMS("model.norm", x) }, "model.embed_tokens.weight", "lm_head.weight")
	for t := range out {
		out[t] = mapEach(func(v float64) float64 { return n.c.LogitCap * math.Tanh(v/n.c.LogitCap) }, out[t])
	}
	return out
}

func (n *naive) phi(ids []int32) [][]float64 {
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = n.row("model.embed_tokens.weight", int(id))
	}
	n.sequence(h, func(l, t int, x []float64, keys, values *[][]float64) []float64 {
		p := path("model.layers.#.", l)
		y := n.layerNorm(p+"input_layernorm", x)
		q := n.turn(n.linear(p+"self_attn.q_proj", y), t, len(ids), n.c.Rope.Dims)
		*keys = append(*keys, n.turn(n.linear(p+"self_attn.k_proj", y), t, len(ids), n.c.Rope.Dims))
		*values = append(*values, n.linear(p+"self_attn.v_proj", y))
		att := n.linear(p+"self_attn.dense", n.attend(q, *keys, *values, naiveAttention{heads: n.c.Heads, kv: n.c.KVHeads}))
		return plus(x, att, n.linear(p+"mlp.fc2", mapEach(naiveGeluTanh, n.linear(p+"mlp.fc1", y))))
	})
	out := n.head(h, func(x []float64) []float64 { return n.layerNorm("model.final_layernorm", x) }, "", "lm_head.weight")
	for t := range out {
		out[t] = plus(out[t], n.get("lm_head.bias"))
	}
	return out
}

func (n *naive) phi3(ids []int32) [][]float64 {
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = n.row("model.embed_tokens.weight", int(id))
	}
	hd, dims := n.c.HeadDim, n.c.HeadDim
	if n.c.Rope.Dims != 0 {
		dims = n.c.Rope.Dims
	}
	n.sequence(h, func(l, t int, x []float64, keys, values *[][]float64) []float64 {
		p := path("model.layers.#.", l)
		y := n.rms(p+"input_layernorm", x)
		qkv := n.linear(p+"self_attn.qkv_proj", y)
		nq, nkv := n.c.Heads*hd, n.c.KVHeads*hd
		q := n.turn(qkv[:nq], t, len(ids), dims)
		*keys = append(*keys, n.turn(qkv[nq:nq+nkv], t, len(ids), dims))
		*values = append(*values, qkv[nq+nkv:])
		o := naiveAttention{heads: n.c.Heads, kv: n.c.KVHeads}
		if n.c.Windows != nil {
			o.window = n.c.Windows[l]
		}
		x = plus(x, n.linear(p+"self_attn.o_proj", n.attend(q, *keys, *values, o)))
		gateUp := n.linear(p+"mlp.gate_up_proj", n.rms(p+"post_attention_layernorm", x))
		gate, up := gateUp[:n.c.Intermediate], gateUp[n.c.Intermediate:]
		return plus(x, n.linear(p+"mlp.down_proj", times(mapEach(naiveSilu, gate), up)))
	})
	return n.head(h, func(x []float64) []float64 { return n.rms("model.norm", x) }, "model.embed_tokens.weight", "lm_head.weight")
}

func (n *naive) falcon(ids []int32) [][]float64 {
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = n.row("transformer.word_embeddings.weight", int(id))
	}
	hd := n.c.HeadDim
	n.sequence(h, func(l, t int, x []float64, keys, values *[][]float64) []float64 {
		p := path("transformer.h.#.", l)
		_, two := n.param[p+"ln_attn.weight"]
		_, after := n.param[p+"post_attention_layernorm.weight"]
		var y, m []float64
		if two {
			y, m = n.layerNorm(p+"ln_attn", x), n.layerNorm(p+"ln_mlp", x)
		} else {
			y = n.layerNorm(p+"input_layernorm", x)
			m = y
		}
		// For each key head: its query heads, the key, the value.
		fused, group := n.linear(p+"self_attention.query_key_value", y), n.c.Heads/n.c.KVHeads
		var q, k, v []float64
		for g := range n.c.KVHeads {
			at := g * (group + 2) * hd
			q = append(q, fused[at:at+group*hd]...)
			k = append(k, fused[at+group*hd:at+(group+1)*hd]...)
			v = append(v, fused[at+(group+1)*hd:at+(group+2)*hd]...)
		}
		*keys, *values = append(*keys, n.turn(k, t, len(ids), hd)), append(*values, v)
		att := n.linear(p+"self_attention.dense",
			n.attend(n.turn(q, t, len(ids), hd), *keys, *values, naiveAttention{heads: n.c.Heads, kv: n.c.KVHeads}))
		if after {
			x, att = plus(x, att), make([]float64, len(x))
			m = n.layerNorm(p+"post_attention_layernorm", x)
		}
		return plus(x, att, n.linear(p+"mlp.dense_4h_to_h", mapEach(naiveGelu, n.linear(p+"mlp.dense_h_to_4h", m))))
	})
	return n.head(h, func(x []float64) []float64 { return n.layerNorm("transformer.ln_f", x) }, "transformer.word_embeddings.weight", "lm_head.weight")
}

func (n *naive) mpt(ids []int32) [][]float64 {
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = n.row("transformer.wte.weight", int(id))
	}
	// The slopes of three heads are those of four, reordered.
	slopes := map[int][]float64{
		2: {1. / 16, 1. / 256}, 3: {1. / 16, 1. / 256, 1. / 4}, 4: {1. / 4, 1. / 16, 1. / 64, 1. / 256},
	}[n.c.Heads]
	n.sequence(h, func(l, _ int, x []float64, keys, values *[][]float64) []float64 {
		p := path("transformer.blocks.#.", l)
		qkv := n.linear(p+"attn.Wqkv", n.layerNorm(p+"norm_1", x))
		if c := n.c.ClipQKV; c != 0 {
			qkv = mapEach(func(v float64) float64 { return math.Max(-c, math.Min(c, v)) }, qkv)
		}
		w := n.c.Hidden
		*keys, *values = append(*keys, qkv[w:2*w]), append(*values, qkv[2*w:])
		att := n.attend(qkv[:w], *keys, *values, naiveAttention{heads: n.c.Heads, kv: n.c.Heads, scale: n.c.AttentionScale, slopes: slopes})
		x = plus(x, n.linear(p+"attn.out_proj", att))
		return plus(x, n.linear(p+"ffn.down_proj", mapEach(naiveGelu, n.linear(p+"ffn.up_proj", n.layerNorm(p+"norm_2", x)))))
	})
	return n.head(h, func(x []float64) []float64 { return n.layerNorm("transformer.norm_f", x) }, "transformer.wte.weight", "lm_head.weight")
}

func (n *naive) neox(ids []int32) [][]float64 {
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = n.row("gpt_neox.embed_in.weight", int(id))
	}
	hd := n.c.HeadDim
	n.sequence(h, func(l, t int, x []float64, keys, values *[][]float64) []float64 {
		p := path("gpt_neox.layers.#.", l)
		fused := n.linear(p+"attention.query_key_value", n.layerNorm(p+"input_layernorm", x))
		var q, k, v []float64
		for head := range n.c.Heads {
			at := fused[head*3*hd:]
			q, k, v = append(q, at[:hd]...), append(k, at[hd:2*hd]...), append(v, at[2*hd:3*hd]...)
		}
		*keys, *values = append(*keys, n.turn(k, t, len(ids), n.c.Rope.Dims)), append(*values, v)
		att := n.linear(p+"attention.dense",
			n.attend(n.turn(q, t, len(ids), n.c.Rope.Dims), *keys, *values, naiveAttention{heads: n.c.Heads, kv: n.c.Heads}))
		in := x
		if !n.c.Parallel {
			in = plus(x, att)
		}
		mlp := n.linear(p+"mlp.dense_4h_to_h", mapEach(naiveGelu, n.linear(p+"mlp.dense_h_to_4h", n.layerNorm(p+"post_attention_layernorm", in))))
		return plus(x, att, mlp)
	})
	return n.head(h, func(x []float64) []float64 { return n.layerNorm("gpt_neox.final_layer_norm", x) }, "gpt_neox.embed_in.weight", "embed_out.weight")
}

func (n *naive) gpt2(ids []int32) [][]float64 {
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = plus(n.row("transformer.wte.weight", int(id)), n.row("transformer.wpe.weight", t))
	}
	n.sequence(h, func(l, _ int, x []float64, keys, values *[][]float64) []float64 {
		p, w := path("transformer.h.#.", l), n.c.Hidden
		qkv := n.linear(p+"attn.c_attn", n.layerNorm(p+"ln_1", x))
		*keys, *values = append(*keys, qkv[w:2*w]), append(*values, qkv[2*w:])
		x = plus(x, n.linear(p+"attn.c_proj", n.attend(qkv[:w], *keys, *values, naiveAttention{heads: n.c.Heads, kv: n.c.Heads, scale: n.c.AttentionScale})))
		return plus(x, n.linear(p+"mlp.c_proj", mapEach(naiveGeluTanh, n.linear(p+"mlp.c_fc", n.layerNorm(p+"ln_2", x)))))
	})
	return n.head(h, func(x []float64) []float64 { return n.layerNorm("transformer.ln_f", x) }, "transformer.wte.weight", "lm_head.weight")
}

// loss returns the summed loss of a sequence.
func (n *naive) loss(ids, labels []int32) float64 {
	sum := 0.0
	logits := n.logits(ids)
	for t := 1; t < len(ids); t++ {
		if labels[t] == NotCounted {
			continue
		}
		z := 0.0
		for _, v := range logits[t-1] {
			z += math.Exp(v)
		}
		sum += math.Log(z) - logits[t-1][labels[t]]
	}
	return sum
}

// testConfigs are small models that differ in everything that a configuration
// can say.
func testConfigs() map[string]Config {
	mha := Llama(8, 12, 2, 2, 13, 64)
	gqa := Llama(12, 10, 2, 6, 11, 64)
	gqa.KVHeads, gqa.TiedHead = 2, true
	gqa.Rope = Rope{Theta: 500, Scaling: RopeScaling{Kind: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 16}}
	wide := Llama(8, 6, 1, 2, 9, 64)
	wide.HeadDim, wide.QKVBias, wide.OBias, wide.MLPBias = 6, true, true, true
	wide.Rope.Scaling = RopeScaling{Kind: "linear", Factor: 2}
	window := Llama(8, 8, 3, 2, 9, 64)
	window.KVHeads, window.Windows = 1, []int{0, 2, 3}
	all := map[string]Config{"mha": mha, "gqa": gqa, "wide": wide, "window": window}
	maps.Copy(all, familyConfigs())
	return all
}

// familyConfigs are small models of the other architectures.
func familyConfigs() map[string]Config {
	small := func(architecture string, change func(c *Config)) Config {
		c := Llama(8, 6, 2, 2, 9, 64)
		c.Architecture = architecture
		change(&c)
		return c
	}
	neox := func(c *Config) {
		c.Norm, c.Activation, c.QKVBias, c.OBias, c.MLPBias, c.Parallel = LayerNorm, GELU, true, true, true, true
		c.Rope.Dims = 2
	}
	falcon := func(c *Config) {
		c.Norm, c.Activation, c.Parallel, c.SharedNorm, c.TiedHead = LayerNorm, GELU, true, true, true
		c.Intermediate = 10
	}
	mpt := func(c *Config) {
		c.Norm, c.Activation, c.Position, c.TiedHead, c.Intermediate = LayerNormNoBias, GELU, ALiBi, true, 4*c.Hidden
		c.Rope = Rope{}
	}
	return map[string]Config{
		"mistral": small("MistralForCausalLM", func(c *Config) { c.HeadDim, c.KVHeads, c.Windows = 6, 1, []int{3, 3} }),
		"qwen2":   small("Qwen2ForCausalLM", func(c *Config) { c.QKVBias, c.KVHeads, c.TiedHead, c.Windows = true, 1, true, []int{0, 3} }),
		"qwen3":   small("Qwen3ForCausalLM", func(c *Config) { c.QKNorm, c.HeadDim, c.KVHeads = true, 6, 1 }),
		"qwen3-bias": small("Qwen3ForCausalLM", func(c *Config) {
			c.QKNorm, c.QKVBias, c.OBias, c.Layers = true, true, true, 1
		}),
		"gemma": small("GemmaForCausalLM", func(c *Config) {
			c.Norm, c.Activation, c.TiedHead, c.HeadDim, c.KVHeads, c.EmbedScale = RMSNormPlusOne, GELUTanh, true, 6, 1, math.Sqrt(8)
		}),
		"gemma2": small("Gemma2ForCausalLM", func(c *Config) {
			c.Norm, c.Activation, c.TiedHead, c.PostNorms, c.EmbedScale = RMSNormPlusOne, GELUTanh, true, true, math.Sqrt(8)
			c.Windows, c.AttentionScale, c.AttentionCap, c.LogitCap = []int{3, 0}, 1/math.Sqrt(3), 1.5, 2
		}),
		"phi": small("PhiForCausalLM", func(c *Config) {
			c.Norm, c.Activation, c.Parallel, c.SharedNorm = LayerNorm, GELUTanh, true, true
			c.QKVBias, c.OBias, c.MLPBias, c.HeadBias, c.Rope.Dims, c.KVHeads = true, true, true, true, 2, 1
		}),
		"phi3": small("Phi3ForCausalLM", func(c *Config) { c.KVHeads, c.Windows = 1, []int{4, 4} }),
		"phi3-long": small("Phi3ForCausalLM", func(c *Config) {
			c.HeadDim, c.Rope.Dims, c.Rope.Scaling = 6, 4, RopeScaling{
				Kind: "longrope", OriginalContext: 8, AttentionFactor: math.Sqrt(1 + math.Log(8)/math.Log(8)),
				ShortFactors: []float64{1, 1.5}, LongFactors: []float64{2, 4},
			}
		}),
		"falcon7":  small("FalconForCausalLM", func(c *Config) { falcon(c); c.KVHeads = 1 }),
		"falcon40": small("FalconForCausalLM", func(c *Config) { falcon(c); c.SharedNorm, c.Hidden, c.Heads, c.KVHeads = false, 16, 4, 2 }),
		"falcon11": small("FalconForCausalLM", func(c *Config) {
			falcon(c)
			c.Hidden, c.Heads, c.KVHeads, c.TiedHead, c.Layers = 16, 4, 2, false, 1
		}),
		"falcon-sequential": small("FalconForCausalLM", func(c *Config) {
			falcon(c)
			c.Parallel, c.SharedNorm, c.QKVBias, c.OBias, c.MLPBias = false, false, true, true, true
		}),
		"mpt":      small("MptForCausalLM", func(c *Config) { c.Hidden, c.Heads, c.KVHeads = 12, 3, 3; mpt(c) }),
		"mpt-clip": small("MptForCausalLM", func(c *Config) { mpt(c); c.ClipQKV, c.AttentionScale = 0.8, 0.3 }),
		"neox":     small("GPTNeoXForCausalLM", neox),
		"neox-sequential": small("GPTNeoXForCausalLM", func(c *Config) {
			neox(c)
			c.Parallel, c.QKVBias, c.OBias, c.TiedHead = false, false, false, true
		}),
		"gpt2": small("GPT2LMHeadModel", func(c *Config) {
			c.Norm, c.Activation, c.Position, c.TiedHead = LayerNorm, GELUTanh, Learned, true
			c.QKVBias, c.OBias, c.MLPBias, c.Context, c.Rope = true, true, true, 20, Rope{}
		}),
		"yarn": small("LlamaForCausalLM", func(c *Config) {
			c.HeadDim = 8
			c.Rope.Scaling = RopeScaling{Kind: "yarn", Factor: 4, OriginalContext: 256, BetaFast: 32, BetaSlow: 1, AttentionFactor: 0.1*math.Log(4) + 1}
		}),
		"dynamic": small("LlamaForCausalLM", func(c *Config) { c.Rope.Scaling = RopeScaling{Kind: "dynamic", Factor: 2}; c.Layers = 1 }),
	}
}

// lively returns a model with parameters large enough that everything matters.
func lively(c Config, o Options) (*Model, error) {
	c.InitRange = 0.4
	m, err := New(c, 7, o)
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(1, 9))
	for _, p := range m.Params() {
		if len(p.Shape) == 1 {
			for i := range p.Value.Host() {
				p.Value.Host()[i] += float32(0.3 * r.NormFloat64())
			}
		}
	}
	return m, nil
}
