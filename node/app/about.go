package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/proto/run"
)

// noticesHead is how a file of a release with licences begins.
const noticesHead = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/"

// maxNotices bounds that file.
const maxNotices = 8 << 20

// About implements api.Backend; the server adds what is of the program alone.
func (n *node) About(context.Context) (api.About, error) {
	a := api.About{Formats: []api.NamedValue{
		{Name: "API", Value: strconv.Itoa(api.Schema)},
		{Name: "run manifest", Value: strconv.Itoa(run.ManifestVersion)},
	}}
	for _, p := range n.host.Libp2p().Mux().Protocols() {
		a.Protocols = append(a.Protocols, string(p))
	}
	slices.Sort(a.Protocols)
	if file := n.follow.file; file != "" {
		a.Paths = append(a.Paths, api.NamedValue{Name: "config", Value: file})
	}
	for _, p := range Paths(n.dir) {
		a.Paths = append(a.Paths, api.NamedValue{Name: p.Name, Value: p.Path})
	}
	if file := n.follow.loaded().LogFile; file != "" {
		a.Paths = append(a.Paths, api.NamedValue{Name: "log", Value: file})
	}
	for _, d := range []struct {
		name  string
		files []string
	}{
		{"introduction", []string{"README.md", "../share/doc/moot/README.md"}},
		{"manual of mootd", []string{"man/mootd.1", "../share/man/man1/mootd.1", "../share/man/man1/mootd.1.gz"}},
		{"manual of moot", []string{"man/moot.1", "../share/man/man1/moot.1", "../share/man/man1/moot.1.gz"}},
	} {
		if path := besideProgram(n.program, d.files...); path != "" {
			a.Documents = append(a.Documents, api.NamedValue{Name: d.name, Value: path})
		}
	}
	_, err := n.Notices(context.Background())
	a.Notices = err == nil
	return a, nil
}

// besideProgram is the first of these files that is there, by its path from the
// folder of the program, or "".
func besideProgram(program string, files ...string) string {
	if program == "" {
		return ""
	}
	for _, f := range files {
		path := filepath.Join(filepath.Dir(program), filepath.FromSlash(f))
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// programPath is where the running program is, "" if that is not known.
func programPath() string {
	path, err := os.Executable()
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return ""
	}
	return path
}

// Notices implements api.Backend.
func (n *node) Notices(context.Context) (api.Notices, error) {
	none := func(err error) (api.Notices, error) {
		return api.Notices{}, api.Errorf(api.CodeNotFound, "licences of modules: %w", err).
			WithHint(`a release has them in the file "copyright" beside its programs; this program was built or copied without`)
	}
	path := besideProgram(n.program, "copyright", "../share/doc/moot/copyright")
	if path == "" {
		return none(fs.ErrNotExist)
	}
	f, err := os.Open(path)
	if err != nil {
		return none(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxNotices+1))
	if err != nil {
		return none(err)
	}
	if len(b) > maxNotices || !bytes.HasPrefix(b, []byte(noticesHead)) {
		return none(errors.New(path + " is another file"))
	}
	return api.Notices{Text: string(bytes.ToValidUTF8(b, []byte("?")))}, nil
}

// WorkPresets implements api.Backend.
func (n *node) WorkPresets(context.Context) (api.WorkPresets, error) {
	out := api.WorkPresets{Processors: runtime.NumCPU()}
	for _, p := range config.Presets(out.Processors) {
		w := api.WorkPreset{Name: p.Name, About: p.About}
		for _, s := range p.Sets {
			w.Settings = append(w.Settings, api.PresetSetting{Key: s.Key, Value: s.Values[0], Live: config.Live(s.Key)})
		}
		out.Presets = append(out.Presets, w)
	}
	return out, nil
}
