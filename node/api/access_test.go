package api_test

import (
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// TestReadToken: whoever has the token for reading may GET everything, and do
// nothing.
func TestReadToken(t *testing.T) {
	const readToken = "for reading"
	f := apitest.New("node")
	f.AddRun(apitest.Detail("demo", apitest.PeerID("node")))
	changed := ""
	f.Err = func(method string) error {
		switch method {
		case "Status", "Peers", "Runs", "Run", "Rounds", "Round", "Cache", "Network", "Usage", "Settings", "Logs", "Coverage", "Online", "Series", "RunFileOf", "RunPeers", "Export", "Watch":
		case "Checkup", "About", "Notices", "Today", "WorkPresets":
		default:
			changed = method
		}
		return nil
	}
	s := api.NewServer(f, api.Options{Token: token, ReadToken: readToken})
	with := "Authorization: Bearer " + readToken
	for _, pattern := range s.Patterns() {
		method, path, _ := strings.Cut(pattern, " ")
		path = strings.NewReplacer("{id}", apitest.ID("demo"), "{n}", "1").Replace(path)
		if method == "GET" {
			if strings.HasSuffix(path, "/events") {
				path += "?since=x" // which is refused, but not for the token
			}
			if w := ask(t, s, method, path, "", with); w.Code == 401 || w.Code == 403 {
				t.Errorf("%s: %d %s", pattern, w.Code, w.Body)
			}
			continue
		}
		failed(t, ask(t, s, method, path, "{}", with), 403, api.CodeAuth, "change nothing")
	}
	if changed != "" {
		t.Errorf("%s was reached", changed)
	}
	for given, want := range map[string]string{with: `"access":"read"`, "Authorization: Bearer " + token: `"access":"full"`} {
		if w := ask(t, s, "GET", "/api/v1/access", "", given); !strings.Contains(w.Body.String(), want) {
			t.Errorf("access is %s, want %s", w.Body, want)
		}
	}
	// Where files are is told with full access alone.
	for given, want := range map[string]bool{with: false, "Authorization: Bearer " + token: true} {
		if w := ask(t, s, "GET", "/api/v1/about", "", given); strings.Contains(w.Body.String(), "/data") != want || !strings.Contains(w.Body.String(), `"modules"`) {
			t.Errorf("with %s: %s", given, w.Body)
		}
	}
	// Without one, no token is the one for reading.
	s = api.NewServer(f, api.Options{Token: token})
	for _, x := range []string{"", readToken, strings.Repeat("\x00", 32)} {
		failed(t, ask(t, s, "GET", "/api/v1/status", "", "Authorization: Bearer "+x), 401, api.CodeAuth, "")
	}
}
