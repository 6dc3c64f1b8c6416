package round

import (
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// A run may change the codec of its deltas, by what records say of those that
// did not come in time; proto/README.md section 6.
const (
	latePart  = 8 // more than an eighth of the seats late: a coarser codec
	finestCod = 8 // bits
)

// codecAfter is the codec of the round that follows r.
func (ru *Rules) codecAfter(r *msg.Record) uint32 {
	if r.CodecBits > 0 {
		return r.CodecBits
	}
	return ru.manifest.CodecBits
}

// deltaBytesOf is the length of a delta in a codec; 0 if it is none.
func (ru *Rules) deltaBytesOf(bits uint32) uint64 {
	switch bits {
	case 1, 2, 4, finestCod:
		return uint64(fold.EncodedBytes(ru.layout, int(bits)))
	}
	return 0
}

// steerCodec says in r which codec the next round has. Of a round in which
// nobody trained nothing follows.
func (ru *Rules) steerCodec(parent, r *msg.Record) {
	least := ru.manifest.MinCodecBits
	if least == 0 {
		return
	}
	r.CodecBits, r.Calm = ru.codecAfter(parent), parent.Calm
	if len(r.Contributions)+len(r.Refused) == 0 {
		return
	}
	switch {
	case latePart*lateSeats(r) > len(r.Seats):
		r.CodecBits, r.Calm = max(r.CodecBits/2, least), 0
	case r.Calm < msg.MaxCalm:
		r.Calm++
	default:
		r.CodecBits, r.Calm = min(2*r.CodecBits, ru.manifest.CodecBits), 0
	}
}
