// Package judge compares answers by asking a language model behind an
// OpenAI-compatible endpoint, and sums up what it says as a relative score, in
// the manner of the Vicuna chart (lmsys.org, "Vicuna: An Open-Source Chatbot
// Impressing GPT-4", 2023): the judge gives each of two answers 1 to 10
// points, and a candidate's score is the sum of its points over the sum of the
// reference's.
//
// What that chart left out is added: each pair is shown in both orders, a
// candidate wins a question only if it is ahead in both, and every figure has
// an interval (percentile bootstrap over questions). How often the order alone
// turned a verdict is reported. Judges also prefer long answers and their own;
// no arithmetic takes that away.
//
// What the judge said is kept in a journal, so that a comparison which broke
// off goes on where it was and nothing is paid for twice.
package judge

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/moot-net/moot/node/api"
)

// Question is what the models were asked.
type Question struct {
	ID       string `json:"id"`
	Category string `json:"category"`
	Text     string `json:"text"`
	// Reference, if there is one, is a right answer, which the judge sees.
	Reference string `json:"reference,omitempty"`
}

// Answers are what one model said, by ID of the question.
type Answers struct {
	Name string
	Text map[string]string
}

// Comparison is what is to be judged. Questions that one of a pair has no
// answer to are left out for that pair, and counted as missing.
type Comparison struct {
	Questions  []Question
	Reference  Answers
	Candidates []Answers
	Parallel   int // requests at once; 0 stands for 4
}

// task is one request: a candidate beside the reference in one order.
type task struct {
	candidate string
	question  Question
	swapped   bool // the candidate comes first
	prompt    prompt
	key       string
}

// tasks returns the requests of c, for judge model, in a fixed order.
func (c Comparison) tasks(model string) []task {
	var all []task
	for _, candidate := range c.Candidates {
		for _, q := range c.Questions {
			reference, ok := c.Reference.Text[q.ID]
			answer, too := candidate.Text[q.ID]
			if !ok || !too {
				continue
			}
			for _, swapped := range []bool{false, true} {
				first, second := reference, answer
				if swapped {
					first, second = answer, reference
				}
				p := newPrompt(q, first, second)
				all = append(all, task{candidate.Name, q, swapped, p, p.key(model)})
			}
		}
	}
	return all
}

// requests are the tasks without those that show the judge what another one does:
// two candidates may say the same, or a candidate what the reference says.
func requests(tasks []task) []task {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(tasks), func(t task) bool {
		again := seen[t.key]
		seen[t.key] = true
		return again
	})
}

// Check reports what is wrong with c before anything is paid for.
func (c Comparison) Check() error {
	names := map[string]bool{c.Reference.Name: true}
	for _, candidate := range c.Candidates {
		if names[candidate.Name] {
			return api.Errorf(api.CodeUsage, "two sets of answers are called %q", candidate.Name)
		}
		names[candidate.Name] = true
	}
	switch {
	case len(c.Questions) == 0:
		return api.Errorf(api.CodeUsage, "there are no questions")
	case len(c.Candidates) == 0:
		return api.Errorf(api.CodeUsage, "there is nothing to compare with %q", c.Reference.Name)
	}
	for _, candidate := range c.Candidates {
		common := slices.ContainsFunc(c.Questions, func(q Question) bool {
			_, ok := c.Reference.Text[q.ID]
			_, too := candidate.Text[q.ID]
			return ok && too
		})
		if !common {
			return api.Errorf(api.CodeData, "%q and %q have answered no question in common", c.Reference.Name, candidate.Name)
		}
	}
	return nil
}

// Run asks the judge what the journal does not know yet, and returns the
// result. When it fails, what was answered before is in the journal.
func Run(ctx context.Context, c Comparison, judge *Endpoint, journal *Journal, progress func(done, total int)) (Result, error) {
	if err := c.Check(); err != nil {
		return Result{}, err
	}
	tasks := c.tasks(judge.Model)
	all := requests(tasks)
	left := slices.DeleteFunc(slices.Clone(all), func(t task) bool { return journal.has(t.key) })
	done := len(all) - len(left)
	progress(done, len(all))

	parallel := c.Parallel
	if parallel == 0 {
		parallel = 4
	}
	// What goes wrong once ends all, but not the requests that are under way: they may
	// be paid for.
	going, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.SetLimit(parallel)
	var mu sync.Mutex
	var failed error // what went wrong first
	for _, t := range left {
		if going.Err() != nil {
			break
		}
		g.Go(func() error {
			err := ask(ctx, going, judge, t, journal)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
				progress(done, len(all))
				return nil
			}
			if failed == nil {
				failed = err
			}
			stop()
			return nil
		})
	}
	_ = g.Wait() // it has no error of its own
	switch {
	case failed != nil:
		return Result{}, failed
	case done < len(all):
		return Result{}, interrupted()
	}
	r := c.result(judge.Model, journal, tasks)
	if !slices.ContainsFunc(r.Candidates, func(s Score) bool { return s.Relative != nil }) {
		return Result{}, api.Errorf(api.CodeData, "%s gave no question points in both orders; %s", clip(judge.Model, 60), firstUnreadable(r.Candidates)).
			WithHint("%s has all that it said; take another judge", journal.path)
	}
	return r, nil
}

// interrupted is the error when somebody breaks a comparison off.
func interrupted() error {
	return api.Errorf(api.CodeInterrupted, "interrupted").WithHint("what was judged so far is kept; the same command goes on from there")
}

// firstUnreadable is the first judgement of any candidate that could not be read.
func firstUnreadable(all []Score) string {
	for _, s := range all {
		if s.Unreadable != "" {
			return s.Unreadable
		}
	}
	return "nothing could be compared"
}

// maxAsks is how often the judge is asked when its answer has no scores.
const maxAsks = 3

// ask puts one pair to the judge, and what it says into the journal as it comes.
// An answer without scores is no error; it is a judgement that says so. When going
// ends, nothing more is sent.
func ask(ctx, going context.Context, judge *Endpoint, t task, journal *Journal) error {
	j, ok := journal.get(t.key)
	if !ok {
		j = Judgement{Key: t.key, Candidate: t.candidate, Question: t.question.ID, CandidateFirst: t.swapped}
	}
	for asked := j.Asks; asked < maxAsks; {
		messages := t.prompt.messages()
		if asked > 0 {
			messages = append(messages, message{"assistant", j.Answer}, message{"user", again})
		}
		r, err := judge.complete(ctx, going, messages)
		if err != nil {
			return fmt.Errorf("question %s: %w", t.question.ID, err)
		}
		asked++
		j.PromptTokens += r.promptTokens
		j.CompletionTokens += r.completionTokens
		j.Answer = clip(r.text, maxKept)
		first, second, err := parseScores(r.text)
		if err == nil {
			j.Failed = ""
			j.Reference, j.Score = first, second
			if t.swapped {
				j.Reference, j.Score = second, first
			}
		} else {
			j.Failed = err.Error()
		}
		if j.Failed != "" || asked > 1 {
			j.Asks = asked
		}
		if err := journal.append(j); err != nil {
			return err
		}
		if j.settled() {
			break
		}
	}
	return nil
}

// maxKept is how many bytes of an answer the journal keeps.
const maxKept = 8 << 10
