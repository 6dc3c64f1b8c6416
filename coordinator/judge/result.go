package judge

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Result sums up a comparison.
type Result struct {
	Judge      string  `json:"judge"` // model
	Reference  string  `json:"reference"`
	Questions  int     `json:"questions"`
	Requests   int     `json:"requests"` // judgements, those of the journal included
	Prompt     int     `json:"prompt_tokens"`
	Completion int     `json:"completion_tokens"`
	Candidates []Score `json:"candidates"`
}

// Interval is a share and its 95 % interval.
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Score is how a candidate did beside the reference.
type Score struct {
	Name string `json:"name"`
	// Relative is the sum of its points over that of the reference's, and nil if
	// no question counts.
	Relative *Interval `json:"relative"`
	// WinRate counts a tie as half a win. It is nil as Relative is.
	WinRate *Interval `json:"win_rate"`
	// Wins are the questions on which it was ahead in both orders, Losses
	// those on which it was behind in both.
	Wins   int `json:"wins"`
	Ties   int `json:"ties"`
	Losses int `json:"losses"`
	// Turned are those of the ties in which each order favoured another
	// answer.
	Turned int `json:"turned_by_order"`
	// Missing are questions without an answer, or without points in one of
	// the orders. They count for nothing.
	Missing int `json:"missing"`
	// Unreadable is a judgement without points, the first, as a reason.
	Unreadable string          `json:"unreadable,omitempty"`
	Categories []CategoryScore `json:"categories"`
}

// CategoryScore is a candidate's relative score on questions of one kind.
type CategoryScore struct {
	Name      string  `json:"name"`
	Questions int     `json:"questions"`
	Relative  float64 `json:"relative"`
}

// compared is a question that was judged in both orders: points summed over
// the orders, and 1, 0 or -1 for a win, a tie or a loss.
type compared struct {
	category         string
	reference, score float64
	outcome          int
}

// result sums up what the journal has of the tasks.
func (c Comparison) result(model string, journal *Journal, tasks []task) Result {
	all := requests(tasks)
	r := Result{Judge: model, Reference: c.Reference.Name, Questions: len(c.Questions), Requests: len(all)}
	for _, t := range all {
		j, _ := journal.get(t.key)
		r.Prompt += j.PromptTokens
		r.Completion += j.CompletionTokens
	}
	type pair struct{ candidate, question string }
	orders := map[pair][]Judgement{}
	unreadable := map[string]string{} // by candidate
	for _, t := range tasks {
		j, _ := journal.get(t.key)
		if j.CandidateFirst != t.swapped { // both say the same: one request stands for both orders
			j.Reference, j.Score = j.Score, j.Reference
		}
		if j.Failed == "" {
			p := pair{t.candidate, t.question.ID}
			orders[p] = append(orders[p], j)
		} else if unreadable[t.candidate] == "" {
			unreadable[t.candidate] = fmt.Sprintf("question %s: %s", t.question.ID, j.Failed)
		}
	}
	for _, candidate := range c.Candidates {
		s := Score{Name: candidate.Name}
		var all []compared
		for _, q := range c.Questions {
			both := orders[pair{candidate.Name, q.ID}]
			if len(both) != 2 {
				s.Missing++
				continue
			}
			v := compared{category: q.Category, reference: both[0].Reference + both[1].Reference, score: both[0].Score + both[1].Score}
			a, b := both[0].Score-both[0].Reference, both[1].Score-both[1].Reference
			switch {
			case a > 0 && b > 0:
				v.outcome = 1
				s.Wins++
			case a < 0 && b < 0:
				v.outcome = -1
				s.Losses++
			default:
				s.Ties++
				if a*b < 0 {
					s.Turned++
				}
			}
			all = append(all, v)
		}
		if len(all) > 0 {
			s.Relative, s.WinRate = new(bootstrap(all, relative)), new(bootstrap(all, winRate))
		}
		s.Unreadable = unreadable[candidate.Name]
		s.Categories = categories(all)
		r.Candidates = append(r.Candidates, s)
	}
	return r
}

func relative(all []compared) float64 {
	var reference, score float64
	for _, v := range all {
		reference += v.reference
		score += v.score
	}
	if reference == 0 {
		return 0
	}
	return score / reference
}

func winRate(all []compared) float64 {
	if len(all) == 0 {
		return 0
	}
	sum := 0
	for _, v := range all {
		sum += v.outcome
	}
	return 0.5 + float64(sum)/float64(2*len(all))
}

// categories returns the scores by kind of question, in the order in which
// they come first.
func categories(all []compared) []CategoryScore {
	of := map[string][]compared{}
	names := []string{}
	for _, v := range all {
		if of[v.category] == nil {
			names = append(names, v.category)
		}
		of[v.category] = append(of[v.category], v)
	}
	scores := make([]CategoryScore, len(names))
	for i, name := range names {
		scores[i] = CategoryScore{name, len(of[name]), relative(of[name])}
	}
	return scores
}

// resamples is the number of samples of a bootstrap.
const resamples = 4000

// bootstrap returns a figure of all and the interval between its 2.5th and
// 97.5th percentile when questions are drawn with replacement (Efron and
// Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The draws
// are the same each time.
func bootstrap(all []compared, figure func([]compared) float64) Interval {
	v := Interval{Value: figure(all)}
	random := rand.New(rand.NewPCG(1, uint64(len(all))))
	drawn, values := make([]compared, len(all)), make([]float64, resamples)
	for i := range values {
		for j := range drawn {
			drawn[j] = all[random.IntN(len(all))]
		}
		values[i] = figure(drawn)
	}
	slices.Sort(values)
	v.Low, v.High = values[resamples*25/1000], values[resamples*975/1000-1]
	return v
}
