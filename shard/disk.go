package shard

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// disk does what must reach the disk in a certain order. The zero value works
// on the file system; tests observe the order through trace.
type disk struct {
	// trace, if not nil, is called before each step; its error stops the step.
	trace func(op, path string) error
}

func (d disk) step(op, path string) error {
	if d.trace == nil {
		return nil
	}
	return d.trace(op, path)
}

// writeTemp writes data to a new file in dir and syncs it.
func (d disk) writeTemp(dir string, data []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, "block-*")
	if err != nil {
		return "", err
	}
	if err := d.fill(f, data); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// writeFile writes data to the file path and syncs it.
func (d disk) writeFile(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return d.fill(f, data)
}

func (d disk) fill(f *os.File, data []byte) error {
	if err := d.step("write", f.Name()); err != nil {
		f.Close()
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := d.step("sync", f.Name()); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	// Close, then rename. Windows refuses the reverse order.
	return f.Close()
}

func (d disk) rename(from, to string) error {
	if err := d.step("rename", to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (d disk) mkdir(dir string) error {
	if err := d.step("mkdir", dir); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o755)
}

func (d disk) syncFolder(dir string) error {
	if err := d.step("sync folder", dir); err != nil {
		return err
	}
	return syncFolder(dir)
}

// readFileMax reads a regular file of at most limit bytes.
func readFileMax(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", ErrTooLarge)
	}
	if fi.Size() > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, fi.Size(), limit)
	}
	data := make([]byte, fi.Size())
	n, err := io.ReadFull(f, data)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil // it shrank: short bytes have another hash
	}
	return data[:n], err
}
