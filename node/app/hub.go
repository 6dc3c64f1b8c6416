package app

import (
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/run"
)

var (
	hubFolder = regexp.MustCompile(`^models--([A-Za-z0-9._-]+)--([A-Za-z0-9._-]+)$`)
	hubRepo   = regexp.MustCompile(`^(?:https://huggingface\.co/)?([A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,96})(?: at [A-Za-z0-9._-]+)?$`)
)

// hubSource says from which repository a folder in the cache of Hugging Face is,
// .../models--OWNER--NAME/snapshots/REVISION: "OWNER/NAME at REVISION". For
// other folders it is "".
func hubSource(dir string) string {
	revision := filepath.Base(dir)
	snapshots := filepath.Dir(dir)
	if filepath.Base(snapshots) != "snapshots" {
		return ""
	}
	m := hubFolder.FindStringSubmatch(filepath.Base(filepath.Dir(snapshots)))
	if m == nil {
		return ""
	}
	return m[1] + "/" + m[2] + " at " + revision
}

// checkSource holds when a manifest has room for what is said of where a model
// is from.
func checkSource(source string) error {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	if len(source) > run.MaxSourceBytes || !utf8.ValidString(source) || strings.ContainsFunc(source, unprintable) {
		return api.Errorf(api.CodeUsage, "source is %.80q, must be at most %d bytes of printable text", source, run.MaxSourceBytes)
	}
	return nil
}

// hubOf is the repository of a run's base model, if this node imported the model
// from there: nobody checks what a manifest says, and tools pull what it names.
func (n *node) hubOf(m *run.Manifest) string {
	hub := hubName(m.Licences.ModelSource)
	if e, ok := n.models.get(m.Model.String()); !ok || hubName(e.Source) != hub {
		return ""
	}
	return hub
}

// hubName is the repository that a source names, "OWNER/NAME", as tools of
// Hugging Face take it; "" if it names none.
func hubName(source string) string {
	m := hubRepo.FindStringSubmatch(strings.TrimSpace(source))
	if m == nil {
		return ""
	}
	return m[1]
}
