package p2p

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multiaddr"
)

// sealed is the signed peer record of a new peer; of, when not nil, is whose
// it claims to be.
func sealed(t testing.TB, key crypto.PrivKey, of peer.ID) (peer.ID, []byte) {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	rec := &peer.PeerRecord{PeerID: id, Seq: 1, Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/9")}}
	if of != "" {
		rec.PeerID = of
	}
	env, err := record.Seal(rec, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return id, b
}

func TestLocalFolderPass(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	put := func(name string, b []byte, age time.Duration) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	selfID, self := sealed(t, newKey(t), "")
	live, liveRec := sealed(t, newKey(t), "")
	put(live.String()+localSuffix, liveRec, 0)
	stale, staleRec := sealed(t, newKey(t), "")
	stalePath := put(stale.String()+localSuffix, staleRec, localStale+time.Second)
	dead, deadRec := sealed(t, newKey(t), "")
	deadPath := put(dead.String()+localSuffix, deadRec, localForget+time.Second)
	oldTmp := put("x"+localTmp, nil, localForget+time.Second)
	foreign := put("api.json", nil, localForget+time.Second)
	other, _ := sealed(t, newKey(t), "")
	put(other.String()+localSuffix, liveRec, 0)                                  // a record of someone else
	_, forged := sealed(t, newKey(t), "")                                        //
	put("not-a-peer"+localSuffix, forged, 0)                                     //
	big, bigRec := sealed(t, newKey(t), "")                                      //
	put(big.String()+localSuffix, append(bigRec, make([]byte, 1<<20)...), 0)     // too long
	if err := os.Mkdir(filepath.Join(dir, "d"+localSuffix), 0o700); err != nil { // no file
		t.Fatal(err)
	}

	l := &localFolder{dir: dir, own: filepath.Join(dir, selfID.String()+localSuffix)}
	found, err := l.pass(selfID, self, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].ID != live || len(found[0].Addrs) != 1 {
		t.Errorf("found %v, want %s alone", found, live)
	}
	for path, want := range map[string]bool{stalePath: true, deadPath: false, oldTmp: false, foreign: true, l.own: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path, err == nil, want)
		}
	}
	// Our own file stays fresh, comes back when removed, and follows the record.
	later := now.Add(localRefresh + time.Second)
	if _, err := l.pass(selfID, self, later); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(l.own); err != nil || info.ModTime().Before(later.Add(-time.Second)) {
		t.Errorf("own file was not touched: %v, %v", info, err)
	}
	os.Remove(l.own)
	if _, err := l.pass(selfID, self, later.Add(localRefresh)); err != nil {
		t.Fatal(err)
	}
	if rec, err := readLocal(l.own); err != nil || rec.PeerID != selfID {
		t.Errorf("own file: %v, %v", rec, err)
	}
}

func TestPeerRecordMustBeOfItsSigner(t *testing.T) {
	key := newKey(t)
	victim, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openRecord(func() []byte { _, b := sealed(t, key, victim); return b }()); err == nil {
		t.Error("a record of another peer was accepted")
	}
	_, good := sealed(t, key, "")
	if _, err := openRecord(good); err != nil {
		t.Errorf("a good record: %v", err)
	}
	good[len(good)-1] ^= 1
	if _, err := openRecord(good); err == nil {
		t.Error("a record with a broken signature was accepted")
	}
}

func FuzzRecord(f *testing.F) {
	_, b := sealed(f, newKey(f), "")
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if rec, err := openRecord(b); err == nil && len(rec.Addrs) > maxAddrsPerPeer {
			t.Errorf("accepted %d addresses", len(rec.Addrs))
		}
	})
}

func TestFolderMustBePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes on Windows")
	}
	base := t.TempDir()
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(base, "link")
	target := filepath.Join(base, "target")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link, file} {
		if err := privateFolder(dir); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("privateFolder(%s) = %v", dir, err)
		}
	}
	if err := privateFolder(target); err != nil {
		t.Errorf("a private folder: %v", err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	h := newHost(t, Options{PeerCache: filepath.Join(t.TempDir(), "c")})
	a := multiaddr.StringCast("/ip4/127.0.0.1/tcp/9")
	var addrs []multiaddr.Multiaddr
	for range 100 {
		addrs = append(addrs, a)
	}
	var last peer.ID
	for range maxCached + 20 {
		id, err := peer.IDFromPrivateKey(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		h.remember(id, addrs)
		last = id
	}
	now := time.Now()
	b, err := h.encodeCache(now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeCache(b, now)
	if err != nil || len(got) != maxCached || got[last] == nil || len(got[last].addrs) != maxCachedAddrs {
		t.Errorf("%d peers in the cache (%v), last: %v", len(got), err, got[last])
	}
	if old, err := decodeCache(b, now.Add(maxCacheAge+time.Hour)); err != nil || len(old) != 0 {
		t.Errorf("after %v there are still %d peers (%v)", maxCacheAge, len(old), err)
	}
	if n := len(newest(got, 3)); n != 3 {
		t.Errorf("newest 3 are %d", n)
	}
}

func FuzzCache(f *testing.F) {
	id, _ := sealed(f, newKey(f), "")
	f.Add([]byte(fmt.Sprintf(`{"version":1,"peers":[{"id":%q,"addrs":["/ip4/127.0.0.1/tcp/9"],"seen":1000000000}]}`, id)))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{`))
	now := time.Unix(1_000_000_100, 0)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeCache(b, now)
		if err != nil {
			return
		}
		for p, r := range m {
			if len(r.addrs) == 0 || len(r.addrs) > maxCachedAddrs || r.seen.After(now) || now.Sub(r.seen) > maxCacheAge {
				t.Errorf("accepted %s %+v", p, r)
			}
		}
		if len(m) > maxCached {
			t.Errorf("accepted %d peers", len(m))
		}
	})
}

func TestDurableWriteReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "f")
	for _, s := range []string{"one", "two"} {
		if err := writeDurably(path, []byte(s)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != s {
			t.Errorf("read %q, %v", b, err)
		}
	}
	if es, err := os.ReadDir(filepath.Dir(path)); err != nil || len(es) != 1 {
		t.Errorf("%d files are left (%v)", len(es), err)
	}
}
