package shard

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

// layeredWeights is a safetensors file of tensors that are each some MiB.
func layeredWeights(t testing.TB, layers int, name string) string {
	t.Helper()
	type info struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	header := make(map[string]info)
	var end int64
	add := func(name string, n int64) {
		header[name] = info{"U8", []int64{n}, [2]int64{end, end + n}}
		end += n
	}
	add("model.embed_tokens.weight", 3*ChunkBytes)
	for i := range layers {
		add(fmt.Sprintf("model.layers.%d.mlp.weight", i), 4*ChunkBytes)
	}
	add("lm_head.weight", 2*ChunkBytes)
	b, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, strings.Repeat(" ", 8-len(b)%8)...)
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(b)))) + string(b) + string(random(t, name, int(end)))
}

// A peer that needs some layers pulls those, what belongs to none, and no more.
func TestSelectLayers(t *testing.T) {
	ctx := t.Context()
	from := testStore(t)
	imp := mustImportInPlace(t, from, tree(t, map[string]string{
		"config.json": "{}", "model.safetensors": layeredWeights(t, 10, "one"), "other/more.safetensors": layeredWeights(t, 2, "two"),
	}))
	s := testStore(t)
	pulled(t, from, s, imp.Root)
	have := make(map[cid.Cid]bool)
	for round := 0; ; round++ {
		sel, err := s.SelectLayers(ctx, imp.Root, 2, 4)
		if err != nil {
			t.Fatal(err)
		}
		var bytes int64
		for _, c := range sel.Leaves {
			n, err := from.GetSize(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			bytes += int64(n)
			if !have[c] {
				have[c] = true
				give(t, from, s, c)
			}
		}
		if bytes != sel.Bytes {
			t.Errorf("%d bytes said, %d are", sel.Bytes, bytes)
		}
		if sel.Final {
			// config.json; of the first file embeddings, head and 3 of 10 layers,
			// each in up to one leaf more; of the second all but its layers.
			if mib := float64(bytes) / ChunkBytes; mib < 3+2+12+3+2 || mib > 3+2+12+3+2+10 {
				t.Errorf("%.1f MiB are selected", mib)
			}
			break
		}
		if round > 2 || bytes > 3*ChunkBytes {
			t.Fatalf("round %d: %d bytes to tell", round, bytes)
		}
	}
	// What was selected is enough to read these tensors.
	all, err := from.SelectLayers(ctx, imp.Root, 0, 9)
	if err != nil || !all.Final || all.Bytes <= int64(len(have)) {
		t.Fatalf("SelectLayers of all = %+v, %v", all, err)
	}
	e, err := s.Lookup(ctx, imp.Root, "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.OpenFile(ctx, e.CID)
	if err != nil {
		t.Fatal(err)
	}
	c := newCheckpoint(s.FS(ctx, imp.Root))
	c.files["model.safetensors"] = e.Size
	h, err := c.header("model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	readable := make(map[string]bool)
	for _, tensor := range h.Tensors {
		_, err := f.ReadAt(make([]byte, tensor.End-tensor.Begin), h.DataStart+tensor.Begin)
		if err != nil && !errors.Is(err, ErrIncomplete) {
			t.Fatal(err)
		}
		readable[tensor.Name] = err == nil
	}
	for name, want := range map[string]bool{
		"model.embed_tokens.weight": true, "lm_head.weight": true, "model.layers.2.mlp.weight": true, "model.layers.4.mlp.weight": true,
		"model.layers.0.mlp.weight": false, "model.layers.6.mlp.weight": false,
	} {
		if readable[name] != want {
			t.Errorf("%s can be read: %v, want %v", name, readable[name], want)
		}
	}
	for _, bad := range [][2]int{{-1, 2}, {3, 2}, {10, 12}} {
		if sel, err := from.SelectLayers(ctx, imp.Root, bad[0], bad[1]); err == nil {
			t.Errorf("SelectLayers(%v) = %+v", bad, sel)
		}
	}
	if sel, err := testStore(t).SelectLayers(ctx, imp.Root, 0, 1); !errors.Is(err, ErrIncomplete) {
		t.Errorf("SelectLayers of nothing = %+v, %v", sel, err)
	}
}

// A model of which some layers are kept is whole when these are there, in a folder
// that grows too; what is damaged of them is named, and nothing else.
func TestCheckLayers(t *testing.T) {
	ctx := t.Context()
	from := testStore(t)
	imp := mustImportInPlace(t, from, tree(t, map[string]string{"config.json": "{}", "model.safetensors": layeredWeights(t, 10, "one")}))
	for _, grows := range []bool{false, true} {
		s := testStore(t)
		pulled(t, from, s, imp.Root)
		if grows {
			if err := s.Grow(ctx, imp.Root, filepath.Join(t.TempDir(), "model"), FolderOptions{MaxBytes: imp.Bytes}); err != nil {
				t.Fatal(err)
			}
		}
		var last cid.Cid
		for final := false; !final; {
			sel, err := s.SelectLayers(ctx, imp.Root, 2, 4)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range sel.Leaves {
				give(t, from, s, c)
				last = c
			}
			final = sel.Final
		}
		layers := LayerRange{2, 4}
		if err := s.KeepLayers(imp.Root, "part", "layers", layers, time.Now()); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s)
		if got := s.Layers(imp.Root); got == nil || *got != layers {
			t.Fatalf("Layers = %v", got)
		}
		for _, roots := range [][]cid.Cid{nil, {imp.Root}} {
			c, err := s.Check(ctx, CheckOptions{Roots: roots})
			if err != nil || c.Damaged != 0 || len(c.Broken) != 0 || c.Blocks == 0 {
				t.Errorf("grows %v: Check = %+v, %v", grows, c, err)
			}
		}
		// Damage the last of them.
		var path string
		off := int64(0)
		if grows {
			tr := s.tree(imp.Root)
			d, _ := digestOf(last)
			l, err := tr.find(d)
			if err != nil || len(l) == 0 {
				t.Fatal(l, err)
			}
			path, off = filepath.Join(tr.dir, tr.files[l[0].file].Path), l[0].off
		} else {
			d, _ := digestOf(last)
			path = s.blockPath(d)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("rot"), off); err != nil {
			t.Fatal(err)
		}
		f.Close()
		c, err := s.Check(ctx, CheckOptions{Roots: []cid.Cid{imp.Root}})
		if err != nil || c.Damaged != 1 || len(c.Broken) != 1 || c.Broken[0].Missing != 1 {
			t.Errorf("grows %v: Check of what is damaged = %+v, %v", grows, c, err)
		}
		// When all of it is wanted, all else is missing.
		if err := s.Keep(imp.Root, "model", "all", time.Now()); err != nil {
			t.Fatal(err)
		}
		if c, err := s.Check(ctx, CheckOptions{}); err != nil || len(c.Broken) != 1 || c.Broken[0].Missing < 2 {
			t.Errorf("grows %v: Check of all = %+v, %v", grows, c, err)
		}
		if err := s.KeepLayers(imp.Root, "part", "layers", layers, time.Now()); err != nil || s.Layers(imp.Root) != nil {
			t.Errorf("KeepLayers of what is kept = %v, %v", s.Layers(imp.Root), err)
		}
	}
}
