package shard

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

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
