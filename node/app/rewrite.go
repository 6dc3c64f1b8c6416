package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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

// rewriteModel writes a model in the form in which it is to be stored, if it is
// not, or copies it if that was asked for. The bytes depend on the model alone.
func (n *node) rewriteModel(ctx context.Context, req api.ImportModelRequest, progress api.ProgressFunc) (r *rewritten, err error) {
	legacy, err := isLegacy(req.Dir)
	r = &rewritten{dir: req.Dir}
	if err != nil || !legacy && req.Quantize == "" && !req.Copy {
		return r, err
	}
	size, err := folderBytes(req.Dir)
	if err == nil {
		err = n.makeRoom(ctx, size)
	}
	if err != nil {
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
	if !legacy && req.Quantize == "" {
		return r, copyFolder(ctx, req.Dir, r.dir, req.FollowLinks, size, bytesOf("copy", progress))
	}
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

// copyFolder copies a folder of files and folders, but for hidden ones. Links to
// files are followed only if so asked.
func copyFolder(ctx context.Context, from, to string, follow bool, size int64, progress func(done, total int64)) error {
	var done int64
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch target := filepath.Join(to, rel); {
		case rel != "." && strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir():
			return os.Mkdir(target, 0o755)
		case e.Type()&fs.ModeSymlink != 0 && !follow:
			return fmt.Errorf("%s is a symbolic link; if you trust the folder, have its links followed (--follow-links)", path)
		default:
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
				return errors.Join(err, fmt.Errorf("%s is neither a file nor a folder", path))
			}
			n, err := copyFile(ctx, path, target)
			done += n
			progress(done, max(size, done))
			return err
		}
	})
}

func copyFile(ctx context.Context, from, to string) (n int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(out, contextReader{ctx, in})
	return n, errors.Join(err, out.Close())
}

// contextReader reads until its context is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
