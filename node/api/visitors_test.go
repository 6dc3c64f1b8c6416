package api_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// seenFrom is a listener whose connections seem to come from an address.
type seenFrom struct {
	net.Listener
	addr *atomic.Pointer[net.TCPAddr]
}

type seenConn struct {
	net.Conn
	addr net.Addr
}

func (c seenConn) RemoteAddr() net.Addr { return c.addr }

func (l seenFrom) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return seenConn{c, l.addr.Load()}, nil
}

// serveTo serves a Public to who seems to have the address that is set.
func serveTo(t *testing.T) (url string, from func(ip string)) {
	t.Helper()
	f := apitest.New("node")
	p := api.NewPublic(api.PublicOptions{Source: &source{Fake: f}, Follow: func(ctx context.Context, _ func(api.Event) error) error {
		<-ctx.Done()
		return nil
	}})
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := new(atomic.Pointer[net.TCPAddr])
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ctx, seenFrom{l, addr}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String(), func(ip string) { addr.Store(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1234}) }
}

// TestPublicRequests: one address cannot ask for ever, another one can, also
// behind a web server of this machine; nobody passes for another one by a
// header.
func TestPublicRequests(t *testing.T) {
	url, from := serveTo(t)
	// many asks until it is refused. Who should be may ask slowly, on a machine that is busy, and then for longer.
	many := func(forwarded string, least, want int) (code int) {
		t.Helper()
		c := &http.Client{Transport: &http.Transport{}}
		defer c.CloseIdleConnections()
		end := time.Now().Add(3 * time.Minute)
		for i := 0; i < 1500 || want != http.StatusOK && time.Now().Before(end); i++ {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/healthz", nil)
			if err != nil {
				t.Fatal(err)
			}
			if forwarded != "" {
				req.Header.Set("X-Forwarded-For", strings.ReplaceAll(forwarded, "N", fmt.Sprint(i%250)))
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
			resp.Body.Close()
			if code = resp.StatusCode; code != http.StatusOK {
				if code == http.StatusTooManyRequests && (i < least || resp.Header.Get("Retry-After") == "") {
					t.Errorf("refused after %d requests, again after %q", i, resp.Header.Get("Retry-After"))
				}
				return code
			}
		}
		return code
	}
	for _, tt := range []struct {
		from, forwarded string
		want            int
	}{
		{"203.0.113.7", "", http.StatusTooManyRequests},
		{"203.0.113.8", "198.51.100.N", http.StatusTooManyRequests}, // a header that nobody of ours wrote
		{"2001:db8::1", "", http.StatusTooManyRequests},
		{"2001:db8::2", "", http.StatusTooManyRequests},
		{"127.0.0.1", "", http.StatusOK},
		{"127.0.0.1", "192.0.2.N, 198.51.100.9", http.StatusTooManyRequests},
		{"127.0.0.1", "198.51.100.9, 192.0.2.N", http.StatusOK},
		{"127.0.0.1", "192.0.2.N, 198.51.100.10:4N", http.StatusTooManyRequests},
		{"127.0.0.1", "unknownN", http.StatusTooManyRequests},
	} {
		from(tt.from)
		least := 100
		if tt.from == "2001:db8::2" { // of a network that asked too much already
			least = 0
		}
		if got := many(tt.forwarded, least, tt.want); got != tt.want {
			t.Errorf("from %s for %q: %d, want %d", tt.from, tt.forwarded, got, tt.want)
		}
	}
}

// TestPublicConnections: one address has so many connections and no more, until
// it closes one; others are not in its way.
func TestPublicConnections(t *testing.T) {
	url, from := serveTo(t)
	open := func() (net.Conn, bool) {
		t.Helper()
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return c, false
		}
		b := make([]byte, 12)
		n, _ := c.Read(b)
		return c, string(b[:n]) == "HTTP/1.1 200"
	}
	from("203.0.113.7")
	var first net.Conn
	for i := range 64 {
		c, ok := open()
		if !ok {
			t.Fatalf("connection %d is refused", i+1)
		}
		if first == nil {
			first = c
		}
	}
	if _, ok := open(); ok {
		t.Error("one more is answered")
	}
	from("203.0.113.8")
	if _, ok := open(); !ok {
		t.Error("another address is refused")
	}
	from("203.0.113.7")
	first.Close()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, ok := open(); ok {
			break
		} else if time.Now().After(end) {
			t.Fatal("the place of a closed connection is not free")
		}
	}
}

// TestPublicStreams: one address has so many event streams and no more, until
// it ends one, over whatever connections they go.
func TestPublicStreams(t *testing.T) {
	url, from := serveTo(t)
	from("127.0.0.1")
	open := func(addr string) (end func(), code int) {
		t.Helper()
		ctx, end := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", addr)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			end()
			resp.Body.Close()
		})
		return end, resp.StatusCode
	}
	var first func()
	for i := range 64 {
		end, code := open("198.51.100.7")
		if code != http.StatusOK {
			t.Fatalf("stream %d is refused with %d", i+1, code)
		}
		if first == nil {
			first = end
		}
	}
	if _, code := open("198.51.100.7"); code != http.StatusTooManyRequests {
		t.Errorf("one more is answered with %d", code)
	}
	if _, code := open("198.51.100.8"); code != http.StatusOK {
		t.Errorf("another address is refused with %d", code)
	}
	first()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, code := open("198.51.100.7"); code == http.StatusOK {
			break
		} else if time.Now().After(end) {
			t.Fatal("the place of an ended stream is not free")
		}
	}
}
