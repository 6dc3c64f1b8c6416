package api

import "strconv"

// The versions of a model that can be compared, beside a round by its number.
const (
	VersionBase    = "base"    // the base model alone
	VersionAdapter = "adapter" // with the adapter in a folder
	VersionBest    = "best"    // after the round with the lowest loss on held-out rows
	VersionLast    = "last"    // after the last round
)

// CompareRequest asks several versions of a model the same.
type CompareRequest struct {
	Subject
	// Versions are any of base, best, last and numbers of rounds, with Run; base
	// and adapter with Adapter; base without. Default: all of these but numbers,
	// and but best when this node measured no round, or the last one is the best.
	Versions []string `json:"versions,omitempty"`
	// Prompts are answered by each; or Tasks, the absolute path of a JSONL file
	// of questions with right answers, says what is asked.
	Prompts []Prompt `json:"prompts,omitempty"`
	Tasks   string   `json:"tasks,omitempty"`
	// MaxTasks bounds how many questions are asked, from the first. Default all.
	MaxTasks int `json:"max_tasks,omitempty"`
	// MaxTokens bounds each answer in words. Default 128; 64 with Tasks.
	MaxTokens int `json:"max_tokens,omitempty"`
	// Template is as in GenerateRequest.
	Template string `json:"template,omitempty"`
}

// Comparison is what the versions answered, in the order that was asked for.
type Comparison struct {
	Model    string          `json:"model"`
	Device   string          `json:"device,omitempty"` // what computed
	Prompts  []Prompt        `json:"prompts,omitempty"`
	Versions []VersionAnswer `json:"versions"`
	Seconds  float64         `json:"seconds"`
}

// VersionAnswer is what one version answered.
type VersionAnswer struct {
	Version string  `json:"version"`
	Round   *uint64 `json:"round,omitempty"`
	Adapter string  `json:"adapter,omitempty"` // folder, or CID of the state
	// Outputs are those for Prompts, in their order.
	Outputs []Output `json:"outputs,omitempty"`
	Tasks   *Tasks   `json:"tasks,omitempty"`
}

// Tasks are the figures of a file of questions.
type Tasks struct {
	// Words are questions that are answered in words, Choices those of which the
	// most likely choice is taken; null without any.
	Words   *WordScore   `json:"words"`
	Choices *ChoiceScore `json:"choices"`
	// TooLong counts questions that do not fit into the model's context. They
	// count as wrong.
	TooLong int          `json:"too_long,omitempty"`
	Answers []TaskAnswer `json:"answers"`
}

// Score is a share, and its 95 % interval by Wilson's score.
type Score struct {
	Right    int     `json:"right"`
	Accuracy float64 `json:"accuracy"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
}

// WordScore is how many answers are right.
type WordScore struct {
	Asked int   `json:"asked"`
	Exact Score `json:"exact"` // equal but for white space at the ends
	Loose Score `json:"loose"` // but for case, punctuation and articles, too
}

// ChoiceScore is how often the right choice is the most likely one.
type ChoiceScore struct {
	Asked int   `json:"asked"`
	Plain Score `json:"plain"`   // by probability
	Byte  Score `json:"by_byte"` // by the mean of its logarithm over the bytes of the choice
	// Chance is what guessing would give.
	Chance float64 `json:"chance"`
}

// TaskAnswer is what was answered to one question.
type TaskAnswer struct {
	Line  int    `json:"line"` // of the file
	Text  string `json:"text"` // or the choice
	Right bool   `json:"right"`
}

// maxVersions bounds the versions of one request.
const maxVersions = 16

func (q *CompareRequest) check() error {
	if q.MaxTokens == 0 {
		q.MaxTokens = generateTokens
		if q.Tasks != "" {
			q.MaxTokens = evaluateTokens
		}
	}
	switch {
	case len(q.Prompts) == 0 && q.Tasks == "":
		return Errorf(CodeUsage, "prompts and tasks are both missing; there is nothing to answer")
	case len(q.Prompts) > 0 && q.Tasks != "":
		return Errorf(CodeUsage, "prompts and tasks are both given; one of them says what is asked")
	case len(q.Prompts) > maxPrompts:
		return Errorf(CodeUsage, "prompts has %d entries, at most %d are answered at once", len(q.Prompts), maxPrompts)
	case q.MaxTasks < 0:
		return Errorf(CodeUsage, "max_tasks is %d, must be positive", q.MaxTasks)
	case q.MaxTokens < 1 || q.MaxTokens > maxTokens:
		return Errorf(CodeUsage, "max_tokens is %d, must be from 1 to %d", q.MaxTokens, maxTokens)
	case q.Round != nil:
		return Errorf(CodeUsage, "round is given; rounds that are compared are among the versions")
	case len(q.Versions) > maxVersions:
		return Errorf(CodeUsage, "versions are %d, at most %d are compared", len(q.Versions), maxVersions)
	}
	seen := map[string]bool{}
	for _, v := range q.Versions {
		if seen[v] {
			return Errorf(CodeUsage, "version %s is given twice", clip(v))
		}
		seen[v] = true
		_, err := strconv.ParseUint(v, 10, 32)
		number := err == nil
		switch {
		case v == VersionBase:
		case v == VersionAdapter && q.Adapter != "":
		case (v == VersionBest || v == VersionLast || number) && q.Run != "":
		case v == VersionAdapter, v == VersionBest, v == VersionLast, number:
			return Errorf(CodeUsage, "version %s is not of this model: best, last and rounds are of a run, adapter of a folder", clip(v))
		default:
			return Errorf(CodeUsage, "version is %s, must be base, best, last, a round or adapter", clip(v))
		}
	}
	if q.Tasks != "" {
		if err := checkPath("tasks", q.Tasks); err != nil {
			return err
		}
	}
	return checkTemplate(q.Template)
}
