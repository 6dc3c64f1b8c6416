package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/traffic"
)

func TestNetwork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mootd.toml")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := func(string) string { return "" }
	write("[network]\nupload_mbit = 20\nmonthly_gb = 1.5\n")
	c, err := Load(file, none)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Network.Limits(), (traffic.Limits{UpMbit: 20, MonthlyBytes: 1_500_000_000}); got != want || !c.Network.Relay {
		t.Errorf("limits are %+v, want %+v; relay %v", got, want, c.Network.Relay)
	}
	for text, want := range map[string]string{
		"upload_mbit = 0.1":           "upload limit is 0.1 Mbit/s",
		"download_mbit = -1":          "download limit is -1 Mbit/s",
		"monthly_gb = -5":             "network.monthly_gb is -5",
		`schedule = ["Mon"]`:          `network.schedule: "Mon" is not days and times`,
		`ipfs_bootstrap = ["nobody"]`: `network.ipfs_bootstrap: "nobody"`,
	} {
		write("[network]\n" + text)
		c, err := Load(file, none)
		if err == nil {
			err = c.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	t.Setenv("MOOT_NETWORK_SCHEDULE", "Mon-Fri 22:00-07:00;Sat,Sun 00:00-24:00")
	write("")
	if c, err = Load(file, os.Getenv); err != nil || len(c.Network.Schedule) != 2 || c.Network.Limits().Hours == nil {
		t.Errorf("schedule %v, %v", c.Network.Schedule, err)
	}
	write("[network]\nupload_mbits = 1")
	if _, err := Load(file, none); err == nil || !strings.Contains(err.Error(), "network.upload_mbit") {
		t.Errorf("an unknown key: %v", err)
	}
}
