package ledger

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

func haveFor(t *testing.T, head round.Link) msg.Signed {
	t.Helper()
	key, id := testKey(t)
	s, err := msg.Seal(key, &msg.Have{Run: runID, Round: head.Record.Round + 1, Head: head.ID, Peer: id})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSpent: whatever is not kept of what was signed for a head, that there was
// something stays known, also when the chain goes back to that head.
func TestSpent(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	chain := []round.Link{l.Head()}
	for i := range 9 {
		if err := l.StoreOwn(haveFor(t, chain[i])); err != nil {
			t.Fatal(err)
		}
		chain = append(chain, next(t, chain[i], i, false))
		adopt(t, l, chain[i+1])
	}
	check := func(when string) {
		t.Helper()
		for i, k := range chain[:9] {
			kept := slices.ContainsFunc(l.Own(), func(s msg.Signed) bool { return headOf(s.Message) == k.ID })
			if spent := slices.Contains(l.Spent(), k.ID); spent == kept {
				t.Errorf("%s: head %d: what was signed is kept: %v; it is spent: %v", when, i, kept, spent)
			}
		}
	}
	check("at first")
	if err := l.compact(); err != nil {
		t.Fatal(err)
	}
	check("written anew")
	adopt(t, l, next(t, chain[1], 77, true)) // back to a head that it signed for
	check("on another branch")
	for range 2 {
		l.Close()
		l = open(t, dir)
		check("opened again")
	}
	if err := l.compact(); err != nil {
		t.Fatal(err)
	}
	check("written anew again")
}

// TestOwnIsDamaged: of messages that a bad disk lost nobody knows what they were;
// those that a crash left half written were never sent.
func TestOwnIsDamaged(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	g := l.Head()
	a := next(t, g, 1, false)
	if err := l.StoreOwn(haveFor(t, g)); err != nil {
		t.Fatal(err)
	}
	adopt(t, l, a)
	first := int(l.own.end)
	if err := l.StoreOwn(haveFor(t, a)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	path := filepath.Join(dir, "own.log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir)
	}
	for n := magicBytes; n < len(whole); n += 13 {
		write(whole[:n])
		own := 0
		if n >= first {
			own = 1
		}
		if len(l.Own()) != own || len(l.Spent()) > 0 {
			t.Fatalf("cut at %d: %d messages, %d heads are spent", n, len(l.Own()), len(l.Spent()))
		}
		l.Close()
	}
	for at, kept := range map[int]int{magicBytes + 1: 0, magicBytes + 2: 0, magicBytes + 40: 0, first + 40: 1} {
		bad := slices.Clone(whole)
		bad[at] ^= 1
		write(bad)
		for range 2 {
			if spent := l.Spent(); len(l.Own()) != kept || !slices.Contains(spent, a.ID) || !slices.ContainsFunc(spent, func(c cid.Cid) bool { return c == g.ID }) {
				t.Errorf("damaged at %d: %d messages, want %d; spent are %v", at, len(l.Own()), kept, spent)
			}
			l.Close()
			l = open(t, dir)
		}
		l.Close()
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if len(l.Spent()) != 2 {
		t.Errorf("without its file: spent are %v", l.Spent())
	}
	l.Close()
}
