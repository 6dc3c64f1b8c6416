package ledger

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

const (
	magicBytes   = 8
	frameHead    = 5 // length and kind
	frameTail    = 4 // checksum
	maxFrame     = 1 << 20
	kindRecord   = 1
	kindCert     = 2
	kindEval     = 3
	kindEvidence = 4
	kindLoose    = 5
	kindJump     = 6
	kindOwn      = 1
	kindSpent    = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameLog is a file of frames that grows at its end.
//
// Invariant: everything before end is complete and synced.
type frameLog struct {
	f   *os.File
	end int64
	// damaged: what was cut off had been written as a whole, so it may have been
	// more than the last, unsynced write of a crash.
	damaged bool
	// made: there was no log, or none that was complete.
	made bool
	// broken is set when a write failed and the file could not be cut back:
	// what is at its end is unknown.
	broken error
}

// frame is one frame of a log.
type frame struct {
	kind    byte
	offset  int64 // of the payload
	payload []byte
}

// openLog opens or makes a log and calls fn with each frame. The payload is
// fn's to keep. mend, if not nil, gives frames that take the place of what is damaged.
// It returns how many bytes were cut off.
func openLog(path, magic string, fn func(frame) error, mend func() []byte) (*frameLog, int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, err
	}
	l := &frameLog{f: f}
	cut, err := l.load(magic, fn, mend)
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return l, cut, nil
}

func (l *frameLog) load(magic string, fn func(frame) error, mend func() []byte) (cut int64, err error) {
	info, err := l.f.Stat()
	if err != nil {
		return 0, err
	}
	head := make([]byte, magicBytes)
	n, err := io.ReadFull(l.f, head)
	switch {
	case n < magicBytes && magic[:n] == string(head[:n]):
		// New, or a crash came before the magic was complete.
		if err := l.f.Truncate(0); err != nil {
			return 0, err
		}
		if _, err := l.f.WriteAt([]byte(magic), 0); err != nil {
			return 0, err
		}
		l.end, l.made = magicBytes, true
		return 0, errors.Join(l.f.Sync(), syncFolder(filepath.Dir(l.f.Name())))
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
		return 0, err
	case string(head) != magic:
		return 0, fmt.Errorf("begins with %q, not with %q: not such a log, or of another version", head, magic)
	}
	l.end = magicBytes
	r := bufio.NewReaderSize(l.f, 1<<16)
	for {
		fr, err := readFrame(r, l.end)
		if err != nil {
			l.damaged = !errors.Is(err, io.EOF) && (!errors.Is(err, io.ErrUnexpectedEOF) || l.goesOn(info.Size()))
			break // a torn or damaged end
		}
		if err := fn(fr); err != nil {
			return 0, err
		}
		l.end = fr.offset + int64(len(fr.payload)) + frameTail
	}
	cut = info.Size() - l.end
	if l.damaged && mend != nil {
		// First the mend, durably: a crash must not leave a log that looks whole.
		b := mend()
		if _, err := l.f.WriteAt(b, l.end); err != nil {
			return 0, err
		}
		if err := l.f.Sync(); err != nil {
			return 0, err
		}
		l.end += int64(len(b))
	}
	if cut > 0 {
		if err := l.f.Truncate(l.end); err != nil {
			return 0, err
		}
		return cut, l.f.Sync()
	}
	return 0, nil
}

// goesOn reports whether a whole frame comes after the one at the end of what was
// read, whose length reaches beyond the end of the file: then it is the length that is
// wrong.
func (l *frameLog) goesOn(size int64) bool {
	rest := make([]byte, min(size-l.end, 4*maxFrame))
	n, err := l.f.ReadAt(rest, l.end)
	if err != nil && !errors.Is(err, io.EOF) {
		return true // nobody knows
	}
	for at := 1; at+frameHead+frameTail <= n; at++ {
		if _, err := readFrame(bytes.NewReader(rest[at:n]), 0); err == nil {
			return true
		}
	}
	return false
}

func readFrame(r io.Reader, at int64) (frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrame {
		return frame{}, fmt.Errorf("frame of %d bytes", n)
	}
	b := make([]byte, int(n)+frameTail)
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, err
	}
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, b[:n])
	if binary.LittleEndian.Uint32(b[n:]) != sum {
		return frame{}, errors.New("checksum does not match")
	}
	return frame{kind: head[4], offset: at + frameHead, payload: b[:n:n]}, nil
}

func appendFrame(b []byte, kind byte, payload []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = append(append(b, kind), payload...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// append writes frames, one after the other in b, durably. After an error the
// log is as before.
func (l *frameLog) append(b []byte) error {
	if l.broken != nil {
		return l.broken
	}
	_, err := l.f.WriteAt(b, l.end)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		if terr := l.f.Truncate(l.end); terr != nil {
			l.broken = fmt.Errorf("%w (and cutting the log back: %w)", err, terr)
		}
		return err
	}
	l.end += int64(len(b))
	return nil
}

// read returns n bytes of a payload at off.
func (l *frameLog) read(off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := l.f.ReadAt(b, off)
	return b, err
}

// replaceLog puts a log with the given frames in the place of l.
func replaceLog(l *frameLog, magic string, frames []byte) (*frameLog, error) {
	path := l.f.Name()
	tmp, err := os.OpenFile(path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = tmp.Write(append([]byte(magic), frames...))
	if err == nil {
		err = tmp.Sync()
	}
	// Close, then rename: Windows refuses the reverse order, for both files.
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path + ".tmp")
		return nil, err
	}
	l.f.Close()
	if err := os.Rename(path+".tmp", path); err != nil {
		return nil, err
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	n, _, err := openLog(path, magic, func(frame) error { return nil }, nil)
	return n, err
}

// syncFolder makes the names in a folder durable, where the system can.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_ = d.Sync() // Windows cannot; a rename there is as durable as it is
	return nil
}
