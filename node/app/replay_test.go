package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
	"github.com/moot-net/moot/proto/msg"
)

// TestReplay trains a run, and computes it again from the folder that is left,
// from copies that lack something, and from folders that complete each other.
func TestReplay(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	parent := t.TempDir()
	whole := filepath.Join(parent, "whole")
	cfg := testConfig(whole)
	d := startDaemon(t, cfg)
	x := assets(t)
	m, err := d.ImportModel(t.Context(), api.ImportModelRequest{Dir: x.ModelDir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := d.ImportDataset(t.Context(), x.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: runText(m, data, `
rounds = 3
min_peers = 1
period = "20s"
eval_samples = 8
lora.rank = 2
inner.max_steps = 3
inner.batch_samples = 2
inner.sequence_tokens = 96
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	end := apitest.Await(t, d, r.ID, "it is final", func(r api.Run) bool { return r.Final })
	_, err = Replay(t.Context(), ReplayOptions{DataDir: whole, Run: r.ID})
	wantCode(t, err, api.CodeConflict, "in use by a daemon")
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}

	replayed := func(dir, id string) api.Replay {
		t.Helper()
		x, err := Replay(t.Context(), ReplayOptions{DataDir: dir, Run: id})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, id := range []string{r.ID, r.ID[:20], "last"} {
		if x := replayed(whole, id); !x.OK || x.Run != r.ID || x.StateCID != end.StateCID || x.Head != end.Head || !x.Final || x.Folders != nil {
			t.Errorf("replay of %s: %+v, want state %s", id, x, end.StateCID)
		}
	}
	for _, tt := range []struct{ dir, id, want string }{
		{whole, "bafkreinot", `there is no run "bafkreinot" in ` + whole},
		{parent, "bafkreinot", `there is no run "bafkreinot" in ` + parent},
		{t.TempDir(), "last", "is not the data folder of a node, and has none in it"},
		{filepath.Join(parent, "nothing"), "last", "no such file"},
	} {
		_, err := Replay(t.Context(), ReplayOptions{DataDir: tt.dir, Run: tt.id})
		wantCode(t, err, api.CodeNotFound, tt.want)
	}
	if _, err := Replay(t.Context(), ReplayOptions{DataDir: whole, Run: "last", From: 99}); api.AsError(err).Code != api.CodeUsage {
		t.Errorf("from a round that is not there: %v", err)
	}

	// A folder each without the deltas of one round: neither is enough, both are.
	deltas := deltasOf(t, whole, r.ID)
	if len(deltas) < 2 {
		t.Fatalf("the run has %d deltas", len(deltas))
	}
	both := t.TempDir()
	for i, lack := range deltas[:2] {
		dir := filepath.Join(both, []string{"a", "b"}[i])
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		remove(t, dir, lack)
		x := replayed(dir, "last")
		wantCode(t, x.Error, api.CodeNotFound, "delta "+lack.String())
		if x.OK || len(x.Missing) != 1 || x.Missing[0] != lack.String() || x.Rounds >= int(end.Round) || x.Certified > x.Rounds {
			t.Errorf("replay without %s: %+v", lack, x)
		}
	}
	x2 := replayed(both, "last")
	if !x2.OK || x2.StateCID != end.StateCID || len(x2.Folders) != 2 || !x2.Folders[0].Agrees || !x2.Folders[1].Agrees {
		t.Errorf("replay of both folders: %+v", x2)
	}
	// A folder that is behind is no other history.
	cut(t, filepath.Join(both, "b", runsDir, r.ID, "ledger", "chain.log"))
	x2 = replayed(both, "last")
	if !x2.OK || x2.StateCID != end.StateCID || x2.Folders[1].Round >= x2.Folders[0].Round || !x2.Folders[1].Agrees {
		t.Errorf("replay when one is behind: %+v", x2)
	}
	// What is in neither is named.
	for _, dir := range []string{"a", "b"} {
		for _, lack := range deltas[:2] {
			remove(t, filepath.Join(both, dir), lack)
		}
	}
	if x := replayed(both, "last"); x.OK || len(x.Missing) != 2 || x.Error == nil || x.Error.Code != api.CodeNotFound {
		t.Errorf("replay without two deltas: %+v", x)
	}
}

// deltasOf lists the deltas of a run, by round.
func deltasOf(t *testing.T, dir, run string) (list []cid.Cid) {
	t.Helper()
	id, err := cid.Decode(run)
	if err != nil {
		t.Fatal(err)
	}
	a := new(archive)
	defer a.close()
	if err := a.open(t.Context(), []string{dir}, id); err != nil {
		t.Fatal(err)
	}
	for n := msg.Round(1); ; n++ {
		k, _, ok := a.ledgers[0].At(n)
		if !ok {
			return list
		}
		for _, c := range k.Record.Contributions {
			list = append(list, c.Delta)
		}
	}
}

// remove removes a block, if it is there.
func remove(t *testing.T, dir string, id cid.Cid) {
	t.Helper()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.DeleteBlock(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// cut takes the last quarter of a file away, as a crash may.
func cut(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()*3/4); err != nil {
		t.Fatal(err)
	}
}
