package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moot-net/moot/coordinator/cli/demo/demotest"
)

// parentEnv makes the test binary a parent that is killed.
const parentEnv = "DEMO_TEST_PARENT"

// TestMain makes the test binary the fake daemon, too.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(parentEnv) != "":
		parentMain()
	case os.Getenv(demotest.WorldEnv) != "":
		demotest.Daemon()
	default:
		os.Exit(m.Run())
	}
}

// newWorld starts a world, and makes the test binary's children part of it.
func newWorld(t *testing.T, stall uint64) {
	t.Helper()
	addr, stop, err := demotest.NewWorld(stall)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	t.Setenv(demotest.WorldEnv, addr)
	t.Setenv("MOOT_BOOTSTRAP", "/ip4/192.0.2.1/tcp/4717") // of the user; the demo must not use it
}

// parentMain starts a child, says its process ID and waits to be killed.
func parentMain() {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	p, err := startProcess(self, []string{"--data-dir", "x", "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--no-mdns", "--threads", "1"},
		[]string{demotest.WorldEnv + "=none", demotest.FaultEnv + "=x=mute"}, filepath.Join(os.Getenv(parentEnv), "log"))
	if err != nil {
		panic(err)
	}
	fmt.Println(p.pid())
	time.Sleep(10 * time.Minute)
}
