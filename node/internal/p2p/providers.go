package p2p

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
)

// How many provider records are kept for others, and of one of them. A node tells
// of 4096 CIDs at most. A record has about 400 bytes.
const (
	maxProviderRecords   = 32_768
	maxProviderRecordsOf = maxProvided + 1024
)

// providerRecords keeps who has what, for the DHT. Its own store has no bound, and
// looks at all records for each look-up. Anybody can tell of as many keys as it
// likes: when the place is used up one that is drawn is dropped, so that whoever
// has most of them loses most, and of one peer the oldest.
//
// Keys are /providers/KEY/PEER.
type providerRecords struct {
	max, maxOf int // constant

	mu    sync.Mutex
	list  []*providerRecord                     // guarded by mu; in no order
	byKey map[string]map[string]*providerRecord // guarded by mu; of all before the peer's name, by that
	peers map[string]*providedBy                // guarded by mu
}

type providerRecord struct {
	key, peer string // /providers/KEY, PEER
	value     []byte
	at        int // in list; -1: it was dropped
}

type providedBy struct {
	order []*providerRecord // oldest first, with dropped ones
	n     int               // without them
}

var _ ds.Batching = (*providerRecords)(nil)

func newProviderRecords(most, mostOf int) *providerRecords {
	return &providerRecords{max: most, maxOf: mostOf, byKey: make(map[string]map[string]*providerRecord), peers: make(map[string]*providedBy)}
}

func split(k ds.Key) (key, peer string) {
	s := k.String()
	i := strings.LastIndexByte(s, '/')
	return s[:i], s[i+1:]
}

func (r *providerRecords) find(k ds.Key) *providerRecord {
	key, peer := split(k)
	return r.byKey[key][peer]
}

// Put implements datastore.Write.
func (r *providerRecords) Put(_ context.Context, k ds.Key, value []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.find(k); e != nil {
		e.value = value
		return nil
	}
	e := &providerRecord{value: value}
	e.key, e.peer = split(k)
	by := r.peers[e.peer]
	if by == nil {
		by = new(providedBy)
	}
	if by.n >= r.maxOf {
		for _, old := range by.order {
			if old.at >= 0 {
				r.drop(old)
				break
			}
		}
	}
	if len(r.list) >= r.max {
		r.drop(r.list[rand.IntN(len(r.list))])
	}
	r.peers[e.peer] = by // may have been dropped with its last record
	e.at = len(r.list)
	r.list = append(r.list, e)
	if r.byKey[e.key] == nil {
		r.byKey[e.key] = make(map[string]*providerRecord)
	}
	r.byKey[e.key][e.peer] = e
	by.order = append(by.order, e)
	by.n++
	return nil
}

// drop is called with mu held.
func (r *providerRecords) drop(e *providerRecord) {
	last := r.list[len(r.list)-1]
	r.list[e.at], last.at = last, e.at
	r.list = r.list[:len(r.list)-1]
	e.at = -1
	if delete(r.byKey[e.key], e.peer); len(r.byKey[e.key]) == 0 {
		delete(r.byKey, e.key)
	}
	by := r.peers[e.peer]
	if by.n--; by.n == 0 {
		delete(r.peers, e.peer)
		by.order = nil
	}
	for len(by.order) > 0 && by.order[0].at < 0 {
		by.order = by.order[1:]
	}
	if len(by.order) > 2*by.n+16 {
		var kept []*providerRecord
		for _, o := range by.order {
			if o.at >= 0 {
				kept = append(kept, o)
			}
		}
		by.order = kept
	}
}

// Delete implements datastore.Write.
func (r *providerRecords) Delete(_ context.Context, k ds.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.find(k); e != nil {
		r.drop(e)
	}
	return nil
}

// Get implements datastore.Read.
func (r *providerRecords) Get(_ context.Context, k ds.Key) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.find(k); e != nil {
		return e.value, nil
	}
	return nil, ds.ErrNotFound
}

// Has implements datastore.Read.
func (r *providerRecords) Has(ctx context.Context, k ds.Key) (bool, error) {
	return ds.GetBackedHas(ctx, r, k)
}

// GetSize implements datastore.Read.
func (r *providerRecords) GetSize(ctx context.Context, k ds.Key) (int, error) {
	return ds.GetBackedSize(ctx, r, k)
}

// Query implements datastore.Read. The DHT asks for all records of one key, or
// for all.
func (r *providerRecords) Query(_ context.Context, q dsq.Query) (dsq.Results, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []dsq.Entry
	add := func(e *providerRecord) {
		out = append(out, dsq.Entry{Key: e.key + "/" + e.peer, Value: e.value, Size: len(e.value)})
	}
	if of := r.byKey[ds.NewKey(q.Prefix).String()]; of != nil {
		for _, e := range of {
			add(e)
		}
	} else if strings.Count(strings.Trim(q.Prefix, "/"), "/") == 0 { // not of one key that nobody has
		for _, e := range r.list {
			add(e)
		}
	}
	return dsq.NaiveQueryApply(q, dsq.ResultsWithEntries(q, out)), nil
}

// Batch implements datastore.Batching.
func (r *providerRecords) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(r), nil }

// Sync implements datastore.Datastore.
func (r *providerRecords) Sync(context.Context, ds.Key) error { return nil }

// Close implements datastore.Datastore.
func (r *providerRecords) Close() error { return nil }
