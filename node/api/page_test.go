package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// TestPages: page by page the list is the whole one.
func TestPages(t *testing.T) {
	f := apitest.New("node")
	for n := range 7 {
		f.AddRun(apitest.Detail(fmt.Sprint("run ", n), apitest.PeerID("node")))
		f.AddPeer(api.Peer{ID: apitest.PeerID(fmt.Sprint("peer ", n))})
	}
	s := newServer(f)
	for list, id := range map[string]string{"runs": "id", "peers": "id"} {
		get := func(query string) (ids []string, next string) {
			t.Helper()
			var v map[string]json.RawMessage
			w := ask(t, s, "GET", "/api/v1/"+list+query, "")
			if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 {
				t.Fatalf("%s%s: %d %s", list, query, w.Code, w.Body)
			}
			var entries []map[string]any
			if err := json.Unmarshal(v[list], &entries); err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				ids = append(ids, e[id].(string))
			}
			if v["next"] != nil {
				if err := json.Unmarshal(v["next"], &next); err != nil {
					t.Fatal(err)
				}
			}
			return ids, next
		}
		all, next := get("")
		if len(all) != 7 || next != "" {
			t.Errorf("all %s are %d, next %q", list, len(all), next)
		}
		var paged []string
		pages := 0
		for query := "?limit=3"; ; pages++ {
			ids, next := get(query)
			paged = append(paged, ids...)
			if next == "" {
				break
			}
			query = "?limit=3&after=" + url.QueryEscape(next)
		}
		if strings.Join(paged, " ") != strings.Join(all, " ") || pages != 2 {
			t.Errorf("%s by pages: %v, want %v", list, paged, all)
		}
		failed(t, ask(t, s, "GET", "/api/v1/"+list+"?after=gone", ""), 404, api.CodeNotFound, "not in the list any more")
		failed(t, ask(t, s, "GET", "/api/v1/"+list+"?limit=0", ""), 400, api.CodeUsage, "limit")
	}
}
