package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/node/plain"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
	"github.com/moot-net/moot/shard/safetensors"
)

// maxPlaces bounds the places that a check names.
const maxPlaces = 5

// verifying is a check of an export under way.
type verifying struct {
	node     *node
	req      *api.VerifyAdapterRequest
	v        *api.AdapterCheck
	progress api.ProgressFunc

	dir    string  // of the files
	file   string  // of GGUF
	origin *origin // nil without
	base   string  // folder of the base model

	// What it must be equal to, if that is known.
	manifest *run.Manifest
	snapshot *runner.Snapshot
	live     *lora.Adapter
}

// VerifyAdapter implements api.Backend. What is wrong with the adapter is in the
// answer; errors are about what nothing can be said without.
func (n *node) VerifyAdapter(ctx context.Context, req api.VerifyAdapterRequest, progress api.ProgressFunc) (api.AdapterCheck, error) {
	x := &verifying{node: n, req: &req, v: &api.AdapterCheck{Path: req.Path, Checks: []api.Check{}}, progress: progress}
	if err := x.locate(); err != nil {
		return *x.v, err
	}
	if err := x.checkFiles(ctx); err != nil {
		return *x.v, err
	}
	if err := x.findRun(ctx); err != nil {
		return *x.v, err
	}
	if err := x.findBase(ctx); err != nil {
		return *x.v, err
	}
	release, err := n.takeCompute(ctx, progress)
	if err != nil {
		return *x.v, err
	}
	defer release()
	if err := x.checkBase(ctx); err != nil {
		return *x.v, err
	}
	if x.v.Format == api.ExportMerged {
		err = x.checkMerged(ctx)
	} else {
		err = x.checkAdapter(ctx)
	}
	if err != nil {
		return *x.v, fmt.Errorf("verify %s: %w", req.Path, err)
	}
	x.v.OK = !slices.ContainsFunc(x.v.Checks, func(c api.Check) bool { return c.Level == api.CheckFail })
	return *x.v, nil
}

func (x *verifying) ok(name, format string, args ...any) {
	x.v.Checks = append(x.v.Checks, api.Check{Name: name, Level: api.CheckOK, Text: fmt.Sprintf(format, args...)})
}

func (x *verifying) warn(name, fix, format string, args ...any) {
	x.v.Checks = append(x.v.Checks, api.Check{Name: name, Level: api.CheckWarn, Fix: fix, Text: fmt.Sprintf(format, args...)})
}

func (x *verifying) fail(name, fix, format string, args ...any) {
	x.v.Checks = append(x.v.Checks, api.Check{Name: name, Level: api.CheckFail, Fix: fix, Text: fmt.Sprintf(format, args...)})
}

// The ways out.
const (
	fixExport = "export it again"
	fixOrigin = "only an export of moot has one; say with --run and --round what it must be equal to"
)

// locate finds out what is there.
func (x *verifying) locate() error {
	st, err := os.Stat(x.req.Path)
	if err != nil {
		return api.Errorf(api.CodeNotFound, "verify: %w", err)
	}
	x.dir = x.req.Path
	if !st.IsDir() {
		x.dir = filepath.Dir(x.req.Path)
	}
	x.origin, err = readOrigin(x.dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.CodeNotFound, "verify: %w", err)
	case err != nil:
		x.fail("files", fixExport, "%s: %v", originFile, err)
	case x.origin != nil:
		x.v.Run, x.v.Round, x.v.Head, x.v.State = x.origin.Run, x.origin.Round, x.origin.Head, x.origin.State
	}
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(x.dir, name))
		return err == nil
	}
	gguf, _ := filepath.Glob(filepath.Join(x.dir, "*.gguf"))
	switch name := filepath.Base(x.req.Path); {
	case !st.IsDir() && strings.EqualFold(filepath.Ext(name), ".gguf"):
		x.v.Format, x.file = api.ExportGGUF, x.req.Path
		if o := x.origin; o != nil && !slices.ContainsFunc(o.Files, func(f api.ExportFile) bool { return f.Name == name }) {
			x.origin = nil // that of other files
			x.v.Run, x.v.Round, x.v.Head, x.v.State = "", 0, "", ""
			x.warn("files", fixOrigin, "%s says nothing of %s", originFile, plainText(name))
		}
	case !st.IsDir():
		return api.Errorf(api.CodeUsage, "%s is no folder and no GGUF file", x.req.Path).WithHint("give the folder that it is in")
	case x.origin != nil:
		if x.v.Format = x.origin.Format; x.v.Format == api.ExportGGUF {
			x.file = filepath.Join(x.dir, ggufFile)
		}
	case has(lora.ConfigFile) || has(lora.WeightsFile) || has(lora.LegacyFile):
		x.v.Format = api.ExportPEFT
	case len(gguf) == 1:
		x.v.Format, x.file = api.ExportGGUF, gguf[0]
	case has("config.json"):
		x.v.Format = api.ExportMerged
	default:
		return api.Errorf(api.CodeNotFound, "%s: there is no %s, no single GGUF file and no config.json", x.req.Path, lora.ConfigFile).
			WithHint("give the folder of an adapter or of a merged model, or a GGUF file")
	}
	return nil
}

// checkFiles compares bytes with what they were when they were exported.
func (x *verifying) checkFiles(ctx context.Context) error {
	if x.origin == nil {
		if len(x.v.Checks) == 0 {
			x.warn("files", fixOrigin, "there is no %s: whether bytes have changed since cannot be told by them alone", originFile)
		}
		return nil
	}
	x.progress(api.Progress{Phase: "files"})
	switch list, err := x.origin.differing(ctx, x.dir); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		x.fail("files", fixExport, "%v", err)
	case len(list) > 0:
		x.fail("files", fixExport, "%s", places(list))
	default:
		x.ok("files", "%s as when they were exported", plain.Plural(len(x.origin.Files), "file"))
	}
	return nil
}

// places joins what was found, the first of it.
func places(list []string) string {
	more := len(list) - maxPlaces
	if more > 0 {
		list = append(slices.Clone(list[:maxPlaces]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, "; ")
}

func placesOf(list []lora.Difference) string {
	texts := make([]string, len(list))
	for i, d := range list {
		texts[i] = d.String()
	}
	return places(texts)
}

// findRun finds the state that it must be equal to.
func (x *verifying) findRun(ctx context.Context) error {
	given := x.req.Run != "" || x.req.Snapshot != ""
	switch {
	case x.req.Snapshot != "":
		s, err := x.node.openSnapshot(ctx, x.req.Snapshot, x.progress)
		if err != nil {
			return err
		}
		x.manifest, x.snapshot = s.manifest, &s.Snapshot
	case x.req.Run == "" && (x.origin == nil || x.origin.Run == ""):
		x.warn("run", fixOrigin, "not compared with a run: nothing says which it is from")
		return nil
	default:
		id, head := x.req.Run, cid.Undef
		if o := x.origin; o != nil && x.req.Round == nil && (id == "" || id == o.Run) {
			h, err := cid.Decode(o.Head)
			if err != nil {
				x.fail("run", fixExport, "%s names the record %.80q, which is no CID", originFile, o.Head)
				return nil
			}
			id, head = o.Run, h
		}
		p, err := x.node.runs.opened(id)
		var s runner.Snapshot
		if err == nil {
			x.progress(api.Progress{Phase: "state"})
			s, err = p.StateAt(ctx, x.req.Round, head)
		}
		if err != nil && (given || ctx.Err() != nil) {
			return err
		}
		if err != nil {
			x.warn("run", "join the run, or give --snapshot", "not compared with run %s: %v", api.ShortID(id), err)
			return nil
		}
		x.manifest, x.snapshot = p.Manifest(), &s
	}
	id, err := x.manifest.ID()
	if err != nil {
		return err
	}
	if o := x.origin; o != nil && o.State != "" && (o.State != x.snapshot.ID.String() || o.Run != id.String()) {
		x.fail("run", fixExport, "it is from state %s of run %s, not from %s, that of round %d of run %s",
			o.State, api.ShortID(o.Run), x.snapshot.ID, x.snapshot.Round, api.ShortID(id.String()))
	}
	return nil
}

// findBase finds the base model, and says which it must be.
func (x *verifying) findBase(ctx context.Context) error {
	name := x.req.Model
	if name == "" {
		name = x.baseName()
	}
	if name == "" {
		return api.Errorf(api.CodeUsage, "verify %s: nothing says here for which base model it is", x.req.Path).
			WithHint("name it, with --model; \"moot model list\" has those that are here")
	}
	src, err := x.node.locate(ctx, &api.Subject{Model: name})
	if err != nil {
		if x.req.Model != "" {
			return err
		}
		hint := "import it, or name a folder that has it, with --model"
		if _, e := cid.Decode(name); e == nil { // what else an origin says is no part of a command
			hint = "get it with \"moot shard pull " + name + "\", " + hint
		}
		return api.Errorf(api.CodeNotFound, "verify %s: its base model %s is not here: %w", x.req.Path, api.ShortID(name), err).WithHint("%s", hint)
	}
	x.base, x.v.Model = src.dir, src.name
	return nil
}

// baseName is the base model that it says it is for: a CID, or "".
func (x *verifying) baseName() string {
	switch {
	case x.manifest != nil:
		return x.manifest.Model.String()
	case x.origin != nil && x.origin.Model != "":
		return x.origin.Model
	case x.v.Format != api.ExportPEFT:
		return ""
	}
	name := x.peftBase()
	if _, err := cid.Decode(name); err == nil {
		return name
	}
	for _, m := range x.node.models.list() {
		if name != "" && (hubName(m.Source) == name || m.Name == name) {
			return m.ID
		}
	}
	return ""
}

// peftBase is what a PEFT folder calls its base model.
func (x *verifying) peftBase() string {
	b, err := os.ReadFile(filepath.Join(x.dir, lora.ConfigFile))
	if err != nil {
		return ""
	}
	return lora.BaseOf(b)
}

// checkBase says whether the base model is the one that it was trained on.
func (x *verifying) checkBase(ctx context.Context) error {
	want := x.baseName()
	switch {
	case want == "" || want == x.v.Model && x.req.Model == "":
		x.ok("base", "%s", x.v.Model)
		return nil
	case want == x.v.Model:
		x.ok("base", "%s is the one that it was trained on", x.v.Model)
		return nil
	case !filepath.IsAbs(x.v.Model):
		x.fail("base", "", "it was trained on %s, not on %s", want, x.v.Model)
		return nil
	}
	root, err := cid.Decode(want)
	if err != nil {
		x.fail("base", fixExport, "%s names the base model %.80q, which is no CID", originFile, want)
		return nil
	}
	dir := ""
	if x.node.store.Place(root).Complete {
		dir, err = x.node.modelDir(ctx, root)
	}
	if dir == "" || err != nil {
		return x.checkBaseCID(ctx, root)
	}
	x.progress(api.Progress{Phase: "base"})
	d, err := lora.LookAtMerged(ctx, dir, x.base)
	if err != nil {
		return modelError(err)
	}
	if n := len(d.Changed) + len(d.Wrong); n > 0 {
		x.fail("base", "", "it was trained on %s; of %s %d tensors are others, the first is %s", want, x.v.Model, n, placesOf(append(d.Wrong, named(d.Changed)...)[:1]))
		return nil
	}
	x.ok("base", "%s has the weights of %s", x.v.Model, want)
	return nil
}

// checkBaseCID says whether a folder is that of a CID which is not here. One that
// is not may have the same weights nevertheless, beside other files.
func (x *verifying) checkBaseCID(ctx context.Context, want cid.Cid) error {
	got, err := x.node.folderCID(ctx, x.base, bytesOf("base", x.progress))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		x.warn("base", "get it with \"moot shard pull "+want.String()+"\"", "it was trained on %s, which is not here to compare with; %s: %v", want, x.v.Model, err)
	case got.Equals(want):
		x.ok("base", "%s is %s", x.v.Model, want)
	default:
		x.warn("base", "get the right one with \"moot shard pull "+want.String()+"\"",
			"it was trained on %s, which is not here to compare with; %s is %s: its weights are others, or files beside them", want, x.v.Model, got)
	}
	return nil
}

// folderCID is the CID that the folder of a model would be imported as. Nothing is
// kept.
func (n *node) folderCID(ctx context.Context, dir string, progress func(done, total int64)) (cid.Cid, error) {
	temp, err := os.MkdirTemp(n.dir, importTemp)
	if err != nil {
		return cid.Undef, err
	}
	defer os.RemoveAll(temp)
	s, err := shard.Open(filepath.Join(temp, "store"))
	if err != nil {
		return cid.Undef, err
	}
	defer func() { _ = s.Close() }() // nothing of it is kept
	i, err := s.ImportDir(ctx, dir, shard.ImportOptions{InPlace: true, FollowLinks: true, Progress: progress})
	return i.Root, err
}

func named(tensors []string) []lora.Difference {
	var list []lora.Difference
	for _, t := range tensors {
		list = append(list, lora.Difference{Tensor: t, What: "has other values"})
	}
	return list
}

// makeLive makes the adapter of the run.
func (x *verifying) makeLive() (err error) {
	if x.manifest == nil || x.live != nil {
		return nil
	}
	if x.manifest.Mode != run.ModeFull {
		x.live, err = adapterOf(x.manifest, x.snapshot.State, modulesOf(x.manifest))
		return err
	}
	base, err := model.Load(x.base, model.Options{Threads: x.node.threads})
	if err != nil {
		return modelError(err)
	}
	x.live, err = wholeOf(x.manifest, x.snapshot.State, base)
	return err
}

// checkAdapter checks a PEFT folder or a GGUF file.
func (x *verifying) checkAdapter(ctx context.Context) error {
	cfg, err := model.ReadConfig(x.base)
	if err != nil {
		return modelError(err)
	}
	if err := x.makeLive(); err != nil {
		return err
	}
	x.progress(api.Progress{Phase: "tensors"})
	var (
		a       *lora.Adapter
		modules = train.Modules(cfg)
		gguf    lora.GGUFBase
	)
	if x.v.Format == api.ExportPEFT {
		a, err = lora.ReadAny(x.dir, modules)
	} else if gguf, err = lora.ReadGGUFBase(x.base); err == nil {
		a, err = readGGUFFile(x.file, gguf, modules)
	}
	if err != nil {
		x.fail("tensors", fixExport, "%v", err)
		return nil
	}
	x.v.Layers, x.v.Parameters = len(a.Parts()), int64(len(a.Values()))
	x.sayTensors(a)
	if err := x.compareLive(a, gguf, modules); err != nil {
		return err
	}
	x.progress(api.Progress{Phase: "test"})
	test, err := checkAdapter(ctx, x.base, a, x.node.threads, exactTolerance, func(model.Config) (*lora.Adapter, error) { return a, nil })
	return x.sayEffect(test, err)
}

func readGGUFFile(path string, base lora.GGUFBase, modules []lora.Module) (*lora.Adapter, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > lora.MaxGGUFBytes {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, st.Size(), int64(lora.MaxGGUFBytes))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return lora.ReadGGUF(b, base, modules)
}

// sayTensors tells what was read, and of layers that seem to be missing.
func (x *verifying) sayTensors(a *lora.Adapter) {
	first := a.Parts()[0]
	text := fmt.Sprintf("%d layers are adapted, %s with rank %d and scaled by %g, %d values, all finite", x.v.Layers, first.Path, first.Rank, first.Scale, x.v.Parameters)
	if gaps := lora.Gaps(a); len(gaps) > 0 && x.live == nil {
		x.warn("tensors", fixOrigin, "%s; %s", text, places(gaps))
		return
	}
	x.ok("tensors", "%s", text)
}

// compareLive compares an adapter with that of the run.
func (x *verifying) compareLive(a *lora.Adapter, gguf lora.GGUFBase, modules []lora.Module) error {
	if x.live == nil {
		return nil
	}
	want := []*lora.Adapter{x.live}
	if x.v.Format == api.ExportGGUF {
		want = nil
		for _, dtype := range []safetensors.DType{safetensors.F32, safetensors.F16} {
			w, err := x.live.AsGGUF(gguf, modules, dtype)
			if err != nil && !errors.Is(err, lora.ErrNotFinite) { // rounded to F16
				return err
			}
			if err == nil {
				want = append(want, w)
			}
		}
	}
	var least []lora.Difference
	for i, w := range want {
		if list := a.Differences(w); i == 0 || len(list) < len(least) {
			least = list
		}
	}
	x.sayLive(least)
	return nil
}

func (x *verifying) sayLive(list []lora.Difference) {
	what := fmt.Sprintf("round %d", x.snapshot.Round)
	if len(list) > 0 {
		x.fail("run", fixExport, "it is not the adapter after %s, %d things differ: %s", what, len(list), placesOf(list))
		return
	}
	x.ok("run", "it is the adapter after %s, bit by bit (state %s)", what, x.snapshot.ID)
}

// sayEffect tells what it changes of the base model.
func (x *verifying) sayEffect(test *api.ExportTest, err error) error {
	x.v.Test = test
	switch {
	case err != nil && api.AsError(err).Code == api.CodeVerify:
		x.fail("effect", fixExport, "%v", err)
	case err != nil:
		return err
	case test.Effect == 0:
		x.fail("effect", "export a round after which the run had trained", "it changes nothing: with it the base model gives the logits that it gives alone")
	default:
		x.ok("effect", "it changes the logits of the base model by %.2g of their spread", test.Effect)
	}
	return nil
}

// checkMerged checks a merged model.
func (x *verifying) checkMerged(ctx context.Context) error {
	x.progress(api.Progress{Phase: "tensors"})
	if _, err := model.ReadConfig(x.dir); err != nil {
		x.fail("tensors", fixExport, "%v", err)
		return nil
	}
	d, err := lora.LookAtMerged(ctx, x.base, x.dir)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		x.fail("tensors", fixExport, "%v", err)
		return nil
	case len(d.Wrong) > 0:
		x.fail("tensors", fixExport, "%d of %d: %s", len(d.Wrong), d.Tensors, placesOf(d.Wrong))
		return nil
	}
	text := fmt.Sprintf("%d tensors, all finite; %d differ from those of the base model", d.Tensors, len(d.Changed))
	full := x.manifest != nil && x.manifest.Mode == run.ModeFull || x.origin != nil && x.origin.Mode == run.ModeFull.String()
	nf4, err := x.mergedNF4()
	if err != nil {
		x.fail("tensors", fixExport, "%v", err)
		return nil
	}
	if len(d.Foreign) > 0 && !full {
		x.warn("tensors", "see whether the base model is the one that it was made from", "%s, among them %s, which no low rank changes", text, places(d.Foreign))
	} else {
		x.ok("tensors", "%s", text)
	}
	if err := x.makeLive(); err != nil {
		return err
	}
	if x.live != nil {
		list, err := x.live.CompareMerged(ctx, x.base, x.dir, lora.MergeOptions{NF4: nf4})
		if err != nil {
			return err
		}
		x.sayLive(list)
	}
	x.progress(api.Progress{Phase: "test"})
	test, err := x.mergedEffect(ctx)
	return x.sayEffect(test, err)
}

// mergedNF4 reports whether it was merged into weights of four bits.
func (x *verifying) mergedNF4() (bool, error) {
	if x.origin != nil {
		return x.origin.MergedInto == api.QuantizeNF4, nil
	}
	names, err := filepath.Glob(filepath.Join(x.dir, "*.safetensors"))
	if err != nil || len(names) == 0 {
		return false, err
	}
	f, err := safetensors.Open(names[0])
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // it was read only
	return f.Header().Metadata["merged_into"] == api.QuantizeNF4, nil
}

// mergedEffect compares the logits of a merged model with those of its base.
func (x *verifying) mergedEffect(ctx context.Context) (*api.ExportTest, error) {
	var ids []int32
	logits := func(dir string) ([]float32, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, err := model.Load(dir, model.Options{Threads: x.node.threads})
		if err != nil {
			return nil, modelError(err)
		}
		if ids == nil {
			ids = probe(m.Config())
		}
		var b model.Batch
		if err := b.Add(ids, nil); err != nil {
			return nil, err
		}
		l, err := m.Logits(&b)
		return slices.Clone(l), err
	}
	alone, err := logits(x.base)
	if err != nil {
		return nil, err
	}
	merged, err := logits(x.dir)
	if err != nil {
		if errors.Is(err, checkpoint.ErrFormat) || errors.Is(err, model.ErrUnsupported) {
			return nil, api.Errorf(api.CodeVerify, "%w", err)
		}
		return nil, err
	}
	return compareLogits(alone, merged, merged, exactTolerance)
}
