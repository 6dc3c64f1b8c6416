package shard

import (
	"context"
	"errors"
	"io"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

var errDraft = errors.New("shard: being written")

// Store is a folder of blocks, each verified when it is read. It is safe for
// concurrent use and implements boxo's blockstore.Blockstore.
type Store struct{}

// Open opens the store in the folder dir, which it makes if needed. A second
// process (or a second Open) on the same folder gets an error that wraps
// [ErrLocked].
func Open(dir string) (*Store, error) { return nil, errDraft }

// Close gives the folder back. The store must not be used afterwards.
func (s *Store) Close() error { return errDraft }

// Has reports whether the block is there (its content is checked by Get).
func (s *Store) Has(ctx context.Context, c cid.Cid) (bool, error) { return false, errDraft }

// Get reads and verifies a block. One that is missing, or was found damaged
// and therefore removed, gives an error that go-ipld-format's IsNotFound
// recognizes.
func (s *Store) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) { return nil, errDraft }

// GetSize returns the size of a block.
func (s *Store) GetSize(ctx context.Context, c cid.Cid) (int, error) { return 0, errDraft }

// Put stores a block durably.
func (s *Store) Put(ctx context.Context, b blocks.Block) error { return errDraft }

// PutMany stores blocks durably; cheaper than as many calls of Put.
func (s *Store) PutMany(ctx context.Context, bs []blocks.Block) error { return errDraft }

// DeleteBlock removes one block. Removing what is not there is no error.
func (s *Store) DeleteBlock(ctx context.Context, c cid.Cid) error { return errDraft }

// AllKeysChan lists the blocks, as CIDv1 with the raw codec.
func (s *Store) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) { return nil, errDraft }

// PutBytes stores data as a UnixFS file and returns its root: the CID of the
// raw leaf up to 1 MiB, else of a dag-pb node.
func (s *Store) PutBytes(ctx context.Context, data []byte) (cid.Cid, error) {
	return cid.Undef, errDraft
}

// BytesCID returns what [Store.PutBytes] would return, without storing.
func BytesCID(data []byte) (cid.Cid, error) { return cid.Undef, errDraft }

// ReadBytes reads the UnixFS file root whole. A file larger than limit gives an
// error that wraps [ErrTooLarge] before anything is allocated.
func (s *Store) ReadBytes(ctx context.Context, root cid.Cid, limit int64) ([]byte, error) {
	return nil, errDraft
}

// File reads a UnixFS file at any offset. It is safe for concurrent use.
type File struct{}

// OpenFile opens the UnixFS file root; its leaves may still be missing.
func (s *Store) OpenFile(ctx context.Context, root cid.Cid) (*File, error) { return nil, errDraft }

// Size is the length of the file.
func (f *File) Size() int64 { return 0 }

// ReadAt implements [io.ReaderAt].
func (f *File) ReadAt(p []byte, off int64) (int, error) { return 0, errDraft }

var _ io.ReaderAt = (*File)(nil)

// Entry is one file or folder of a directory.
type Entry struct {
	Name string // valid as a file name on every system
	CID  cid.Cid
	Dir  bool
	Size int64 // bytes of content (0 for a folder)
}

// ReadDir lists a directory, sorted by name.
func (s *Store) ReadDir(ctx context.Context, root cid.Cid) ([]Entry, error) { return nil, errDraft }

// Lookup finds the file or folder at the slash-separated path below root.
func (s *Store) Lookup(ctx context.Context, root cid.Cid, path string) (Entry, error) {
	return Entry{}, errDraft
}

// ImportOptions are the options of an import.
type ImportOptions struct {
	// Progress, if not nil, is called from one goroutine as bytes are hashed
	// and stored; done never decreases.
	Progress func(done, total int64)
}

// Import is what an import made.
type Import struct {
	Root   cid.Cid
	Bytes  int64 // bytes of content, each file counted
	Files  int
	Blocks int // blocks of the DAG, repeated ones counted once
}

// ImportDir stores a folder as UnixFS. Hidden files are left out, as by ipfs
// add -r; symbolic links and names that some system cannot write are refused.
func (s *Store) ImportDir(ctx context.Context, dir string, opts ImportOptions) (Import, error) {
	return Import{}, errDraft
}

// Link is a link of a block to another.
type Link struct {
	Name string // of the entry in a directory, "" in a file
	CID  cid.Cid
	Size uint64 // of everything below, as claimed by the block
}

// Links decodes a block and returns its links: none for a raw leaf. A block
// that is not canonical, or beyond the limits of FORMAT.md, is refused.
func Links(b blocks.Block) ([]Link, error) { return nil, errDraft }

// Missing walks what is local of the DAG root. It returns the distinct blocks
// that are referenced and not there, the bytes of those that are, and the
// bytes of all, as far as links tell (0 while the root itself is missing).
func (s *Store) Missing(ctx context.Context, root cid.Cid) (missing []cid.Cid, have, total int64, err error) {
	return nil, 0, 0, errDraft
}

// Verify reads every block of the DAG root. Damaged blocks are removed, and
// returned together with the missing ones.
func (s *Store) Verify(ctx context.Context, root cid.Cid) (missing []cid.Cid, err error) {
	return nil, errDraft
}

// Delete removes the blocks of root that none of keep refers to, and returns
// how many bytes were freed.
func (s *Store) Delete(ctx context.Context, root cid.Cid, keep ...cid.Cid) (freed int64, err error) {
	return 0, errDraft
}

// MaterializeOptions are the options of [Store.Materialize].
type MaterializeOptions struct {
	// MaxBytes bounds the bytes of content that are written. It must be set.
	MaxBytes int64
	// Progress, if not nil, is called from one goroutine.
	Progress func(done, total int64)
}

// Materialize writes the DAG root, a directory, as the folder dir, which must
// not exist or be empty. It appears complete or not at all; a call that was
// interrupted is continued by the next one with the same root and dir.
func (s *Store) Materialize(ctx context.Context, root cid.Cid, dir string, opts MaterializeOptions) error {
	return errDraft
}

// Model is what a checkpoint folder was found to hold.
type Model struct {
	Import
	Type          string   // model_type of config.json, such as "llama"
	Architectures []string // of config.json
	Weights       []string // safetensors files, sorted
	WeightBytes   int64
	Tensors       int
	Parameters    int64
	Tokenizer     []string // tokenizer files, sorted; may be empty
	Licence       string   // from the front matter of README.md, "" if it says none
	LicenceFiles  []string
	Warnings      []string
}

// ImportModel checks a Hugging Face checkpoint folder and stores it.
func (s *Store) ImportModel(ctx context.Context, dir string, opts ImportOptions) (Model, error) {
	return Model{}, errDraft
}

// CheckModel does the checks of [Store.ImportModel] on a DAG that is local.
func (s *Store) CheckModel(ctx context.Context, root cid.Cid) (Model, error) {
	return Model{}, errDraft
}

// Row is one example of the Alpaca format.
type Row struct {
	Instruction string
	Input       string // may be empty
	Output      string
}

// DatasetOptions say what [Store.ImportDataset] reads and writes.
type DatasetOptions struct {
	// Files are the training rows: Alpaca .json (an array) or .jsonl.
	Files []string
	// EvalFile holds the held-out rows, or is "".
	EvalFile string
	// EvalFraction is the share of rows to hold out, drawn by Seed, when
	// EvalFile is "". All rows with the same prompt go to the same side.
	EvalFraction float64
	// Seed of the draw (and of Shuffle), at most 2^53-1.
	Seed uint64
	// Shuffle the training rows before they are cut into shards, so that each
	// shard is a fair sample of all.
	Shuffle bool
	// ShardBytes is the largest size of a shard that holds more than one
	// row. Default 1 MiB, which makes one shard one block.
	ShardBytes int
	// DropInvalid leaves invalid rows out and counts them, instead of
	// refusing the file.
	DropInvalid bool
	Licence     string // SPDX name, or what the author says
	Source      string // where the rows come from, for people
	Template    string // prompt template; default "alpaca"
	// Progress, if not nil, is called from one goroutine.
	Progress func(done, total int64)
}

// DatasetImport is what [Store.ImportDataset] made.
type DatasetImport struct {
	Import
	Index    DatasetIndex
	Dropped  int      // rows left out by DropInvalid
	Warnings []string // for people
}

// ImportDataset checks rows and stores them as a data set.
func (s *Store) ImportDataset(ctx context.Context, opts DatasetOptions) (DatasetImport, error) {
	return DatasetImport{}, errDraft
}

// DatasetIndex is dataset.json.
type DatasetIndex struct {
	Schema   int
	Format   string // "alpaca"
	Template string
	HeldOut  string // "none", "file" or "fraction"
	Seed     uint64
	Licence  string
	Source   string
	Train    DatasetPart
	Eval     DatasetPart
}

// DatasetPart is the training or the held-out part of a data set.
type DatasetPart struct {
	Rows   int64
	Bytes  int64
	Shards []DatasetShard
}

// DatasetShard is one file of rows.
type DatasetShard struct {
	Name  string // relative to the data set, such as "train/00000.jsonl"
	Rows  int64
	Bytes int64
}

// Dataset reads a data set of a store. Only its directory nodes and
// dataset.json must be local to open it.
type Dataset struct{}

// OpenDataset opens the data set root.
func OpenDataset(ctx context.Context, s *Store, root cid.Cid) (*Dataset, error) {
	return nil, errDraft
}

// Index is the decoded dataset.json.
func (d *Dataset) Index() DatasetIndex { return DatasetIndex{} }

// TrainShard is the CID of training shard i, 0 <= i < len(Index().Train.Shards).
func (d *Dataset) TrainShard(i int) cid.Cid { return cid.Undef }

// EvalShard is the CID of held-out shard i.
func (d *Dataset) EvalShard(i int) cid.Cid { return cid.Undef }

// ReadShard reads and checks training shard i.
func (d *Dataset) ReadShard(ctx context.Context, i int) ([]Row, error) { return nil, errDraft }

// ReadEval reads and checks held-out shard i.
func (d *Dataset) ReadEval(ctx context.Context, i int) ([]Row, error) { return nil, errDraft }
