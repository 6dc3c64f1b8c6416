// Package web is the dashboard: one page of plain files, embedded as they are
// in the repository, and the handlers that serve them. The page is a client of
// the API like any other and knows nothing that a command line could not ask;
// README.md says how it is made. It has no secrets, so it is served without
// token; who may see it at all is decided by package api.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed page
var files embed.FS

// Prefix is the path below which the page's files are served. The page itself
// is at /.
const Prefix = "/web/"

// policy lets the page load its own files and talk to its own daemon, and
// nothing else: no inline script or style, no text that becomes markup.
// Images may be data: a chart is drawn as one before it is saved.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// types are the media types of the page's files. The machine's own table is
// not asked: on Windows it may call a script text.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// asset is a file as it is served.
type asset struct {
	body  []byte
	small func() []byte // body, compressed
	kind  string
	etag  string // without quotes
}

// Routes are the patterns of the page and of each of its files, with what
// serves them.
func Routes() map[string]http.HandlerFunc {
	assets, err := load(files, "page")
	if err != nil {
		panic("bug: " + err.Error()) // what is embedded is known
	}
	routes := make(map[string]http.HandlerFunc)
	for name, a := range assets {
		pattern := "GET " + Prefix + name
		if name == "index.html" {
			pattern = "GET /{$}"
		}
		routes[pattern] = a.serve
	}
	return routes
}

func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
	h.Set("Cache-Control", "no-cache") // keep it, but ask: the next daemon may be another version
	h.Set("Vary", "Accept-Encoding")
	body, tag := a.body, a.etag
	if takesGzip(r) {
		body, tag = a.small(), a.etag+"-gzip"
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// takesGzip says whether an asker takes a file compressed; of one who asks for a
// part of it nobody knows of which form.
func takesGzip(r *http.Request) bool {
	if r.Header.Get("Range") != "" {
		return false
	}
	for v := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, weight, _ := strings.Cut(strings.ReplaceAll(v, " ", ""), ";")
		if name == "gzip" {
			return strings.Trim(weight, "q=0.") != "" || weight == ""
		}
	}
	return false
}

// compressed makes a file small, once it is asked for.
func compressed(body []byte) func() []byte {
	return sync.OnceValue(func() []byte {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err == nil {
			_, err = z.Write(body)
		}
		if err == nil {
			err = z.Close()
		}
		if err != nil {
			panic("bug: " + err.Error()) // a buffer takes everything
		}
		return b.Bytes()
	})
}

// load reads all files below dir.
func load(fsys fs.FS, dir string) (map[string]asset, error) {
	assets := make(map[string]asset)
	err := fs.WalkDir(fsys, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		kind, ok := types[path.Ext(p)]
		if !ok {
			return fmt.Errorf("%s: no media type is known for it", p)
		}
		body, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		assets[strings.TrimPrefix(p, dir+"/")] = asset{body, compressed(body), kind, hex.EncodeToString(sum[:12])}
		return nil
	})
	return assets, err
}
