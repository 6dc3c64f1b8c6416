// Package demo holds the model and the instruction data that come with the
// program, so that a first run needs no download. They are made by the command
// in tinymodel.
package demo

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moot-net/moot/node/api"
)

//go:embed assets
var assets embed.FS

// ShardBytes cuts the demo's rows into shards small enough that every peer
// has some of its own.
const ShardBytes = 16 << 10

// Licence is that of the model and of the data.
const Licence = "cc0-1.0"

// Write writes the assets into dir, which is made if it is not there, over what
// an earlier call wrote.
func Write(dir string) (api.DemoAssets, error) {
	a, err := write(dir)
	if err != nil {
		return api.DemoAssets{}, fmt.Errorf("write demo assets to %s: %w", dir, err)
	}
	return a, nil
}

func write(dir string) (api.DemoAssets, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return api.DemoAssets{}, err
	}
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		return api.DemoAssets{}, err
	}
	if err := copyFiles(dir, files); err != nil {
		return api.DemoAssets{}, err
	}
	a := api.DemoAssets{
		ModelDir: filepath.Join(dir, "model"),
		Data:     Data(dir),
		RunFile:  filepath.Join(dir, "run.toml"),
	}
	prompts, err := fs.ReadFile(files, "prompts.json")
	if err != nil {
		return api.DemoAssets{}, err
	}
	return a, json.Unmarshal(prompts, &a.Prompts)
}

// Data is the import of the rows of assets in dir.
func Data(dir string) api.ImportDatasetRequest {
	return api.ImportDatasetRequest{
		Files:      []string{filepath.Join(dir, "train.jsonl")},
		EvalFile:   filepath.Join(dir, "eval.jsonl"),
		Seed:       1,
		Shuffle:    true, // the file is sorted by subject
		ShardBytes: ShardBytes,
		Licence:    Licence,
		Source:     "made by moot's scripts/tinymodel",
		Template:   "alpaca",
	}
}

func copyFiles(dir string, files fs.FS) error {
	return fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if d.IsDir() {
			return os.MkdirAll(path, 0o755)
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o644)
	})
}
