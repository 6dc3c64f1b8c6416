package cli

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
)

func TestOtherCode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in is a shell script")
	}
	path := filepath.Join(t.TempDir(), "mootd")
	script := "#!/bin/sh\necho '{\"schema\":1,\"version\":\"devel\",\"build\":\"1-2\",\"go\":\"go1\",\"os\":\"o\",\"arch\":\"a\"}'\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		own   api.Version
		text  string
		known bool
	}{
		{api.Version{Version: "devel", Build: "1-2"}, "", true},
		{api.Version{Version: "devel", Build: "3-4", Go: "go1"}, "is of other code than this moot: it is devel build 1-2 go1 o/a, moot is devel build 3-4 go1 /", true},
		{api.Version{Version: "devel"}, "it cannot be told", false},
	} {
		text, known := otherCode(t.Context(), path, tt.own)
		if (text == "") != (tt.text == "") || !strings.Contains(text, tt.text) || known != tt.known {
			t.Errorf("beside %+v: %q, %v, want %q, %v", tt.own, text, known, tt.text, tt.known)
		}
	}
}
