package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moot-net/moot/coordinator/judge"
	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/plain"
)

// judgeOptions are the flags of moot judge.
type judgeOptions struct {
	api.Subject
	rounds    []string
	answers   []string // NAME=FILE
	reference string
	questions string
	maximum   int // questions
	template  string
	maxTokens int

	endpoint, model, keyFile string
	price                    judge.Price
	parallel                 int
	out                      string
	yes, estimate            bool
}

func newJudge(e *env) *cobra.Command {
	var o judgeOptions
	cmd := &cobra.Command{
		Use:   "judge",
		Short: "Let a language model compare answers, in the manner of the Vicuna chart",
		Long: `Answers questions with the base model and with what a run trained, and lets a
judge, a language model behind an OpenAI-compatible endpoint, give each pair of
answers points, in both orders. The relative score is the sum of a candidate's
points over that of the reference's.

Nothing is sent before it was said how many requests and tokens it takes, and
agreed to. Answers and judgements are kept in the folder given by --out; the
same command goes on from there. The key is read from --key-file or from
MOOT_JUDGE_KEY, and is sent to no address but the endpoint's.

Answers of other models are compared with --answers NAME=FILE, a file of JSON
lines with id and text.`,
		Example: `  moot judge --run last --endpoint https://api.openai.com/v1 --judge-model gpt-4.1 --estimate
  moot judge --run last --round 10 --round last --endpoint http://localhost:11434/v1 --judge-model qwen3 --yes
  moot judge --answers alpaca=alpaca.jsonl --answers ours=ours.jsonl --reference alpaca \
    --endpoint http://localhost:8000/v1 --judge-model judge --price-prompt 2 --price-completion 8`,
		Args: needs(false),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Model, err = folderOrID(o.Model); err != nil {
				return err
			}
			if o.Adapter != "" {
				if o.Adapter, err = absolute(o.Adapter); err != nil {
					return err
				}
			}
			return runJudge(cmd.Context(), e, o, cmd.InOrStdin())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Run, "run", "", "compare what the run with this `ID` trained with its base model")
	f.StringArrayVar(&o.rounds, "round", []string{"last"}, "as it was after this round: a `number`, last, or best by held-out loss\n(may be given again)")
	f.StringVar(&o.Model, "model", "", "`ID or folder` of a base model (with --run not needed)")
	f.StringVar(&o.Adapter, "adapter", "", "`folder` of an adapter (PEFT) for it")
	f.StringArrayVar(&o.answers, "answers", nil, "`NAME=FILE` with answers that are there already (may be given again)")
	f.StringVar(&o.reference, "reference", "", "`name` of what the others are compared with\n(default: base, or the first of --answers)")
	f.StringVar(&o.questions, "questions", "", "`file` of questions, JSON lines with id, category and text\n(default: 80 that come with moot)")
	f.IntVar(&o.maximum, "max-questions", 0, "use this `number` of them, spread over the file (default all)")
	f.IntVar(&o.maxTokens, "max-tokens", 512, "longest answer of our models in `tokens`")
	f.StringVar(&o.template, "template", "", "how a question becomes text: alpaca, chat or none\n(default: that of the run, else alpaca)")
	f.StringVar(&o.endpoint, "endpoint", "", "`address` of the judge's service, which often ends in /v1")
	f.StringVar(&o.model, "judge-model", "", "`name` of the judge at that service")
	f.StringVar(&o.keyFile, "key-file", "", "`file` with the key for it (default: MOOT_JUDGE_KEY, or none)")
	f.Float64Var(&o.price.Prompt, "price-prompt", 0, "what a million tokens of prompts `cost`s")
	f.Float64Var(&o.price.Completion, "price-completion", 0, "what a million tokens of answers `cost`s")
	f.IntVar(&o.parallel, "parallel", 4, "`number` of requests at once")
	f.StringVar(&o.out, "out", "judge", "`folder` for answers, judgements, result.json,\nchart.svg and chart.png")
	f.BoolVar(&o.yes, "yes", false, "start without asking")
	f.BoolVar(&o.estimate, "estimate", false, "say what it would take, and stop")
	cmd.MarkFlagsMutuallyExclusive("run", "adapter")
	cmd.MarkFlagsMutuallyExclusive("yes", "estimate")
	return cmd
}

// check finds what is wrong with the flags.
func (o *judgeOptions) check() error {
	switch {
	case o.endpoint == "":
		return api.Errorf(api.CodeUsage, "--endpoint is missing").WithHint("give the address of a service that speaks OpenAI's protocol, as in http://localhost:11434/v1")
	case o.model == "":
		return api.Errorf(api.CodeUsage, "--judge-model is missing")
	case o.Run == "" && o.Model == "" && len(o.answers) == 0:
		return api.Errorf(api.CodeUsage, "there is nothing to judge").WithHint("give --run, --model with --adapter, or --answers")
	case o.Run == "" && o.Adapter != "" && o.Model == "":
		return api.Errorf(api.CodeUsage, "--adapter needs --model")
	case o.maximum < 0 || o.maxTokens < 1:
		return api.Errorf(api.CodeUsage, "--max-questions and --max-tokens must be positive")
	case o.parallel < 1 || o.parallel > 64:
		return api.Errorf(api.CodeUsage, "--parallel is %d, must be 1 to 64", o.parallel)
	case o.price.Prompt < 0 || o.price.Completion < 0:
		return api.Errorf(api.CodeUsage, "a price is below 0")
	}
	return nil
}

// judged is the answer of moot judge.
type judged struct {
	judge.Result
	Endpoint string   `json:"endpoint"`
	Cost     *float64 `json:"cost"` // null without a price
	Dir      string   `json:"dir"`
}

// estimated is the answer of moot judge --estimate.
type estimated struct {
	judge.Estimate
	Endpoint string `json:"endpoint"`
	Judge    string `json:"judge"`
	Dir      string `json:"dir"`
}

func runJudge(ctx context.Context, e *env, o judgeOptions, stdin io.Reader) error {
	if err := o.check(); err != nil {
		return err
	}
	key, err := judgeKey(o.keyFile)
	if err != nil {
		return err
	}
	endpoint, err := judge.NewEndpoint(o.endpoint, o.model, key)
	if err != nil {
		return err
	}
	comparison := judge.Comparison{Parallel: o.parallel}
	if comparison.Questions, err = readQuestions(o.questions, o.maximum); err != nil {
		return err
	}
	if o.out, err = absolute(o.out); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return api.Errorf(api.CodeUsage, "--out: %w", err)
	}
	if err := o.collect(ctx, e, &comparison); err != nil {
		return err
	}
	if err := comparison.Check(); err != nil {
		return err
	}
	journal, err := judge.OpenJournal(filepath.Join(o.out, "judgements.jsonl"))
	if err != nil {
		return err
	}
	defer func() { _ = journal.Close() }() // each line was synced

	estimate := comparison.Estimate(endpoint, journal, o.price)
	if o.estimate {
		return e.answer(estimated{estimate, endpoint.Host(), o.model, o.out}, func(p *page) { p.line("%s", o.needs(estimate, endpoint)) })
	}
	if estimate.Known < estimate.Requests {
		e.board.close()
		fmt.Fprintln(e.err, o.needs(estimate, endpoint))
		if err := o.agree(e.err, stdin); err != nil {
			return err
		}
	}
	endpoint.Waiting = func(err error, d time.Duration) {
		e.board.set("judge", fmt.Sprintf("%s; asks again in %s", err, seconds(math.Ceil(d.Seconds()))))
	}
	progress := e.board.progress("judge")
	r, err := judge.Run(ctx, comparison, endpoint, journal, func(done, total int) {
		progress(api.Progress{Phase: "judge", Done: int64(done), Total: int64(total), Unit: "judgements"})
	})
	if err != nil {
		return err
	}
	v := judged{Result: r, Endpoint: endpoint.Host(), Dir: o.out}
	if o.priced() {
		v.Cost = new(o.price.Of(r.Prompt, r.Completion))
	}
	if err := writeJudged(v); err != nil {
		return err
	}
	return e.answer(v, v.page)
}

func (o *judgeOptions) priced() bool { return o.price != judge.Price{} }

// needs says what a comparison takes.
func (o *judgeOptions) needs(v judge.Estimate, endpoint *judge.Endpoint) string {
	text := fmt.Sprintf("%s to %s (%s)", plain.Plural(v.Requests-v.Known, "request"), endpoint.Host(), plain.Clean(o.model))
	if v.Known > 0 {
		text += fmt.Sprintf(", %s judged already", plain.Group(v.Known))
	}
	text += fmt.Sprintf(": about %s tokens of prompts and %s of answers (at most %s)", plain.Group(v.Prompt), plain.Group(v.Completion), plain.Group(v.Most))
	if !o.priced() {
		return text + "; no price was given"
	}
	return text + fmt.Sprintf(", which cost about %.2f (at most %.2f)", v.Cost, o.price.Of(v.Prompt, v.Most))
}

// agree asks whether to start.
func (o *judgeOptions) agree(w io.Writer, stdin io.Reader) error {
	if o.yes {
		return nil
	}
	if f, ok := stdin.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return api.Errorf(api.CodeUsage, "nothing was sent: it was not agreed to").WithHint("add --yes, or --estimate to just see this")
	}
	fmt.Fprint(w, "Start? [y/N] ")
	line, err := bufio.NewReader(stdin).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || (answer != "y" && answer != "yes") {
		return api.Errorf(api.CodeInterrupted, "nothing was sent")
	}
	return nil
}

// judgeKey reads the key, if there is one.
func judgeKey(file string) (string, error) {
	if file == "" {
		return strings.TrimSpace(os.Getenv("MOOT_JUDGE_KEY")), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", api.Errorf(api.CodeUsage, "--key-file: %w", err)
	}
	key := strings.TrimSpace(string(b))
	if key == "" {
		return "", api.Errorf(api.CodeAuth, "--key-file: %s is empty", file)
	}
	return key, nil
}

// readQuestions reads the questions and takes a number of them, from all parts.
func readQuestions(file string, maximum int) ([]judge.Question, error) {
	all := judge.Questions()
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, api.Errorf(api.CodeUsage, "--questions: %w", err)
		}
		defer f.Close()
		if all, err = judge.ReadQuestions(f, file); err != nil {
			return nil, err
		}
	}
	if maximum == 0 || maximum >= len(all) {
		return all, nil
	}
	some := make([]judge.Question, maximum)
	for i := range some {
		some[i] = all[i*len(all)/maximum]
	}
	return some, nil
}

// collect gathers the answers: those of files, and those that the daemon's
// models give.
func (o *judgeOptions) collect(ctx context.Context, e *env, c *judge.Comparison) error {
	var all []judge.Answers
	if o.Run != "" || o.Model != "" {
		own, err := o.generate(ctx, e, c.Questions)
		if err != nil {
			return err
		}
		all = own
	}
	for _, arg := range o.answers {
		name, file, ok := strings.Cut(arg, "=")
		if !ok || name == "" || file == "" {
			return api.Errorf(api.CodeUsage, "--answers is %q, must be NAME=FILE", arg)
		}
		f, err := os.Open(file)
		if err != nil {
			return api.Errorf(api.CodeUsage, "--answers: %w", err)
		}
		a, err := judge.ReadAnswers(f, file, name)
		f.Close()
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	reference := o.reference
	if reference == "" {
		reference = all[0].Name
	}
	i := slices.IndexFunc(all, func(a judge.Answers) bool { return a.Name == reference })
	if i < 0 {
		names := make([]string, len(all))
		for i, a := range all {
			names[i] = a.Name
		}
		return api.Errorf(api.CodeUsage, "--reference is %q; there are %s", reference, strings.Join(names, ", "))
	}
	c.Reference, c.Candidates = all[i], slices.Delete(slices.Clone(all), i, i+1)
	return nil
}

// contender is a model of ours that answers.
type contender struct {
	name    string
	subject api.Subject
	adapter string // state CID or folder; empty: the base model
}

// contenders are the base model and what is compared with it.
func (o *judgeOptions) contenders(ctx context.Context, c *client.Client) ([]contender, error) {
	if o.Run == "" {
		all := []contender{{name: "base", subject: api.Subject{Model: o.Model}}}
		if o.Adapter != "" {
			all = append(all, contender{filepath.Base(o.Adapter), o.Subject, o.Adapter})
		}
		return all, nil
	}
	run, err := c.Run(ctx, o.Run)
	if err != nil {
		return nil, err
	}
	all := []contender{{name: "base", subject: api.Subject{Model: run.Model}}}
	rounds, err := c.AllRounds(ctx, run.ID)
	if err != nil {
		return nil, err
	}
	for _, which := range o.rounds {
		r, err := pickRound(rounds, which)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("round %d", r.Round)
		if slices.ContainsFunc(all, func(c contender) bool { return c.name == name }) {
			continue // last may be best
		}
		all = append(all, contender{name, api.Subject{Run: run.ID, Round: new(r.Round)}, r.State})
	}
	return all, nil
}

// pickRound finds a round by number, or as the last or the best one.
func pickRound(rounds []api.Round, which string) (api.Round, error) {
	if len(rounds) == 0 {
		return api.Round{}, api.Errorf(api.CodeNotFound, "the run has no round yet")
	}
	switch which {
	case "last":
		return rounds[len(rounds)-1], nil
	case "best":
		best := -1
		for i, r := range rounds {
			if r.EvalLoss != nil && (best < 0 || *r.EvalLoss < *rounds[best].EvalLoss) {
				best = i
			}
		}
		if best < 0 {
			return api.Round{}, api.Errorf(api.CodeNotFound, "no round of the run has a held-out loss").WithHint("take --round last")
		}
		return rounds[best], nil
	}
	n, err := strconv.ParseUint(which, 10, 64)
	if err != nil {
		return api.Round{}, api.Errorf(api.CodeUsage, "--round is %q, must be a number, last or best", which)
	}
	i := slices.IndexFunc(rounds, func(r api.Round) bool { return r.Round == n })
	if i < 0 {
		return api.Round{}, api.Errorf(api.CodeNotFound, "the run has no round %d; its last is %d", n, rounds[len(rounds)-1].Round)
	}
	return rounds[i], nil
}

// generate lets our models answer, but for what they have answered before.
func (o *judgeOptions) generate(ctx context.Context, e *env, questions []judge.Question) ([]judge.Answers, error) {
	c, err := e.open()
	if err != nil {
		return nil, err
	}
	contenders, err := o.contenders(ctx, c)
	if err != nil {
		return nil, err
	}
	all := make([]judge.Answers, len(contenders))
	for i, who := range contenders {
		if all[i], err = o.answer(ctx, e, c, who, questions); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// answerLine is an answer as it is kept. What it depends on is in each line.
type answerLine struct {
	ID        string `json:"id"`
	Text      string `json:"text"`
	Model     string `json:"model"`
	Adapter   string `json:"adapter,omitempty"`
	Template  string `json:"template,omitempty"`
	MaxTokens int    `json:"max_tokens"`
	Question  string `json:"question"`
}

// answerBatch is how many questions are answered before answers are kept.
const answerBatch = 4

func (o *judgeOptions) answer(ctx context.Context, e *env, c *client.Client, who contender, questions []judge.Question) (judge.Answers, error) {
	answers := judge.Answers{Name: who.name, Text: map[string]string{}}
	path := filepath.Join(o.out, "answers-"+fileName(who.name)+".jsonl")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return answers, api.Errorf(api.CodeUsage, "--out: %w", err)
	}
	defer f.Close()
	kept, size, err := readKept(f, path)
	if err != nil {
		return answers, err
	}
	if err := f.Truncate(size); err != nil {
		return answers, api.Errorf(api.CodeInternal, "%s: %w", path, err)
	}
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		return answers, api.Errorf(api.CodeInternal, "%s: %w", path, err)
	}
	var left []judge.Question
	for _, q := range questions {
		k, ok := kept[q.ID]
		switch {
		case !ok:
			left = append(left, q)
			continue
		case k.Adapter != who.adapter || k.Template != o.template || k.MaxTokens != o.maxTokens || k.Question != q.Text ||
			(who.subject.Model != "" && k.Model != who.subject.Model):
			return answers, api.Errorf(api.CodeConflict, "%s has answers to other questions, of another model or with other settings", path).
				WithHint("choose another folder with --out")
		}
		answers.Text[q.ID] = k.Text
	}
	progress := e.board.progress(who.name)
	report := func() {
		progress(api.Progress{Phase: "answer", Done: int64(len(questions) - len(left)), Total: int64(len(questions)), Unit: "questions"})
	}
	for len(left) > 0 {
		report()
		batch := left[:min(answerBatch, len(left))]
		req := api.GenerateRequest{Subject: who.subject, MaxTokens: o.maxTokens, Template: o.template}
		for _, q := range batch {
			req.Prompts = append(req.Prompts, api.Prompt{Instruction: q.Text})
		}
		g, err := c.Generate(ctx, req, nil)
		if err != nil {
			return answers, err
		}
		if len(g.Outputs) != len(batch) {
			return answers, api.Errorf(api.CodeInternal, "the daemon gave %d answers to %d questions", len(g.Outputs), len(batch))
		}
		var b bytes.Buffer
		for i, q := range batch {
			answers.Text[q.ID] = g.Outputs[i].Text
			line, err := json.Marshal(answerLine{q.ID, g.Outputs[i].Text, orElse(who.subject.Model, g.Model), who.adapter, o.template, o.maxTokens, q.Text})
			if err != nil {
				return answers, api.Errorf(api.CodeInternal, "%w", err)
			}
			b.Write(append(line, '\n'))
		}
		_, err = f.Write(b.Bytes())
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return answers, api.Errorf(api.CodeDisk, "%s: %w", path, err)
		}
		left = left[len(batch):]
	}
	report()
	return answers, nil
}

// readKept reads the answers in a file, up to a line that was not written to
// its end.
func readKept(r io.Reader, path string) (map[string]answerLine, int64, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, 0, api.Errorf(api.CodeInternal, "%s: %w", path, err)
	}
	size := bytes.LastIndexByte(b, '\n') + 1
	kept := map[string]answerLine{}
	n := 0
	for line := range bytes.Lines(b[:size]) {
		n++
		var a answerLine
		if err := json.Unmarshal(line, &a); err != nil {
			return nil, 0, api.Errorf(api.CodeData, "%s:%d: %w", path, n, err).WithHint("take that line away, or choose another folder with --out")
		}
		kept[a.ID] = a
	}
	return kept, int64(size), nil
}

// fileName makes a name that is fit for a file.
func fileName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, s)
}

// writeJudged writes the result and its chart.
func writeJudged(v judged) error {
	b, err := api.Marshal(v)
	if err != nil {
		return api.Errorf(api.CodeInternal, "%w", err)
	}
	picture, err := v.PNG()
	if err != nil {
		return api.Errorf(api.CodeInternal, "chart: %w", err)
	}
	var failed []error
	for name, content := range map[string][]byte{"result.json": append(b, '\n'), "chart.svg": v.SVG(), "chart.png": picture} {
		failed = append(failed, os.WriteFile(filepath.Join(v.Dir, name), content, 0o644))
	}
	if err := errors.Join(failed...); err != nil {
		return api.Errorf(api.CodeDisk, "%w", err)
	}
	return nil
}

func (v judged) page(p *page) {
	p.field("judge", "%s at %s", v.Judge, v.Endpoint)
	p.field("reference", "%s", v.Reference)
	p.field("questions", "%s, each in both orders", plain.Group(v.Questions))
	p.field("tokens", "%s of prompts, %s of answers", plain.Group(v.Prompt), plain.Group(v.Completion))
	if v.Cost != nil {
		p.field("cost", "%.2f", *v.Cost)
	}
	p.line("")
	share := func(v *judge.Interval) (value, interval string) {
		if v == nil {
			return "-", "-"
		}
		return percent(v.Value), fmt.Sprintf("%s to %s", percent(v.Low), percent(v.High))
	}
	var rows [][]string
	for _, s := range v.Candidates {
		relative, interval := share(s.Relative)
		wins, _ := share(s.WinRate)
		rows = append(rows, []string{
			s.Name, relative, interval, plain.Group(s.Wins), plain.Group(s.Ties), plain.Group(s.Losses), wins, plain.Group(s.Turned), plain.Group(s.Missing),
		})
	}
	p.table([]string{"CANDIDATE", ">RELATIVE", ">95 % INTERVAL", ">WON", ">TIED", ">LOST", ">WIN RATE", ">TURNED", ">MISSING"}, rows)
	p.line("")
	for _, s := range v.Candidates {
		if s.Unreadable != "" {
			p.line("Not all of what the judge said of %s could be read; %s", plain.Clean(s.Name), plain.Clean(s.Unreadable))
		}
	}
	p.line("Turned: each order favoured another answer. A judge's opinion is no measurement;")
	p.line("it favours long answers. Chart and judgements are in %s", plain.Clean(v.Dir))
}
