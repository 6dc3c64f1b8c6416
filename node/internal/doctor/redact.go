package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/moot-net/moot/node/api"
)

// Redactor takes out of texts what is secret and what tells who somebody is:
// tokens and keys, the user, the home folder, the host, addresses and peers. The
// same address or peer becomes the same word everywhere, so that one can still
// see what belongs together.
type Redactor struct {
	plain []string // pairs for strings.NewReplacer: longest first
	user  *regexp.Regexp
	names map[string]string // of addresses and peers
	count map[string]int    // of names, by kind
}

// Secrets are what a Redactor cannot know by its form.
type Secrets struct {
	Home, User, Host string
	Tokens           []string
}

// SecretsOf are those of this user, of this machine and of a data folder, which
// may be empty.
func SecretsOf(dataDir string) Secrets {
	var s Secrets
	s.Home, _ = os.UserHomeDir() // none: nothing to hide
	if u, err := user.Current(); err == nil {
		s.User = u.Username[strings.LastIndexByte(u.Username, '\\')+1:] // DOMAIN\user on Windows
	}
	s.Host, _ = os.Hostname()
	s.Tokens = append(s.Tokens, os.Getenv("HF_TOKEN"))
	if dataDir == "" {
		return s
	}
	for _, name := range []string{api.TokenFile, api.ReadTokenFile} {
		if b, err := os.ReadFile(filepath.Join(dataDir, name)); err == nil {
			s.Tokens = append(s.Tokens, strings.TrimSpace(string(b)))
		}
	}
	return s
}

// NewRedactor returns a Redactor.
func NewRedactor(s Secrets) *Redactor {
	r := &Redactor{names: map[string]string{}, count: map[string]int{}}
	for _, t := range s.Tokens {
		if t != "" {
			r.plain = append(r.plain, t, "TOKEN")
		}
	}
	if len(s.Home) > 1 {
		// In JSON a backslash is doubled.
		r.plain = append(r.plain, strings.ReplaceAll(s.Home, `\`, `\\`), "~", s.Home, "~")
	}
	var words []string
	for _, w := range []string{s.User, s.Host} {
		if w != "" {
			words = append(words, regexp.QuoteMeta(w))
		}
	}
	if len(words) > 0 {
		r.user = regexp.MustCompile(`(?i)(^|[^\pL\pN])(` + strings.Join(words, "|") + `)($|[^\pL\pN])`)
	}
	return r
}

// The forms of what is taken out.
var (
	reBearer = regexp.MustCompile(`(?i)(bearer|token|password|secret|authorization)("?\s*[:=]\s*"?|\s+)[A-Za-z0-9_\-.~+/]{16,}=*`)
	reHF     = regexp.MustCompile(`\bhf_[A-Za-z0-9]{16,}`)
	reTicket = regexp.MustCompile(`\bmoot1-[A-Za-z0-9_\-]{16,}`)
	reKey    = regexp.MustCompile(`-----BEGIN [A-Z ]*-----[\s\S]*?-----END [A-Z ]*-----`)
	reRandom = regexp.MustCompile(`\b[A-Za-z0-9+/_\-]{40,}={0,2}`)
	rePeer   = regexp.MustCompile(`\b(12D3KooW[1-9A-HJ-NP-Za-km-z]{40,}|Qm[1-9A-HJ-NP-Za-km-z]{44})\b`)
	reDNS    = regexp.MustCompile(`/(dns|dns4|dns6|dnsaddr)/[^/\s"',\]]+`)
	reIPv4   = regexp.MustCompile(`\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b`)
	reIPv6   = regexp.MustCompile(`[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:%[A-Za-z0-9]+)?`)
	reCID    = regexp.MustCompile(`^(baf[a-z2-7]{50,}|[0-9a-f]{40})$`) // names content or a commit
)

// Redact returns s without what is secret.
func (r *Redactor) Redact(s string) string {
	s = strings.NewReplacer(r.plain...).Replace(s)
	s = reKey.ReplaceAllString(s, "KEY")
	s = reBearer.ReplaceAllString(s, "${1}${2}TOKEN")
	s = reHF.ReplaceAllString(s, "TOKEN")
	s = reTicket.ReplaceAllString(s, "TICKET")
	s = rePeer.ReplaceAllStringFunc(s, func(p string) string { return r.name("peer", p) })
	s = reDNS.ReplaceAllStringFunc(s, func(d string) string {
		kind, host, _ := strings.Cut(strings.TrimPrefix(d, "/"), "/")
		return "/" + kind + "/" + r.name("host", host)
	})
	s = reIPv4.ReplaceAllStringFunc(s, r.address)
	s = reIPv6.ReplaceAllStringFunc(s, r.address)
	s = reRandom.ReplaceAllStringFunc(s, r.random)
	if r.user != nil {
		// Twice, for words that share the character between them.
		for range 2 {
			s = r.user.ReplaceAllString(s, "${1}NAME${3}")
		}
	}
	return s
}

// address names an address, unless it is the same on each machine.
func (r *Redactor) address(s string) string {
	plain, _, _ := strings.Cut(s, "%")
	a, err := netip.ParseAddr(plain)
	if err != nil || a.IsLoopback() || a.IsUnspecified() {
		return s
	}
	kind := "ip"
	if a.IsPrivate() || a.IsLinkLocalUnicast() {
		kind = "lan"
	}
	return r.name(kind, plain)
}

// random is for what is long and without form: it may be a key.
func (r *Redactor) random(s string) string {
	const lower, upper, digits = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	switch mixed := strings.ContainsAny(s, lower) && strings.ContainsAny(s, upper) && strings.ContainsAny(s, digits); {
	case reCID.MatchString(s), !strings.ContainsAny(s, digits):
		return s
	case strings.Contains(s, "/"): // a path, or base64
		if strings.HasPrefix(s, "/") || !mixed {
			return s
		}
	case strings.Count(s, "_")+strings.Count(s, "-") > 3 && !mixed:
		return s // words, such as the name of a metric
	}
	return "KEY"
}

func (r *Redactor) name(kind, of string) string {
	if n, ok := r.names[of]; ok {
		return n
	}
	r.count[kind]++
	n := fmt.Sprintf("%s-%d", strings.ToUpper(kind), r.count[kind])
	r.names[of] = n
	return n
}
