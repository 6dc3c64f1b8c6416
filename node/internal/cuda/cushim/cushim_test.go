//go:build cuda && cgo

package cushim

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/cu"
)

// TestBeforeOpen: a process that never opened the driver works, and every call
// is an error. It has to come first.
func TestBeforeOpen(t *testing.T) {
	if n, err := cu.NumDevices(); err == nil {
		t.Errorf("%d devices without a driver", n)
	}
}

// build compiles a file of testdata to a library.
func build(t *testing.T, name string) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("no gcc")
	}
	out := filepath.Join(t.TempDir(), strings.TrimSuffix(name, ".c")+".so")
	if b, err := exec.Command("gcc", "-shared", "-fPIC", "-w", "-o", out, filepath.Join("testdata", name)).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, b)
	}
	return out
}

func TestOpenFails(t *testing.T) {
	if err := OpenPath(filepath.Join(t.TempDir(), "libcuda.so.1")); !errors.Is(err, ErrNoLibrary) || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("no library: %v", err)
	}
	none := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(none, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := OpenPath(none); !errors.Is(err, ErrNoLibrary) {
		t.Errorf("a file that is no library: %v", err)
	}
	if err := OpenPath(build(t, "nvml.c")); !errors.Is(err, ErrNoDriver) || !strings.Contains(err.Error(), "cuInit") {
		t.Errorf("another library: %v", err)
	}
	broken := build(t, "driver.c")
	for result, want := range map[string]error{"100": ErrNoDevice, "803": ErrNoDriver, "999": ErrNoDriver} {
		t.Setenv("FAKE_INIT", result)
		err := OpenPath(broken)
		if denied() {
			want = ErrPermission
		}
		if !errors.Is(err, want) || !strings.Contains(err.Error(), result) {
			t.Errorf("cuInit returns %s: %v, want %v", result, err, want)
		}
	}
	if n, err := cu.NumDevices(); err == nil {
		t.Errorf("%d devices of a driver that did not start", n)
	}
}

// TestOpen: calls of gorgonia.org/cu reach the driver, and those that it lacks
// are errors.
func TestOpen(t *testing.T) {
	t.Setenv("FAKE_INIT", "0")
	path := build(t, "driver.c")
	if err := OpenPath(path); err != nil {
		t.Fatal(err)
	}
	if n, err := cu.NumDevices(); n != 3 || err != nil {
		t.Errorf("NumDevices() = %d, %v", n, err)
	}
	if _, _, err := cu.MemInfo(); err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Errorf("a call that the driver lacks: %v", err)
	}
	if err := OpenPath(path); err != nil {
		t.Errorf("opened again: %v", err)
	}
	if err := OpenPath(path + "x"); err == nil {
		t.Error("two drivers in a process")
	}
}

// TestSymbols: the list has what the header declares, and the driver is never
// asked for a name without its version.
func TestSymbols(t *testing.T) {
	header, err := os.ReadFile("include/cuda.h")
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#define (cu\w+) (cu\w+)$`).FindAllStringSubmatch(string(header), -1) {
		versions[m[1]] = m[2]
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^CUresult (cu\w+)\(`).FindAllStringSubmatch(string(header), -1) {
		name := m[1]
		if v := versions[name]; v != "" {
			name = v
		}
		if name != "cuInit" {
			want = append(want, "X("+name+")")
		}
	}
	list, err := os.ReadFile("symbols.h")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(list))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("symbols.h has %d names, the header %d: write it again from that", len(got), len(want))
	}
}

func TestSensors(t *testing.T) {
	t.Setenv(NVMLEnv, build(t, "nvml.c"))
	if v, err := DriverVersion(); v != "599.1" || err != nil {
		t.Errorf("DriverVersion() = %q, %v", v, err)
	}
	s, err := ReadSensors("00000000:01:00.0")
	if err != nil {
		t.Fatal(err)
	}
	if s.Celsius == nil || *s.Celsius != 61 || s.Watts == nil || *s.Watts != 123.4 || s.Busy == nil || *s.Busy != 87 || s.LimitWatts != nil || s.Fan != nil {
		t.Errorf("ReadSensors() = %+v", s)
	}
	if _, err := ReadSensors("00000000:02:00.0"); err == nil || !strings.Contains(err.Error(), "error 6") {
		t.Errorf("a device that is not there: %v", err)
	}
}

func TestUse(t *testing.T) {
	t.Setenv(NVMLEnv, build(t, "nvml.c"))
	u, err := ReadUse("00000000:01:00.0", 0)
	if err != nil {
		t.Fatal(err)
	}
	if u.TotalBytes == nil || *u.TotalBytes != 8<<30 || u.UsedBytes == nil || *u.UsedBytes != 3<<30 || !u.Busy || u.Time != 1000 || len(u.Processes) != 3 {
		t.Fatalf("ReadUse() = %+v", u)
	}
	a, b, c := u.Processes[0], u.Processes[1], u.Processes[2]
	if a.PID != 4000 || *a.UsedBytes != 2<<30 || a.Busy != 55 || b.PID != 4001 || b.UsedBytes != nil || b.Busy != 0 || c.PID != 4002 || *c.UsedBytes != 5 || c.Busy != 0 {
		t.Errorf("processes %+v", u.Processes)
	}
	// Nobody computed since then.
	if u, err = ReadUse("00000000:01:00.0", u.Time); err != nil || !u.Busy || u.Time != 1000 || u.Processes[0].Busy != 0 {
		t.Errorf("a moment later %+v, %v", u, err)
	}
	if _, err := ReadUse("00000000:02:00.0", 0); err == nil || !strings.Contains(err.Error(), "error 6") {
		t.Errorf("a device that is not there: %v", err)
	}
}
