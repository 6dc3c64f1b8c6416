package adversary

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/msg"
)

var (
	hold = flag.Duration("hold", 1500*time.Millisecond, "how long each attack goes on")
	seed = flag.Uint64("seed", 1, "of what attackers draw")
)

// attackedMB is how much memory a node has at most, whatever peers send while it
// trains the bundled model.
const attackedMB = 500

func newRand(from *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(from.Uint64(), 8)) }

func linuxOnly(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("attacks nodes for a while")
	}
	if _, err := os.Stat("/proc/self/clear_refs"); err != nil {
		t.Skip("the memory of another process is read as Linux tells it")
	}
}

// A node that trains is attacked in each way that a peer without a seat has. It
// stays up, within its memory and its folder, answers, and trains on.
func TestNode(t *testing.T) {
	linuxOnly(t)
	v := startVictim(t)
	run := v.launch(1, 8, 2*time.Second)
	v.await(run, "rounds have trained", func(r api.Run) bool { return r.TrainedRounds >= 3 })
	first := v.genesis(run)
	t.Logf("%d MB before", v.memory("VmRSS"))
	for i, tt := range []struct {
		name string
		do   func(a *attacker, ctx context.Context)
	}{
		{"random bytes on every protocol", (*attacker).garbage},
		{"frames of up to 2^63 bytes, nested", (*attacker).oversize},
		{"requests cut off and changed at each byte", (*attacker).truncated},
		{"thousands of streams, a byte now and then", (*attacker).slow},
		{"requests without end", (*attacker).endless},
		{"requests whose answers are not read", (*attacker).takesNothing},
		{"requests for records, as fast as they are answered", (*attacker).asks},
		{"rendezvous for thousands of runs", (*attacker).names},
		{"hellos, and questions for signatures", (*attacker).hellos},
		{"provider records for random keys", (*attacker).providers},
		{"look-ups of random keys", (*attacker).lookups},
		{"identify with 10,000 addresses and protocols", (*attacker).identify},
		{"bitswap wants for a million CIDs", (*attacker).wants},
		{"identities by the hundred", (*attacker).identities},
		{"places and ways over a relay", (*attacker).relays},
		{"subscriptions to topics without end", (*attacker).topics},
		{"gossip control messages", (*attacker).control},
		{"signed garbage in the run's topic", (*attacker).invalid},
		{"valid messages of ever new identities", (*attacker).valid},
		{"one valid message a million times", (*attacker).again},
		{"messages of a cell, past gossip", (*attacker).cellMessages},
		{"the local API without token", func(a *attacker, ctx context.Context) { a.http(ctx, v.Endpoint().URL) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAttacker(t, v, run, first, *seed*1000+uint64(i))
			before := v.await(run, "it is known", func(api.Run) bool { return true })
			v.resetPeak()
			rss, cpu, disk, began := v.memory("VmRSS"), v.cpu(), v.diskBytes(t), time.Now()
			for a.done.Load() < 1 && time.Since(began) < 2*time.Minute { // again on a machine that did nothing meanwhile
				ctx, cancel := context.WithTimeout(t.Context(), *hold)
				tt.do(a, ctx)
				cancel()
			}
			after := v.await(run, "it trains on", func(r api.Run) bool { return r.CertifiedRounds > before.CertifiedRounds })
			took := time.Since(began)
			peak := v.memory("VmHWM")
			t.Logf("%d messages; memory %d, %d MB at most; %.0f %% of a processor; %.1f MB written; %d rounds in %.1f s",
				a.done.Load(), rss, peak, 100*(v.cpu()-cpu).Seconds()/took.Seconds(), float64(v.diskBytes(t)-disk)/1e6,
				after.CertifiedRounds-before.CertifiedRounds, took.Seconds())
			if peak > attackedMB {
				t.Errorf("the node had %d MB, at most %d are promised", peak, attackedMB)
			}
			if a.done.Load() < 1 {
				t.Error("that was no attack: nothing reached the node")
			}
		})
	}
	if rss := v.memory("VmRSS"); rss > attackedMB {
		t.Errorf("the node keeps %d MB", rss)
	}
}

func (v *victim) diskBytes(t *testing.T) int64 {
	t.Helper()
	size, outside := v.disk()
	if len(outside) > 0 {
		t.Errorf("files outside the data folder: %v", outside)
	}
	return size
}

// records are those that the node gives after a record.
func (a *attacker) records(ctx context.Context, after cid.Cid) (list []*msg.Record, ids []cid.Cid) {
	b, err := a.h.Request(ctx, a.to.ID, "/moot/sync/1", items(a.run.Bytes(), after.Bytes()), 4<<20)
	if err != nil {
		a.t.Log("records: ", err) // it is busy, or under attack
		return nil, nil
	}
	for len(b) > 0 {
		var parts [2][]byte
		for i := range parts {
			n, k := binary.Uvarint(b)
			if k <= 0 || n > uint64(len(b)-k) {
				a.t.Error("malformed answer")
				return list, ids
			}
			parts[i], b = b[k:k+int(n)], b[k+int(n):]
		}
		r, err := msg.DecodeRecord(parts[0])
		if err != nil {
			a.t.Error(fmt.Errorf("record of the node: %w", err))
			return list, ids
		}
		list, ids = append(list, r), append(ids, msg.RawCID(parts[0]))
	}
	return list, ids
}
