package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/shard"
)

// trainedRun is a run of one daemon that is over.
func trainedRun(t *testing.T, a *daemon) api.Run {
	t.Helper()
	m, data := importedBy(t, a)
	r, err := a.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: runText(m, data, `
rounds = 2
period = "20s"
eval_samples = 4
lora.rank = 2
inner.max_steps = 2
inner.batch_samples = 2
inner.sequence_tokens = 96
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return apitest.Await(t, a, r.ID, "it is final", func(r api.Run) bool { return r.Final }).Run
}

// TestSnapshot: a snapshot travels as a file to a node that knows nothing of the
// run, and gives the bytes there that the run gives.
func TestSnapshot(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	cfgA, cfgB := testConfig(t.TempDir()), testConfig(t.TempDir())
	a, b := startDaemon(t, cfgA), startDaemon(t, cfgB)
	r := trainedRun(t, a)
	s, err := a.Snapshot(t.Context(), api.SnapshotRequest{Run: r.ID}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Run != r.ID || s.Head != r.Head || s.State != r.StateCID || s.Round != r.Round || s.Votes < s.Quorum {
		t.Errorf("snapshot %+v of run %+v", s, r)
	}
	if again, err := a.Snapshot(t.Context(), api.SnapshotRequest{Run: r.ID}, nil); err != nil || again.ID != s.ID {
		t.Errorf("made again it is %s, was %s (%v)", again.ID, s.ID, err)
	}
	car := filepath.Join(t.TempDir(), "snapshot.car")
	if _, err := a.ExportShards(t.Context(), api.ExportShardsRequest{ID: s.ID, File: car}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ImportShards(t.Context(), api.ImportShardsRequest{File: car}, nil); err != nil {
		t.Fatal(err)
	}
	export := func(c *client.Client, q api.ExportRequest) api.Export {
		t.Helper()
		q.Dir = filepath.Join(t.TempDir(), "out")
		e, err := c.Export(t.Context(), q, nil)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	of, from := export(a.Client, api.ExportRequest{Run: r.ID}), export(b.Client, api.ExportRequest{Snapshot: s.ID})
	if from.Run != r.ID || from.Head != r.Head || from.Test != nil || len(from.Files) != len(of.Files) {
		t.Errorf("export of the snapshot: %+v", from)
	}
	for i, f := range of.Files {
		if f != from.Files[i] && f.Name != cardFile {
			t.Errorf("%+v, from the snapshot %+v", f, from.Files[i])
		}
	}
	// Its card says what the run's does, but for what only the other records have.
	cardOf := func(e api.Export) string { return string(readBytes(t, filepath.Join(e.Dir, cardFile))) }
	status, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	training := fmt.Sprintf("| training | %d rounds that trained, %d tokens |", r.TrainedRounds, r.Tokens)
	for _, want := range []string{training, fmt.Sprintf("| `%s` | %d |", status.Peer, r.Tokens)} {
		if !strings.Contains(cardOf(of), want) || !strings.Contains(cardOf(from), want) {
			t.Errorf("no %q in one of\n%s\n%s", want, cardOf(of), cardOf(from))
		}
	}
	if card := cardOf(from); !strings.Contains(card, "the snapshot `"+s.ID+"`") || !strings.Contains(card, "as who made the snapshot says") || strings.Contains(cardOf(of), "snapshot") {
		t.Errorf("card of the snapshot:\n%s", card)
	}
	_, err = a.Export(t.Context(), api.ExportRequest{Snapshot: r.Dataset, Dir: filepath.Join(t.TempDir(), "x")}, nil)
	if err == nil {
		t.Error("a data set was exported as a snapshot")
	}
	_, err = b.Export(t.Context(), api.ExportRequest{Snapshot: s.ID, Run: r.ID, Dir: filepath.Join(t.TempDir(), "x")}, nil)
	if err == nil {
		t.Error("a snapshot of a run that is not known was exported as of this run")
	}
}

// TestSnapshotOfNobody: a snapshot that nobody has is given up, and nothing is
// pulled that is none.
func TestSnapshotOfNobody(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), nil)
	n.snapshotPatience = 50 * time.Millisecond
	root, err := cid.Decode("bafybeiexq6oruvmadjapff7xybuopm3soj6lcijwoqoll2drghwey7wezu")
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.openSnapshot(t.Context(), root.String(), quiet)
	wantCode(t, err, api.CodeNet, "nobody who has it was found within 50ms")
}

// TestForgedSnapshot: what does not belong together is no snapshot.
func TestForgedSnapshot(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	cfg := testConfig(t.TempDir())
	a := startDaemon(t, cfg)
	r := trainedRun(t, a)
	s, err := a.Snapshot(t.Context(), api.SnapshotRequest{Run: r.ID}, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := a.Snapshot(t.Context(), api.SnapshotRequest{Run: r.ID, Round: new(uint64(1))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	n, _ := testNode(t, cfg.DataDir, nil)
	folder := func(id string) string {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "snapshot")
		if err := n.store.Materialize(t.Context(), cid.MustParse(id), dir, shard.MaterializeOptions{MaxBytes: 1 << 30}); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	other := folder(first.ID)
	for _, tt := range []struct {
		name   string
		change func(dir string) error
		want   string
	}{
		{"another state", func(dir string) error {
			return os.Rename(filepath.Join(other, snapshotState), filepath.Join(dir, snapshotState))
		}, "its record says"},
		{"votes for another record", func(dir string) error {
			return os.Rename(filepath.Join(other, snapshotCertificate), filepath.Join(dir, snapshotCertificate))
		}, "certificate"},
		{"no manifest", func(dir string) error { return os.Remove(filepath.Join(dir, snapshotManifest)) }, "manifest"},
		{"a broken record", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, snapshotRecord), []byte("x"), 0o600)
		}, "record"},
	} {
		dir := folder(s.ID)
		if err := tt.change(dir); err != nil {
			t.Fatal(err)
		}
		i, err := n.store.ImportDir(t.Context(), dir, shard.ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.openSnapshot(t.Context(), i.Root.String(), quiet)
		wantCode(t, err, api.CodeData, tt.want)
	}
	if _, err := n.openSnapshot(t.Context(), s.ID, quiet); err != nil {
		t.Error(err)
	}
}

// What a stranger lists as contributors is a list of peers.
func TestReadContributors(t *testing.T) {
	const id = "12D3KooWCcJwvjXxqRxkjmKqPWWFdhce5AKzqR7AYeNAUisLMHgm"
	if l, err := readContributors([]byte(`[{"peer":"` + id + `","tokens":5}]`)); err != nil || len(l) != 1 || l[0] != (contributor{id, 5}) {
		t.Errorf("%+v, %v", l, err)
	}
	for _, bad := range []string{"", "{}", `[{"peer":"| x |","tokens":1}]`, `[{"peer":"` + id + `","tokens":-1}]`} {
		if l, err := readContributors([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, l)
		}
	}
}
