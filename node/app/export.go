package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/proto/run"
)

// exportFiles are the files of an export, the one that makes it usable last.
var exportFiles = []string{lora.WeightsFile, lora.ConfigFile}

// Export implements api.Backend. The bytes depend on the state and the manifest
// alone, so that everybody who exports a round has the same files.
func (n *node) Export(ctx context.Context, req api.ExportRequest, progress api.ProgressFunc) (api.Export, error) {
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
	progress(api.Progress{Phase: "state"})
	snapshot, err := p.StateAt(ctx, req.Round, head)
	if err != nil {
		return api.Export{}, err
	}
	m := p.Manifest()
	a, err := adapterOf(m, snapshot.State, modulesOf(m))
	if err != nil {
		return api.Export{}, fmt.Errorf("export run %s: %w", req.Run, err)
	}
	progress(api.Progress{Phase: "write"})
	// The CID is the one name of the base model that is the same everywhere.
	files, err := exportAdapter(a, m.Model.String(), req.Dir)
	if err != nil {
		return api.Export{}, fmt.Errorf("export run %s: %w", req.Run, err)
	}
	return api.Export{
		Run: req.Run, Model: m.Model.String(), Round: snapshot.Round, Head: snapshot.Head.String(), State: snapshot.ID.String(),
		Dir: req.Dir, Files: files,
	}, nil
}

// modulesOf are the layers that a run adapts, as its tensors tell.
func modulesOf(m *run.Manifest) []lora.Module {
	var modules []lora.Module
	for i := 0; i+1 < len(m.Tensors); i += 2 { // A and B of one module
		a, b := m.Tensors[i], m.Tensors[i+1]
		path := strings.TrimSuffix(strings.TrimPrefix(a.Name, "base_model.model."), ".lora_A.weight")
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

// exportAdapter writes the folder dir. What was there before stays until the
// new files are complete; files that are none of an export stay.
func exportAdapter(a *lora.Adapter, base, dir string) (files []api.ExportFile, err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+tempInfix)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	if err := a.Write(temp, base); err != nil {
		return nil, err
	}
	for _, name := range exportFiles {
		f, err := sealFile(filepath.Join(temp, name))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if err := os.Chmod(temp, 0o755); err != nil { // MkdirTemp lets only us in
		return nil, err
	}
	return files, moveExport(temp, dir)
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
func moveExport(temp, dir string) error {
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
	for _, name := range exportFiles {
		if err := os.Rename(filepath.Join(temp, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return syncDir(dir)
}
