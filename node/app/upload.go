package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/moot-net/moot/node/api"
)

const (
	// uploadsDir, in the data folder, has a folder for each upload, with its one
	// file.
	uploadsDir = "uploads"
	// uploadLife is how long an upload stays that nobody removes.
	uploadLife = 24 * time.Hour
)

// Upload implements api.Backend.
func (n *node) Upload(ctx context.Context, req api.UploadRequest, body io.Reader) (u api.Upload, err error) {
	defer func() { err = uploadError(req.Name, err) }()
	done, err := n.admitUpload(ctx, req.Bytes)
	if err != nil {
		return u, err
	}
	defer done()
	id := make([]byte, 8)
	_, _ = rand.Read(id) // it never fails
	u = api.Upload{ID: hex.EncodeToString(id), Name: uploadName(req.Name), Bytes: req.Bytes, Received: time.Now().UTC()}
	dir := filepath.Join(n.dir, uploadsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return u, err
	}
	temp, err := os.MkdirTemp(n.dir, importTemp)
	if err != nil {
		return u, err
	}
	defer os.RemoveAll(temp) // it is not there any more when all went well
	if err := writeUpload(ctx, filepath.Join(temp, u.Name), req.Bytes, body); err != nil {
		return u, err
	}
	if err := os.Rename(temp, filepath.Join(dir, u.ID)); err != nil {
		return u, err
	}
	u.File = filepath.Join(dir, u.ID, u.Name)
	n.log.InfoContext(ctx, "file uploaded", "component", "node", "bytes", u.Bytes, "upload", u.ID)
	return u, nil
}

// uploadError says which upload it was.
func uploadError(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case isDiskFull(err):
		return api.Errorf(api.CodeDisk, "upload %s: %w", uploadName(name), err).WithHint("make room, or start mootd with another --data-dir")
	}
	return fmt.Errorf("upload %s: %w", uploadName(name), err)
}

// admitUpload finds out whether there is room for an upload, and keeps it until
// done is called.
func (n *node) admitUpload(ctx context.Context, size int64) (done func(), err error) {
	n.uploading.Lock()
	defer n.uploading.Unlock()
	if err := n.roomForUpload(ctx, size); err != nil {
		return nil, err
	}
	n.uploadingBytes += size
	n.uploadingFiles++
	return func() {
		n.uploading.Lock()
		defer n.uploading.Unlock()
		n.uploadingBytes -= size
		n.uploadingFiles--
	}, nil
}

// roomForUpload refuses a file when there would be too many, or too many bytes. A
// file that comes in parts counts as if all of it was there.
//
// n.uploading is held.
func (n *node) roomForUpload(ctx context.Context, size int64) error {
	if err := n.checkSpace(size); err != nil {
		return err
	}
	l, err := n.uploads(ctx)
	if err != nil {
		return err
	}
	parts, err := n.uploadParts(ctx)
	if err != nil {
		return err
	}
	sum, count := size+n.uploadingBytes, len(l)+len(parts)+n.uploadingFiles
	for _, u := range l {
		sum += u.Bytes
	}
	for _, p := range parts {
		sum += p.Bytes
	}
	const hint = "remove one that is not needed any more, or give the path of a file on the node's machine"
	switch {
	case count >= api.MaxUploads:
		return api.Errorf(api.CodeConflict, "%d files are here already, at most %d are kept", count, api.MaxUploads).WithHint(hint)
	case sum > api.MaxUploadBytes:
		return api.Errorf(api.CodeConflict, "with its %d bytes and what is here already there would be %d, at most %d are kept", size, sum, int64(api.MaxUploadBytes)).WithHint(hint)
	}
	return nil
}

func writeUpload(ctx context.Context, path string, size int64, body io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	got, err := io.Copy(f, contextReader{ctx, io.LimitReader(body, size+1)})
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil && got != size {
		err = api.Errorf(api.CodeUsage, "%d of %d bytes came", got, size).WithHint("send it again")
	}
	return err
}

// Uploads implements api.Backend.
func (n *node) Uploads(ctx context.Context) ([]api.Upload, error) { return n.uploads(ctx) }

// uploads lists what is here, and removes what is too old.
func (n *node) uploads(ctx context.Context) ([]api.Upload, error) {
	dirs, err := os.ReadDir(filepath.Join(n.dir, uploadsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list uploads: %w", err)
	}
	var list []api.Upload
	for _, d := range dirs {
		u, err := n.readUpload(d.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went just now, or is not complete
			continue
		case err != nil:
			return nil, fmt.Errorf("list uploads: %w", err)
		}
		if time.Since(u.Received) > uploadLife {
			if err := os.RemoveAll(filepath.Dir(u.File)); err != nil {
				n.log.WarnContext(ctx, "old upload was not removed", "component", "node", "upload", u.ID, "err", err)
			}
			continue
		}
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b api.Upload) int { return cmp.Or(a.Received.Compare(b.Received), cmp.Compare(a.ID, b.ID)) })
	return list, nil
}

// readUpload finds an upload by its ID; what has another name is none.
func (n *node) readUpload(id string) (api.Upload, error) {
	if !isUploadID(id) {
		return api.Upload{}, fs.ErrNotExist
	}
	dir := filepath.Join(n.dir, uploadsDir, id)
	info, err := onlyFile(dir)
	if err != nil {
		return api.Upload{}, err
	}
	return api.Upload{ID: id, Name: info.Name(), Bytes: info.Size(), File: filepath.Join(dir, info.Name()), Received: info.ModTime().UTC()}, nil
}

func isUploadID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == 8 && strings.ToLower(id) == id
}

// onlyFile finds the one file of a folder.
func onlyFile(dir string) (fs.FileInfo, error) {
	files, err := os.ReadDir(dir)
	if err == nil && len(files) != 1 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return files[0].Info()
}

// RemoveUpload implements api.Backend.
func (n *node) RemoveUpload(_ context.Context, id string) (api.Upload, error) {
	u, err := n.readUpload(id)
	if errors.Is(err, fs.ErrNotExist) {
		p, dir, perr := n.findUploadPart(id)
		if perr == nil {
			u = api.Upload{ID: p.ID, Name: p.Name, Bytes: p.Have, File: filepath.Join(dir, p.Name), Received: p.Last}
			err = nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return u, api.Errorf(api.CodeNotFound, "there is no upload %.40q", id).WithHint("an upload goes after a day; send the file again")
	}
	if err == nil {
		err = os.RemoveAll(filepath.Dir(u.File))
	}
	if err != nil {
		return u, fmt.Errorf("remove upload %s: %w", id, err)
	}
	return u, nil
}

// maxUploadName bounds the name under which an upload is stored, in bytes.
const maxUploadName = 100

// uploadName makes a name for a file of one that anybody chose: letters, digits
// and a few more, so that no system takes it for something else and no reader is
// deceived. The end stays: it tells what is in the file.
func uploadName(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-+() ", r) {
			return r
		}
		return '_'
	}, strings.ToValidUTF8(name, "_"))
	ext := filepath.Ext(name)
	if len(ext) > 16 {
		ext = ""
	}
	base := strings.Trim(strings.TrimSuffix(name, ext), " .")
	if base == "" || reservedNames[strings.ToLower(strings.SplitN(base, ".", 2)[0])] {
		base = "rows_" + base
	}
	base = strings.TrimRight(clipTo(base, maxUploadName-len(ext)), " .")
	return strings.TrimRight(base+ext, " .")
}

// reservedNames are devices on Windows, whatever comes behind a dot.
var reservedNames = func() map[string]bool {
	m := map[string]bool{"con": true, "prn": true, "aux": true, "nul": true}
	for _, d := range "0123456789" {
		m["com"+string(d)], m["lpt"+string(d)] = true, true
	}
	return m
}()
