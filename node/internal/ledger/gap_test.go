package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// chainOf makes n records after genesis, all certified but each seventh.
func chainOf(t testing.TB, g round.Link, n int) []round.Link {
	list := []round.Link{g}
	for i := range n {
		list = append(list, next(t, list[i], i, i%7 != 5))
	}
	return list
}

func jump(t testing.TB, l *Ledger, base round.Link, steps, segment []round.Link) {
	t.Helper()
	if err := l.Jump(time.UnixMilli(1e12), base.ID, steps, segment); err != nil {
		t.Fatal(err)
	}
}

// reversed are the records from a to before b, newest first.
func reversed(all []round.Link, a, b int) []round.Link {
	list := slices.Clone(all[a:b])
	slices.Reverse(list)
	return list
}

func fill(t testing.TB, l *Ledger, links []round.Link) {
	t.Helper()
	if err := l.Fill(time.UnixMilli(1e12), links); err != nil {
		t.Fatal(err)
	}
}

func gap(t testing.TB, l *Ledger, floor, below msg.Round) {
	t.Helper()
	if f, b, ok := l.Gap(); f != floor || b != below || ok != (floor > 0) {
		t.Errorf("gap is %d to %d (%v), want %d to %d", b, f, ok, below, floor)
	}
}

// A run is joined by its last records; the older ones come later, and what was
// written lasts.
func TestJump(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	all := chainOf(t, l.genesis, 40)
	reopen := func() {
		t.Helper()
		l.Close()
		l = open(t, dir)
	}
	bare := all[24]
	bare.Certificate = nil // as a proof has it
	jump(t, l, all[0], []round.Link{all[16], bare, all[32]}, all[30:40])
	for range 2 {
		gap(t, l, 30, 16)
		if h := l.Head(); h.ID != all[39].ID {
			t.Fatalf("the head is %s of round %d", h.ID, h.Record.Round)
		}
		for _, n := range []int{0, 16, 30, 39} {
			if k, _, ok := l.At(msg.Round(n)); !ok || k.ID != all[n].ID || (k.Certificate == nil) != (all[n].Certificate == nil) {
				t.Errorf("record %d is not here as it was", n)
			}
			if _, ok := l.Link(all[n].ID); ok != (n >= 30) {
				t.Errorf("record %d is linked to the head: %v", n, ok)
			}
		}
		if _, _, ok := l.At(20); ok {
			t.Error("a record that is missing is here")
		}
		if got := l.After(l.Locator(64)[1:2], 10, 1<<20); len(got) != 1 {
			t.Errorf("%d records follow the last but one", len(got))
		}
		if got := l.After([]cid.Cid{all[0].ID}, 10, 1<<20); len(got) != 0 {
			t.Errorf("%d records follow the genesis record, and the first is missing", len(got))
		}
		if got := l.Before(all[39].ID, 100, 1<<20); len(got) != 9 || msg.RawCID(got[8].Record) != all[30].ID {
			t.Errorf("%d records are told before the head", len(got))
		}
		reopen()
	}
	adopt(t, l, all[40])
	for n, adopted := range map[msg.Round]bool{39: false, 40: true} {
		if e, _ := l.Entry(n); e.Adopted.IsZero() == adopted || e.Took != 0 {
			t.Errorf("round %d was adopted at %v, took %v", n, e.Adopted, e.Took)
		}
	}
	fill(t, l, reversed(all, 20, 30))
	gap(t, l, 20, 16)
	fill(t, l, reversed(all, 10, 20)) // over the step that is here
	gap(t, l, 10, 0)
	reopen()
	gap(t, l, 10, 0)
	if err := l.Fill(time.Now(), reversed(all, 0, 9)); !errors.Is(err, ErrChain) {
		t.Errorf("records that do not follow: %v", err)
	}
	fill(t, l, reversed(all, 1, 10))
	gap(t, l, 0, 0)
	same(t, l, all...)
	fill(t, l, reversed(all, 1, 10)) // once more
	reopen()
	same(t, l, all...)
	if got := l.Before(all[3].ID, 100, 1<<20); len(got) != 2 {
		t.Errorf("%d records are told before the third", len(got))
	}
	if got := l.Before(all[30].ID, 100, 4000); len(got) == 0 || len(got) > 8 {
		t.Errorf("%d records fit into 4000 bytes", len(got))
	}
}

// What does not lead to what is here is refused, and given up.
func TestRetreat(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	all := chainOf(t, l.genesis, 30)
	other := slices.Clone(all[:4])
	for i := range 20 {
		other = append(other, next(t, other[len(other)-1], 1000+i, true))
	}
	adopt(t, l, all[1:8]...)
	jump(t, l, all[6], nil, other[15:20])
	gap(t, l, 15, 6)
	if _, ok := l.Link(all[7].ID); ok {
		t.Error("what followed the base is still there")
	}
	if err := l.Fill(time.Now(), reversed(other, 1, 15)); !errors.Is(err, ErrOther) {
		t.Fatalf("records that follow another one: %v", err)
	}
	gap(t, l, 15, 6)
	if err := l.Retreat(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		gap(t, l, 0, 0)
		same(t, l, all[:7]...)
		l.Close()
		l = open(t, dir)
	}
	adopt(t, l, all[7:]...)
	same(t, l, all...)
	for _, bad := range [][]round.Link{nil, {all[3]}, {all[20], all[22]}, {all[20], other[10]}} {
		if err := l.Jump(time.Now(), all[10].ID, nil, bad); !errors.Is(err, ErrChain) {
			t.Errorf("a jump to %d records that do not follow: %v", len(bad), err)
		}
	}
	if err := l.Jump(time.Now(), other[10].ID, nil, all[20:22]); !errors.Is(err, ErrChain) {
		t.Errorf("a jump from a record that is not here: %v", err)
	}
	same(t, l, all...)
}

// A node that was away for long twice has two gaps, which are filled one after
// the other.
func TestJumpTwice(t *testing.T) {
	l := open(t, t.TempDir())
	all := chainOf(t, l.genesis, 60)
	jump(t, l, all[0], nil, all[20:25])
	jump(t, l, all[24], []round.Link{all[32]}, all[50:61])
	gap(t, l, 50, 32)
	fill(t, l, reversed(all, 26, 50))
	gap(t, l, 26, 24)
	fill(t, l, reversed(all, 25, 26))
	gap(t, l, 20, 0)
	fill(t, l, reversed(all, 1, 20))
	same(t, l, all...)
}

// A crash at any byte of a jump leaves the chain as it was, or as it is.
func TestJumpTorn(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	all := chainOf(t, l.genesis, 12)
	adopt(t, l, all[1:3]...)
	before := l.chain.end
	jump(t, l, all[2], []round.Link{all[8]}, all[10:13])
	l.Close()
	path := filepath.Join(dir, "chain.log")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := before; n <= int64(len(b)); n += max(1, (int64(len(b))-before)/50) {
		if err := os.WriteFile(path, b[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir)
		if n == int64(len(b)) {
			break
		}
		same(t, l, all[:3]...)
		adopt(t, l, all[3:5]...) // and goes on
		same(t, l, all[:5]...)
		jump(t, l, all[4], nil, all[9:11])
		gap(t, l, 9, 4)
		l.Close()
		l = open(t, dir)
		gap(t, l, 9, 4) // without what was torn
		l.Close()
	}
}
