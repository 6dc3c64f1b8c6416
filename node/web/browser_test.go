package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// browser is a Chromium without window, driven by the DevTools protocol over
// two pipes: JSON with a zero byte after each message.
type browser struct {
	t  *testing.T
	in *os.File

	mu sync.Mutex
	// guarded by mu
	next    int
	waiting map[int]chan answer
	broken  []string // what the pages complained about
}

type answer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// openBrowser starts Chromium for a test, or skips it when there is none.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser is started only without -short")
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no chromium on PATH; the page is tested only where it is installed")
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--remote-debugging-pipe", "--user-data-dir="+profileDir(t))
	cmd.ExtraFiles = []*os.File{inR, outW} // its 3 and 4
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	inR.Close()
	outW.Close()
	b := &browser{t: t, in: inW, waiting: make(map[int]chan answer)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read(outR)
	}()
	t.Cleanup(func() {
		b.in.Close() // it ends by itself when its pipe does
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait() // however it ended
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			cancel()
			<-ended
		}
		cancel()
		<-read
		outR.Close()
		if t.Failed() {
			t.Logf("the browser said: %.2000s", &stderr)
		}
	})
	return b
}

// profileDir is a folder that may still be written to when the test ends: the
// browser's helpers outlive it for a moment.
func profileDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "moot-web-test") //nolint:usetesting // t.TempDir fails a test when a file appears while it removes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 20 {
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	return dir
}

func (b *browser) read(f *os.File) {
	r := bufio.NewReader(f)
	for {
		msg, err := r.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			for _, c := range b.waiting {
				close(c)
			}
			b.waiting = nil
			b.mu.Unlock()
			return
		}
		var a answer
		if err := json.Unmarshal(bytes.TrimSuffix(msg, []byte{0}), &a); err != nil {
			continue
		}
		b.mu.Lock()
		switch {
		case a.ID != 0:
			if c := b.waiting[a.ID]; c != nil {
				delete(b.waiting, a.ID)
				c <- a
			}
		case a.Method == "Runtime.exceptionThrown", a.Method == "Log.entryAdded":
			b.broken = append(b.broken, string(a.Params))
		}
		b.mu.Unlock()
	}
}

// call asks the browser, or a page of it, for something.
func (b *browser) call(session, method string, params any, result any) error {
	c := make(chan answer, 1)
	b.mu.Lock()
	if b.waiting == nil {
		b.mu.Unlock()
		return errors.New("the browser is gone")
	}
	b.next++
	id := b.next
	b.waiting[id] = c
	b.mu.Unlock()
	msg, err := json.Marshal(struct {
		ID      int    `json:"id"`
		Session string `json:"sessionId,omitempty"`
		Method  string `json:"method"`
		Params  any    `json:"params,omitempty"`
	}{id, session, method, params})
	if err != nil {
		return err
	}
	if _, err := b.in.Write(append(msg, 0)); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case a, ok := <-c:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser is gone", method)
		case a.Error != nil:
			return fmt.Errorf("%s: %s", method, a.Error.Message)
		case result != nil:
			return json.Unmarshal(a.Result, result)
		}
		return nil
	case <-time.After(60 * time.Second):
		return fmt.Errorf("%s: no answer", method)
	}
}

// complaints are the errors that pages logged since the last call.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.broken
	b.broken = nil
	return l
}

// tab is a page in a browser.
type tab struct {
	*browser
	session string
}

type m map[string]any

// open opens a tab of this size, in a window of its own: behind another it
// would be hidden.
func (b *browser) open(url string, width, height int) *tab {
	b.t.Helper()
	var target struct {
		TargetID string `json:"targetId"`
	}
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	b.must(b.call("", "Target.createTarget", m{"url": "about:blank", "newWindow": true}, &target))
	b.must(b.call("", "Target.attachToTarget", m{"targetId": target.TargetID, "flatten": true}, &attached))
	tb := &tab{b, attached.SessionID}
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		tb.do(domain+".enable", nil)
	}
	tb.do("Page.addScriptToEvaluateOnNewDocument", m{"source": `
		globalThis.violations = [];
		addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI + " " + e.sample));`})
	tb.size(width, height)
	tb.do("Page.navigate", m{"url": url})
	return tb
}

func (b *browser) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (tb *tab) do(method string, params any) {
	tb.t.Helper()
	tb.must(tb.call(tb.session, method, params, nil))
}

func (tb *tab) size(width, height int) {
	tb.t.Helper()
	tb.do("Emulation.setDeviceMetricsOverride", m{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false})
}

// scheme makes the system's colours light or dark.
func (tb *tab) scheme(s string) {
	tb.t.Helper()
	tb.do("Emulation.setEmulatedMedia", m{"features": []m{{"name": "prefers-color-scheme", "value": s}}})
}

// eval computes an expression in the page; promises are waited for.
func (tb *tab) eval(expr string, v any) {
	tb.t.Helper()
	var r struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text      string `json:"text"`
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	tb.must(tb.call(tb.session, "Runtime.evaluate", m{"expression": expr, "awaitPromise": true, "returnByValue": true, "userGesture": true}, &r))
	if r.Exception != nil {
		tb.t.Fatalf("%s: %s %s", expr, r.Exception.Text, r.Exception.Exception.Description)
	}
	if v != nil {
		if err := json.Unmarshal(r.Result.Value, v); err != nil {
			tb.t.Fatalf("%s: %s: %v", expr, r.Result.Value, err)
		}
	}
}

// text computes an expression that is a string.
func (tb *tab) text(expr string) string {
	tb.t.Helper()
	var s string
	tb.eval("(async () => String(await "+expr+"))()", &s)
	return s
}

// until waits for an expression to be true.
func (tb *tab) until(expr string) {
	tb.t.Helper()
	end := time.Now().Add(30 * time.Second)
	for {
		var ok bool
		tb.eval("Boolean("+expr+")", &ok)
		if ok {
			return
		}
		if time.Now().After(end) {
			tb.shoot("failed")
			tb.t.Fatalf("the page never came to %s; it shows:\n%s", expr, tb.text("document.body.innerText"))
		}
		time.Sleep(50 * time.Millisecond) // the page works in a process of its own
	}
}

// key presses a key as a keyboard would.
func (tb *tab) key(name string, code int) {
	tb.t.Helper()
	text := ""
	if name == "Enter" {
		text = "\r"
	}
	tb.do("Input.dispatchKeyEvent", m{"type": "keyDown", "key": name, "code": name, "windowsVirtualKeyCode": code, "text": text})
	tb.do("Input.dispatchKeyEvent", m{"type": "keyUp", "key": name, "code": name, "windowsVirtualKeyCode": code})
}

// shoot saves a picture of the whole page into the folder MOOT_WEB_SHOTS, if
// that is set.
func (tb *tab) shoot(name string) {
	tb.t.Helper()
	dir := os.Getenv("MOOT_WEB_SHOTS")
	if dir == "" {
		return
	}
	var r struct {
		Data string `json:"data"`
	}
	tb.must(tb.call(tb.session, "Page.captureScreenshot", m{"captureBeyondViewport": true}, &r))
	png, err := base64.StdEncoding.DecodeString(r.Data)
	tb.must(err)
	tb.must(os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}
