package api

import (
	"context"
	"io"
)

// Backend is what the HTTP layer needs from the daemon. All methods may be
// called at the same time, and end early when ctx is done.
//
// IDs handed in are complete CIDs (the server resolves prefixes and "last"
// against Runs, Models and Datasets), paths are absolute and clean; everything
// else in a request comes from outside and is for the Backend to check.
// Errors should be of type *Error (or wrap one) when a way out is known; any
// other becomes E_INTERNAL with its text.
//
// A ProgressFunc is never nil, may be called from any goroutine until the
// method returns, and never blocks.
type Backend interface {
	// Status says who this node is and what it is doing.
	Status(ctx context.Context) (Status, error)
	// Control pauses the node, or lets it go on, and returns what it does then.
	Control(ctx context.Context, req ControlRequest) (Status, error)
	// Peers lists the peers that this node is connected to.
	Peers(ctx context.Context) ([]Peer, error)

	// ImportModel checks a Hugging Face folder and stores it. Importing the
	// same again gives the same CID.
	ImportModel(ctx context.Context, req ImportModelRequest, progress ProgressFunc) (Model, error)
	// ImportDataset checks files of rows and stores them as a data set.
	ImportDataset(ctx context.Context, req ImportDatasetRequest, progress ProgressFunc) (Dataset, error)
	// CheckDataset reads files of rows as ImportDataset would, and encodes
	// them for a model, but stores nothing. Bad rows are no error.
	CheckDataset(ctx context.Context, req CheckDatasetRequest, progress ProgressFunc) (DatasetCheck, error)
	// PreviewDataset reads the first rows of files as they are. That their form
	// cannot be told is no error.
	PreviewDataset(ctx context.Context, req PreviewRequest) (DatasetPreview, error)
	// Upload stores a file of rows until it is removed, or a day is over. A file
	// that ends early is an error, and leaves nothing.
	Upload(ctx context.Context, req UploadRequest, body io.Reader) (Upload, error)
	// UploadPart adds to a file that comes in parts, and makes it with the first;
	// E_RETRY when the part does not begin where the file ends, or another one is
	// under way. Of a part that ends early there stays what came.
	UploadPart(ctx context.Context, req UploadPartRequest, body io.Reader) (UploadPart, error)
	// UploadParts lists files of which not all came, oldest first.
	UploadParts(ctx context.Context) ([]UploadPart, error)
	// FinishUpload makes an upload of a file of which all parts came, or tells of
	// it once more; E_DATA, and nothing stays, when it is not what was sent, but
	// E_CONFLICT, and it stays, when it was an upload already.
	FinishUpload(ctx context.Context, id string, req FinishUploadRequest, progress ProgressFunc) (Upload, error)
	// Uploads lists the files that were uploaded, oldest first.
	Uploads(ctx context.Context) ([]Upload, error)
	// RemoveUpload removes one, also one of which not all came; E_NOTFOUND when it
	// is not there.
	RemoveUpload(ctx context.Context, id string) (Upload, error)
	// Models and Datasets list what this node holds, oldest first.
	Models(ctx context.Context) ([]Model, error)
	Datasets(ctx context.Context) ([]Dataset, error)

	// Plan looks at a run file as Launch does, and tells what it found.
	Plan(ctx context.Context, req LaunchRequest, progress ProgressFunc) (Plan, error)
	// Launch turns a run file into a manifest, publishes it and joins the run.
	// It returns as soon as the run is on disk and can be joined by others.
	Launch(ctx context.Context, req LaunchRequest, progress ProgressFunc) (Run, error)
	// Runs lists the runs that this node knows, joined or not, oldest first.
	Runs(ctx context.Context) ([]Run, error)
	// Run tells all about one run. Its Rounds are the last few, newest last.
	Run(ctx context.Context, id string) (RunDetail, error)
	// Rounds lists up to limit decided rounds from round from on, in order;
	// 1 <= from, 1 <= limit <= MaxRoundsPerPage.
	Rounds(ctx context.Context, id string, from uint64, limit int) ([]Round, error)
	// Round returns one decided round, E_NOTFOUND when it is not there (yet).
	Round(ctx context.Context, id string, n uint64) (Round, error)
	// Join makes this node a member of a run that it may never have heard of,
	// and returns when manifest, model, data and state are here and it asked
	// for a seat. The membership is on disk before anything is pulled: when
	// ctx ends early, the node goes on joining in the background, and after a
	// restart too. Joining again waits for the same. A run that does not fit, or
	// is not for this node, is refused before anything large is pulled, and then
	// it is no member if it was none; a Progress has had the Fit.
	Join(ctx context.Context, req JoinRequest, progress ProgressFunc) (Run, error)
	// Invite makes an invitation, E_CONFLICT when this node did not launch the
	// run or the run asks for none.
	Invite(ctx context.Context, req InviteRequest) (Invite, error)
	// CheckRun says what a run needs of this machine, for which it pulls the
	// manifest and, of the model, the configuration. That it does not fit is no
	// error.
	CheckRun(ctx context.Context, req CheckRunRequest, progress ProgressFunc) (Fit, error)
	// Order gives an order to a run. It returns at once; its effect shows in
	// the run's Course.
	Order(ctx context.Context, req OrderRequest) (Run, error)
	// Snapshot makes the state of a run content that others can pull.
	Snapshot(ctx context.Context, req SnapshotRequest, progress ProgressFunc) (Snapshot, error)
	// Leave ends the membership; what was pulled stays.
	Leave(ctx context.Context, id string) (Run, error)
	// Watch calls emit with each event of a run (all, when run is "") after
	// the given cursor, first what is kept, then live, until ctx is done (then
	// it returns nil) or emit fails (then it returns that error). Use
	// EventLog.Watch.
	Watch(ctx context.Context, run string, after Cursor, emit func(Event) error) error

	// Export writes an adapter, tests what it wrote, and reports E_VERIFY when
	// it does not stand the test: then nothing is left.
	Export(ctx context.Context, req ExportRequest, progress ProgressFunc) (Export, error)
	// VerifyAdapter looks at an export again, and at adapters from anywhere. What
	// is wrong with it is in the answer.
	VerifyAdapter(ctx context.Context, req VerifyAdapterRequest, progress ProgressFunc) (AdapterCheck, error)
	// Generate answers prompts, greedily. Outputs are in the order of the
	// prompts.
	Generate(ctx context.Context, req GenerateRequest, progress ProgressFunc) (Generation, error)
	// Evaluate measures a model, with or without adapter, on the held-out rows
	// of a data set.
	Evaluate(ctx context.Context, req EvaluateRequest, progress ProgressFunc) (Evaluation, error)
	// Compare asks several versions of a model the same.
	Compare(ctx context.Context, req CompareRequest, progress ProgressFunc) (Comparison, error)

	// Cache says what this node holds, and what it takes of the disk.
	Cache(ctx context.Context) (Cache, error)
	// PruneCache removes what is neither pinned nor in use; E_CONFLICT when it
	// was named and is.
	PruneCache(ctx context.Context, req PruneRequest) (Pruned, error)
	// PinCache keeps an entry from being pruned, or gives it free again.
	PinCache(ctx context.Context, req PinRequest) (CacheEntry, error)
	// ExportShards writes a CAR; nothing is left of one that failed.
	ExportShards(ctx context.Context, req ExportShardsRequest, progress ProgressFunc) (Archive, error)
	// ImportShards stores what is in a CAR.
	ImportShards(ctx context.Context, req ImportShardsRequest, progress ProgressFunc) (Archive, error)
	// PullShards makes local what peers have. It tries for as long as ctx lasts.
	PullShards(ctx context.Context, req PullShardsRequest, progress ProgressFunc) (CacheEntry, error)
	// VerifyShards reads what is here and compares it with its hashes.
	VerifyShards(ctx context.Context, req VerifyRequest, progress ProgressFunc) (Verification, error)

	// Network says how this node is connected, and what it moved.
	Network(ctx context.Context) (Network, error)
	// Usage says what the machine was used for.
	Usage(ctx context.Context, req UsageRequest) (Usage, error)
	// Today says what this node contributed since midnight.
	Today(ctx context.Context) (Today, error)
	// WorkPresets are how hard this machine may work.
	WorkPresets(ctx context.Context) (WorkPresets, error)
	// About says what runs here; what is of the program alone the server adds.
	About(ctx context.Context) (About, error)
	// Notices are the licences of what is part of the program; E_NOTFOUND where
	// they are not beside it.
	Notices(ctx context.Context) (Notices, error)
	// Checkup looks for what is wrong, as "mootd doctor" does.
	Checkup(ctx context.Context, req CheckupRequest) (Checkup, error)
	// Report writes a zip file for somebody who helps, without what is secret.
	Report(ctx context.Context, w io.Writer) error
	// Settings is the configuration, in effect and in the file.
	Settings(ctx context.Context) (Settings, error)
	// ChangeSettings changes the configuration file, and puts into effect what
	// can be; E_CONFIG when it would be wrong then, E_CONFLICT when a flag or
	// the environment decides a key. Nothing is changed with an error.
	ChangeSettings(ctx context.Context, req SettingsRequest) (Settings, error)
	// Logs lists what the daemon logged last.
	Logs(ctx context.Context, req LogsRequest) (Logs, error)
	// Coverage says which rows the contributions of a run were trained on;
	// E_RETRY while the data set is not here.
	Coverage(ctx context.Context, id string) (Coverage, error)
	// RunFileOf writes the run file that makes the settings of a run again.
	RunFileOf(ctx context.Context, id string) (ClonedRunFile, error)
	// Series tells a run by rounds, in at most limit points, but up to
	// 20 always.
	Series(ctx context.Context, id string, limit int) (Series, error)
	// RunPeers says what each peer did in a run.
	RunPeers(ctx context.Context, id string) (RunPeers, error)
	// Online says who was in a run.
	Online(ctx context.Context, id string) (Online, error)

	// DemoAssets writes the bundled model and data into a folder, which it
	// makes.
	DemoAssets(ctx context.Context, dir string) (DemoAssets, error)
	// Shutdown asks the daemon to stop as after SIGINT and returns at once.
	Shutdown(ctx context.Context) error
}

// ProgressFunc is told how far an operation is.
type ProgressFunc func(Progress)

// Progress is how far one phase of an operation is.
type Progress struct {
	// Phase names what is being done: "model", "data", "state", "check".
	// When it changes, the phase before is over.
	Phase string `json:"phase"`
	// Done never decreases within a phase. Total is 0 while unknown.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Unit is what is counted: UnitBytes, or a plural such as "rows".
	Unit string `json:"unit,omitempty"`
	// Text is a line for people, such as whom it is waiting for.
	Text string `json:"text,omitempty"`
	// Fit says, before anything large is pulled, what the run needs.
	Fit *Fit `json:"fit,omitempty"`
}

// UnitBytes is the Unit of a Progress in bytes.
const UnitBytes = "bytes"
