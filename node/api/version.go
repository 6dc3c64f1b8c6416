package api

import (
	"runtime"
	"runtime/debug"
)

// release is set by the linker in released builds.
var release = ""

// ThisVersion names the running program.
func ThisVersion() Version {
	v := Version{Version: release, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	if v.Version == "" || v.Version == "(devel)" {
		v.Version = "devel"
	}
	if dirty && v.Commit != "" {
		v.Commit += "-modified"
	}
	return v
}
