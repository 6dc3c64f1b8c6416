package web_test

import (
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdppage "github.com/chromedp/cdproto/page"
)

// slow says whether everything is made slow, each time by another while
// (MOOT_WEB_SLOW=1): the page gets a tenth of a processor, its frames and timers come
// late, and so do the daemon's answers. A test that asserts what it did not wait for,
// and a page that takes an answer for the last one, are found by it.
func slow() bool { return os.Getenv("MOOT_WEB_SLOW") != "" }

const (
	slowAnswer = 500 * time.Millisecond // at most, for an answer to begin
	slowPage   = 10                     // times, for what the page computes
)

// slowDown makes the pages of a tab slow, if all is to be.
func (tb *tab) slowDown() {
	tb.t.Helper()
	if !slow() {
		return
	}
	call(tb, emulation.SetCPUThrottlingRate, emulation.SetCPUThrottlingRateParams{Rate: slowPage})
	call(tb, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: `{
		const [later, frame] = [setTimeout, requestAnimationFrame];
		const some = () => Math.random() ** 2 * 200;
		let busy = 0; // until when: what comes late comes in order
		const turn = () => { busy = Math.max(busy, performance.now() + some()); return busy - performance.now(); };
		globalThis.setTimeout = (f, ms = 0, ...args) => later(f, ms + some(), ...args);
		globalThis.requestAnimationFrame = (f) => later(() => frame(f), turn());
		for (const name of ["ResizeObserver", "IntersectionObserver"]) {
			const plain = globalThis[name];
			globalThis[name] = class extends plain {
				constructor(f, ...args) { super((...seen) => later(() => f.call(this, ...seen), turn()), ...args); }
			};
		}
	}`})
}

// slowly makes answers slow, if all is to be.
func slowly(l net.Listener) net.Listener {
	if !slow() {
		return l
	}
	return slowListener{l}
}

type slowListener struct{ net.Listener }

func (l slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: c}, nil
}

// slowConn waits before it begins to answer a question.
type slowConn struct {
	net.Conn
	asked atomic.Bool // since it last answered
}

func (c *slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.asked.Store(true)
	}
	return n, err
}

func (c *slowConn) Write(b []byte) (int, error) {
	if c.asked.Swap(false) {
		time.Sleep(rand.N(slowAnswer))
	}
	return c.Conn.Write(b)
}
