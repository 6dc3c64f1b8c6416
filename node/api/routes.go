package api

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/moot-net/moot/node/web"
)

// routes are those of the API.
func (s *Server) routes(more prometheus.Gatherer) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET " + healthPath:                s.health,
		"GET /metrics":                     s.metrics(more),
		"GET /api/v1/openapi.json":         s.openAPI,
		"GET /api/v1/access":               s.tellAccess,
		"GET /api/v1/version":              get(s, func(context.Context, *http.Request) (Version, error) { return ThisVersion(), nil }),
		"GET /api/v1/status":               once(s, func(ctx context.Context, _ *http.Request) (Status, error) { return s.backend.Status(ctx) }),
		"GET /api/v1/peers":                once(s, s.peers),
		"GET /api/v1/models":               once(s, s.models),
		"POST /api/v1/models/import":       s.importModel,
		"GET /api/v1/datasets":             once(s, s.datasets),
		"POST /api/v1/datasets/import":     s.importDataset,
		"POST /api/v1/datasets/check":      s.checkDataset,
		"POST /api/v1/datasets/preview":    post(s, s.previewDataset),
		"POST /api/v1/uploads":             takeFile(s, fillUpload, s.backend.Upload),
		"GET /api/v1/uploads":              get(s, s.uploads),
		"PUT /api/v1/uploads/{id}":         takeFile(s, fillUploadPart, s.uploadPart),
		"POST /api/v1/uploads/{id}/finish": s.finishUpload,
		"DELETE /api/v1/uploads/{id}":      get(s, s.removeUpload),
		"GET /api/v1/runs":                 once(s, s.runs),
		"POST /api/v1/runs":                s.launch,
		"POST /api/v1/runs/plan":           long(s, s.fillPlan, s.backend.Plan),
		"POST /api/v1/runs/{id}/check":     s.checkRun,
		"GET /api/v1/runs/{id}":            once(s, s.runDetail),
		"GET /api/v1/runs/{id}/rounds":     once(s, s.rounds),
		"GET /api/v1/runs/{id}/rounds/{n}": once(s, s.round),
		"POST /api/v1/runs/{id}/join":      s.join,
		"POST /api/v1/runs/{id}/invite":    s.invite,
		"POST /api/v1/runs/{id}/order":     s.order,
		"POST /api/v1/runs/{id}/snapshot":  s.snapshot,
		"POST /api/v1/runs/{id}/leave":     get(s, s.leave),
		"GET /api/v1/runs/{id}/events":     s.events,
		"POST /api/v1/runs/{id}/export":    s.export,
		"GET /api/v1/events":               s.events,
		"POST /api/v1/generate":            s.generate,
		"POST /api/v1/export":              s.export,
		"POST /api/v1/adapters/verify":     long(s, s.fillVerifyAdapter, s.verifyAdapter),
		"POST /api/v1/evaluate":            s.evaluate,
		"POST /api/v1/compare":             long(s, s.fillCompare, s.backend.Compare),
		"GET /api/v1/runs/{id}/coverage":   once(s, s.coverage),
		"GET /api/v1/runs/{id}/series":     once(s, s.series),
		"GET /api/v1/runs/{id}/file":       get(s, s.runFile),
		"GET /api/v1/runs/{id}/peers":      once(s, s.runPeers),
		"GET /api/v1/runs/{id}/online":     once(s, s.online),
		"GET /api/v1/presets/{name}":       get(s, s.preset),
		"GET /api/v1/runs/{id}/adapter":    s.download,
		"GET /api/v1/network":              once(s, s.network),
		"GET /api/v1/usage":                once(s, s.usage),
		"GET /api/v1/about":                get(s, s.about),
		"GET /api/v1/about/notices":        once(s, s.notices),
		"GET /api/v1/today":                once(s, s.today),
		"GET /api/v1/config/presets":       once(s, s.workPresets),
		"GET /api/v1/doctor":               once(s, s.checkup),
		"POST /api/v1/doctor": long(s, func(context.Context, *CheckupRequest) error { return nil }, func(ctx context.Context, req CheckupRequest, _ ProgressFunc) (Checkup, error) {
			return s.backend.Checkup(ctx, req)
		}),
		"POST /api/v1/doctor/report": s.report,
		"GET /api/v1/config":         once(s, s.settings),
		"PATCH /api/v1/config":       post(s, s.changeSettings),
		"GET /api/v1/logs":           once(s, s.logs),
		"GET /api/v1/cache":          once(s, s.cache),
		"POST /api/v1/cache/prune":   post(s, s.pruneCache),
		"POST /api/v1/cache/pin":     post(s, s.pin),
		"POST /api/v1/shards/export": long(s, s.fillExportShards, s.backend.ExportShards),
		"POST /api/v1/shards/import": long(s, func(_ context.Context, req *ImportShardsRequest) error { return checkPath("file", req.File) },
			s.backend.ImportShards),
		"POST /api/v1/shards/pull":   long(s, checkPull, s.backend.PullShards),
		"POST /api/v1/shards/verify": long(s, s.fillVerify, s.verifyShards),
		"POST /api/v1/demo/assets":   s.demoAssets,
		"POST /api/v1/control":       post(s, s.control),
		"POST /api/v1/shutdown":      get(s, s.shutdown),
	}
}

// publicRoutes are those of a Public.
func (s *Server) publicRoutes() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET " + healthPath: s.health,
		"GET /api/v1/access": get(s, func(context.Context, *http.Request) (AccessAnswer, error) {
			return AccessAnswer{AccessPublic}, nil
		}),
		"GET /api/v1/status":               once(s, func(ctx context.Context, _ *http.Request) (Status, error) { return s.backend.Status(ctx) }),
		"GET /api/v1/runs":                 once(s, s.runs),
		"GET /api/v1/runs/{id}":            once(s, s.runDetail),
		"GET /api/v1/runs/{id}/rounds":     once(s, s.rounds),
		"GET /api/v1/runs/{id}/rounds/{n}": once(s, s.round),
		"GET /api/v1/runs/{id}/coverage":   once(s, s.coverage),
		"GET /api/v1/runs/{id}/series":     once(s, s.series),
		"GET /api/v1/runs/{id}/peers":      once(s, s.runPeers),
		"GET /api/v1/runs/{id}/online":     once(s, s.online),
		"GET /api/v1/runs/{id}/events":     s.events,
		"GET /api/v1/events":               s.events,
	}
}

// handle makes the server answer these routes, and those of the page.
func (s *Server) handle(routes map[string]http.HandlerFunc) {
	for pattern, h := range routes {
		s.mux.HandleFunc(pattern, h)
		s.patterns = append(s.patterns, pattern)
	}
	for pattern, h := range web.Routes() {
		s.mux.HandleFunc(pattern, h)
	}
}

// get makes a handler of a function that needs no body and answers at once.
func get[T any](s *Server, fn func(ctx context.Context, r *http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := fn(r.Context(), r)
		s.answer(w, r, v, err)
	}
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n") // who does not read it does not get it
}

func (s *Server) peers(ctx context.Context, r *http.Request) (v Peers, err error) {
	l, err := s.backend.Peers(ctx)
	if err == nil {
		v.Peers, v.Next, err = paged(r, l, func(p Peer) string { return p.ID })
	}
	return v, err
}

func (s *Server) models(ctx context.Context, r *http.Request) (v Models, err error) {
	l, err := s.backend.Models(ctx)
	if err == nil {
		v.Models, v.Next, err = paged(r, l, func(m Model) string { return m.ID })
	}
	return v, err
}

func (s *Server) datasets(ctx context.Context, r *http.Request) (v Datasets, err error) {
	l, err := s.backend.Datasets(ctx)
	if err == nil {
		v.Datasets, v.Next, err = paged(r, l, func(d Dataset) string { return d.ID })
	}
	return v, err
}

func (s *Server) runs(ctx context.Context, r *http.Request) (v Runs, err error) {
	l, err := s.backend.Runs(ctx)
	if err == nil {
		v.Runs, v.Next, err = paged(r, l, func(r Run) string { return r.ID })
	}
	return v, err
}

// maxPage bounds a page of a list; without limit all of it is answered.
const maxPage = 1000

// paged returns the part of a list that comes after the ID that ?after= names,
// at most ?limit= of it, and the ID to go on after when there is more. An ID
// that is not there any more is an error: what came after it is not known.
func paged[T any](r *http.Request, all []T, id func(T) string) (page []T, next string, err error) {
	q := r.URL.Query()
	limit, err := number("limit", q.Get("limit"), uint64(len(all))+1, maxPage)
	if err != nil {
		return nil, "", err
	}
	if after := q.Get("after"); after != "" {
		i := slices.IndexFunc(all, func(x T) bool { return id(x) == after })
		if i < 0 {
			return nil, "", Errorf(CodeNotFound, "after is %s, which is not in the list any more", clip(after)).WithHint("begin again without after")
		}
		all = all[i+1:]
	}
	if uint64(len(all)) > limit {
		all = all[:limit]
		next = id(all[limit-1])
	}
	return list(all), next, nil
}

// list makes an empty list [] in JSON, not null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

func (s *Server) importModel(w http.ResponseWriter, r *http.Request) {
	var req ImportModelRequest
	err := decode(w, r, &req)
	if err == nil {
		err = checkPath("dir", req.Dir)
	}
	if err == nil && req.Quantize != "" && req.Quantize != QuantizeNF4 {
		err = Errorf(CodeUsage, "quantize is %s, must be %s", clip(req.Quantize), QuantizeNF4)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		return s.backend.ImportModel(ctx, req, progress)
	})
}

// maxFiles bounds the files of one import.
const maxFiles = 1000

func (s *Server) importDataset(w http.ResponseWriter, r *http.Request) {
	var req ImportDatasetRequest
	if err := decode(w, r, &req); err != nil {
		s.fail(w, r, err)
		return
	}
	if err := req.check(); err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		return s.backend.ImportDataset(ctx, req, progress)
	})
}

func (q *ImportDatasetRequest) check() error {
	if err := checkFiles(q.Files); err != nil {
		return err
	}
	switch {
	case !(q.EvalFraction >= 0 && q.EvalFraction < 1):
		return Errorf(CodeUsage, "eval_fraction is %v, must be at least 0 and below 1", q.EvalFraction)
	case q.EvalFraction > 0 && q.EvalFile != "":
		return Errorf(CodeUsage, "eval_file and eval_fraction are both given; the held-out rows come from one of them")
	case q.ShardBytes < 0:
		return Errorf(CodeUsage, "shard_bytes is %d, must be positive", q.ShardBytes)
	}
	if q.EvalFile != "" {
		if err := checkPath("eval_file", q.EvalFile); err != nil {
			return err
		}
	}
	if err := checkFields(q.Fields); err != nil {
		return err
	}
	return checkTemplate(q.Template)
}

func (s *Server) launch(w http.ResponseWriter, r *http.Request) {
	var req LaunchRequest
	err := decode(w, r, &req)
	if err == nil {
		err = s.fillLaunch(r.Context(), &req)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		return s.backend.Launch(ctx, req, progress)
	})
}

// fillLaunch puts a model and a data set that are given beside the run file
// into it.
func (s *Server) fillLaunch(ctx context.Context, req *LaunchRequest) error {
	if strings.TrimSpace(req.TOML) == "" {
		return Errorf(CodeUsage, "toml is empty; it must be the text of a run file")
	}
	if req.Name == "" {
		req.Name = "run.toml"
	}
	if req.Model != "" {
		id, err := s.model(ctx, req.Model)
		if err != nil {
			return err
		}
		req.TOML, req.Model = setKey(req.TOML, "model", id), ""
	}
	if req.Dataset != "" {
		id, err := s.dataset(ctx, req.Dataset)
		if err != nil {
			return err
		}
		req.TOML, req.Dataset = setKey(req.TOML, "data", id), ""
	}
	return nil
}

// setKey gives a key of a run file that is in no table a value. The numbers of
// lines stay when the key is there, even if empty.
func setKey(text, key, value string) string {
	set := key + ` = "` + value + `"`
	rows := strings.Split(text, "\n")
	for i, row := range rows {
		row = strings.TrimSpace(row)
		if strings.HasPrefix(row, "[") {
			break // the tables begin
		}
		if name, _, ok := strings.Cut(row, "="); ok && strings.Trim(strings.TrimSpace(name), `"'`) == key {
			rows[i] = set
			return strings.Join(rows, "\n")
		}
	}
	return set + "\n" + text
}

func (s *Server) runDetail(ctx context.Context, r *http.Request) (RunDetail, error) {
	id, err := s.run(ctx, r.PathValue("id"))
	if err != nil {
		return RunDetail{}, err
	}
	d, err := s.backend.Run(ctx, id)
	d.NextSeats, d.Rounds, d.Members = list(d.NextSeats), list(d.Rounds), list(d.Members)
	return d, err
}

func (s *Server) rounds(ctx context.Context, r *http.Request) (Rounds, error) {
	q := r.URL.Query()
	from, err := number("from", q.Get("from"), 1, 1<<53)
	if err != nil {
		return Rounds{}, err
	}
	limit, err := number("limit", q.Get("limit"), 100, MaxRoundsPerPage)
	if err != nil {
		return Rounds{}, err
	}
	id, err := s.run(ctx, r.PathValue("id"))
	if err != nil {
		return Rounds{}, err
	}
	l, err := s.backend.Rounds(ctx, id, from, int(limit))
	if peer := q.Get("peer"); peer != "" {
		l = about(l, peer)
	}
	return Rounds{list(l)}, err
}

// number reads a number from 1 to most.
func number(key, given string, def, most uint64) (uint64, error) {
	if given == "" {
		return def, nil
	}
	n, err := strconv.ParseUint(given, 10, 64)
	if err != nil || n < 1 || n > most {
		return 0, Errorf(CodeUsage, "%s is %s, must be a number from 1 to %d", key, clip(given), most)
	}
	return n, nil
}

func (s *Server) round(ctx context.Context, r *http.Request) (Round, error) {
	n, err := number("the round", r.PathValue("n"), 0, 1<<53)
	if err != nil {
		return Round{}, err
	}
	id, err := s.run(ctx, r.PathValue("id"))
	if err != nil {
		return Round{}, err
	}
	return s.backend.Round(ctx, id, n)
}

func (s *Server) join(w http.ResponseWriter, r *http.Request) {
	var req JoinRequest
	err := decode(w, r, &req)
	if err == nil && len(req.Peers) > maxJoinPeers {
		err = Errorf(CodeUsage, "peers has %d addresses, at most %d are tried", len(req.Peers), maxJoinPeers)
	}
	if err == nil {
		req.Run, err = s.run(r.Context(), r.PathValue("id"))
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		return s.backend.Join(ctx, req, progress)
	})
}

func (s *Server) invite(w http.ResponseWriter, r *http.Request) {
	var req InviteRequest
	err := decode(w, r, &req)
	if err == nil && req.Rounds > 1<<32 {
		err = Errorf(CodeUsage, "rounds is %d, must be at most %d", req.Rounds, uint64(1<<32))
	}
	if err == nil {
		req.Run, err = s.run(r.Context(), r.PathValue("id"))
	}
	var v Invite
	if err == nil {
		v, err = s.backend.Invite(r.Context(), req)
	}
	s.answer(w, r, v, err)
}

func (s *Server) order(w http.ResponseWriter, r *http.Request) {
	var req OrderRequest
	err := decode(w, r, &req)
	if err == nil {
		err = req.check()
	}
	if err == nil {
		req.Run, err = s.run(r.Context(), r.PathValue("id"))
	}
	var v Run
	if err == nil {
		v, err = s.backend.Order(r.Context(), req)
	}
	s.answer(w, r, v, err)
}

func (s *Server) snapshot(w http.ResponseWriter, r *http.Request) {
	var req SnapshotRequest
	err := decode(w, r, &req)
	if err == nil {
		err = req.check()
	}
	if err == nil {
		req.Run, err = s.run(r.Context(), r.PathValue("id"))
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		return s.backend.Snapshot(ctx, req, progress)
	})
}

func (s *Server) leave(ctx context.Context, r *http.Request) (Run, error) {
	id, err := s.run(ctx, r.PathValue("id"))
	if err != nil {
		return Run{}, err
	}
	return s.backend.Leave(ctx, id)
}

func (s *Server) export(w http.ResponseWriter, r *http.Request) {
	var req ExportRequest
	err := decode(w, r, &req)
	if err == nil {
		err = checkPath("dir", req.Dir)
	}
	if err == nil && req.Adapter != "" {
		err = checkPath("adapter", req.Adapter)
	}
	if id := r.PathValue("id"); err == nil && id != "" {
		req.Run, err = s.run(r.Context(), id)
	}
	if err == nil {
		err = req.check()
	}
	if err == nil && req.Model != "" {
		err = s.namedModel(r.Context(), &req.Model)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		return s.backend.Export(ctx, req, progress)
	})
}

// The bounds of one request to generate.
const (
	maxPrompts     = 1000
	maxTokens      = 8192
	generateTokens = 128 // default
	evaluateTokens = 64  // likewise
)

func (s *Server) generate(w http.ResponseWriter, r *http.Request) {
	var req GenerateRequest
	err := decode(w, r, &req)
	if err == nil {
		err = req.check()
	}
	if err == nil {
		err = s.subject(r.Context(), &req.Subject)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		g, err := s.backend.Generate(ctx, req, progress)
		g.Outputs = list(g.Outputs)
		return g, err
	})
}

func (q *GenerateRequest) check() error {
	if q.MaxTokens == 0 {
		q.MaxTokens = generateTokens
	}
	switch {
	case len(q.Prompts) == 0:
		return Errorf(CodeUsage, "prompts is empty; there is nothing to answer")
	case len(q.Prompts) > maxPrompts:
		return Errorf(CodeUsage, "prompts has %d entries, at most %d are answered at once", len(q.Prompts), maxPrompts)
	case q.MaxTokens < 1 || q.MaxTokens > maxTokens:
		return Errorf(CodeUsage, "max_tokens is %d, must be from 1 to %d", q.MaxTokens, maxTokens)
	}
	return checkTemplate(q.Template)
}

func (s *Server) fillCompare(ctx context.Context, req *CompareRequest) error {
	if err := req.check(); err != nil {
		return err
	}
	return s.subject(ctx, &req.Subject)
}

func (s *Server) evaluate(w http.ResponseWriter, r *http.Request) {
	var req EvaluateRequest
	err := decode(w, r, &req)
	if err == nil {
		err = s.fillEvaluate(r.Context(), &req)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		return s.backend.Evaluate(ctx, req, progress)
	})
}

func (s *Server) fillEvaluate(ctx context.Context, req *EvaluateRequest) (err error) {
	if req.MaxTokens == 0 {
		req.MaxTokens = evaluateTokens
	}
	switch {
	case req.MaxTokens < 1 || req.MaxTokens > maxTokens:
		return Errorf(CodeUsage, "max_tokens is %d, must be from 1 to %d", req.MaxTokens, maxTokens)
	case req.MaxRows < 0:
		return Errorf(CodeUsage, "max_rows is %d, must be positive", req.MaxRows)
	case req.Dataset == "" && req.Run == "":
		return Errorf(CodeUsage, "dataset is missing; without a run it must be named")
	}
	if req.Dataset != "" {
		if req.Dataset, err = s.dataset(ctx, req.Dataset); err != nil {
			return err
		}
	}
	return s.subject(ctx, &req.Subject)
}

// subject checks and completes what generates.
func (s *Server) subject(ctx context.Context, q *Subject) (err error) {
	switch {
	case q.Model == "" && q.Run == "":
		return Errorf(CodeUsage, "model is missing; without a run it must be named")
	case q.Adapter != "" && q.Run != "":
		return Errorf(CodeUsage, "adapter and run are both given; one of them names the adapter")
	case q.Round != nil && q.Run == "":
		return Errorf(CodeUsage, "round is given without run")
	}
	if q.Adapter != "" {
		if err := checkPath("adapter", q.Adapter); err != nil {
			return err
		}
	}
	if q.Run != "" {
		if q.Run, err = s.run(ctx, q.Run); err != nil {
			return err
		}
	}
	if q.Model != "" {
		err = s.namedModel(ctx, &q.Model)
	}
	return err
}

// namedModel completes the ID of a model, or checks the path of a folder.
func (s *Server) namedModel(ctx context.Context, q *string) (err error) {
	if filepath.IsAbs(*q) {
		return checkPath("model", *q)
	}
	*q, err = s.model(ctx, *q)
	return err
}

func (s *Server) demoAssets(w http.ResponseWriter, r *http.Request) {
	var req DemoAssetsRequest
	err := decode(w, r, &req)
	if err == nil {
		err = checkPath("dir", req.Dir)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	assets, err := s.backend.DemoAssets(r.Context(), req.Dir)
	s.answer(w, r, assets, err)
}

func (s *Server) shutdown(ctx context.Context, _ *http.Request) (Stopping, error) {
	return Stopping{Stopping: true}, s.backend.Shutdown(ctx)
}
