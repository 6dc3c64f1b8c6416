package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/moot-net/moot/node/api"
)

// stream sends a request that is answered line by line, and returns the result
// in its last line. progress may be nil.
func stream[T any](ctx context.Context, c *Client, path string, body any, progress api.ProgressFunc) (T, error) {
	var v T
	if progress == nil {
		progress = func(api.Progress) {}
	}
	reader, err := c.open(ctx, http.MethodPost, path, body)
	if err != nil {
		return v, err
	}
	defer reader.close()
	for {
		b, err := reader.next()
		if err != nil {
			return v, err
		}
		var line api.Line
		if err := json.Unmarshal(b, &line); err != nil {
			return v, api.Errorf(api.CodeDaemon, "POST %s: a line of the answer is not understood: %w", path, err)
		}
		switch line.Type {
		case api.LineProgress:
			if line.Progress != nil {
				progress(*line.Progress)
			}
		case api.LineResult:
			return v, decode(line.Result, &v, http.MethodPost, path)
		case api.LineError:
			if line.Error == nil {
				return v, api.Errorf(api.CodeDaemon, "POST %s: the daemon sent an error without saying which", path)
			}
			return v, sent(line.Error)
		}
		// Others are pings, or from a newer daemon.
	}
}

// lineReader reads NDJSON, and gives up when nothing comes for too long.
type lineReader struct {
	ctx    context.Context // the caller's
	cancel context.CancelCauseFunc
	timer  *time.Timer
	silent time.Duration
	path   string
	body   io.Closer
	lines  *bufio.Scanner
}

var errSilent = errors.New("the daemon fell silent")

// open sends a request and reads its answer line by line.
func (c *Client) open(ctx context.Context, method, path string, body any) (*lineReader, error) {
	inner, cancel := context.WithCancelCause(ctx)
	resp, err := c.request(inner, method, path, body)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	r := &lineReader{
		ctx: ctx, cancel: cancel, silent: c.silent, path: path, body: resp.Body, lines: bufio.NewScanner(resp.Body),
		timer: time.AfterFunc(c.silent, func() { cancel(errSilent) }),
	}
	r.lines.Buffer(make([]byte, 0, 4096), maxAnswerBytes)
	return r, nil
}

func (r *lineReader) close() {
	r.timer.Stop()
	r.cancel(nil)
	r.body.Close()
}

// next returns the next line that is not empty. The end is an error: a stream
// says itself when it is over.
func (r *lineReader) next() ([]byte, error) {
	for r.lines.Scan() {
		r.timer.Reset(r.silent)
		if b := bytes.TrimSpace(r.lines.Bytes()); len(b) > 0 {
			return b, nil
		}
	}
	err := r.lines.Err()
	switch {
	case r.ctx.Err() != nil:
		return nil, interrupted(r.ctx)
	case err == nil:
		err = io.ErrUnexpectedEOF
	case errors.Is(err, context.Canceled):
		err = errSilent
	}
	return nil, api.Errorf(api.CodeDaemon, "the answer to %s was cut: %w", r.path, err).
		WithHint("see whether the daemon lives, and what its log says")
}
