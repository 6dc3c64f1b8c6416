package api_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

const octets = "Content-Type: application/octet-stream"

// TestUpload: a file comes as it is, is listed, looked into, and removed.
func TestUpload(t *testing.T) {
	f := apitest.New("node")
	f.UploadDir(t.TempDir())
	s := api.NewServer(f, api.Options{Token: token, ReadToken: "for reading"})
	w := ask(t, s, "POST", "/api/v1/uploads?name=alpaca.jsonl", "a row\nanother\n", octets)
	var u api.Upload
	if err := json.Unmarshal(w.Body.Bytes(), &u); err != nil || w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if b, err := os.ReadFile(u.File); err != nil || string(b) != "a row\nanother\n" {
		t.Errorf("stored %q, %v", b, err)
	}
	w = ask(t, s, "GET", "/api/v1/uploads", "")
	if !strings.Contains(w.Body.String(), `"id":"`+u.ID+`"`) || !strings.Contains(w.Body.String(), `"max_bytes":4294967296`) {
		t.Errorf("listed %s", w.Body)
	}
	path, err := json.Marshal(u.File)
	if err != nil {
		t.Fatal(err)
	}
	w = ask(t, s, "POST", "/api/v1/datasets/preview", `{"files":[`+string(path)+`],"rows":1}`)
	var p api.DatasetPreview
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || len(p.Files) != 1 || len(p.Files[0].Rows) != 1 || p.Files[0].Rows[0].Values[0].Text != "a row" {
		t.Errorf("preview %d %s", w.Code, w.Body)
	}
	failed(t, ask(t, s, "DELETE", "/api/v1/uploads/"+u.ID, "", "Authorization: Bearer for reading"), http.StatusForbidden, api.CodeAuth, "change nothing")
	if w = ask(t, s, "DELETE", "/api/v1/uploads/"+u.ID, ""); w.Code != 200 {
		t.Errorf("remove: %d %s", w.Code, w.Body)
	}
	failed(t, ask(t, s, "DELETE", "/api/v1/uploads/"+u.ID, ""), http.StatusNotFound, api.CodeNotFound, "no upload")
	failed(t, ask(t, s, "DELETE", "/api/v1/uploads/..%2f..", ""), http.StatusNotFound, api.CodeNotFound, "")
}

// TestUploadRefused: what is refused is before its body is read.
func TestUploadRefused(t *testing.T) {
	f := apitest.New("node")
	s := api.NewServer(f, api.Options{Token: token, ReadToken: "for reading"})
	for _, tt := range []struct {
		query, body string
		headers     []string
		status      int
		code        api.Code
		text        string
	}{
		{"name=a.jsonl", "x", nil, http.StatusUnsupportedMediaType, api.CodeUsage, "the body must be the file"},
		{"", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "name is missing"},
		{"name=%20", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "name is missing"},
		{"name=%ff", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "UTF-8"},
		{"name=" + strings.Repeat("x", 300), "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "at most 255 bytes"},
		{"name=a.jsonl", "", []string{octets}, http.StatusBadRequest, api.CodeUsage, "is empty"},
		{"name=a.jsonl", "x", []string{octets, "Authorization: Bearer for reading"}, http.StatusForbidden, api.CodeAuth, "change nothing"},
		{"name=a.jsonl", "x", []string{octets, "Authorization:"}, http.StatusUnauthorized, api.CodeAuth, "needs a token"},
		{"name=a.jsonl", "x", []string{octets, "Origin: http://evil.example"}, http.StatusForbidden, api.CodeAuth, "other web pages"},
		{"name=a.jsonl", "x", []string{octets}, http.StatusInsufficientStorage, api.CodeDisk, "no room"},
	} {
		failed(t, ask(t, s, "POST", "/api/v1/uploads?"+tt.query, tt.body, tt.headers...), tt.status, tt.code, tt.text)
	}
	for _, body := range []string{`{"files":["rel.jsonl"]}`, `{"files":[]}`, `{"files":["/a"],"rows":101}`, `{"files":["/a"],"rows":-1}`, `{"files":["/../a"]}`} {
		failed(t, ask(t, s, "POST", "/api/v1/datasets/preview", body), http.StatusBadRequest, api.CodeUsage, "")
	}
	fields := map[string]string{}
	for i := range 10 {
		fields[fmt.Sprint(i)] = "x"
	}
	b, err := json.Marshal(map[string]any{"files": []string{"/a"}, "fields": fields})
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range []string{"check", "import"} {
		failed(t, ask(t, s, "POST", "/api/v1/datasets/"+route, string(b)), http.StatusBadRequest, api.CodeUsage, "at most 9")
	}
}

// TestUploadBounds: the length is told before, and is not too great; a file that
// does not come on is left, one that comes slowly is not.
func TestUploadBounds(t *testing.T) {
	post := "POST /api/v1/uploads?name=a.jsonl HTTP/1.1\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n" + head
	bubble(t, api.Options{}, func(t *testing.T, p *pipes, f *apitest.Fake) {
		f.UploadDir(t.TempDir())
		for text, want := range map[string]string{
			post + "Content-Length: 4294967297\r\n\r\nx":                   "413",
			post + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n": "411",
		} {
			c := p.dial()
			go c.Write([]byte(text)) // it is not read to its end
			if s := within(t, c, 0, 10*time.Second); !strings.HasPrefix(s, "HTTP/1.1 "+want) || want == "413" && !strings.Contains(s, "at most 4294967296 are taken") {
				t.Errorf("want %s, it said %q", want, s)
			}
			c.Close()
		}
		for pause, want := range map[time.Duration]string{10 * time.Second: "200", time.Minute: "408"} {
			c := p.dial()
			go func() {
				if _, err := c.Write([]byte(post + "Content-Length: 8\r\n\r\n")); err != nil {
					return
				}
				for range 8 {
					time.Sleep(pause)
					if _, err := c.Write([]byte("x")); err != nil {
						return
					}
				}
			}()
			if s := within(t, c, 25*time.Second, 100*time.Second); !strings.HasPrefix(s, "HTTP/1.1 "+want) {
				t.Errorf("a byte each %v: want %s, it said %q", pause, want, s)
			}
			c.Close()
			time.Sleep(2 * time.Minute) // who writes ends
		}
		if l, err := f.Uploads(t.Context()); err != nil || len(l) != 1 {
			t.Errorf("kept %v, %v", l, err)
		}
	})
}

// digestOf is the digest of an upload.
func digestOf(content string) string {
	d := api.NewUploadDigest()
	_, _ = d.Write([]byte(content))
	return d.Sum()
}

// TestUploadDigest: it is that of pieces, however they are written.
func TestUploadDigest(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 2*api.UploadPiece/16) + "and more"
	all := sha256.New()
	for from := 0; from < len(content); from += api.UploadPiece {
		piece := sha256.Sum256([]byte(content[from:min(from+api.UploadPiece, len(content))]))
		all.Write(piece[:])
	}
	want := hex.EncodeToString(all.Sum(nil))
	d := api.NewUploadDigest()
	for rest := content; rest != ""; {
		n := min(1_000_003, len(rest))
		_, _ = d.Write([]byte(rest[:n]))
		rest = rest[n:]
	}
	if got := d.Sum(); got != want || digestOf(content) != want {
		t.Errorf("digest %s and %s, want %s", got, digestOf(content), want)
	}
	if digestOf("") != hex.EncodeToString(sha256.New().Sum(nil)) {
		t.Errorf("of nothing it is %s", digestOf(""))
	}
	var told []int64
	got, err := api.DigestUpload(strings.NewReader(content), func(done int64) { told = append(told, done) })
	if err != nil || got != want || told[len(told)-1] != int64(len(content)) {
		t.Errorf("digest %s, %v, told %v", got, err, told)
	}
}

// TestUploadParts: a file comes in parts, is listed meanwhile, and finished.
func TestUploadParts(t *testing.T) {
	f := apitest.New("node")
	f.UploadDir(t.TempDir())
	s := api.NewServer(f, api.Options{Token: token, ReadToken: "for reading"})
	const id, at = "00000000000000ab", "/api/v1/uploads/00000000000000ab"
	for _, tt := range []struct{ offset, body, want string }{{"0", "a row\n", `"have":6`}, {"6", "another\n", `"have":14`}} {
		w := ask(t, s, "PUT", at+"?name=a.jsonl&bytes=14&offset="+tt.offset, tt.body, octets)
		if w.Code != 200 || !strings.Contains(w.Body.String(), tt.want) {
			t.Fatalf("part from %s: %d %s", tt.offset, w.Code, w.Body)
		}
		if w = ask(t, s, "GET", "/api/v1/uploads", ""); !strings.Contains(w.Body.String(), tt.want) || !strings.Contains(w.Body.String(), `"uploads":[]`) {
			t.Errorf("listed %s", w.Body)
		}
	}
	failed(t, ask(t, s, "PUT", at+"?name=a.jsonl&bytes=14&offset=3", "x", octets), http.StatusServiceUnavailable, api.CodeRetry, "")
	w := ask(t, s, "POST", at+"/finish", `{"digest":"`+digestOf("a row\nanother\n")+`"}`)
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"type":"result"`) {
		t.Fatalf("finish: %d %s", w.Code, w.Body)
	}
	l, err := f.Uploads(t.Context())
	if err != nil || len(l) != 1 || l[0].ID != id {
		t.Fatalf("kept %+v, %v", l, err)
	}
	if b, err := os.ReadFile(l[0].File); err != nil || string(b) != "a row\nanother\n" {
		t.Errorf("stored %q, %v", b, err)
	}
	w = ask(t, s, "PUT", "/api/v1/uploads/00000000000000ac?name=b.jsonl&bytes=1&offset=0", "x", octets)
	if w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w = ask(t, s, "DELETE", "/api/v1/uploads/00000000000000ac", ""); w.Code != 200 {
		t.Errorf("remove a part: %d %s", w.Code, w.Body)
	}
}

// TestUploadPartRefused: what is refused is before its body is read.
func TestUploadPartRefused(t *testing.T) {
	s := api.NewServer(apitest.New("node"), api.Options{Token: token, ReadToken: "for reading"})
	const good = "00000000000000ab?name=a.jsonl&bytes=10&offset=0"
	for _, tt := range []struct {
		path, body string
		headers    []string
		status     int
		code       api.Code
		text       string
	}{
		{good, "x", nil, http.StatusUnsupportedMediaType, api.CodeUsage, "the body must be the file"},
		{good, "x", []string{octets, "Authorization: Bearer for reading"}, http.StatusForbidden, api.CodeAuth, "change nothing"},
		{good, "x", []string{octets, "Authorization:"}, http.StatusUnauthorized, api.CodeAuth, "needs a token"},
		{good, "x", []string{octets, "Origin: http://evil.example"}, http.StatusForbidden, api.CodeAuth, "other web pages"},
		{good, "x", []string{octets}, http.StatusInsufficientStorage, api.CodeDisk, "no room"},
		{"00000000000000AB?name=a.jsonl&bytes=10&offset=0", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "16 hexadecimal digits"},
		{"..%2f..?name=a.jsonl&bytes=10&offset=0", "x", []string{octets}, http.StatusNotFound, api.CodeNotFound, "the API has no"},
		{"..%5c..?name=a.jsonl&bytes=10&offset=0", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "16 hexadecimal digits"},
		{"00000000000000ab?bytes=10&offset=0", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "name is missing"},
		{"00000000000000ab?name=a.jsonl&offset=0", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "bytes is"},
		{"00000000000000ab?name=a.jsonl&bytes=10&offset=-1", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "offset is"},
		{"00000000000000ab?name=a.jsonl&bytes=10&offset=10", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "beyond the 10"},
		{"00000000000000ab?name=a.jsonl&bytes=10&offset=9223372036854775807", "x", []string{octets}, http.StatusBadRequest, api.CodeUsage, "beyond the 10"},
		{"00000000000000ab?name=a.jsonl&bytes=4294967297&offset=0", "x", []string{octets}, http.StatusRequestEntityTooLarge, api.CodeUsage, "at most 4294967296"},
		{"00000000000000ab?name=a.jsonl&bytes=4294967296&offset=0", strings.Repeat("x", 16<<20+1), []string{octets}, http.StatusRequestEntityTooLarge, api.CodeUsage, "at once"},
	} {
		failed(t, ask(t, s, "PUT", "/api/v1/uploads/"+tt.path, tt.body, tt.headers...), tt.status, tt.code, tt.text)
	}
	for _, body := range []string{`{}`, `{"digest":"` + strings.Repeat("A", 64) + `"}`, `{"digest":1}`, `{"digest":"` + strings.Repeat("a", 64) + `","x":1}`} {
		failed(t, ask(t, s, "POST", "/api/v1/uploads/00000000000000ab/finish", body), http.StatusBadRequest, api.CodeUsage, "")
	}
}
