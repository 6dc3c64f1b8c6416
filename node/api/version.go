package api

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// release is set by the linker in released builds.
var release = ""

// build is set by the linker in what scripts/build.sh builds: a sum over all that the daemon
// is compiled from.
var build = ""

// ThisVersion names the running program.
func ThisVersion() Version {
	v := Version{Version: release, Build: build, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
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

// SameCode tells whether two programs were built from the same code, and whether
// that can be told: not of two that say of themselves no more than that they are
// not released, or that they are of a commit that was changed.
func (v Version) SameCode(w Version) (same, known bool) {
	switch {
	case v.Build != "" && w.Build != "":
		return v.Build == w.Build, true
	case v.nameless(), w.nameless():
		return false, false
	case v.Version != w.Version, v.Commit != w.Commit:
		return false, true
	case strings.HasSuffix(v.Version, "dirty"), strings.HasSuffix(v.Commit, "-modified"):
		return false, false
	}
	return true, true
}

func (v Version) nameless() bool { return v.Version == "devel" && v.Commit == "" }
