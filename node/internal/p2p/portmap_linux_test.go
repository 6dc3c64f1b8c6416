package p2p

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gatewayRules is a home's router whose ports miniupnpd opens.
const gatewayRules = `table inet filter {
 chain forward { type filter hook forward priority 0; policy accept; ct state established,related accept; jump miniupnpd; iifname "wan" drop; }
 chain miniupnpd { }
 chain input { type filter hook input priority 0; policy accept; ct state established,related accept; iifname "wan" drop; }
 chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
 chain postrouting { type nat hook postrouting priority 100; policy accept; jump postrouting_miniupnpd; oifname "wan" masquerade; }
 chain prerouting_miniupnpd { }
 chain postrouting_miniupnpd { }
}
`

// A router is asked to open the node's ports, by NAT-PMP or UPnP; somebody on the
// internet connects to them; and they are closed when the node ends.
func TestPortMapping(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute, of waiting")
	}
	if _, err := exec.LookPath("miniupnpd"); err != nil {
		t.Skip("needs miniupnpd (packages miniupnpd, miniupnpd-nftables)")
	}
	for i, kind := range []string{"NAT-PMP", "UPnP"} {
		t.Run(kind, func(t *testing.T) {
			lab := newNATLab(t)
			out := lab.start(t, lab.public(t, "b0", 10), natOptions{Seed: 1, Public: true})
			inside, router := lab.gateway(t, i, kind)
			home := lab.startHome(t, inside, natOptions{Seed: 2})
			defer home.end(t)
			wan := fmt.Sprintf("/ip4/5.0.0.%d/", 100+i)
			var open []string
			for end := time.Now().Add(3 * time.Minute); len(open) < 2; time.Sleep(200 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the router opened no ports for both protocols: %q\n%s", open, lab.rules(t, router))
				}
				open = nil
				for _, a := range home.addrs(t) {
					if strings.HasPrefix(a, wan) {
						open = append(open, a)
					}
				}
			}
			for _, a := range open {
				if !strings.Contains(a, "/4717/") {
					t.Errorf("%s is not the port that is listened on", a)
				}
			}
			for end := time.Now().Add(3 * time.Minute); ; { // one dial may fail when the machine does nothing for a while
				if _, err := io.WriteString(out.in, "connect "+open[0]+"\n"); err != nil {
					t.Fatal(err)
				}
				var failed string
				if out.answer(t, "CONNECTED ", &failed); failed == "" {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("from outside: %s\n%s", failed, lab.rules(t, router))
				}
			}
			if !strings.Contains(lab.rules(t, router), "dnat") {
				t.Error("no port is open at the router")
			}
			home.end(t)
			for end := time.Now().Add(3 * time.Minute); strings.Contains(lab.rules(t, router), "dnat"); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("ports are open still\n%s", lab.rules(t, router))
				}
			}
		})
	}
}

func (l *natLab) rules(t *testing.T, ns string) string {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns, "nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// gateway makes a home behind a router that speaks one protocol.
func (l *natLab) gateway(t *testing.T, i int, kind string) (inside, router string) {
	t.Helper()
	name := fmt.Sprint("r", i)
	l.attach(t, name, "wan")
	router = l.ns(name)
	l.do(t, "ip -n %s addr add 5.0.0.%d/24 dev wan", router, 100+i)
	l.do(t, "ip -n %s link set wan up", router)
	inside = l.behind(t, name, fmt.Sprint("h", i), fmt.Sprintf("192.168.%d", i), false)
	l.do(t, "ip -n %s route add 224.0.0.0/4 dev lan", router)
	l.nft(t, router, gatewayRules)
	yes := map[bool]string{true: "yes", false: "no"}
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	text := fmt.Sprintf("ext_ifname=wan\nlistening_ip=lan\nenable_natpmp=%s\nenable_upnp=%s\nsecure_mode=yes\nuuid=9f0865b3-f5da-4ad5-85b7-7404637fdf37\nport=5000\nallow 1024-65535 192.168.0.0/16 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
		yes[kind == "NAT-PMP"], yes[kind == "UPnP"])
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", router, "miniupnpd", "-d", "-f", conf, "-P", filepath.Join(dir, "pid"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // or it has ended
		_ = cmd.Wait()         // of being killed
		_ = log.Close()        // it was read
		if b, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s", b)
		}
	})
	return inside, router
}

// natHome is a node that says its addresses when it is asked.
type natHome struct {
	*natProcess
	ended bool
}

func (l *natLab) startHome(t *testing.T, ns string, o natOptions) *natHome {
	t.Helper()
	return &natHome{natProcess: l.start(t, ns, o)}
}

func (h *natHome) addrs(t *testing.T) (out []string) {
	t.Helper()
	if _, err := io.WriteString(h.in, "addrs\n"); err != nil {
		t.Fatal(err)
	}
	h.answer(t, "ADDRS ", &out)
	return out
}

// end ends the node; what it closes at the router it has closed then.
func (h *natHome) end(t *testing.T) {
	t.Helper()
	if h.ended {
		return
	}
	h.ended = true
	if c, ok := h.in.(io.Closer); ok {
		c.Close()
	}
	for h.out.Scan() {
	}
}
