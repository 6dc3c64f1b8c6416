package pull

import (
	"testing"
	"time"
)

func TestFetchFromOne(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 1, 20*mib+5)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	w := &watcher{t: t}
	begun := time.Now()
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{MaxBytes: size, Progress: w.progress}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB in %v", size/mib, time.Since(begun))
	wantAll(t, n.bs, bs)
	if w.done != size || w.total != size {
		t.Errorf("progress ended at %d of %d, want %d", w.done, w.total, size)
	}
	if got, want := n.p.Stats(), (Stats{PulledBytes: uint64(size)}); got != want {
		t.Errorf("puller: %+v, want %+v", got, want)
	}
	if got, want := seed.p.Stats(), (Stats{SentBytes: uint64(size)}); got != want {
		t.Errorf("seed: %+v, want %+v", got, want)
	}
	// Again: nothing is asked for.
	seed.stop()
	w = &watcher{t: t}
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil || w.done != size {
		t.Errorf("second fetch: %v, %d bytes", err, w.done)
	}
}
