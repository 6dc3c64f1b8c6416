package p2p

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	maxCached        = 256 // peers in the file
	maxCachedAddrs   = 8   // of each
	maxCacheBytes    = 1 << 20
	maxCacheAge      = 30 * 24 * time.Hour
	cacheEvery       = time.Minute
	reconnectAtStart = 48 // the ones seen last
)

// remembered is a peer of this or an earlier start.
type remembered struct {
	addrs []multiaddr.Multiaddr
	seen  time.Time
}

// cacheFile is what is on disk, as JSON.
type cacheFile struct {
	Version int         `json:"version"`
	Peers   []cacheItem `json:"peers"` // the last seen first
}

type cacheItem struct {
	ID    string   `json:"id"`
	Addrs []string `json:"addrs"`
	Seen  int64    `json:"seen"` // unix seconds
}

const cacheVersion = 1

// runCache reconnects to the peers of the last time and keeps the file up to
// date.
func (h *Host) runCache(ctx context.Context) error {
	if h.opt.PeerCache == "" {
		return nil
	}
	old, err := readCache(h.opt.PeerCache, time.Now())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.log.WarnContext(ctx, "peer cache was not read", "err", err)
	}
	h.mu.Lock()
	for p, r := range old {
		if h.seen[p] == nil && p != h.ID() {
			h.seen[p] = r
		}
	}
	h.mu.Unlock()
	h.reachAll(ctx, "cache", newest(old, reconnectAtStart))

	t := time.NewTicker(cacheEvery)
	defer t.Stop()
	var last []byte
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true // once more
		case <-t.C:
		}
		b, err := h.encodeCache(time.Now())
		if err == nil && string(b) != string(last) {
			err = writeDurably(h.opt.PeerCache, b)
			last = b
		}
		if err != nil {
			h.log.WarnContext(ctx, "peer cache was not written", "err", err)
		}
	}
	return nil
}

// remember keeps a peer for the next start.
func (h *Host) remember(p peer.ID, addrs []multiaddr.Multiaddr) {
	if len(addrs) == 0 || h.opt.PeerCache == "" {
		return
	}
	r := &remembered{addrs: slices.Clone(addrs[:min(len(addrs), maxCachedAddrs)]), seen: time.Now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[p] = r
	if len(h.seen) <= maxCached {
		return
	}
	oldest := p
	for q, s := range h.seen {
		if s.seen.Before(h.seen[oldest].seen) {
			oldest = q
		}
	}
	delete(h.seen, oldest)
}

func (h *Host) encodeCache(now time.Time) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := cacheFile{Version: cacheVersion, Peers: []cacheItem{}}
	for p, r := range h.seen {
		if h.connected(p) {
			r.seen = now.Truncate(time.Hour) // so that the file rests
		}
		item := cacheItem{ID: p.String(), Seen: r.seen.Unix()}
		for _, a := range r.addrs {
			item.Addrs = append(item.Addrs, a.String())
		}
		f.Peers = append(f.Peers, item)
	}
	slices.SortFunc(f.Peers, func(a, b cacheItem) int {
		return cmp.Or(cmp.Compare(b.Seen, a.Seen), cmp.Compare(a.ID, b.ID))
	})
	return json.MarshalIndent(f, "", "\t")
}

func newest(all map[peer.ID]*remembered, n int) []peer.AddrInfo {
	var out []peer.AddrInfo
	for p, r := range all {
		out = append(out, peer.AddrInfo{ID: p, Addrs: r.addrs})
	}
	slices.SortFunc(out, func(a, b peer.AddrInfo) int {
		return cmp.Or(all[b.ID].seen.Compare(all[a.ID].seen), cmp.Compare(a.ID, b.ID))
	})
	return out[:min(len(out), n)]
}

// readCache returns the good entries of the file. A file that is no peer
// cache is an error and will be overwritten.
func readCache(path string, now time.Time) (map[peer.ID]*remembered, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCacheBytes+1))
	if err != nil {
		return nil, err
	}
	out, err := decodeCache(b, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

func decodeCache(b []byte, now time.Time) (map[peer.ID]*remembered, error) {
	if len(b) > maxCacheBytes {
		return nil, fmt.Errorf("more than %d bytes", maxCacheBytes)
	}
	var c cacheFile
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	if c.Version != cacheVersion {
		return nil, fmt.Errorf("version is %d, this program knows %d", c.Version, cacheVersion)
	}
	out := make(map[peer.ID]*remembered)
	for _, item := range c.Peers {
		id, err := peer.Decode(item.ID)
		seen := time.Unix(item.Seen, 0)
		if err != nil || now.Sub(seen) > maxCacheAge || len(out) >= maxCached {
			continue
		}
		r := &remembered{seen: seen}
		if seen.After(now) {
			r.seen = now
		}
		for _, s := range item.Addrs {
			if a, err := multiaddr.NewMultiaddr(s); err == nil && len(r.addrs) < maxCachedAddrs {
				r.addrs = append(r.addrs, a)
			}
		}
		if len(r.addrs) > 0 {
			out[id] = r
		}
	}
	return out, nil
}

// writeDurably replaces the file, so that after a crash it is the old or the
// new one.
func writeDurably(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(dir)
}
