package model

import (
	"math"
	"math/rand/v2"
	"strings"
)

// naive is the model in float64, written to be read: one token, head and
// number at a time, and nothing in common with the code it checks.
type naive struct {
	c     Config
	param map[string][]float64
	lora  map[string]naiveLoRA
}

type naiveLoRA struct {
	a, b  []float64
	rank  int
	scale float64
}

func newNaive(m *Model) *naive {
	n := &naive{c: m.Config(), param: map[string][]float64{}, lora: map[string]naiveLoRA{}}
	for _, p := range m.Params() {
		n.param[p.Name] = widen(p.Value.Host())
	}
	for i := range m.layers {
		for _, lin := range m.layers[i].linears() {
			if a := lin.lora; a != nil {
				n.lora[lin.Path] = naiveLoRA{widen(a.A.Host()), widen(a.B.Host()), a.A.Rows, float64(a.Scale)}
			}
		}
	}
	return n
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
	y := product(n.param[path+".weight"], x)
	for i, b := range n.param[path+".bias"] {
		y[i] += b
	}
	if l, ok := n.lora[path]; ok {
		for i, v := range product(l.b, product(l.a, x)) {
			y[i] += l.scale * v
		}
	}
	return y
}

func (n *naive) norm(name string, x []float64) []float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(sum/float64(len(x))+n.c.NormEps) * n.param[name+".weight"][i]
	}
	return y
}

// rope turns the heads of x for a position, as complex numbers.
func (n *naive) rope(x []float64, position int) {
	hd := n.c.HeadDim
	for h := 0; h < len(x); h += hd {
		for j := range hd / 2 {
			angle := float64(position) * n.c.Rope.Scaling.apply(math.Pow(n.c.Rope.Theta, -float64(2*j)/float64(hd)))
			z := complex(x[h+j], x[h+j+hd/2]) * complex(math.Cos(angle), math.Sin(angle))
			x[h+j], x[h+j+hd/2] = real(z), imag(z)
		}
	}
}

// logits returns those of each token of one sequence.
func (n *naive) logits(ids []int32) [][]float64 {
	c := n.c
	h := make([][]float64, len(ids))
	for t, id := range ids {
		h[t] = append([]float64(nil), n.param["model.embed_tokens.weight"][int(id)*c.Hidden:(int(id)+1)*c.Hidden]...)
	}
	for l := range c.Layers {
		p := layerPath(l)
		var keys, values [][]float64
		for t := range h {
			x := n.norm(p+"input_layernorm", h[t])
			q, k, v := n.linear(p+"self_attn.q_proj", x), n.linear(p+"self_attn.k_proj", x), n.linear(p+"self_attn.v_proj", x)
			n.rope(q, t)
			n.rope(k, t)
			keys, values = append(keys, k), append(values, v)
			for i, v := range n.linear(p+"self_attn.o_proj", n.attend(l, q, keys, values)) {
				h[t][i] += v
			}
		}
		for t := range h {
			x := n.norm(p+"post_attention_layernorm", h[t])
			gate, up := n.linear(p+"mlp.gate_proj", x), n.linear(p+"mlp.up_proj", x)
			for i, g := range gate {
				up[i] *= g / (1 + math.Exp(-g))
			}
			for i, v := range n.linear(p+"mlp.down_proj", up) {
				h[t][i] += v
			}
		}
	}
	head := n.param["lm_head.weight"]
	if c.TiedHead {
		head = n.param["model.embed_tokens.weight"]
	}
	out := make([][]float64, len(ids))
	for t := range h {
		out[t] = product(head, n.norm("model.norm", h[t]))
	}
	return out
}

// attend is attention of the newest query.
func (n *naive) attend(layer int, q []float64, keys, values [][]float64) []float64 {
	hd := n.c.HeadDim
	out := make([]float64, len(q))
	for h := range n.c.Heads {
		kv := h * n.c.KVHeads / n.c.Heads
		sum, weights := 0.0, make([]float64, len(keys))
		for j := range keys {
			if w := n.c.window(layer); w > 0 && len(keys)-1-j >= w {
				continue
			}
			dot := 0.0
			for d := range hd {
				dot += q[h*hd+d] * keys[j][kv*hd+d]
			}
			weights[j] = math.Exp(dot / math.Sqrt(float64(hd)))
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
	gqa.Rope = Rope{Theta: 500, Scaling: RopeScaling{"llama3", 8, 1, 4, 16}}
	wide := Llama(8, 6, 1, 2, 9, 64)
	wide.HeadDim, wide.QKVBias, wide.OBias, wide.MLPBias = 6, true, true, true
	wide.Rope.Scaling = RopeScaling{Kind: "linear", Factor: 2}
	window := Llama(8, 8, 3, 2, 9, 64)
	window.KVHeads, window.Windows = 1, []int{0, 2, 3}
	return map[string]Config{"mha": mha, "gqa": gqa, "wide": wide, "window": window}
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
		if p.Value.Rows == 1 && !strings.Contains(p.Name, "proj.weight") {
			for i := range p.Value.Host() {
				p.Value.Host()[i] += float32(0.3 * r.NormFloat64())
			}
		}
	}
	return m, nil
}
