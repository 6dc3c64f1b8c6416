package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// described is the description as the server answers it.
func described(t *testing.T, s *api.Server) (doc map[string]any) {
	t.Helper()
	w := ask(t, s, "GET", "/api/v1/openapi.json", "")
	if w.Code != 200 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// The description has the routes of the server, no more and no less.
func TestOpenAPIHasTheRoutes(t *testing.T) {
	s := api.NewServer(apitest.New("node"), api.Options{Token: token})
	var got []string
	ids := map[any]bool{}
	for path, methods := range described(t, s)["paths"].(map[string]any) {
		for method, op := range methods.(map[string]any) {
			got = append(got, strings.ToUpper(method)+" "+path)
			id := op.(map[string]any)["operationId"]
			if ids[id] {
				t.Errorf("two operations are called %v", id)
			}
			ids[id] = true
		}
	}
	want := slices.Sorted(slices.Values(s.Patterns()))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("described:\n%s\nthere are:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// strict makes objects of a schema refuse what they do not name.
func strict(v any) {
	switch v := v.(type) {
	case map[string]any:
		// Each answer has "schema" beside what its type names.
		if p, ok := v["properties"].(map[string]any); ok {
			p["schema"] = map[string]any{"const": 1.0}
			v["unevaluatedProperties"] = false
		}
		for _, e := range v {
			strict(e)
		}
	case []any:
		for _, e := range v {
			strict(e)
		}
	}
}

// What the server answers is as the description says, and has nothing that it
// does not name.
func TestOpenAPIAnswers(t *testing.T) {
	f := apitest.New("node")
	run := apitest.Detail("demo", apitest.PeerID("node"))
	f.AddRun(run)
	f.AddLog(api.LogEntry{Time: apitest.Epoch, Level: "warn", Component: "p2p", Message: "x", Attrs: "peer=y"})
	f.Decide(run.ID, apitest.DecidedRound("demo", 1, false, apitest.PeerID("node"), apitest.PeerID("other")))
	s := api.NewServer(f, api.Options{Token: token})
	doc := described(t, s)
	strict(doc)
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("api.json", doc); err != nil {
		t.Fatal(err)
	}
	pointer := strings.NewReplacer("~", "~0", "/", "~1")
	dir := t.TempDir()
	f.UploadDir(dir)
	model := filepath.Join(dir, "model")
	for name, content := range map[string]string{"config.json": "{}", "../rows.jsonl": "{}", "../run.toml": ""} {
		path := filepath.Join(model, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rows := filepath.Join(dir, "rows.jsonl")
	asked := map[string]bool{}
	for _, x := range []struct {
		route, path string
		body        any
	}{
		{"GET /api/v1/version", "", nil},
		{"GET /api/v1/status", "", nil},
		{"POST /api/v1/control", "", api.ControlRequest{Action: api.ControlPause, ForSeconds: 60}},
		{"GET /api/v1/peers", "", nil},
		{"POST /api/v1/models/import", "", api.ImportModelRequest{Dir: model}},
		{"GET /api/v1/models", "", nil},
		{"POST /api/v1/datasets/import", "", api.ImportDatasetRequest{Files: []string{rows}}},
		{"GET /api/v1/datasets", "", nil},
		{"POST /api/v1/datasets/check", "", api.CheckDatasetRequest{Files: []string{rows}}},
		{"POST /api/v1/datasets/preview", "", api.PreviewRequest{Files: []string{rows}}},
		{"POST /api/v1/uploads", "/api/v1/uploads?name=rows.jsonl", []byte("{}")},
		{"PUT /api/v1/uploads/{id}", "/api/v1/uploads/00000000000000aa?name=part.jsonl&bytes=2&offset=0", []byte("{}")},
		{"GET /api/v1/uploads", "", nil},
		{"POST /api/v1/uploads/{id}/finish", "/api/v1/uploads/00000000000000aa/finish", api.FinishUploadRequest{Digest: digestOf("{}")}},
		{"DELETE /api/v1/uploads/{id}", "/api/v1/uploads/0000000000000001", nil},
		{"GET /api/v1/runs", "", nil},
		{"POST /api/v1/runs", "", api.LaunchRequest{Name: "run.toml", TOML: `name = "new"`, Model: "last", Dataset: "last"}},
		{"POST /api/v1/runs/plan", "", api.LaunchRequest{Name: "run.toml", TOML: `name = "new"`, Model: "last", Dataset: "last"}},
		{"POST /api/v1/runs/{id}/check", "/api/v1/runs/" + run.ID + "/check", api.CheckRunRequest{LinkMbit: 10}},
		{"GET /api/v1/runs/{id}", "/api/v1/runs/" + run.ID, nil},
		{"GET /api/v1/runs/{id}/rounds", "/api/v1/runs/" + run.ID + "/rounds?from=1&limit=5", nil},
		{"GET /api/v1/runs/{id}/rounds/{n}", "/api/v1/runs/" + run.ID + "/rounds/1", nil},
		{"POST /api/v1/runs/{id}/join", "/api/v1/runs/" + run.ID + "/join", struct{}{}},
		{"POST /api/v1/runs/{id}/export", "/api/v1/runs/" + run.ID + "/export", api.ExportRequest{Dir: filepath.Join(dir, "out")}},
		{"POST /api/v1/adapters/verify", "", api.VerifyAdapterRequest{Path: filepath.Join(dir, "out")}},
		{"POST /api/v1/runs/{id}/invite", "/api/v1/runs/" + run.ID + "/invite", api.InviteRequest{Rounds: 5}},
		{"POST /api/v1/runs/{id}/order", "/api/v1/runs/" + run.ID + "/order", api.OrderRequest{Action: api.OrderPause}},
		{"POST /api/v1/runs/{id}/snapshot", "/api/v1/runs/" + run.ID + "/snapshot", api.SnapshotRequest{}},
		{"POST /api/v1/runs/{id}/leave", "/api/v1/runs/" + run.ID + "/leave", struct{}{}},
		{"POST /api/v1/generate", "", api.GenerateRequest{Subject: api.Subject{Model: "last"}, Prompts: []api.Prompt{{Instruction: "x"}}}},
		{"POST /api/v1/evaluate", "", api.EvaluateRequest{Subject: api.Subject{Model: "last"}, Dataset: "last"}},
		{"POST /api/v1/compare", "", api.CompareRequest{Subject: api.Subject{Run: run.ID}, Prompts: []api.Prompt{{Instruction: "x"}}}},
		{"GET /api/v1/access", "", nil},
		{"GET /api/v1/runs/{id}/coverage", "/api/v1/runs/" + run.ID + "/coverage", nil},
		{"GET /api/v1/runs/{id}/file", "/api/v1/runs/" + run.ID + "/file", nil},
		{"GET /api/v1/runs/{id}/series", "/api/v1/runs/" + run.ID + "/series?points=100", nil},
		{"GET /api/v1/runs/{id}/peers", "/api/v1/runs/" + run.ID + "/peers", nil},
		{"GET /api/v1/runs/{id}/online", "/api/v1/runs/" + run.ID + "/online", nil},
		{"GET /api/v1/presets/{name}", "/api/v1/presets/alpaca?name=mine", nil},
		{"GET /api/v1/network", "", nil},
		{"GET /api/v1/usage", "/api/v1/usage?span=day&after=2026-01-01T00:00:00Z", nil},
		{"GET /api/v1/about", "", nil},
		{"GET /api/v1/about/notices", "", nil},
		{"GET /api/v1/today", "", nil},
		{"GET /api/v1/config/presets", "", nil},
		{"GET /api/v1/doctor", "", nil},
		{"POST /api/v1/doctor", "", api.CheckupRequest{Speed: true}},
		{"GET /api/v1/config", "", nil},
		{"PATCH /api/v1/config", "", api.SettingsRequest{Set: map[string][]string{"threads": {"1"}}}},
		{"GET /api/v1/logs", "/api/v1/logs?limit=5&level=info", nil},
		{"GET /api/v1/cache", "", nil},
		{"POST /api/v1/cache/prune", "", api.PruneRequest{All: true, DryRun: true}},
		{"POST /api/v1/shards/verify", "", api.VerifyRequest{}},
		{"POST /api/v1/shutdown", "", struct{}{}},
	} {
		method, path, _ := strings.Cut(x.route, " ")
		asked[x.route] = true
		body, kind := "", "application/json"
		if file, ok := x.body.([]byte); ok {
			body, kind = string(file), "application/octet-stream"
		} else if x.body != nil {
			b, err := json.Marshal(x.body)
			if err != nil {
				t.Fatal(err)
			}
			body = string(b)
		}
		to := x.path
		if to == "" {
			to = path
		}
		w := ask(t, s, method, to, body, "Content-Type: "+kind)
		if w.Code != 200 {
			t.Errorf("%s: %d %s", x.route, w.Code, w.Body)
			continue
		}
		kind, _, _ = strings.Cut(w.Header().Get("Content-Type"), ";")
		at := fmt.Sprintf("api.json#/paths/%s/%s/responses/200/content/%s/schema", pointer.Replace(path), strings.ToLower(method), pointer.Replace(kind))
		schema, err := compiler.Compile(at)
		if err != nil {
			t.Errorf("%s: %v", x.route, err)
			continue
		}
		for line := range bytes.Lines(bytes.TrimSpace(w.Body.Bytes())) {
			v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
			if err != nil {
				t.Fatalf("%s: %v", x.route, err)
			}
			if err := schema.Validate(v); err != nil {
				t.Errorf("%s answers %s: %v", x.route, line, err)
			}
		}
	}
	// An error is as described, too.
	schema, err := compiler.Compile("api.json#/components/schemas/Failure")
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(ask(t, s, "GET", "/api/v1/runs/nothing", "").Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("an error: %v", err)
	}
	if len(asked) < len(s.Patterns())-13 {
		t.Errorf("%d of %d routes were asked", len(asked), len(s.Patterns()))
	}
}
