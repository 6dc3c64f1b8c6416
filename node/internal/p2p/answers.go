package p2p

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Large answers take memory until they were taken.
const (
	largeAnswer     = 64 << 10
	maxAnswersBytes = 32 << 20 // large ones on their way to strangers, and as much to others
	answerPiece     = 64 << 10
	pieceTimeout    = 10 * time.Second // for a piece to leave: 6.5 KB/s
)

// answers counts the bytes of large answers that are on their way.
type answers struct {
	mu    sync.Mutex
	bytes [2]int          // guarded by mu; to strangers, to preferred peers
	to    map[peer.ID]int // guarded by mu
}

// enter says whether an answer of n bytes may be sent to p now. One peer gets
// half of what there is at most, so that there is something for others.
func (a *answers) enter(p peer.ID, preferred bool, n int) bool {
	if n < largeAnswer {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	i := index(preferred)
	if a.bytes[i]+n > maxAnswersBytes || a.to[p]+n > maxAnswersBytes/2 {
		return false
	}
	if a.to == nil {
		a.to = make(map[peer.ID]int)
	}
	a.bytes[i] += n
	a.to[p] += n
	return true
}

func (a *answers) leave(p peer.ID, preferred bool, n int) {
	if n < largeAnswer {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bytes[index(preferred)] -= n
	if a.to[p] -= n; a.to[p] == 0 {
		delete(a.to, p)
	}
}

func index(preferred bool) int {
	if preferred {
		return 1
	}
	return 0
}

// writePieces writes b as long as it is taken.
func writePieces(s network.Stream, b []byte) error {
	end := time.Now().Add(handleTimeout)
	for len(b) > 0 {
		piece := b[:min(len(b), answerPiece)]
		at := time.Now().Add(pieceTimeout)
		if at.After(end) {
			at = end
		}
		if err := s.SetWriteDeadline(at); err != nil {
			return err
		}
		n, err := s.Write(piece)
		if err != nil {
			return fmt.Errorf("write response: %w", err)
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		b = b[n:]
	}
	return nil
}
