package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/shard"
)

// report is a line that a child writes to its parent.
type report struct {
	Addrs     []string `json:"addrs,omitempty"` // it can be reached there
	Seconds   float64  `json:"seconds,omitempty"`
	CPU       float64  `json:"cpu,omitempty"` // seconds, of the whole process
	PeakBytes int64    `json:"peak_bytes,omitempty"`
	Pulled    uint64   `json:"pulled,omitempty"`
	Sent      uint64   `json:"sent,omitempty"`
	Duplicate uint64   `json:"duplicate,omitempty"`
}

func tell(r report) {
	r.CPU, r.PeakBytes = usage()
	write(r)
}

func write(r report) {
	b, err := json.Marshal(r)
	if err != nil {
		panic("bug: " + err.Error())
	}
	fmt.Println(string(b))
}

// childOptions are the flags of all kinds of children.
type childOptions struct {
	dir, root, file, listen, to string
	peers                       string
	profile                     string
	rate                        float64
	delay                       time.Duration
}

// runChild is one node, or one end of a plain copy. It reads lines from its
// parent: the first makes it begin, the end of input makes it stop.
func runChild(args []string) error {
	var o childOptions
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "", "of the store")
	f.StringVar(&o.root, "root", "", "CID")
	f.StringVar(&o.file, "file", "", "to send or to write")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "IP and port")
	f.StringVar(&o.peers, "peers", "", "multiaddrs of nodes to connect to, separated by commas")
	f.StringVar(&o.to, "to", "", "IP and port")
	f.StringVar(&o.profile, "profile", "", "folder for a profile of the processor time")
	f.Float64Var(&o.rate, "rate", 0, "Mbit/s each way; 0: no limit")
	f.DurationVar(&o.delay, "delay", 0, "one way")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if o.profile != "" {
		stop, err := profile(o.profile, args[0])
		if err != nil {
			return err
		}
		defer stop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lines := make(chan struct{}, 1)
	go func() {
		defer cancel()
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- struct{}{}
		}
	}()
	switch args[0] {
	case "child-node":
		return o.node(ctx, lines)
	case "child-send":
		return o.send(ctx)
	case "child-receive":
		return o.receive()
	case "child-proxy":
		return o.proxy(ctx)
	}
	return fmt.Errorf("no such child: %s", args[0])
}

// profile writes what this process computes to a file of its own until stop.
func profile(dir, kind string) (stop func(), err error) {
	f, err := os.CreateTemp(dir, kind+"-*.pprof")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "netbench: profile: %v\n", err)
		}
	}, nil
}

// node serves a store and, when it is told to, fetches the root.
func (o *childOptions) node(ctx context.Context, begin <-chan struct{}) (err error) {
	store, err := shard.Open(o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	ip, port, err := net.SplitHostPort(o.listen)
	if err != nil {
		return err
	}
	h, err := p2p.New(p2p.Options{Key: key, Listen: []string{"/ip4/" + ip + "/tcp/" + port}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	puller, err := pull.New(h.Libp2p(), store, pull.Options{})
	if err != nil {
		return err
	}
	rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- puller.Run(rctx) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	tell(report{Addrs: h.Addrs()})
	select {
	case <-ctx.Done(): // it only served
	case <-begin:
		if err := o.fetch(ctx, h, store, puller); err != nil {
			return err
		}
		<-ctx.Done()
	}
	s := puller.Stats()
	tell(report{Pulled: s.PulledBytes, Sent: s.SentBytes, Duplicate: s.DuplicateBytes})
	return nil
}

func (o *childOptions) fetch(ctx context.Context, h *p2p.Host, store *shard.Store, puller *pull.Puller) error {
	root, err := cid.Decode(o.root)
	if err != nil {
		return err
	}
	var from []peer.ID
	for _, a := range strings.Split(o.peers, ",") {
		info, err := peer.AddrInfoFromString(a)
		if err != nil {
			return err
		}
		if err := h.Connect(ctx, a); err != nil {
			return err
		}
		from = append(from, info.ID)
	}
	before, _ := usage()
	began := time.Now()
	folder, opts := filepath.Join(o.dir, "folder"), shard.FolderOptions{MaxBytes: 1 << 40}
	err = puller.Fetch(ctx, root, pull.FetchOptions{Providers: from, Before: func(_, _ int64) error {
		return store.Grow(ctx, root, folder, opts)
	}})
	if err == nil {
		_, err = store.Folder(ctx, root, folder, opts)
	}
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	after, _ := usage()
	s := puller.Stats()
	tellFetch(report{Seconds: took, Pulled: s.PulledBytes, Duplicate: s.DuplicateBytes}, after-before)
	return nil
}

// tellFetch is tell with the processor time of the fetch alone.
func tellFetch(r report, cpu float64) {
	_, r.PeakBytes = usage()
	r.CPU = cpu
	write(r)
}

// send gives the file to each that connects, by as few copies as Go knows.
func (o *childOptions) send(ctx context.Context) error {
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	tell(report{Addrs: []string{l.Addr().String()}})
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := sendFile(c, o.file); err != nil {
			return err
		}
	}
}

func sendFile(c net.Conn, name string) error {
	defer func() { _ = c.Close() }() // there is nothing to lose
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(c, f)
	return err
}

// receive copies a file from a sender, as pull has to: it checks the hash of
// each MiB, and the file is on the disk when it is done. The expected hashes are
// those of the sender's file, which is here too.
func (o *childOptions) receive() error {
	want, err := hashes(o.root)
	if err != nil {
		return err
	}
	before, _ := usage()
	began := time.Now()
	c, err := net.Dial("tcp", o.to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // there is nothing to lose
	f, err := os.Create(o.file)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, shard.ChunkBytes)
	for i := 0; ; i++ {
		n, err := io.ReadFull(c, buf)
		if n > 0 {
			if i >= len(want) || sha256.Sum256(buf[:n]) != want[i] {
				return fmt.Errorf("MiB %d has another hash", i)
			}
			if _, err := f.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	after, _ := usage()
	tellFetch(report{Seconds: took}, after-before)
	return nil
}

// hashes are those of each MiB of a file.
func hashes(name string) (out [][sha256.Size]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, shard.ChunkBytes)
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			out = append(out, sha256.Sum256(buf[:n]))
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// proxy passes connections on, with a delay and at a rate each way.
func (o *childOptions) proxy(ctx context.Context) error {
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	tell(report{Addrs: []string{l.Addr().String()}})
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }() // there is nothing to lose
			d, err := net.Dial("tcp", o.to)
			if err != nil {
				return
			}
			defer func() { _ = d.Close() }() // likewise
			done := make(chan struct{})
			go func() {
				defer close(done)
				passOn(d, c, o.rate, o.delay)
			}()
			passOn(c, d, o.rate, o.delay)
			<-done
		}()
	}
}

// passOn copies what comes later, at no more than a rate. What waits is at most
// what the line holds in the delay and 100 ms more; then the sender has to wait,
// as at a router without losses.
func passOn(to, from net.Conn, mbit float64, delay time.Duration) {
	const step = 8 << 10
	type piece struct {
		b   []byte
		due time.Time
	}
	depth := 16 << 20 / step
	if mbit > 0 {
		depth = max(int(mbit*1e6/8*(delay+100*time.Millisecond).Seconds())/step, 4)
	}
	queue := make(chan piece, depth)
	stop := make(chan struct{})
	go func() {
		defer close(queue)
		var free time.Time
		for {
			b := make([]byte, step)
			n, err := from.Read(b)
			if n > 0 {
				if now := time.Now(); free.Before(now) {
					free = now
				}
				if mbit > 0 {
					free = free.Add(time.Duration(float64(n) * 8 / mbit * float64(time.Microsecond)))
				}
				select {
				case queue <- piece{b[:n], free.Add(delay)}:
				case <-stop:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range queue {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.b); err != nil {
			break
		}
	}
	close(stop)
	_, _ = to.Close(), from.Close() // one of them is closed already
}
