package api

import (
	"crypto/sha256"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/moot-net/moot/node/web"
)

const (
	// healthPath needs no token; it says nothing but that something answers.
	healthPath = "/healthz"
	// pagePath is the dashboard, which needs none either: it is the same for
	// everybody, and asks the API with the token that its user gives it.
	pagePath = "/"
)

// public reports whether a request needs no token.
func public(r *http.Request) bool {
	p := r.URL.Path
	if p == healthPath {
		return true
	}
	return (p == pagePath || strings.HasPrefix(p, web.Prefix)) && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// admit refuses a request by who sends it.
func (s *Server) admit(r *http.Request) error {
	if s.public {
		return s.admitPublic(r)
	}
	if !localHost(r.Host) {
		e := Errorf(CodeAuth, "the API is not reached by the name %s", clip(r.Host)).
			WithHint("use http://127.0.0.1 with the port that the daemon printed")
		e.status = http.StatusMisdirectedRequest
		return e
	}
	if err := sameOrigin(r); err != nil {
		return err
	}
	if public(r) {
		return nil
	}
	_, err := s.authorize(r)
	return err
}

// admitPublic refuses what nobody needs of a Public: it has nothing that a
// body could be for, and nothing secret that another page could read.
func (s *Server) admitPublic(r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.ContentLength != 0 {
		e := Errorf(CodeAuth, "this page is for looking at; it does not take %s", clip(r.Method))
		e.status = http.StatusMethodNotAllowed
		return e
	}
	return nil
}

// localHost reports whether a Host header names this machine, with any port:
// behind a forwarded port the daemon does not know its own.
func localHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	} else if strings.Contains(host, ":") {
		return false
	}
	switch strings.ToLower(name) {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

// sameOrigin refuses what a browser sends for another site's page. Others send
// neither header.
func sameOrigin(r *http.Request) error {
	refuse := func(what, value string) error {
		e := Errorf(CodeAuth, "the API does not answer other web pages (%s is %s)", what, clip(value)).
			WithHint("open the address that the daemon printed, or use the command line")
		e.status = http.StatusForbidden
		return e
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" {
			return refuse("Sec-Fetch-Site", site)
		}
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" || u.Host != r.Host {
			return refuse("Origin", origin)
		}
	}
	return nil
}

func hashToken(token string) [32]byte { return sha256.Sum256([]byte(token)) }
