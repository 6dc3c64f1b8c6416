package round

import (
	"math/bits"

	"github.com/moot-net/moot/proto/msg"
)

// What a deviation that is small by chance is told by; proto/README.md section 6
// says why.
const (
	mostSteadied = 2 // times what it is, it is taken for at most
	otherGains   = 8 // times as much in the round before is no chance: these gains are others
)

// steady reports whether a deviation of gains that is small by chance is not
// taken for what it is.
func (ru *Rules) steady() bool { return ru.manifest.Trust.Judgement > 2 }

// telling reports whether audits tell work from idleness.
func telling(middle, spread int64) bool { return middle > 0 && clearMADs*spread <= middle }

// steadied is the deviation of gains around middle, or that of the round before if
// it is more, but at most twice as much: of a dozen gains most are close together now
// and then by chance, and then others seem to be far from them. Where both rounds
// tell something, gains and their deviation shrink together as the run learns.
func steadied(middle, spread int64, before []msg.Judgement) int64 {
	var gains []int64
	for _, j := range before {
		if j.WorthQ16 > 0 {
			gains = append(gains, j.GainNano)
		}
	}
	if len(gains) == 0 {
		return spread
	}
	m, d := centre(gains)
	if middle < m && telling(middle, spread) && telling(m, d) {
		hi, lo := bits.Mul64(uint64(d), uint64(middle))
		q, _ := bits.Div64(hi, lo, uint64(m)) // at most d
		d = int64(q)
	}
	if d > otherGains*spread {
		return spread
	}
	return max(spread, min(d, mostSteadied*spread))
}
