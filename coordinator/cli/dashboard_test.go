package cli

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// syncText takes what several write.
type syncText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestPublicDashboard: the page of a node is served to everybody, goes on while
// the daemon is away, and ends with an interrupt.
func TestPublicDashboard(t *testing.T) {
	f := &fakeDaemon{dir: filepath.Join(t.TempDir(), "data"), watched: make(chan struct{}, 100)}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	f.AddRun(apitest.Detail("demo", apitest.PeerID("node")))
	f.AddRun(apitest.Detail("other", apitest.PeerID("node")))
	ctx, interrupt := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var stderr syncText
	ended := make(chan int, 1)
	go func() {
		code := Main(ctx, []string{"--data-dir", f.dir, "dashboard", "--listen", "127.0.0.1:0", "--run", apitest.ID("demo")[:14]}, w, &stderr)
		w.Close()
		ended <- code
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("%v, exit %d: %s", err, <-ended, &stderr)
	}
	url := strings.TrimSpace(line)
	get := func(path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := get("api/v1/runs"); code != 200 || !strings.Contains(body, apitest.ID("demo")) || strings.Contains(body, apitest.ID("other")) {
		t.Errorf("runs: %d %s", code, body)
	}
	if code, body := get(""); code != 200 || !strings.Contains(body, "<title>moot</title>") {
		t.Errorf("page: %d %.100s", code, body)
	}
	if code, _ := get("api/v1/peers"); code != 404 {
		t.Errorf("peers are shown: %d", code)
	}
	// What happens comes through: the daemon's events are followed.
	<-f.watched
	f.Decide(apitest.ID("demo"), apitest.DecidedRound("demo", 1, false, apitest.PeerID("node")))
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, body := get("api/v1/runs/" + apitest.ID("demo")); strings.Contains(body, `"round":1,`) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("round 1 is not shown: %s", body)
		}
	}
	f.stop()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if code, body := get("api/v1/status"); code == 502 && strings.Contains(body, string(api.CodeDaemon)) && !strings.Contains(body, f.dir) && !strings.Contains(body, "127.0.0.1") {
			break
		} else if time.Now().After(end) {
			t.Fatalf("without daemon: %d %s", code, body)
		}
	}
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

// certificate writes a certificate for 127.0.0.1 with a name, and its key.
func certificate(t *testing.T, dir, name string) (cert, key string, root *x509.Certificate) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, pub, priv)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: b}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return cert, key, root
}

// TestPublicDashboardTLS: the page is served by TLS, HTTP/2 too, and a renewed
// certificate is taken without a new start.
func TestPublicDashboardTLS(t *testing.T) {
	f := &fakeDaemon{dir: filepath.Join(t.TempDir(), "data"), watched: make(chan struct{}, 100)}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	dir := t.TempDir()
	cert, key, root := certificate(t, dir, "first")
	ctx, interrupt := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var stderr syncText
	ended := make(chan int, 1)
	go func() {
		code := Main(ctx, []string{"--data-dir", f.dir, "dashboard", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key}, w, &stderr)
		w.Close()
		ended <- code
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("%v, exit %d: %s", err, <-ended, &stderr)
	}
	url := strings.TrimSpace(line)
	if !strings.HasPrefix(url, "https://") {
		t.Errorf("the address is %s", url)
	}
	get := func(root *x509.Certificate) (name string, err error) {
		pool := x509.NewCertPool()
		pool.AddCert(root)
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
		defer c.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"api/v1/access", nil)
		if err != nil {
			return "", err
		}
		resp, err := c.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			t.Errorf("%s by %s", resp.Status, resp.Proto)
		}
		return resp.TLS.PeerCertificates[0].Subject.CommonName, nil
	}
	if name, err := get(root); err != nil || name != "first" {
		t.Errorf("certificate of %q, %v", name, err)
	}
	_, _, renewed := certificate(t, dir, "second")
	soon := time.Now().Add(time.Minute) // a clock of coarse steps sees no change otherwise
	if err := os.Chtimes(cert, soon, soon); err != nil {
		t.Fatal(err)
	}
	if name, err := get(renewed); err != nil || name != "second" {
		t.Errorf("renewed: certificate of %q, %v", name, err)
	}
	if err := os.WriteFile(key, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if name, err := get(renewed); err != nil || name != "second" {
		t.Errorf("with a broken file: certificate of %q, %v", name, err)
	}
	if name, err := get(renewed); err != nil || name != "second" {
		t.Errorf("asked again: certificate of %q, %v", name, err)
	}
	if s := stderr.String(); strings.Count(s, "moot: read certificate ") != 1 || !strings.HasSuffix(s, "; the old certificate stays\n") {
		t.Errorf("of a broken file it says %q", s)
	}
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("exit %d: %s", code, &stderr)
	}
	if code := Main(t.Context(), []string{"--data-dir", f.dir, "dashboard", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key}, io.Discard, &stderr); code != 2 || !strings.Contains(stderr.String(), "read certificate") {
		t.Errorf("with a broken key: exit %d, %s", code, &stderr)
	}
}
