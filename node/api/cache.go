package api

import (
	"context"
	"net/http"
	"time"
)

// CacheEntry is a model, a data set or something else that a node holds.
type CacheEntry struct {
	ID   string `json:"id"`   // CID
	Kind string `json:"kind"` // "model", "data" or "shards"
	Name string `json:"name"`
	// Bytes is what it takes of the disk in the data folder, Total how much it
	// is, Have how much of that is here.
	Bytes int64 `json:"bytes"`
	Have  int64 `json:"have"`
	Total int64 `json:"total"`
	// Dir is the folder in which it lies. InPlace says that it is the user's,
	// which is never written or removed.
	Dir     string    `json:"dir,omitempty"`
	InPlace bool      `json:"in_place"`
	Pinned  bool      `json:"pinned"`
	InUse   bool      `json:"in_use"` // by a run that this node is in
	Added   time.Time `json:"added"`
	Used    time.Time `json:"used"`
}

// Cache is what a node holds, those used longest ago first.
type Cache struct {
	Entries []CacheEntry `json:"entries"`
	// Bytes is what everything takes of the disk in the data folder: the
	// entries, and what the runs wrote.
	Bytes int64 `json:"bytes"`
	// MaxBytes is how much it may take (0: as much as there is), FreeBytes what
	// is free on the disk, MinFreeBytes what stays free.
	MaxBytes     int64 `json:"max_bytes"`
	FreeBytes    int64 `json:"free_bytes"`
	MinFreeBytes int64 `json:"min_free_bytes"`
}

// PruneRequest says what is to be removed: what IDs name, or else what was used
// longest ago, until Bytes are free. What is pinned or in use is not removed.
type PruneRequest struct {
	IDs    []string `json:"ids,omitempty"`
	Bytes  int64    `json:"bytes,omitempty"`
	All    bool     `json:"all,omitempty"` // all that may be
	DryRun bool     `json:"dry_run,omitempty"`
}

// Pruned is what was removed, or with DryRun would be.
type Pruned struct {
	Removed []CacheEntry `json:"removed"`
	Bytes   int64        `json:"bytes"`
	DryRun  bool         `json:"dry_run"`
}

// PinRequest keeps what a node holds from being pruned, or gives it free.
type PinRequest struct {
	ID     string `json:"id"`
	Pinned bool   `json:"pinned"`
}

// ExportShardsRequest names a file, which must not exist, for a CAR of a model,
// a data set or anything else that is complete here.
type ExportShardsRequest struct {
	ID   string `json:"id"`
	File string `json:"file"`
}

// ImportShardsRequest names a CAR.
type ImportShardsRequest struct {
	File string `json:"file"`
}

// PullShardsRequest names a model, a data set or another folder or file that
// peers have.
type PullShardsRequest struct {
	ID string `json:"id"` // its CID, in full
	// Peers are multiaddrs of peers that have it, with /p2p/ and the peer ID; any
	// IPFS node will do. Default: those that are connected or found.
	Peers []string `json:"peers,omitempty"`
	// Layers, if not nil, are all of a model that is wanted.
	Layers *Layers `json:"layers,omitempty"`
}

// Layers are the layers of a model from First to Last, counted from 0.
type Layers struct {
	First int `json:"first"`
	Last  int `json:"last"`
}

// Archive is a CAR that was written or read.
type Archive struct {
	File   string       `json:"file"`
	Blocks int          `json:"blocks"`
	Bytes  int64        `json:"bytes"` // of the blocks
	Roots  []CacheEntry `json:"roots"`
}

// VerifyRequest says what is read and compared with its hashes.
type VerifyRequest struct {
	ID string `json:"id,omitempty"` // empty: everything
	// Repair pulls what is broken from peers that have it.
	Repair bool `json:"repair,omitempty"`
}

// Verification is what was found.
type Verification struct {
	Blocks  int   `json:"blocks"` // that were read, and were right
	Bytes   int64 `json:"bytes"`
	Damaged int   `json:"damaged"` // that were not
	// Broken are files of which something is missing, and was not repaired.
	Broken []BrokenFile `json:"broken"`
	// Repaired is how many blocks were pulled, or found elsewhere.
	Repaired int `json:"repaired"`
}

// BrokenFile is a file that is not all there.
type BrokenFile struct {
	ID      string `json:"id"`             // of the model or data set
	Path    string `json:"path"`           // in it
	Disk    string `json:"disk,omitempty"` // where it is, if it lies in a folder
	Missing int    `json:"missing"`        // blocks
	Bytes   int64  `json:"bytes"`
}

var cacheNoun = noun{"cached item", "moot cache ls", "moot model import"}

// held resolves the ID of something that the node holds.
func (s *Server) held(ctx context.Context, given string) (string, error) {
	c, err := s.backend.Cache(ctx)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, e := range c.Entries {
		ids = append(ids, e.ID)
	}
	return resolve(cacheNoun, given, ids)
}

func (s *Server) cache(ctx context.Context, _ *http.Request) (Cache, error) {
	c, err := s.backend.Cache(ctx)
	c.Entries = list(c.Entries)
	return c, err
}

// post makes a handler of a function that takes a body and answers at once.
func post[Q, T any](s *Server, fn func(ctx context.Context, req Q) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Q
		var v T
		err := decode(w, r, &req)
		if err == nil {
			v, err = fn(r.Context(), req)
		}
		s.answer(w, r, v, err)
	}
}

// long makes a handler of a function that takes a body, which check looks at
// and completes, and tells of its progress.
func long[Q, T any](s *Server, check func(ctx context.Context, req *Q) error, fn func(ctx context.Context, req Q, progress ProgressFunc) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Q
		err := decode(w, r, &req)
		if err == nil {
			err = check(r.Context(), &req)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
			return fn(ctx, req, progress)
		})
	}
}

func (s *Server) pruneCache(ctx context.Context, req PruneRequest) (Pruned, error) {
	ways := 0
	for _, given := range []bool{len(req.IDs) > 0, req.Bytes != 0, req.All} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return Pruned{}, Errorf(CodeUsage, "one of ids, bytes and all must be given")
	case req.Bytes < 0:
		return Pruned{}, Errorf(CodeUsage, "bytes is %d, must be positive", req.Bytes)
	case len(req.IDs) > maxFiles:
		return Pruned{}, Errorf(CodeUsage, "ids has %d entries, at most %d are removed at once", len(req.IDs), maxFiles)
	}
	for i, id := range req.IDs {
		var err error
		if req.IDs[i], err = s.held(ctx, id); err != nil {
			return Pruned{}, err
		}
	}
	p, err := s.backend.PruneCache(ctx, req)
	p.Removed = list(p.Removed)
	return p, err
}

func (s *Server) pin(ctx context.Context, req PinRequest) (CacheEntry, error) {
	id, err := s.held(ctx, req.ID)
	if err != nil {
		return CacheEntry{}, err
	}
	req.ID = id
	return s.backend.PinCache(ctx, req)
}

func (s *Server) fillExportShards(ctx context.Context, req *ExportShardsRequest) (err error) {
	if err := checkPath("file", req.File); err != nil {
		return err
	}
	req.ID, err = s.held(ctx, req.ID)
	return err
}

func (s *Server) fillVerify(ctx context.Context, req *VerifyRequest) (err error) {
	if req.ID != "" {
		req.ID, err = s.held(ctx, req.ID)
	}
	return err
}

func (s *Server) verifyShards(ctx context.Context, req VerifyRequest, progress ProgressFunc) (Verification, error) {
	v, err := s.backend.VerifyShards(ctx, req, progress)
	v.Broken = list(v.Broken)
	return v, err
}
