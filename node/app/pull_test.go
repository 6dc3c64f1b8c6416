package app

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/shard"
)

// A model and a data set are pulled by CID and address alone; the model lies once
// on the disk, and can be trained.
func TestPullShards(t *testing.T) {
	seed, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, seed)
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	addr := seed.host.Addrs()[:1]
	for id, want := range map[string]string{m.ID: modelKind, d.ID: dataKind} {
		e, err := n.PullShards(t.Context(), api.PullShardsRequest{ID: id, Peers: addr}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if e.ID != id || e.Kind != want || e.Have != e.Total {
			t.Errorf("pulled %+v, want a whole %s", e, want)
		}
	}
	models, err := n.Models(t.Context())
	if err != nil || len(models) != 1 || models[0].ID != m.ID || !models[0].Trainable || models[0].InPlace {
		t.Errorf("models are %+v, %v", models, err)
	}
	if used := folderSize(t, n.dir); used > m.Bytes+d.Bytes+(m.Bytes+d.Bytes)/10+200<<10 {
		t.Errorf("%d bytes are used for %d", used, m.Bytes+d.Bytes)
	}
	if s, err := n.Status(t.Context()); err != nil || s.Traffic.PulledBytes < uint64(m.Bytes) {
		t.Errorf("status says %d bytes were pulled: %v", s.Traffic.PulledBytes, err)
	}
	_, err = n.PullShards(t.Context(), api.PullShardsRequest{ID: m.ID, Peers: []string{"nobody"}}, quiet)
	wantCode(t, err, api.CodeUsage, `"nobody" is not the address of a peer`)
}

// Of a model only some layers are pulled, and what is in none.
func TestPullLayers(t *testing.T) {
	seed, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, _ := imported(t, seed)
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	e, err := n.PullShards(t.Context(), api.PullShardsRequest{ID: m.ID, Peers: seed.host.Addrs()[:1], Layers: &api.Layers{First: 0, Last: 0}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	root := cid.MustParse(m.ID)
	sel, err := n.store.SelectLayers(t.Context(), root, 0, 0)
	if err != nil || !sel.Final {
		t.Fatalf("SelectLayers = %+v, %v", sel, err)
	}
	if e.Have < sel.Bytes || e.Have > e.Total {
		t.Errorf("%d of %d bytes are here, the layer needs %d", e.Have, e.Total, sel.Bytes)
	}
	for _, c := range sel.Leaves {
		if ok, err := n.store.Has(t.Context(), c); err != nil || !ok {
			t.Errorf("leaf %s is not here: %v", c, err)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(n.dir, modelsDir, "*", "*")); len(files) > 0 {
		t.Errorf("there is a folder: %v", files)
	}
	_, err = os.Stat(n.modelPath(root))
	if !os.IsNotExist(err) {
		t.Errorf("stat of the folder: %v", err)
	}
	// That is all that was wanted, so nothing is broken; what breaks is pulled again.
	v, err := n.VerifyShards(t.Context(), api.VerifyRequest{}, quiet)
	if err != nil || v.Damaged != 0 || len(v.Broken) != 0 {
		t.Fatalf("VerifyShards = %+v, %v", v, err)
	}
	if err := n.store.DeleteBlock(t.Context(), sel.Leaves[0]); err != nil {
		t.Fatal(err)
	}
	v, err = n.VerifyShards(t.Context(), api.VerifyRequest{Repair: true}, quiet)
	if err != nil || v.Repaired != 1 || len(v.Broken) != 0 {
		t.Errorf("VerifyShards = %+v, %v", v, err)
	}
	cache, err := n.Cache(t.Context())
	if err != nil || len(cache.Entries) != 1 || cache.Entries[0].Have != e.Have {
		t.Errorf("after the repair %+v, %v; want %d bytes", cache.Entries, err, e.Have)
	}
}

// never are hours that are closed until the end of time.
type never struct{}

func (never) Active(time.Time) bool      { return false }
func (never) Next(t time.Time) time.Time { return t.Add(time.Hour) }

// A pull waits for the hours of network.schedule and says so, unless a peer that was
// named is near, or all is here.
func TestPullShardsWaitsForHours(t *testing.T) {
	seed, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, seed)
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	if err := n.traffic.SetLimits(traffic.Limits{Hours: never{}}); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	tell := func(p api.Progress) {
		select {
		case said <- p.Text:
		default:
		}
	}
	pull := func(id string, peers []string, tell api.ProgressFunc) (api.CacheEntry, error) {
		return n.PullShards(t.Context(), api.PullShardsRequest{ID: id, Peers: peers}, tell)
	}
	if _, err := pull(d.ID, seed.host.Addrs()[:1], quiet); err != nil { // it is on this machine
		t.Fatal(err)
	}
	if _, err := pull(d.ID, nil, quiet); err != nil { // it is here
		t.Fatal(err)
	}
	// Of a model only the layers that are asked for are here.
	layered, err := seed.store.ImportDir(t.Context(), twoLayers(t), shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	layers := api.PullShardsRequest{ID: layered.Root.String(), Peers: seed.host.Addrs()[:1], Layers: &api.Layers{}}
	if e, err := n.PullShards(t.Context(), layers, quiet); err != nil || e.Have >= e.Total {
		t.Fatalf("%d of %d bytes are here, %v", e.Have, e.Total, err)
	}
	layers.Peers = nil
	if _, err := n.PullShards(t.Context(), layers, quiet); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := pull(m.ID, nil, tell)
		ended <- err
	}()
	select {
	case text := <-said:
		if !strings.Contains(text, "network.schedule, until ") {
			t.Errorf("it said %q", text)
		}
	case err := <-ended:
		t.Fatalf("it did not wait: %v", err)
	}
	if err := n.traffic.SetLimits(traffic.Limits{}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// twoLayers is a folder whose weights have two layers of 4 MiB each.
func twoLayers(t *testing.T) string {
	t.Helper()
	const size = 4 << 20
	header := fmt.Sprintf(`{"layers.0.w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]},"layers.1.w":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}}`,
		size, size, size, size, 2*size)
	b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	for i := range 2 * size { // no two leaves are alike
		b = append(b, byte(i>>(i%8*3)))
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"config.json": []byte("{}"), "model.safetensors": b} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
