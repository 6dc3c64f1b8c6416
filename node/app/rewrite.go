package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/checkpoint"
)

// importTemp begins the names of folders in the data folder that an import
// writes and removes again.
const importTemp = "import-"

// rewritten is the folder that an import reads in the place of the one that was
// named.
type rewritten struct {
	dir      string
	suffix   string // of the model's name
	warnings []string
	temp     string // "" when dir is the one that was named
}

// remove removes what was written. What cannot be removed now is when the
// daemon starts.
func (r *rewritten) remove() {
	if r.temp != "" {
		_ = os.RemoveAll(r.temp)
	}
}

// rewriteModel writes the model of size bytes in the form in which it is to be
// stored, if it is not. The bytes depend on the model alone.
func (n *node) rewriteModel(ctx context.Context, req api.ImportModelRequest, size int64, progress api.ProgressFunc) (r *rewritten, err error) {
	legacy, err := isLegacy(req.Dir)
	r = &rewritten{dir: req.Dir}
	if err != nil || !legacy && req.Quantize == "" {
		return r, err
	}
	if err := n.checkSpace(2 * size); err != nil { // once more, beside the store
		return nil, err
	}
	if r.temp, err = os.MkdirTemp(n.dir, importTemp); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.remove()
		}
	}()
	r.dir = filepath.Join(r.temp, "model")
	if legacy {
		r.warnings = append(r.warnings, "its weights were in pytorch_model.bin; they are stored as safetensors, with the same values")
	}
	if req.Quantize == api.QuantizeNF4 {
		r.suffix = "-" + api.QuantizeNF4
		r.warnings = append(r.warnings, "the linear layers are stored in four bits (NF4, bitsandbytes); what is trained fits these weights, not the 16-bit ones exactly")
		return r, rewriteError(checkpoint.Quantize(ctx, req.Dir, r.dir, checkpoint.QuantizeOptions{}, bytesOf("quantise", progress)))
	}
	return r, rewriteError(checkpoint.Convert(ctx, req.Dir, r.dir, checkpoint.WriteOptions{Progress: bytesOf("convert", progress)}))
}

// rewriteError says what is wrong with a checkpoint, and leaves other errors as
// they are.
func rewriteError(err error) error {
	if errors.Is(err, checkpoint.ErrFormat) || errors.Is(err, checkpoint.ErrUnsupported) {
		return api.Errorf(api.CodeModel, "%w", err)
	}
	return err
}

// isLegacy reports whether a folder has weights in pytorch_model.bin only.
func isLegacy(dir string) (bool, error) {
	there := func(names ...string) (bool, error) {
		for _, name := range names {
			_, err := os.Stat(filepath.Join(dir, name))
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return err == nil, err
			}
		}
		return false, nil
	}
	if ok, err := there("model.safetensors", "model.safetensors.index.json"); ok || err != nil {
		return false, err
	}
	return there("pytorch_model.bin", "pytorch_model.bin.index.json")
}
