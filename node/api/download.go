package api

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// download sends an adapter of a run as a tar archive, for a browser, which
// cannot name a folder of this machine. It is exported as by POST, with the
// same test.
func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	req, name, err := s.fillDownload(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	release, err := slot(s.streams, "operations")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer release()
	temp, err := os.MkdirTemp("", "moot-adapter-*")
	if err != nil {
		s.fail(w, r, fmt.Errorf("make a folder for the export: %w", err))
		return
	}
	defer os.RemoveAll(temp)
	req.Dir = filepath.Join(temp, name)
	e, err := s.backend.Export(r.Context(), req, func(Progress) {})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`.tar"`)
	w.Header().Set("ETag", `"`+e.State+"-"+req.Format+`"`)
	if err := writeTar(&deadlined{w}, name, e); err != nil && r.Context().Err() == nil {
		s.log.WarnContext(r.Context(), "download failed", "run", req.Run, "err", err)
		panic(http.ErrAbortHandler) // so that the asker sees a cut
	}
}

// fillDownload reads the parameters, and makes a name for the folder in the
// archive.
func (s *Server) fillDownload(r *http.Request) (req ExportRequest, name string, err error) {
	q := r.URL.Query()
	req.Format = q.Get("format")
	switch req.Format {
	case "":
		req.Format = ExportPEFT
	case ExportPEFT, ExportGGUF:
	default:
		return req, "", Errorf(CodeUsage, "format is %s, must be %s or %s", clip(req.Format), ExportPEFT, ExportGGUF).
			WithHint(`"moot adapter export" writes the others`)
	}
	switch round := q.Get("round"); round {
	case "", "last":
	case "best":
		req.Best = true
	default:
		n, err := number("round", round, 0, 1<<53)
		if err != nil {
			return req, "", err
		}
		req.Round = &n
	}
	if req.Run, err = s.run(r.Context(), r.PathValue("id")); err != nil {
		return req, "", err
	}
	at := "last"
	switch {
	case req.Best:
		at = "best"
	case req.Round != nil:
		at = fmt.Sprint(*req.Round)
	}
	return req, ShortID(req.Run) + "-" + at + "-" + req.Format, nil
}

// writeTar writes the files of an export.
func writeTar(w io.Writer, name string, e Export) error {
	t := tar.NewWriter(w)
	for _, x := range e.Files {
		if err := addFile(t, filepath.Join(e.Dir, filepath.FromSlash(x.Name)), name+"/"+x.Name); err != nil {
			return err
		}
	}
	return t.Close()
}

func addFile(t *tar.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size(), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// deadlined bounds each write: who does not read is left.
type deadlined struct{ w http.ResponseWriter }

func (d *deadlined) Write(b []byte) (int, error) {
	setWriteDeadline(d.w)
	n, err := d.w.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.DeadlineExceeded
	}
	return n, err
}
