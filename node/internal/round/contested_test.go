package round

import (
	"slices"
	"testing"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// TestContested: audits that are not clear and contradict each other bring all
// whose deltas had weight into doubt for one round, and not again soon after.
func TestContested(t *testing.T) {
	agree := func(g int64) []int64 { return []int64{g, g + 1, g + 2} }
	lied := []int64{-5000, -5000, 1000} // two of three
	calm := [][]int64{agree(1000), agree(900), agree(1100), agree(1000), agree(950), agree(700)}
	murky := [][]int64{agree(4000), agree(-3000), agree(1000), agree(-500), agree(5000), agree(0)}
	torn := [][]int64{lied, lied, lied, agree(1000), agree(900), agree(-900)}
	for _, tt := range []struct {
		name      string
		judgement uint32
		gains     [][]int64
		strikes   uint32 // of half of them, before
		open      bool
	}{
		{"clear", 2, calm, 0, false},
		{"not clear, but all agree", 2, murky, 0, false},
		{"contradictions", 2, torn, 0, true},
		{"by the rules before", 1, torn, 0, false},
		{"a moment ago", 2, torn, openQ8 - openQ8>>fadeShift, false},
		{"some rounds ago", 2, torn, reopenQ8 - 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newlyAudited(12, 5)
			m.Trust.Judgement = tt.judgement
			ru := &Rules{manifest: m}
			var list []measured
			var was standings
			for i, gains := range tt.gains {
				_, id := testKey(i)
				e := measuredBy(slices.Sorted(slices.Values(gains))...)
				e.maker = id
				if i < len(tt.gains)/2 {
					e.strikes = tt.strikes
					was.at(id).StrikesQ8 = tt.strikes
				}
				list = append(list, e)
			}
			_, id := testKey(99)
			idle := measuredBy(agree(1000)...)
			idle.maker, idle.weight = id, 0
			list = append(list, idle)
			ru.judge(list, nil)
			got := ru.standingsAfter(&msg.Record{Standings: was}, 9, list)
			for i, e := range list[:len(list)-1] {
				if in := got.of(e.maker).StrikesQ8 >= doubtQ8; in != (tt.open || e.accused) {
					t.Errorf("contribution %d, accused %v: its maker is in doubt: %v", i, e.accused, in)
				}
			}
			if got.of(id).StrikesQ8 > 0 {
				t.Error("who had no weight is in doubt, too")
			}
			for i := range got {
				if e := got[i]; tt.open && e.StrikesQ8 == openQ8 && e.StrikesQ8-e.StrikesQ8>>fadeShift >= doubtQ8 {
					t.Error("the doubt lasts longer than a round")
				}
			}
		})
	}
}

// TestDisputed: a few auditors that do not agree take no worth from anybody; all
// that audit the next delta can.
func TestDisputed(t *testing.T) {
	ru := &Rules{manifest: newlyAudited(12, 5)}
	_, id := testKey(0)
	lackOf := func(e measured) uint32 {
		e.maker = id
		list := []measured{e}
		for i := range 5 {
			list = append(list, measuredBy(1000, 1000+int64(i), 1000))
		}
		ru.judge(list, nil)
		return ru.standingsAfter(&msg.Record{}, 9, list[:1]).of(id).LackQ16
	}
	lack := func(jury int, gains ...int64) uint32 {
		e := measuredBy(gains...)
		e.jury = jury
		return lackOf(e)
	}
	for _, gains := range [][]int64{{-5000, -5000, 1000}, {1000, 1000, 1000}} {
		untrue, withheld := measuredBy(gains...), measuredBy(gains...)
		untrue.untrue, withheld.withheld = true, true
		for _, e := range []measured{untrue, withheld} {
			if got := lackOf(e); got != fold.One/2 {
				t.Errorf("lack %d after gains %v: untrue %v, withheld %v", got, gains, e.untrue, e.withheld)
			}
		}
	}
	if got := lack(0, -5000, -5000, 1000); got != 0 {
		t.Errorf("lack %d after two of three accused", got)
	}
	if got := lack(11, -5000, -5000, -5000, -5000, 0, 0, 0, 0, 0, 0, 0); got == 0 {
		t.Error("no lack after all found no worth")
	}
}

// TestSigns: when audits are never clear, who was found worthless and works
// counts again after a while, and who does nothing hardly ever.
func TestSigns(t *testing.T) {
	ru := &Rules{manifest: newlyAudited(12, 5)}
	_, id := testKey(0)
	// What audits find of who works is around 1000, and of who does not around 0,
	// with a deviation of three times that; of a number below a hundred.
	noise := func(k int) int64 { return []int64{-4500, -2400, -1000, 0, 0, 1000, 2400, 4500}[k%8] }
	const rounds = 400
	counted := func(gain int64) (first, all int) {
		e := msg.Standing{Peer: id, LackQ16: worthlessQ16 + 3*signQ16}
		x := uint64(7)
		for r := range rounds {
			x = x*6364136223846793005 + 1442695040888963407
			g := gain + noise(int(x>>40))
			m := measuredBy(g, g, g)
			m.maker, m.lack, m.unclear, m.sign = id, e.LackQ16, true, signOf(g, 1000)
			m.judgement.Verdict = msg.Useful
			e = ru.standingsAfter(&msg.Record{Standings: []msg.Standing{e}}, 9, []measured{m}).of(id)
			if ru.worthless(e) {
				continue
			}
			if all++; first == 0 {
				first = r + 1
			}
			e.LackQ16 = max(e.LackQ16, worthlessQ16) // once more
		}
		return first, all
	}
	first, works := counted(1000)
	_, idles := counted(0)
	t.Logf("of %d rounds who works counted in %d, first in %d; who does not in %d", rounds, works, first, idles)
	if first == 0 || first > 60 || works < 4*idles {
		t.Errorf("of %d rounds who works counted in %d, first in %d; who does not in %d", rounds, works, first, idles)
	}
	if signOf(5, 0) != 0 || signOf(500, 1000) != 0 {
		t.Error("audits by which nobody does anything hint at something")
	}
	e := msg.Standing{Peer: id, LackQ16: fold.One}
	if got := ru.faded(e, measured{sign: -1}); got > fold.One {
		t.Errorf("lack %d", got)
	}
}

// TestAlarm: as long as many were found wanting or accused lately, a few auditors
// that agree accuse, and strike nobody; all of them still do.
func TestAlarm(t *testing.T) {
	_, id := testKey(0)
	for _, tt := range []struct {
		name      string
		judgement uint32
		wanting   int // of eight
		strikes   uint32
		jury      int
		want      uint32 // strikes of who is accused by all
	}{
		{"calm", 2, 0, 0, 0, strikeQ8},
		{"one of eight", 2, 1, 300, 0, strikeQ8},
		{"a quarter", 2, 2, alarmQ8, 0, accusedQ8},
		{"a quarter, long ago", 2, 2, alarmQ8 - 1, 0, strikeQ8},
		{"by the rules before", 1, 2, 300, 0, strikeQ8},
		{"all audit", 2, 2, 300, 3, strikeQ8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newlyAudited(12, 5)
			m.Trust.Judgement = tt.judgement
			ru := &Rules{manifest: m}
			e := measuredBy(-5000, -5000, -5000)
			e.maker, e.jury = id, tt.jury
			list := []measured{e}
			for i := range 7 {
				o := measuredBy(1000, 1000+int64(i), 1000)
				if i < tt.wanting {
					o.strikes = tt.strikes
				}
				list = append(list, o)
			}
			ru.judge(list, nil)
			if got := ru.standingsAfter(&msg.Record{}, 9, list[:1]).of(id).StrikesQ8; got != tt.want {
				t.Errorf("%d strikes, want %d", got, tt.want)
			}
		})
	}
}
