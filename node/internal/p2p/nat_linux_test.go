package p2p

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The hosts of this test are in network namespaces of their own, and NAT is that
// of the kernel. It needs root, iproute2 and nftables.

var natLog = flag.String("natlog", "", "folder for the logs of the nodes behind NAT")

// natKind is what stands between a home and the internet.
type natKind string

const (
	natNone       natKind = "public"          // no NAT
	natFullCone   natKind = "full cone"       // what comes to the router goes to the host
	natRestricted natKind = "port-restricted" // one mapping for all, but only answers come in
	natSymmetric  natKind = "symmetric"       // another port for each destination
	natDouble     natKind = "double"          // port-restricted behind port-restricted
	natNoUDP      natKind = "no UDP"          // port-restricted, and UDP is dropped
	natIPv6       natKind = "IPv6 only"       // no NAT and no IPv4; only answers come in
)

var natHomes = []natKind{
	natNone, natFullCone, natRestricted, natRestricted, natSymmetric, natSymmetric, natDouble, natDouble, natNoUDP, natNoUDP, natIPv6,
}

// natWays is how two peers are connected: it is better to be greater.
type natWay int

const (
	wayNone natWay = iota
	wayRelay
	wayDirect
)

func (w natWay) String() string { return [...]string{"none", "relay", "direct"}[w] }

// bestWay is what theory allows, and why it is not more.
func bestWay(a, b natKind) (natWay, string) {
	has := func(ks ...natKind) bool {
		for _, k := range ks {
			if a == k || b == k {
				return true
			}
		}
		return false
	}
	symmetric := 0
	for _, k := range []natKind{a, b} {
		if k == natSymmetric {
			symmetric++
		}
	}
	switch {
	case has(natNone):
		return wayDirect, ""
	case has(natIPv6):
		return wayRelay, "one has no IPv4, the other no IPv6"
	case has(natNoUDP):
		return wayRelay, "holes are punched for UDP, which one cannot send"
	case has(natFullCone):
		return wayDirect, ""
	case symmetric > 0:
		return wayRelay, "one does not know its port for the other, which lets only that one in"
	}
	return wayDirect, "" // a hole is punched
}

// natPublics is how many nodes have public addresses, beside those of the homes:
// as many as have to see an address before it is believed.
const natPublics = 4

// TestNAT connects peers behind all kinds of NAT, as the members of a run, and
// compares how with what theory allows.
func TestNAT(t *testing.T) {
	if args := os.Getenv(natChild); args != "" {
		natNode(t, args)
		return
	}
	if testing.Short() {
		t.Skip("takes more than a minute, of waiting")
	}
	lab := newNATLab(t)
	var bootstrap []string
	for i := range natPublics {
		n := lab.start(t, lab.public(t, fmt.Sprint("b", i), 10+i), natOptions{Seed: i, Public: true, Bootstrap: bootstrap})
		bootstrap = append(bootstrap, n.addrs...)
	}
	var homes []*natProcess
	for i, k := range natHomes {
		homes = append(homes, lab.start(t, lab.home(t, i, k), natOptions{Seed: 100 + i, Public: k == natNone, Bootstrap: bootstrap}))
	}
	// They find each other as members of a run, and may take their time: a node
	// knows after 15 s that it cannot be reached, and only then asks for a relay.
	want := len(natHomes) * (len(natHomes) - 1) / 2
	enough := (95*want + 99) / 100
	var best map[[2]int]natWay
	for began := time.Now(); time.Since(began) < 8*time.Minute; time.Sleep(2 * time.Second) {
		best = make(map[[2]int]natWay)
		good := 0
		for i, a := range homes {
			ways := a.ways(t)
			for j := i + 1; j < len(homes); j++ {
				w := ways[homes[j].id.String()]
				best[[2]int{i, j}] = w
				if ideal, _ := bestWay(natHomes[i], natHomes[j]); w >= ideal {
					good++
				}
			}
		}
		if good == want || good >= enough && time.Since(began) > 90*time.Second {
			break
		}
	}
	good := 0
	var table strings.Builder
	for i, a := range natHomes {
		fmt.Fprintf(&table, "%-16s", a)
		for j := range natHomes {
			if j <= i {
				fmt.Fprintf(&table, " %-7s", "")
				continue
			}
			got := best[[2]int{i, j}]
			ideal, why := bestWay(a, natHomes[j])
			fmt.Fprintf(&table, " %-7s", got)
			switch {
			case got >= ideal:
				good++
			default:
				t.Logf("%s (%d) to %s (%d): %s, theory allows %s %s", a, i, natHomes[j], j, got, ideal, why)
			}
		}
		table.WriteByte('\n')
	}
	t.Logf("%d of %d pairs as well as theory allows\n%s", good, want, table.String())
	if good < enough {
		t.Errorf("%d of %d pairs are connected as well as theory allows", good, want)
	}
}

// natLab is the internet: a switch in a namespace.
type natLab struct {
	prefix string
	ctx    context.Context
}

func newNATLab(t *testing.T) *natLab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	for _, tool := range []string{"ip", "nft", "sysctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (packages iproute2, nftables, procps)", tool)
		}
	}
	l := &natLab{prefix: fmt.Sprintf("mt%d", os.Getpid()%100000), ctx: t.Context()}
	if err := l.namespace(t, "sw"); err != nil {
		t.Skipf("network namespaces are not permitted here: %v", err)
	}
	l.do(t, "ip -n %s link add br0 type bridge", l.ns("sw"))
	l.do(t, "ip -n %s link set br0 up", l.ns("sw"))
	return l
}

func (l *natLab) ns(name string) string { return l.prefix + name }

func (l *natLab) namespace(t *testing.T, name string) error {
	t.Helper()
	ns := l.ns(name)
	if out, err := exec.CommandContext(l.ctx, "ip", "netns", "add", ns).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
			t.Errorf("namespace was not deleted: %v: %s", err, out)
		}
	})
	l.do(t, "ip -n %s link set lo up", ns)
	return nil
}

func (l *natLab) do(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	f := strings.Fields(line)
	if out, err := exec.CommandContext(l.ctx, f[0], f[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

func (l *natLab) nft(t *testing.T, ns, rules string) {
	t.Helper()
	cmd := exec.CommandContext(l.ctx, "ip", "netns", "exec", ns, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft in %s: %v: %s", ns, err, out)
	}
}

// public makes a host at the switch.
func (l *natLab) public(t *testing.T, name string, number int) (ns string) {
	t.Helper()
	l.attach(t, name, "wan")
	ns = l.ns(name)
	l.do(t, "ip -n %s addr add 5.0.0.%d/24 dev wan", ns, number)
	l.do(t, "ip -n %s -6 addr add 2a05:1::%d/64 dev wan nodad", ns, number)
	l.do(t, "ip -n %s link set wan up", ns)
	return ns
}

// attach makes a namespace with an interface at the switch.
func (l *natLab) attach(t *testing.T, name, dev string) {
	t.Helper()
	if err := l.namespace(t, name); err != nil {
		t.Fatal(err)
	}
	l.do(t, "ip -n %s link add w%s type veth peer name %s netns %s", l.ns("sw"), name, dev, l.ns(name))
	l.do(t, "ip -n %s link set w%s master br0 up", l.ns("sw"), name)
}

const natFirewall = `table inet f {
 chain forward { type filter hook forward priority 0; policy accept; %s iifname "wan" ct state established,related accept; iifname "wan" drop; }
 chain input { type filter hook input priority 0; policy accept; meta l4proto ipv6-icmp accept; iifname "wan" ct state new drop; }
}
`

// home makes a host of a kind and the routers that it needs.
func (l *natLab) home(t *testing.T, i int, kind natKind) (ns string) {
	t.Helper()
	name := fmt.Sprint("h", i)
	if kind == natNone {
		return l.public(t, name, 100+i)
	}
	if kind == natIPv6 {
		l.attach(t, name, "wan")
		ns = l.ns(name)
		l.do(t, "ip -n %s -6 addr add 2a05:1::%d/64 dev wan nodad", ns, 100+i)
		l.do(t, "ip -n %s link set wan up", ns)
		l.nft(t, ns, fmt.Sprintf(natFirewall, ""))
		return ns
	}
	router := fmt.Sprint("r", i)
	l.attach(t, router, "wan")
	l.do(t, "ip -n %s addr add 5.0.0.%d/24 dev wan", l.ns(router), 100+i)
	l.do(t, "ip -n %s link set wan up", l.ns(router))
	inside := l.behind(t, router, name, fmt.Sprintf("192.168.%d", i), kind == natDouble)
	rules := `table ip n { chain post { type nat hook postrouting priority 100; oifname "wan" masquerade %s; }
%s
}
`
	how, pre, block := "", "", ""
	switch kind {
	case natSymmetric:
		how = "fully-random"
	case natFullCone:
		pre = fmt.Sprintf(`chain pre { type nat hook prerouting priority -100; iifname "wan" meta l4proto { tcp, udp } dnat to 192.168.%d.2; }`, i)
		block = `iifname "wan" accept;`
	case natNoUDP:
		block = `meta l4proto udp drop;`
	}
	firewall := fmt.Sprintf(natFirewall, block)
	l.nft(t, l.ns(router), fmt.Sprintf(rules, how, pre)+firewall)
	if kind != natDouble {
		return inside
	}
	// The host behind the first router is a router too.
	ns = l.behind(t, name, name+"i", fmt.Sprintf("10.0.%d", i), false)
	l.nft(t, inside, fmt.Sprintf(rules, "", "")+firewall)
	return ns
}

// behind makes a host behind a router.
func (l *natLab) behind(t *testing.T, router, name, net string, isRouter bool) (ns string) {
	t.Helper()
	if err := l.namespace(t, name); err != nil {
		t.Fatal(err)
	}
	ns = l.ns(name)
	dev := "eth0"
	if isRouter {
		dev = "wan"
	}
	l.do(t, "ip netns exec %s sysctl -qw net.ipv4.ip_forward=1", l.ns(router))
	l.do(t, "ip -n %s link add lan type veth peer name %s netns %s", l.ns(router), dev, ns)
	l.do(t, "ip -n %s addr add %s.1/24 dev lan", l.ns(router), net)
	l.do(t, "ip -n %s link set lan up", l.ns(router))
	l.do(t, "ip -n %s addr add %s.2/24 dev %s", ns, net, dev)
	l.do(t, "ip -n %s link set %s up", ns, dev)
	l.do(t, "ip -n %s route add default via %s.1", ns, net)
	return ns
}

// natChild is the environment variable that makes this test program a node.
const natChild = "MOOT_TEST_NAT"

type natOptions struct {
	Seed      int
	Public    bool
	Bootstrap []string
	Log       string
}

// natProcess is a node in a namespace.
type natProcess struct {
	id    peer.ID
	addrs []string
	in    io.Writer
	out   *bufio.Scanner
}

func (l *natLab) start(t *testing.T, ns string, o natOptions) *natProcess {
	t.Helper()
	if *natLog != "" {
		o.Log = *natLog + "/" + ns
	}
	args, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", ns, self, "-test.run=^TestNAT$", "-test.v")
	cmd.Env = append(os.Environ(), natChild+"="+string(args))
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
	n := &natProcess{in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		in.Close() // ends it
		for n.out.Scan() {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("node in %s: %v", ns, err)
		}
	})
	n.answer(t, "ADDRS ", &n.addrs)
	info, err := peer.AddrInfoFromString(n.addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	n.id = info.ID
	return n
}

func (n *natProcess) answer(t *testing.T, prefix string, to any) {
	t.Helper()
	for n.out.Scan() {
		if text, ok := strings.CutPrefix(n.out.Text(), prefix); ok {
			if err := json.Unmarshal([]byte(text), to); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("a node ended before it said %s", prefix)
}

// ways asks a node how it is connected with others.
func (n *natProcess) ways(t *testing.T) (out map[string]natWay) {
	t.Helper()
	if _, err := io.WriteString(n.in, "\n"); err != nil {
		t.Fatal(err)
	}
	n.answer(t, "WAYS ", &out)
	return out
}

// natNode is a node that answers each line with how it is connected.
func natNode(t *testing.T, args string) {
	var o natOptions
	if err := json.Unmarshal([]byte(args), &o); err != nil {
		t.Fatal(err)
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(o.Seed)}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Key: key, Public: o.Public, Bootstrap: o.Bootstrap, Listen: []string{
		"/ip4/0.0.0.0/tcp/4717", "/ip4/0.0.0.0/udp/4717/quic-v1", "/ip6/::/tcp/4717", "/ip6/::/udp/4717/quic-v1",
	}}
	if o.Log != "" {
		f, err := os.Create(o.Log)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		opt.Log = slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	h, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := h.Rendezvous(ctx, "a run"); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	say := func(prefix string, v any) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		fmt.Printf("%s%s\n", prefix, b)
	}
	var addrs []string
	for _, a := range h.Addrs() {
		if strings.Contains(a, "/5.0.0.") || strings.Contains(a, "/2a05:1:") || !o.Public {
			addrs = append(addrs, a)
		}
	}
	say("ADDRS ", addrs)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if to, ok := strings.CutPrefix(in.Text(), "connect "); ok {
			answer := ""
			if err := h.Connect(ctx, to); err != nil {
				answer = err.Error()
			}
			say("CONNECTED ", answer)
			continue
		}
		if in.Text() == "addrs" {
			say("ADDRS ", h.Addrs())
			continue
		}
		ways := make(map[string]natWay)
		for _, p := range h.Peers() {
			ways[p.ID.String()] = wayDirect
			if p.Where == Relayed {
				ways[p.ID.String()] = wayRelay
			}
		}
		say("WAYS ", ways)
		if o.Log != "" {
			opt.Log.Debug("addresses", "listen", h.Addrs(), "reachability", h.Reachability())
		}
	}
	cancel()
	wg.Wait()
}
