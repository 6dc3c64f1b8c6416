package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"
)

// RoundPoint is a decided round in short, for charts.
type RoundPoint struct {
	Round  uint64 `json:"round"`
	Record string `json:"record"` // CID
	// Decided and Seconds are as in Round.
	Decided   time.Time `json:"decided,omitzero"`
	Seconds   float64   `json:"seconds"`
	Certified bool      `json:"certified"` // else provisional
	Seats     int       `json:"seats"`
	Deltas    int       `json:"deltas"`  // that entered
	Refused   int       `json:"refused"` // deltas that were left out
	// Reasons are those of Refused, each once.
	Reasons []string `json:"reasons,omitempty"`
	Bytes   uint64   `json:"bytes"` // of the deltas that entered
	// RoundTokens are those of this round, OwnTokens those of them that this node
	// trained on, Tokens all since the beginning.
	RoundTokens uint64 `json:"round_tokens"`
	OwnTokens   uint64 `json:"own_tokens,omitempty"`
	Tokens      uint64 `json:"tokens"`
	// TrainLoss and EvalLoss are as in Round. TrainMean is the running mean of the
	// first over all rounds so far, of which each counts 0.9 times as much as the
	// next.
	TrainLoss *float64 `json:"train_loss"`
	EvalLoss  *float64 `json:"eval_loss"`
	TrainMean *float64 `json:"train_mean"`
}

// Series is a run by rounds, oldest first: all, or those that stand out and the
// last ones.
type Series struct {
	Run string `json:"run"`
	// Round is the last that was read, Head the last that is decided. Of a long run
	// that was not asked about before, older rounds are read at first; ask again.
	Round uint64 `json:"round"`
	Head  uint64 `json:"head"`
	// Rounds is how many were read; of more than Points what is told are, of each
	// stretch of rounds, those with the lowest and the highest figures.
	Rounds int          `json:"rounds"`
	Points []RoundPoint `json:"points"`
}

// RunPeer is what one peer did in a run.
type RunPeer struct {
	Peer    string  `json:"peer"`
	Rounds  uint64  `json:"rounds"` // with a delta of it
	Tokens  uint64  `json:"tokens"`
	Steps   uint64  `json:"steps"`
	Bytes   uint64  `json:"bytes"` // of its deltas
	Weight  uint64  `json:"weight"`
	Share   float64 `json:"share"`   // of all weight
	Clipped uint64  `json:"clipped"` // rounds in which its delta was shortened
	Refused uint64  `json:"refused"` // deltas
	// Reasons counts Refused by why.
	Reasons map[string]uint64 `json:"reasons,omitempty"`
	Loss    *float64          `json:"loss"` // of its last delta, as it says itself
	Last    uint64            `json:"last"` // round with a delta of it
	// Standing is the last that a round says of it; not there if none does.
	Standing *Standing `json:"standing,omitempty"`
}

// RunRefusal is a delta that some round left out.
type RunRefusal struct {
	Round  uint64 `json:"round"`
	Peer   string `json:"peer"`
	Reason string `json:"reason"`
}

// RunPeers are the peers of a run, by what they contributed.
type RunPeers struct {
	Run string `json:"run"`
	// Round and Head are as in Series.
	Round uint64 `json:"round"`
	Head  uint64 `json:"head"`
	// Known is how many peers the rounds name; those with most tokens are told.
	Known int       `json:"known"`
	Peers []RunPeer `json:"peers"`
	// Entered and Refused count deltas; Refusals are the last of those that were
	// refused, newest first.
	Entered  uint64       `json:"entered"`
	Refused  uint64       `json:"refused"`
	Refusals []RunRefusal `json:"refusals"`
}

// The bounds of these answers.
const (
	MaxPoints    = 2000
	points       = 1000 // default
	minPoints    = 20
	pointsExact  = 100 // of the last rounds, none is left out
	pointsAlike  = 8   // of a stretch are told at most
	MaxRunPeers  = 1000
	keptRefusals = 200
)

// Digest sums up the rounds of a run. The zero Digest is that of none.
type Digest struct {
	// Self is the peer whose own tokens are told.
	Self string

	rounds       []RoundPoint // shared with what With makes of it
	tail         []RoundPoint // that came with With
	mean, weight float64      // of the training loss
	peers        map[string]*RunPeer
	sum          uint64 // of weights
	refusals     []RunRefusal
	entered      uint64
	refused      uint64
}

// Last is the last round that was added, and its record; 0 if none was.
func (d *Digest) Last() (round uint64, record string) {
	for _, l := range [][]RoundPoint{d.tail, d.rounds} {
		if n := len(l); n > 0 {
			return l[n-1].Round, l[n-1].Record
		}
	}
	return 0, ""
}

// With is a Digest with further rounds, which come after those of d. d stays as
// it is.
func (d *Digest) With(rounds []Round) *Digest {
	out := *d
	out.rounds, out.tail, out.refusals = slices.Clip(d.rounds), slices.Clip(d.tail), slices.Clip(d.refusals)
	out.peers = make(map[string]*RunPeer, len(d.peers))
	for id, p := range d.peers {
		c := *p
		c.Reasons = make(map[string]uint64, len(p.Reasons))
		for why, n := range p.Reasons {
			c.Reasons[why] = n
		}
		out.peers[id] = &c
	}
	for _, r := range rounds {
		out.tail = append(out.tail, out.add(r))
	}
	return &out
}

// Add adds the next round.
func (d *Digest) Add(r Round) {
	if p := d.add(r); len(d.tail) > 0 {
		d.tail = append(d.tail, p)
	} else {
		d.rounds = append(d.rounds, p)
	}
}

func (d *Digest) add(r Round) RoundPoint {
	p := RoundPoint{
		Round: r.Round, Record: r.Record, Decided: r.Decided, Seconds: r.Seconds, Certified: r.Certified, Seats: r.Seats,
		Deltas: len(r.Contributions), Refused: len(r.Refused), Tokens: r.Tokens, TrainLoss: r.TrainLoss, EvalLoss: r.EvalLoss,
	}
	for _, c := range r.Contributions {
		p.Bytes += c.DeltaBytes
		p.RoundTokens += c.Tokens
		if c.Peer == d.Self {
			p.OwnTokens += c.Tokens
		}
		d.contribution(r.Round, c)
	}
	for _, x := range r.Refused {
		if !slices.Contains(p.Reasons, x.Reason) {
			p.Reasons = append(p.Reasons, x.Reason)
		}
		who := d.peer(x.Peer)
		who.Refused++
		if who.Reasons == nil {
			who.Reasons = make(map[string]uint64)
		}
		who.Reasons[x.Reason]++
		d.refusals = append(d.refusals, RunRefusal{r.Round, x.Peer, x.Reason})
	}
	if n := len(d.refusals); n > 2*keptRefusals {
		d.refusals = slices.Clone(d.refusals[n-keptRefusals:])
	}
	for _, s := range r.Standings {
		d.peer(s.Peer).Standing = &s
	}
	d.refused += uint64(len(r.Refused))
	if r.TrainLoss != nil {
		const keep = 0.9
		d.mean, d.weight = keep*d.mean+(1-keep)**r.TrainLoss, keep*d.weight+(1-keep)
	}
	if d.weight > 0 {
		mean := d.mean / d.weight
		p.TrainMean = &mean
	}
	return p
}

func (d *Digest) contribution(round uint64, c Contribution) {
	p := d.peer(c.Peer)
	p.Rounds++
	p.Tokens += c.Tokens
	p.Steps += c.Steps
	p.Bytes += c.DeltaBytes
	p.Weight += c.Weight
	if c.Clip < 1 {
		p.Clipped++
	}
	p.Loss, p.Last = &c.Loss, round
	d.sum += c.Weight
	d.entered++
}

func (d *Digest) peer(id string) *RunPeer {
	if d.peers == nil {
		d.peers = make(map[string]*RunPeer)
	}
	p := d.peers[id]
	if p == nil {
		p = &RunPeer{Peer: id}
		d.peers[id] = p
	}
	return p
}

// Series tells the rounds, in at most limit points, but up to 20 always.
func (d *Digest) Series(limit int) Series {
	rounds := d.rounds
	if len(d.tail) > 0 {
		rounds = slices.Concat(rounds, d.tail)
	}
	s := Series{Rounds: len(rounds), Points: rounds}
	s.Round, _ = d.Last()
	limit = max(limit, minPoints)
	if len(rounds) <= limit {
		return s
	}
	exact := min(pointsExact, limit/2)
	old := rounds[:len(rounds)-exact]
	stretches := max(1, (limit-exact)/pointsAlike)
	s.Points = make([]RoundPoint, 0, limit)
	for i := range stretches {
		s.Points = append(s.Points, outstanding(old[i*len(old)/stretches:(i+1)*len(old)/stretches])...)
	}
	s.Points = append(s.Points, rounds[len(old):]...)
	return s
}

// outstanding are at most pointsAlike of rounds, in order: those with the lowest
// and the highest losses, the longest, those with most deltas refused and
// fewest entered, and one that is provisional.
func outstanding(rounds []RoundPoint) []RoundPoint {
	if len(rounds) <= pointsAlike {
		return rounds
	}
	most := func(of func(*RoundPoint) (float64, bool)) int {
		best, at := 0.0, -1
		for i := range rounds {
			if v, ok := of(&rounds[i]); ok && (at < 0 || v > best) {
				best, at = v, i
			}
		}
		return at
	}
	loss := func(v *float64, sign float64) (float64, bool) {
		if v == nil {
			return 0, false
		}
		return sign * *v, true
	}
	var at []int
	for _, of := range []func(*RoundPoint) (float64, bool){
		func(r *RoundPoint) (float64, bool) { return loss(r.EvalLoss, -1) }, // with it the best of all
		func(r *RoundPoint) (float64, bool) { return loss(r.EvalLoss, 1) },
		func(r *RoundPoint) (float64, bool) { return loss(r.TrainLoss, -1) },
		func(r *RoundPoint) (float64, bool) { return loss(r.TrainLoss, 1) },
		func(r *RoundPoint) (float64, bool) { return r.Seconds, r.Seconds > 0 },
		func(r *RoundPoint) (float64, bool) { return float64(r.Refused), r.Refused > 0 },
		func(r *RoundPoint) (float64, bool) { return -float64(r.Deltas), true },
		func(r *RoundPoint) (float64, bool) { return float64(r.Round), !r.Certified },
	} {
		if i := most(of); i >= 0 && !slices.Contains(at, i) {
			at = append(at, i)
		}
	}
	slices.Sort(at)
	out := make([]RoundPoint, len(at))
	for i, n := range at {
		out[i] = rounds[n]
	}
	return out
}

// Peers tells the peers, those with most tokens first.
func (d *Digest) Peers() RunPeers {
	v := RunPeers{Known: len(d.peers), Entered: d.entered, Refused: d.refused, Peers: make([]RunPeer, 0, len(d.peers))}
	v.Round, _ = d.Last()
	for _, p := range d.peers {
		c := *p
		if d.sum > 0 {
			c.Share = float64(p.Weight) / float64(d.sum)
		}
		v.Peers = append(v.Peers, c)
	}
	slices.SortFunc(v.Peers, func(a, b RunPeer) int { return cmp.Or(cmp.Compare(b.Tokens, a.Tokens), cmp.Compare(a.Peer, b.Peer)) })
	v.Peers = v.Peers[:min(len(v.Peers), MaxRunPeers)]
	v.Refusals = slices.Clone(d.refusals[max(0, len(d.refusals)-keptRefusals):])
	slices.Reverse(v.Refusals)
	return v
}

func (s *Server) series(ctx context.Context, r *http.Request) (Series, error) {
	limit, err := number("points", r.URL.Query().Get("points"), points, MaxPoints)
	if err != nil {
		return Series{}, err
	}
	id, err := s.run(ctx, r.PathValue("id"))
	if err != nil {
		return Series{}, err
	}
	v, err := s.backend.Series(ctx, id, int(limit))
	v.Points = list(v.Points)
	return v, err
}

// ClonedRunFile is a run file with all settings of a run.
type ClonedRunFile struct {
	Run  string `json:"run"`
	TOML string `json:"toml"`
}

func (s *Server) runFile(ctx context.Context, r *http.Request) (ClonedRunFile, error) {
	id, err := s.run(ctx, r.PathValue("id"))
	if err != nil {
		return ClonedRunFile{}, err
	}
	return s.backend.RunFileOf(ctx, id)
}

func (s *Server) runPeers(ctx context.Context, r *http.Request) (RunPeers, error) {
	id, err := s.run(ctx, r.PathValue("id"))
	if err != nil {
		return RunPeers{}, err
	}
	v, err := s.backend.RunPeers(ctx, id)
	v.Peers, v.Refusals = list(v.Peers), list(v.Refusals)
	return v, err
}

// about leaves in rounds what is of one peer.
func about(rounds []Round, peer string) []Round {
	out := make([]Round, len(rounds))
	for i, r := range rounds {
		r.Contributions = list(only(r.Contributions, func(c Contribution) bool { return c.Peer == peer }))
		r.Refused = list(only(r.Refused, func(x Refusal) bool { return x.Peer == peer }))
		r.Judged = only(r.Judged, func(j Judged) bool { return j.Peer == peer })
		r.Standings = only(r.Standings, func(s Standing) bool { return s.Peer == peer })
		out[i] = r
	}
	return out
}

func only[T any](l []T, keep func(T) bool) (out []T) {
	for _, x := range l {
		if keep(x) {
			out = append(out, x)
		}
	}
	return out
}
