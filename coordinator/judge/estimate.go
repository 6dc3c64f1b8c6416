package judge

// Price is what a million tokens cost, in the currency of one's account.
type Price struct{ Prompt, Completion float64 }

// Estimate is what a comparison will take. Tokens of prompts are counted as
// bytes/4, those of answers as their usual length; it is a guess that is
// rather too high.
type Estimate struct {
	Requests   int     `json:"requests"`
	Known      int     `json:"known"` // of those, in the journal already
	Prompt     int     `json:"prompt_tokens"`
	Completion int     `json:"completion_tokens"`
	Most       int     `json:"most_completion_tokens"` // if every answer were as long as it may be
	Cost       float64 `json:"cost"`                   // 0 without a price
}

// usualReply is how many tokens a judge's answer has, as a rule.
const usualReply = 200

// Estimate returns what Run would take.
func (c Comparison) Estimate(judge *Endpoint, journal *Journal, price Price) Estimate {
	var e Estimate
	for _, t := range requests(c.tasks(judge.Model)) {
		e.Requests++
		if journal.has(t.key) {
			e.Known++
			continue
		}
		e.Prompt += (len(t.prompt.system)+len(t.prompt.user))/4 + 16
		e.Completion += min(usualReply, judge.MaxTokens)
		e.Most += judge.MaxTokens
	}
	e.Cost = price.Of(e.Prompt, e.Completion)
	return e
}

// Of returns what tokens cost.
func (p Price) Of(prompt, completion int) float64 {
	return (float64(prompt)*p.Prompt + float64(completion)*p.Completion) / 1e6
}
