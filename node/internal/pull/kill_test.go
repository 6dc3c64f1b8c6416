package pull

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/shard"
)

var killMiB = flag.Int("killmib", 200, "MiB that are pulled by a process that is killed ten times")

const (
	kills = 10
	// lostAtKill is what may have to come again after one kill: what is on its
	// way, and on its way to the disk. Ten times that is a fiftieth of 2 GB.
	lostAtKill = 4_000_000
)

// killed is the environment variable that makes this test program the process
// that is killed: the folder of the store, the root and the address of the seed.
const killed = "MOOT_TEST_KILLED"

// A process that pulls is killed ten times, by a signal that it cannot see. What
// comes in all is little more than the content, and it is complete and right.
func TestKilledTenTimes(t *testing.T) {
	if args := os.Getenv(killed); args != "" {
		pullToDie(t, args)
		return
	}
	if testing.Short() {
		t.Skip("writes 400 MiB")
	}
	size := int64(*killMiB) * mib
	dir := t.TempDir()
	name := filepath.Join(dir, "model", "weights.bin")
	if err := os.Mkdir(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range *killMiB {
		b := content(byte(i), mib)
		b[0], b[1] = byte(i>>8), byte(i)
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	st := openShard(t, filepath.Join(dir, "seed"))
	imp, err := st.ImportDir(t.Context(), filepath.Dir(name), shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seed := newNode(t, st, nodeOptions{})
	store := filepath.Join(dir, "puller")
	var local int64 // of what a process had said when it was killed
	for k := range kills + 1 {
		began := true
		err := die(t, fmt.Sprintf("%s %s %s", store, imp.Root, seed.h.Addrs()[0]), func(done, total int64) bool {
			if began && done < local {
				t.Errorf("process %d began with %d bytes, the one before had said %d", k, done, local)
			}
			began, local = false, done
			return k < kills && done >= total*int64(k+1)/(kills+1)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	st = openShard(t, store)
	missing, have, total, err := st.Missing(t.Context(), imp.Root)
	if err != nil || len(missing) > 0 {
		t.Fatalf("%d blocks are missing: %v", len(missing), err)
	}
	if broken, err := st.Verify(t.Context(), imp.Root); err != nil || len(broken) > 0 {
		t.Errorf("%d blocks are broken: %v", len(broken), err)
	}
	sent := int64(seed.p.Stats().SentBytes)
	t.Logf("%d bytes, of which all came at the %dth time; %d were sent, %.4f of it, %d more for each kill",
		have, kills+1, sent, float64(sent)/float64(total), (sent-total)/kills)
	if have != total || have < size {
		t.Errorf("%d of %d bytes are local", have, total)
	}
	if sent > total+kills*lostAtKill {
		t.Errorf("%d bytes were sent for %d", sent, total)
	}
}

// die runs the process and kills it when stop says so.
func die(t *testing.T, args string, stop func(done, total int64) bool) error {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestKilledTenTimes$", "-test.v")
	cmd.Env = append(os.Environ(), killed+"="+args)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	in := bufio.NewScanner(out)
	ended := ""
	for in.Scan() {
		var done, total int64
		if _, err := fmt.Sscanf(in.Text(), "PROGRESS %d %d", &done, &total); err != nil {
			ended += in.Text() + "\n"
			continue
		}
		if stop(done, total) {
			_ = cmd.Process.Kill() // or it has ended, which Wait tells
			for in.Scan() {        // what it had said before
			}
			_ = cmd.Wait()
			return nil
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, ended)
	}
	return nil
}

// pullToDie pulls and tells how far it is.
func pullToDie(t *testing.T, args string) {
	var dir, root, addr string
	if _, err := fmt.Sscan(args, &dir, &root, &addr); err != nil {
		t.Fatal(err)
	}
	c, err := cid.Decode(root)
	if err != nil {
		t.Fatal(err)
	}
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, openShard(t, dir), nodeOptions{alone: true})
	if err := n.h.Connect(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	err = n.p.Fetch(context.Background(), c, FetchOptions{Providers: []peer.ID{info.ID}, Progress: func(done, total int64) {
		// Not by t.Log, which buffers.
		_, _ = os.Stdout.WriteString("PROGRESS " + strconv.FormatInt(done, 10) + " " + strconv.FormatInt(total, 10) + "\n")
	}})
	if err != nil {
		t.Fatal(err)
	}
}
