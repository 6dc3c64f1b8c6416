package pull

import (
	"context"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/shard"
)

// maxTraining is how many blocks are known to be of a run's rounds: all of
// some hundred deltas and states.
const maxTraining = 1 << 15

// recentSet is a set of the last digests that were added.
type recentSet struct {
	index map[digest]bool
	ring  []digest
	next  int
}

func (s *recentSet) add(d digest) {
	if s.index == nil {
		s.index = make(map[digest]bool)
	}
	if s.index[d] {
		return
	}
	s.index[d] = true
	if len(s.ring) < maxTraining {
		s.ring = append(s.ring, d)
		return
	}
	delete(s.index, s.ring[s.next])
	s.ring[s.next] = d
	s.next = (s.next + 1) % maxTraining
}

// Training says that a DAG that is local is a delta or a state of a run that
// goes on: peers get it before models and data. What is fetched with
// traffic.Training is known to be one.
func (p *Puller) Training(ctx context.Context, root cid.Cid) error {
	if err := checkCID(root); err != nil {
		return err
	}
	seen := map[digest]bool{digestOf(root): true}
	for todo := []cid.Cid{root}; len(todo) > 0 && len(seen) < maxTraining; {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if isLeaf(c) {
			continue
		}
		b, err := p.store.Get(ctx, c)
		if err != nil {
			return err
		}
		links, err := shard.Links(b)
		if err != nil {
			return err
		}
		for _, l := range links {
			if d := digestOf(l.CID); !seen[d] {
				seen[d] = true
				todo = append(todo, l.CID)
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range seen {
		p.training.add(d)
	}
	return nil
}

// useOf is what a block that a peer asks for is for.
func (p *Puller) useOf(c cid.Cid) traffic.Use {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.training.index[digestOf(c)] {
		return traffic.Training
	}
	return traffic.Seeding
}
