// Package fence keeps what belongs to private runs from peers that are not in
// them. A run is private if not everybody may take part; who is in it, its
// members, show that by what lets them in, not by a key that all share. The
// fence says who gets which block, and who hears which topic; the packages that
// serve ask it. See proto/README.md section 8.
package fence

import (
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxMembers bounds the members of a run that are remembered; beyond it those
// that have been members for longest have to show it again.
const maxMembers = 4096

// Fence is what a node keeps from whom. Its methods may be called at the same
// time, also on nil: then all is for everybody.
type Fence struct {
	self peer.ID

	mu      sync.RWMutex
	runs    map[cid.Cid]*Run            // guarded by mu
	listens map[peer.ID]map[string]bool // guarded by mu; topics
}

// New returns the fence of a node, with nothing in it.
func New(self peer.ID) *Fence {
	return &Fence{self: self, runs: make(map[cid.Cid]*Run), listens: make(map[peer.ID]map[string]bool)}
}

// Run is what the fence knows of a run.
type Run struct {
	// constant after Open
	f       *Fence
	private bool
	topic   string
	always  map[peer.ID]bool

	// guarded by f.mu
	members map[peer.ID]uint64  // when they came, counted
	came    uint64              // how many came
	roots   map[cid.Cid][]block // what was claimed
	blocks  map[block]int       // by how many roots
}

// block names a block by its digest: it is the same one whatever the codec.
type block string

func blockOf(c cid.Cid) block { return block(c.Hash()) }

// Open returns what the fence knows of a run, which stays after the run was
// closed. A run that is not private is here for what it shares with one that is.
// The peers in always are members without showing it.
func (f *Fence) Open(run cid.Cid, private bool, topic string, always []peer.ID) *Run {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.runs[run]; r != nil {
		return r
	}
	r := &Run{
		f: f, private: private, topic: topic, always: map[peer.ID]bool{f.self: true},
		members: make(map[peer.ID]uint64), roots: make(map[cid.Cid][]block), blocks: make(map[block]int),
	}
	for _, p := range always {
		r.always[p] = true
	}
	f.runs[run] = r
	return r
}

// Private reports whether not everybody is a member.
func (r *Run) Private() bool { return r.private }

// Admit makes a peer a member.
func (r *Run) Admit(p peer.ID) {
	if !r.private || r.always[p] {
		return
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if _, ok := r.members[p]; !ok && len(r.members) >= maxMembers {
		oldest := p
		for q, at := range r.members {
			if oldest == p || at < r.members[oldest] {
				oldest = q
			}
		}
		delete(r.members, oldest)
	}
	r.came++
	r.members[p] = r.came
}

// Member reports whether a peer is a member.
func (r *Run) Member(p peer.ID) bool {
	r.f.mu.RLock()
	defer r.f.mu.RUnlock()
	return r.member(p)
}

func (r *Run) member(p peer.ID) bool {
	if !r.private || r.always[p] {
		return true
	}
	_, ok := r.members[p]
	return ok
}

// Claim says that the run uses these blocks of a DAG, and no others of it.
func (r *Run) Claim(root cid.Cid, blocks []cid.Cid) {
	list := make([]block, len(blocks))
	for i, c := range blocks {
		list[i] = blockOf(c)
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	for _, b := range list { // before the old ones go: none is free in between
		r.blocks[b]++
	}
	r.drop(root)
	r.roots[root] = list
}

// Release says that a DAG is gone.
func (r *Run) Release(root cid.Cid) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.drop(root)
}

func (r *Run) drop(root cid.Cid) {
	for _, b := range r.roots[root] {
		if r.blocks[b]--; r.blocks[b] <= 0 {
			delete(r.blocks, b)
		}
	}
	delete(r.roots, root)
}

// Serves reports whether a peer may have a block: one that no run has, or one
// that it is a member of.
func (f *Fence) Serves(p peer.ID, c cid.Cid) bool {
	if f == nil {
		return true
	}
	b := blockOf(c)
	f.mu.RLock()
	defer f.mu.RUnlock()
	kept := false
	for _, r := range f.runs {
		if r.blocks[b] == 0 {
			continue
		}
		if r.member(p) {
			return true
		}
		kept = true
	}
	return !kept
}

// Hears reports whether a peer may hear a topic.
func (f *Fence) Hears(p peer.ID, topic string) bool {
	if f == nil {
		return true
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	r := f.byTopic(topic)
	return r == nil || r.member(p)
}

func (f *Fence) byTopic(topic string) *Run {
	for _, r := range f.runs {
		if r.private && r.topic == topic {
			return r
		}
	}
	return nil
}

// Listens notes that a peer listens to a topic, or does not any more.
func (f *Fence) Listens(p peer.ID, topic string, on bool) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !on {
		delete(f.listens[p], topic)
		return
	}
	if f.listens[p] == nil {
		f.listens[p] = make(map[string]bool)
	}
	f.listens[p][topic] = true
}

// Gone notes that a peer is not connected any more.
func (f *Fence) Gone(p peer.ID) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listens, p)
}

// Intrudes reports whether a peer listens to a topic that it may not hear.
func (f *Fence) Intrudes(p peer.ID) bool {
	if f == nil {
		return false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	for topic := range f.listens[p] {
		if r := f.byTopic(topic); r != nil && !r.member(p) {
			return true
		}
	}
	return false
}
