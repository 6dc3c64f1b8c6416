package doctor

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/moot-net/moot/shard"
)

// data looks at the data folder.
func (d *doctor) data() {
	dir := d.Config.DataDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.noData(dir)
		return
	case err != nil:
		d.fail("data", err.Error(), "make the folder readable, or give another one with --data-dir")
		return
	case !info.IsDir():
		d.fail("data", dir+" is not a folder", "give another one with --data-dir")
		return
	}
	if err := writable(dir); err != nil {
		d.fail("data", fmt.Sprintf("%s cannot be written: %v", dir, err), "make it writable for this user, or give another one with --data-dir")
		return
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		d.warn("data", fmt.Sprintf("others may look into %s (mode %04o)", dir, mode), fmt.Sprintf("chmod 700 %q", dir))
	} else {
		d.ok("data", "%s can be written", dir)
	}
	d.space(dir)
	d.identity(dir)
	d.store(dir)
}

// noData is for a folder that the first start makes.
func (d *doctor) noData(dir string) {
	parent := dir
	for {
		parent = filepath.Dir(parent)
		if _, err := os.Stat(parent); err == nil || parent == filepath.Dir(parent) {
			break
		}
	}
	if err := writable(parent); err != nil {
		d.fail("data", fmt.Sprintf("%s is not there and cannot be made: %v", dir, err), "give another folder with --data-dir")
		return
	}
	d.ok("data", "%s is made at the first start", dir)
	d.space(parent)
}

func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (d *doctor) space(dir string) {
	free, err := d.FreeBytes(dir)
	if err != nil {
		d.warn("space", fmt.Sprintf("it is not known how much is free: %v", err), "look at it with the tools of the system")
		return
	}
	least := d.Config.MinFreeMB * 1e6
	text := fmt.Sprintf("%.1f GB are free, %.1f GB of them stay so", float64(free)/1e9, float64(least)/1e9)
	switch {
	case free <= least:
		d.fail("space", text, `make room ("moot cache ls" says what could go), or lower min_free_mb`)
	case free < least+5e9:
		d.warn("space", text, "most models need more than 5 GB; make room, or give another disk with --data-dir")
	default:
		d.ok("space", "%s", text)
	}
}

func (d *doctor) identity(dir string) {
	id, err := d.Identity(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.ok("identity", "it is made at the first start")
	case err != nil:
		d.fail("identity", err.Error(), "restore identity.key from a backup, or move it away to start as a new peer")
	default:
		d.ok("identity", "peer %s", id)
	}
}

// store opens the store, unless the daemon has it open.
func (d *doctor) store(dir string) {
	if d.status != nil {
		d.ok("store", "the daemon has it open")
		return
	}
	path := filepath.Join(dir, "store")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		d.ok("store", "it is made at the first start")
		return
	}
	problems := 0
	s, err := shard.OpenOptions{Problem: func(shard.Problem) { problems++ }}.Open(path)
	if errors.Is(err, shard.ErrLocked) {
		d.fail("store", "another process uses it, and no daemon answers", "wait until it has ended, or end it")
		return
	}
	if err != nil {
		d.fail("store", err.Error(), "move the folder away; what was in it is pulled and imported again")
		return
	}
	if err := s.Close(); err != nil {
		d.fail("store", err.Error(), "look at the disk: it does not take what is written")
		return
	}
	if problems > 0 {
		d.warn("store", fmt.Sprintf("%d files are not as they should be", problems), `"moot shard verify" says which, and what is lost`)
		return
	}
	d.ok("store", "it opens")
}

// clockSlack is how far in the future a file may be before the clock is wrong.
const clockSlack = 2 * time.Minute

// clock compares the clock with what is known to be in the past, and asks the
// system whether somebody sets it. Rounds begin and end by the clock.
func (d *doctor) clock() {
	const fix = "let the system set its clock by NTP; rounds begin and end by the clock"
	now := time.Now()
	if built := buildTime(); now.Before(built.Add(-24 * time.Hour)) {
		d.fail("clock", fmt.Sprintf("it says %s, before this program was made", now.Format(time.DateTime)), fix)
		return
	}
	if d.status != nil && d.status.ClockError != "" {
		d.fail("clock", d.status.ClockError, fix)
		return
	}
	for _, file := range []string{"identity.key", "control.json", "traffic.json", "peers"} {
		if info, err := os.Stat(filepath.Join(d.Config.DataDir, file)); err == nil && info.ModTime().After(now.Add(clockSlack)) {
			d.warn("clock", fmt.Sprintf("%s was written %s in the future", file, info.ModTime().Sub(now).Round(time.Second)), fix)
			return
		}
	}
	switch synced, known := clockSynced(); {
	case known && !synced:
		d.warn("clock", fmt.Sprintf("it says %s; the system does not know whether that is right", now.Format(time.DateTime)), fix)
	case known:
		d.ok("clock", "the system keeps it right")
	default:
		d.ok("clock", "it says %s", now.Format(time.DateTime))
	}
}

func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, _ := time.Parse(time.RFC3339, s.Value) // zero if it cannot be read
			return t
		}
	}
	return time.Time{}
}

// What speed writes and hashes, and what is slow.
const (
	probeBytes    = 32 << 20
	slowDiskMBs   = 20
	slowSHA256MBs = 100
)

// speed measures the disk and SHA-256, with which everything is checked that
// comes from others.
func (d *doctor) speed() {
	dir := d.Config.DataDir
	if _, err := os.Stat(dir); err != nil {
		dir = os.TempDir()
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * 7)
	}
	mbs, err := writeSpeed(dir, block)
	switch {
	case err != nil:
		d.warn("disk", fmt.Sprintf("its speed could not be measured: %v", err), "make room, or look at the disk")
	case mbs < slowDiskMBs:
		d.warn("disk", fmt.Sprintf("it writes %.0f MB/s", mbs), "a faster disk (--data-dir) makes pulls and checkpoints faster")
	default:
		d.ok("disk", "it writes %.0f MB/s", mbs)
	}
	h := sha256.New()
	began := time.Now()
	for range probeBytes / len(block) {
		h.Write(block)
	}
	_ = h.Sum(nil)
	mbs = probeBytes / 1e6 / time.Since(began).Seconds()
	if mbs < slowSHA256MBs {
		d.warn("hashing", fmt.Sprintf("SHA-256 runs at %.0f MB/s on one processor", mbs), "end what else keeps the processor busy, or expect slow pulls")
		return
	}
	d.ok("hashing", "SHA-256 runs at %.0f MB/s on one of %d processors", mbs, runtime.NumCPU())
}

// writeSpeed writes probeBytes and syncs them, in 1e6 bytes per second.
func writeSpeed(dir string, block []byte) (float64, error) {
	f, err := os.CreateTemp(dir, ".doctor*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	began := time.Now()
	for range probeBytes / len(block) {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	return probeBytes / 1e6 / time.Since(began).Seconds(), nil
}
