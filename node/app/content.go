package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/shard"
)

// ImportModel implements api.Backend.
func (n *node) ImportModel(ctx context.Context, req api.ImportModelRequest, progress api.ProgressFunc) (api.Model, error) {
	if err := checkSource(req.Source); err != nil {
		return api.Model{}, err
	}
	made, err := n.rewriteModel(ctx, req, progress)
	if err != nil {
		return api.Model{}, importError(ctx, api.CodeModel, fmt.Errorf("import model: %w", err))
	}
	defer made.remove()
	opts := shard.ImportOptions{InPlace: true, FollowLinks: req.FollowLinks, Progress: bytesOf("import", progress)}
	if made.temp != "" {
		opts.TakeTo = n.modelPath
	}
	m, err := n.store.ImportModel(ctx, made.dir, opts)
	if err != nil {
		return api.Model{}, importError(ctx, api.CodeModel, err)
	}
	name := filepath.Base(req.Dir) + made.suffix
	if err := n.store.Keep(m.Root, modelKind, name, time.Now()); err != nil {
		return api.Model{}, fmt.Errorf("import model: %w", err)
	}
	dir, err := n.modelDir(ctx, m.Root)
	if err != nil {
		return api.Model{}, err
	}
	entry := modelEntry(&m, name)
	entry.Source = orElse(req.Source, hubSource(req.Dir))
	entry.Warnings = append(entry.Warnings, made.warnings...)
	describe(&entry, dir)
	if err := n.models.put(entry); err != nil {
		return api.Model{}, fmt.Errorf("import model: %w", err)
	}
	n.log.InfoContext(ctx, "model imported", "component", "node", "model", entry.ID, "bytes", m.Bytes, "dir", dir)
	return n.placed(entry), n.host.Provide(ctx, m.Root)
}

// placed adds where a model lies.
func (n *node) placed(m api.Model) api.Model {
	if c, err := cid.Decode(m.ID); err == nil {
		p := n.store.Place(c)
		m.Dir, m.InPlace = p.Dir, p.Dir != "" && !p.Ours
	}
	return m
}

func modelEntry(m *shard.Model, name string) api.Model {
	return api.Model{
		ID: m.Root.String(), Name: name, Type: m.Type, Architectures: m.Architectures, Parameters: m.Parameters,
		Bytes: m.Bytes, Files: m.Files, Blocks: m.Blocks, Licence: m.Licence, Imported: time.Now().UTC(), Warnings: m.Warnings,
	}
}

// describe adds what this version knows of a model. Of weights in four bits the
// files tell how many numbers are stored, of which each is several parameters.
func describe(m *api.Model, dir string) {
	if m.Trainable, m.Why = trainable(dir); !m.Trainable {
		return
	}
	if c, err := model.ReadConfig(dir); err == nil {
		m.Parameters = int64(c.Params())
	}
}

// trainable says whether this version can train the model in dir, and if not,
// why not.
func trainable(dir string) (bool, string) {
	if _, err := model.ReadConfig(dir); err != nil {
		return false, err.Error()
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		return false, err.Error()
	}
	if tok.EOS() < 0 {
		return false, "its tokenizer names no eos_token, so an answer could not end"
	}
	return true, ""
}

// ImportDataset implements api.Backend.
func (n *node) ImportDataset(ctx context.Context, req api.ImportDatasetRequest, progress api.ProgressFunc) (api.Dataset, error) {
	d, err := n.store.ImportDataset(ctx, shard.DatasetOptions{
		Files: req.Files, Format: req.Format, Fields: req.Fields, EvalFile: req.EvalFile, EvalFraction: req.EvalFraction, Seed: req.Seed, Shuffle: req.Shuffle,
		ShardBytes: req.ShardBytes, DropInvalid: req.DropInvalid, Licence: req.Licence, Source: req.Source, Template: req.Template,
		Progress: bytesOf("import", progress),
	})
	if err != nil {
		return api.Dataset{}, importError(ctx, api.CodeData, err)
	}
	name := filepath.Base(req.Files[0])
	entry := datasetEntry(d.Root, &d.Index, d.Bytes, strings.TrimSuffix(name, filepath.Ext(name)))
	entry.Detected = fmt.Sprintf("%s (%s)", d.Detected.Input, d.Detected.Why)
	entry.DroppedRows, entry.Warnings = int64(d.Dropped), d.Warnings
	for _, r := range d.Rejected {
		entry.Rejected = append(entry.Rejected, api.RowProblem{Place: r.Place, Kind: "invalid", Why: r.Why})
	}
	err = n.store.Keep(d.Root, dataKind, entry.Name, time.Now())
	if err == nil {
		err = n.datasets.put(entry)
	}
	if err != nil {
		return api.Dataset{}, fmt.Errorf("import data: %w", err)
	}
	n.log.InfoContext(ctx, "data set imported", "component", "node", "dataset", entry.ID, "rows", entry.TrainRows)
	return entry, n.host.Provide(ctx, d.Root)
}

func datasetEntry(root cid.Cid, x *shard.DatasetIndex, size int64, name string) api.Dataset {
	return api.Dataset{
		ID: root.String(), Name: name, Format: x.Format, Template: x.Template, TrainRows: x.Train.Rows, EvalRows: x.Eval.Rows,
		TrainShards: len(x.Train.Shards), EvalShards: len(x.Eval.Shards), Shuffled: x.Shuffled, Bytes: size,
		Licence: x.Licence, Source: x.Source, Imported: time.Now().UTC(),
	}
}

// Models implements api.Backend.
func (n *node) Models(context.Context) ([]api.Model, error) {
	l := n.models.list()
	for i := range l {
		l[i] = n.placed(l[i])
	}
	return l, nil
}

// Datasets implements api.Backend.
func (n *node) Datasets(context.Context) ([]api.Dataset, error) { return n.datasets.list(), nil }

// listPulled adds what a run brought here to the catalogues.
func (n *node) listPulled(ctx context.Context, run string, modelID, dataID cid.Cid) error {
	if err := n.listModel(ctx, modelID, run+" base model"); err != nil {
		return err
	}
	return n.listDataset(ctx, dataID, run+" data")
}

func (n *node) listModel(ctx context.Context, id cid.Cid, name string) error {
	if _, ok := n.models.get(id.String()); ok {
		return nil
	}
	m, err := n.store.CheckModel(ctx, id)
	if err != nil {
		return fmt.Errorf("list model %s: %w", id, err)
	}
	dir, err := n.modelDir(ctx, id)
	if err != nil {
		return err
	}
	entry := modelEntry(&m, name)
	describe(&entry, dir)
	if err := n.store.Keep(id, modelKind, name, time.Now()); err != nil {
		return fmt.Errorf("list model %s: %w", id, err)
	}
	if err := n.models.put(entry); err != nil {
		return fmt.Errorf("list model %s: %w", id, err)
	}
	return nil
}

func (n *node) listDataset(ctx context.Context, id cid.Cid, name string) error {
	if _, ok := n.datasets.get(id.String()); ok {
		return nil
	}
	d, err := shard.OpenDataset(ctx, n.store, id)
	if err != nil {
		return fmt.Errorf("list data set %s: %w", id, err)
	}
	index, err := n.store.Lookup(ctx, id, "dataset.json")
	if err != nil {
		return fmt.Errorf("list data set %s: %w", id, err)
	}
	x := d.Index()
	entry := datasetEntry(id, &x, index.Size+x.Train.Bytes+x.Eval.Bytes, name)
	if err := n.store.Keep(id, dataKind, name, time.Now()); err != nil {
		return fmt.Errorf("list data set %s: %w", id, err)
	}
	if err := n.datasets.put(entry); err != nil {
		return fmt.Errorf("list data set %s: %w", id, err)
	}
	return nil
}

// modelDir returns the folder of a model whose DAG is local: that which was
// imported, if nothing in it changed, or one in the data folder. It may be
// called at the same time for the same model.
func (n *node) modelDir(ctx context.Context, root cid.Cid) (string, error) {
	turn, _ := n.folders.LoadOrStore(root, make(chan struct{}, 1))
	select {
	case turn.(chan struct{}) <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-turn.(chan struct{}) }()
	if err := n.store.Touch(root, time.Now()); err != nil {
		return "", err
	}
	if !n.store.Place(root).Complete {
		if err := n.checkModel(ctx, root); err != nil {
			return "", err
		}
	}
	dir, err := n.store.Folder(ctx, root, n.modelPath(root), n.folderLimit())
	changed := new(shard.ChangedError)
	switch {
	case errors.As(err, &changed):
		return "", api.Errorf(api.CodeModel, "model %s: %w", root, changed).WithHint(`"moot shard verify --repair" pulls what is missing`)
	case isDiskFull(err):
		return "", api.Errorf(api.CodeDisk, "write model %s: %w", root, err).WithHint("make room, or start mootd with another --data-dir")
	case err != nil:
		return "", fmt.Errorf("write model %s: %w", root, err)
	}
	return dir, nil
}

// howToHave says how a model or data set gets here.
func howToHave(root cid.Cid) string {
	return fmt.Sprintf("import it, get it from peers with \"moot shard pull %s\", or join a run that uses it", root)
}

// checkModel reports why what is here of a model cannot become its folder.
func (n *node) checkModel(ctx context.Context, root cid.Cid) error {
	missing, have, _, err := n.store.Missing(ctx, root)
	if err != nil {
		return fmt.Errorf("write model %s: %w", root, err)
	}
	if len(missing) > 0 && have == 0 {
		return api.Errorf(api.CodeNotFound, "model %s is not here", root).WithHint("%s", howToHave(root))
	}
	if len(missing) > 0 && !n.store.Place(root).Broken {
		return api.Errorf(api.CodeNotFound, "model %s is not complete here: %d blocks are missing", root, len(missing)).
			WithHint("%s", howToHave(root))
	}
	if len(missing) > 0 {
		return nil // Folder names the file
	}
	if _, err := n.store.CheckModel(ctx, root); err != nil {
		return api.Errorf(api.CodeModel, "%w", err)
	}
	return nil
}

// modelPath is where the folder of a model is that the node makes.
func (n *node) modelPath(root cid.Cid) string { return filepath.Join(n.dir, modelsDir, root.String()) }

// localModel returns the folder of a model, if it is there and complete.
func (n *node) localModel(root cid.Cid) (dir string, ok bool) {
	p := n.store.Place(root)
	return p.Dir, p.Complete
}

// spareBytes stays free when something large is written.
const spareBytes = 64 << 20

// checkSpace reports E_DISK when the data folder's file system has not so many
// bytes left. Where the free space cannot be told, there is enough.
func (n *node) checkSpace(need int64) error {
	free, err := freeBytes(n.dir)
	if err != nil || need <= 0 || free-spareBytes >= need {
		return nil
	}
	return api.Errorf(api.CodeDisk, "%s has %s free, %s are needed", n.dir, megabytes(free), megabytes(need+spareBytes)).
		WithHint("make room, or start mootd with another --data-dir")
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// folderBytes adds up the files of a folder.
func folderBytes(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// bytesOf tells progress of bytes as one phase.
func bytesOf(phase string, progress api.ProgressFunc) func(done, total int64) {
	return func(done, total int64) {
		progress(api.Progress{Phase: phase, Done: done, Total: total, Unit: api.UnitBytes})
	}
}

// importError gives an error of an import its code: what is wrong with the
// files is of the given one.
func importError(ctx context.Context, code api.Code, err error) error {
	var pathErr *fs.PathError
	switch {
	case ctx.Err() != nil || errors.As(err, new(*api.Error)):
		return err
	case isDiskFull(err):
		return api.Errorf(api.CodeDisk, "%w", err).WithHint("make room, or start mootd with another --data-dir")
	case errors.Is(err, fs.ErrNotExist):
		return api.Errorf(api.CodeNotFound, "%w", err).WithHint("the path is one on the machine of mootd")
	case errors.Is(err, syscall.EISDIR):
		return api.Errorf(api.CodeUsage, "%w", err).WithHint("name its files, such as FOLDER/*.jsonl")
	case errors.As(err, &pathErr):
		return err
	case errors.As(err, new(*shard.RowsError)):
		return api.Errorf(code, "%w", err).WithHint("\"moot data check\" lists them; --drop-invalid leaves them out")
	case errors.Is(err, shard.ErrForm):
		return api.Errorf(code, "%w", err).WithHint("say which field is which, such as --field instruction=question --field output=answer")
	}
	return api.Errorf(code, "%w", err)
}
