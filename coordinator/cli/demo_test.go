package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moot-net/moot/coordinator/cli/demo/demotest"
)

// interrupter presses Ctrl-C when a text was written.
type interrupter struct {
	bytes.Buffer
	text  string
	press context.CancelFunc
}

func (w *interrupter) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	if strings.Contains(w.String(), w.text) {
		w.press()
	}
	return n, err
}

// TestDemoKeep: with --keep the answer comes first, then the addresses of the
// daemons that go on; Ctrl-C ends them, and that is no failure.
func TestDemoKeep(t *testing.T) {
	addr, stop, err := demotest.NewWorld(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	t.Setenv(demotest.WorldEnv, addr)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := filepath.Join(t.TempDir(), "d")
	var out bytes.Buffer
	screen := &interrupter{text: "Ctrl-C stops them.", press: cancel}
	if code := Main(ctx, []string{"demo", "--json", "--keep", "--keep-data", dir}, &out, screen); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), screen.String())
	}
	var r struct {
		OK      bool   `json:"ok"`
		DataDir string `json:"data_dir"`
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || !r.OK || r.DataDir != dir {
		t.Errorf("answer is %s (%v), want one object with ok and data_dir %s", out.String(), err, dir)
	}
	for _, want := range []string{"  node 3   http://127.0.0.1:", "  node 5   http://127.0.0.1:", "run show bafkrei", "logs are in " + dir} {
		if !strings.Contains(screen.String(), want) {
			t.Errorf("%q is not on the screen:\n%s", want, screen.String())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node5", "mootd.log")); err != nil {
		t.Error(err)
	}
}
