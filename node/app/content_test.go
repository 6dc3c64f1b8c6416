package app

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
)

func TestImport(t *testing.T) {
	dir := t.TempDir()
	n, stop := testNode(t, dir, new(fakeRuns).open)
	m, d := imported(t, n)
	if !m.Trainable || m.Why != "" || m.Type != "llama" || m.Parameters < 1000 || m.Bytes < 1000 || m.Name != "model" {
		t.Errorf("model %+v", m)
	}
	if d.TrainRows < 100 || d.EvalRows < 10 || d.TrainShards < 4 || d.Template != "alpaca" || d.Licence == "" {
		t.Errorf("data set %+v", d)
	}
	if again, _ := imported(t, n); again.ID != m.ID {
		t.Errorf("imported again it is %s, was %s", again.ID, m.ID)
	}
	models, _ := n.Models(t.Context())
	stop()
	n, _ = testNode(t, dir, new(fakeRuns).open)
	if after, _ := n.Models(t.Context()); len(after) != 1 || cmp.Diff(models, after) != "" {
		t.Errorf("after a restart %v, before %v", after, models)
	}
	if l, _ := n.Datasets(t.Context()); len(l) != 1 || l[0].ID != d.ID {
		t.Errorf("after a restart %v", l)
	}
}

func TestImportErrors(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	rows := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(rows, []byte("{\"instruction\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		code api.Code
		err  func() error
	}{
		{"no folder", api.CodeNotFound, func() error {
			_, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: "/nowhere/at/all"}, quiet)
			return err
		}},
		{"no model", api.CodeModel, func() error {
			_, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: t.TempDir()}, quiet)
			return err
		}},
		{"no file", api.CodeNotFound, func() error {
			_, err := n.ImportDataset(t.Context(), api.ImportDatasetRequest{Files: []string{"/nowhere/at/all"}}, quiet)
			return err
		}},
		{"bad rows", api.CodeData, func() error {
			_, err := n.ImportDataset(t.Context(), api.ImportDatasetRequest{Files: []string{rows}}, quiet)
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { wantCode(t, tt.err(), tt.code, "") })
	}
	if l, _ := n.Models(t.Context()); len(l) > 0 {
		t.Errorf("listed: %v", l)
	}
}

// A model that cannot be trained can still be shared.
func TestImportUntrainable(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	dir := copyDir(t, assets(t).ModelDir)
	rewrite(t, filepath.Join(dir, "config.json"), "LlamaForCausalLM", "MambaForCausalLM")
	m, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir}, quiet)
	if err != nil || m.Trainable || m.Why == "" {
		t.Errorf("trainable %v (%s), %v", m.Trainable, m.Why, err)
	}
}

func TestModelDir(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	root := cid.MustParse(m.ID)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := n.modelDir(t.Context(), root)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	_, err := n.modelDir(t.Context(), cid.MustParse(d.ID))
	wantCode(t, err, api.CodeModel, "config.json")
	_, err = n.modelDir(t.Context(), cid.MustParse("bafybeibwzifw52ttrkqlikfzext5akxu7lz4xiwjgwzmqcpdzmp3n5vnbe"))
	wantCode(t, err, api.CodeNotFound, "is not here")
}

// A model of which blocks are missing is not taken for complete.
func TestModelDirIncomplete(t *testing.T) {
	from, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, _ := imported(t, from)
	root := cid.MustParse(m.ID)
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	lacks, err := from.store.Lookup(t.Context(), root, "tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	for missing := []cid.Cid{root}; len(missing) > 0 && missing[0] != lacks.CID; {
		for _, c := range missing {
			if c == lacks.CID {
				continue
			}
			b, err := from.store.Get(t.Context(), c)
			if err == nil {
				err = n.store.Put(t.Context(), b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if missing, _, _, err = n.store.Missing(t.Context(), root); err != nil {
			t.Fatal(err)
		}
	}
	_, err = n.modelDir(t.Context(), root)
	wantCode(t, err, api.CodeNotFound, "not complete here: 1 blocks")
	if dir, ok := n.localModel(root); ok {
		t.Errorf("there is the folder %s", dir)
	}
}

func TestCheckSpace(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	free, err := freeBytes(n.dir)
	if err != nil {
		t.Skip(err)
	}
	if free < 1 {
		t.Fatalf("%d bytes free", free)
	}
	wantCode(t, n.checkSpace(free), api.CodeDisk, "are needed")
	for _, need := range []int64{-5, 0, free / 4} {
		if err := n.checkSpace(need); err != nil && free > 4*spareBytes {
			t.Errorf("checkSpace(%d) = %v", need, err)
		}
	}
}
