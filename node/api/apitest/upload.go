package apitest

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/moot-net/moot/node/api"
)

// part is a file that comes in parts.
type part struct {
	api.UploadPart
	content []byte
}

// UploadPart implements api.Backend.
func (f *Fake) UploadPart(ctx context.Context, req api.UploadPartRequest, body io.Reader) (api.UploadPart, error) {
	if err := f.enter(ctx, "UploadPart"); err != nil {
		return api.UploadPart{}, err
	}
	b, err := io.ReadAll(body) // of what is cut off, what came stays
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.parts[req.ID]
	switch {
	case f.uploadDir == "":
		return api.UploadPart{}, api.Errorf(api.CodeDisk, "there is no room for %d bytes", req.Bytes)
	case p == nil && req.Offset == 0:
		if f.parts == nil {
			f.parts = make(map[string]*part)
		}
		p = &part{UploadPart: api.UploadPart{ID: req.ID, Name: filepath.Base(req.Name), Bytes: req.Bytes, Last: Epoch}}
		f.parts[req.ID] = p
	case p == nil || p.Have != req.Offset:
		return api.UploadPart{}, api.Errorf(api.CodeRetry, "the part begins at %d", req.Offset)
	}
	p.content = append(p.content, b...)
	p.Have = int64(len(p.content))
	return p.UploadPart, err
}

// UploadParts implements api.Backend.
func (f *Fake) UploadParts(context.Context) ([]api.UploadPart, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []api.UploadPart
	for _, p := range f.parts {
		list = append(list, p.UploadPart)
	}
	return list, nil
}

// FinishUpload implements api.Backend.
func (f *Fake) FinishUpload(ctx context.Context, id string, req api.FinishUploadRequest, _ api.ProgressFunc) (api.Upload, error) {
	if err := f.enter(ctx, "FinishUpload"); err != nil {
		return api.Upload{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.uploads {
		if u.ID != id {
			continue
		}
		b, err := os.ReadFile(u.File)
		if err != nil {
			return api.Upload{}, err
		}
		if digest, err := api.DigestUpload(bytes.NewReader(b), func(int64) {}); err != nil || digest != req.Digest {
			return api.Upload{}, api.Errorf(api.CodeConflict, "under its ID another file is here, all of it")
		}
		return u, nil
	}
	p := f.parts[id]
	switch {
	case p == nil:
		return api.Upload{}, api.Errorf(api.CodeNotFound, "there is no upload %.40q", id)
	case p.Have != p.Bytes:
		return api.Upload{}, api.Errorf(api.CodeUsage, "%d of %d bytes are here", p.Have, p.Bytes)
	}
	delete(f.parts, id)
	digest, err := api.DigestUpload(bytes.NewReader(p.content), func(int64) {})
	if err != nil {
		return api.Upload{}, err
	}
	if digest != req.Digest {
		return api.Upload{}, api.Errorf(api.CodeData, "what is here is not the file that was sent, and is removed")
	}
	u := api.Upload{ID: id, Name: p.Name, Bytes: p.Bytes, Received: Epoch, File: filepath.Join(f.uploadDir, id+"-"+p.Name)}
	f.uploads = append(f.uploads, u)
	return u, os.WriteFile(u.File, p.content, 0o600)
}
