package round

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// Basis is what a record rests on.
type Basis struct {
	// Before is the parent's parent, if it has one.
	Before Link
	Parent Link
	// Haves are messages *msg.Have for the parent, of different seats, sorted
	// by seat, whose entries name seats that exist.
	Haves []msg.Signed
	// Find returns a commit, join request or order that the haves name.
	Find func(cid.Cid) (msg.Signed, bool)
	// Proofs bring bans.
	Proofs []proof
	// Fallback: the record is one of the fallback.
	Fallback bool
	// Report returns the report of a peer without a seat; nil: there are none.
	Report func(peer.ID) (msg.Signed, bool)
	// Verified, if not nil, says of which results of cells the votes were checked.
	Verified func(envelope cid.Cid) bool

	reports []msg.Signed // that count
	said    []finding    // of auditors with a seat; nil: what the haves say
}

// Consequence is what follows from a Basis.
type Consequence struct {
	// Record is complete but for ParentCertificate, Attempt and Proposer, which
	// are the proposer's, and for what the fold gives: the weight and clip of
	// each contribution and, if there are any, the state.
	Record *msg.Record
	// Inputs are those of the fold, one for each contribution.
	Inputs []Input
	// Back is what is taken back of the parent's contributions, nil: nothing.
	Back *Back
	// Blocked are commits that have to be included and are not known, or are
	// not what the haves say; and the record before the parent, if it is needed
	// and not here. With any, there is no valid record on this basis.
	Blocked []cid.Cid
	// Unknown are join requests and orders that count and are not known. The record is
	// right if they have no effect.
	Unknown []cid.Cid
	// Missing are reports that count and are not known, by outsider. With any,
	// there is no valid record on this basis.
	Missing []int

	standings standings // after the round, before Record.Standings were chosen
}

// Folds reports whether the next state has to be computed; else it is the
// parent's.
func (c *Consequence) Folds() bool {
	return len(c.Inputs) > 0 || c.Record.Merge != nil || c.Back != nil || goesBack(c.Record)
}

// Fold is that of the record, whose parent has this state.
func (c *Consequence) Fold(state cid.Cid) Fold {
	if c.Record.Cell > 0 {
		return Fold{ID: "cell" + foldID(state, c), Round: c.Record.Round, State: state, Inputs: c.Inputs, Cell: true}
	}
	if goesBack(c.Record) {
		best := c.Record.Trend.BestState
		return Fold{ID: foldID(best, c) + "rest", Round: c.Record.Round, State: best, Rest: true}
	}
	return Fold{
		ID: foldID(state, c), Round: c.Record.Round, State: state, Inputs: c.Inputs, Back: c.Back, Merge: c.Record.Merge,
	}
}

// consequenceOf is Consequence, or what follows in a cell's own round.
func (ru *Rules) consequenceOf(b Basis) *Consequence {
	if b.Parent.Record.Cell > 0 {
		return ru.cellConsequence(b)
	}
	return ru.Consequence(b)
}

// Consequence returns what follows from b.
func (ru *Rules) Consequence(b Basis) *Consequence {
	parent := b.Parent.Record
	r := &msg.Record{
		Version: msg.RecordVersion,
		Run:     ru.run,
		Round:   parent.Round + 1,
		Parent:  b.Parent.ID,
		Seats:   parent.NextSeats,
		State:   parent.State,
	}
	if ru.manifest.SkipLinks {
		r.Skips = skipsAfter(b.Parent)
	}
	for _, s := range b.Haves {
		r.Haves = append(r.Haves, s.Envelope)
	}
	c := &Consequence{Record: r}
	for _, p := range b.Proofs {
		r.Proofs = append(r.Proofs, p.message())
	}
	_, f := Quorum(Witnesses(r.Seats))
	counting := countingHaves(b.Haves, r.Seats)
	t := min(f+1, len(counting))
	b.reports, c.Missing = ru.reported(b, counting, t)
	for _, s := range b.reports {
		r.Reports = append(r.Reports, s.Envelope)
	}
	r.Trend = ru.trend(b.Parent, counting, f)
	opinions := tally(counting)
	if f == 0 && len(counting) > 1 {
		withoutOwn(opinions, counting, r.Seats, b.Fallback)
	}
	inCells := Cells(len(r.Seats)) > 0
	if inCells { // they tell what their seats measured
		ru.include(c, b, opinions, t)
		if b.said = c.cellFindings(b); b.said == nil {
			b.said = rounded(findingsOf(b.Haves)) // as in a paused run
		}
	}
	if ru.manifest.Trust.Auditors > 0 && len(parent.Contributions) > 0 && Cells(len(parent.Seats)) > 0 && b.Before.Record == nil {
		c.Blocked = append(c.Blocked, parent.Parent) // by whose standings the cells went
	}
	audits := ru.measure(b)
	ru.judge(audits, parent.Judgements)
	for _, a := range audits {
		r.Judgements = append(r.Judgements, a.judgement)
	}
	c.standings = ru.standingsAfter(parent, r.Round, audits)
	c.standings.ban(b.Proofs)

	if !inCells {
		ru.include(c, b, opinions, t)
	}
	ru.obey(c, b, counting, t)
	var tokens uint64
	if !goesBack(r) { // else all that is left behind
		r.Merge = mergeIn(counting, t)
		ok := false
		if c.Back, tokens, ok = ru.takeBack(b, r.Judgements); !ok {
			c.Blocked = append(c.Blocked, parent.Parent)
		}
	}
	r.Tokens, r.TrainedRounds = parent.Tokens-min(tokens, parent.Tokens), parent.TrainedRounds
	r.Tokens += creditedTokens(r.Contributions)
	if r.Merge != nil {
		r.Tokens = min(r.Tokens+r.Merge.Tokens, msg.MaxRunTokens)
	}
	if len(r.Contributions) > 0 {
		r.TrainedRounds++
	}
	r.Final = Ends(ru.manifest, r) != ""
	ru.steerCodec(parent, r)
	ru.steerTempo(parent, r, counting, f)
	ru.seatNext(c, b, counting, t)
	ru.newcomers(&c.standings, r)
	ru.assignWitnesses(c.standings, r)
	assignCommittee(r)
	r.Standings = c.standings.kept(r.NextSeats)
	return c
}

// creditedTokens are those by which a run's tokens grow: of each contribution at
// most twice the median, as for weights. Tokens are claimed, and one seat could
// end a run by a large number.
func creditedTokens(list []msg.Contribution) uint64 {
	var tokens []uint64
	for _, e := range list {
		if e.Reason == msg.Held {
			tokens = append(tokens, e.Tokens)
		}
	}
	if len(tokens) == 0 {
		for _, e := range list {
			tokens = append(tokens, e.Tokens)
		}
	}
	if len(tokens) == 0 {
		return 0
	}
	bound := 2 * medianOf(tokens)
	var sum uint64
	for _, e := range list {
		sum += min(e.Tokens, bound)
	}
	return sum
}

// countingHaves are those of witnesses; if there are none, all.
func countingHaves(haves []msg.Signed, seats []msg.Seat) []msg.Signed {
	if list := ofWitnesses(haves, seats); len(list) > 0 {
		return list
	}
	return haves
}

func ofWitnesses(haves []msg.Signed, seats []msg.Seat) []msg.Signed {
	var list []msg.Signed
	for _, s := range haves {
		if !seats[seatOf(seats, s.From)].Trainee {
			list = append(list, s)
		}
	}
	return list
}

// opinion is what the haves say of one commit listed for one seat.
type opinion struct {
	seat    uint32
	commit  cid.Cid
	held    int
	reasons [msg.Last + 1]int
}

// tally returns the opinions sorted by seat and commit.
func tally(haves []msg.Signed) []opinion {
	var list []opinion
	for _, s := range haves {
		for _, e := range s.Message.(*msg.Have).Entries {
			o := opinion{seat: e.Seat, commit: e.Commit}
			i, ok := slices.BinarySearchFunc(list, o, func(a, b opinion) int {
				if a.seat != b.seat {
					return int(a.seat) - int(b.seat)
				}
				return compareCIDs(a.commit, b.commit)
			})
			if !ok {
				list = slices.Insert(list, i, o)
			}
			if e.Reason == msg.Held {
				list[i].held++
			} else {
				list[i].reasons[e.Reason]++
			}
		}
	}
	return list
}

// withoutOwn takes away what makers say of their own commits where one have is
// enough to include one: of those that another have found to be wrong, and in the
// fallback of all. Else a maker could make all others wait for what does not
// exist; but what only comes late is worth to wait for.
func withoutOwn(list []opinion, haves []msg.Signed, seats []msg.Seat, all bool) {
	for _, s := range haves {
		own := uint32(seatOf(seats, s.From))
		for _, e := range s.Message.(*msg.Have).Entries {
			if e.Seat != own || e.Reason != msg.Held {
				continue
			}
			for i := range list {
				if o := &list[i]; o.seat == own && o.commit.Equals(e.Commit) && (all || o.wrong()) {
					o.held--
				}
			}
		}
	}
}

// wrong reports whether a have says of the commit more than that it is not here.
func (o *opinion) wrong() bool {
	for r, n := range o.reasons {
		if n > 0 && msg.Reason(r) > msg.Timeout {
			return true
		}
	}
	return false
}

// refusal is the reason that most haves give, the lowest of several.
func (o *opinion) refusal() msg.Reason {
	best := msg.NotHeld
	for r := msg.NotHeld; r <= msg.Last; r++ {
		if o.reasons[r] > o.reasons[best] {
			best = r
		}
	}
	return best
}

// include sorts the commits that haves list into contributions and refused.
func (ru *Rules) include(c *Consequence, b Basis, opinions []opinion, t int) {
	r := c.Record
	if ru.Assembly(b.Parent.Record) {
		t = len(b.Haves) + 1 // no commit is valid
	}
	candidates := make([]int, len(r.Seats))
	for _, o := range opinions {
		if o.held >= t {
			candidates[o.seat]++
		}
	}
	for _, o := range opinions {
		switch {
		case goesBack(r):
			r.Refused = append(r.Refused, msg.Refusal{Seat: o.seat, Commit: o.commit, Reason: msg.RolledBack})
		case o.held < t:
			r.Refused = append(r.Refused, msg.Refusal{Seat: o.seat, Commit: o.commit, Reason: o.refusal()})
		case candidates[o.seat] > 1:
			r.Refused = append(r.Refused, msg.Refusal{Seat: o.seat, Commit: o.commit, Reason: msg.Equivocation})
		default:
			ru.contribute(c, b, o.seat, o.commit)
		}
	}
}

func (ru *Rules) contribute(c *Consequence, b Basis, seat uint32, id cid.Cid) {
	r := c.Record
	if r.Cell == 0 && Cells(len(r.Seats)) > 0 {
		ru.contributeCell(c, b, seat, id)
		return
	}
	s, ok := b.Find(id)
	commit, isCommit := s.Message.(*msg.Commit)
	if !ok || !isCommit || commit.Peer != r.Seats[seat].Peer || ru.fault(commit, r.Round, r.Parent, ru.codecAfter(b.Parent.Record)) != msg.Held {
		c.Blocked = append(c.Blocked, id)
		return
	}
	factor, tokens, reason := ru.counts(c.standings, r.Seats[seat], commit.Tokens)
	r.Commits = append(r.Commits, s.Envelope)
	r.Contributions = append(r.Contributions, msg.Contribution{
		Seat: seat, Commit: id, Delta: commit.Delta, Tokens: commit.Tokens, Reason: reason,
	})
	c.Inputs = append(c.Inputs, Input{Peer: commit.Peer, Delta: commit.Delta, Tokens: tokens, FactorQ16: factor})
}

// staying are the seats that keep their place; present are those whose haves are
// there.
func staying(r *msg.Record, b Basis, present []bool) []msg.Seat {
	if Cells(len(r.Seats)) > 0 {
		return stayingOfCells(r, b, present)
	}
	contributed := make([]bool, len(r.Seats))
	for _, e := range r.Contributions {
		contributed[e.Seat] = true
	}
	var stay []msg.Seat
	for i, s := range r.Seats {
		s.Fresh = s.Fresh && !contributed[i]
		s.Missed++
		if present[i] || contributed[i] {
			s.Missed = 0
		}
		if s.Missed <= msg.MaxMissed {
			stay = append(stay, s)
		}
	}
	return stay
}

// seatNext says who has a seat in the next round.
func (ru *Rules) seatNext(c *Consequence, b Basis, counting []msg.Signed, t int) {
	r := c.Record
	present := make([]bool, len(r.Seats))
	for _, s := range b.Haves {
		present[seatOf(r.Seats, s.From)] = true
	}
	stay := staying(r, b, present)
	ru.keep(&c.standings, r, stay)
	stay = c.standings.remove(stay)
	var requests []msg.Signed
	for _, id := range listedBy(counting, t, func(v *msg.Have) []cid.Cid { return v.Joins }) {
		s, ok := b.Find(id)
		j, isJoin := s.Message.(*msg.JoinRequest)
		switch {
		case !ok:
			c.Unknown = append(c.Unknown, id)
		case isJoin && ru.Admits(j, r.Round) && !c.standings.banned(s.From):
			requests = append(requests, s)
		}
	}
	newcomer := msg.Seat{Since: r.Round + 1, Fresh: r.Tokens > 0}
	var effective []msg.Signed
	door := ru.newDoor(b.Parent.ID, c.standings)
	r.NextSeats, effective = admit(&door, stay, requests, newcomer)
	if ru.rotates(r.Round, b.Parent.Record.TrainedRounds) {
		more, rotation := []msg.Signed(nil), ru.newRotation(b.Parent.ID, c.standings, r.NextSeats)
		rotation.kept = door.kept()
		r.NextSeats, more = ru.rotate(rotation, r.NextSeats, waitingOf(r.NextSeats, requests), newcomer)
		effective = append(effective, more...)
		slices.SortFunc(effective, func(a, b msg.Signed) int { return compareCIDs(a.CID, b.CID) })
	}
	for _, s := range effective {
		r.Joins = append(r.Joins, s.Envelope)
	}
	c.standings.release(r)
}

// listedBy returns what at least t haves list, sorted.
func listedBy(haves []msg.Signed, t int, list func(*msg.Have) []cid.Cid) []cid.Cid {
	var all []cid.Cid
	for _, s := range haves {
		all = append(all, list(s.Message.(*msg.Have))...)
	}
	slices.SortFunc(all, compareCIDs)
	var listed []cid.Cid
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Equals(all[0]) {
			n++
		}
		if n >= t {
			listed = append(listed, all[0])
		}
		all = all[n:]
	}
	return listed
}

// admit applies join requests to the seats that stay. It returns the seats and
// the requests that took effect, sorted by CID.
func admit(d *door, stay []msg.Seat, requests []msg.Signed, newcomer msg.Seat) ([]msg.Seat, []msg.Signed) {
	seats := slices.Clone(stay)
	requests = d.inOrder(newestOfEach(requests))
	var effective []msg.Signed
	for _, s := range requests {
		if i := seatOf(seats, s.From); s.Message.(*msg.JoinRequest).Leave && i >= 0 && len(seats) > 1 {
			seats = slices.Delete(seats, i, i+1)
			effective = append(effective, s)
		}
	}
	for _, s := range requests {
		if s.Message.(*msg.JoinRequest).Leave || seatOf(seats, s.From) >= 0 || d.free(d.claim(s.From), len(seats)) <= 0 {
			continue
		}
		newcomer.Peer = s.From
		seats = insertSeat(seats, newcomer)
		d.entered(s.From)
		effective = append(effective, s)
	}
	slices.SortFunc(effective, func(a, b msg.Signed) int { return compareCIDs(a.CID, b.CID) })
	return seats, effective
}

func insertSeat(seats []msg.Seat, s msg.Seat) []msg.Seat {
	i, _ := slices.BinarySearchFunc(seats, s.Peer, func(a msg.Seat, id peer.ID) int {
		return bytes.Compare([]byte(a.Peer), []byte(id))
	})
	return slices.Insert(seats, i, s)
}

// newestOfEach leaves of several requests of one peer the one that counts.
func newestOfEach(requests []msg.Signed) []msg.Signed {
	list := slices.Clone(requests)
	slices.SortFunc(list, func(a, b msg.Signed) int {
		if c := bytes.Compare([]byte(a.From), []byte(b.From)); c != 0 {
			return c
		}
		x, y := a.Message.(*msg.JoinRequest).Seq, b.Message.(*msg.JoinRequest).Seq
		switch {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return compareCIDs(a.CID, b.CID)
	})
	return slices.CompactFunc(list, func(a, b msg.Signed) bool { return a.From == b.From })
}

// inRankOrder returns the requests, of different peers, in the order that the
// head draws.
func inRankOrder(head cid.Cid, list []msg.Signed) []msg.Signed {
	type ranked struct {
		signed msg.Signed
		key    [sha256.Size]byte
	}
	all := make([]ranked, len(list))
	for i, s := range list {
		all[i] = ranked{s, rank(head, s.From)}
	}
	slices.SortFunc(all, func(a, b ranked) int { return bytes.Compare(a.key[:], b.key[:]) })
	out := make([]msg.Signed, len(list))
	for i, e := range all {
		out[i] = e.signed
	}
	return out
}

// foldID names the fold of these inputs on a state.
func foldID(state cid.Cid, c *Consequence) FoldID {
	b := state.Bytes()
	add := func(inputs []Input) {
		for _, in := range inputs {
			b = append(b, in.Delta.Bytes()...)
			for _, v := range []uint64{in.Tokens, uint64(in.FactorQ16)} {
				for range 8 {
					b = append(b, byte(v))
					v >>= 8
				}
			}
		}
	}
	add(c.Inputs)
	if back := c.Back; back != nil {
		b = append(b, back.State.Bytes()...)
		add(back.With)
		b = append(b, '-')
		add(back.Keep)
	}
	if merge := c.Record.Merge; merge != nil {
		b = append(append(b, merge.State.Bytes()...), merge.Base.Bytes()...)
		b = append(b, byte(merge.WeightQ16), byte(merge.WeightQ16>>8), byte(merge.WeightQ16>>16))
	}
	return FoldID(msg.RawCID(b).KeyString())
}
