package web_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/web"
)

// page is the folder of the page's files.
func page(t *testing.T) map[string]string {
	t.Helper()
	m := make(map[string]string)
	err := fs.WalkDir(os.DirFS("page"), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path.Join("page", p))
		m[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func serve(t *testing.T) *http.ServeMux {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, h := range web.Routes() {
		mux.HandleFunc(pattern, h)
	}
	return mux
}

func get(t *testing.T, mux *http.ServeMux, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

// TestServed: every file comes as it is in the repository, with its type and
// what keeps a browser from doing anything else with it.
func TestServed(t *testing.T) {
	mux := serve(t)
	kinds := map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	for name, body := range page(t) {
		at := web.Prefix + name
		if name == "index.html" {
			at = "/"
		}
		w := get(t, mux, at)
		if w.Code != 200 || w.Body.String() != body {
			t.Errorf("%s: status %d, %d bytes, want the %d of the file", at, w.Code, w.Body.Len(), len(body))
		}
		for k, want := range map[string]string{
			"Content-Type": kinds[path.Ext(name)], "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-cache",
		} {
			if got := w.Header().Get(k); got != want {
				t.Errorf("%s: %s is %q, want %q", at, k, got, want)
			}
		}
		tag := w.Header().Get("ETag")
		if w := get(t, mux, at, "If-None-Match: "+tag); tag == "" || w.Code != 304 || w.Body.Len() != 0 {
			t.Errorf("%s is sent again to who has it: %d", at, w.Code)
		}
	}
	for _, at := range []string{"/web/", "/web/none.js", "/web/index.html", "/web/../web.go", "/index.html"} {
		if w := get(t, mux, at); w.Code == 200 {
			t.Errorf("%s is served", at)
		}
	}
}

// TestCompressed: who takes gzip gets it, and what comes out is the file; others,
// and who wants a part of it, get it as it is.
func TestCompressed(t *testing.T) {
	mux := serve(t)
	body := page(t)["run.js"]
	for accept, want := range map[string]bool{
		"gzip, deflate, br, zstd": true, "br;q=1.0, gzip;q=0.8": true, "gzip": true, "": false, "br": false, "gzip;q=0": false, "gzip; q=0.0": false, "xgzip": false,
	} {
		w := get(t, mux, web.Prefix+"run.js", "Accept-Encoding: "+accept)
		got := w.Body.String()
		if want {
			z, err := gzip.NewReader(w.Body)
			if err != nil {
				t.Errorf("%s: %v", accept, err)
				continue
			}
			b, err := io.ReadAll(z)
			if got = string(b); err != nil || len(b) == 0 {
				t.Errorf("%s: %v", accept, err)
			}
		}
		if (w.Header().Get("Content-Encoding") == "gzip") != want || got != body || w.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: encoding %q, %d bytes, want %d; it varies by %q", accept, w.Header().Get("Content-Encoding"), len(got), len(body), w.Header().Get("Vary"))
		}
		tag := w.Header().Get("ETag")
		if w := get(t, mux, web.Prefix+"run.js", "Accept-Encoding: "+accept, "If-None-Match: "+tag); w.Code != 304 {
			t.Errorf("%q: it is sent again to who has it: %d", accept, w.Code)
		}
	}
	plain, small := get(t, mux, web.Prefix+"run.js"), get(t, mux, web.Prefix+"run.js", "Accept-Encoding: gzip")
	if plain.Header().Get("ETag") == small.Header().Get("ETag") {
		t.Error("both forms have the same tag")
	}
	if w := get(t, mux, web.Prefix+"run.js", "Accept-Encoding: gzip", "Range: bytes=0-9"); w.Code != 206 || w.Body.String() != body[:10] {
		t.Errorf("a part is %d %q", w.Code, w.Body)
	}
}

// TestPolicy: nothing from elsewhere, nothing inline, no text to script.
func TestPolicy(t *testing.T) {
	w := get(t, serve(t), "/")
	got := make(map[string]string)
	for _, d := range strings.Split(w.Header().Get("Content-Security-Policy"), ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(d), " ")
		got[name] = value
	}
	want := map[string]string{
		"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:", "connect-src": "'self'",
		"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'", "require-trusted-types-for": "'script'", "trusted-types": "'none'",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Content-Security-Policy (-want +got):\n%s", diff)
	}
}

var (
	attribute = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	imported  = regexp.MustCompile(`(?:from|import)\s*\(?\s*"(\./[^"]+)"`)
	// inline is what the policy forbids in HTML; sinks is what makes markup or
	// script from text.
	inline = regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|javascript:|<script(?:[^>]*)>[^<]`)
	sinks  = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTMLUnsafe|\beval\(|new Function|srcdoc`)
	remote = regexp.MustCompile(`https?://[^\s"'` + "`" + `<>]+`)
)

// TestReferences: what the page asks for is there, and what is there is asked
// for, from here alone.
func TestReferences(t *testing.T) {
	files := page(t)
	used := map[string]bool{"index.html": true}
	for _, m := range attribute.FindAllStringSubmatch(files["index.html"], -1) {
		switch ref := m[1]; {
		case strings.HasPrefix(ref, "#"):
		case strings.HasPrefix(ref, web.Prefix):
			used[strings.TrimPrefix(ref, web.Prefix)] = true
		default:
			t.Errorf("index.html refers to %s", ref)
		}
	}
	for name, text := range files {
		for _, m := range imported.FindAllStringSubmatch(text, -1) {
			used[strings.TrimPrefix(m[1], "./")] = true
		}
		for _, u := range remote.FindAllString(text, -1) {
			if u != "http://www.w3.org/2000/svg" {
				t.Errorf("%s names another host: %s", name, u)
			}
		}
		if s := sinks.FindString(text); s != "" {
			t.Errorf("%s uses %s; text must go in as text", name, s)
		}
		if strings.HasSuffix(name, ".html") || strings.HasSuffix(name, ".svg") {
			if s := inline.FindString(text); s != "" {
				t.Errorf("%s has something inline: %q", name, s)
			}
		}
		if strings.HasSuffix(name, ".css") && regexp.MustCompile(`url\(|@import`).MatchString(text) {
			t.Errorf("%s loads something else", name)
		}
	}
	for name := range used {
		if _, ok := files[name]; !ok {
			t.Errorf("%s is asked for and not there", name)
		}
	}
	var idle []string
	for name := range files {
		if !used[name] {
			idle = append(idle, name)
		}
	}
	slices.Sort(idle)
	if len(idle) > 0 {
		t.Errorf("nothing asks for %v", idle)
	}
}

// TestSize: the page has at most 150 KB, compressed.
func TestSize(t *testing.T) {
	var n int
	for _, text := range page(t) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		n += b.Len()
	}
	t.Logf("%d bytes compressed", n)
	if n > 150_000 {
		t.Errorf("the page has %d bytes, more than 150,000", n)
	}
}
