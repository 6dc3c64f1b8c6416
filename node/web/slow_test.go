package web_test

import (
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdppage "github.com/chromedp/cdproto/page"
)

// slow is how many times longer what the page computes takes (MOOT_WEB_SLOW=10, say);
// then frames and timers come late, too, each by another while, and so do the daemon's
// answers. A test that asserts what it did not wait for, and a page that takes an
// answer for the last one, are found by it. 0: nothing is made slow.
func slow() float64 {
	n, err := strconv.ParseFloat(os.Getenv("MOOT_WEB_SLOW"), 64)
	if err != nil {
		return 0
	}
	return n
}

const slowAnswer = 500 * time.Millisecond // at most, for an answer to begin

// slowDown makes the pages of a tab slow, if all is to be.
func (tb *tab) slowDown() {
	tb.t.Helper()
	if slow() == 0 {
		return
	}
	tb.throttle(slow())
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

// throttle makes what the page computes take so many times longer.
func (tb *tab) throttle(times float64) {
	tb.t.Helper()
	if slow() > 0 {
		call(tb, emulation.SetCPUThrottlingRate, emulation.SetCPUThrottlingRateParams{Rate: times})
	}
}

// slowly makes answers slow, if all is to be.
func slowly(l net.Listener) net.Listener {
	if slow() == 0 {
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
