package shard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
)

// Root is a DAG that the store keeps for somebody: a model, a data set.
type Root struct {
	CID    cid.Cid   `json:"-"`
	Kind   string    `json:"kind"` // such as "model", for people
	Name   string    `json:"name"` // likewise
	Pinned bool      `json:"pinned"`
	Added  time.Time `json:"added"`
	Used   time.Time `json:"used"`
	// Layers are those of a model that are wanted; nil: all of it.
	Layers *LayerRange `json:"layers,omitempty"`
}

// LayerRange is layers of a model from the first to the last, counted from 0.
type LayerRange struct {
	First int `json:"first"`
	Last  int `json:"last"`
}

const (
	maxRootBytes = 64 << 10
	// usedEvery bounds how often it is written that a root was used.
	usedEvery = time.Hour
)

// openRoots reads the roots. One that cannot be read is told of.
func (s *Store) openRoots() error {
	if err := os.Mkdir(s.path("roots"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(s.path("roots"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		r, err := readRoot(s.path("roots", e.Name()), e.Name())
		if err != nil {
			s.report(Problem{Path: s.path("roots", e.Name()), Text: fmt.Sprintf("is not usable: %v", err)})
			continue
		}
		s.roots[r.CID] = r
	}
	return nil
}

func readRoot(path, name string) (Root, error) {
	b, err := readFileMax(path, maxRootBytes)
	if err != nil {
		return Root{}, err
	}
	return decodeRoot(name, b)
}

func decodeRoot(name string, b []byte) (r Root, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return Root{}, err
	}
	if r.CID, err = cid.Decode(name); err == nil {
		err = checkCID(r.CID)
	}
	if err == nil && r.CID.String() != name {
		err = fmt.Errorf("it is named %q", name)
	}
	return r, err
}

// Keep makes root one of those that [Store.Prune] knows, or changes its kind
// and name. An empty name leaves the one it has. All of it is wanted from now on.
func (s *Store) Keep(root cid.Cid, kind, name string, now time.Time) error {
	return s.keep(root, kind, name, nil, now)
}

// KeepLayers is Keep for a model of which only some layers are wanted: what others
// need is not missing. Where all of the model is kept already, that stays so.
func (s *Store) KeepLayers(root cid.Cid, kind, name string, layers LayerRange, now time.Time) error {
	s.rootsMu.Lock()
	r, known := s.roots[root]
	s.rootsMu.Unlock()
	if known && r.Layers == nil {
		return nil
	}
	return s.keep(root, kind, name, &layers, now)
}

func (s *Store) keep(root cid.Cid, kind, name string, layers *LayerRange, now time.Time) error {
	return s.changeRoot(root, func(r *Root) bool {
		old := *r
		if r.Layers == nil || layers == nil || *r.Layers != *layers {
			r.Layers = layers
		}
		if r.Added.IsZero() {
			r.Added, r.Used = now.UTC(), now.UTC()
		}
		r.Kind = kind
		if name != "" {
			r.Name = name
		}
		return *r != old
	})
}

// Layers are those of a root that are wanted; nil: all of it.
func (s *Store) Layers(root cid.Cid) *LayerRange {
	s.rootsMu.Lock()
	defer s.rootsMu.Unlock()
	return s.roots[root].Layers
}

// Touch notes that a root is in use, for those used last are pruned last.
func (s *Store) Touch(root cid.Cid, now time.Time) error {
	return s.changeRoot(root, func(r *Root) bool {
		if r.Added.IsZero() || now.Sub(r.Used) < usedEvery {
			return false
		}
		r.Used = now.UTC()
		return true
	})
}

// Pin keeps a root from being pruned, or gives it free again. A root that is
// not known gives an error that wraps [fs.ErrNotExist].
func (s *Store) Pin(root cid.Cid, pinned bool) error {
	known := false
	err := s.changeRoot(root, func(r *Root) bool {
		known = !r.Added.IsZero()
		changed := known && r.Pinned != pinned
		r.Pinned = pinned
		return changed
	})
	if err == nil && !known {
		err = fmt.Errorf("pin %s: %w", root, fs.ErrNotExist)
	}
	return err
}

// changeRoot changes a root and makes that durable, if change says so.
func (s *Store) changeRoot(root cid.Cid, change func(*Root) bool) error {
	if err := checkCID(root); err != nil {
		return err
	}
	s.rootsMu.Lock()
	defer s.rootsMu.Unlock()
	r := s.roots[root]
	r.CID = root
	if !change(&r) {
		return nil
	}
	if err := s.writeRoot(r); err != nil {
		return fmt.Errorf("note %s: %w", root, err)
	}
	s.roots[root] = r
	return nil
}

func (s *Store) writeRoot(r Root) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp, err := s.disk.writeTemp(s.path("tmp"), append(b, '\n'))
	if err != nil {
		return err
	}
	if err := s.disk.rename(tmp, s.path("roots", r.CID.String())); err != nil {
		return err
	}
	return s.disk.syncFolder(s.path("roots"))
}

// forgetRoot ends what Keep began.
func (s *Store) forgetRoot(root cid.Cid) error {
	s.rootsMu.Lock()
	defer s.rootsMu.Unlock()
	delete(s.roots, root)
	err := os.Remove(s.path("roots", root.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Roots lists the roots, those used longest ago first.
func (s *Store) Roots() []Root {
	s.rootsMu.Lock()
	defer s.rootsMu.Unlock()
	out := make([]Root, 0, len(s.roots))
	for _, r := range s.roots {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Root) int {
		return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.CID.String(), b.CID.String()))
	})
	return out
}

// Place is where the leaves of a root lie.
type Place struct {
	// Dir is the folder they are in; "" when they are blocks of the store.
	Dir string
	// Ours says that the store made the folder, and removes it with the root.
	Ours bool
	// Complete says that all leaves are in the folder, as far as is known;
	// Broken that they were, and are not any more.
	Complete, Broken bool
}

// Place says where the leaves of a root lie.
func (s *Store) Place(root cid.Cid) Place {
	t := s.tree(root)
	if t == nil {
		return Place{}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return Place{Dir: t.dir, Ours: t.ours, Complete: !t.growing && t.left == 0, Broken: !t.growing && t.left > 0}
}

// Held is what of a root is on the disk.
type Held struct {
	Root
	Place
	Bytes int64 // of it in the store, blocks that others share counted too; files of the user's are not in it
	Have  int64 // bytes that are here, wherever
	Total int64 // bytes of all its blocks
}

// Held says what is here of each root, those used longest ago first.
func (s *Store) Held(ctx context.Context) ([]Held, error) {
	var out []Held
	for _, r := range s.Roots() {
		h, err := s.held1(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func (s *Store) held1(ctx context.Context, r Root) (Held, error) {
	h := Held{Root: r, Place: s.Place(r.CID)}
	var err error
	if _, h.Have, h.Total, err = s.Missing(ctx, r.CID); err != nil {
		if errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLarge) {
			return h, nil // of no use, and no reason to list nothing
		}
		return h, err
	}
	t := s.tree(r.CID)
	switch {
	case t == nil:
		h.Bytes = h.Have
	case t.ours:
		_, h.Bytes, err = t.bytes()
	}
	return h, err
}

// PruneOptions are the options of [Store.Prune].
type PruneOptions struct {
	// Bytes is how much is to become free at least; what is used last goes
	// last. All removes all that may be removed.
	Bytes int64
	All   bool
	// Keep are roots that are in use.
	Keep []cid.Cid
	// DryRun only says what would be removed.
	DryRun bool
}

// Pruned is what a call of [Store.Prune] removed.
type Pruned struct {
	Roots []Held
	Bytes int64 // that became free
}

// Prune removes roots that are neither pinned nor in use, those used longest
// ago first, until enough is free or none is left. Files of the user's are not
// removed, and roots that lie in them stay.
func (s *Store) Prune(ctx context.Context, opts PruneOptions) (Pruned, error) {
	var p Pruned
	s.pruneMu.Lock()
	defer s.pruneMu.Unlock()
	roots := s.Roots()
	for _, r := range roots {
		if !opts.All && p.Bytes >= opts.Bytes {
			break
		}
		if r.Pinned || slices.Contains(opts.Keep, r.CID) {
			continue
		}
		h, err := s.held1(ctx, r)
		if err != nil {
			return p, fmt.Errorf("prune %s: %w", r.CID, err)
		}
		if h.Dir != "" && !h.Ours {
			continue
		}
		freed := h.Bytes
		if !opts.DryRun {
			if freed, err = s.drop(ctx, r.CID, roots, opts.Keep); err != nil {
				return p, fmt.Errorf("prune: %w", err)
			}
		}
		p.Roots = append(p.Roots, h)
		p.Bytes += freed
	}
	return p, nil
}

// Drop removes one root, pinned or not, but for what other roots, and those of
// keep, share with it.
func (s *Store) Drop(ctx context.Context, root cid.Cid, keep ...cid.Cid) (freed int64, err error) {
	s.pruneMu.Lock()
	defer s.pruneMu.Unlock()
	return s.drop(ctx, root, s.Roots(), keep)
}

func (s *Store) drop(ctx context.Context, root cid.Cid, roots []Root, keep []cid.Cid) (int64, error) {
	keep = slices.DeleteFunc(slices.Clone(keep), func(c cid.Cid) bool { return c == root })
	s.rootsMu.Lock()
	for _, r := range roots {
		if _, still := s.roots[r.CID]; still && r.CID != root {
			keep = append(keep, r.CID)
		}
	}
	s.rootsMu.Unlock()
	freed, err := s.Delete(ctx, root, keep...)
	if err != nil {
		return freed, err
	}
	return freed, s.forgetRoot(root)
}
