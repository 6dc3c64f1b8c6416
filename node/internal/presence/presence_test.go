package presence

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

func key(t *testing.T, name string) crypto.PrivKey {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// machine is a node that was started.
type machine struct {
	*Presence
	h     host.Host
	ended chan error

	lock sync.Mutex
	told []time.Duration // guarded by lock
}

// start starts a node whose clock is ahead. With a number it is another
// connection of the machine that drew it.
func start(t *testing.T, name string, ahead time.Duration, number ...[numberBytes]byte) *machine {
	t.Helper()
	k := key(t, name)
	h, err := libp2p.New(libp2p.Identity(k), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{h: h, ended: make(chan error, 1)}
	m.Presence = New(h, Options{Key: k, Now: func() time.Time { return time.Now().Add(ahead) }, Skewed: func(d time.Duration, _ int) {
		m.lock.Lock()
		defer m.lock.Unlock()
		m.told = append(m.told, d)
	}})
	if len(number) > 0 {
		m.number = number[0]
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { m.ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		h.Close()
	})
	// It answers from then on.
	until(t, "an answer", func() bool { return len(h.Mux().Protocols()) > 0 && has(h) })
	return m
}

func has(h host.Host) bool {
	for _, p := range h.Mux().Protocols() {
		if p == Protocol {
			return true
		}
	}
	return false
}

func (m *machine) connect(t *testing.T, to *machine) {
	t.Helper()
	until(t, "a connection", func() bool { return m.h.Connect(t.Context(), peer.AddrInfo{ID: to.h.ID(), Addrs: to.h.Addrs()}) == nil })
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}

func (m *machine) asked(n int) func() bool {
	return func() bool {
		_, peers := m.Offset()
		return peers == n
	}
}

// runs checks that a node has not ended.
func (m *machine) runs(t *testing.T) {
	t.Helper()
	select {
	case err := <-m.ended:
		t.Errorf("it ended: %v", err)
	default:
	}
}

// The second of two machines with one key is told so, with the address of the
// first one, and ends. The first one goes on.
func TestIdentityOnTwoMachines(t *testing.T) {
	witness, first := start(t, "witness", 0), start(t, "twin", 0)
	first.connect(t, witness)
	until(t, "the first one's time", first.asked(1))
	second := start(t, "twin", 0)
	second.connect(t, witness)
	select {
	case err := <-second.ended:
		if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "/ip4/127.0.0.1/tcp/") {
			t.Errorf("it ended with %v, want one that names the other's address", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the second machine was not told")
	}
	first.runs(t)
	witness.runs(t)
}

// Who answers late, and without a proof, is asked again: it may have waited for one
// in vain.
func TestLateAnswerIsAskedAgain(t *testing.T) {
	k := key(t, "twin")
	witness, err := libp2p.New(libp2p.Identity(key(t, "witness")), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { witness.Close() })
	var asked atomic.Int64
	witness.SetStreamHandler(Protocol, func(s network.Stream) {
		defer s.Close()
		var q [1 + numberBytes]byte
		if _, err := io.ReadFull(s, q[:]); err != nil {
			return
		}
		b := binary.LittleEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
		if other := [numberBytes]byte{1}; asked.Add(1) == tries {
			sig, err := k.Sign(signed([numberBytes]byte(q[1:]), other))
			if err != nil {
				t.Error(err)
			}
			b = append(append(append(append(b, 4), other[:]...), sig...), "addr"...)
		} else {
			b = append(b, 0)
		}
		_, _ = s.Write(b)
	})
	h, err := libp2p.New(libp2p.Identity(k), libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	p := New(h, Options{Key: k})
	p.late = 0 // each answer is
	until(t, "a connection", func() bool {
		return h.Connect(t.Context(), peer.AddrInfo{ID: witness.ID(), Addrs: witness.Addrs()}) == nil
	})
	if err := p.greetUntilSoon(t.Context(), witness.ID()); !errors.Is(err, ErrConflict) || asked.Load() != tries {
		t.Errorf("asked %d times: %v, want what the last answer proves", asked.Load(), err)
	}
	if asked.Store(tries); p.greetUntilSoon(t.Context(), witness.ID()) != nil || asked.Load() != 2*tries {
		t.Errorf("asked %d times, want %d", asked.Load()-tries, tries)
	}
	p.late = time.Hour
	if asked.Store(tries); p.greetUntilSoon(t.Context(), witness.ID()) != nil || asked.Load() != tries+1 {
		t.Errorf("asked %d times for a soon answer, want once", asked.Load()-tries)
	}
}

// Who does not answer is asked once, and again only when this machine may have
// missed the answer.
func TestSilenceIsNotAskedAgain(t *testing.T) {
	silent, err := libp2p.New(libp2p.Identity(key(t, "silent")), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	var asked atomic.Int64
	silent.SetStreamHandler(Protocol, func(s network.Stream) {
		asked.Add(1)
		_ = s.Reset()
	})
	k := key(t, "asker")
	h, err := libp2p.New(libp2p.Identity(k), libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	p := New(h, Options{Key: k})
	p.late = 0 // the end of each question is
	until(t, "a connection", func() bool {
		return h.Connect(t.Context(), peer.AddrInfo{ID: silent.ID(), Addrs: silent.Addrs()}) == nil
	})
	for _, stood := range []bool{false, true} {
		var watched int64
		p.watch = func() func() bool {
			watched++
			return func() bool { return stood }
		}
		want := int64(1)
		if stood {
			want = tries
		}
		if err := p.greetUntilSoon(t.Context(), silent.ID()); err == nil || watched != want {
			t.Errorf("after a standstill %v: asked %d times (%d came), want %d: %v", stood, watched, asked.Load(), want, err)
		}
	}
}

// A standstill is seen whether it is over with a tick or with the question.
func TestStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name  string
			after []time.Duration // between ticks; the question ends at the last
			want  bool
		}{
			{"none", []time.Duration{time.Second, time.Second, 2 * time.Second, 0, time.Second}, false},
			{"before a tick", []time.Duration{time.Second, challengeTimeout, time.Second}, true},
			{"at the beginning", []time.Duration{10 * time.Second, 0}, true},
			{"at the end", []time.Duration{time.Second, 10 * time.Second}, true},
		} {
			ticks := make(chan time.Time)
			stood := watchTicks(ticks)
			for i, d := range tt.after {
				time.Sleep(d)
				if i < len(tt.after)-1 {
					ticks <- time.Now()
					synctest.Wait()
				}
			}
			if got := stood(); got != tt.want {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			}
		}
		stood := watchClock()
		time.Sleep(askTimeout)
		if stood() {
			t.Error("a machine that runs did nothing")
		}
	})
}

// Two connections of one machine, and one that was started again, are no
// conflict.
func TestOneMachineIsNoConflict(t *testing.T) {
	witness, a := start(t, "witness", 0), start(t, "node", 0)
	a.connect(t, witness)
	until(t, "its time", a.asked(1))
	// Another connection of the same machine.
	b := start(t, "node", 0, a.number)
	b.connect(t, witness)
	until(t, "its time by the other connection", b.asked(1))
	b.runs(t)
	// It ends, and starts again with the same key.
	a.h.Close()
	b.h.Close()
	again := start(t, "node", 0)
	again.connect(t, witness)
	until(t, "its time again", again.asked(1))
	again.runs(t)
}

// Nobody is stopped by a peer that lies.
func TestALieStopsNobody(t *testing.T) {
	victim := start(t, "victim", 0)
	liar, err := libp2p.New(libp2p.Identity(key(t, "liar")), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { liar.Close() })
	// ask has the victim sign a number. Of two connections that began at the same
	// time one ends.
	ask := func(number [numberBytes]byte) []byte {
		var err error
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			for _, c := range liar.Network().ConnsToPeer(victim.h.ID()) {
				var b []byte
				if b, err = challenge(withTimeout(t), c, number); err == nil {
					return b
				}
			}
		}
		t.Errorf("the victim signs nothing: %v", err)
		return make([]byte, numberBytes+signatureSize)
	}
	var number [numberBytes]byte
	lies := map[string]func() []byte{
		"a signature of its own": func() []byte {
			sig, _ := key(t, "liar").Sign(signed(victim.number, number))
			return append(number[:], sig...)
		},
		"nothing": func() []byte { return make([]byte, numberBytes+signatureSize) },
		// The victim signs its own number for whoever asks; that proves nothing.
		"the victim's own": func() []byte {
			return ask(victim.number)
		},
		// Nor does what it signed for another number.
		"of another number": func() []byte {
			b := ask(number)
			return append(append([]byte{9}, b[1:numberBytes]...), b[numberBytes:]...)
		},
	}
	var lie atomic.Pointer[func() []byte]
	liar.SetStreamHandler(Protocol, func(s network.Stream) {
		defer s.Close()
		var q [1 + numberBytes]byte
		if _, err := io.ReadFull(s, q[:]); err != nil {
			return
		}
		b := binary.LittleEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
		b = append(append(b, 3), append((*lie.Load())(), "abc"...)...)
		_, _ = s.Write(b)
	})
	nothing := lies["nothing"]
	lie.Store(&nothing)
	until(t, "a connection", func() bool {
		return liar.Connect(t.Context(), peer.AddrInfo{ID: victim.h.ID(), Addrs: victim.h.Addrs()}) == nil
	})
	for name, l := range lies {
		lie.Store(&l)
		if err := victim.greet(t.Context(), liar.ID()); err == nil || errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	victim.runs(t)
}

func withTimeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A clock that is wrong shows by that of most others, and one of them that is
// wrong itself changes nothing.
func TestClock(t *testing.T) {
	const slack = 20 * time.Second // the machine may do nothing for a while between question and answer
	a := start(t, "late", -time.Minute)
	b, c, wrong := start(t, "b", 0), start(t, "c", 0), start(t, "wrong", 48*time.Hour)
	a.connect(t, b)
	until(t, "b's time", a.asked(1))
	a.connect(t, c)
	until(t, "c's time", a.asked(2))
	a.connect(t, wrong)
	until(t, "the wrong time", a.asked(3))
	off, _ := a.Offset()
	if d := off - time.Minute; d.Abs() > slack {
		t.Errorf("the others are %v ahead", off)
	}
	a.lock.Lock()
	if len(a.told) != 1 || (a.told[0]-time.Minute).Abs() > slack {
		t.Errorf("told %v", a.told)
	}
	a.lock.Unlock()
	b.connect(t, c)
	until(t, "both times", func() bool { _, n := b.Offset(); return n >= 2 })
	b.connect(t, wrong)
	until(t, "three times", b.asked(3))
	b.runs(t)
}

// Times of an hour ago count no more, and only so many are kept.
func TestTimesAreBounded(t *testing.T) {
	now := time.Now()
	told := 0
	p := New(nil, Options{Now: func() time.Time { return now }, Skewed: func(time.Duration, int) { told++ }})
	for i := range 3 * maxTimes {
		p.note(peer.ID(rune('a'+i)), time.Minute)
		now = now.Add(time.Second)
	}
	if len(p.times) != maxTimes || told != 1 {
		t.Errorf("%d times are kept, told %d times", len(p.times), told)
	}
	now = now.Add(2 * keptFor)
	if _, n := p.Offset(); n != 0 {
		t.Errorf("%d old times count", n)
	}
	p.note("x", time.Second)
	if off, n := p.Offset(); n != 1 || off != time.Second || told != 2 {
		t.Errorf("then %v of %d, told %d times", off, n, told)
	}
}

// What is no question is not answered.
func TestGarbage(t *testing.T) {
	a := start(t, "a", 0)
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	until(t, "a connection", func() bool { return h.Connect(t.Context(), peer.AddrInfo{ID: a.h.ID(), Addrs: a.h.Addrs()}) == nil })
	for _, q := range []string{"", "\x01short", "\x00" + strings.Repeat("x", numberBytes), "\x07" + strings.Repeat("x", 1000)} {
		s, err := h.NewStream(t.Context(), a.h.ID(), Protocol)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte(q))
		_ = s.CloseWrite()
		_ = s.SetReadDeadline(time.Now().Add(time.Minute))
		if b, err := io.ReadAll(s); len(b) != 0 {
			t.Errorf("%q is answered with %q, %v", q, b, err)
		}
	}
	a.runs(t)
}
