package run

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// Genesis returns the state that the run starts from and the record of round
// 0. Both follow from the manifest alone.
//
// Each A is uniform within 1/sqrt(in), as PEFT draws it; each B and the
// momentum are zero, so the adapter changes nothing yet. In ModeFull all is
// zero: the parameters are those of the base model.
func Genesis(m *Manifest) (*fold.State, *msg.Record, error) {
	id, err := m.ID()
	if err != nil {
		return nil, nil, fmt.Errorf("genesis: %w", err)
	}
	layout, err := m.Layout()
	if err != nil {
		return nil, nil, fmt.Errorf("genesis: %w", err)
	}
	state := fold.NewState(layout)
	for i := range layout.Len() {
		t := layout.Tensor(i)
		if m.Mode == ModeLoRA && strings.HasSuffix(t.Name, suffixA) {
			drawUniform(state.Theta[layout.Offset(i):][:t.Rows*t.Cols], m.GenesisSeed, t.Name, t.Cols)
		}
	}
	record := &msg.Record{
		Version:   msg.RecordVersion,
		Run:       id,
		State:     state.CID(),
		NextSeats: []msg.Seat{{Peer: m.Launcher, Since: 1}},
	}
	return state, record, nil
}

// genesisDomain separates the draw from every other use of the hash.
const genesisDomain = "moot genesis 1"

// drawUniform draws from -bound to bound, where bound is 1/sqrt(in) in units of
// 2^-26, rounded down. The i-th value comes of the i-th word, of 32 bits,
// little-endian, of the hashes of (domain, seed, counter, name).
func drawUniform(values []int32, seed uint64, name string, in int) {
	bound := fold.Sqrt((1 << 52) / uint64(in))
	b := binary.LittleEndian.AppendUint64([]byte(genesisDomain), seed)
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = append(b, name...)
	counter := b[len(genesisDomain)+8:][:8]
	var hash [sha256.Size]byte
	for i := range values {
		if i%8 == 0 {
			binary.LittleEndian.PutUint64(counter, uint64(i/8))
			hash = sha256.Sum256(b)
		}
		word := uint64(binary.LittleEndian.Uint32(hash[4*(i%8):]))
		values[i] = int32(word*(2*bound+1)>>32) - int32(bound)
	}
}
