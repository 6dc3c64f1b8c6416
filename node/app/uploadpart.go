package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moot-net/moot/node/api"
)

// partSuffix ends the name of the folder of a file of which not all came:
// ID.BYTES.part, beside those of uploads. It becomes the folder of the upload.
const partSuffix = ".part"

// UploadPart implements api.Backend.
func (n *node) UploadPart(ctx context.Context, req api.UploadPartRequest, body io.Reader) (p api.UploadPart, err error) {
	defer func() { err = uploadError(req.Name, err) }()
	p, path, done, err := n.beginUploadPart(ctx, req)
	if err != nil {
		return p, err
	}
	defer done()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return p, err
	}
	got, err := io.Copy(f, contextReader{ctx, io.LimitReader(body, req.Size)})
	if err = errors.Join(err, f.Close()); err == nil && got != req.Size {
		err = api.Errorf(api.CodeUsage, "%d of %d bytes of a part came", got, req.Size).WithHint("send the rest of it")
	}
	p.Have += got
	p.Last = time.Now().UTC()
	return p, err
}

// beginUploadPart finds the file that a part belongs to, or makes it with the
// first one, and keeps others from writing it until done is called.
func (n *node) beginUploadPart(ctx context.Context, req api.UploadPartRequest) (p api.UploadPart, path string, done func(), err error) {
	n.uploading.Lock()
	defer n.uploading.Unlock()
	if _, err := n.readUpload(req.ID); err == nil {
		return p, "", nil, api.Errorf(api.CodeRetry, "it is here already, all of it").WithHint("ask for the list of uploads, and finish it")
	}
	name := uploadName(req.Name)
	p, dir, err := n.findUploadPart(req.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist) && req.Offset == 0:
		if err := n.roomForUpload(ctx, req.Bytes); err != nil {
			return p, "", nil, err
		}
		p = api.UploadPart{ID: req.ID, Name: name, Bytes: req.Bytes}
		if dir, err = n.makeUploadPart(p); err != nil {
			return p, "", nil, err
		}
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return p, "", nil, err
	case p.Name != name || p.Bytes != req.Bytes:
		return p, "", nil, api.Errorf(api.CodeConflict, "under its ID there is a part of another file").WithHint("send it under an ID of its own")
	default:
		if err := n.checkSpace(p.Bytes - p.Have); err != nil {
			return p, "", nil, err
		}
	}
	switch {
	case n.uploadingParts[req.ID]:
		return p, "", nil, api.Errorf(api.CodeRetry, "a part of it is under way").WithHint("wait for it, or send the file once")
	case p.Have != req.Offset:
		return p, "", nil, api.Errorf(api.CodeRetry, "%d bytes of it are here, and the part begins at %d", p.Have, req.Offset).WithHint("ask for the list of uploads, and go on from there")
	}
	return p, filepath.Join(dir, p.Name), n.lockUploadPart(req.ID), nil
}

// lockUploadPart keeps others from a file until done is called; n.uploading is
// held.
func (n *node) lockUploadPart(id string) (done func()) {
	if n.uploadingParts == nil {
		n.uploadingParts = make(map[string]bool)
	}
	n.uploadingParts[id] = true
	return func() {
		n.uploading.Lock()
		defer n.uploading.Unlock()
		delete(n.uploadingParts, id)
	}
}

// makeUploadPart makes the folder of a file that comes in parts, with nothing of
// it: at once, so that there is never a folder without file.
func (n *node) makeUploadPart(p api.UploadPart) (dir string, err error) {
	if err := os.MkdirAll(filepath.Join(n.dir, uploadsDir), 0o700); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(n.dir, importTemp)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp) // it is not there any more when all went well
	if err := os.WriteFile(filepath.Join(temp, p.Name), nil, 0o600); err != nil {
		return "", err
	}
	dir = filepath.Join(n.dir, uploadsDir, fmt.Sprintf("%s.%d%s", p.ID, p.Bytes, partSuffix))
	return dir, os.Rename(temp, dir)
}

// FinishUpload implements api.Backend.
func (n *node) FinishUpload(ctx context.Context, id string, req api.FinishUploadRequest, progress api.ProgressFunc) (u api.Upload, err error) {
	u, dir, done, err := n.beginFinishUpload(id)
	if err != nil {
		return u, err
	}
	defer done()
	defer func() { err = uploadError(u.Name, err) }()
	f, err := os.OpenFile(u.File, os.O_RDWR, 0) // to sync it, some systems want it for writing
	if err != nil {
		return u, err
	}
	digest, err := api.DigestUpload(contextReader{ctx, f}, func(done int64) {
		progress(api.Progress{Phase: "check of " + u.Name, Done: done, Total: u.Bytes, Unit: api.UnitBytes})
	})
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return u, err
	}
	whole := filepath.Join(n.dir, uploadsDir, id)
	switch {
	case digest != req.Digest && dir == whole: // it was checked, and somebody may be reading it
		return u, api.Errorf(api.CodeConflict, "under its ID another file is here, all of it").WithHint("remove that one first, or send this one under an ID of its own")
	case digest != req.Digest:
		if err := os.RemoveAll(dir); err != nil {
			return u, err
		}
		return u, api.Errorf(api.CodeData, "what is here is not the file that was sent, and is removed").WithHint("send it again, from its beginning")
	}
	if dir != whole {
		if err := os.Rename(dir, whole); err != nil {
			return u, err
		}
		if err := syncDir(filepath.Dir(whole)); err != nil {
			return u, err
		}
		u.File = filepath.Join(whole, u.Name)
		n.log.InfoContext(ctx, "file uploaded", "component", "node", "bytes", u.Bytes, "upload", u.ID)
	}
	return u, nil
}

// beginFinishUpload finds a file of which all is here, and its folder.
func (n *node) beginFinishUpload(id string) (u api.Upload, dir string, done func(), err error) {
	n.uploading.Lock()
	defer n.uploading.Unlock()
	if n.uploadingParts[id] {
		return u, "", nil, api.Errorf(api.CodeRetry, "finish upload %.40q: a part of it is under way", id).WithHint("wait for it")
	}
	u, err = n.readUpload(id)
	if err == nil {
		return u, filepath.Dir(u.File), n.lockUploadPart(id), nil
	}
	p, dir, err := n.findUploadPart(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return u, "", nil, api.Errorf(api.CodeNotFound, "there is no upload %.40q", id).WithHint("an upload goes after a day; send the file again")
	case err != nil:
		return u, "", nil, fmt.Errorf("finish upload %s: %w", id, err)
	case p.Have != p.Bytes:
		return u, "", nil, api.Errorf(api.CodeUsage, "upload %s: %d of its %d bytes are here", p.Name, p.Have, p.Bytes).WithHint("send the rest of it")
	}
	u = api.Upload{ID: p.ID, Name: p.Name, Bytes: p.Bytes, File: filepath.Join(dir, p.Name), Received: p.Last}
	return u, dir, n.lockUploadPart(id), nil
}

// UploadParts implements api.Backend.
func (n *node) UploadParts(ctx context.Context) ([]api.UploadPart, error) { return n.uploadParts(ctx) }

// uploadParts lists files of which not all came, and removes what is too old.
func (n *node) uploadParts(ctx context.Context) ([]api.UploadPart, error) {
	dirs, err := os.ReadDir(filepath.Join(n.dir, uploadsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list uploads: %w", err)
	}
	var list []api.UploadPart
	for _, d := range dirs {
		p, err := n.readUploadPart(d.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist): // it is something else, or went just now
			continue
		case err != nil:
			return nil, fmt.Errorf("list uploads: %w", err)
		}
		if time.Since(p.Last) > uploadLife {
			if err := os.RemoveAll(filepath.Join(n.dir, uploadsDir, d.Name())); err != nil {
				n.log.WarnContext(ctx, "old upload was not removed", "component", "node", "upload", p.ID, "err", err)
			}
			continue
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b api.UploadPart) int { return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(a.ID, b.ID)) })
	return list, nil
}

// findUploadPart finds a file of which not all came by its ID, and its folder.
func (n *node) findUploadPart(id string) (api.UploadPart, string, error) {
	if !isUploadID(id) {
		return api.UploadPart{}, "", fs.ErrNotExist
	}
	dirs, err := os.ReadDir(filepath.Join(n.dir, uploadsDir))
	if err != nil {
		return api.UploadPart{}, "", err
	}
	for _, d := range dirs {
		if strings.HasPrefix(d.Name(), id+".") {
			p, err := n.readUploadPart(d.Name())
			return p, filepath.Join(n.dir, uploadsDir, d.Name()), err
		}
	}
	return api.UploadPart{}, "", fs.ErrNotExist
}

// readUploadPart finds what a folder of a file has of which not all came; a folder
// with another name has none.
func (n *node) readUploadPart(name string) (api.UploadPart, error) {
	rest, ok := strings.CutSuffix(name, partSuffix)
	id, size, _ := strings.Cut(rest, ".")
	bytes, err := strconv.ParseInt(size, 10, 64)
	if !ok || err != nil || !isUploadID(id) || bytes < 1 {
		return api.UploadPart{}, fs.ErrNotExist
	}
	info, err := onlyFile(filepath.Join(n.dir, uploadsDir, name))
	if err != nil {
		return api.UploadPart{}, err
	}
	return api.UploadPart{ID: id, Name: info.Name(), Bytes: bytes, Have: info.Size(), Last: info.ModTime().UTC()}, nil
}
