package client

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/moot-net/moot/node/api"
)

// Version says what the daemon was built from.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	return call[api.Version](ctx, c, http.MethodGet, "/api/v1/version", nil)
}

// Status says who the node is and what it is doing.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return call[api.Status](ctx, c, http.MethodGet, "/api/v1/status", nil)
}

// Control pauses the node, or lets it go on.
func (c *Client) Control(ctx context.Context, req api.ControlRequest) (api.Status, error) {
	return call[api.Status](ctx, c, http.MethodPost, "/api/v1/control", req)
}

// Peers lists the peers that the node is connected to.
func (c *Client) Peers(ctx context.Context) (api.Peers, error) {
	return call[api.Peers](ctx, c, http.MethodGet, "/api/v1/peers", nil)
}

// Models lists the models that the node holds, oldest first.
func (c *Client) Models(ctx context.Context) (api.Models, error) {
	return call[api.Models](ctx, c, http.MethodGet, "/api/v1/models", nil)
}

// ImportModel stores a Hugging Face folder.
func (c *Client) ImportModel(ctx context.Context, req api.ImportModelRequest, progress api.ProgressFunc) (api.Model, error) {
	return stream[api.Model](ctx, c, "/api/v1/models/import", req, progress)
}

// Datasets lists the data sets that the node holds, oldest first.
func (c *Client) Datasets(ctx context.Context) (api.Datasets, error) {
	return call[api.Datasets](ctx, c, http.MethodGet, "/api/v1/datasets", nil)
}

// ImportDataset stores files of rows as a data set.
func (c *Client) ImportDataset(ctx context.Context, req api.ImportDatasetRequest, progress api.ProgressFunc) (api.Dataset, error) {
	return stream[api.Dataset](ctx, c, "/api/v1/datasets/import", req, progress)
}

// CheckDataset looks through files of rows before an import.
func (c *Client) CheckDataset(ctx context.Context, req api.CheckDatasetRequest, progress api.ProgressFunc) (api.DatasetCheck, error) {
	return stream[api.DatasetCheck](ctx, c, "/api/v1/datasets/check", req, progress)
}

// PreviewDataset reads the first rows of files.
func (c *Client) PreviewDataset(ctx context.Context, req api.PreviewRequest) (api.DatasetPreview, error) {
	return call[api.DatasetPreview](ctx, c, http.MethodPost, "/api/v1/datasets/preview", req)
}

// Upload sends a file of rows to the node. It is for an asker whose files the
// daemon cannot read; others name the path.
func (c *Client) Upload(ctx context.Context, req api.UploadRequest, body io.Reader) (api.Upload, error) {
	return call[api.Upload](ctx, c, http.MethodPost, "/api/v1/uploads?name="+url.QueryEscape(req.Name), file{body, req.Bytes})
}

// UploadPart sends a part of a file, from where the last one ended. Where that is
// after a break, Uploads tells.
func (c *Client) UploadPart(ctx context.Context, req api.UploadPartRequest, body io.Reader) (api.UploadPart, error) {
	q := url.Values{"name": {req.Name}, "bytes": {strconv.FormatInt(req.Bytes, 10)}, "offset": {strconv.FormatInt(req.Offset, 10)}}
	return call[api.UploadPart](ctx, c, http.MethodPut, "/api/v1/uploads/"+url.PathEscape(req.ID)+"?"+q.Encode(), file{body, req.Size})
}

// FinishUpload has a file checked of which all parts were sent.
func (c *Client) FinishUpload(ctx context.Context, id string, req api.FinishUploadRequest, progress api.ProgressFunc) (api.Upload, error) {
	return stream[api.Upload](ctx, c, "/api/v1/uploads/"+url.PathEscape(id)+"/finish", req, progress)
}

// Uploads lists the files that were uploaded and are still there.
func (c *Client) Uploads(ctx context.Context) (api.Uploads, error) {
	return call[api.Uploads](ctx, c, http.MethodGet, "/api/v1/uploads", nil)
}

// RemoveUpload removes one of them.
func (c *Client) RemoveUpload(ctx context.Context, id string) (api.Upload, error) {
	return call[api.Upload](ctx, c, http.MethodDelete, "/api/v1/uploads/"+url.PathEscape(id), nil)
}

// Runs lists the runs that the node knows, oldest first.
func (c *Client) Runs(ctx context.Context) (api.Runs, error) {
	return call[api.Runs](ctx, c, http.MethodGet, "/api/v1/runs", nil)
}

// Launch begins a run.
func (c *Client) Launch(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Run, error) {
	return stream[api.Run](ctx, c, "/api/v1/runs", req, progress)
}

// Plan looks at a run file as a launch does.
func (c *Client) Plan(ctx context.Context, req api.LaunchRequest, progress api.ProgressFunc) (api.Plan, error) {
	return stream[api.Plan](ctx, c, "/api/v1/runs/plan", req, progress)
}

// CheckRun says what the run that req.Run names needs of the node's machine.
func (c *Client) CheckRun(ctx context.Context, req api.CheckRunRequest, progress api.ProgressFunc) (api.Fit, error) {
	return stream[api.Fit](ctx, c, runPath(req.Run)+"/check", req, progress)
}

// Run tells all about one run; of its rounds, the last few.
func (c *Client) Run(ctx context.Context, id string) (api.RunDetail, error) {
	return call[api.RunDetail](ctx, c, http.MethodGet, runPath(id), nil)
}

// Rounds lists up to limit decided rounds from round from on, in order. limit
// 0 takes the daemon's default; at most api.MaxRoundsPerPage are sent.
func (c *Client) Rounds(ctx context.Context, id string, from uint64, limit int) (api.Rounds, error) {
	q := fmt.Sprintf("/rounds?from=%d", from)
	if limit > 0 {
		q += fmt.Sprintf("&limit=%d", limit)
	}
	return call[api.Rounds](ctx, c, http.MethodGet, runPath(id)+q, nil)
}

// AllRounds lists all decided rounds.
func (c *Client) AllRounds(ctx context.Context, id string) ([]api.Round, error) {
	all := []api.Round{}
	for from := uint64(1); ; {
		page, err := c.Rounds(ctx, id, from, 0)
		if err != nil || len(page.Rounds) == 0 {
			return all, err
		}
		all = append(all, page.Rounds...)
		last := all[len(all)-1].Round
		if last < from {
			return all, api.Errorf(api.CodeDaemon, "run %s: the daemon answered rounds from %d on with round %d", id, from, last)
		}
		from = last + 1
	}
}

// Round returns one decided round.
func (c *Client) Round(ctx context.Context, id string, n uint64) (api.Round, error) {
	return call[api.Round](ctx, c, http.MethodGet, fmt.Sprintf("%s/rounds/%d", runPath(id), n), nil)
}

// Join makes the node a member of the run that req.Run names. It returns when
// everything is there that the run needs; when ctx ends early, the node goes on
// joining.
func (c *Client) Join(ctx context.Context, req api.JoinRequest, progress api.ProgressFunc) (api.Run, error) {
	return stream[api.Run](ctx, c, runPath(req.Run)+"/join", req, progress)
}

// Invite makes an invitation to the run that req.Run names.
func (c *Client) Invite(ctx context.Context, req api.InviteRequest) (api.Invite, error) {
	return call[api.Invite](ctx, c, http.MethodPost, runPath(req.Run)+"/invite", req)
}

// Order gives an order to a run.
func (c *Client) Order(ctx context.Context, req api.OrderRequest) (api.Run, error) {
	return call[api.Run](ctx, c, http.MethodPost, runPath(req.Run)+"/order", req)
}

// Snapshot makes the state of a run content with a CID.
func (c *Client) Snapshot(ctx context.Context, req api.SnapshotRequest, progress api.ProgressFunc) (api.Snapshot, error) {
	return stream[api.Snapshot](ctx, c, runPath(req.Run)+"/snapshot", req, progress)
}

// Leave ends the membership in a run.
func (c *Client) Leave(ctx context.Context, id string) (api.Run, error) {
	return call[api.Run](ctx, c, http.MethodPost, runPath(id)+"/leave", nil)
}

// Export writes an adapter of the run that req.Run names, or of a folder.
func (c *Client) Export(ctx context.Context, req api.ExportRequest, progress api.ProgressFunc) (api.Export, error) {
	path := "/api/v1"
	if req.Run != "" {
		path = runPath(req.Run)
	}
	return stream[api.Export](ctx, c, path+"/export", req, progress)
}

// VerifyAdapter tests an export, or an adapter from anywhere.
func (c *Client) VerifyAdapter(ctx context.Context, req api.VerifyAdapterRequest, progress api.ProgressFunc) (api.AdapterCheck, error) {
	return stream[api.AdapterCheck](ctx, c, "/api/v1/adapters/verify", req, progress)
}

// Generate answers prompts.
func (c *Client) Generate(ctx context.Context, req api.GenerateRequest, progress api.ProgressFunc) (api.Generation, error) {
	return stream[api.Generation](ctx, c, "/api/v1/generate", req, progress)
}

// Evaluate measures a model, with or without adapter, on held-out rows.
func (c *Client) Evaluate(ctx context.Context, req api.EvaluateRequest, progress api.ProgressFunc) (api.Evaluation, error) {
	return stream[api.Evaluation](ctx, c, "/api/v1/evaluate", req, progress)
}

// Compare asks several versions of a model the same.
func (c *Client) Compare(ctx context.Context, req api.CompareRequest, progress api.ProgressFunc) (api.Comparison, error) {
	return stream[api.Comparison](ctx, c, "/api/v1/compare", req, progress)
}

// DemoAssets writes the bundled model and data into a folder.
func (c *Client) DemoAssets(ctx context.Context, dir string) (api.DemoAssets, error) {
	return call[api.DemoAssets](ctx, c, http.MethodPost, "/api/v1/demo/assets", api.DemoAssetsRequest{Dir: dir})
}

// Shutdown asks the daemon to stop. It returns before the daemon has.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := call[api.Stopping](ctx, c, http.MethodPost, "/api/v1/shutdown", nil)
	return err
}

// Healthy reports an error unless something answers at the daemon's address.
func (c *Client) Healthy(ctx context.Context) error {
	resp, err := c.request(ctx, http.MethodGet, "/healthz", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func runPath(id string) string { return "/api/v1/runs/" + url.PathEscape(id) }

// Cache says what the node holds.
func (c *Client) Cache(ctx context.Context) (api.Cache, error) {
	return call[api.Cache](ctx, c, http.MethodGet, "/api/v1/cache", nil)
}

// PruneCache removes what the node holds and does not need.
func (c *Client) PruneCache(ctx context.Context, req api.PruneRequest) (api.Pruned, error) {
	return call[api.Pruned](ctx, c, http.MethodPost, "/api/v1/cache/prune", req)
}

// PinCache keeps an entry from being pruned, or gives it free again.
func (c *Client) PinCache(ctx context.Context, req api.PinRequest) (api.CacheEntry, error) {
	return call[api.CacheEntry](ctx, c, http.MethodPost, "/api/v1/cache/pin", req)
}

// ExportShards writes a CAR on the node's machine.
func (c *Client) ExportShards(ctx context.Context, req api.ExportShardsRequest, progress api.ProgressFunc) (api.Archive, error) {
	return stream[api.Archive](ctx, c, "/api/v1/shards/export", req, progress)
}

// ImportShards stores what is in a CAR on the node's machine.
func (c *Client) ImportShards(ctx context.Context, req api.ImportShardsRequest, progress api.ProgressFunc) (api.Archive, error) {
	return stream[api.Archive](ctx, c, "/api/v1/shards/import", req, progress)
}

// PullShards makes local what peers have.
func (c *Client) PullShards(ctx context.Context, req api.PullShardsRequest, progress api.ProgressFunc) (api.CacheEntry, error) {
	return stream[api.CacheEntry](ctx, c, "/api/v1/shards/pull", req, progress)
}

// VerifyShards compares what the node holds with its hashes.
func (c *Client) VerifyShards(ctx context.Context, req api.VerifyRequest, progress api.ProgressFunc) (api.Verification, error) {
	return stream[api.Verification](ctx, c, "/api/v1/shards/verify", req, progress)
}

// Network says how the node is connected, and what it moved.
func (c *Client) Network(ctx context.Context) (api.Network, error) {
	return call[api.Network](ctx, c, http.MethodGet, "/api/v1/network", nil)
}

// Usage says what the node's machine was used for.
func (c *Client) Usage(ctx context.Context, req api.UsageRequest) (api.Usage, error) {
	q := url.Values{"span": {cmp.Or(req.Span, api.UsageHour)}}
	if !req.After.IsZero() {
		q.Set("after", req.After.Format(time.RFC3339Nano))
	}
	return call[api.Usage](ctx, c, http.MethodGet, "/api/v1/usage?"+q.Encode(), nil)
}

// Today says what the node contributed since midnight.
func (c *Client) Today(ctx context.Context) (api.Today, error) {
	return call[api.Today](ctx, c, http.MethodGet, "/api/v1/today", nil)
}

// WorkPresets are how hard the node's machine may work.
func (c *Client) WorkPresets(ctx context.Context) (api.WorkPresets, error) {
	return call[api.WorkPresets](ctx, c, http.MethodGet, "/api/v1/config/presets", nil)
}

// About says what the daemon is made of, and where its files are.
func (c *Client) About(ctx context.Context) (api.About, error) {
	return call[api.About](ctx, c, http.MethodGet, "/api/v1/about", nil)
}

// Notices are the licences of what is part of the daemon.
func (c *Client) Notices(ctx context.Context) (api.Notices, error) {
	return call[api.Notices](ctx, c, http.MethodGet, "/api/v1/about/notices", nil)
}

// Checkup looks for what is wrong with the node.
func (c *Client) Checkup(ctx context.Context, req api.CheckupRequest) (api.Checkup, error) {
	return stream[api.Checkup](ctx, c, "/api/v1/doctor", req, nil)
}

// Report writes a zip file for somebody who helps.
func (c *Client) Report(ctx context.Context, w io.Writer) error {
	const path = "/api/v1/doctor/report"
	resp, err := c.request(ctx, http.MethodPost, path, struct{}{})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return api.Errorf(api.CodeDaemon, "POST %s: the answer was cut: %w", path, err)
	}
	return nil
}

// Settings is the node's configuration.
func (c *Client) Settings(ctx context.Context) (api.Settings, error) {
	return call[api.Settings](ctx, c, http.MethodGet, "/api/v1/config", nil)
}

// ChangeSettings changes the node's configuration file.
func (c *Client) ChangeSettings(ctx context.Context, req api.SettingsRequest) (api.Settings, error) {
	return call[api.Settings](ctx, c, http.MethodPatch, "/api/v1/config", req)
}

// Logs lists what the daemon logged last. A limit of 0 is the daemon's default.
func (c *Client) Logs(ctx context.Context, req api.LogsRequest) (api.Logs, error) {
	q := url.Values{}
	if req.After > 0 {
		q.Set("after", strconv.FormatUint(req.After, 10))
	}
	if req.Limit > 0 {
		q.Set("limit", strconv.Itoa(req.Limit))
	}
	if req.Level != "" {
		q.Set("level", req.Level)
	}
	return call[api.Logs](ctx, c, http.MethodGet, "/api/v1/logs?"+q.Encode(), nil)
}

// Coverage says which rows a run was trained on.
func (c *Client) Coverage(ctx context.Context, id string) (api.Coverage, error) {
	return call[api.Coverage](ctx, c, http.MethodGet, runPath(id)+"/coverage", nil)
}

// RunFileOf writes the run file that makes the settings of a run again.
func (c *Client) RunFileOf(ctx context.Context, id string) (api.ClonedRunFile, error) {
	return call[api.ClonedRunFile](ctx, c, http.MethodGet, runPath(id)+"/file", nil)
}

// Series tells a run by rounds, in at most limit points, but up to 20 always; a
// page for everybody tells as many as it likes.
func (c *Client) Series(ctx context.Context, id string, limit int) (api.Series, error) {
	return call[api.Series](ctx, c, http.MethodGet, runPath(id)+"/series?points="+strconv.Itoa(limit), nil)
}

// RunPeers says what each peer did in a run.
func (c *Client) RunPeers(ctx context.Context, id string) (api.RunPeers, error) {
	return call[api.RunPeers](ctx, c, http.MethodGet, runPath(id)+"/peers", nil)
}

// Online says how many peers were in a run.
func (c *Client) Online(ctx context.Context, id string) (api.Online, error) {
	return call[api.Online](ctx, c, http.MethodGet, runPath(id)+"/online", nil)
}
