package api

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// UploadRequest says what is uploaded.
type UploadRequest struct {
	Name  string // of the file, where it comes from
	Bytes int64
}

// Upload is a file of rows that was sent to the node, because it is not on the
// node's machine. It goes after a day.
type Upload struct {
	ID    string `json:"id"`
	Name  string `json:"name"` // as it is stored: of letters, digits and a few more
	Bytes int64  `json:"bytes"`
	// File is its path, for a check or an import.
	File     string    `json:"file"`
	Received time.Time `json:"received"`
}

// Uploads answers a list of uploads.
type Uploads struct {
	Uploads []Upload `json:"uploads"`
	// Parts are files of which not all came yet, the oldest first.
	Parts []UploadPart `json:"parts"`
	// MaxBytes is how many bytes a file may have, and all of them together.
	MaxBytes int64 `json:"max_bytes"`
}

// The bounds of uploads. What is larger is for "moot data import" on the node's
// machine, which needs no copy.
const (
	MaxUploadBytes = 4 << 30 // of one file, and of all that are here
	MaxUploads     = 100
	maxUploadName  = 255
)

// takeFile makes a handler of what takes a body of any length.
func takeFile[Q, T any](s *Server, fill func(r *http.Request) (Q, error), take func(ctx context.Context, req Q, body io.Reader) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		req, err := fill(r)
		var release func()
		if err == nil {
			release, err = slot(s.streams, "operations")
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		defer release()
		body := &slowBody{http.NewResponseController(w), r.Body}
		v, err := take(r.Context(), req, body)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			e := Errorf(CodeUsage, "%w", err)
			e.status = http.StatusRequestTimeout
			err = e
		}
		_ = body.SetReadDeadline(time.Time{}) // the connection goes on
		s.answer(w, r, v, err)
	}
}

// fillUpload checks what is known before the file comes.
func fillUpload(r *http.Request) (UploadRequest, error) {
	req := UploadRequest{Name: r.URL.Query().Get("name"), Bytes: r.ContentLength}
	refuse := func(status int, e *Error) (UploadRequest, error) {
		e.status = status
		return req, e
	}
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err != nil || t != "application/octet-stream":
		return refuse(http.StatusUnsupportedMediaType, Errorf(CodeUsage, "the body must be the file, not %s", clip(r.Header.Get("Content-Type"))).
			WithHint("send Content-Type: application/octet-stream"))
	case strings.TrimSpace(req.Name) == "":
		return req, Errorf(CodeUsage, "name is missing; it tells by its end what is in the file, such as rows.jsonl")
	case len(req.Name) > maxUploadName || !utf8.ValidString(req.Name):
		return req, Errorf(CodeUsage, "name must be UTF-8 of at most %d bytes", maxUploadName)
	case req.Bytes < 0:
		return refuse(http.StatusLengthRequired, Errorf(CodeUsage, "the length of the file is missing").WithHint("send Content-Length"))
	case req.Bytes == 0:
		return req, Errorf(CodeUsage, "%s is empty", clip(req.Name))
	case req.Bytes > MaxUploadBytes:
		return refuse(http.StatusRequestEntityTooLarge, uploadTooLarge(req.Name, req.Bytes))
	}
	return req, nil
}

func uploadTooLarge(name string, size int64) *Error {
	return Errorf(CodeUsage, "%s has %d bytes, at most %d are taken", clip(name), size, int64(MaxUploadBytes)).
		WithHint(`copy it to the node's machine and give its path, here or to "moot data import"`)
}

// slowBody is a body of any length, of which something has to come every now
// and then.
type slowBody struct {
	*http.ResponseController
	r io.Reader
}

func (b *slowBody) Read(p []byte) (int, error) {
	_ = b.SetReadDeadline(time.Now().Add(bodyTimeout)) // a test's recorder has none
	return b.r.Read(p)
}

func (s *Server) uploads(ctx context.Context, _ *http.Request) (Uploads, error) {
	l, err := s.backend.Uploads(ctx)
	if err != nil {
		return Uploads{}, err
	}
	parts, err := s.backend.UploadParts(ctx)
	return Uploads{list(l), list(parts), MaxUploadBytes}, err
}

func (s *Server) removeUpload(ctx context.Context, r *http.Request) (Upload, error) {
	return s.backend.RemoveUpload(ctx, r.PathValue("id"))
}
