package app

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
)

const partID = "00112233aabbccdd"

// sendPart sends a part of a content.
func sendPart(t *testing.T, n *node, content string, from, to int) (api.UploadPart, error) {
	t.Helper()
	return n.UploadPart(t.Context(), api.UploadPartRequest{ID: partID, Name: "rows.jsonl", Bytes: int64(len(content)), Offset: int64(from), Size: int64(to - from)}, strings.NewReader(content[from:to]))
}

func uploadDigest(content string) api.FinishUploadRequest {
	d := api.NewUploadDigest()
	_, _ = d.Write([]byte(content))
	return api.FinishUploadRequest{Digest: d.Sum()}
}

// TestUploadGoesOn: a part that is cut off stays as far as it came, also when the
// daemon is killed then; the file goes on from there, is as it was sent, and can
// be finished twice.
func TestUploadGoesOn(t *testing.T) {
	dir := t.TempDir()
	n, stop := testNode(t, dir, new(fakeRuns).open)
	content := strings.Repeat("{\"text\":\"a row\"}\n", 1000)
	if p, err := sendPart(t, n, content, 0, 5000); err != nil || p.Have != 5000 {
		t.Fatalf("%+v, %v", p, err)
	}
	cut := io.MultiReader(strings.NewReader(content[5000:7001]), errReader{errors.New("the line broke")})
	req := api.UploadPartRequest{ID: partID, Name: "rows.jsonl", Bytes: int64(len(content)), Offset: 5000, Size: 5000}
	if _, err := n.UploadPart(t.Context(), req, cut); err == nil || !strings.Contains(err.Error(), "rows.jsonl: the line broke") {
		t.Errorf("cut off: %v", err)
	}
	stop() // nothing of it is in memory alone
	n, _ = testNode(t, dir, new(fakeRuns).open)
	parts, err := n.UploadParts(t.Context())
	if err != nil || len(parts) != 1 || parts[0].Have != 7001 || parts[0].Bytes != int64(len(content)) || parts[0].Name != "rows.jsonl" || parts[0].ID != partID {
		t.Fatalf("after a new start there is %+v, %v", parts, err)
	}
	if l, err := n.Uploads(t.Context()); err != nil || len(l) != 0 {
		t.Errorf("it is among the uploads: %+v, %v", l, err)
	}
	_, err = sendPart(t, n, content, 5000, 10_000)
	wantCode(t, err, api.CodeRetry, "7001 bytes of it are here, and the part begins at 5000")
	_, err = n.FinishUpload(t.Context(), partID, uploadDigest(content), quiet)
	wantCode(t, err, api.CodeUsage, "7001 of its 17000 bytes are here")
	if _, err := sendPart(t, n, content, 7001, len(content)); err != nil {
		t.Fatal(err)
	}
	var last api.Progress
	u, err := n.FinishUpload(t.Context(), partID, uploadDigest(content), func(p api.Progress) { last = p })
	if err != nil || u.ID != partID || last.Done != u.Bytes || last.Total != u.Bytes {
		t.Fatalf("%+v, %v, told %+v", u, err, last)
	}
	if b, err := os.ReadFile(u.File); err != nil || string(b) != content {
		t.Errorf("%d bytes are stored, %v", len(b), err)
	}
	if again, err := n.FinishUpload(t.Context(), partID, uploadDigest(content), quiet); err != nil || again.File != u.File {
		t.Errorf("finished twice: %+v, %v", again, err)
	}
	_, err = n.FinishUpload(t.Context(), partID, uploadDigest("another"), quiet)
	wantCode(t, err, api.CodeConflict, "another file is here")
	if b, err := os.ReadFile(u.File); err != nil || string(b) != content {
		t.Errorf("after the digest of another file %d bytes are stored, %v", len(b), err)
	}
	_, err = sendPart(t, n, content, 0, 10)
	wantCode(t, err, api.CodeRetry, "all of it")
	if l, err := n.Uploads(t.Context()); err != nil || len(l) != 1 || l[0].File != u.File {
		t.Errorf("listed %+v, %v", l, err)
	}
	if _, err := n.RemoveUpload(t.Context(), partID); err != nil {
		t.Error(err)
	}
	if l := uploadsLeft(t, dir); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

// TestUploadPartRefused: what is not the file is found at its end and goes;
// another file does not come under its ID, two parts not at a time, and nothing
// out of the folder.
func TestUploadPartRefused(t *testing.T) {
	dir := t.TempDir()
	n, _ := testNode(t, dir, new(fakeRuns).open)
	if _, err := sendPart(t, n, "0123456789", 0, 10); err != nil {
		t.Fatal(err)
	}
	_, err := sendPart(t, n, "0123456789a", 10, 11)
	wantCode(t, err, api.CodeConflict, "a part of another file")
	_, err = n.FinishUpload(t.Context(), partID, uploadDigest("0123456780"), quiet)
	wantCode(t, err, api.CodeData, "is removed")
	if l := uploadsLeft(t, dir); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
	_, err = sendPart(t, n, "0123456789", 5, 10)
	wantCode(t, err, api.CodeRetry, "0 bytes of it are here")
	for _, id := range []string{"", "..", "0123456789abcdef", strings.ToUpper(partID), partID + ".10"} {
		_, err := n.FinishUpload(t.Context(), id, uploadDigest(""), quiet)
		wantCode(t, err, api.CodeNotFound, "no upload")
	}

	entered, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	body := io.MultiReader(readerFunc(func([]byte) (int, error) { close(entered); <-goOn; return 0, io.EOF }), strings.NewReader("01234"))
	go func() {
		_, err := n.UploadPart(t.Context(), api.UploadPartRequest{ID: partID, Name: "rows.jsonl", Bytes: 10, Size: 5}, body)
		ended <- err
	}()
	<-entered
	_, err = sendPart(t, n, "0123456789", 0, 10)
	wantCode(t, err, api.CodeRetry, "under way")
	_, err = n.FinishUpload(t.Context(), partID, uploadDigest("0123456789"), quiet)
	wantCode(t, err, api.CodeRetry, "under way")
	close(goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if p, err := sendPart(t, n, "0123456789", 5, 10); err != nil || p.Have != 10 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := n.RemoveUpload(t.Context(), partID); err != nil {
		t.Error(err)
	}
	if l := uploadsLeft(t, dir); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

// TestUploadPartsAreBounded: a file of which a part is here counts as if all of it
// was, and goes a day after its last part.
func TestUploadPartsAreBounded(t *testing.T) {
	dir := t.TempDir()
	n, _ := testNode(t, dir, new(fakeRuns).open)
	if _, err := sendPart(t, n, "0123456789", 0, 1); err != nil {
		t.Fatal(err)
	}
	free, err := freeBytes(n.dir)
	if err == nil && free >= api.MaxUploadBytes+spareBytes {
		_, err := n.admitUpload(t.Context(), api.MaxUploadBytes-9)
		wantCode(t, err, api.CodeConflict, "there would be 4294967297")
	}
	for range api.MaxUploads - 1 {
		done, err := n.admitUpload(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
	}
	_, err = n.UploadPart(t.Context(), api.UploadPartRequest{ID: "ffffffffffffffff", Name: "a.jsonl", Bytes: 1, Size: 1}, strings.NewReader("x"))
	wantCode(t, err, api.CodeConflict, "at most 100 are kept")
	if _, err := sendPart(t, n, "0123456789", 1, 2); err != nil {
		t.Errorf("what is here does not go on when there is no room for others: %v", err)
	}
	l, err := filepath.Glob(filepath.Join(dir, uploadsDir, "*", "*"))
	if err != nil || len(l) != 1 {
		t.Fatalf("%v, %v", l, err)
	}
	for _, tt := range []struct {
		age  time.Duration
		want int
	}{{uploadLife / 2, 1}, {2 * uploadLife, 0}} {
		if err := os.Chtimes(l[0], time.Time{}, time.Now().Add(-tt.age)); err != nil {
			t.Fatal(err)
		}
		if parts, err := n.UploadParts(t.Context()); err != nil || len(parts) != tt.want {
			t.Errorf("after %v there are %d parts, want %d, %v", tt.age, len(parts), tt.want, err)
		}
	}
	if l := uploadsLeft(t, dir); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}
