package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/run"
)

// modelFacts is what memory depends on.
type modelFacts struct {
	config  model.Config
	weights []model.Weight
}

// modelFacts finds out about the model of a run, nil if nobody has its
// configuration.
func (n *node) modelFacts(ctx context.Context, m *run.Manifest, o fitting) (*modelFacts, error) {
	if dir, ok := n.localModel(m.Model); ok {
		c, err := model.ReadConfig(dir)
		if err != nil {
			return nil, modelError(err)
		}
		weights, err := model.Weights(dir)
		if err != nil {
			return nil, modelError(err)
		}
		return &modelFacts{c, weights}, nil
	}
	if n.fitAdmission(m, o.id).Verdict == api.VerdictRefused {
		return nil, nil // nobody gives it to a stranger
	}
	b, err := n.configOf(ctx, m.Model, o.from)
	if err != nil || b == nil {
		return nil, err
	}
	c, err := model.ParseConfig(b)
	if err != nil {
		return nil, api.Errorf(api.CodeModel, "model %s cannot be trained: %w", m.Model, err)
	}
	return &modelFacts{c, likelyWeights(&c, b, int64(m.ModelBytes))}, nil
}

// configOf returns config.json of a model, nil if nobody was found in time who
// has it.
func (n *node) configOf(ctx context.Context, root cid.Cid, from []peer.ID) ([]byte, error) {
	const name = "config.json"
	if b, err := fs.ReadFile(n.store.FS(ctx, root), name); err == nil {
		return b, nil
	}
	if len(n.host.Peers()) == 0 {
		return nil, nil
	}
	patient, cancel := context.WithTimeout(ctx, n.configPatience)
	defer cancel()
	o := pull.FetchOptions{Providers: from, Leaves: map[cid.Cid]bool{}}
	err := n.puller.Fetch(patient, root, o) // the inner nodes
	if err == nil {
		e, lookup := n.store.Lookup(ctx, root, name)
		if lookup != nil {
			return nil, api.Errorf(api.CodeModel, "model %s cannot be trained: %w", root, lookup)
		}
		o.Leaves[e.CID] = true
		err = n.puller.Fetch(patient, root, o)
	}
	if err == nil {
		var b []byte
		if b, err = fs.ReadFile(n.store.FS(ctx, root), name); err == nil {
			return b, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	n.log.InfoContext(ctx, "configuration of the model was not found", "component", "node", "shard", root, "err", err)
	return nil, nil
}

// likelyWeights are the parameters of a model of which only the configuration
// is here, as an import would keep them.
func likelyWeights(c *model.Config, config []byte, size int64) []model.Weight {
	var stored struct {
		TorchDType string          `json:"torch_dtype"`
		DType      string          `json:"dtype"`
		Quantised  json.RawMessage `json:"quantization_config"`
	}
	_ = json.Unmarshal(config, &stored) // it was parsed before
	dtype := orElse(stored.DType, stored.TorchDType)
	kind := tensor.Plain
	// float16 becomes float32.
	if dtype == "bfloat16" || dtype == "" && size < 3*int64(c.Params()) {
		kind = tensor.Half
	}
	list := c.Weights(kind)
	if len(stored.Quantised) == 0 || string(stored.Quantised) == "null" {
		return list
	}
	linear := map[string]bool{}
	for _, l := range c.Modules() {
		linear[l.Path+".weight"] = true
	}
	for i, w := range list {
		if linear[w.Name] {
			list[i].Kind = tensor.FourBits
		}
	}
	return list
}

// machine is what a trainer would compute with.
type machine struct {
	sizes tensor.Sizes
	free  int64 // -1: cannot be told
	gpu   bool
}

// machineHere is this one.
func (n *node) machineHere() (machine, error) {
	var o train.Options
	free, err := n.room(&o)
	return machine{o.Sizes, free, n.gpu != nil}, err
}

// fitMemory says what training takes of the memory of this machine: of the
// GPU and the host, or of the host alone.
func (n *node) fitMemory(m *run.Manifest, facts *modelFacts) ([]api.FitItem, error) {
	at, err := n.machineHere()
	if err != nil {
		return nil, err
	}
	if facts == nil {
		return []api.FitItem{atLeastWeights(m, at)}, nil
	}
	i, need, err := memoryItem(m, facts, at)
	if err != nil {
		return nil, err
	}
	items := []api.FitItem{i}
	if at.gpu {
		free, err := n.freeMemory()
		if err != nil {
			free = -1
		}
		host := api.FitItem{Name: "host memory", NeedBytes: need.Host + spareMemory, HaveBytes: free, Verdict: verdict(need.Host+spareMemory, free)}
		host.Text = fmt.Sprintf("beside the GPU training takes %s of the host's memory", megabytes(host.NeedBytes))
		if host.Verdict == api.VerdictExceeds {
			host.Code, host.Way = api.CodeRAM, "close other programs"
			host.Text += fmt.Sprintf(", %s are free", megabytes(free))
		}
		items = append(items, host)
	}
	return items, nil
}

// atLeastWeights is what can be said of a model that nobody who was found has.
func atLeastWeights(m *run.Manifest, at machine) api.FitItem {
	i := api.FitItem{
		Name: "memory", NeedBytes: int64(m.ModelBytes) + spareMemory, HaveBytes: at.free, Verdict: api.VerdictUnknown,
		Parts: []api.FitPart{{Name: "weights at least", Bytes: int64(m.ModelBytes)}, {Name: "overhead", Bytes: spareMemory}},
	}
	i.Text = fmt.Sprintf("training takes %s of memory at least (%s of weights at least)", megabytes(i.NeedBytes), megabytes(int64(m.ModelBytes)))
	if at.free >= 0 && i.NeedBytes > at.free {
		refuseMemory(&i, at, nil)
	}
	return i
}

// memoryItem plans a trainer. Activations that do not fit are computed again in
// the backward pass, which changes no bit of the result.
func memoryItem(m *run.Manifest, facts *modelFacts, at machine) (api.FitItem, train.Memory, error) {
	o := runner.TrainOptions(m, "")
	o.Sizes = at.sizes
	need, err := train.EstimateModel(facts.config, facts.weights, o)
	if err != nil {
		if errors.Is(err, model.ErrUnsupported) {
			err = api.Errorf(api.CodeModel, "%w", err)
		}
		return api.FitItem{}, need, err
	}
	again := ""
	if at.free >= 0 && need.Total()+spareMemory > at.free {
		if less, ok := squeezed(facts, o, at.free); ok {
			need = less
			again = "; all activations would take more, so that some are computed twice"
		}
	}
	i := api.FitItem{Name: "memory", HaveBytes: at.free, NeedBytes: need.Total() + spareMemory, Parts: memoryParts(m, &need, at)}
	i.Verdict = verdict(i.NeedBytes, i.HaveBytes)
	i.Text = fmt.Sprintf("training takes %s of memory (%s)", megabytes(i.NeedBytes), partsText(i.Parts))
	switch {
	case at.free < 0:
	case i.Verdict == api.VerdictExceeds:
		refuseMemory(&i, at, knobsThatFit(m, facts, at))
	default:
		i.Text += fmt.Sprintf(", %s are free%s", megabytes(at.free), again)
	}
	if again != "" && i.Verdict == api.VerdictFits {
		i.Verdict = api.VerdictTight
	}
	return i, need, nil
}

// squeezed is what training takes at least, if that fits.
func squeezed(facts *modelFacts, o train.Options, free int64) (train.Memory, bool) {
	o.ActivationBytes = 0
	all, err := train.EstimateModel(facts.config, facts.weights, o)
	if err != nil {
		return all, false
	}
	if all.Total()+spareMemory <= free {
		return all, true
	}
	if o.ActivationBytes = all.Activations - (all.Total() + spareMemory - free); o.ActivationBytes <= 0 {
		return all, false
	}
	less, err := train.EstimateModel(facts.config, facts.weights, o)
	return less, err == nil && less.Total()+spareMemory <= free
}

func refuseMemory(i *api.FitItem, at machine, ways []string) {
	i.Verdict, i.Code = api.VerdictExceeds, api.CodeRAM
	i.Text += fmt.Sprintf(", %s are free", megabytes(at.free))
	i.Way = "close other programs"
	if at.gpu {
		i.Code, i.Text = api.CodeVRAM, "on the GPU "+i.Text
		i.Way = "close other programs that use the GPU"
	}
	if len(ways) > 0 {
		i.Way += "; it would fit if the run had " + strings.Join(ways, ", or ")
	} else {
		i.Way += ", or choose a run with a smaller model, one in four bits (--quantize nf4), or shorter samples"
	}
}

// memoryParts tells what an estimate is made of.
func memoryParts(m *run.Manifest, need *train.Memory, at machine) []api.FitPart {
	values := int64(0)
	for _, t := range m.Tensors {
		values += 4 * int64(t.Rows) * int64(t.Cols)
	}
	what, trained := "adapter", values
	switch {
	case m.Mode == run.ModeFull:
		what = "parameters at the round's start"
	case at.sizes.Scratch == nil:
		trained = 2 * values // in the model, and in one piece
	}
	return []api.FitPart{
		{Name: "weights", Bytes: need.Weights},
		{Name: what, Bytes: trained},
		{Name: "gradients", Bytes: values},
		{Name: "optimizer", Bytes: need.Training - trained - values},
		{Name: "activations", Bytes: need.Activations},
		{Name: "single operations", Bytes: need.Scratch},
		{Name: "overhead", Bytes: spareMemory},
	}
}

// knobsThatFit are settings of a run file, each of which would make the run
// fit, the one that changes least first.
func knobsThatFit(m *run.Manifest, facts *modelFacts, at machine) []string {
	var ways []string
	try := func(text string, change func(m *run.Manifest), facts *modelFacts) {
		if len(ways) >= 2 {
			return
		}
		other := *m
		change(&other)
		o := runner.TrainOptions(&other, "")
		o.Sizes = at.sizes
		if need, ok := squeezed(facts, o, at.free); ok {
			ways = append(ways, fmt.Sprintf("%s (%s)", text, megabytes(need.Total()+spareMemory)))
		}
	}
	if m.Inner.Optimizer == run.OptimizerAdamW {
		try(`inner.optimizer = "adamw-8bit"`, func(m *run.Manifest) { m.Inner.Optimizer = run.OptimizerAdamW8bit }, facts)
	}
	for tokens := m.Inner.MaxTokens / 2; tokens >= train.DefaultMicroBatchTokens; tokens /= 2 {
		try(fmt.Sprintf("inner.sequence_tokens = %d", tokens), func(m *run.Manifest) { m.Inner.MaxTokens = tokens }, facts)
	}
	if four, ok := inFourBits(facts); ok && m.Mode == run.ModeLoRA {
		try("its model in four bits (moot model import --quantize nf4)", func(*run.Manifest) {}, four)
	}
	return ways
}

// inFourBits is the same model quantised, if it is not yet.
func inFourBits(facts *modelFacts) (*modelFacts, bool) {
	four := &modelFacts{facts.config, append([]model.Weight(nil), facts.weights...)}
	linear, changed := map[string]bool{}, false
	for _, l := range facts.config.Modules() {
		linear[l.Path+".weight"] = true
	}
	for i := range four.weights {
		if w := &four.weights[i]; linear[w.Name] && w.Kind != tensor.FourBits {
			w.Kind, changed = tensor.FourBits, true
		}
	}
	return four, changed
}
