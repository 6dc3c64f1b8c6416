package api

import (
	"crypto/subtle"
	"net/http"
	"strings"
)

// Access is what an asker may do.
type Access string

// The kinds of access.
const (
	AccessFull   Access = "full"   // everything: who has the user's token
	AccessRead   Access = "read"   // ask, and change nothing
	AccessPublic Access = "public" // see the runs, without what tells about machines; see Public
)

// AccessAnswer answers what an asker may do.
type AccessAnswer struct {
	Access Access `json:"access"`
}

func (s *Server) tellAccess(w http.ResponseWriter, r *http.Request) {
	a, err := s.authorize(r)
	s.answer(w, r, AccessAnswer{a}, err)
}

// authorize finds out by the token what an asker may do, in a time that does
// not depend on it, and refuses what it may not.
func (s *Server) authorize(r *http.Request) (Access, error) {
	const hint = "the token is in the file " + TokenFile + " of the daemon's data folder, which only its user can read"
	h := r.Header.Values("Authorization")
	if len(h) == 0 {
		return "", Errorf(CodeAuth, "the API needs a token").WithHint(hint)
	}
	scheme, token, _ := strings.Cut(h[0], " ")
	got := hashToken(token)
	full := subtle.ConstantTimeCompare(got[:], s.token[:]) == 1
	read := subtle.ConstantTimeCompare(got[:], s.readToken[:]) == 1
	switch {
	case len(h) != 1 || !strings.EqualFold(scheme, "bearer") || token == "":
	case full:
		return AccessFull, nil
	case read && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return AccessRead, nil
	case read:
		e := Errorf(CodeAuth, "the API lets this token ask, and change nothing").WithHint("use the token in " + TokenFile)
		e.status = http.StatusForbidden
		return "", e
	}
	return "", Errorf(CodeAuth, "the API does not know this token").WithHint(hint)
}
