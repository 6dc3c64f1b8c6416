//go:build !lean

package fold

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/klauspost/cpuid/v2"
)

// TestArchitectures runs the vector tests as built for other machines, where
// the compiler may choose other instructions (GOAMD64=v3 has fused
// multiply-add, the ruin of every fold in floats), as far as this machine can
// run them. That the others build, CI checks with the rest.
func TestArchitectures(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package again: not with -short")
	}
	qemu, _ := exec.LookPath("qemu-aarch64")
	native := runtime.GOOS == "linux" && runtime.GOARCH == "amd64"
	for _, tt := range []struct {
		name string
		env  []string
		can  bool
		run  []string
	}{
		{"amd64.v3", []string{"GOARCH=amd64", "GOAMD64=v3"}, native && cpuid.CPU.X64Level() >= 3, nil},
		{"arm64", []string{"GOARCH=arm64"}, runtime.GOOS == "linux" && qemu != "", []string{qemu}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.can {
				t.Skipf("nothing here runs %s (qemu-aarch64 would run arm64)", tt.name)
			}
			binary := filepath.Join(t.TempDir(), "fold.test")
			// The tag leaves out the tests with large dependencies.
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "lean", "-vet=off", "-o", binary, ".")
			build.Env = append(append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0"), tt.env...)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			args := append(tt.run, binary, "-test.run=^(TestVectors|TestFold)")
			if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}
