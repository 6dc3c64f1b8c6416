package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moot-net/moot/shard"
	"github.com/moot-net/moot/shard/importbench"
)

const mib = 1 << 20

// bench is what the cases share.
type bench struct {
	ctx context.Context
	dir string
	o   *options
	out figures
	n   int // stores so far
}

// benchCase measures some of the figures.
type benchCase struct {
	name, title string
	figures     []string
	measure     func(*bench) error
}

var cases []benchCase // set by init, for caseNames is used by what they call

func init() {
	cases = []benchCase{
		{"loopback", "loopback: one and four peers to one, beside a TCP copy that checks the same hashes and writes to the same disk", []string{
			"tcp_mb_per_s", "pull_mb_per_s", "pull_ratio_tcp", "pull_4to1_ratio", "pull_cpu_s_per_gb", "seed_cpu_s_per_gb", "tcp_cpu_s_per_gb", "peak_memory_mb",
		}, (*bench).loopback},
		{"limited", "a line of 100 Mbit/s (tbf)", []string{"limited_line_share", "limited_line_share_of_tcp", "limited_line_share_of_payload"}, (*bench).limited},
		{"delayed", "a line of 100 Mbit/s, 100 ms there and back", []string{"delayed_line_share", "delayed_line_share_of_tcp"}, (*bench).delayed},
		{"unequal", "peers on lines of 100, 20, 20 and 5 Mbit/s to one", []string{"unequal_seeders_ratio_ideal"}, (*bench).unequal},
		{"swarm", "one peer on 50 Mbit/s to four that begin at once, each 50 up and 200 down", []string{
			"swarm_seeder_copies", "swarm_ratio_ideal", "swarm_duplicate_share",
		}, (*bench).swarm},
		{"import", "import of files beside SHA-256 of the same bytes on all cores", []string{"import_ratio_sha256"}, (*bench).imports},
	}
}

func caseNames() (out []string) {
	for _, c := range cases {
		out = append(out, c.name)
	}
	return out
}

// content makes a file of n MiB of noise and a store that has it, as often as
// copies says.
func (b *bench) content(n, copies int) (file, root string, bytes int64, stores []string, err error) {
	b.n++
	dir := filepath.Join(b.dir, fmt.Sprint("content", b.n))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", 0, nil, err
	}
	file = filepath.Join(dir, "weights.bin")
	f, err := os.Create(file)
	if err != nil {
		return "", "", 0, nil, err
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{byte(b.n)})
	buf := make([]byte, mib)
	for range n {
		_, _ = r.Read(buf) // never fails
		if _, err := f.Write(buf); err != nil {
			return "", "", 0, nil, err
		}
	}
	for range copies {
		name := b.newStore()
		st, err := shard.Open(name)
		if err != nil {
			return "", "", 0, nil, err
		}
		imp, err := st.ImportDir(b.ctx, dir, shard.ImportOptions{InPlace: true})
		if err == nil {
			_, bytes, _, err = st.Missing(b.ctx, imp.Root)
		}
		if err := firstOf(err, st.Close()); err != nil {
			return "", "", 0, nil, err
		}
		root, stores = imp.Root.String(), append(stores, name)
	}
	return file, root, bytes, stores, nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) newStore() string {
	b.n++
	return filepath.Join(b.dir, fmt.Sprint("store", b.n))
}

// host is where a child runs.
type host struct {
	before []string
	listen string
}

func onLoopback(int) host { return host{nil, "127.0.0.1:0"} }

func (l *lab) host(i int) host { return host{l.in(i), l.addr(i) + ":4001"} }

// transfer is one or more nodes that fetch from others.
type transfer struct {
	root    string
	stores  []string // of the seeds, which are on the first hosts
	pullers int      // on the hosts that follow
	proxy   bool     // the pullers see the seeds through proxies: 100 Mbit/s, 50 ms each way
	host    func(i int) host
}

// outcome is what came of it.
type outcome struct {
	seconds      float64 // of the slowest
	pulls, seeds []report
}

func (b *bench) transfer(t transfer) (out outcome, err error) {
	ctx, cancel := context.WithCancel(b.ctx) // ends what is left after an error
	defer cancel()
	var seeds, pulls []*process
	var addrs []string
	for i, store := range t.stores {
		h := t.host(i)
		p, err := b.start(ctx, h.before, "child-node", "-dir", store, "-listen", h.listen)
		if err != nil {
			return out, err
		}
		r, err := p.report()
		if err != nil {
			return out, err
		}
		seeds = append(seeds, p)
		addr := r.Addrs[0]
		if t.proxy {
			if addr, err = b.proxy(ctx, addr); err != nil {
				return out, err
			}
		}
		addrs = append(addrs, addr)
	}
	for i := range t.pullers {
		h := t.host(len(t.stores) + i)
		store := b.newStore()
		defer os.RemoveAll(store)
		p, err := b.start(ctx, h.before, "child-node", "-dir", store, "-listen", h.listen, "-root", t.root, "-peers", strings.Join(addrs, ","))
		if err != nil {
			return out, err
		}
		r, err := p.report()
		if err != nil {
			return out, err
		}
		pulls = append(pulls, p)
		if t.pullers > 1 { // all know each other
			addrs = append(addrs, r.Addrs[0])
		}
	}
	for _, p := range pulls {
		if err := p.begin(); err != nil {
			return out, err
		}
	}
	for _, p := range pulls {
		r, err := p.report()
		if err != nil {
			return out, err
		}
		out.seconds = max(out.seconds, r.Seconds)
		out.pulls = append(out.pulls, r)
	}
	for i, p := range slices.Concat(pulls, seeds) {
		r, err := p.end()
		if err != nil {
			return out, err
		}
		if i < len(pulls) {
			out.pulls[i].Sent, out.pulls[i].PeakBytes = r.Sent, r.PeakBytes
		} else {
			out.seeds = append(out.seeds, r)
		}
	}
	return out, nil
}

// proxy stands before a multiaddr on loopback and returns its own.
func (b *bench) proxy(ctx context.Context, addr string) (string, error) {
	part := strings.Split(addr, "/") // "", ip4, IP, tcp, port, ...
	p, err := b.start(ctx, nil, "child-proxy", "-to", part[2]+":"+part[4], "-rate", "100", "-delay", "50ms")
	if err != nil {
		return "", err
	}
	r, err := p.report()
	if err != nil {
		return "", err
	}
	_, part[4], _ = strings.Cut(r.Addrs[0], ":")
	return strings.Join(part, "/"), nil
}

// tcp is a plain copy of a file from one host to another.
func (b *bench) tcp(file string, from, to host, proxy bool) (r report, err error) {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	s, err := b.start(ctx, from.before, "child-send", "-file", file, "-listen", from.listen)
	if err != nil {
		return r, err
	}
	r, err = s.report()
	if err != nil {
		return r, err
	}
	addr := r.Addrs[0]
	if proxy {
		ip, port, _ := strings.Cut(addr, ":")
		if addr, err = b.proxy(ctx, "/ip4/"+ip+"/tcp/"+port); err != nil {
			return r, err
		}
		part := strings.Split(addr, "/")
		addr = part[2] + ":" + part[4]
	}
	out := b.newStore()
	defer os.Remove(out)
	c, err := b.start(ctx, to.before, "child-receive", "-root", file, "-file", out, "-to", addr)
	if err != nil {
		return r, err
	}
	if r, err = c.report(); err != nil {
		return r, err
	}
	if _, err := c.end(); err != nil {
		return r, err
	}
	_, err = s.end()
	return r, err
}

func (b *bench) loopback() error {
	file, root, size, stores, err := b.content(b.o.mib, 4)
	if err != nil {
		return err
	}
	h := onLoopback(0)
	var tcp, one, four, tcpCPU, oneCPU, seedCPU, fourCPU, seedsCPU []float64
	var peak int64
	for range b.o.runs {
		t, err := b.tcp(file, h, h, false)
		if err != nil {
			return err
		}
		x, err := b.transfer(transfer{root: root, stores: stores[:1], pullers: 1, host: onLoopback})
		if err != nil {
			return err
		}
		y, err := b.transfer(transfer{root: root, stores: stores, pullers: 1, host: onLoopback})
		if err != nil {
			return err
		}
		tcp, one, four = append(tcp, t.Seconds), append(one, x.seconds), append(four, y.seconds)
		tcpCPU, oneCPU, seedCPU = append(tcpCPU, t.CPU), append(oneCPU, x.pulls[0].CPU), append(seedCPU, x.seeds[0].CPU)
		var given float64
		for _, r := range y.seeds {
			given += r.CPU
		}
		fourCPU, seedsCPU = append(fourCPU, y.pulls[0].CPU), append(seedsCPU, given)
		for _, r := range slices.Concat(x.pulls, x.seeds, y.pulls, y.seeds) {
			peak = max(peak, r.PeakBytes)
		}
	}
	mb := float64(size) / 1e6
	b.row("TCP copy", fmt.Sprintf("%.0f MB/s, receiver %.2f s/GB", mb/median(tcp), median(tcpCPU)/mb*1000))
	b.row("1 -> 1", fmt.Sprintf("%.0f MB/s, puller %.2f s/GB, seed %.2f s/GB", mb/median(one), median(oneCPU)/mb*1000, median(seedCPU)/mb*1000))
	b.row("4 -> 1", fmt.Sprintf("%.0f MB/s, puller %.2f s/GB, seeds together %.2f s/GB", mb/median(four), median(fourCPU)/mb*1000, median(seedsCPU)/mb*1000))
	b.row("most memory of a node", fmt.Sprintf("%d MB", peak/1e6))
	b.out.set("tcp_mb_per_s", mb/median(tcp))
	b.out.set("pull_mb_per_s", mb/median(one))
	b.out.set("pull_ratio_tcp", median(tcp)/median(one))
	b.out.set("pull_4to1_ratio", median(one)/median(four))
	b.out.set("tcp_cpu_s_per_gb", median(tcpCPU)/mb*1000)
	b.out.set("pull_cpu_s_per_gb", median(oneCPU)/mb*1000)
	b.out.set("seed_cpu_s_per_gb", median(seedCPU)/mb*1000)
	b.out.set("peak_memory_mb", float64(peak)/1e6)
	return nil
}

const (
	lineMbit = 100
	lineMiB  = 256

	// payloadShare of what tbf counts is content of TCP: 1448 of the 1514 bytes of a
	// packet, which has headers of Ethernet, IPv4 and TCP with times.
	payloadShare = 1448.0 / 1514
)

func (b *bench) limited() error {
	l, err := newLab([]line{{lineMbit, lineMbit}, {lineMbit, lineMbit}})
	defer l.close()
	if err != nil {
		return err
	}
	file, root, size, stores, err := b.content(lineMiB, 1)
	if err != nil {
		return err
	}
	t, err := b.tcp(file, l.host(0), l.host(1), false)
	if err != nil {
		return err
	}
	x, err := b.transfer(transfer{root: root, stores: stores, pullers: 1, host: l.host})
	if err != nil {
		return err
	}
	b.share("limited_line_share", size, t.Seconds, x.seconds)
	b.out.set("limited_line_share_of_payload", float64(size)*8/1e6/(lineMbit*payloadShare)/x.seconds)
	return nil
}

func (b *bench) delayed() error {
	file, root, size, stores, err := b.content(lineMiB, 1)
	if err != nil {
		return err
	}
	h := onLoopback(0)
	t, err := b.tcp(file, h, h, true)
	if err != nil {
		return err
	}
	x, err := b.transfer(transfer{root: root, stores: stores, pullers: 1, host: onLoopback, proxy: true})
	if err != nil {
		return err
	}
	b.share("delayed_line_share", size, t.Seconds, x.seconds)
	return nil
}

// share tells how much of a line a copy used.
func (b *bench) share(name string, size int64, tcp, pull float64) {
	full := float64(size) * 8 / 1e6 / lineMbit
	b.row("TCP copy", fmt.Sprintf("%.1f s, %.1f %% of the line", tcp, 100*full/tcp))
	b.row("1 -> 1", fmt.Sprintf("%.1f s, %.1f %% of the line", pull, 100*full/pull))
	b.out.set(name, full/pull)
	b.out.set(name+"_of_tcp", tcp/pull)
}

func (b *bench) unequal() error {
	l, err := newLab([]line{{100, 100}, {20, 100}, {20, 100}, {5, 100}, {100, 1000}})
	defer l.close()
	if err != nil {
		return err
	}
	_, root, size, stores, err := b.content(128, 4)
	if err != nil {
		return err
	}
	ideal := float64(size) * 8 / 145e6
	var took []float64
	var all string
	for range b.o.runs {
		x, err := b.transfer(transfer{root: root, stores: stores, pullers: 1, host: l.host})
		if err != nil {
			return err
		}
		took = append(took, x.seconds)
		all += fmt.Sprintf(", %.2f s with %.1f MB that came twice", x.seconds, float64(x.pulls[0].Duplicate)/1e6)
	}
	b.row("4 -> 1", fmt.Sprintf("%.2f s, with all lines full %.2f s: %.3f of it (each%s)", median(took), ideal, median(took)/ideal, all[1:]))
	b.out.set("unequal_seeders_ratio_ideal", median(took)/ideal)
	return nil
}

func (b *bench) swarm() error {
	l, err := newLab([]line{{50, 200}, {50, 200}, {50, 200}, {50, 200}, {50, 200}})
	defer l.close()
	if err != nil {
		return err
	}
	_, root, size, stores, err := b.content(64, 1)
	if err != nil {
		return err
	}
	x, err := b.transfer(transfer{root: root, stores: stores, pullers: 4, host: l.host})
	if err != nil {
		return err
	}
	ideal := float64(size) * 8 / 50e6 // for the first copy has to leave the one
	var twice uint64
	for _, r := range x.pulls {
		twice += r.Duplicate
	}
	copies := float64(x.seeds[0].Sent) / float64(size)
	b.row("1 -> 4", fmt.Sprintf("%.1f s, ideal %.1f s, the one sent %.2f copies, %.2f copies came twice", x.seconds, ideal, copies, float64(twice)/float64(size)))
	b.out.set("swarm_seeder_copies", copies)
	b.out.set("swarm_ratio_ideal", x.seconds/ideal)
	b.out.set("swarm_duplicate_share", float64(twice)/float64(size)/4)
	return nil
}

func (b *bench) imports() error {
	r, err := importbench.Measure(b.ctx, b.dir, int64(b.o.mib)*mib, b.o.runs)
	if err != nil {
		return err
	}
	b.row("import", fmt.Sprintf("%.2f of the speed of SHA-256", r.Ratio))
	b.out.set("import_ratio_sha256", r.Ratio)
	return nil
}

func (b *bench) row(what, value string) { fmt.Printf("%-24s %s\n", what, value) }

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	if n := len(x); n%2 == 0 {
		return (x[n/2-1] + x[n/2]) / 2
	}
	return x[len(x)/2]
}
