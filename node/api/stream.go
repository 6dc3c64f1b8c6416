package api

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// progressInterval is how often a stream tells of the same phase.
const progressInterval = 100 * time.Millisecond

// operation is what a stream ends with the result of.
type operation func(ctx context.Context, progress ProgressFunc) (any, error)

// stream runs op and tells its progress line by line. As long as nothing was
// sent, a failure is answered with its status.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, op operation) {
	release, err := slot(s.streams, "operations")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer release()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	latest := newLatest()
	type outcome struct {
		v     any
		err   error
		panic any
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			o.panic = recover()
			done <- o
		}()
		o.v, o.err = op(ctx, latest.put)
	}()
	out := &lines{w: w}
	ping := time.NewTicker(s.ping)
	defer ping.Stop()
	closing := s.closing
	for {
		var send any
		select {
		case <-latest.changed:
			if p, ok := latest.take(); ok {
				send = Line{Type: LineProgress, Progress: &p}
			}
		case <-ping.C:
			send = Line{Type: LinePing}
		case <-closing:
			closing = nil
			cancel() // and wait for the operation to end
		case o := <-done:
			if o.panic != nil {
				panic(o.panic)
			}
			if o.err != nil && closing == nil {
				o.err = Errorf(CodeRetry, "%v: %w", errStopping, o.err)
			}
			for p, ok := latest.take(); ok; p, ok = latest.take() {
				if o.err == nil || p.Fit != nil { // which says more than the error
					_ = out.send(Line{Type: LineProgress, Progress: &p}) // if this fails, so does the result
				}
			}
			s.finish(out, r, o.v, o.err)
			return
		}
		if send != nil && out.send(send) != nil {
			cancel() // the asker is gone; the operation ends when it sees that
		}
	}
}

// finish sends the result of an operation.
func (s *Server) finish(out *lines, r *http.Request, v any, err error) {
	var b []byte
	if err == nil {
		b, err = Marshal(v)
	}
	if err != nil {
		if !out.begun {
			s.fail(out.w, r, err)
			return
		}
		e := AsError(err)
		s.log.WarnContext(r.Context(), "operation failed", "path", r.URL.Path, "err", err)
		_ = out.send(Line{Type: LineError, OK: new(false), Error: e}) // nobody else to tell
		return
	}
	_ = out.send(Line{Type: LineResult, Result: json.RawMessage(b)}) // likewise
}

// slot takes one of the streams that may be open at once.
func slot(slots chan struct{}, what string) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	default:
		return nil, Errorf(CodeRetry, "%d %s are open already", cap(slots), what).WithHint("end one of them, or try again later")
	}
}

// lines writes NDJSON.
type lines struct {
	w     http.ResponseWriter
	begun bool
}

func (l *lines) send(v any) error {
	b, err := Marshal(v)
	if err != nil {
		return err
	}
	return l.write(ContentTypeNDJSON, append(b, '\n'))
}

func (l *lines) write(contentType string, b []byte) error {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", contentType)
		l.w.WriteHeader(http.StatusOK)
	}
	setWriteDeadline(l.w)
	if _, err := l.w.Write(b); err != nil {
		return err
	}
	return http.NewResponseController(l.w).Flush()
}

// latest keeps the newest progress, so that an operation never waits for a
// slow reader.
type latest struct {
	changed chan struct{} // has a token when there is something to take

	mu sync.Mutex
	// guarded by mu
	queue   []Progress // the last of each phase that was not taken
	sent    time.Time
	delayed bool // changed will be told of what is in queue
}

func newLatest() *latest { return &latest{changed: make(chan struct{}, 1)} }

// maxPhases bounds what a stream keeps for a reader that does not read.
const maxPhases = 32

func (l *latest) put(p Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.queue)
	switch {
	case n > 0 && l.queue[n-1].Phase == p.Phase:
		l.queue[n-1] = p
	case n < maxPhases:
		l.queue = append(l.queue, p)
	default:
		l.queue[n-1] = p
	}
	// Several phases are told at once, and the end of one too; within a phase
	// a few times a second are enough.
	wait := progressInterval - time.Since(l.sent)
	switch {
	case len(l.queue) > 1 || p.Total > 0 && p.Done >= p.Total || wait <= 0:
		l.signal()
	case !l.delayed:
		// It may be the last for a long time, such as whom it is waiting for.
		l.delayed = true
		time.AfterFunc(wait, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.delayed = false
			l.signal()
		})
	}
}

// signal tells the reader that there may be something to take.
func (l *latest) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// take removes the oldest that was not told.
func (l *latest) take() (Progress, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return Progress{}, false
	}
	p := l.queue[0]
	l.queue = l.queue[1:]
	l.sent = time.Now()
	if len(l.queue) > 0 {
		l.signal()
	}
	return p, true
}
