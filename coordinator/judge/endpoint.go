package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/moot-net/moot/node/api"
)

const (
	maxReply        = 4 << 20 // bytes of an answer that are read
	maxAttempts     = 8       // requests until a busy or failing endpoint is given up
	maxStrange      = 3       // until one is whose answers are no chat completions
	firstWait       = time.Second
	maxWait         = 2 * time.Minute
	requestTimeout  = 3 * time.Minute
	defaultMaxReply = 1024 // tokens
)

// Endpoint is a chat completion service that speaks the protocol of OpenAI:
// POST URL/chat/completions. Its methods may be called at the same time.
type Endpoint struct {
	Model     string
	MaxTokens int // of an answer
	// Waiting, if set, is told what went wrong and for how long nothing is sent.
	// It may be called at the same time.
	Waiting func(err error, d time.Duration)

	url  string
	host string
	key  string
	http *http.Client
	wait func(ctx context.Context, d time.Duration) error

	mu sync.Mutex
	// guarded by mu
	newLimit      bool // it wants max_completion_tokens
	noTemperature bool // it accepts none
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// reply is what the endpoint said.
type reply struct {
	text                           string
	promptTokens, completionTokens int
}

// NewEndpoint returns the endpoint at address, which ends in /v1 for most
// services. A key is sent over TLS, or to this machine, only.
func NewEndpoint(address, model, key string) (*Endpoint, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return nil, api.Errorf(api.CodeUsage, "endpoint %q is no address of the form https://host/v1", clip(address, 100))
	case u.User != nil:
		return nil, api.Errorf(api.CodeUsage, "the endpoint's address contains a user name").WithHint("give the key by file or MOOT_JUDGE_KEY")
	case model == "":
		return nil, api.Errorf(api.CodeUsage, "the judge's model is missing")
	case key != "" && u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, api.Errorf(api.CodeRefused, "the key would travel to %s unencrypted", u.Host).WithHint("use https")
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, api.Errorf(api.CodeAuth, "the key contains a space or a character that keys do not have")
	}
	if !strings.HasSuffix(u.Path, "/chat/completions") {
		u = u.JoinPath("chat", "completions")
	}
	return &Endpoint{
		Model: model, MaxTokens: defaultMaxReply,
		url: u.String(), host: u.Host, key: key,
		http: &http.Client{
			Timeout: requestTimeout,
			// The key is for this address.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		wait: sleep,
	}, nil
}

// Host is where the endpoint is.
func (e *Endpoint) Host() string { return e.host }

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// busy is a failure that may pass.
type busy struct {
	err   error
	after time.Duration // that the endpoint asks to wait; 0: it says nothing
	// strange: what came is no answer of such a service, but it may be a proxy's.
	strange bool
}

func (b *busy) Error() string { return b.err.Error() }
func (b *busy) Unwrap() error { return b.err }

// complete asks until there is an answer, an error that will not pass, or
// enough of those that might. When going ends no attempt begins, and when ctx
// does none is waited for.
func (e *Endpoint) complete(ctx, going context.Context, messages []message) (reply, error) {
	wait, strange := firstWait, 0
	for attempt := 1; ; attempt++ {
		if going.Err() != nil {
			return reply{}, interrupted()
		}
		r, err := e.once(ctx, messages)
		b := new(busy)
		if errors.As(err, &b) && b.strange {
			strange++
		}
		switch {
		case err == nil:
			return r, nil
		case ctx.Err() != nil:
			return reply{}, interrupted()
		case b.err == nil:
			return reply{}, err
		case strange == maxStrange:
			return reply{}, api.Errorf(api.CodeUsage, "%s: %w, %d times", e.host, b.err, strange).
				WithHint("see whether %s is the address of a service that speaks OpenAI's protocol; it often ends in /v1", strings.TrimSuffix(e.url, "/chat/completions"))
		case attempt == maxAttempts:
			return reply{}, api.Errorf(api.CodeRetry, "%s: %w, %d times", e.host, b.err, attempt).
				WithHint("what was judged so far is kept; the same command goes on from there")
		}
		d := min(wait+rand.N(wait/2), maxWait)
		if b.after > 0 {
			d = min(b.after, maxWait)
		}
		if e.Waiting != nil {
			e.Waiting(fmt.Errorf("%s: %w", e.host, b.err), d)
		}
		if err := e.wait(going, d); err != nil {
			return reply{}, interrupted()
		}
		wait = min(2*wait, maxWait)
	}
}

type request struct {
	Model               string    `json:"model"`
	Messages            []message `json:"messages"`
	Temperature         *float64  `json:"temperature,omitempty"`
	MaxTokens           int       `json:"max_tokens,omitempty"`
	MaxCompletionTokens int       `json:"max_completion_tokens,omitempty"`
}

// once sends one request, or a second one if the endpoint does not know a
// setting of the first.
func (e *Endpoint) once(ctx context.Context, messages []message) (reply, error) {
	for {
		e.mu.Lock()
		newLimit, noTemperature := e.newLimit, e.noTemperature
		e.mu.Unlock()
		q := request{Model: e.Model, Messages: messages}
		if !noTemperature {
			q.Temperature = new(0.0)
		}
		if newLimit {
			q.MaxCompletionTokens = e.MaxTokens
		} else {
			q.MaxTokens = e.MaxTokens
		}
		status, header, body, err := e.post(ctx, q)
		if err != nil {
			return reply{}, &busy{err: err, strange: errors.Is(err, errLong)}
		}
		if status == http.StatusOK {
			return parseReply(body)
		}
		said := failure(body)
		if status == http.StatusBadRequest {
			switch {
			case !newLimit && strings.Contains(said.Message, "max_completion_tokens"):
				newLimit = true
			case !noTemperature && strings.Contains(said.Message, "temperature"):
				noTemperature = true
			default:
				return reply{}, e.refused(status, header, said)
			}
			e.mu.Lock()
			e.newLimit, e.noTemperature = e.newLimit || newLimit, e.noTemperature || noTemperature
			e.mu.Unlock()
			continue
		}
		return reply{}, e.refused(status, header, said)
	}
}

func (e *Endpoint) post(ctx context.Context, q request) (int, http.Header, []byte, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return 0, nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(b))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if e.key != "" {
		req.Header.Set("Authorization", "Bearer "+e.key)
	}
	resp, err := e.http.Do(req)
	if err != nil {
		// Of url.Error just the cause: its text has the address again.
		if u := new(url.Error); errors.As(err, &u) {
			err = u.Err
		}
		return 0, nil, nil, fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil:
		return 0, nil, nil, fmt.Errorf("the answer broke off: %w", err)
	case len(body) > maxReply:
		return 0, nil, nil, errLong
	}
	return resp.StatusCode, resp.Header, body, nil
}

var errLong = fmt.Errorf("the answer has more than %d bytes", maxReply)

// said is an error as the endpoint words it.
type said struct{ Message, Code, Type string }

func failure(body []byte) said {
	var v struct {
		Error json.RawMessage `json:"error"`
	}
	var s struct {
		Message string `json:"message"`
		Code    any    `json:"code"`
		Type    string `json:"type"`
	}
	if json.Unmarshal(body, &v) == nil && len(v.Error) > 0 {
		if json.Unmarshal(v.Error, &s) == nil {
			code, _ := s.Code.(string)
			return said{s.Message, code, s.Type}
		}
		if json.Unmarshal(v.Error, &s.Message) == nil {
			return said{Message: s.Message}
		}
	}
	return said{Message: string(body)}
}

// refused makes an error of an answer that is none.
func (e *Endpoint) refused(status int, header http.Header, s said) error {
	words := e.printable(s.Message)
	if words != "" {
		words = ": " + words
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		if e.key == "" {
			return api.Errorf(api.CodeAuth, "%s wants a key (%d)%s", e.host, status, words).WithHint("give it with --key-file, or in MOOT_JUDGE_KEY")
		}
		return api.Errorf(api.CodeAuth, "%s refuses the key (%d)%s", e.host, status, words).
			WithHint("give another with --key-file, or in MOOT_JUDGE_KEY; what was judged so far is kept")
	case status == http.StatusTooManyRequests && (s.Code == "insufficient_quota" || s.Type == "insufficient_quota"):
		return api.Errorf(api.CodeRefused, "%s: the account has no quota left%s", e.host, words).
			WithHint("what was judged so far is kept; the same command goes on from there")
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		return &busy{err: fmt.Errorf("status %d%s", status, words), after: retryAfter(header, time.Now())}
	case status >= 300 && status < 400:
		return api.Errorf(api.CodeUsage, "%s redirects to %s; the key is not sent on", e.host, e.printable(header.Get("Location"))).WithHint("give that address, if it is the right one")
	case status == http.StatusNotFound:
		return api.Errorf(api.CodeNotFound, "%s knows no model %q, or nothing at %s%s", e.host, e.Model, e.url, words)
	}
	return api.Errorf(api.CodeRefused, "%s refuses the request (%d)%s", e.host, status, words)
}

// printable is what a stranger said, without line breaks, control characters
// or the key.
func (e *Endpoint) printable(s string) string {
	if e.key != "" {
		s = strings.ReplaceAll(s, e.key, "(key)")
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	return clip(strings.Join(strings.Fields(s), " "), 300)
}

// retryAfter is what the header of that name asks for, in seconds or as a date
// (RFC 9110, section 10.2.3), or 0.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseFloat(v, 64); err == nil && n > 0 {
		return time.Duration(min(n, maxWait.Seconds()) * float64(time.Second))
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// parseReply reads a completion. One that cannot be read may be a proxy's
// page, so it is asked again.
func parseReply(body []byte) (reply, error) {
	var v struct {
		Choices []struct {
			Message struct {
				Content *string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
		Usage struct {
			Prompt     int `json:"prompt_tokens"`
			Completion int `json:"completion_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return reply{}, &busy{err: fmt.Errorf("the answer is not JSON of a chat completion: %w", err), strange: true}
	}
	if len(v.Choices) == 0 || v.Choices[0].Message.Content == nil {
		return reply{}, &busy{err: errors.New("the answer has no choices[0].message.content"), strange: true}
	}
	return reply{*v.Choices[0].Message.Content, max(v.Usage.Prompt, 0), max(v.Usage.Completion, 0)}, nil
}
