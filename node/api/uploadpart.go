package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

// UploadPiece is of how many bytes a digest is made of a file that comes in parts.
const UploadPiece = 4 << 20

// maxUploadPart bounds the bytes of one part.
const maxUploadPart = 16 << 20

// UploadPartRequest says which part of a file comes.
type UploadPartRequest struct {
	// ID is chosen by who sends, 16 hexadecimal digits that are those of the
	// same file alone: so it is known again after a break.
	ID    string
	Name  string // of the file
	Bytes int64  // of the file
	// Offset is where the part begins: as many bytes as are there.
	Offset int64
	Size   int64 // of the part
}

// UploadPart is a file of which not all came, or which was not finished. It goes a
// day after the last part.
type UploadPart struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"` // of the file
	// Have is how many of them are there: where to go on.
	Have int64     `json:"have"`
	Last time.Time `json:"last"`
}

// FinishUploadRequest says that all of a file was sent.
type FinishUploadRequest struct {
	// Digest is that of an UploadDigest, so that what is there is what was sent.
	Digest string `json:"digest"`
}

// UploadDigest makes the digest of a file: the SHA-256, in hexadecimal digits, of the
// SHA-256 of its pieces of UploadPiece bytes, one after the other. A browser can
// make it of a file of any size, that of the whole it cannot.
type UploadDigest struct {
	pieces, piece hash.Hash
	n             int64 // bytes of piece
}

// NewUploadDigest returns a digest of nothing.
func NewUploadDigest() *UploadDigest { return &UploadDigest{pieces: sha256.New(), piece: sha256.New()} }

// Write implements io.Writer; it never fails.
func (d *UploadDigest) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 {
		n := min(int64(len(p)), UploadPiece-d.n)
		_, _ = d.piece.Write(p[:n])
		d.n += n
		p = p[n:]
		if d.n == UploadPiece {
			d.end()
		}
	}
	return all, nil
}

func (d *UploadDigest) end() {
	_, _ = d.pieces.Write(d.piece.Sum(nil))
	d.piece.Reset()
	d.n = 0
}

// Sum returns the digest of all that was written; nothing is written after it.
func (d *UploadDigest) Sum() string {
	if d.n > 0 {
		d.end()
	}
	return hex.EncodeToString(d.pieces.Sum(nil))
}

var (
	uploadID     = regexp.MustCompile(`^[0-9a-f]{16}$`)
	uploadDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// fillUploadPart checks what is known before the part comes.
func fillUploadPart(r *http.Request) (UploadPartRequest, error) {
	q := r.URL.Query()
	part, err := fillUpload(r) // of which the length is that of the part
	if err != nil {
		return UploadPartRequest{}, err
	}
	req := UploadPartRequest{ID: r.PathValue("id"), Name: part.Name, Size: part.Bytes}
	if !uploadID.MatchString(req.ID) {
		return req, Errorf(CodeUsage, "upload %s: its ID must be 16 hexadecimal digits, of small letters", clip(req.ID))
	}
	for _, f := range []struct {
		name string
		v    *int64
	}{{"bytes", &req.Bytes}, {"offset", &req.Offset}} {
		n, err := strconv.ParseInt(q.Get(f.name), 10, 64)
		if err != nil || n < 0 {
			return req, Errorf(CodeUsage, "%s is %s, must be a number of bytes", f.name, clip(strconv.Quote(q.Get(f.name))))
		}
		*f.v = n
	}
	tooLarge := func(e *Error) (UploadPartRequest, error) {
		e.status = http.StatusRequestEntityTooLarge
		return req, e
	}
	switch {
	case req.Bytes > MaxUploadBytes:
		return tooLarge(uploadTooLarge(req.Name, req.Bytes))
	case req.Size > maxUploadPart:
		return tooLarge(Errorf(CodeUsage, "the part has %d bytes, at most %d are taken at once", req.Size, maxUploadPart))
	case req.Offset > req.Bytes-req.Size:
		return req, Errorf(CodeUsage, "a part of %d bytes from %d is beyond the %d of %s", req.Size, req.Offset, req.Bytes, clip(req.Name))
	}
	return req, nil
}

// uploadPart takes a part. One that is refused is read all the same: else a browser
// sees a broken line in place of the answer.
func (s *Server) uploadPart(ctx context.Context, req UploadPartRequest, body io.Reader) (UploadPart, error) {
	p, err := s.backend.UploadPart(ctx, req, body)
	if err != nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(body, maxUploadPart))
	}
	return p, err
}

func checkFinishUpload(_ context.Context, req *FinishUploadRequest) error {
	if !uploadDigest.MatchString(req.Digest) {
		return Errorf(CodeUsage, "digest must be 64 hexadecimal digits: the SHA-256 of those of the file's pieces of %d bytes", UploadPiece)
	}
	return nil
}

func (s *Server) finishUpload(w http.ResponseWriter, r *http.Request) {
	long(s, checkFinishUpload, func(ctx context.Context, req FinishUploadRequest, progress ProgressFunc) (Upload, error) {
		return s.backend.FinishUpload(ctx, r.PathValue("id"), req, progress)
	})(w, r)
}

// DigestUpload makes the digest of what r has, and tells how far it is.
func DigestUpload(r io.Reader, each func(done int64)) (string, error) {
	d := NewUploadDigest()
	for done := int64(0); ; {
		n, err := io.CopyN(d, r, UploadPiece)
		done += n
		each(done)
		if errors.Is(err, io.EOF) {
			return d.Sum(), nil
		}
		if err != nil {
			return "", err
		}
	}
}
