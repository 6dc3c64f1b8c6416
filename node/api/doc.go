// Package api is the local HTTP interface of the daemon: the JSON types, the
// contract with the daemon behind it (Backend), and the server. It decides
// nothing about runs; it checks who asks, decodes, hands on and encodes. The
// typed client is node/client.
//
// # Conventions
//
// Every answer is one JSON object with "schema":1. Field names are snake_case;
// fields are added, never renamed or removed. An error is
//
//	{"schema":1,"ok":false,"error":{"code":"E_NOTFOUND","exit":6,"message":"…","hint":"…"}}
//
// and carries the exit code with which a command line should end (Code).
//
// Operations that may take long answer with NDJSON (application/x-ndjson): any
// number of lines {"type":"progress",…}, {"type":"ping"} when nothing else was
// sent for a while, and at the end exactly one of {"type":"result","result":{…}}
// and {"type":"error","ok":false,"error":{…}}. A stream without one of these
// two was cut.
//
// Lists of peers, models, data sets and runs are answered whole, or with ?limit=N
// a page at a time; "next" of an answer is the ?after= of the next. Rounds and
// the log have pages of their own.
//
// A path in a request is absolute: daemon and asker may stand in different
// folders. An ID of a run, a model or a data set may be given by the first
// characters that tell it from the others the daemon knows, or as "last".
//
// # Routes
//
//	GET  /                                 the dashboard, without token; its files below /web/ (package web)
//	GET  /healthz                          "ok", without token
//	GET  /metrics                          metrics for Prometheus
//	GET  /api/v1/openapi.json              all of this, as OpenAPI 3.1
//	GET  /api/v1/access                    AccessAnswer
//	GET  /api/v1/version                   Version
//	GET  /api/v1/status                    Status
//	POST /api/v1/control                   ControlRequest, answers Status
//	GET  /api/v1/peers                     Peers
//	GET  /api/v1/models                    Models
//	POST /api/v1/models/import             ImportModelRequest, stream ending in Model
//	GET  /api/v1/datasets                  Datasets
//	POST /api/v1/datasets/import           ImportDatasetRequest, stream ending in Dataset
//	POST /api/v1/datasets/check            CheckDatasetRequest, stream ending in DatasetCheck
//	POST /api/v1/datasets/preview          PreviewRequest, answers DatasetPreview
//	POST /api/v1/uploads                   a file (?name=NAME), answers Upload
//	GET  /api/v1/uploads                   Uploads
//	PUT  /api/v1/uploads/{id}              a part of a file (?name=NAME&bytes=N&offset=N), answers UploadPart
//	POST /api/v1/uploads/{id}/finish       FinishUploadRequest, stream ending in Upload
//	DELETE /api/v1/uploads/{id}            Upload
//	GET  /api/v1/runs                      Runs
//	POST /api/v1/runs                      LaunchRequest, stream ending in Run
//	GET  /api/v1/runs/{id}                 RunDetail
//	GET  /api/v1/runs/{id}/rounds          Rounds (?from=N&limit=N&peer=ID)
//	GET  /api/v1/runs/{id}/rounds/{n}      Round
//	POST /api/v1/runs/plan                 LaunchRequest, stream ending in Plan
//	POST /api/v1/runs/{id}/check           CheckRunRequest, stream ending in Fit
//	POST /api/v1/runs/{id}/join            JoinRequest, stream ending in Run
//	POST /api/v1/runs/{id}/invite          InviteRequest, Invite
//	POST /api/v1/runs/{id}/order           OrderRequest, Run
//	POST /api/v1/runs/{id}/snapshot        SnapshotRequest, stream ending in Snapshot
//	POST /api/v1/runs/{id}/leave           Run
//	GET  /api/v1/runs/{id}/events          Event stream of one run
//	POST /api/v1/runs/{id}/export          ExportRequest, stream ending in Export
//	GET  /api/v1/events                    Event stream of everything
//	POST /api/v1/generate                  GenerateRequest, stream ending in Generation
//	POST /api/v1/export                    ExportRequest of a folder, stream ending in Export
//	POST /api/v1/adapters/verify           VerifyAdapterRequest, stream ending in AdapterCheck
//	POST /api/v1/evaluate                  EvaluateRequest, stream ending in Evaluation
//	POST /api/v1/compare                   CompareRequest, stream ending in Comparison
//	GET  /api/v1/runs/{id}/coverage        Coverage
//	GET  /api/v1/runs/{id}/file            ClonedRunFile
//	GET  /api/v1/runs/{id}/series          Series (?points=)
//	GET  /api/v1/runs/{id}/peers           RunPeers
//	GET  /api/v1/runs/{id}/online          Online
//	GET  /api/v1/presets/{name}            PresetAnswer
//	GET  /api/v1/runs/{id}/adapter         a tar archive (?round=best|N&format=peft|gguf)
//	GET  /api/v1/network                   Network
//	GET  /api/v1/usage                     Usage (?span=hour|day&after=TIME)
//	GET  /api/v1/about                     About
//	GET  /api/v1/about/notices             Notices
//	GET  /api/v1/today                     Today
//	GET  /api/v1/config/presets            WorkPresets
//	GET  /api/v1/doctor                    Checkup
//	POST /api/v1/doctor                    CheckupRequest, stream ending in Checkup
//	POST /api/v1/doctor/report             a zip file
//	GET  /api/v1/config                    Settings
//	PATCH /api/v1/config                   SettingsRequest, answers Settings
//	GET  /api/v1/logs                      Logs (?after=N&limit=N&level=warn)
//	GET  /api/v1/cache                     Cache
//	POST /api/v1/cache/prune               PruneRequest, answers Pruned
//	POST /api/v1/cache/pin                 PinRequest, answers CacheEntry
//	POST /api/v1/shards/export             ExportShardsRequest, stream ending in Archive
//	POST /api/v1/shards/import             ImportShardsRequest, stream ending in Archive
//	POST /api/v1/shards/verify             VerifyRequest, stream ending in Verification
//	POST /api/v1/shards/pull               PullShardsRequest, stream ending in CacheEntry
//	POST /api/v1/demo/assets               DemoAssetsRequest, answers DemoAssets
//	POST /api/v1/shutdown                  Stopping
//
// An event stream is NDJSON, or server-sent events for an asker that accepts
// text/event-stream. It goes on after the event that ?since=EPOCH.N (or the
// header Last-Event-ID) names; see EventLog.
//
// # Who may ask
//
// The listener is on loopback. Beyond that, each request needs the token that
// the daemon writes into its data folder at every start (header
// "Authorization: Bearer TOKEN"), a Host that is localhost, 127.0.0.1 or [::1]
// (else a web page could reach the API through a name of its own), and, when a
// browser sends them, an Origin and a Sec-Fetch-Site of the API itself. A second
// token (ReadTokenFile) lets whoever has it GET, and nothing else. What may be
// shown to everybody is served by Public, on a listener of its own.
package api
