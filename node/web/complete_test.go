package web_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
)

var (
	// asks are the questions in the page's files: function, method if it is given,
	// path.
	asks = regexp.MustCompile("\\b(get|change|operate|run|download|sendPart|ask)\\((?:\"([A-Z]+)\", )?[\"`](/[^\"`]*|\\$\\{path\\}[^\"`]*)[\"`]?(, [^,)]*, \"(POST)\")?")
	use  = regexp.MustCompile(`(?:\bUse: +|\bgroup\()"([a-z-]+)`)
	// listed are those that are asked for together.
	listed = regexp.MustCompile(`\[((?:"/[a-z/]+"(?:, )?)+)\]\.map\(\(path\) => get`)
	holes  = regexp.MustCompile(`\$\{(?:[^{}]|\{[^{}]*\})*\}?`)
)

// commands are those that do what a route does, or - and why none does.
var commands = map[string]string{
	"GET /api/v1/access":               "- who has a command line has the full token",
	"GET /api/v1/about":                "mootd version, mootd paths",
	"GET /api/v1/about/notices":        "- the file copyright of a release has them",
	"GET /api/v1/config":               "mootd config show",
	"PATCH /api/v1/config":             "mootd config set",
	"GET /api/v1/config/presets":       "- README lists them; mootd config set writes what each comes to",
	"POST /api/v1/control":             "mootd pause, mootd resume, mootd finish",
	"GET /api/v1/datasets":             "moot data list",
	"POST /api/v1/datasets/check":      "moot data check",
	"POST /api/v1/datasets/import":     "moot data import",
	"POST /api/v1/datasets/preview":    "moot data preview",
	"GET /api/v1/doctor":               "mootd doctor",
	"POST /api/v1/doctor":              "mootd doctor",
	"POST /api/v1/doctor/report":       "mootd doctor",
	"GET /api/v1/events":               "moot watch",
	"POST /api/v1/generate":            "moot generate",
	"GET /api/v1/logs":                 "- standard error, or the file of --log-file",
	"GET /api/v1/models":               "moot model list",
	"POST /api/v1/models/import":       "moot model import",
	"GET /api/v1/network":              "moot status, moot peer list",
	"GET /api/v1/openapi.json":         "- it is the description itself",
	"GET /api/v1/peers":                "moot peer list",
	"GET /api/v1/presets/{name}":       "moot run init",
	"GET /api/v1/runs":                 "moot run list",
	"POST /api/v1/runs":                "moot launch",
	"POST /api/v1/runs/plan":           "moot run plan",
	"GET /api/v1/runs/{id}":            "moot run show",
	"GET /api/v1/runs/{id}/adapter":    "moot adapter export",
	"POST /api/v1/runs/{id}/check":     "moot join",
	"GET /api/v1/runs/{id}/coverage":   "- a figure of the page and of /metrics alone",
	"POST /api/v1/runs/{id}/export":    "moot adapter export",
	"GET /api/v1/runs/{id}/file":       "moot run clone",
	"POST /api/v1/runs/{id}/join":      "moot join",
	"POST /api/v1/runs/{id}/leave":     "moot leave",
	"GET /api/v1/runs/{id}/online":     "- a curve of the page alone; moot watch tells who is there",
	"POST /api/v1/runs/{id}/order":     "moot run pause, moot run resume, moot run stop",
	"GET /api/v1/runs/{id}/peers":      "- sums of what moot run show tells of each round",
	"GET /api/v1/runs/{id}/rounds":     "moot run show",
	"GET /api/v1/runs/{id}/rounds/{n}": "moot run show",
	"GET /api/v1/runs/{id}/series":     "moot run show",
	"GET /api/v1/status":               "moot status",
	"GET /api/v1/today":                "- a sum of what moot run show tells of each round",
	"GET /api/v1/uploads":              "- a command reads files where they are",
	"PUT /api/v1/uploads/{id}":         "- a command reads files where they are",
	"POST /api/v1/uploads/{id}/finish": "- a command reads files where they are",
	"DELETE /api/v1/uploads/{id}":      "- a command reads files where they are",
	"GET /api/v1/usage":                "- a curve of the page alone; /metrics has the figures of now",
}

// TestEverythingIsForAll: what the page asks for is in the description of the API,
// and whatever it does a command does too (A50).
func TestEverythingIsForAll(t *testing.T) {
	var doc struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal(api.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	described := func(method, path string) string {
		for p := range doc.Paths {
			if fits(p, path) && doc.Paths[p][strings.ToLower(method)] != nil {
				return method + " " + p
			}
		}
		return ""
	}
	used := make(map[string]string) // route to file
	for name, text := range page(t) {
		base := ""
		if m := regexp.MustCompile("(?:const|let|,) ?(?:id = [^,;]*, )?path = `([^`]*)`").FindStringSubmatch(text); m != nil {
			base = m[1]
		}
		for _, m := range asks.FindAllStringSubmatch(text, -1) {
			path := strings.Replace(m[3], "${path}", base, 1)
			path, _, _ = strings.Cut(path, "?")
			path = "/api/v1" + holes.ReplaceAllString(path, "{x}")
			method := map[string]string{"get": "GET", "operate": "POST", "run": "POST", "sendPart": "PUT", "download": "GET", "ask": "GET"}[m[1]]
			if m[2] != "" {
				method = m[2]
			} else if m[5] != "" {
				method = m[5]
			}
			route := described(method, path)
			if route == "" {
				t.Errorf("%s asks %s %s, which is not described", name, method, path)
			}
			used[route] = name
		}
		for _, m := range listed.FindAllStringSubmatch(text, -1) { // asked for together
			for _, path := range strings.Split(strings.ReplaceAll(m[1], `"`, ""), ", ") {
				if route := described("GET", "/api/v1"+path); route == "" {
					t.Errorf("%s asks GET %s, which is not described", name, path)
				} else {
					used[route] = name
				}
			}
		}
	}
	if len(used) < 40 {
		t.Fatalf("only %d routes were found in the page: %v", len(used), used)
	}

	words := make(map[string]bool) // of commands
	for _, dir := range []string{"../../coordinator/cli", "../cmd/mootd"} {
		sources, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(sources) == 0 {
			t.Fatalf("%s has %d files, %v", dir, len(sources), err)
		}
		for _, source := range sources {
			b, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range use.FindAllStringSubmatch(string(b), -1) {
				words[m[1]] = true
			}
		}
	}
	for route, file := range used {
		if commands[route] == "" {
			t.Errorf("%s asks %s, and nobody says which command does that", file, route)
		}
	}
	for route, list := range commands {
		if used[route] == "" {
			t.Errorf("%s is said to be asked by the page", route)
		}
		if _, none := strings.CutPrefix(list, "- "); none {
			continue
		}
		for command := range strings.SplitSeq(list, ", ") {
			for _, word := range strings.Fields(command)[1:] {
				if !words[word] {
					t.Errorf("%s is done by %q, and there is no command %s", route, command, word)
				}
			}
		}
	}
}

// fits says whether a path has the form of a route: {id} is any part.
func fits(route, path string) bool {
	a, b := strings.Split(route, "/"), strings.Split(path, "/")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && !strings.HasPrefix(a[i], "{") {
			return false
		}
	}
	return true
}
