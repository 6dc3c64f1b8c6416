package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/inspector"
	cdplog "github.com/chromedp/cdproto/log"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long a browser on a busy machine may take for anything.
const patience = 3 * time.Minute

// chromium is the one process of all tests. Each test has a profile of its own
// in it.
var chromium = struct {
	once sync.Once
	ctx  context.Context
	stop func()
	err  error
}{stop: func() {}}

func TestMain(m *testing.M) {
	code := m.Run()
	chromium.stop()
	os.Exit(code)
}

// startChromium starts it, three times if it must: on a busy machine it may not come
// up, and that says nothing of our page.
func startChromium() {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	for range 3 {
		alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, stop := chromedp.NewContext(alloc)
		chromium.stop = func() {
			stop()
			stopAlloc() // waits for the process, and removes its folder
		}
		up := time.AfterFunc(patience, stopAlloc)
		chromium.err = chromedp.Do(ctx)
		if up.Stop() && chromium.err == nil {
			chromium.ctx = ctx
			return
		}
		chromium.stop()
		chromium.stop = func() {}
		if chromium.err == nil {
			chromium.err = errors.New("it took too long")
		}
	}
}

// browser is a profile of Chromium without window.
type browser struct {
	t   *testing.T
	ctx context.Context // of its first tab

	mu     sync.Mutex
	broken []string // guarded by mu; what the pages complained about
}

// openBrowser opens a profile for a test, or skips it when there is no
// Chromium.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser is started only without -short")
	}
	found := false
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		_, err := exec.LookPath(name)
		found = found || err == nil
	}
	if !found {
		t.Skip("no chromium on PATH (Debian: apt-get install chromium); the page is tested only where it is installed")
	}
	if chromium.once.Do(startChromium); chromium.err != nil {
		t.Fatalf("start chromium: %v", chromium.err)
	}
	t.Parallel() // tests wait for the page most of their time
	return &browser{t: t}
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
	ctx context.Context
}

// open opens a tab of this size, in a window of its own: behind another it
// would be hidden.
func (b *browser) open(url string, width, height int) *tab {
	b.t.Helper()
	parent, options := b.ctx, []chromedp.ContextOption{chromedp.WithListener(b.listen)}
	if parent == nil {
		parent, options = chromium.ctx, append(options, chromedp.WithNewBrowserContext())
	}
	ctx, stop := chromedp.NewContext(parent, options...)
	b.t.Cleanup(stop)
	if b.ctx == nil {
		b.ctx = ctx
	}
	// The first use makes the tab, which lives as long as its context.
	b.must(chromedp.Do(ctx))
	ctx, crash := context.WithCancelCause(ctx)
	tb := &tab{browser: b, ctx: ctx}
	b.t.Cleanup(func() { crash(nil) })
	b.must(chromedp.Listen(ctx, func(ev any) {
		if _, ok := ev.(*inspector.EventTargetCrashed); ok {
			crash(errors.New("the browser's process of this page crashed"))
		}
	}))
	call(tb, inspector.Enable, cdp.Empty{})
	call(tb, cdppage.Enable, cdppage.EnableParams{})
	call(tb, cdplog.Enable, cdp.Empty{})
	// A window of another test does not take the focus away.
	call(tb, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	call(tb, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: `
		globalThis.violations = [];
		addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI + " " + e.sample));`})
	tb.slowDown()
	tb.size(width, height)
	if r := call(tb, cdppage.Navigate, cdppage.NavigateParams{URL: url}); r.ErrorText != "" {
		b.t.Fatalf("navigate to %s: %s", url, r.ErrorText)
	}
	return tb
}

// listen keeps what pages complain about.
func (b *browser) listen(ev any) {
	switch ev.(type) {
	case *runtime.EventExceptionThrown, *cdplog.EventEntryAdded:
		text, err := json.Marshal(ev)
		if err != nil {
			text = []byte(err.Error())
		}
		b.mu.Lock()
		b.broken = append(b.broken, string(text))
		b.mu.Unlock()
	}
}

func (b *browser) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// call sends a command to a tab.
func call[P, R any](tb *tab, cmd cdp.Command[P, R], params P) R {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	r, err := chromedp.Call(ctx, cmd, params)
	tb.must(tb.why(err))
	return r
}

// why is err, or what it comes of.
func (tb *tab) why(err error) error {
	if err != nil && tb.ctx.Err() != nil {
		return context.Cause(tb.ctx)
	}
	return err
}

func (tb *tab) size(width, height int) {
	tb.t.Helper()
	call(tb, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: int64(width), Height: int64(height), DeviceScaleFactor: 1})
}

// scheme makes the system's colours light or dark.
func (tb *tab) scheme(s string) {
	tb.t.Helper()
	call(tb, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: s}}})
}

// reload loads the page again, and waits until it is another one.
func (tb *tab) reload() {
	tb.t.Helper()
	tb.eval(`globalThis.before = true`, nil)
	call(tb, cdppage.Reload, cdppage.ReloadParams{})
	tb.until(`!globalThis.before && document.readyState === "complete"`)
}

// try computes an expression in the page; promises are waited for. It fails when the
// expression does, and while a page is being loaded.
func (tb *tab) try(expr string) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	r, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{Expression: expr, AwaitPromise: new(true), ReturnByValue: new(true), UserGesture: new(true)})
	if err != nil {
		return nil, tb.why(err)
	}
	if x := r.ExceptionDetails; x != nil {
		text := x.Text
		if x.Exception != nil {
			text += " " + x.Exception.Description
		}
		return nil, errors.New(text)
	}
	return json.RawMessage(r.Result.Value), nil
}

// eval computes an expression in the page; promises are waited for.
func (tb *tab) eval(expr string, v any) {
	tb.t.Helper()
	b, err := tb.try(expr)
	if err == nil && v != nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		tb.t.Fatalf("%.300s: %v", expr, err)
	}
}

const asText = "(async () => String(await (%s)))()"

// text computes an expression that is a string. It is for what is settled already:
// what the page is on its way to is waited for by is, says and until.
func (tb *tab) text(expr string) string {
	tb.t.Helper()
	var s string
	tb.eval(fmt.Sprintf(asText, expr), &s)
	return s
}

// comes waits for an expression to be a string that is wanted, and returns what it
// was last.
func (tb *tab) comes(expr string, ok func(string) bool) (string, bool) {
	tb.t.Helper()
	end := time.Now().Add(patience)
	for {
		var last string
		b, err := tb.try(fmt.Sprintf(asText, expr))
		if err == nil {
			err = json.Unmarshal(b, &last)
		}
		if err == nil && ok(last) {
			return last, true
		}
		if err != nil {
			last = err.Error()
		}
		if time.Now().After(end) || tb.ctx.Err() != nil {
			return last, false
		}
		time.Sleep(30 * time.Millisecond) // the page works in a process of its own
	}
}

// poll fails the test if an expression never is what is wanted.
func (tb *tab) poll(expr, want string, ok func(string) bool) {
	tb.t.Helper()
	last, came := tb.comes(expr, ok)
	if came {
		return
	}
	if tb.ctx.Err() == nil {
		tb.shoot("failed")
		last += "\nThe page shows\n" + tb.text("document.body.innerText")
	}
	tb.t.Fatalf("%s is never\n%s, but\n%s", expr, want, last)
}

// none says whether s is empty, or 0.
func none(s string) bool { return s == "" || s == "0" }

// until waits for an expression to be true.
func (tb *tab) until(expr string) {
	tb.t.Helper()
	tb.poll("Boolean(await ("+expr+"))", "true", func(s string) bool { return s == "true" })
}

// is waits for an expression to be a string.
func (tb *tab) is(expr, want string) {
	tb.t.Helper()
	tb.poll(expr, want, func(s string) bool { return s == want })
}

// says waits for an expression to be a string that has all these parts.
func (tb *tab) says(expr string, parts ...string) {
	tb.t.Helper()
	tb.poll(expr, strings.Join(parts, "\n"), func(s string) bool {
		for _, p := range parts {
			if !strings.Contains(s, p) {
				return false
			}
		}
		return true
	})
}

// key presses a key as a keyboard would.
func (tb *tab) key(name string, code int64) {
	tb.t.Helper()
	text := ""
	switch name {
	case "Enter":
		text = "\r"
	case "Space":
		text = " "
	case "+", "-", "0":
		text = name
	}
	key := name
	if name == "Space" {
		key = " "
	}
	for _, kind := range []input.DispatchKeyEventType{"keyDown", "keyUp"} {
		call(tb, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: kind, Key: key, Code: name, WindowsVirtualKeyCode: code, Text: text})
		text = ""
	}
}

// letter types a letter.
func (tb *tab) letter(r string) {
	tb.t.Helper()
	call(tb, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: "keyDown", Key: r, Text: r})
	call(tb, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: "keyUp", Key: r})
}

// drag presses the mouse at one point and lets it go at another.
func (tb *tab) drag(x0, y0, x1, y1 float64) {
	tb.t.Helper()
	for _, p := range []input.DispatchMouseEventParams{
		{Type: "mousePressed", X: x0, Y: y0, Buttons: 1, ClickCount: 1},
		{Type: "mouseMoved", X: (x0 + x1) / 2, Y: (y0 + y1) / 2, Buttons: 1},
		{Type: "mouseMoved", X: x1, Y: y1, Buttons: 1},
		{Type: "mouseReleased", X: x1, Y: y1, ClickCount: 1},
	} {
		p.Button = "left"
		call(tb, input.DispatchMouseEvent, p)
	}
}

// downloaded does what makes the browser save a file, and returns the file.
func (tb *tab) downloaded(script string) (name string, content []byte) {
	tb.t.Helper()
	dir := tb.t.TempDir()
	type file struct{ guid, name string }
	done := make(chan file, 1)
	names := make(map[string]string) // touched by listen alone
	target := chromedp.FromContext(tb.ctx).Target
	ctx, cancel := context.WithCancel(tb.ctx)
	defer cancel()
	tb.must(chromedp.ListenBrowser(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *cdpbrowser.EventDownloadWillBegin:
			// The browser tells of the files of all tests that go on at this time.
			if string(ev.FrameID) == string(target.TargetID) {
				names[ev.GUID] = ev.SuggestedFilename
			}
		case *cdpbrowser.EventDownloadProgress:
			if name, ok := names[ev.GUID]; ok && ev.State == "completed" {
				select {
				case done <- file{ev.GUID, name}:
				default:
				}
			}
		}
	}))
	_, err := chromedp.CallBrowser(ctx, cdpbrowser.SetDownloadBehavior, cdpbrowser.SetDownloadBehaviorParams{
		Behavior: "allowAndName", BrowserContextID: chromedp.FromContext(tb.ctx).BrowserContextID, DownloadPath: dir, EventsEnabled: new(true),
	})
	tb.must(err)
	tb.eval(script, nil)
	select {
	case f := <-done:
		b, err := os.ReadFile(filepath.Join(dir, f.guid))
		tb.must(err)
		return f.name, b
	case <-time.After(patience):
		tb.t.Fatalf("nothing was downloaded by %s", script)
		return "", nil
	}
}

// picture saves what is in sight as NAME.png, smaller.
func (tb *tab) picture(dir, name string) {
	tb.t.Helper()
	var at struct{ Width, Height float64 }
	tb.eval(`({width: innerWidth, height: innerHeight})`, &at)
	png := call(tb, cdppage.CaptureScreenshot, cdppage.CaptureScreenshotParams{
		Clip: &cdppage.Viewport{Width: at.Width, Height: at.Height, Scale: 0.6},
	}).Data
	tb.must(os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

// shoot saves a picture of the whole page into the folder MOOT_WEB_SHOTS, if
// that is set.
func (tb *tab) shoot(name string) {
	tb.t.Helper()
	dir := os.Getenv("MOOT_WEB_SHOTS")
	if dir == "" {
		return
	}
	png := call(tb, cdppage.CaptureScreenshot, cdppage.CaptureScreenshotParams{CaptureBeyondViewport: new(true)}).Data
	tb.must(os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}
