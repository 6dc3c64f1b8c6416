package web_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// axe-core, by Deque, finds what the WCAG forbid and a program can see. It is
// not in this repository: npm fetches it, once for a user.
const (
	axeVersion = "4.14.1"
	axeSHA512  = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)

var axeOnce = sync.OnceValues(fetchAxe)

// axeScript is axe-core's source. A test that cannot have it says so, and goes
// on without.
func axeScript(t *testing.T) (string, bool) {
	t.Helper()
	script, err := axeOnce()
	if err != nil {
		t.Logf("axe-core %s cannot be had, accessibility is tested by our own rules alone: %v", axeVersion, err)
		return "", false
	}
	return script, true
}

func fetchAxe() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "moot-test")
	path := filepath.Join(dir, "axe-core-"+axeVersion+".tgz")
	if b, err := os.ReadFile(path); err == nil {
		if script, err := unpackAxe(b); err == nil {
			return script, nil
		}
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(dir, "npm-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "--pack-destination", temp, "axe-core@"+axeVersion)
	cmd.Dir, cmd.WaitDelay = temp, time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm pack: %w: %.300s", err, out)
	}
	file := filepath.Join(temp, filepath.Base(path))
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	script, err := unpackAxe(b)
	if err != nil {
		return "", err
	}
	return script, os.Rename(file, path)
}

// unpackAxe checks the package and returns the script in it.
func unpackAxe(b []byte) (string, error) {
	if sum := sha512.Sum512(b); base64.StdEncoding.EncodeToString(sum[:]) != axeSHA512 {
		return "", errors.New("axe-core is not what it was: its SHA-512 differs")
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			return "", fmt.Errorf("axe.min.js: %w", err)
		}
		if h.Name == "package/axe.min.js" {
			script, err := io.ReadAll(r)
			return string(script), err
		}
	}
}

// axe runs the rules of WCAG 2.2 AA on what the tab shows until ok with what is
// violated, which it returns.
func (tb *tab) axe(script string, ok func(string) bool) (string, bool) {
	tb.t.Helper()
	if tb.text(`typeof axe`) == "undefined" {
		tb.eval(script+"\n;0", nil)
	}
	tb.throttle(1) // it is not the page
	defer tb.throttle(max(1, slow()))
	return tb.comes(`axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], resultTypes: ["violations"], preload: false})
		.then((r) => r.violations.map((v) => v.id + ": " + v.help + "\n    " + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + " " + n.failureSummary.slice(0, 300)).join("\n    ")).join("\n"))`, ok)
}

// TestAxeFinds: the rules are at work: a page with mistakes does not pass.
func TestAxeFinds(t *testing.T) {
	b := openBrowser(t)
	script, ok := axeScript(t)
	if !ok {
		t.Skip("axe-core cannot be had")
	}
	tb := newWorld(t).enter(b, 1000, 700)
	tb.eval(`document.querySelector("main").append(Object.assign(document.createElement("button"), {id: "bare"}), Object.assign(document.createElement("img"), {src: "data:,"}))`, nil)
	if got, ok := tb.axe(script, func(s string) bool { return strings.Contains(s, "button-name") && strings.Contains(s, "image-alt") }); !ok {
		t.Errorf("it found %q alone, want a button without a name and an image without a text", got)
	}
}
