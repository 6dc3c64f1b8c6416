package shard

import (
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// What a folder has stays readable while the same is imported from another.
func TestImportAgainWhileRead(t *testing.T) {
	files := map[string]string{"config.json": llamaConfig, "model.safetensors": weights(t, 300_000, "a"), "tokenizer.json": "{}"}
	dirs := []string{tree(t, files), tree(t, files)}
	s := testStore(t)
	imp, err := s.ImportDir(t.Context(), dirs[0], ImportOptions{InPlace: true})
	if err != nil {
		t.Fatal(err)
	}
	ours := t.TempDir()
	stop := make(chan struct{})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer close(stop)
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := fs.ReadFile(s.FS(t.Context(), imp.Root), "config.json"); err != nil {
					t.Error(err)
					return
				}
				if missing, _, _, err := s.Missing(t.Context(), imp.Root); err != nil || len(missing) > 0 {
					t.Errorf("missing: %v, %v", missing, err)
					return
				}
				dir, err := s.Folder(t.Context(), imp.Root, filepath.Join(ours, "model"), FolderOptions{MaxBytes: 1 << 30})
				if err != nil || !slices.Contains(dirs, dir) {
					t.Errorf("folder %s, %v", dir, err)
					return
				}
			}
		})
	}
	for i := range 50 {
		if _, err := s.ImportDir(t.Context(), dirs[1-i%2], ImportOptions{InPlace: true}); err != nil {
			t.Fatal(err)
		}
	}
}
