package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/moot-net/moot/node/internal/tensor"
)

// A checkpoint is one file:
//
//	magic (8 bytes), sequence number (u64), fingerprint (32 bytes),
//	optimizer steps (u64), bytes of position (u64), position,
//	values, first moments, second moments (float32 each),
//	SHA-256 of everything before it (32 bytes)
//
// all little endian. There are two slots. Save writes the one with the older
// checkpoint and syncs it, Load takes the newest one whose hash is right: a
// crash at any byte of a save leaves the other slot as it was.
const (
	checkpointMagic  = "mootckp1"
	checkpointHeader = 8 + 8 + 32 + 8 + 8
	// MaxPositionBytes bounds the position in a checkpoint.
	MaxPositionBytes = 1 << 20
)

var slotNames = [2]string{"checkpoint-0.bin", "checkpoint-1.bin"}

// fingerprint identifies what is trained, so that a checkpoint of something
// else is not taken for it.
func (t *Trainer) fingerprint() [32]byte {
	h := sha256.New()
	for _, info := range t.layout {
		fmt.Fprintf(h, "%s %d %d\n", info.Name, info.Rows, info.Cols)
	}
	return [32]byte(h.Sum(nil))
}

// Save makes the trained values, the optimizer's state and position durable.
// The previous save stays readable until this one is complete.
func (t *Trainer) Save(position []byte) error {
	if err := t.save(position); err != nil {
		return fmt.Errorf("save checkpoint in %q: %w", t.dir, err)
	}
	return nil
}

func (t *Trainer) save(position []byte) error {
	if t.dir == "" {
		return errors.New("no checkpoint folder was set")
	}
	if len(position) > MaxPositionBytes {
		return fmt.Errorf("position of %d bytes, at most %d", len(position), MaxPositionBytes)
	}
	if t.saves == 0 { // this process has not looked yet
		if err := os.MkdirAll(t.dir, 0o700); err != nil {
			return err
		}
		if c, err := t.newest(); err == nil && c != nil {
			t.saves = c.sequence
		}
	}
	t.saves++
	path := filepath.Join(t.dir, slotNames[t.saves%2])
	_, statErr := os.Stat(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	b := t.marshal(position)
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(b))); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if statErr != nil {
		syncDir(t.dir)
	}
	return f.Close()
}

// syncDir makes the name of a new file durable. Not every system can do that
// to a folder, and then there is nothing to be done about it.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync() //nolint:errcheck // see above
		d.Close()
	}
}

func (t *Trainer) marshal(position []byte) []byte {
	n := t.values.Cols
	b := make([]byte, 0, checkpointHeader+len(position)+12*n+sha256.Size)
	b = append(b, checkpointMagic...)
	b = binary.LittleEndian.AppendUint64(b, t.saves)
	mark := t.fingerprint()
	b = append(b, mark[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(t.steps))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(position)))
	b = append(b, position...)
	values := make([]float32, n)
	for _, m := range []tensor.Mat{t.values, t.moment1, t.moment2} {
		t.b.Download(values, m)
		for _, v := range values {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// Load brings back the newest complete save, and reports false when there is
// none. Steps after it give the same bits as they would have given after Save.
func (t *Trainer) Load() (position []byte, ok bool, err error) {
	if t.dir == "" {
		return nil, false, errors.New("load checkpoint: no checkpoint folder was set")
	}
	c, err := t.newest()
	if err != nil || c == nil {
		if err != nil {
			err = fmt.Errorf("load checkpoint in %q: %w", t.dir, err)
		}
		return nil, false, err
	}
	n := t.values.Cols
	values := make([]float32, n)
	for i, m := range []tensor.Mat{t.values, t.moment1, t.moment2} {
		for j := range values {
			values[j] = math.Float32frombits(binary.LittleEndian.Uint32(c.floats[4*(i*n+j):]))
		}
		t.b.Upload(m, values)
	}
	t.saves, t.steps = c.sequence, int(c.steps)
	return c.position, true, nil
}

// ErrCheckpoint is wrapped by the error for a checkpoint folder in which no
// slot can be used, though at least one was written.
var ErrCheckpoint = errors.New("checkpoint is not usable")

type checkpoint struct {
	sequence, steps uint64
	position        []byte
	floats          []byte
}

// newest returns the newest checkpoint that is complete, nil if none was ever
// written.
func (t *Trainer) newest() (*checkpoint, error) {
	var best *checkpoint
	var problem error
	for _, name := range slotNames {
		c, err := t.readSlot(filepath.Join(t.dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			problem = fmt.Errorf("%s: %w", name, err)
		case best == nil || c.sequence > best.sequence:
			best = c
		}
	}
	if best != nil {
		return best, nil
	}
	return nil, problem
}

func (t *Trainer) readSlot(path string) (*checkpoint, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	fixed := int64(checkpointHeader + 12*t.values.Cols + sha256.Size)
	if st.Size() < fixed || st.Size() > fixed+MaxPositionBytes {
		return nil, fmt.Errorf("%w: %d bytes, want at least %d", ErrCheckpoint, st.Size(), fixed)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) < fixed {
		return nil, fmt.Errorf("%w: it shrank", ErrCheckpoint)
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) || string(body[:8]) != checkpointMagic {
		return nil, fmt.Errorf("%w: it was not written to its end, or damaged", ErrCheckpoint)
	}
	if mark := t.fingerprint(); !bytes.Equal(body[16:48], mark[:]) {
		return nil, fmt.Errorf("%w: it is of another adapter", ErrCheckpoint)
	}
	c := &checkpoint{sequence: binary.LittleEndian.Uint64(body[8:]), steps: binary.LittleEndian.Uint64(body[48:])}
	n := binary.LittleEndian.Uint64(body[56:])
	if int64(n) != int64(len(b))-fixed {
		return nil, fmt.Errorf("%w: position of %d bytes", ErrCheckpoint, n)
	}
	c.position, c.floats = body[checkpointHeader:checkpointHeader+n], body[checkpointHeader+n:]
	return c, nil
}
