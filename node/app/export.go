package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
	"github.com/moot-net/moot/shard/safetensors"
)

// ggufFile is the file of an export for llama.cpp.
const ggufFile = "adapter.gguf"

// Export implements api.Backend. The bytes of the adapter depend on the state and
// the manifest alone, so that everybody who exports a round has the same; what the
// base model is called beside them also on where this node has it from.
func (n *node) Export(ctx context.Context, req api.ExportRequest, progress api.ProgressFunc) (api.Export, error) {
	switch {
	case req.Snapshot != "":
		return n.exportSnapshot(ctx, req, progress)
	case req.Run == "":
		return n.exportFolder(ctx, req, progress)
	}
	head := cid.Undef
	if req.Head != "" {
		var err error
		if head, err = parseID("record", req.Head); err != nil {
			return api.Export{}, err
		}
	}
	// Before the state is pulled, which may take long.
	if err := checkTarget(req.Dir, req.Overwrite); err != nil {
		return api.Export{}, err
	}
	p, err := n.runs.opened(req.Run)
	if err != nil {
		return api.Export{}, err
	}
	if req.Best {
		if req.Round, err = bestRound(p); err != nil {
			return api.Export{}, err
		}
	}
	progress(api.Progress{Phase: "state"})
	snapshot, err := p.StateAt(ctx, req.Round, head)
	if err != nil {
		return api.Export{}, err
	}
	rounds, err := roundsUntil(p, snapshot.Round)
	if err != nil {
		return api.Export{}, err
	}
	return n.exportState(ctx, req, req.Run, p.Manifest(), snapshot, rounds, progress)
}

// exportSnapshot writes what a snapshot holds; its run need not be known here.
func (n *node) exportSnapshot(ctx context.Context, req api.ExportRequest, progress api.ProgressFunc) (api.Export, error) {
	if err := checkTarget(req.Dir, req.Overwrite); err != nil {
		return api.Export{}, err
	}
	s, err := n.openSnapshot(ctx, req.Snapshot, progress)
	if err != nil {
		return api.Export{}, err
	}
	e, err := n.exportState(ctx, req, s.id, s.manifest, s.Snapshot, s.history(), progress)
	if err == nil && s.votes == 0 {
		e.Warnings = append(e.Warnings, "its record is provisional: no quorum has voted for it")
	}
	return e, err
}

// exportState writes a state of a run.
func (n *node) exportState(ctx context.Context, req api.ExportRequest, id string, m *run.Manifest, snapshot runner.Snapshot, rounds []api.Round, progress api.ProgressFunc) (api.Export, error) {
	e := api.Export{
		Run: id, Model: m.Model.String(), Round: snapshot.Round, Head: snapshot.Head.String(), State: snapshot.ID.String(),
		Snapshot: req.Snapshot, Dir: req.Dir, Format: req.Format,
	}
	if e.Format == "" {
		e.Format = api.ExportPEFT
		if m.Mode == run.ModeFull {
			e.Format = api.ExportMerged
		}
	}
	if m.Mode == run.ModeFull && e.Format != api.ExportMerged {
		return api.Export{}, api.Errorf(api.CodeUsage, "export run %s as %s: it trains all parameters of the model, there is no adapter", id, e.Format).
			WithHint("export the whole model, with --format merged")
	}
	data, err := shard.OpenDataset(ctx, n.store, m.Dataset)
	if err != nil {
		data = nil // it is not here; the card then has its name alone
	}
	hub := n.hubOf(m)
	facts := cardFacts{id: id, manifest: m, hub: hub, rounds: rounds, data: data, dtype: req.DType}
	x := &export{node: n, req: &req, manifest: m, hub: hub, card: func(e *api.Export) string { return modelCard(facts, e) }, progress: progress}
	if x.base, err = n.modelDir(ctx, m.Model); err != nil {
		if e.Format != api.ExportPEFT {
			return api.Export{}, err
		}
		x.base = "" // then the adapter is written and not tested
	}
	if untrained(m, snapshot.State) {
		e.Warnings = append(e.Warnings, "it changes nothing yet: the run has not trained before this round")
	}
	release, err := n.takeCompute(ctx, progress)
	if err != nil {
		return api.Export{}, err
	}
	defer release()
	if x.a, err = x.trained(m, snapshot.State); err == nil {
		err = x.write(ctx, &e)
	}
	if err != nil {
		return api.Export{}, exportError("run "+id, err)
	}
	return e, nil
}

// exportFolder writes an adapter that was trained anywhere.
func (n *node) exportFolder(ctx context.Context, req api.ExportRequest, progress api.ProgressFunc) (api.Export, error) {
	if err := checkTarget(req.Dir, req.Overwrite); err != nil {
		return api.Export{}, err
	}
	src, err := n.locate(ctx, &api.Subject{Model: req.Model})
	if err != nil {
		return api.Export{}, err
	}
	e := api.Export{Adapter: req.Adapter, Model: src.name, Dir: req.Dir, Format: orElse(req.Format, api.ExportPEFT)}
	x := &export{node: n, req: &req, base: src.dir, card: folderCard, progress: progress}
	cfg, err := model.ReadConfig(src.dir)
	if err != nil {
		return api.Export{}, modelError(err)
	}
	if x.a, err = lora.ReadAny(req.Adapter, train.Modules(cfg)); err != nil {
		return api.Export{}, modelError(err)
	}
	release, err := n.takeCompute(ctx, progress)
	if err != nil {
		return api.Export{}, err
	}
	defer release()
	if err := x.write(ctx, &e); err != nil {
		return api.Export{}, exportError("adapter "+req.Adapter, err)
	}
	return e, nil
}

// trained makes what the run has trained: an adapter, for which the base model
// need not be here, or all parameters.
func (x *export) trained(m *run.Manifest, state *fold.State) (*lora.Adapter, error) {
	if m.Mode != run.ModeFull {
		return adapterOf(m, state, modulesOf(m))
	}
	base, err := model.Load(x.base, model.Options{Threads: x.node.threads})
	if err != nil {
		return nil, err
	}
	return wholeOf(m, state, base)
}

// untrained reports whether a state is as it was before the first step: each B
// is zero, or all.
func untrained(m *run.Manifest, state *fold.State) bool {
	for i := range state.Layout.Len() {
		t := state.Layout.Tensor(i)
		if _, isA := lora.ModuleOf(t.Name); isA && m.Mode == run.ModeLoRA {
			continue
		}
		if slices.ContainsFunc(state.Theta[state.Layout.Offset(i):][:t.Rows*t.Cols], func(v int32) bool { return v != 0 }) {
			return false
		}
	}
	return true
}

// exportError gives an error of an export its code.
func exportError(what string, err error) error {
	err = fmt.Errorf("export %s: %w", what, err)
	switch {
	case errors.As(err, new(*api.Error)):
		return err
	case errors.Is(err, train.ErrMerge) || errors.Is(err, lora.ErrNotFinite):
		return api.Errorf(api.CodeVerify, "%w", err)
	case errors.Is(err, lora.ErrUnsupported):
		return api.Errorf(api.CodeModel, "%w", err).WithHint("merge the adapter instead, with --format merged")
	case errors.Is(err, checkpoint.ErrUnsupported) || errors.Is(err, checkpoint.ErrFormat) || errors.Is(err, model.ErrUnsupported):
		return api.Errorf(api.CodeModel, "%w", err)
	case isDiskFull(err):
		return api.Errorf(api.CodeDisk, "%w", err)
	}
	return err
}

// bestRound is the round with the lowest loss on held-out rows, recorded or
// measured by this node, the first of equal ones.
func bestRound(p participant) (*uint64, error) {
	rounds, err := roundsUntil(p, math.MaxUint64)
	if err != nil {
		return nil, err
	}
	var best *api.Round
	for i := range rounds {
		if r := &rounds[i]; r.EvalLoss != nil && !math.IsNaN(*r.EvalLoss) && (best == nil || *r.EvalLoss < *best.EvalLoss) {
			best = r
		}
	}
	if best == nil {
		return nil, api.Errorf(api.CodeNotFound, "no round is the best: none was measured on held-out rows").
			WithHint("give the round, with --round; \"moot run show\" lists them")
	}
	return &best.Round, nil
}

// roundsUntil lists the rounds of a run up to one.
func roundsUntil(p participant, last uint64) ([]api.Round, error) {
	var all []api.Round
	for from := uint64(1); from <= last; {
		page, err := p.Rounds(from, api.MaxRoundsPerPage)
		if err != nil {
			return nil, err
		}
		for _, r := range page {
			if r.Round <= last {
				all = append(all, r)
			}
		}
		if len(page) == 0 {
			break
		}
		from = page[len(page)-1].Round + 1
	}
	return all, nil
}

// export is an export under way.
type export struct {
	node     *node
	req      *api.ExportRequest
	a        *lora.Adapter
	base     string // folder of the base model, "" when it is not here
	hub      string // its name at the hub, "" when it was not imported from there
	card     func(*api.Export) string
	manifest *run.Manifest // of the run, or nil
	progress api.ProgressFunc
}

// write writes the folder, tests it, and puts it in its place. What was there
// before stays until the new files are complete; files that are none of an
// export stay.
func (x *export) write(ctx context.Context, e *api.Export) error {
	dir := x.req.Dir
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	clearKilled(dir, time.Now())
	temp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+tempInfix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	x.progress(api.Progress{Phase: "write"})
	switch e.Format {
	case api.ExportMerged:
		err = x.merged(ctx, temp, e)
	case api.ExportGGUF:
		err = x.gguf(ctx, temp, e)
	default:
		err = x.peft(ctx, temp, e)
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, cardFile), []byte(x.card(e)), 0o644); err != nil {
		return err
	}
	names, err := exportedFiles(temp)
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := sealFile(filepath.Join(temp, name))
		if err != nil {
			return err
		}
		e.Files = append(e.Files, f)
	}
	o, err := x.writeOrigin(temp, e)
	if err != nil {
		return err
	}
	last := len(names) - 1
	names, e.Files = slices.Insert(names, last, originFile), slices.Insert(e.Files, last, o)
	if err := os.Chmod(temp, 0o755); err != nil { // MkdirTemp lets only us in
		return err
	}
	return moveExport(temp, dir, names)
}

// writeOrigin says in a file where the others are from.
func (x *export) writeOrigin(dir string, e *api.Export) (api.ExportFile, error) {
	o := origin{
		Schema: originSchema, Format: e.Format, Run: e.Run, Round: e.Round, Head: e.Head, State: e.State, MergedInto: e.MergedInto,
		Files: slices.DeleteFunc(slices.Clone(e.Files), func(f api.ExportFile) bool { return f.Name == cardFile }),
	}
	if !filepath.IsAbs(e.Model) { // which would tell where somebody has it
		o.Model = e.Model
	}
	if x.manifest != nil {
		o.Mode, o.Dataset = x.manifest.Mode.String(), x.manifest.Dataset.String()
	}
	b, err := o.encode()
	if err != nil {
		return api.ExportFile{}, err
	}
	path := filepath.Join(dir, originFile)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return api.ExportFile{}, err
	}
	return sealFile(path)
}

// killedAge is how old what another export to the same folder left must be until
// it is taken for that of one that was killed.
const killedAge = time.Hour

// clearKilled takes away what exports to dir left that were killed. It does what
// it can.
func clearKilled(dir string, now time.Time) {
	list, _ := os.ReadDir(filepath.Dir(dir))
	for _, f := range list {
		rest, ok := strings.CutPrefix(f.Name(), filepath.Base(dir)+tempInfix)
		if !ok || rest == "" || strings.Trim(rest, "0123456789") != "" || !f.IsDir() {
			continue
		}
		if info, err := f.Info(); err == nil && now.Sub(info.ModTime()) > killedAge {
			_ = os.RemoveAll(filepath.Join(filepath.Dir(dir), f.Name()))
		}
	}
}

// exportedFiles lists the files of an export, the one that makes it usable
// last.
func exportedFiles(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names, last []string
	for _, f := range list {
		if n := f.Name(); n == lora.ConfigFile || n == "config.json" || n == ggufFile {
			last = append(last, n)
		} else {
			names = append(names, n)
		}
	}
	return append(names, last...), nil
}

func (x *export) peft(ctx context.Context, dir string, e *api.Export) (err error) {
	// Of a base model that is from the hub, PEFT knows the name. Others have one name
	// that is the same everywhere, their CID.
	if err := x.a.Write(dir, orElse(x.hub, e.Model)); err != nil {
		return err
	}
	if x.base == "" {
		e.Warnings = append(e.Warnings, "it was not tested: the base model is not here")
		return nil
	}
	x.progress(api.Progress{Phase: "test"})
	e.Test, err = checkAdapter(ctx, x.base, x.a, x.node.threads, exactTolerance, func(c model.Config) (*lora.Adapter, error) {
		return lora.ReadAny(dir, train.Modules(c))
	})
	return err
}

func (x *export) gguf(ctx context.Context, dir string, e *api.Export) error {
	base, err := lora.ReadGGUFBase(x.base)
	if err != nil {
		return err
	}
	base.Name = e.Model
	dtype, tolerance, valueTolerance := safetensors.F32, exactTolerance, 1e-6
	if x.req.DType == "f16" {
		dtype, tolerance, valueTolerance = safetensors.F16, f16Tolerance, 1e-3
	}
	path := filepath.Join(dir, ggufFile)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := x.a.WriteGGUF(f, base, dtype); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	x.progress(api.Progress{Phase: "test"})
	e.Test, err = checkAdapter(ctx, x.base, x.a, x.node.threads, tolerance, func(c model.Config) (*lora.Adapter, error) {
		return readGGUF(path, base, train.Modules(c), x.a, valueTolerance)
	})
	return err
}

func (x *export) merged(ctx context.Context, dir string, e *api.Export) error {
	cfg, err := checkpoint.ReadConfig(x.base)
	if err != nil {
		return err
	}
	q := cfg["quantization_config"]
	quantised := len(q) > 0 && string(q) != "null"
	if quantised && !x.req.NF4 {
		return api.Errorf(api.CodeUsage, "the base model is stored in four bits: merged weights have the error of the quantisation").
			WithHint("give --nf4 to have them so, or export as peft and merge into the 16-bit model")
	}
	size, err := folderBytes(x.base)
	if err == nil {
		err = x.node.checkSpace(size)
	}
	if err != nil {
		return err
	}
	if e.MergedInto = "weights"; x.req.NF4 {
		e.MergedInto = api.QuantizeNF4
	}
	o := lora.MergeOptions{NF4: x.req.NF4, Progress: bytesOf("merge", x.progress)}
	if err := x.a.MergeFolder(ctx, x.base, dir, o); err != nil {
		return err
	}
	// What was the base model's card is not that of the merged model.
	card := filepath.Join(dir, cardFile)
	if err := os.Rename(card, filepath.Join(dir, "README.base.md")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	against := x.base
	if x.req.NF4 && !quantised { // what it was merged into
		temp, err := os.MkdirTemp(x.node.dir, importTemp)
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		against = filepath.Join(temp, "model")
		if err := checkpoint.Quantize(ctx, x.base, against, checkpoint.QuantizeOptions{}, bytesOf("quantise", x.progress)); err != nil {
			return err
		}
	}
	x.progress(api.Progress{Phase: "test"})
	r, err := train.CheckMerged(ctx, train.MergeCheck{BaseDir: against, Adapter: x.a, MergedDir: dir, Threads: x.node.threads})
	if err != nil {
		return err
	}
	e.Test = &api.ExportTest{Difference: r.Difference, Effect: r.Effect, Tolerance: r.Tolerance}
	return nil
}

// modulesOf are the layers that a run adapts, as its tensors tell.
func modulesOf(m *run.Manifest) []lora.Module {
	var modules []lora.Module
	for i := 0; i+1 < len(m.Tensors); i += 2 { // A and B of one module
		a, b := m.Tensors[i], m.Tensors[i+1]
		path, _ := lora.ModuleOf(a.Name)
		modules = append(modules, lora.Module{Path: path, In: int(a.Cols), Out: int(b.Rows), Transposed: model.TransposedPath(path)})
	}
	return modules
}

// checkTarget reports why an export must not go to dir.
func checkTarget(dir string, overwrite bool) error {
	list, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return api.Errorf(api.CodeConflict, "%s is not a folder that can be written: %w", dir, err)
	case len(list) > 0 && !overwrite:
		return api.Errorf(api.CodeConflict, "%s is not empty", dir).WithHint("choose another folder, or give --overwrite")
	}
	return nil
}

// sealFile syncs a file and describes it.
func sealFile(path string) (api.ExportFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return api.ExportFile{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := f.WriteTo(h)
	if err == nil {
		err = f.Sync()
	}
	return api.ExportFile{Name: filepath.Base(path), Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

// moveExport puts a complete folder in the place of dir.
func moveExport(temp, dir string, names []string) error {
	list, err := os.ReadDir(dir)
	if err == nil && len(list) == 0 {
		err = os.Remove(dir) // Windows renames onto nothing that is there
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(list) == 0 {
		if err := os.Rename(temp, dir); err != nil {
			return err
		}
		return syncDir(filepath.Dir(dir))
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(temp, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return syncDir(dir)
}
