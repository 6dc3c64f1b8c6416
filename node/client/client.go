package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
)

// What a client waits for.
const (
	dialTimeout = 10 * time.Second
	// The daemon shows every 15 s that a long operation lives; what is silent
	// for several times as long does not.
	headerTimeout = 60 * time.Second
	silentTimeout = 60 * time.Second
)

// maxAnswerBytes bounds one answer, or one line of a stream. The largest is a
// page of rounds.
const maxAnswerBytes = 64 << 20

// Client is a connection to one daemon. Its methods may be called at the same
// time.
type Client struct {
	// constant after Open
	dir    string
	http   *http.Client
	silent time.Duration // longest silence of a stream

	mu sync.Mutex
	// guarded by mu
	endpoint api.Endpoint
	token    string
}

// Open finds the daemon that keeps its data in dataDir. It reads two small
// files and connects to nothing.
func Open(dataDir string) (*Client, error) {
	if dataDir == "" {
		return nil, api.Errorf(api.CodeUsage, "the data folder is unknown: this user has no home folder").
			WithHint("give --data-dir, or set MOOT_DATA_DIR")
	}
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "data folder %s: %w", dataDir, err)
	}
	c := &Client{
		dir:    dir,
		silent: silentTimeout,
		http: &http.Client{
			Transport: &http.Transport{
				// No proxy: the token is for this machine alone.
				Proxy:                 nil,
				DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
				ResponseHeaderTimeout: headerTimeout,
				IdleConnTimeout:       time.Minute,
				MaxIdleConnsPerHost:   4,
				DisableCompression:    true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Endpoint is where the daemon is reached, as it wrote when it started.
func (c *Client) Endpoint() api.Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endpoint
}

// DashboardURL is the address of the daemon's page for a browser on this
// machine. Behind the # is the token, which browsers do not send.
func (c *Client) DashboardURL() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endpoint.URL + "/#token=" + c.token
}

// ReadOnlyURL is DashboardURL with a token that lets its owner look, and change
// nothing.
func (c *Client) ReadOnlyURL() (string, error) {
	token, err := api.ReadReadToken(c.dir)
	if err != nil {
		return "", api.Errorf(api.CodeDaemon, "%w", err).WithHint("is the daemon of an older version? start it again")
	}
	return c.Endpoint().URL + "/#token=" + token, nil
}

// reload reads address and token again: a daemon that was restarted has
// others.
func (c *Client) reload() error {
	e, err := api.ReadEndpoint(c.dir)
	if err == nil {
		err = checkURL(e.URL)
	}
	var token string
	if err == nil {
		token, err = api.ReadToken(c.dir)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return api.Errorf(api.CodeDaemon, "no daemon is running with data folder %s", c.dir).WithHint("%s", c.startHint())
	case errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.CodeAuth, "%w", err).WithHint("only the user who started the daemon can reach it")
	case err != nil:
		return api.Errorf(api.CodeDaemon, "%w", err).WithHint("%s", c.startHint())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endpoint, c.token = e, token
	return nil
}

// checkURL wants the token to stay on this machine, whatever api.json says.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("%s: %w", api.EndpointFile, err)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "http" || u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%s names %.80q, which is no http address of this machine", api.EndpointFile, s)
	}
	return nil
}

func (c *Client) startHint() string {
	if d := DefaultDataDir(); d == c.dir {
		return "start one with: mootd"
	}
	return fmt.Sprintf("start one with: mootd --data-dir %s", c.dir)
}

// file is a body that is sent as it is.
type file struct {
	r    io.Reader
	size int64
}

// request sends one request. The answer's body is the caller's to close; an
// answer that is an error is returned as one.
func (c *Client) request(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	content, length := "application/json", int64(-1)
	switch body := body.(type) {
	case nil:
	case file:
		content, r, length = "application/octet-stream", body.r, body.size
	default:
		b, err := json.Marshal(body)
		if err != nil {
			return nil, api.Errorf(api.CodeInternal, "encode %T: %w", body, err)
		}
		r = bytes.NewReader(b)
	}
	c.mu.Lock()
	base, token := c.endpoint.URL, c.token
	c.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, method, base+path, r)
	if err != nil {
		return nil, api.Errorf(api.CodeDaemon, "%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		req.Header.Set("Content-Type", content)
	}
	if length >= 0 {
		req.ContentLength = length
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.failure(resp)
}

// unreachable says why no answer came.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return interrupted(ctx)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without method and URL
	}
	e := c.Endpoint()
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return api.Errorf(api.CodeDaemon, "no daemon answers at %s; %s is left from one that ended (process %d): %w",
			e.URL, filepath.Join(c.dir, api.EndpointFile), e.PID, err).WithHint("%s", c.startHint())
	}
	return api.Errorf(api.CodeDaemon, "the daemon at %s did not answer: %w", e.URL, err).
		WithHint("see whether process %d lives, and what its log says", e.PID)
}

// interrupted is the error of an ended context.
func interrupted(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return api.Errorf(api.CodeRetry, "the daemon did not finish in time: %w", ctx.Err())
	}
	e := api.Errorf(api.CodeInterrupted, "%w", ctx.Err())
	e.Message = "interrupted" // what Go calls it says less
	return e
}

// failure reads an answer that is not 200.
func (c *Client) failure(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var f struct {
		Error *api.Error `json:"error"`
	}
	if err != nil || json.Unmarshal(b, &f) != nil || f.Error == nil || f.Error.Code == "" {
		return api.Errorf(api.CodeDaemon, "what answers at %s is no moot daemon: it says %s", c.Endpoint().URL, resp.Status).
			WithHint("%s", c.startHint())
	}
	return sent(f.Error)
}

// sent completes an error of the daemon: one that is newer may have a code
// that is not known here, and its exit code counts then.
func sent(e *api.Error) *api.Error {
	if e.Exit <= 0 {
		e.Exit = e.Code.Exit()
	}
	return e
}

// call sends a request whose answer is one object.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var v T
	resp, err := c.request(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return v, interrupted(ctx)
	case err != nil:
		return v, api.Errorf(api.CodeDaemon, "%s %s: the answer was cut: %w", method, path, err)
	case len(b) > maxAnswerBytes:
		return v, api.Errorf(api.CodeDaemon, "%s %s: the answer has more than %d bytes", method, path, maxAnswerBytes)
	}
	return v, decode(b, &v, method, path)
}

// decode reads an answer. Fields that are not known are from a newer daemon.
func decode(b []byte, v any, method, path string) error {
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return api.Errorf(api.CodeDaemon, "%s %s: the answer is not understood: %w", method, path, err)
	}
	if head.Schema != api.Schema {
		return api.Errorf(api.CodeVersion, "the daemon speaks version %d of the API, this program %d", head.Schema, api.Schema).
			WithHint(`install moot and mootd of the same version; "moot version" shows both`)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return api.Errorf(api.CodeDaemon, "%s %s: the answer is not understood: %w", method, path, err)
	}
	return nil
}
