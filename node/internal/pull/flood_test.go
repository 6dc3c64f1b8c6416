package pull

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	bspb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"

	"github.com/moot-net/moot/node/internal/exchange"
	"github.com/moot-net/moot/node/internal/fetchtest"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/shard"
)

var (
	floodTime     = flag.Duration("floodtime", 4*time.Second, "how long a node is flooded")
	floodMessages = flag.Int("floodmessages", 50_000, "small messages that each of four peers publishes")
)

const (
	// floodedMB is how much memory a node has at most, whatever peers send. Most
	// of it is for 16 askers who do not take what they asked for.
	floodedMB = 300
	flooders  = 4
)

// floodChild is the environment variable that makes this test program the node
// that is flooded: its folder.
const floodChild = "MOOT_TEST_FLOODED"

// Four peers send a node all that a program without shame can send, at the same
// time. It stays within its memory, and serves an honest peer while they do.
func TestFlood(t *testing.T) {
	if dir := os.Getenv(floodChild); dir != "" {
		floodedNode(t, dir)
		return
	}
	if testing.Short() {
		t.Skip("floods a node for some seconds")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("the memory of another process is read as Linux tells it")
	}
	v := startFlooded(t)
	before := v.memory(t)
	var hosts []*p2p.Host
	for range flooders {
		h := newHost(t, nil, "/ip4/127.0.0.1/tcp/0")
		fetchtest.Connect(t, h, v.addr)
		hosts = append(hosts, h)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var count flooded
	wg.Go(func() { // on a slow machine it takes longer until it is a flood
		for began := time.Now(); time.Since(began) < *floodTime || !count.enough() && time.Since(began) < 2*time.Minute; {
			time.Sleep(50 * time.Millisecond)
		}
		cancel()
	})
	for i, h := range hosts {
		f := &flooder{h: h, to: v.id, root: v.root, leaves: v.leaves, n: &count, number: i}
		for _, attack := range []func(context.Context){
			f.unknownBlocks, f.takesNothing, f.oversize, f.idleStreams, f.wants, f.wantsAndTakesNothing, f.messages, f.halfRequests,
		} {
			wg.Go(func() { attack(ctx) })
		}
	}
	honest := newNode(t, memory(), nodeOptions{alone: true})
	fetchtest.Connect(t, honest.h, v.addr)
	begun := time.Now()
	if err := honest.p.Fetch(within(t, 5*time.Minute), v.root, FetchOptions{Providers: []peer.ID{v.id}}); err != nil {
		t.Error(err)
	}
	t.Logf("an honest peer got %d MiB in %v", len(v.leaves), time.Since(begun))
	wg.Wait()
	after := v.memory(t)
	t.Logf("%s; memory was %d MB before, %d MB at most", &count, before, after)
	if after > floodedMB {
		t.Errorf("the node had %d MB, at most %d are promised", after, floodedMB)
	}
	if !count.enough() {
		t.Errorf("that was no flood: %s", &count)
	}
}

// flooded is what was sent.
type flooded struct{ streams, requests, wants, messages, frames atomic.Int64 }

func (f *flooded) enough() bool {
	return f.streams.Load() >= 100 && f.requests.Load() >= 100 && f.messages.Load() >= 1000 && f.wants.Load() >= 1000
}

func (f *flooded) String() string {
	return fmt.Sprintf("%d streams, %d requests for unknown blocks, %d wants, %d messages, %d oversize frames",
		f.streams.Load(), f.requests.Load(), f.wants.Load(), f.messages.Load(), f.frames.Load())
}

// victim is the node that is flooded, as the others see it.
type victim struct {
	id     peer.ID
	addr   string
	root   cid.Cid
	leaves []cid.Cid
	in     io.Writer
	out    *bufio.Scanner
}

const floodMiB = 32

func startFlooded(t *testing.T) *victim {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestFlood$", "-test.v")
	cmd.Env = append(os.Environ(), floodChild+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v := &victim{in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		in.Close() // ends it
		for v.out.Scan() {
			if strings.Contains(v.out.Text(), "FAIL") {
				t.Errorf("the node says: %s", v.out.Text())
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the node ended: %v", err)
		}
	})
	root := ""
	v.answer(t, "NODE %s %s", &v.addr, &root)
	info, err := peer.AddrInfoFromString(v.addr)
	if err != nil {
		t.Fatal(err)
	}
	v.id = info.ID
	if v.root, err = cid.Decode(root); err != nil {
		t.Fatal(err)
	}
	for i := range floodMiB {
		v.leaves = append(v.leaves, leaf(content(byte(i), mib)).Cid())
	}
	return v
}

func (v *victim) answer(t *testing.T, format string, to ...any) {
	t.Helper()
	for v.out.Scan() {
		if n, _ := fmt.Sscanf(v.out.Text(), format, to...); n == len(to) {
			return
		}
	}
	t.Fatal("the node ended early")
}

// memory is the most that the node had, in MB.
func (v *victim) memory(t *testing.T) (mb int) {
	t.Helper()
	if _, err := io.WriteString(v.in, "\n"); err != nil {
		t.Fatal(err)
	}
	v.answer(t, "MEMORY %d", &mb)
	return mb
}

// floodedNode is a node with all that peers can speak to.
func floodedNode(t *testing.T, dir string) {
	st := openShard(t, filepath.Join(dir, "store"))
	model := filepath.Join(dir, "model")
	if err := os.Mkdir(model, 0o755); err != nil {
		t.Fatal(err)
	}
	var b []byte
	for i := range floodMiB {
		b = append(b, content(byte(i), mib)...)
	}
	if err := os.WriteFile(filepath.Join(model, "weights.bin"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	imp, err := st.ImportDir(t.Context(), model, shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, nil, "/ip4/127.0.0.1/tcp/0")
	running(t, h.Run)
	ex, err := exchange.New(h.Libp2p(), st, exchange.Options{Router: h})
	if err != nil {
		t.Fatal(err)
	}
	running(t, ex.Run)
	p, err := New(h.Libp2p(), st, Options{Router: h, Fallback: ex})
	if err != nil {
		t.Fatal(err)
	}
	running(t, p.Run)
	g, err := gossip.New(h.Libp2p(), gossip.Options{})
	if err != nil {
		t.Fatal(err)
	}
	running(t, g.Run)
	topic, err := g.Join(gossip.RunTopic(imp.Root), func(_ context.Context, _ peer.ID, data []byte) (any, gossip.Verdict) {
		if len(data) < 8 {
			return nil, gossip.Reject
		}
		return nil, gossip.Accept
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range topic.Messages() { // ends with gossip
		}
	}()
	fmt.Printf("NODE %s %s\n", h.Addrs()[0], imp.Root)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Printf("MEMORY %d\n", peakMB(t))
	}
}

// peakMB is the most memory that this process had.
func peakMB(t *testing.T) (kb int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, s, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(s, &kb); err != nil {
		t.Fatal(err)
	}
	return kb * 1024 / 1e6
}

// flooder is a peer without shame. What fails, for the node defends itself, is
// tried again.
type flooder struct {
	h      *p2p.Host
	to     peer.ID
	root   cid.Cid
	leaves []cid.Cid
	n      *flooded
	number int
}

// stream opens a stream and writes to it.
func (f *flooder) stream(ctx context.Context, p protocol.ID, b []byte) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := f.h.Libp2p().NewStream(ctx, f.to, p)
	if err != nil {
		time.Sleep(5 * time.Millisecond)
		return nil, err
	}
	f.n.streams.Add(1)
	_ = s.SetDeadline(time.Now().Add(2 * time.Second)) // memory streams alone have none
	if _, err := s.Write(b); err != nil {
		_ = s.Reset()
		return nil, err
	}
	return s, nil
}

func randomCID() cid.Cid {
	var d [32]byte
	_, _ = rand.Read(d[:]) // never fails
	mh, err := multihash.Encode(d[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// unknownBlocks asks for what does not exist, as fast as the answers come.
func (f *flooder) unknownBlocks(ctx context.Context) {
	for ctx.Err() == nil {
		b := []byte{streamBlocks}
		for range maxWindow {
			b = appendRequest(b, randomCID())
		}
		s, err := f.stream(ctx, Protocol, b)
		if err != nil {
			continue
		}
		n, _ := io.CopyN(io.Discard, s, maxWindow)
		f.n.requests.Add(n)
		_ = s.Reset()
	}
}

// takesNothing asks for blocks on many streams and reads nothing.
func (f *flooder) takesNothing(ctx context.Context) {
	var open []network.Stream
	for ctx.Err() == nil {
		b := []byte{streamBlocks}
		for i := range maxWindow {
			b = appendRequest(b, f.leaves[i%len(f.leaves)])
		}
		if s, err := f.stream(ctx, Protocol, b); err == nil {
			open = append(open, s)
		}
		if len(open) > 200 {
			_ = open[0].Reset()
			open = open[1:]
		}
	}
	for _, s := range open {
		_ = s.Reset()
	}
}

// oversize announces frames that are larger than anything may be.
func (f *flooder) oversize(ctx context.Context) {
	huge := binary.AppendUvarint(nil, 1<<30)
	full := append(huge, make([]byte, 64<<10)...)
	for ctx.Err() == nil {
		for _, p := range []protocol.ID{
			Protocol, "/meshsub/1.2.0", bsnet.ProtocolBitswap, "/moot/peers/1", "/moot/kad/1.0.0", "/ipfs/id/push/1.0.0",
		} {
			b := full
			if p == Protocol {
				b = append([]byte{streamHave}, full...)
			}
			if s, err := f.stream(ctx, p, b); err == nil {
				f.n.frames.Add(1)
				_ = s.Reset()
			}
		}
	}
}

// idleStreams opens streams and says nothing.
func (f *flooder) idleStreams(ctx context.Context) {
	var open []network.Stream
	for i := 0; ctx.Err() == nil && i < 5000; i++ {
		p := []protocol.ID{Protocol, bsnet.ProtocolBitswap, "/moot/peers/1", "/ipfs/ping/1.0.0"}[i%4]
		if s, err := f.stream(ctx, p, nil); err == nil {
			open = append(open, s)
		}
	}
	<-ctx.Done()
	for _, s := range open {
		_ = s.Reset()
	}
}

// wants sends lists of what does not exist.
func (f *flooder) wants(ctx context.Context) {
	for ctx.Err() == nil {
		m := bsmsg.New(false)
		for range 5000 {
			m.AddEntry(randomCID(), 1, bspb.Message_Wantlist_Block, true)
		}
		s, err := f.stream(ctx, bsnet.ProtocolBitswap, nil)
		if err != nil {
			continue
		}
		for range 5 {
			if err := m.ToNetV1(s); err != nil {
				break
			}
			f.n.wants.Add(5000)
		}
		_ = s.Reset()
	}
}

// wantsAndTakesNothing asks by bitswap for all blocks, and never reads the
// answers.
func (f *flooder) wantsAndTakesNothing(ctx context.Context) {
	f.h.Libp2p().SetStreamHandler(bsnet.ProtocolBitswap, func(network.Stream) {})
	for ctx.Err() == nil {
		m := bsmsg.New(true)
		for _, c := range f.leaves {
			m.AddEntry(c, 1, bspb.Message_Wantlist_Block, true)
		}
		if s, err := f.stream(ctx, bsnet.ProtocolBitswap, nil); err == nil {
			_ = m.ToNetV1(s)
			_ = s.Reset()
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// messages publishes small messages, all signed: some that are invalid, and some
// that are not.
func (f *flooder) messages(ctx context.Context) {
	ps, err := pubsub.NewGossipSub(ctx, f.h.Libp2p(), pubsub.WithFloodPublish(true), pubsub.WithPeerOutboundQueueSize(4096))
	if err != nil {
		return
	}
	topic, err := ps.Join(gossip.RunTopic(f.root))
	if err != nil {
		return
	}
	if _, err := topic.Subscribe(); err != nil {
		return
	}
	for i := 0; ctx.Err() == nil && i < *floodMessages; i++ {
		data := fmt.Appendf(nil, "%d %d is a small message", f.number, i)
		if i%10 == 0 {
			data = fmt.Append(nil, i)
		}
		if err := topic.Publish(ctx, data); err == nil {
			f.n.messages.Add(1)
		}
	}
}

// halfRequests begins requests and does not end them.
func (f *flooder) halfRequests(ctx context.Context) {
	var open []network.Stream
	for ctx.Err() == nil {
		s, err := f.stream(ctx, "/moot/peers/1", binary.AppendUvarint(nil, 4000))
		if err == nil {
			open = append(open, s)
		} else if errors.Is(err, network.ErrResourceLimitExceeded) && len(open) > 0 {
			_ = open[0].Reset()
			open = open[1:]
		}
	}
	for _, s := range open {
		_ = s.Reset()
	}
}
