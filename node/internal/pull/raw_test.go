package pull

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// rawCopy copies size bytes from one host to another over one stream, as the
// best that a protocol could do there.
func rawCopy(ctx context.Context, t testing.TB, from, to host.Host, size int64) time.Duration {
	t.Helper()
	const proto protocol.ID = "/moot/test/raw"
	from.SetStreamHandler(proto, func(s network.Stream) {
		defer s.Close()
		b := make([]byte, 64<<10)
		for left := size; left > 0; left -= int64(len(b)) {
			if _, err := s.Write(b[:min(left, int64(len(b)))]); err != nil {
				return
			}
		}
	})
	begun := time.Now()
	s, err := to.NewStream(ctx, from.ID(), proto)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, s); err != nil || n != size {
		t.Fatalf("raw copy: %d bytes, %v", n, err)
	}
	return time.Since(begun)
}
