package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

var runID = msg.RawCID([]byte("run"))

func testKey(t testing.TB) (crypto.PrivKey, peer.ID) {
	t.Helper()
	seed := sha256.Sum256([]byte("ledger"))
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, id
}

func genesis(t testing.TB) *msg.Record {
	_, id := testKey(t)
	return &msg.Record{Version: msg.RecordVersion, Run: runID, State: msg.RawCID([]byte("s0")), NextSeats: []msg.Seat{{Peer: id, Since: 1}}}
}

// next makes a record on parent; variant tells siblings apart.
func next(t testing.TB, parent round.Link, variant int, certified bool) round.Link {
	t.Helper()
	key, id := testKey(t)
	have, err := msg.Seal(key, &msg.Have{Run: runID, Round: parent.Record.Round + 1, Head: parent.ID, Peer: id})
	if err != nil {
		t.Fatal(err)
	}
	rec := &msg.Record{
		Version: msg.RecordVersion, Run: runID, Round: parent.Record.Round + 1, Parent: parent.ID, Proposer: id,
		Seats: parent.Record.NextSeats, Haves: [][]byte{have.Envelope}, State: msg.RawCID(fmt.Append(nil, "s", variant)),
		NextSeats: parent.Record.NextSeats, ParentCertificate: parent.Certificate,
	}
	rid, err := rec.CID()
	if err != nil {
		t.Fatal(err)
	}
	k := round.Link{ID: rid, Record: rec, Certified: parent.Certified}
	if certified {
		v, err := msg.Seal(key, &msg.Vote{Run: runID, Round: rec.Round, Head: parent.ID, Record: rid, Peer: id})
		if err != nil {
			t.Fatal(err)
		}
		k.Certificate = &msg.Certificate{Record: rid, Votes: [][]byte{v.Envelope}}
		k.Certified++
	}
	return k
}

func open(t testing.TB, dir string) *Ledger {
	t.Helper()
	l, err := Open(dir, genesis(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func adopt(t testing.TB, l *Ledger, ks ...round.Link) {
	t.Helper()
	if err := l.Adopt(time.UnixMilli(1e12), ks); err != nil {
		t.Fatal(err)
	}
}

// same checks a ledger against the chain that it should have.
func same(t *testing.T, l *Ledger, want ...round.Link) {
	t.Helper()
	if h := l.Head(); h.ID != want[len(want)-1].ID || h.Certified != want[len(want)-1].Certified {
		t.Errorf("head %s with %d certified, want %s with %d", h.ID, h.Certified, want[len(want)-1].ID, want[len(want)-1].Certified)
	}
	for i, w := range want {
		k, ok := l.Link(w.ID)
		if !ok || k.Certified != w.Certified || (k.Certificate == nil) != (w.Certificate == nil) {
			t.Errorf("record %d: %v, %d certified, certificate %v; want %d, %v", i, ok, k.Certified, k.Certificate != nil, w.Certified, w.Certificate != nil)
			continue
		}
		a, _ := k.Record.Encode()
		b, _ := w.Record.Encode()
		if !bytes.Equal(a, b) {
			t.Errorf("record %d is another one", i)
		}
		if e, ok := l.Entry(msg.Round(i)); !ok || e.ID != w.ID {
			t.Errorf("entry of round %d is %v", i, e.ID)
		}
	}
	if _, ok := l.Entry(msg.Round(len(want))); ok {
		t.Errorf("there is a record after the head")
	}
}

// A branch that was left can be told to others, also after a restart.
func TestBranch(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	fork := next(t, l.Head(), 0, true)
	a := next(t, fork, 1, false)
	b := next(t, a, 2, true)
	other := next(t, fork, 3, true)
	adopt(t, l, fork, a, b)
	if got := l.Branch(b.ID, 10, 1<<20); got != nil {
		t.Errorf("%d records of our own chain are told", len(got))
	}
	adopt(t, l, other)
	check := func(l *Ledger) {
		t.Helper()
		got := l.Branch(b.ID, 10, 1<<20)
		if len(got) != 2 || msg.RawCID(got[0].Record) != a.ID || msg.RawCID(got[1].Record) != b.ID {
			t.Fatalf("%d records are told, want two", len(got))
		}
		if len(got[0].Certificate) > 0 || len(got[1].Certificate) == 0 {
			t.Error("the certificate is not that of the second")
		}
		if got := l.Branch(a.ID, 10, 1<<20); len(got) != 1 {
			t.Errorf("%d records up to the first are told", len(got))
		}
		if l.Branch(b.ID, 1, 1<<20) != nil || l.Branch(b.ID, 10, 100) != nil || l.Branch(runID, 10, 1<<20) != nil {
			t.Error("part of a branch, or one that is not here, is told")
		}
		same(t, l, l.genesis, fork, other)
	}
	check(l)
	l.Close()
	l = open(t, dir)
	check(l)
	adopt(t, l, a, b) // and back
	if l.Branch(b.ID, 10, 1<<20) != nil || len(l.Branch(other.ID, 10, 1<<20)) != 1 {
		t.Error("after the way back it is the other that was left")
	}
}

func TestChainIsKept(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	chain := []round.Link{l.Head()}
	for i := range 20 { // more than stay in memory
		chain = append(chain, next(t, chain[i], i, i%3 != 0))
		adopt(t, l, chain[i+1])
	}
	if err := l.SetEval(chain[3].ID, 1.5); err != nil {
		t.Fatal(err)
	}
	same(t, l, chain...)
	l.Close()
	l = open(t, dir)
	same(t, l, chain...)
	if e, _ := l.Entry(3); e.EvalLoss != 1.5 || e.Adopted.UnixMilli() != 1e12 {
		t.Errorf("round 3: %+v", e)
	}
	if e, _ := l.Entry(4); !math.IsNaN(e.EvalLoss) {
		t.Errorf("round 4 was not measured, and has loss %v", e.EvalLoss)
	}
}

func TestAdoptDropsTheOtherBranch(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	g := l.Head()
	a1 := next(t, g, 1, true)
	a2, b2 := next(t, a1, 2, false), next(t, a1, 3, true)
	a3, b3 := next(t, a2, 4, false), next(t, b2, 5, true)
	adopt(t, l, a1, a2, a3)
	same(t, l, g, a1, a2, a3)
	adopt(t, l, b2, b3)
	same(t, l, g, a1, b2, b3)
	if _, ok := l.Link(a3.ID); ok {
		t.Error("a record of the other branch is still there")
	}
	if err := l.Adopt(time.Now(), []round.Link{next(t, a3, 6, false)}); !errors.Is(err, ErrChain) {
		t.Errorf("a record on the other branch: %v", err)
	}
	if err := l.Adopt(time.Now(), []round.Link{next(t, b3, 7, false), a2}); !errors.Is(err, ErrChain) {
		t.Errorf("links that do not follow each other: %v", err)
	}
	l.Close()
	same(t, open(t, dir), g, a1, b2, b3)
}

func TestCertify(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	g := l.Head()
	a1 := next(t, g, 1, true)
	cert := a1.Certificate
	a1.Certificate, a1.Certified = nil, 0
	a2 := next(t, a1, 2, false)
	adopt(t, l, a1, a2)
	for range 2 {
		if err := l.Certify(cert); err != nil {
			t.Fatal(err)
		}
	}
	a1.Certificate, a1.Certified, a2.Certified = cert, 1, 1
	same(t, l, g, a1, a2)
	l.Close()
	same(t, open(t, dir), g, a1, a2)
}

// A crash leaves any beginning of what was being written.
func TestCrashAtAnyByte(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	chain := []round.Link{l.Head()}
	var ends []int64
	for i := range 3 {
		chain = append(chain, next(t, chain[i], i, false))
		adopt(t, l, chain[i+1])
		ends = append(ends, l.chain.end)
	}
	l.Close()
	whole, err := os.ReadFile(filepath.Join(dir, "chain.log"))
	if err != nil {
		t.Fatal(err)
	}
	cuts := []int{0, 1, magicBytes - 1, magicBytes, magicBytes + 1}
	for i, e := range ends {
		cuts = append(cuts, int(e)-1, int(e))
		if i+1 < len(ends) {
			cuts = append(cuts, int(e)+1, int(e)+frameHead)
		}
	}
	for n := magicBytes; n < len(whole); n += 37 {
		cuts = append(cuts, n)
	}
	for _, n := range cuts {
		sub := filepath.Join(t.TempDir(), "l")
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "chain.log"), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(sub, genesis(t))
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		kept := 1
		for _, e := range ends {
			if int64(n) >= e {
				kept++
			}
		}
		same(t, l, chain[:kept]...)
		// It goes on from there.
		adopt(t, l, next(t, chain[kept-1], 9, true))
		l.Close()
	}
}

func TestDamageIsNoticed(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	g := l.Head()
	a1 := next(t, g, 1, false)
	a2 := next(t, a1, 2, false)
	adopt(t, l, a1)
	end := l.chain.end
	adopt(t, l, a2)
	l.Close()
	path := filepath.Join(dir, "chain.log")
	b, _ := os.ReadFile(path)
	b[end+40] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	same(t, l, g, a1)
	if l.Cut() == 0 {
		t.Error("nothing says that something was dropped")
	}
	if err := os.WriteFile(path, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, genesis(t)); err == nil {
		t.Error("a file that is no log was opened")
	}
}

func TestOwnMessages(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	key, id := testKey(t)
	seal := func(m msg.Message) msg.Signed {
		s, err := msg.Seal(key, m)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	store := func(m msg.Message) msg.Signed {
		s := seal(m)
		for range 2 {
			if err := l.StoreOwn(s); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	has := func(s msg.Signed) bool {
		for _, o := range l.Own() {
			if o.CID == s.CID && bytes.Equal(o.Envelope, s.Envelope) {
				return true
			}
		}
		return false
	}
	g := l.Head()
	j1 := store(&msg.JoinRequest{Run: runID, Peer: id, Seq: 1})
	j2 := store(&msg.JoinRequest{Run: runID, Peer: id, Seq: 2})
	h0 := store(&msg.Have{Run: runID, Round: 1, Head: g.ID, Peer: id})
	if has(j1) || !has(j2) || !has(h0) {
		t.Errorf("first join %v, second %v, have %v", has(j1), has(j2), has(h0))
	}
	chain := []round.Link{g}
	for i := range 6 {
		chain = append(chain, next(t, chain[i], i, false))
		adopt(t, l, chain[i+1])
	}
	v := store(&msg.Vote{Run: runID, Round: 7, Head: chain[6].ID, Record: msg.RawCID([]byte("r")), Peer: id})
	check := func(when string) {
		t.Helper()
		if has(h0) || !has(j2) || !has(v) {
			t.Errorf("%s: old have %v, join %v, vote %v", when, has(h0), has(j2), has(v))
		}
	}
	check("later")
	l.Close()
	l = open(t, dir)
	check("after a restart")
	if err := l.compact(); err != nil {
		t.Fatal(err)
	}
	check("written anew")
	w := store(&msg.Have{Run: runID, Round: 7, Head: chain[6].ID, Peer: id})
	l.Close()
	l = open(t, dir)
	check("opened again")
	if !has(w) {
		t.Error("what was said after that is lost")
	}
}

func TestEvidence(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	key, id := testKey(t)
	var s [2]msg.Signed
	for i := range s {
		var err error
		if s[i], err = msg.Seal(key, &msg.Vote{Run: runID, Round: 1, Head: l.Head().ID, Record: msg.RawCID([]byte{byte(i)}), Peer: id}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if err := l.AddEvidence(s[i%2], s[1-i%2]); err != nil {
			t.Fatal(err)
		}
	}
	for round := range msg.Round(maxEvidence) { // of one that does it in each round
		var p [2]msg.Signed
		for i := range p {
			h := &msg.Have{Run: runID, Round: round + 1, Head: l.Head().ID, Peer: id, LossMicro: uint64(i)}
			var err error
			if p[i], err = msg.Seal(key, h); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.AddEvidence(p[0], p[1]); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	l = open(t, dir)
	if e := l.Evidence(); len(e) != 2 || e[0].A.CID != s[0].CID || e[0].B.CID != s[1].CID {
		t.Errorf("evidence %v", e)
	}
}

func TestFollow(t *testing.T) {
	l, o := open(t, t.TempDir()), open(t, t.TempDir())
	chain := []round.Link{l.Head()}
	for i := range 40 {
		chain = append(chain, next(t, chain[i], i, i%2 == 0))
	}
	adopt(t, l, chain[1:]...)
	adopt(t, o, chain[1:18]...)
	adopt(t, o, next(t, chain[17], 99, false))
	loc := o.Locator(16)
	if len(loc) > 16 || loc[0] != o.Head().ID || loc[len(loc)-1] != chain[0].ID {
		t.Fatalf("locator %v", loc)
	}
	items := l.After(loc, 100, 1<<20)
	if len(items) != 23 || (items[0].Certificate == nil) != (chain[18].Certificate == nil) {
		t.Fatalf("%d records, want 23", len(items))
	}
	for i, it := range items {
		if msg.RawCID(it.Record) != chain[18+i].ID {
			t.Errorf("item %d is another record", i)
		}
	}
	if got := l.After(loc, 5, 1<<20); len(got) != 5 {
		t.Errorf("%d items, at most 5 were wanted", len(got))
	}
	if got := l.After(loc, 100, len(items[0].Record)+len(items[0].Certificate)+8); len(got) != 1 {
		t.Errorf("%d items in the bytes of one", len(got))
	}
	if got := l.After([]cid.Cid{msg.RawCID([]byte("x"))}, 9, 1<<20); got != nil {
		t.Errorf("%d items after a record that is not there", len(got))
	}
}

// TestProof: who knows a record is told the way to the last certified one, in few
// records, and nothing else.
func TestProof(t *testing.T) {
	l := open(t, t.TempDir())
	if got := l.Proof(t.Context(), l.Head().ID, 1<<20); got != nil {
		t.Errorf("%d records prove genesis", len(got))
	}
	for i := range 40 {
		adopt(t, l, next(t, l.Head(), i, i < 37 && i != 20))
	}
	from, _ := l.Entry(0)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if got := l.Proof(done, from.ID, 1<<20); got != nil {
		t.Errorf("%d records for who waits no longer", len(got))
	}
	items := l.Proof(t.Context(), from.ID, 1<<20)
	if len(items) != 1 {
		t.Fatalf("%d records, want the one that the launcher voted for", len(items))
	}
	if e, _ := l.Entry(37); msg.RawCID(items[0].Record) != e.ID || len(items[0].Certificate) == 0 {
		t.Errorf("proven is %s, want the last certified record, %s", msg.RawCID(items[0].Record), e.ID)
	}
	// Without skips there are steps from parent to child alone.
	mid, _ := l.Entry(30)
	if items = l.Proof(t.Context(), mid.ID, 1<<20); len(items) != 7 {
		t.Errorf("%d records from round 30 to 37", len(items))
	}
	// The launcher has all seats, and its last vote is enough.
	if last := items[6]; len(items[0].Certificate) > 0 || len(last.Certificate) == 0 {
		t.Error("records that only lead on have certificates, or the last one has none")
	}
	if items = l.Proof(t.Context(), mid.ID, len(items[6].Record)+len(items[6].Certificate)+20); len(items) != 1 || len(items[0].Certificate) == 0 {
		t.Errorf("%d records where one has room", len(items))
	}
	before, _ := l.Entry(20)
	if items = l.Proof(t.Context(), before.ID, 1<<20); len(items) != 17 {
		t.Errorf("%d records over one that nobody certified, to round 37", len(items))
	}
	if items = l.Proof(t.Context(), msg.RawCID([]byte("unknown")), 1<<20); len(items) != 0 {
		t.Errorf("%d records for who knows nothing of the chain", len(items))
	}
}
