package runner

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// Three nodes that know one address train together; two of them have nothing
// at first.
func TestRunOfThree(t *testing.T) {
	t.Parallel()
	a := newNode(t, 1)
	b, c := newNode(t, 2, a.addr()), newNode(t, 3, a.addr())
	man := launch(t, a, func(m *run.Manifest) { m.MinPeers, m.MaxRounds = 3, 1000 })
	ra, _ := a.takePart(t, man)
	rb, _ := b.takePart(t, man)
	rc, _ := c.takePart(t, man)
	var told []api.Progress
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := rb.Ready(ctx, func(p api.Progress) { told = append(told, p) }); err != nil {
		t.Fatal(err)
	}
	if len(told) == 0 {
		t.Error("nothing was told of the pull")
	}
	// On a slow machine any of them may be late in a round, and so there are as many as
	// it takes until each has contributed, and three have trained.
	together := 0 // rounds to which more than one contributed
	until(t, "contribution of each", func() bool {
		rounds, err := rc.Rounds(1, 1000)
		if err != nil {
			t.Fatal(err)
		}
		makers := make(map[string]bool)
		together = 0
		for _, r := range rounds {
			for _, c := range r.Contributions {
				makers[c.Peer] = true
			}
			if len(r.Contributions) > 1 {
				together++
			}
		}
		return len(makers) == 3 && together > 0 && rc.Summary().TrainedRounds >= 3
	})
	until(t, "order that is taken", func() bool { return ra.Order(ctx, msg.Order{Action: msg.ActionStop}) == nil })
	sameEnd(t, ra, rb, rc)
	rounds, err := rc.Rounds(1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	trained, certified := 0, 0
	for _, r := range rounds {
		if len(r.Contributions) == 0 {
			continue
		}
		trained++
		if r.TrainLoss == nil {
			t.Errorf("round %d of %d contributions has no loss", r.Round, len(r.Contributions))
		}
		if r.Certified {
			certified++
		}
	}
	if got := rc.Summary().TrainedRounds; uint64(trained) != got || certified == 0 {
		t.Errorf("%d rounds have contributions, %d of them certified; %d are said to have trained", trained, certified, got)
	}
	// The state is whole on all of them, and the same bytes.
	var want []byte
	for _, r := range []*Runner{ra, rb, rc} {
		s, err := r.StateAt(ctx, nil, cid.Undef)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.State.Marshal(); want == nil {
			want = got
		} else if !bytes.Equal(got, want) {
			t.Error("the states differ")
		}
	}
	until(t, "evaluation of the end", func() bool { rs, _ := ra.Rounds(rounds[len(rounds)-1].Round, 1); return rs[0].EvalLoss != nil })
	for _, e := range []api.EventType{api.EventRound, api.EventCommit, api.EventPhase, api.EventJoined, api.EventRunState, api.EventEval} {
		if a.events.count(e) == 0 {
			t.Errorf("no event %s", e)
		}
	}
	if _, err := ra.StateAt(ctx, new(uint64(99)), cid.Undef); api.AsError(err).Code != api.CodeNotFound {
		t.Errorf("state after round 99: %v", err)
	}
}

// A node that is stopped in a run goes on with it, and one that comes when the
// run is over gets its result.
func TestStopAndGoOn(t *testing.T) {
	t.Parallel()
	a := newNode(t, 4)
	man := launch(t, a, func(m *run.Manifest) { m.MaxRounds = 10 })
	r, stop := a.takePart(t, man)
	until(t, "second round", func() bool { return r.Summary().TrainedRounds >= 2 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	before := r.Summary()
	if before.TrainedRounds < 2 || before.Final {
		t.Fatalf("stopped in round %d of %d", before.TrainedRounds, before.MaxRounds)
	}
	r, _ = a.takePart(t, man)
	sameEnd(t, r)
	if got := r.Summary().TrainedRounds; got != 10 {
		t.Errorf("%d rounds trained, want 10", got)
	}
	if k, _, _ := r.ledger.At(msg.Round(before.Round)); k.ID.String() != before.Head {
		t.Errorf("round %d is another one after the restart", before.Round)
	}
	if got := r.Summary().CertifiedRounds; got != r.Summary().Round {
		t.Errorf("%d of %d rounds certified", got, r.Summary().Round)
	}
	late := newNode(t, 5, a.addr())
	rl, _ := late.takePart(t, man)
	sameEnd(t, r, rl)
}

// A run whose manifest does not fit its model is given up with a reason.
func TestManifestThatDoesNotFit(t *testing.T) {
	t.Parallel()
	a := newNode(t, 6)
	man := launch(t, a, func(m *run.Manifest) {
		for i := range m.Tensors { // half as wide as the model
			if m.Tensors[i].Rows == 4 {
				m.Tensors[i].Cols /= 2
			}
		}
	})
	r, err := a.hub.Open(t.TempDir(), man)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := a.hub.Open(t.TempDir(), man); err == nil {
		t.Error("a run was opened twice")
	}
	if err := r.Run(t.Context()); api.AsError(err).Code != api.CodeRefused {
		t.Errorf("Run() = %v", err)
	}
	if s := r.Summary(); s.State != api.RunFailed || s.Why == "" {
		t.Errorf("state %s, %q", s.State, s.Why)
	}
	if err := r.Ready(t.Context(), func(api.Progress) {}); err == nil {
		t.Error("a failed run is ready")
	}
}

// What others publish is judged before anything else sees it.
func TestValidate(t *testing.T) {
	t.Parallel()
	a := newNode(t, 7)
	man := launch(t, a, nil)
	r, err := a.hub.Open(t.TempDir(), man)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	key, id := nodeKey(t, 8)
	_, other := nodeKey(t, 9)
	seal := func(runID cid.Cid) []byte {
		s, err := msg.Seal(key, &msg.JoinRequest{Run: runID, Peer: id, Seq: 1})
		if err != nil {
			t.Fatal(err)
		}
		return s.Envelope
	}
	good := seal(r.ID())
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	if _, v := r.validate(t.Context(), id, good); v != gossip.Accept {
		t.Error("a good message was refused")
	}
	if _, v := r.validate(t.Context(), other, good); v != gossip.Reject {
		t.Error("the words of another were accepted")
	}
	if _, v := r.validate(t.Context(), id, bad); v != gossip.Reject {
		t.Error("a bad signature was accepted")
	}
	if _, v := r.validate(t.Context(), id, seal(msg.RawCID([]byte("x")))); v != gossip.Reject {
		t.Error("a message of another run was accepted")
	}
	if _, err := a.hub.answerSync(t.Context(), id, syncRequest{Run: msg.RawCID([]byte("x"))}.encode()); err == nil {
		t.Error("records of a run that is not here were given")
	}
	if _, err := a.hub.answerSync(t.Context(), id, []byte{9}); !errors.Is(err, errSyncFrame) {
		t.Errorf("a malformed request: %v", err)
	}
}

// Each way in which a delta can be wrong has its reason.
func TestRefusedDeltas(t *testing.T) {
	t.Parallel()
	a := newNode(t, 10)
	man := launch(t, a, nil)
	layout, err := man.Layout()
	if err != nil {
		t.Fatal(err)
	}
	values := make([]int32, layout.Params())
	for i := range values {
		values[i] = int32(i%7) * 100
	}
	encode := func(bits int) []byte {
		b, err := fold.Encode(layout, bits, values, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := encode(2)
	dec, err := fold.Decode(layout, good)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(good)
	copy(broken, "not a delta")
	// The scale of a chunk, not in its shortest form: mantissa 1, exponent 1.
	odd := bytes.Clone(good)
	copy(odd[48:], []byte{1, 0, 1})
	put := func(b []byte) cid.Cid {
		c, err := a.store.PutBytes(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	commit := msg.Commit{Run: msg.RawCID([]byte("r")), Round: 1, Delta: put(good), DeltaBytes: uint64(len(good)), CodecBits: 2, Norm: dec.Norm()}
	tests := []struct {
		name   string
		change func(*msg.Commit)
		want   msg.Reason
	}{
		{"good", func(*msg.Commit) {}, msg.Held},
		{"another codec", func(c *msg.Commit) { c.CodecBits = 4 }, msg.BadCodec},
		{"claims too much", func(c *msg.Commit) { c.DeltaBytes++ }, msg.TooLarge},
		{"claims too little", func(c *msg.Commit) { c.DeltaBytes-- }, msg.BadSize},
		{"is too small", func(c *msg.Commit) { c.Delta = put(good[:len(good)-1]) }, msg.BadSize},
		{"is too large", func(c *msg.Commit) { c.Delta = put(append(bytes.Clone(good), 0)) }, msg.BadSize},
		{"has other bits than it says", func(c *msg.Commit) { c.Delta = put(encode(4)) }, msg.BadSize},
		{"is no delta", func(c *msg.Commit) { c.Delta = put(broken) }, msg.BadCodec},
		{"has a scale that is not canonical", func(c *msg.Commit) { c.Delta = put(odd) }, msg.BadRange},
		{"has another norm", func(c *msg.Commit) { c.Norm++ }, msg.BadNorm},
		{"does not come", func(c *msg.Commit) { c.Delta = fold.FileCID([]byte("nobody has it")) }, msg.Timeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDeltas(a.store, fetcher{p: a.hub.o.Puller}, layout, 2, 2)
			wait := 2 * time.Minute
			if tt.want == msg.Timeout {
				wait = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			c := commit
			tt.change(&c)
			if got := d.check(ctx, &c); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// flaky fails to read a number of times.
type flaky struct {
	Store
	fails int
	err   error
}

func (f *flaky) ReadBytes(ctx context.Context, root cid.Cid, limit int64) ([]byte, error) {
	if f.fails > 0 {
		f.fails--
		return nil, f.err
	}
	return f.Store.ReadBytes(ctx, root, limit)
}

type atOnce struct{}

func (atOnce) Fetch(context.Context, cid.Cid, int64, []peer.ID) error { return nil }

// What this machine cannot read is nobody else's fault, and is tried once more.
func TestReadDelta(t *testing.T) {
	t.Parallel()
	layout, err := fold.NewLayout([]fold.Tensor{{Name: "a", Rows: 1, Cols: 5}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := fold.Encode(layout, 2, []int32{3000, 1000, -1000, -3000, 3000}, nil)
	if err != nil {
		t.Fatal(err)
	}
	delta, err := fold.Decode(layout, b)
	if err != nil {
		t.Fatal(err)
	}
	store, err := shard.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	id, err := store.PutBytes(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	disk := errors.New("input/output error")
	for _, tt := range []struct {
		fails int
		err   error
		want  msg.Reason
	}{
		{1, disk, msg.Held},
		{9, disk, msg.Timeout},
		{9, shard.ErrIncomplete, msg.Timeout},
		{9, shard.ErrInvalid, msg.BadHash},
		{9, shard.ErrTooLarge, msg.BadSize},
	} {
		d := newDeltas(&flaky{Store: store, fails: tt.fails, err: tt.err}, atOnce{}, layout, 2, 2)
		c := msg.Commit{Delta: id, DeltaBytes: uint64(len(b)), CodecBits: 2, Norm: delta.Norm()}
		if got := d.check(t.Context(), &c); got != tt.want {
			t.Errorf("%d times %v: %v, want %v", tt.fails, tt.err, got, tt.want)
		}
	}
}
