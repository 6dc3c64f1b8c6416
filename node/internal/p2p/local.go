package p2p

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/record"
)

// Nodes of one user on one machine find each other in a folder, in which each
// keeps a file PEERID.peer: its signed peer record. The file's time says that
// the node is alive. This works where there is no multicast, as on loopback.
const (
	localSuffix   = ".peer"
	localTmp      = ".peer-tmp"
	localRefresh  = 5 * time.Second  // a live node touches its file
	localStale    = 20 * time.Second // a file that old is of a dead node
	localForget   = 5 * time.Minute  // and that old is removed, by whoever sees it
	localScanMin  = 100 * time.Millisecond
	localScanMax  = 2 * time.Second
	maxLocalFiles = 512
	maxRecord     = 4 << 10 // bytes of a signed peer record
)

func (h *Host) runLocalFolder(ctx context.Context) error {
	dir := h.opt.LocalFolder
	if dir == "" {
		dir = LocalFolder()
	}
	if err := privateFolder(dir); err != nil {
		h.log.WarnContext(ctx, "nodes on this machine are not found by folder", "err", err)
		return nil
	}
	l := &localFolder{dir: dir, own: filepath.Join(dir, h.ID().String()+localSuffix)}
	defer os.Remove(l.own)
	failed := false
	for scan := localScanMin; ; scan = min(2*scan, localScanMax) {
		found, err := l.pass(h.ID(), h.ownRecord(), time.Now())
		if err != nil && !failed {
			h.log.WarnContext(ctx, "nodes on this machine are not found by folder", "err", err)
		}
		failed = err != nil
		h.reachAll(ctx, "folder", found)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(scan):
		}
	}
}

// ownRecord is this node's signed peer record; nil while it has no address.
func (h *Host) ownRecord() []byte {
	cab, ok := peerstore.GetCertifiedAddrBook(h.host.Peerstore())
	if !ok {
		return nil
	}
	env := cab.GetPeerRecord(h.ID())
	if env == nil {
		return nil
	}
	b, err := env.Marshal()
	if err != nil || len(b) > maxRecord {
		return nil
	}
	return b
}

// openRecord checks a signed peer record.
func openRecord(b []byte) (*peer.PeerRecord, error) {
	if len(b) > maxRecord {
		return nil, fmt.Errorf("peer record of %d bytes, at most %d", len(b), maxRecord)
	}
	rec := new(peer.PeerRecord)
	env, err := record.ConsumeTypedEnvelope(b, rec)
	if err != nil {
		return nil, fmt.Errorf("peer record: %w", err)
	}
	if !rec.PeerID.MatchesPublicKey(env.PublicKey) {
		return nil, errors.New("peer record is signed by another peer")
	}
	if len(rec.Addrs) > maxAddrsPerPeer {
		rec.Addrs = rec.Addrs[:maxAddrsPerPeer]
	}
	return rec, nil
}

// localFolder is owned by runLocalFolder.
type localFolder struct {
	dir, own string
	written  []byte    // what the own file holds
	at       time.Time // when it was written or touched
}

// pass refreshes the own file and returns the live nodes of the others.
func (l *localFolder) pass(self peer.ID, rec []byte, now time.Time) ([]peer.AddrInfo, error) {
	if err := l.refresh(rec, now); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	var found []peer.AddrInfo
	for _, e := range entries[:min(len(entries), maxLocalFiles)] {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		path := filepath.Join(l.dir, e.Name())
		age := now.Sub(info.ModTime())
		name, isPeer := strings.CutSuffix(e.Name(), localSuffix)
		switch {
		case !isPeer && !strings.HasSuffix(e.Name(), localTmp):
			continue // not ours
		case age > localForget:
			os.Remove(path)
			continue
		case age > localStale || !isPeer:
			continue
		}
		id, err := peer.Decode(name)
		if err != nil || id == self {
			continue
		}
		if rec, err := readLocal(path); err == nil && rec.PeerID == id {
			found = append(found, peer.AddrInfo{ID: id, Addrs: rec.Addrs})
		}
	}
	return found, nil
}

func (l *localFolder) refresh(rec []byte, now time.Time) error {
	if len(rec) == 0 {
		return nil
	}
	if string(rec) == string(l.written) {
		if now.Sub(l.at) < localRefresh {
			return nil
		}
		err := os.Chtimes(l.own, now, now)
		if err == nil {
			l.at = now
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Not synced: after a crash of the machine no node of it is alive.
	tmp := filepath.Join(l.dir, rand.Text()+localTmp)
	if err := os.WriteFile(tmp, rec, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, l.own); err != nil {
		os.Remove(tmp)
		return err
	}
	l.written, l.at = rec, now
	return nil
}

func readLocal(path string) (*peer.PeerRecord, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return nil, err
	}
	return openRecord(b)
}

// privateFolder makes the folder if needed, and refuses one that another user
// could put files into.
func privateFolder(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", dir)
	}
	return checkPrivate(dir, info)
}
