package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options are the settings of a Server.
type Options struct {
	// Token is what each request must carry; see NewToken. It must be set.
	Token string
	// ReadToken, if not empty, lets whoever has it ask and change nothing.
	ReadToken string
	// Log gets a line per failure, and one per request at debug level.
	// Default: nothing is logged.
	Log *slog.Logger
	// MaxStreams bounds how many operations are open at once, MaxWatchers how
	// many event streams; more are answered with E_RETRY. Default 64 and 512.
	MaxStreams  int
	MaxWatchers int
	// PingInterval is how long a stream is silent before it shows that it
	// lives. Default 15 s.
	PingInterval time.Duration
	// Metrics, if not nil, is told at /metrics beside what the server knows.
	Metrics prometheus.Gatherer
}

// The bounds on what an asker can make the server hold or wait for.
const (
	maxBodyBytes    = 1 << 20
	maxHeaderBytes  = 16 << 10
	headerTimeout   = 15 * time.Second // a machine may do nothing for some seconds
	bodyTimeout     = 30 * time.Second
	writeTimeout    = 30 * time.Second // of one write
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second // of all that is to end; requests get requestsTimeout of it
	requestsTimeout = 4 * time.Second
	answerTimeout   = 30 * time.Second // of one answer that several share
)

// Server is the HTTP side of the API. It starts nothing; use it as a handler,
// or let Serve run it.
type Server struct {
	// constant after NewServer
	backend   Backend
	token     [32]byte  // hash
	readToken [32]byte  // hash, of random bytes if there is none
	public    bool      // it is that of a Public
	visitors  *visitors // of a Public, else nil
	log       *slog.Logger
	ping      time.Duration
	mux       *http.ServeMux
	shared    *shared
	// patterns are those of mux, but for the page's.
	patterns []string
	streams  chan struct{} // a slot for each open operation
	watchers chan struct{} // a slot for each open event stream

	closeOnce sync.Once
	closing   chan struct{} // closed when Serve ends: streams say bye
}

// NewServer makes a server for b.
func NewServer(b Backend, o Options) *Server {
	if o.Token == "" {
		panic("bug: API server without token")
	}
	s := newServer(b, o)
	s.handle(s.routes(o.Metrics))
	return s
}

// newServer makes a server without routes.
func newServer(b Backend, o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxStreams <= 0 {
		o.MaxStreams = 64
	}
	if o.MaxWatchers <= 0 {
		o.MaxWatchers = 512
	}
	if o.PingInterval <= 0 {
		o.PingInterval = 15 * time.Second
	}
	s := &Server{
		backend: b,
		token:   hashToken(o.Token),
		log:     o.Log,
		ping:    o.PingInterval,
		mux:     http.NewServeMux(),
		shared:  newShared(),
		streams: make(chan struct{}, o.MaxStreams), watchers: make(chan struct{}, o.MaxWatchers),
		closing: make(chan struct{}),
	}
	if _, _ = rand.Read(s.readToken[:]); o.ReadToken != "" { // it never fails
		s.readToken = hashToken(o.ReadToken)
	}
	return s
}

// Serve answers on l until ctx is done, and then returns nil: open streams are
// ended with a word, other requests get a few seconds, and what several share the
// answer of is ended then and gets what is left of shutdownTimeout. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(l) }()
	var err error
	select {
	case err = <-failed: // the listener broke
		err = fmt.Errorf("serve API: %w", err)
	case <-ctx.Done():
	}
	s.closeOnce.Do(func() { close(s.closing) })
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	requests, cancel := context.WithTimeout(stop, requestsTimeout)
	defer cancel()
	if hs.Shutdown(requests) != nil {
		_ = hs.Close() // what did not end in time is cut
	}
	s.shared.stop(stop)
	if err == nil {
		<-failed //nolint:errcheck // it says that it was closed
	}
	return err
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	rec := &recorder{ResponseWriter: w}
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p) // said already why
			}
			err := s.panicked(r, p)
			if rec.status != 0 {
				panic(http.ErrAbortHandler) // too late for an answer; the asker must see a cut
			}
			s.fail(rec, r, err)
		}
		s.log.DebugContext(r.Context(), "request answered", "method", r.Method, "path", r.URL.Path, "status", rec.status, "took", time.Since(begin))
	}()
	header := rec.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	if s.visitors != nil {
		if err := s.visitors.allow(r); err != nil {
			s.log.DebugContext(r.Context(), "request refused", "method", r.Method, "path", r.URL.Path, "err", err)
			header.Set("Retry-After", "5")
			s.fail(rec, r, err)
			return
		}
	}
	if err := s.admit(r); err != nil {
		s.log.WarnContext(r.Context(), "request refused", "method", r.Method, "path", r.URL.Path, "err", err)
		s.fail(rec, r, err)
		return
	}
	// The mux would redirect to the shortest form of a path, in HTML.
	if r.URL.Path != path.Clean(r.URL.Path) {
		s.fail(rec, r, noRoute(r))
		return
	}
	h, pattern := s.mux.Handler(r)
	if pattern == "" {
		s.fail(rec, r, unrouted(h, r))
		return
	}
	s.mux.ServeHTTP(rec, r)
}

// panicked notes a bug, and is the answer to who met it.
func (s *Server) panicked(r *http.Request, p any) error {
	s.log.ErrorContext(r.Context(), "request panicked", "path", r.URL.Path, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
	return Errorf(CodeInternal, "%s %s: the daemon has a bug here; its log has the details", r.Method, clip(r.URL.Path))
}

// unrouted finds out why the mux has no handler: no such path, or another
// method.
func unrouted(h http.Handler, r *http.Request) *Error {
	probe := &probe{header: make(http.Header)}
	h.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		e := Errorf(CodeUsage, "%s is not a method of %s", r.Method, clip(r.URL.Path)).WithHint("use %s", probe.header.Get("Allow"))
		e.status = http.StatusMethodNotAllowed
		return e
	}
	return noRoute(r)
}

func noRoute(r *http.Request) *Error {
	return Errorf(CodeNotFound, "the API has no %s", clip(r.URL.Path)).WithHint("daemon and command may be of different versions; see \"moot version\"")
}

// answer sends v as the whole answer.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	var b []byte
	if err == nil {
		b, err = Marshal(v)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.send(w, http.StatusOK, append(b, '\n'))
}

// fail sends err as the whole answer.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := AsError(err)
	if e.Code == CodeInternal {
		s.log.WarnContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if e.HTTPStatus() == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="moot"`)
	}
	s.send(w, e.HTTPStatus(), append(MarshalError(e), '\n'))
}

// send sends a whole answer, which others may be reading too.
func (s *Server) send(w http.ResponseWriter, status int, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	setWriteDeadline(w)
	w.WriteHeader(status)
	_, _ = w.Write(b) // who does not read it does not get it
}

// setWriteDeadline bounds the next write; a test's recorder has no deadline.
func setWriteDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// probe takes an answer that nobody reads.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) WriteHeader(status int)      { p.status = status }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }

// clip shortens text of an asker for a message.
func clip(s string) string {
	const most = 80
	s = string(bytes.ToValidUTF8([]byte(s), []byte("?")))
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q…", s[:most])
}

var errStopping = errors.New("the daemon is stopping")
