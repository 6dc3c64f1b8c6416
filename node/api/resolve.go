package api

import (
	"context"
	"slices"
	"strings"
)

// lastID stands for the newest.
const lastID = "last"

// shortID is how much of an ID is shown where space is short. CIDs of one kind
// share their first 7 characters.
const shortID = 14

// ShortID shortens an ID to what a person can compare and paste.
func ShortID(id string) string {
	if len(id) <= shortID {
		return id
	}
	return id[:shortID]
}

// noun is a kind of thing that is named by a CID.
type noun struct {
	word string // for messages
	list string // the command that lists them
	get  string // the command that makes one known
}

var (
	runNoun     = noun{"run", "moot run list", "moot join"}
	modelNoun   = noun{"model", "moot model list", "moot model import"}
	datasetNoun = noun{"data set", "moot data list", "moot data import"}
)

// resolve finds the complete ID for what an asker gave: a complete ID, its
// first characters, or "last". A complete ID need not be among ids, which are
// sorted from oldest to newest.
func resolve(n noun, given string, ids []string) (string, error) {
	var found []string
	for _, id := range ids {
		if id == given {
			return id, nil
		}
		if given != "" && strings.HasPrefix(id, given) {
			found = append(found, id)
		}
	}
	switch {
	case given == "":
		return "", Errorf(CodeUsage, "the ID of a %s is missing", n.word).WithHint("%q lists them", n.list)
	case given == lastID && len(ids) > 0:
		return ids[len(ids)-1], nil
	case given == lastID:
		return "", Errorf(CodeNotFound, "this node knows no %s yet", n.word).WithHint("it gets the first by %q", n.get)
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		slices.Sort(found)
		return "", Errorf(CodeUsage, "%s is the beginning of %d %ss", given, len(found), n.word).
			WithHint("give more of it: %s", strings.Join(found[:min(len(found), 5)], ", "))
	case len(given) >= 46 && isID(given):
		return given, nil
	}
	return "", Errorf(CodeNotFound, "this node knows no %s %s", n.word, clip(given)).
		WithHint("%q lists what it knows; one that it never heard of is named by its complete ID", n.list)
}

func isID(s string) bool {
	return len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

// run resolves a run. The last is the newest that this node is in, if any.
func (s *Server) run(ctx context.Context, given string) (string, error) {
	runs, err := s.backend.Runs(ctx)
	if err != nil {
		return "", err
	}
	var ids, joined []string
	for _, r := range runs {
		ids = append(ids, r.ID)
		if r.Joined {
			joined = append(joined, r.ID)
		}
	}
	if given == lastID && len(joined) > 0 {
		ids = joined
	}
	return resolve(runNoun, given, ids)
}

func (s *Server) model(ctx context.Context, given string) (string, error) {
	models, err := s.backend.Models(ctx)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, m := range models {
		ids = append(ids, m.ID)
	}
	return resolve(modelNoun, given, ids)
}

func (s *Server) dataset(ctx context.Context, given string) (string, error) {
	datasets, err := s.backend.Datasets(ctx)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, d := range datasets {
		ids = append(ids, d.ID)
	}
	return resolve(datasetNoun, given, ids)
}
