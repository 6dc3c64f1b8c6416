package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"path/filepath"
	"strings"
	"time"
)

// decode reads the JSON object in the body of r into v. Unknown fields are
// refused: a misspelt one would be ignored otherwise.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		e := Errorf(CodeUsage, "the body must be JSON, not %s", clip(r.Header.Get("Content-Type"))).WithHint("send Content-Type: application/json")
		e.status = http.StatusUnsupportedMediaType
		return e
	}
	b, err := body(w, r)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Errorf(CodeUsage, "the body is not the JSON object this needs: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Errorf(CodeUsage, "the body has something after its JSON object")
	}
	return nil
}

// body reads the whole body, with a deadline against those who send a byte a
// minute.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // a test's recorder has none
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
		e := Errorf(CodeUsage, "the body has more than %d bytes", maxBodyBytes)
		e.status = http.StatusRequestEntityTooLarge
		return nil, e
	}
	if err != nil {
		e := Errorf(CodeUsage, "read body: %w", err)
		e.status = http.StatusRequestTimeout
		return nil, e
	}
	// Without this, the deadline would end a long operation: the server keeps
	// reading to notice when the asker goes away.
	_ = rc.SetReadDeadline(time.Time{})
	return b, nil
}

// checkPath wants an absolute path in its shortest form.
func checkPath(key, path string) error {
	switch {
	case path == "":
		return Errorf(CodeUsage, "%s is missing", key)
	case !filepath.IsAbs(path) || strings.ContainsRune(path, 0):
		return Errorf(CodeUsage, "%s is %s, must be an absolute path", key, clip(path))
	case filepath.Clean(path) != path:
		return Errorf(CodeUsage, "%s is %s, must be without . and .., as %s", key, clip(path), clip(filepath.Clean(path)))
	}
	return nil
}
