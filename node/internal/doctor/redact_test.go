package doctor

import (
	"archive/zip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	peerA = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	model = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
)

func TestRedact(t *testing.T) {
	r := NewRedactor(Secrets{Home: "/home/anna", User: "anna", Host: "annas-pc", Tokens: []string{"short-token"}})
	for _, tt := range []struct{ name, in, want string }{
		{"home", `data "/home/anna/.local/share/moot"`, `data "~/.local/share/moot"`},
		{"user", "owner ANNA, not annabelle", "owner NAME, not annabelle"},
		{"users in a row", "anna anna/anna", "NAME NAME/NAME"},
		{"host", "on annas-pc.", "on NAME."},
		{"given token", "x=short-token.", "x=TOKEN."},
		{"bearer", "Authorization: Bearer abcdefghijklmnopqrstuv", "Authorization: Bearer TOKEN"},
		{"hf", "HF hf_AbCdEfGhIjKlMnOpQrStUv", "HF TOKEN"},
		{"address", "/ip4/203.0.113.7/tcp/4717 and 203.0.113.7", "/ip4/IP-1/tcp/4717 and IP-1"},
		{"another", "198.51.100.1 203.0.113.7", "IP-2 IP-1"},
		{"lan", "192.168.1.20:7717", "LAN-1:7717"},
		{"loopback", "http://127.0.0.1:7717 /ip4/0.0.0.0/tcp/4717 ::1", "http://127.0.0.1:7717 /ip4/0.0.0.0/tcp/4717 ::1"},
		{"IPv6", "/ip6/2001:db8::7/tcp/1 [fe80::1%eth0]:80", "/ip6/IP-3/tcp/1 [LAN-2]:80"},
		{"time", "12:30:59 2026-02-02T12:00:00Z", "12:30:59 2026-02-02T12:00:00Z"},
		{"name", "/dns4/home.example.org/tcp/1", "/dns4/HOST-1/tcp/1"},
		{"peer", "/p2p/" + peerA + " " + peerA, "/p2p/PEER-1 PEER-1"},
		{"model", "model " + model, "model " + model},
		{"invitation", "moot join moot1-AbCdEfGhIjKlMnOpQrStUv_-x1", "moot join TICKET"},
		{"PEM", "-----BEGIN PRIVATE KEY-----\nMC4\n-----END PRIVATE KEY-----", "KEY"},
		{"base64", "k = CAESQJ0mN3V/4f6a+0pXkq1l2m3n4o5p6q7r8s9t0u1v2w3x4y5z==", "k = KEY"},
		{"hex", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "KEY"},
		{"words", "moot_round_duration_seconds_bucket_of_a_metric_with_1", "moot_round_duration_seconds_bucket_of_a_metric_with_1"},
	} {
		if got := r.Redact(tt.in); got != tt.want {
			t.Errorf("%s: %q became %q, want %q", tt.name, tt.in, got, tt.want)
		}
	}
	w := NewRedactor(Secrets{Home: `C:\Users\anna`})
	if got := w.Redact(`{"dir":"C:\\Users\\anna\\moot"} C:\Users\anna`); got != `{"dir":"~\\moot"} ~` {
		t.Errorf("on Windows: %s", got)
	}
}

func TestBundle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.zip")
	r := NewRedactor(Secrets{User: "anna"})
	if err := Bundle(path, map[string][]byte{"a.txt": []byte("anna has 1.2.3.4"), "b.txt": []byte("1.2.3.4")}, r); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var all strings.Builder
	for _, f := range z.File {
		rd, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rd)
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(f.Name + ": " + string(b) + "; ")
	}
	if got, want := all.String(), "a.txt: NAME has IP-1; b.txt: IP-1; "; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := Bundle(path, nil, r); err == nil {
		t.Error("a file that was there is replaced")
	}
}
