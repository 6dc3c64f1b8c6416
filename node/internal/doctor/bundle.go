package doctor

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// Bundle writes files into a new zip file that only its user can read. What is
// secret or tells who somebody is does not go into it: each text goes through
// r.
func Bundle(path string, files map[string][]byte, r *Redactor) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	return WriteBundle(f, files, r)
}

// WriteBundle is Bundle for a file that is open.
func WriteBundle(w io.Writer, files map[string][]byte, r *Redactor) error {
	z := zip.NewWriter(w)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Now().UTC()})
		if err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
		if _, err := w.Write([]byte(r.Redact(string(files[name])))); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}
