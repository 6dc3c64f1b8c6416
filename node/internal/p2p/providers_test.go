package p2p

import (
	"fmt"
	"testing"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
)

func providerKey(key, peer any) ds.Key { return ds.NewKey(fmt.Sprintf("/providers/%v/%v", key, peer)) }

// One peer that tells of a million keys keeps others neither from being found nor
// from telling; many that do are bounded too.
func TestProviderRecords(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := newProviderRecords(100, 20)
	put := func(key, peer any) {
		t.Helper()
		if err := r.Put(ctx, providerKey(key, peer), []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	query := func(prefix string) []dsq.Entry {
		t.Helper()
		res, err := r.Query(ctx, dsq.Query{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		list, err := res.Rest()
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	put("model", "honest")
	put("model", "other")
	for i := range 5000 {
		put(i, "flooder")
	}
	if n := len(r.list); n != 22 {
		t.Errorf("%d records, want 20 of the flooder and 2 of others", n)
	}
	if ok, err := r.Has(ctx, providerKey(4999, "flooder")); !ok || err != nil {
		t.Error("a peer's last record is not there:", err)
	}
	if ok, err := r.Has(ctx, providerKey(4000, "flooder")); ok || err != nil {
		t.Error("a peer's oldest record stays:", err)
	}
	if l := query("/providers/model"); len(l) != 2 || l[0].Key == l[1].Key {
		t.Errorf("providers of a key: %v", l)
	}
	if l := query("/providers/mode"); len(l) != 0 {
		t.Errorf("providers of a key that nobody has: %v", l)
	}
	if l := query("/providers/"); len(l) != 22 {
		t.Errorf("%d records in all, want 22", len(l))
	}
	for peer := range 50 {
		for i := range 20 {
			put(i, peer)
		}
	}
	if len(r.list) != 100 {
		t.Errorf("%d records, at most 100 are allowed", len(r.list))
	}
	for _, e := range query("/providers/") { // as the collection of what has expired does
		if err := r.Delete(ctx, ds.RawKey(e.Key)); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.list) != 0 || len(r.byKey) != 0 || len(r.peers) != 0 {
		t.Errorf("%d records, %d keys, %d peers are left", len(r.list), len(r.byKey), len(r.peers))
	}
	if _, err := r.Get(ctx, providerKey("model", "honest")); err != ds.ErrNotFound { //nolint:errorlint // as the DHT compares it
		t.Errorf("a record that was removed: %v", err)
	}
}
