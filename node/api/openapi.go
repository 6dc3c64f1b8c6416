package api

import (
	"encoding"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// route is a route of the API as its description has it.
type route struct {
	pattern string // METHOD PATH
	summary string
	request any // body, nil: none
	answer  any // object, or last line of a stream; nil: not JSON
	form    form
	query   []string // parameters
}

// fileBody stands for a body that is a file.
type fileBody struct{}

// form is how a route answers.
type form int

const (
	formObject form = iota // one JSON object
	formLines              // NDJSON that ends with a result
	formEvents             // NDJSON, or server-sent events
	formText               // plain text
	formTar                // a tar archive
	formZip                // a zip file
)

// paging are the parameters of a list.
var paging = []string{"after", "limit"}

// described are all routes below /api and those beside it.
func described() []route {
	return []route{
		{"GET " + healthPath, "Says that the daemon answers; needs no token", nil, nil, formText, nil},
		{"GET /metrics", "Metrics for Prometheus", nil, nil, formText, nil},
		{"GET /api/v1/openapi.json", "This description", nil, nil, formObject, nil},
		{"GET /api/v1/access", "What the asker may do", nil, AccessAnswer{}, formObject, nil},
		{"GET /api/v1/version", "What runs here", nil, Version{}, formObject, nil},
		{"GET /api/v1/status", "What the node does, and why it does not train", nil, Status{}, formObject, nil},
		{"POST /api/v1/control", "Pauses the node, or lets it go on", ControlRequest{}, Status{}, formObject, nil},
		{"GET /api/v1/peers", "The peers that the node is connected to", nil, Peers{}, formObject, paging},
		{"GET /api/v1/models", "The base models that the node holds, oldest first", nil, Models{}, formObject, paging},
		{"POST /api/v1/models/import", "Imports a Hugging Face checkpoint", ImportModelRequest{}, Model{}, formLines, nil},
		{"GET /api/v1/datasets", "The data sets that the node holds, oldest first", nil, Datasets{}, formObject, paging},
		{"POST /api/v1/datasets/import", "Imports files of rows as a data set", ImportDatasetRequest{}, Dataset{}, formLines, nil},
		{"POST /api/v1/datasets/check", "Reads files of rows, and says what is wrong with them", CheckDatasetRequest{}, DatasetCheck{}, formLines, nil},
		{"POST /api/v1/datasets/preview", "Reads the first rows of files, as they are", PreviewRequest{}, DatasetPreview{}, formObject, nil},
		{"POST /api/v1/uploads", "Takes a file of rows from an asker on another machine", fileBody{}, Upload{}, formObject, []string{"name"}},
		{"GET /api/v1/uploads", "The files that were uploaded and are still here, oldest first", nil, Uploads{}, formObject, nil},
		{"PUT /api/v1/uploads/{id}", "Takes a part of a file, from where the last one ended", fileBody{}, UploadPart{}, formObject, []string{"name", "bytes", "offset"}},
		{"POST /api/v1/uploads/{id}/finish", "Checks a file of which all parts came", FinishUploadRequest{}, Upload{}, formLines, nil},
		{"DELETE /api/v1/uploads/{id}", "Removes an uploaded file, or the part of one", nil, Upload{}, formObject, nil},
		{"GET /api/v1/runs", "The runs that the node knows, oldest first", nil, Runs{}, formObject, paging},
		{"POST /api/v1/runs", "Launches a run", LaunchRequest{}, Run{}, formLines, nil},
		{"POST /api/v1/runs/plan", "Looks at a run file as a launch does", LaunchRequest{}, Plan{}, formLines, nil},
		{"POST /api/v1/runs/{id}/check", "Says what a run needs of this machine", CheckRunRequest{}, Fit{}, formLines, nil},
		{"GET /api/v1/runs/{id}", "All about a run", nil, RunDetail{}, formObject, nil},
		{"GET /api/v1/runs/{id}/rounds", "Decided rounds, a page; with peer what is of one peer", nil, Rounds{}, formObject, []string{"from", "limit", "peer"}},
		{"GET /api/v1/runs/{id}/rounds/{n}", "A decided round", nil, Round{}, formObject, nil},
		{"POST /api/v1/runs/{id}/join", "Joins a run", JoinRequest{}, Run{}, formLines, nil},
		{"POST /api/v1/runs/{id}/invite", "Makes an invitation to a run", InviteRequest{}, Invite{}, formObject, nil},
		{"POST /api/v1/runs/{id}/order", "Changes the course of a run", OrderRequest{}, Run{}, formObject, nil},
		{"POST /api/v1/runs/{id}/snapshot", "Makes a run's state content with a CID", SnapshotRequest{}, Snapshot{}, formLines, nil},
		{"POST /api/v1/runs/{id}/leave", "Leaves a run", nil, Run{}, formObject, nil},
		{"GET /api/v1/runs/{id}/events", "What happens in a run", nil, Event{}, formEvents, []string{"since"}},
		{"POST /api/v1/runs/{id}/export", "Writes what a run trained as an adapter", ExportRequest{}, Export{}, formLines, nil},
		{"GET /api/v1/events", "What happens on the node", nil, Event{}, formEvents, []string{"since"}},
		{"POST /api/v1/generate", "Answers prompts", GenerateRequest{}, Generation{}, formLines, nil},
		{"POST /api/v1/export", "Writes an adapter in another form", ExportRequest{}, Export{}, formLines, nil},
		{"POST /api/v1/adapters/verify", "Tests an export, or an adapter from anywhere", VerifyAdapterRequest{}, AdapterCheck{}, formLines, nil},
		{"POST /api/v1/evaluate", "Measures a model on held-out rows", EvaluateRequest{}, Evaluation{}, formLines, nil},
		{"POST /api/v1/compare", "Asks several versions of a model the same", CompareRequest{}, Comparison{}, formLines, nil},
		{"GET /api/v1/runs/{id}/coverage", "Which rows a run was trained on", nil, Coverage{}, formObject, nil},
		{"GET /api/v1/runs/{id}/file", "A run file with all settings of a run", nil, ClonedRunFile{}, formObject, nil},
		{"GET /api/v1/runs/{id}/series", "A run by rounds in short; of a long one those that stand out", nil, Series{}, formObject, []string{"points"}},
		{"GET /api/v1/runs/{id}/peers", "What each peer did in a run", nil, RunPeers{}, formObject, nil},
		{"GET /api/v1/runs/{id}/online", "How many peers were in a run", nil, Online{}, formObject, nil},
		{"GET /api/v1/presets/{name}", "A run file to begin with", nil, PresetAnswer{}, formObject, []string{"name", "model", "dataset"}},
		{"GET /api/v1/runs/{id}/adapter", "What a run trained, as a tar archive of an adapter", nil, nil, formTar, []string{"round", "format"}},
		{"GET /api/v1/network", "How the node is connected, and what it moved", nil, Network{}, formObject, nil},
		{"GET /api/v1/usage", "What the machine was used for", nil, Usage{}, formObject, []string{"span", "after"}},
		{"GET /api/v1/about", "What the program is made of, and where its files are", nil, About{}, formObject, nil},
		{"GET /api/v1/about/notices", "The licences of what is part of the program", nil, Notices{}, formObject, nil},
		{"GET /api/v1/today", "What the node contributed since midnight", nil, Today{}, formObject, nil},
		{"GET /api/v1/config/presets", "How hard the machine may work, as settings", nil, WorkPresets{}, formObject, nil},
		{"GET /api/v1/doctor", "What is wrong with the node, and what to do about it", nil, Checkup{}, formObject, nil},
		{"POST /api/v1/doctor", "The same, and how fast disk and processor are", CheckupRequest{}, Checkup{}, formLines, nil},
		{"POST /api/v1/doctor/report", "A zip file for somebody who helps, without what is secret", nil, nil, formZip, nil},
		{"GET /api/v1/config", "The node's configuration, and where each value is from", nil, Settings{}, formObject, nil},
		{"PATCH /api/v1/config", "Changes the node's configuration file", SettingsRequest{}, Settings{}, formObject, nil},
		{"GET /api/v1/logs", "The last lines of the daemon's log", nil, Logs{}, formObject, []string{"after", "limit", "level"}},
		{"GET /api/v1/cache", "What the node holds on disk", nil, Cache{}, formObject, nil},
		{"POST /api/v1/cache/prune", "Removes what is not needed", PruneRequest{}, Pruned{}, formObject, nil},
		{"POST /api/v1/cache/pin", "Keeps an entry from being removed, or gives it free", PinRequest{}, CacheEntry{}, formObject, nil},
		{"POST /api/v1/shards/export", "Writes a CAR", ExportShardsRequest{}, Archive{}, formLines, nil},
		{"POST /api/v1/shards/import", "Reads a CAR", ImportShardsRequest{}, Archive{}, formLines, nil},
		{"POST /api/v1/shards/pull", "Pulls content by its CID", PullShardsRequest{}, CacheEntry{}, formLines, nil},
		{"POST /api/v1/shards/verify", "Checks what is held against its CIDs", VerifyRequest{}, Verification{}, formLines, nil},
		{"POST /api/v1/demo/assets", "Writes what the demo trains", DemoAssetsRequest{}, DemoAssets{}, formObject, nil},
		{"POST /api/v1/shutdown", "Ends the daemon", nil, Stopping{}, formObject, nil},
	}
}

// OpenAPI returns a description of the API in the form of OpenAPI 3.1.
func OpenAPI() []byte {
	g := schemas{components: map[string]any{}}
	paths := map[string]map[string]any{}
	for _, r := range described() {
		method, path, _ := strings.Cut(r.pattern, " ")
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(method)] = g.operation(path, r)
	}
	doc := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "mootd", "version": ThisVersion().Version,
			"description": "The local API of a node. Long operations answer with lines of JSON: any number of progress and ping, and at the end one result or error.",
		},
		"servers":  []any{map[string]any{"url": "http://127.0.0.1:7717"}},
		"security": []any{map[string]any{"token": []any{}}},
		"paths":    paths,
		"components": map[string]any{
			"schemas": g.components,
			"securitySchemes": map[string]any{"token": map[string]any{
				"type": "http", "scheme": "bearer", "description": "From api.token in the daemon's data folder.",
			}},
		},
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return b
}

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	s.send(w, http.StatusOK, append(OpenAPI(), '\n'))
}

// schemas collects the schemas of named types.
type schemas struct{ components map[string]any }

// kindOf are the types of parameters.
var kindOf = map[string]string{"id": "string", "n": "integer", "from": "integer", "limit": "integer", "since": "string", "after": "string", "level": "string", "round": "string", "format": "string", "name": "string", "model": "string", "dataset": "string", "span": "string", "points": "integer", "peer": "string", "bytes": "integer", "offset": "integer"}

func (g *schemas) operation(path string, r route) map[string]any {
	op := map[string]any{"summary": r.summary, "operationId": operationID(r.pattern)}
	var parameters []any
	add := func(name, in, kind string) {
		parameters = append(parameters, map[string]any{"name": name, "in": in, "required": in == "path", "schema": map[string]any{"type": kind}})
	}
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			add(name, "path", kindOf[name])
		}
	}
	for _, name := range r.query {
		add(name, "query", kindOf[name])
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	content := func(kind string, schema any) map[string]any {
		return map[string]any{"content": map[string]any{kind: map[string]any{"schema": schema}}}
	}
	if r.request != nil {
		body := content("application/octet-stream", map[string]any{"type": "string", "format": "binary"})
		if r.request != any(fileBody{}) {
			body = content("application/json", g.schema(reflect.TypeOf(r.request)))
		}
		body["required"] = true
		op["requestBody"] = body
	}
	var answer map[string]any
	switch r.form {
	case formText:
		answer = content("text/plain", map[string]any{"type": "string"})
	case formTar:
		answer = content("application/x-tar", map[string]any{"type": "string", "format": "binary"})
	case formZip:
		answer = content("application/zip", map[string]any{"type": "string", "format": "binary"})
	case formObject:
		schema := any(map[string]any{"type": "object"})
		if r.answer != nil {
			schema = g.schema(reflect.TypeOf(r.answer))
		}
		answer = content("application/json", schema)
	case formLines:
		answer = content("application/x-ndjson", map[string]any{"oneOf": []any{
			g.line(LineProgress, reflect.TypeFor[Progress](), "", nil),
			g.line(LinePing, nil, "", nil),
			g.line(LineResult, nil, "result", g.schema(reflect.TypeOf(r.answer))),
			g.line(LineError, reflect.TypeFor[failure](), "", nil),
		}})
	case formEvents:
		answer = content("application/x-ndjson", g.schema(reflect.TypeOf(r.answer)))
		answer["content"].(map[string]any)["text/event-stream"] = map[string]any{"schema": map[string]any{"type": "string"}}
	}
	answer["description"] = "Done"
	failed := content("application/json", g.schema(reflect.TypeFor[failure]()))
	failed["description"] = "An error, with the exit code for a command line"
	op["responses"] = map[string]any{"200": answer, "default": failed}
	return op
}

// line is the schema of a line of a stream: its type, the fields of the struct
// of, and one more field.
func (g *schemas) line(kind LineType, of reflect.Type, field string, schema any) map[string]any {
	properties := map[string]any{}
	required := []string{"type"}
	if of != nil {
		g.fields(of, properties, &required)
	}
	properties["type"] = map[string]any{"const": kind}
	if field != "" {
		properties[field] = schema
		required = append(required, field)
	}
	return map[string]any{"type": "object", "properties": properties, "required": required}
}

// operationID is getRunsRounds of GET /api/v1/runs/{id}/rounds.
func operationID(pattern string) string {
	method, path, _ := strings.Cut(pattern, " ")
	id := strings.ToLower(method)
	for part := range strings.FieldsFuncSeq(strings.TrimPrefix(path, "/api/v1"), func(r rune) bool { return strings.ContainsRune("/{}.", r) }) {
		id += strings.ToUpper(part[:1]) + part[1:]
	}
	return id
}

// schema returns the schema of a type, by reference if it has a name.
func (g *schemas) schema(t reflect.Type) any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return map[string]any{"type": "string"}
	case t.Implements(reflect.TypeFor[json.Marshaler]()):
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return orNull(g.schema(t.Elem()))
	case reflect.Slice:
		return map[string]any{"type": []any{"array", "null"}, "items": g.schema(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": []any{"object", "null"}, "additionalProperties": g.schema(t.Elem())}
	case reflect.Interface:
		return map[string]any{}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Struct:
		return g.structure(t)
	}
	if t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64 {
		return map[string]any{"type": "integer", "minimum": 0}
	}
	return map[string]any{"type": "integer"}
}

func orNull(schema any) any {
	return map[string]any{"oneOf": []any{schema, map[string]any{"type": "null"}}}
}

func (g *schemas) structure(t reflect.Type) any {
	name := strings.ToUpper(t.Name()[:min(1, len(t.Name()))]) + t.Name()[min(1, len(t.Name())):]
	reference := map[string]any{"$ref": "#/components/schemas/" + name}
	if name != "" {
		if _, ok := g.components[name]; ok {
			return reference
		}
		g.components[name] = nil // it may contain itself
	}
	properties, required := map[string]any{}, []string{}
	g.fields(t, properties, &required)
	slices.Sort(required)
	s := map[string]any{"type": "object", "properties": properties, "required": required}
	if name == "" {
		return s
	}
	g.components[name] = s
	return reference
}

// fields adds the fields of t and those of what it embeds.
func (g *schemas) fields(t reflect.Type, properties map[string]any, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag == "-":
		case f.Anonymous && tag == "":
			g.fields(f.Type, properties, required)
		case f.IsExported():
			if tag == "" {
				tag = f.Name
			}
			properties[tag] = g.schema(f.Type)
			if !strings.Contains(options, "omit") {
				*required = append(*required, tag)
			}
		}
	}
}
