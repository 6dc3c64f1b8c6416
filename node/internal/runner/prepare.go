package runner

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// prepare makes local what training needs and opens the trainer.
func (r *Runner) prepare(ctx context.Context) (*device, error) {
	m := r.manifest
	if err := r.pull(ctx, "model", m.Model, m.ModelBytes); err != nil {
		return nil, err
	}
	if err := r.pull(ctx, "data", m.Dataset, m.DatasetBytes); err != nil {
		return nil, err
	}
	public := []cid.Cid{r.id, m.Model, m.Dataset}
	if r.ground.Private() {
		public = public[:1] // strangers get nothing of the others
	}
	for _, c := range public {
		if err := r.hub.o.Host.Provide(ctx, c); err != nil {
			r.log.WarnContext(ctx, "was not announced", "shard", c, "err", err)
		}
	}
	r.stage.tell(api.Progress{Phase: "check", Text: "checking the model"})
	if _, err := r.hub.o.Store.CheckModel(ctx, m.Model); err != nil {
		return nil, api.Errorf(api.CodeModel, "check model %s: %w", m.Model, err)
	}
	dir, err := r.hub.o.ModelDir(ctx, m.Model)
	if err != nil {
		return nil, fmt.Errorf("unpack model: %w", err)
	}
	samples, err := r.openData(ctx, dir)
	if err != nil {
		return nil, err
	}
	t, err := r.openTrainer(dir)
	if err != nil {
		return nil, err
	}
	r.stage.havePulled()
	r.stage.tell(api.Progress{Phase: "state", Text: "looking for the others of the run"})
	return newDevice(r, t, samples, func() (*train.Trainer, error) { return r.openTrainer(dir) }), nil
}

// pull makes a DAG of about size bytes of content local. It goes on trying for
// as long as ctx lasts.
func (r *Runner) pull(ctx context.Context, what string, root cid.Cid, size uint64) error {
	missing, _, _, err := r.hub.o.Store.Missing(ctx, root)
	if err != nil {
		return fmt.Errorf("look for %s: %w", what, err)
	}
	if len(missing) == 0 {
		return nil
	}
	if err := r.met(ctx); err != nil {
		return err
	}
	if err := waitForHours(ctx, r.hub.o.MayPull, what, int64(size), r.stage.tell); err != nil {
		return fmt.Errorf("pull %s: %w", what, err)
	}
	r.stage.tell(api.Progress{Phase: what, Total: int64(size), Unit: api.UnitBytes, Text: "looking for peers that have it"})
	r.log.InfoContext(ctx, "pull began", "what", what, "shard", root, "bytes", size)
	began, told := time.Now(), time.Time{}
	var speed pace
	err = r.hub.o.Puller.Fetch(ctx, root, pull.FetchOptions{
		// The inner nodes of the DAG come on top of the content.
		MaxBytes:  int64(size) + int64(size)/256 + 1<<20,
		Providers: r.hub.o.Host.Members(r.id.String()),
		Before: func(missing, total int64) error {
			text := howMuch(missing, total, r.hub.o.Puller.Rate())
			r.log.InfoContext(ctx, "pull was measured", "what", what, "bytes", missing, "total", total, "text", text)
			r.stage.tell(api.Progress{Phase: what, Done: total - missing, Total: total, Unit: api.UnitBytes, Text: text})
			// Its inner nodes are here now.
			if err := r.ground.claim(ctx, root); err != nil {
				return err
			}
			if what != "model" || r.hub.o.GrowModel == nil {
				return nil
			}
			return r.hub.o.GrowModel(ctx, root, int64(size))
		},
		Progress: func(done, total int64) {
			p := api.Progress{Phase: what, Done: done, Total: total, Unit: api.UnitBytes, Text: speed.tell(time.Now(), done, total)}
			r.stage.tell(p)
			if done == total || time.Since(told) > time.Second/2 {
				told = time.Now()
				r.emit(api.Event{Type: api.EventPull, Progress: &p})
			}
		},
	})
	switch {
	case errors.Is(err, pull.ErrTooLarge):
		return api.Errorf(api.CodeRefused, "pull %s: %w: the run's manifest promised %d bytes", what, err, size)
	case errors.Is(err, shard.ErrInvalid):
		return api.Errorf(api.CodeRefused, "pull %s: %w", what, err)
	case errors.Is(err, traffic.ErrQuota):
		return api.Errorf(api.CodeRefused, "pull %s: %w", what, err).WithHint("raise the monthly quota, or join again then")
	case err != nil:
		return fmt.Errorf("pull %s: %w", what, err)
	}
	r.log.InfoContext(ctx, "pull ended", "what", what, "took", time.Since(began))
	return nil
}

func (r *Runner) openData(ctx context.Context, modelDir string) (*dataset.Source, error) {
	tpl, err := dataset.ParseTemplate(r.manifest.Template)
	if err != nil {
		return nil, api.Errorf(api.CodeData, "prompt template: %w", err)
	}
	enc, err := dataset.LoadEncoder(modelDir, tpl, int(r.manifest.Inner.MaxTokens))
	if err != nil {
		return nil, api.Errorf(api.CodeModel, "tokenizer of the model: %w", err)
	}
	if r.manifest.Inner.OverLong == run.OverLongDrop {
		enc.DropLong()
	}
	data, err := shard.OpenDataset(ctx, r.hub.o.Store, r.manifest.Dataset)
	if err != nil {
		return nil, api.Errorf(api.CodeData, "open data set %s: %w", r.manifest.Dataset, err)
	}
	if err := enc.Accepts(data.Index().Format); err != nil {
		return nil, api.Errorf(api.CodeData, "data set %s: %w", r.manifest.Dataset, err)
	}
	return dataset.NewSource(data, enc), nil
}

// openTrainer loads the base model and checks that its adapter is the one of
// the manifest.
func (r *Runner) openTrainer(modelDir string) (*train.Trainer, error) {
	o := TrainOptions(r.manifest, modelDir)
	o.Threads, o.Precision, o.CheckpointDir = r.hub.o.Threads, r.hub.o.Precision, filepath.Join(r.dir, "checkpoint")
	if plan := r.hub.o.PlanMemory; plan != nil {
		if err := plan(&o); err != nil {
			return nil, fmt.Errorf("open the trainer: %w", err)
		}
	}
	if open := r.hub.o.OpenDevice; open != nil {
		if err := open(&o); err != nil {
			return nil, fmt.Errorf("open the device: %w", err)
		}
	}
	t, err := train.Open(o)
	switch {
	case errors.Is(err, model.ErrUnsupported):
		return nil, api.Errorf(api.CodeModel, "open the trainer: %w", err)
	case err != nil:
		return nil, fmt.Errorf("open the trainer: %w", err)
	}
	tensors := t.Layout()
	same := len(tensors) == r.layout.Len()
	for i := 0; same && i < len(tensors); i++ {
		w := r.layout.Tensor(i)
		same = tensors[i].Name == w.Name && tensors[i].Rows == w.Rows && tensors[i].Cols == w.Cols
	}
	if !same {
		_ = t.Close() // it has nothing to write
		return nil, api.Errorf(api.CodeRefused, "the tensors that the manifest lists are not those of its base model and targets")
	}
	return t, nil
}
