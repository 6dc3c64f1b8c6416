package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
)

// CheckOptions say what Check reads.
type CheckOptions struct {
	Input shard.InputOptions // how the file is read
	// Samples is how many rows are shown. Default 3.
	Samples int
	// Problems is how many problems are listed. Default 20.
	Problems int
	// Seen, if not nil, knows the rows of files that were checked before.
	Seen *Seen
}

// Seen finds rows that are there again, word for word. Its zero value knows
// none.
type Seen struct {
	// HeldOut says that what comes from now on are held-out rows: those that
	// were there before, as rows to train on, are leaks.
	HeldOut bool

	places map[[16]byte]place // by hash
}

type place struct {
	text    string
	heldOut bool
}

// Again reports why a row should not be there, and remembers it: kind is
// "repeated" or "leak", or empty.
func (s *Seen) Again(row shard.Row, at string) (kind, why string) {
	b, err := json.Marshal(row)
	if err != nil {
		return "", "" // not of texts alone
	}
	sum := sha256.Sum256(b)
	before, again := s.places[[16]byte(sum[:16])]
	switch {
	case again && s.HeldOut && !before.heldOut:
		return "leak", "the same as " + before.text + ", which is trained on: what is measured on it is memory"
	case again:
		return "repeated", "the same as " + before.text
	}
	if s.places == nil {
		s.places = make(map[[16]byte]place)
	}
	s.places[[16]byte(sum[:16])] = place{at, s.HeldOut}
	return "", ""
}

// Report is what Check found out about a file of rows.
type Report struct {
	Detected shard.Detected
	Rows     int // that the file has
	Invalid  int // that an import refuses
	Dropped  int // that are valid and give no sample, because of their length or the chat template
	Cut      int // that are shortened
	Repeated int // that are there before, word for word
	Leaks    int // that are held out, and trained on
	Problems []Problem
	// Tokens is over the samples.
	Tokens Stats
	// Counted is how many of all tokens the loss counts.
	Counted int64
	Samples []Shown
}

// Problem is a row that is not trained on as it is.
type Problem struct {
	Place string // such as "rows.jsonl:7"
	Why   string
	Kind  string // "invalid", "dropped", "cut", "repeated" or "leak"
}

// Stats are of the tokens in a sample.
type Stats struct {
	Sum                   int64
	Min, Median, P95, Max int
}

// Shown is a sample as text, in parts of which the loss counts all tokens or
// none.
type Shown struct {
	Place string
	Parts []ShownPart
}

// ShownPart is a part of a sample.
type ShownPart struct {
	Text    string // with special tokens in it
	Tokens  int
	Counted bool
}

// CountedShare is the share of tokens that the loss counts.
func (r *Report) CountedShare() float64 {
	if r.Tokens.Sum == 0 {
		return 0
	}
	return float64(r.Counted) / float64(r.Tokens.Sum)
}

// Check reads a file of rows as an import would, and encodes all of them.
func Check(ctx context.Context, path string, e *Encoder, o CheckOptions) (*Report, error) {
	c := newChecker(e, o)
	d, err := shard.ReadInput(ctx, path, o.Input, func(row shard.InputRow) error {
		c.row(row)
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("check data: %w", err)
	}
	if c.report.Rows == 0 {
		return nil, fmt.Errorf("check data: %s has no rows", path)
	}
	if err := e.Accepts(d.Format); err != nil {
		return nil, fmt.Errorf("check data: %s: %w", path, err)
	}
	c.report.Detected = d
	c.report.Tokens = statsOf(c.lengths)
	return c.report, nil
}

// checker is a Check under way.
type checker struct {
	*Encoder
	o       CheckOptions
	report  *Report
	lengths []int
}

func newChecker(e *Encoder, o CheckOptions) *checker {
	if o.Samples == 0 {
		o.Samples = 3
	}
	if o.Problems == 0 {
		o.Problems = 20
	}
	return &checker{Encoder: e, o: o, report: &Report{}}
}

func (c *checker) row(row shard.InputRow) {
	r := c.report
	r.Rows++
	if row.Err != nil {
		r.Invalid++
		c.problem("invalid", row.Place, row.Err.Error())
		return
	}
	if c.o.Seen != nil {
		switch kind, why := c.o.Seen.Again(row.Row, row.Place); kind {
		case "leak":
			r.Leaks++
			c.problem(kind, row.Place, why)
		case "repeated":
			r.Repeated++
			c.problem(kind, row.Place, why)
		}
	}
	cut := c.cut
	s, err := c.encode(row.Row)
	if err != nil {
		r.Dropped++
		why := err.Error()
		if !errors.Is(err, errTooLong) {
			why = strings.TrimPrefix(why, "render chat template: ")
		}
		c.problem("dropped", row.Place, why)
		return
	}
	if c.cut > cut {
		r.Cut++
		c.problem("cut", row.Place, fmt.Sprintf("more than %d tokens", c.maxTokens))
	}
	c.lengths = append(c.lengths, len(s.IDs))
	r.Counted += int64(s.Counted())
	if len(r.Samples) < c.o.Samples {
		r.Samples = append(r.Samples, Shown{row.Place, c.show(s)})
	}
}

func (c *checker) problem(kind, place, why string) {
	if len(c.report.Problems) < c.o.Problems {
		c.report.Problems = append(c.report.Problems, Problem{place, why, kind})
	}
}

// show cuts a sample where counted tokens begin and end.
func (e *Encoder) show(s train.Sample) []ShownPart {
	var parts []ShownPart
	for begin := 0; begin < len(s.IDs); {
		counted, end := s.Labels[begin] != train.NotCounted, begin+1
		for end < len(s.IDs) && (s.Labels[end] != train.NotCounted) == counted {
			end++
		}
		// A part may begin with a space that Decode would take for the one
		// in front of a text: what is new behind the part before is its text.
		text := strings.TrimPrefix(e.tok.Decode(s.IDs[:end], false), e.tok.Decode(s.IDs[:begin], false))
		parts = append(parts, ShownPart{text, end - begin, counted})
		begin = end
	}
	return parts
}

func statsOf(lengths []int) Stats {
	if len(lengths) == 0 {
		return Stats{}
	}
	slices.Sort(lengths)
	s := Stats{Min: lengths[0], Max: lengths[len(lengths)-1]}
	for _, n := range lengths {
		s.Sum += int64(n)
	}
	s.Median = lengths[(len(lengths)-1)/2]
	s.P95 = lengths[(len(lengths)-1)*95/100]
	return s
}
