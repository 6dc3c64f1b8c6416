package api

import (
	"context"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
)

// NamedValue is one line of a list.
type NamedValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Module is a Go module that is part of the program.
type Module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
}

// About is what a program is, and where its files are.
type About struct {
	Version Version `json:"version"`
	// Build is how it was built: tags, time of the commit and the like.
	Build   []NamedValue `json:"build"`
	Modules []Module     `json:"modules"`
	// Formats are the versions of what is written and sent; Protocols are those
	// that it answers on the network.
	Formats   []NamedValue `json:"formats"`
	Protocols []string     `json:"protocols"`
	// Notices tells that the licences of the modules are here; ask for Notices.
	Notices bool `json:"notices"`
	// Paths are files and folders of the node, Documents what there is to read
	// on its machine. Only who has full access is told.
	Paths     []NamedValue `json:"paths,omitempty"`
	Documents []NamedValue `json:"documents,omitempty"`
}

// Notices are the licences of what is part of the program.
type Notices struct {
	Text string `json:"text"`
}

// ThisBuild tells how the running program was built, and of which modules.
func ThisBuild() (build []NamedValue, modules []Module) {
	build, modules = []NamedValue{}, []Module{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build, modules
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "-tags", s.Key == "CGO_ENABLED", s.Key == "vcs.time", strings.HasPrefix(s.Key, "GOAMD"), strings.HasPrefix(s.Key, "GOARM"):
			build = append(build, NamedValue{s.Key, s.Value})
		}
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		modules = append(modules, Module{d.Path, d.Version})
	}
	slices.SortFunc(modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return build, modules
}

func (s *Server) about(ctx context.Context, r *http.Request) (About, error) {
	access, err := s.authorize(r)
	if err != nil {
		return About{}, err
	}
	v, err := s.backend.About(ctx)
	v.Version = ThisVersion()
	v.Build, v.Modules = ThisBuild()
	v.Formats, v.Protocols = list(v.Formats), list(v.Protocols)
	if access != AccessFull {
		v.Paths, v.Documents = nil, nil
	}
	return v, err
}

func (s *Server) notices(ctx context.Context, _ *http.Request) (Notices, error) {
	return s.backend.Notices(ctx)
}
