package round

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// Machine follows one run and, with a seat, takes part in it. It is not safe
// for concurrent use.
type Machine struct {
	// constant after New
	cfg    Config
	rules  *Rules
	timing Timing

	// the step under way
	now   time.Time
	out   []Effect
	chain chainView

	started     bool
	head        Link
	cur         *height // nil: the head is final
	prev        *height // that the head came from; nil: not known any more
	own         ownBook
	repeats     []repetition // of own messages for the head
	training    bool
	trainingFor cid.Cid
	earlyFor    cid.Cid // head of the round whose next one is trained already; cid.Undef: none is
	folds       folds
	ahead       aheadBuffer

	proofs proofBook
	deltas deltaBook
	frauds []cid.Cid // records that a quorum voted for and that are wrong

	orders orderBook

	joins    joinPool
	places   map[peer.ID]string // networks; nil: nobody told
	want     wish
	wish     *msg.Signed // the own request that is published; nil: none
	wishSaid bool        // it was published
	wishAt   time.Time   // when it is published again
	wishWait time.Duration
	lastSeq  uint64

	members    members
	branches   []*branch
	forks      forkBook
	lost       lostBook
	overlooked []cid.Cid // heads of branches that were asked for, newest last
	partial    *branch   // offered in part; nil: none
	statusSeq  uint64
	statusAt   time.Time
	saidStatus time.Time
	syncBefore time.Time // no other Sync before
	// askedStranger holds if the last one that was asked for being ahead has no seat.
	askedStranger bool
	about         aboutSelf
}

// wish is what the user said of a seat.
type wish int

const (
	wantUnknown wish = iota
	wantSeat
	wantNone
)

// New returns a machine that has begun the round after the chain's head. What
// it has to say at first comes from the first Step, for which Tick will do.
func New(cfg Config, now time.Time) (*Machine, error) {
	rules, err := NewRules(cfg.Manifest)
	if err != nil {
		return nil, fmt.Errorf("new round: %w", err)
	}
	head := cfg.Chain.Head()
	switch {
	case !rules.run.Equals(cfg.Run):
		return nil, fmt.Errorf("new round: the manifest is of run %v, not %v", rules.run, cfg.Run)
	case !msg.IsPeer(cfg.Self) || cfg.Sign == nil:
		return nil, errors.New("new round: a peer ID and its signature are needed")
	case head.Record == nil || !head.Record.Run.Equals(cfg.Run):
		return nil, fmt.Errorf("new round: the chain is not of run %v", cfg.Run)
	}
	if cfg.Timing == (Timing{}) {
		cfg.Timing = DefaultTiming(time.Duration(cfg.Manifest.PeriodMillis) * time.Millisecond)
	}
	if err := cfg.Timing.validate(); err != nil {
		return nil, fmt.Errorf("new round: %w", err)
	}
	m := &Machine{
		cfg: cfg, rules: rules, timing: cfg.Timing, now: now, head: head,
		own:     ownBook{byHead: make(map[cid.Cid]*signedFor)},
		joins:   newJoinPool(),
		members: newMembers(),
	}
	m.joins.known = m.works
	m.chain = chainView{chain: cfg.Chain}
	m.deltas.fill(cfg.Chain)
	m.recallJoins()
	m.restore(cfg.Own)
	m.doubt(head)
	for _, e := range cfg.Evidence {
		m.proofs.add(e[0], e[1], head.Record)
	}
	if !head.Record.Final {
		m.cur = m.newHeight(head)
	}
	return m, nil
}

func (t Timing) validate() error {
	for _, d := range []time.Duration{t.Train, t.Deadline, t.Grace, t.Attempt, t.Settle, t.Repeat, t.Status} {
		if d <= 0 {
			return errors.New("timing: every duration must be above 0")
		}
	}
	if t.Train > t.Deadline {
		return fmt.Errorf("timing: training ends after %v, must not be after the deadline, %v", t.Train, t.Deadline)
	}
	return nil
}

// restore takes what Self signed before. What is for the head comes last, so it
// is what is kept if there is a lot.
func (m *Machine) restore(own []msg.Signed) {
	type dated struct {
		signed msg.Signed
		round  msg.Round
		now    bool
	}
	var list []dated
	for _, s := range own {
		if s.From != m.cfg.Self || !s.Message.RunID().Equals(m.rules.run) {
			continue
		}
		switch v := s.Message.(type) {
		case *msg.JoinRequest:
			m.lastSeq = max(m.lastSeq, v.Seq)
		case *msg.Order:
			m.restoreOrder(s, v)
		}
		if head, round, ok := headOf(s.Message); ok {
			list = append(list, dated{s, round, head.Equals(m.head.ID)})
		}
	}
	slices.SortStableFunc(list, func(a, b dated) int {
		switch {
		case a.now != b.now && b.now, a.now == b.now && a.round < b.round:
			return -1
		case a.now != b.now, a.round > b.round:
			return 1
		}
		return compareCIDs(a.signed.CID, b.signed.CID)
	})
	for _, head := range m.cfg.Spent {
		if !m.isSole(head) {
			m.own.forget(head)
		}
	}
	for _, d := range list {
		m.own.add(d.signed)
	}
}

// Step takes an event and returns what is to be done. Time that goes back
// stands still.
func (m *Machine) Step(now time.Time, ev Event) []Effect {
	if now.After(m.now) {
		m.now = now
	}
	if m.started {
		m.out = nil
	}
	m.chain.begin()
	if !m.started {
		m.started = true
		m.enter()
	}
	switch ev := ev.(type) {
	case Tick:
	case Received:
		m.receive(ev.Signed)
	case Checked:
		m.checked(ev)
	case Audited:
		m.audited(ev)
	case Evaluated:
		m.evaluated(ev)
	case Compared:
		m.compared(ev)
	case Gated:
		m.gated(ev)
	case Trained:
		m.trained(ev)
	case Folded:
		m.folds.folded(ev)
	case Offered:
		m.offered(ev)
	case Older:
		m.older(ev)
	case Give:
		m.give(ev)
	case Seen:
		m.seen(ev)
	case Show:
		m.show(ev.Credentials)
	case Want:
		m.want = wantNone
		if ev.Seat {
			m.want = wantSeat
		}
		m.trainOrStop()
	}
	m.advance()
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

// advance does what is due, until nothing is.
func (m *Machine) advance() {
	for m.followBranch() || m.lateCertificate() || m.advanceRound() {
	}
	m.gate()
	m.request()
	m.repeatOrder()
	m.repeat()
	m.heartbeat()
	m.synchronize()
}

// advanceRound returns true if another head was adopted.
func (m *Machine) advanceRound() bool {
	h := m.cur
	if h == nil {
		return false
	}
	m.judge(h)
	m.advanceCell(h)
	m.giveReport(h)
	m.giveHave(h)
	m.startAttempts(h)
	m.propose(h)
	m.judge(h)
	m.vote(h)
	m.exposeFraud(h)
	return m.certificate(h) || m.fallback(h)
}

// enter begins the round after the head: what Self signed for it is said again,
// what came early is looked at.
func (m *Machine) enter() {
	h := m.cur
	m.repeats = nil
	m.trainOrStop()
	if h == nil {
		return
	}
	for _, s := range m.ownOf(h) {
		m.emit(Publish{s})
		m.place(s)
	}
	if h.sub != nil && m.own.at(h.sub.slot()).have != nil {
		h.sub.t0 = m.now
	}
	if h.self >= 0 && m.own.at(h.slot()).have != nil {
		h.t0 = m.now
	}
	m.audit(h)
	m.evaluate(h)
	m.compare(h)
	for _, s := range m.ahead.take(h.parent.ID, h.round) {
		m.place(s)
	}
}

// trainOrStop asks for a delta if one is wanted in this round, and for steps of the
// next round when it is there.
func (m *Machine) trainOrStop() {
	h := m.cur
	if h != nil && h.self >= 0 && !h.assembly && m.want != wantNone {
		mine := m.own.at(h.slot())
		switch {
		case mine.forgotten:
		case mine.commit == nil:
			m.train(h)
			return
		case m.rules.overlaps(h.parent.Record):
			m.trainEarly(h, mine.commit.Message.(*msg.Commit))
			return
		}
	}
	if m.training || m.earlyFor.Defined() {
		m.training, m.earlyFor = false, cid.Undef
		m.emit(StopTraining{})
	}
}

func (m *Machine) train(h *height) {
	if m.training && m.trainingFor.Equals(h.parent.ID) {
		return
	}
	r := h.parent.Record
	m.training, m.trainingFor, m.earlyFor = true, h.parent.ID, cid.Undef
	m.emit(Train{
		Round: h.round, Head: h.parent.ID, State: r.State, Trained: r.TrainedRounds, Tokens: r.Tokens,
		CodecBits: m.rules.codecAfter(r), Steps: m.rules.StepsAfter(r), Until: m.trainUntil(h), Earlier: m.rules.Earlier(h.parent, m.cfg.Self, m.chain.link),
	})
}

func (m *Machine) trained(ev Trained) {
	h := m.cur
	if h == nil || !ev.Head.Equals(h.parent.ID) || !m.training || !m.trainingFor.Equals(ev.Head) {
		return
	}
	m.training = false
	if mine := m.own.at(h.slot()); mine.commit != nil || mine.forgotten {
		m.trainOrStop() // it has committed already, and was told meanwhile
		return
	}
	s, ok := m.send(&msg.Commit{
		Run: m.rules.run, Round: h.round, Head: h.parent.ID, Peer: m.cfg.Self,
		Delta: ev.Delta, DeltaBytes: ev.DeltaBytes, CodecBits: m.rules.codecAfter(h.parent.Record),
		Tokens: ev.Tokens, Steps: ev.Steps, Norm: ev.Norm, LossMicro: ev.LossMicro, Trace: ev.Trace,
	})
	if ok {
		m.place(s)
		m.trainOrStop()
	}
}

// audit asks for what Self has to say in its have of the round before.
func (m *Machine) audit(h *height) {
	mine := m.own.at(h.slot())
	if h.sub != nil {
		mine = m.own.at(h.sub.slot())
	}
	if len(h.audits) == 0 || mine.have != nil || mine.report != nil || mine.forgotten {
		return
	}
	if before, ok := m.chain.link(h.parent.Record.Parent); ok {
		m.emit(Audit{
			Round: h.round, Record: h.parent.ID, State: before.Record.State, Items: h.audits,
			Retraces: h.retraces, Head: before.ID, Trained: before.Record.TrainedRounds, Tokens: before.Record.Tokens,
		})
	}
}

// evaluate asks for the held-out loss of the head, if it is to be told.
func (m *Machine) evaluate(h *height) {
	if mine := m.own.at(h.slot()); h.measures && mine.have == nil && !mine.forgotten {
		m.emit(Evaluate{Round: h.round, Record: h.parent.ID, State: h.parent.Record.State})
	}
}

func (m *Machine) evaluated(ev Evaluated) {
	if h := m.cur; h != nil && h.measures && !h.measured && ev.Record.Equals(h.parent.ID) {
		h.measured, h.lossMicro = true, min(ev.LossMicro, msg.MaxLossMicro)
	}
}

func (m *Machine) audited(ev Audited) {
	h := m.cur
	if h == nil || h.audited || !ev.Record.Equals(h.parent.ID) {
		return
	}
	h.audited = true
	for _, g := range ev.Gains {
		asked := slices.ContainsFunc(h.audits, func(e AuditItem) bool { return e.Seat == g.Seat })
		again := slices.ContainsFunc(h.gains, func(e msg.Audit) bool { return e.Seat == g.Seat })
		if asked && !again {
			g.GainNano = min(max(g.GainNano, -msg.MaxGainNano), msg.MaxGainNano)
			h.gains = append(h.gains, g)
		}
	}
	slices.SortFunc(h.gains, func(a, b msg.Audit) int { return cmp.Compare(a.Seat, b.Seat) })
	for _, item := range h.retraces {
		i := slices.IndexFunc(ev.Retraces, func(e msg.Retrace) bool { return e.Seat == item.Seat })
		if i >= 0 {
			h.retraced = append(h.retraced, msg.Retrace{Seat: item.Seat, ErrorPPM: min(ev.Retraces[i].ErrorPPM, msg.MaxErrorPPM)})
		}
	}
}

func (m *Machine) checked(ev Checked) {
	if m.cur == nil {
		return
	}
	commits := m.cur.commits
	if m.cur.sub != nil {
		commits = m.cur.sub.commits
	}
	m.cur.pulled(ev)
	for _, list := range commits {
		if len(list) == 0 || !list[0].signed.CID.Equals(ev.Commit) || !list[0].checks {
			continue
		}
		// That a delta is a copy may show later, by one that comes after it.
		if e := list[0]; !e.decided || e.reason == msg.Held && ev.Reason == msg.Copy {
			e.decided, e.reason, e.at = true, ev.Reason, m.now
		}
	}
}

// receive takes a message of somebody else, or one that came back.
func (m *Machine) receive(s msg.Signed) {
	if s.Message == nil || !s.Message.RunID().Equals(m.rules.run) {
		return
	}
	m.recall(s)
	switch v := s.Message.(type) {
	case *msg.Status:
		m.members.add(m, v)
	case *msg.JoinRequest:
		// A leave is of use by who has a seat, or asked for one. Everybody may
		// sign one, without work.
		idle := v.Leave && seatOf(m.head.Record.NextSeats, s.From) < 0 && !m.joins.has(s.From)
		if !idle && m.rules.Admits(v, m.head.Record.Round+1) {
			m.joins.add(s)
		}
	case *msg.Order:
		m.addOrder(s)
	default:
		m.place(s)
	}
}

// place puts a message of a round where it belongs.
func (m *Machine) place(s msg.Signed) {
	if m.cur.within(s).repeats(s) || m.prev.within(s).repeats(s) {
		return
	}
	head, round, ok := headOf(s.Message)
	switch {
	case !ok:
	case m.cur != nil && m.cur.accepts(round, head):
		m.addTo(m.cur, s)
	case m.prev != nil && m.prev.accepts(round, head):
		m.addTo(m.prev, s)
	case m.cur != nil && round >= m.cur.round && round <= m.cur.round+1:
		m.ahead.add(s, head, round, seatOf(m.cur.seats, s.From) >= 0)
	}
}

func (m *Machine) addTo(h *height, s msg.Signed) {
	if h = h.within(s); h == nil {
		return // of another cell
	}
	switch s.Message.(type) {
	case *msg.CellResult:
		m.addResult(h, s)
	case *msg.Commit:
		m.addCommit(h, s, true)
	case *msg.Have:
		m.addHave(h, s)
	case *msg.Vote:
		m.addVote(h, s)
	case *msg.Report:
		m.addReport(h, s)
	case *msg.Proposal:
		m.addProposal(h, s)
	}
}

// giveHave says once what Self holds, when the time has come.
func (m *Machine) giveHave(h *height) {
	mine := m.own.at(h.slot())
	if h.self < 0 || mine.have != nil || mine.forgotten || h.cells > 0 && !h.witness {
		return
	}
	if !m.haveIsDue(h) {
		return
	}
	joins, _ := m.useful(h)
	v := &msg.Have{Run: m.rules.run, Round: h.round, Head: h.parent.ID, Peer: m.cfg.Self, Joins: joins, Audits: h.gains, LossMicro: h.lossMicro, Retraces: h.retraced, Reports: h.reportBits(), Orders: m.usefulOrders(h), KappaPPM: h.kappaPPM, ArrivalMillis: m.arrival(h)}
	if h.sub != nil {
		v.Audits = nil // they are in the have of the cell
	}
	if !h.assembly && h.witness {
		v.Merges = m.merges()
	}
	if !h.assembly {
		for i := range h.slotCount() {
			if e, ok := h.entry(i); ok {
				v.Entries = append(v.Entries, e)
			}
		}
	}
	if s, ok := m.send(v); ok {
		m.place(s)
		h.t0 = m.now
	}
}

// haveIsDue also notes when there were enough join requests to leave assembly.
func (m *Machine) haveIsDue(h *height) bool {
	if !m.now.Before(m.haveDeadline(h)) {
		return true
	}
	if h.paused {
		return m.orderIsDue(h)
	}
	if at := m.lateHaveAt(h); !at.IsZero() && !m.now.Before(at) {
		return true
	}
	if !h.assembly {
		return h.allHeld() && (h.audited || len(h.audits) == 0) && (h.measured || !h.measures) && (h.compared || !h.compares)
	}
	if h.projectedAt != m.joins.changes+1 {
		_, seats := m.useful(h)
		h.projected, h.projectedAt = len(seats), m.joins.changes+1
	}
	if h.projected < int(m.cfg.Manifest.MinPeers) {
		h.assembled = time.Time{}
		return false
	}
	if h.assembled.IsZero() {
		h.assembled = m.now
	}
	return h.projected == int(m.cfg.Manifest.Seats) || !m.now.Before(h.assembled.Add(m.timing.Grace))
}

// lateHaveAt is when a have is given because the time is up for others; zero: it
// is not, as far as is known. Who came into the middle of a round, after a crash
// say, would be late by as much in each round after it, and others wait for its
// have in vain. In assembly there is no delta that might still come, and a have that
// is too late twice costs the seat.
func (m *Machine) lateHaveAt(h *height) time.Time {
	switch {
	case h.lateAt.IsZero() || h.results != nil:
		return time.Time{}
	case h.assembly: // but not at once: of few seats one alone would make rounds as fast as it likes
		return later(h.lateAt, h.began.Add(m.timing.Attempt/2))
	}
	return h.lateAt.Add(m.timing.Attempt / 2)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// startAttempts gives a peer without a have the time that attempts count from.
func (m *Machine) startAttempts(h *height) {
	if !h.t0.IsZero() || h.self >= 0 && !m.own.at(h.slot()).forgotten && (h.cells == 0 || h.witness) {
		return
	}
	if deadline := m.haveDeadline(h); !m.now.Before(deadline) {
		h.t0 = deadline
	} else if !h.quorumAt.IsZero() {
		h.t0 = h.quorumAt
	}
}

// before is the record that l follows; none before genesis.
func (m *Machine) before(l Link) Link {
	if l.Record.Round == 0 {
		return Link{}
	}
	k, _ := m.chain.link(l.Record.Parent)
	return k
}

// open opens an envelope, or finds it among the messages that are here.
func (m *Machine) open(envelope []byte) (msg.Signed, error) {
	id := msg.RawCID(envelope)
	for _, h := range []*height{m.cur, m.prev} {
		if h != nil {
			if s, ok := h.find(id); ok {
				return s, nil
			}
		}
	}
	if s, ok := m.joins.find(id); ok {
		return s, nil
	}
	if s, ok := m.orders.find(id); ok {
		return s, nil
	}
	return msg.Open(envelope)
}

// adopt makes the last of links the head and begins the round after it.
func (m *Machine) adopt(links []Link) {
	m.emit(Adopt{links})
	var left []Link
	fork, ok := m.chain.link(links[0].Record.Parent)
	if ok {
		left = m.chain.after(fork.ID, m.head)
	}
	m.chain.adopt(links)
	for _, l := range links {
		m.tookEffect(l.Record)
	}
	head := links[len(links)-1]
	switch {
	case m.cur != nil && head.Record.Parent.Equals(m.cur.parent.ID):
		m.prev = m.cur
		m.prev.closed, m.prev.draft = true, nil
	case m.prev != nil && head.Record.Parent.Equals(m.prev.parent.ID):
	default:
		m.prev = nil
	}
	m.head, m.cur = head, nil
	m.doubt(head)
	m.obeyed()
	m.folds.forget(head.Record.Round)
	m.deltas.adopt(links)
	m.keepBranch(head)
	m.lost.add(fork, left)
	m.keepLost()
	if !head.Record.Final {
		m.cur = m.newHeight(head)
		m.joins.expire(m.cur.round)
	}
	m.heartbeatSoon()
	m.wishSoon()
	m.enter()
}
