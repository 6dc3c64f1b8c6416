package round

import (
	"slices"

	"github.com/moot-net/moot/proto/msg"
)

// folds are those that were asked for. Each is asked for once, whoever needs
// it.
type folds struct {
	list []*foldJob
}

type foldJob struct {
	id    FoldID
	round msg.Round
	done  bool
	got   Folded
}

// need returns the job of a fold and asks for it if nobody did.
func (m *Machine) need(parent *msg.Record, c *Consequence) FoldID {
	f := c.Fold(parent.State)
	if m.folds.find(f.ID) == nil {
		m.folds.bound(m.inUse)
		m.folds.list = append(m.folds.list, &foldJob{id: f.ID, round: f.Round})
		m.emit(f)
	}
	return f.ID
}

// maxFolds is more than the proposals of a round and the branches need.
const maxFolds = 128

// bound makes room for one more, at the expense of one that nobody needs.
func (f *folds) bound(inUse func(FoldID) bool) {
	if len(f.list) < maxFolds {
		return
	}
	if i := slices.IndexFunc(f.list, func(j *foldJob) bool { return !inUse(j.id) }); i >= 0 {
		f.list = slices.Delete(f.list, i, i+1)
	}
}

// inUse reports whether a candidate, the draft or a branch waits for a fold.
func (m *Machine) inUse(id FoldID) bool {
	if h := m.cur; h != nil {
		waits := func(c *candidate) bool { return c.state == folding && c.foldID == id }
		if h.draft != nil && h.draft.foldID == id || slices.ContainsFunc(h.candidates, waits) {
			return true
		}
	}
	return slices.ContainsFunc(m.branches, func(b *branch) bool { return b.cons != nil && b.foldID == id })
}

func (f *folds) find(id FoldID) *foldJob {
	for _, j := range f.list {
		if j.id == id {
			return j
		}
	}
	return nil
}

// result returns what a fold gave; not ok: it goes on.
func (f *folds) result(id FoldID) (Folded, bool) {
	if j := f.find(id); j != nil && j.done {
		return j.got, true
	}
	return Folded{}, false
}

func (f *folds) folded(ev Folded) {
	if j := f.find(ev.ID); j != nil && !j.done {
		j.done, j.got = true, ev
	}
}

// forget drops the folds before round, and those of it that go on: whoever
// carries them out gives them up when a head of that round is adopted.
func (f *folds) forget(round msg.Round) {
	f.list = slices.DeleteFunc(f.list, func(j *foldJob) bool {
		return j.round < round || j.round == round && !j.done
	})
}
