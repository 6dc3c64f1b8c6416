package judge

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/moot-net/moot/node/api"
)

// Judgement is what the judge said of one pair in one order.
type Judgement struct {
	// Key names the judge's model and all that it was shown.
	Key            string  `json:"key"`
	Candidate      string  `json:"candidate"`
	Question       string  `json:"question"`
	CandidateFirst bool    `json:"candidate_first"`
	Reference      float64 `json:"reference"` // points, 1 to 10
	Score          float64 `json:"score"`
	// Failed says why there are no points.
	Failed           string `json:"failed,omitempty"`
	Answer           string `json:"answer"`
	PromptTokens     int    `json:"prompt_tokens"`
	CompletionTokens int    `json:"completion_tokens"`
	// Asks is how often the judge was asked, if one time was not enough.
	Asks int `json:"asks,omitempty"`
}

// settled reports whether the judge is not asked again.
func (j Judgement) settled() bool { return j.Failed == "" || j.Asks == 0 || j.Asks >= maxAsks }

// Journal keeps judgements in a file, a line of JSON each; of several of one key
// the last one counts. Its methods may be called at the same time.
type Journal struct {
	f    file
	path string

	mu sync.Mutex
	// guarded by mu
	by     map[string]Judgement
	end    int64 // of the last line that is whole
	broken error // why what is behind it could not be taken away
}

// file is what a journal needs of an os.File.
type file interface {
	io.WriteSeeker
	Truncate(size int64) error
	Sync() error
	Close() error
}

// OpenJournal opens the journal at path, or begins it. A last line that was
// not written to its end is taken away.
func OpenJournal(path string) (*Journal, error) {
	wrong := func(err error) error {
		if errors.Is(err, fs.ErrPermission) {
			return api.Errorf(api.CodeUsage, "journal: %w", err)
		}
		return api.Errorf(api.CodeInternal, "journal: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, wrong(err)
	}
	j := &Journal{f: f, path: path, by: map[string]Judgement{}}
	b, err := io.ReadAll(f)
	if err != nil {
		f.Close()
		return nil, wrong(err)
	}
	end := bytes.LastIndexByte(b, '\n') + 1
	number := 0
	for line := range bytes.Lines(b[:end]) {
		number++
		var one Judgement
		if err := json.Unmarshal(line, &one); err != nil || one.Key == "" {
			f.Close()
			return nil, api.Errorf(api.CodeData, "%s:%d is no judgement", path, number).
				WithHint("take that line away, or choose another folder with --out")
		}
		j.by[one.Key] = one
	}
	if end < len(b) {
		err = f.Truncate(int64(end))
	}
	if err == nil {
		_, err = f.Seek(int64(end), io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, wrong(err)
	}
	j.end = int64(end)
	return j, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.f.Close() }

// has reports whether nothing has to be asked for a judgement.
func (j *Journal) has(key string) bool {
	one, ok := j.get(key)
	return ok && one.settled()
}

func (j *Journal) get(key string) (Judgement, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	one, ok := j.by[key]
	return one, ok
}

// append writes a judgement, durably: it may have cost money. Of one that cannot be
// written nothing stays: others may come behind it.
func (j *Journal) append(one Judgement) error {
	b, err := json.Marshal(one)
	b = append(b, '\n')
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		err = j.broken
	}
	if err == nil {
		if _, err = j.f.Write(b); err == nil {
			err = j.f.Sync()
		}
		if err != nil {
			j.broken = j.f.Truncate(j.end)
			if j.broken == nil {
				_, j.broken = j.f.Seek(j.end, io.SeekStart)
			}
		}
	}
	if err != nil {
		return api.Errorf(api.CodeDisk, "journal: %w", err).WithHint("what was judged before is kept; the same command goes on from there")
	}
	j.by[one.Key], j.end = one, j.end+int64(len(b))
	return nil
}
