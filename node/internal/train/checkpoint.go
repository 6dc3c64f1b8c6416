package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A checkpoint is one file:
//
//	magic (8 bytes), sequence number (u64), fingerprint (32 bytes),
//	optimizer steps (u64), bytes of position (u64), kind of optimizer (u64),
//	position, values (float32 each), the optimizer's state,
//	SHA-256 of everything before it (32 bytes)
//
// all little endian. AdamW's state is its first moments and its second ones
// (float32 each), SGD's the mean of its gradients if it has momentum, and that
// of AdamW in eight bits is, for first and then second moments, the codes and
// the scales of all blocks (float32 each) of large tensors, and then the
// moments of small tensors as AdamW has them. Version 1, which is read too,
// knew AdamW alone and had no kind.
//
// There are two slots. Save writes the one with the older
// checkpoint and syncs it, Load takes the newest one whose hash is right: a
// crash at any byte of a save leaves the other slot as it was.
const (
	checkpointMagic  = "mootckp2"
	checkpointFirst  = "mootckp1" // magic of version 1
	checkpointHeader = 8 + 8 + 32 + 8 + 8 + 8
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
	b := make([]byte, 0, checkpointHeader+len(position)+4*t.values.Cols+t.optimizer.bytes()+sha256.Size)
	b = append(b, checkpointMagic...)
	b = binary.LittleEndian.AppendUint64(b, t.saves)
	mark := t.fingerprint()
	b = append(b, mark[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(t.steps))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(position)))
	b = binary.LittleEndian.AppendUint64(b, uint64(t.kind))
	b = append(b, position...)
	b = t.optimizer.save(appendValues(t.b, b, t.values))
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
	loadValues(t.b, t.values, c.values)
	t.optimizer.load(c.state)
	t.saves, t.steps = c.sequence, int(c.steps)
	return c.position, true, nil
}

// ErrCheckpoint is wrapped by the error for a checkpoint folder in which no
// slot can be used, though at least one was written.
var ErrCheckpoint = errors.New("checkpoint is not usable")

type checkpoint struct {
	sequence, steps uint64
	position        []byte
	values, state   []byte
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
	// No optimizer has a larger state than AdamW.
	if most := int64(checkpointHeader + MaxPositionBytes + 12*t.values.Cols + sha256.Size); st.Size() > most {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrCheckpoint, st.Size(), most)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) < checkpointHeader+sha256.Size {
		return nil, fmt.Errorf("%w: %d bytes", ErrCheckpoint, len(b))
	}
	return t.parse(b)
}

func (t *Trainer) parse(b []byte) (*checkpoint, error) {
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, fmt.Errorf("%w: it was not written to its end, or damaged", ErrCheckpoint)
	}
	kind, header := AdamW, checkpointHeader
	switch string(body[:8]) {
	case checkpointMagic:
		kind = Optimizer(binary.LittleEndian.Uint64(body[64:]))
	case checkpointFirst:
		header -= 8
	default:
		return nil, fmt.Errorf("%w: it is of another version", ErrCheckpoint)
	}
	if mark := t.fingerprint(); !bytes.Equal(body[16:48], mark[:]) {
		return nil, fmt.Errorf("%w: it is of another adapter", ErrCheckpoint)
	}
	if kind != t.kind {
		return nil, fmt.Errorf("%w: it is of optimizer %v, not %v", ErrCheckpoint, kind, t.kind)
	}
	n, rest := binary.LittleEndian.Uint64(body[56:]), body[header:]
	if own := len(rest) - 4*t.values.Cols - t.optimizer.bytes(); own < 0 || n != uint64(own) {
		return nil, fmt.Errorf("%w: %d bytes behind its header, of them %d of a position, are not what %v saves with these settings",
			ErrCheckpoint, len(rest), n, kind)
	}
	values := rest[n:]
	return &checkpoint{
		sequence: binary.LittleEndian.Uint64(body[8:]), steps: binary.LittleEndian.Uint64(body[48:]),
		position: rest[:n], values: values[:4*t.values.Cols], state: values[4*t.values.Cols:],
	}, nil
}
