package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// maxLoose bounds the records that were written for a jump which a crash kept
// from being made.
const maxLoose = 1 << 14

// looseEntries are records that a jump names, or that a crash left.
type looseEntries map[cid.Cid]Entry

func (l looseEntries) certify(id cid.Cid, at span) {
	if e, ok := l[id]; ok {
		e.cert = at
		l[id] = e
	}
}

// lowest is the entry from which on none is missing up to i. It is called with
// mu held, or by Open.
func (l *Ledger) lowest(i int) int {
	for i > 0 && l.entries[i-1].here() && l.entries[i-1].ID == l.entries[i].parent {
		i--
	}
	return i
}

// replayLoose takes a record before the head's segment, or of a jump that
// follows in the log.
func (l *Ledger) replayLoose(f frame) error {
	if len(f.payload) < recordHead {
		return errors.New("record frame is too short")
	}
	rec, err := msg.DecodeRecord(f.payload[recordHead:])
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	l.takeLoose(newEntry(rec, f))
	return nil
}

// takeLoose is called with mu held, or by Open.
func (l *Ledger) takeLoose(e Entry) {
	if l.floor > 0 && e.ID == l.entries[l.floor].parent && e.Round+1 == l.entries[l.floor].Round {
		l.put(e)
		l.floor = l.lowest(l.floor)
		return
	}
	if len(l.loose) == maxLoose {
		clear(l.loose)
	}
	if l.loose == nil {
		l.loose = make(looseEntries)
	}
	l.loose[e.ID] = e
}

// put places a record that is in the chain, in the place of what was there. It is
// called with mu held, or by Open.
func (l *Ledger) put(e Entry) {
	i := int(e.Round)
	for len(l.entries) <= i {
		l.entries = append(l.entries, Entry{Round: msg.Round(len(l.entries)), Certified: l.entries[len(l.entries)-1].Certified})
	}
	if old := l.entries[i]; old.here() {
		if old.ID == e.ID {
			return
		}
		delete(l.byID, old.ID)
	}
	e.Certified = 0
	l.entries[i] = e
	l.byID[e.ID] = i
	l.count(i)
}

// count counts certificates anew from entry i on. It is called with mu held, or
// by Open.
func (l *Ledger) count(i int) {
	for ; i < len(l.entries); i++ {
		l.entries[i].Certified = l.entries[max(i-1, 0)].Certified
		if l.entries[i].cert.n > 0 {
			l.entries[i].Certified++
		}
	}
}

func (l *Ledger) replayJump(p []byte) error {
	if len(p) != 2*cidBytes {
		return errors.New("jump frame of a wrong size")
	}
	base, err := cid.Cast(p[:cidBytes])
	if err != nil {
		return fmt.Errorf("jump: %w", err)
	}
	head, err := cid.Cast(p[cidBytes:])
	if err != nil {
		return fmt.Errorf("jump: %w", err)
	}
	return l.jump(base, head)
}

// jump makes head, which is loose or the base itself, the head; after the base
// come what is loose. It is called with mu held, or by Open.
func (l *Ledger) jump(base, head cid.Cid) error {
	at, ok := l.byID[base]
	top, loose := l.loose[head]
	if !ok || !loose && head != base {
		return fmt.Errorf("jump from %s to %s: %w", base, head, ErrChain)
	}
	l.cutAfter(at)
	if head != base {
		list := slices.Collect(maps.Values(l.loose))
		slices.SortFunc(list, func(a, b Entry) int { return int(a.Round) - int(b.Round) })
		for _, e := range list {
			if e.Round > l.entries[at].Round && e.Round <= top.Round {
				l.put(e)
			}
		}
	}
	l.loose = nil
	l.floor = l.lowest(len(l.entries) - 1)
	l.links = l.links[:0]
	return nil
}

// dropLoose leaves what was written for a jump that a crash kept from being made: a
// jump to where the chain is, so that no later one puts it.
func (l *Ledger) dropLoose() error {
	if len(l.loose) == 0 {
		return nil
	}
	head := l.entries[len(l.entries)-1].ID
	if err := l.chain.append(appendFrame(nil, kindJump, append(head.Bytes(), head.Bytes()...))); err != nil {
		return err
	}
	return l.jump(head, head)
}

// Jump makes the last record of segment the head. base is in the chain, and what
// followed it is dropped; steps are records between base and segment, those of a
// proof, in any order; the records of segment follow each other. What lies between
// is missing until Fill brings it, and so are steps without a certificate, of which a
// proof may leave it out.
func (l *Ledger) Jump(now time.Time, base cid.Cid, steps, segment []round.Link) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.byID[base]
	if !ok || len(segment) == 0 || segment[0].Record.Round <= l.entries[at].Round {
		return fmt.Errorf("jump from %s: %w", base, ErrChain)
	}
	for i, k := range segment {
		if i > 0 && (k.Record.Parent != segment[i-1].ID || k.Record.Round != segment[i-1].Record.Round+1) {
			return fmt.Errorf("jump to %s: %w", k.ID, ErrChain)
		}
	}
	first, head := segment[0], segment[len(segment)-1]
	if first.Record.Round == l.entries[at].Round+1 && first.Record.Parent != base {
		return fmt.Errorf("jump to %s: %w", head.ID, ErrChain)
	}
	steps = slices.DeleteFunc(slices.Clone(steps), func(k round.Link) bool {
		return k.Certificate == nil || k.Record.Round >= first.Record.Round
	})
	jump := appendFrame(nil, kindJump, append(base.Bytes(), head.ID.Bytes()...))
	l.loose = nil
	if err := l.appendLoose(now, append(steps, segment...), jump); err != nil {
		return fmt.Errorf("jump to %s: %w", head.ID, err)
	}
	return l.jump(base, head.ID)
}

// ErrOther is wrapped by the error for records that follow another one than is
// here.
var ErrOther = errors.New("follows another record than the one that is here")

// Fill takes records before those that are here without a break up to the head,
// newest first: each is the parent of the one before. It returns ErrChain if they
// do not follow, and ErrOther if the last of them has another parent than the
// record that was here before.
func (l *Ledger) Fill(now time.Time, links []round.Link) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.floor == 0 {
		return nil // all are here
	}
	at, want := l.floor-1, l.entries[l.floor].parent
	var lacking []round.Link
	for _, k := range links {
		if at == 0 {
			break
		}
		if k.ID != want || k.Record.Round != msg.Round(at) {
			return fmt.Errorf("fill in %s: round %d has record %s: %w", k.ID, at, want, ErrChain)
		}
		if e := l.entries[at]; !e.here() {
			lacking = append(lacking, k)
		} else if e.ID != want {
			break
		}
		at, want = at-1, k.Record.Parent
	}
	if e := l.entries[at]; e.here() && e.ID != want {
		return fmt.Errorf("fill in: record of round %d %w", at+1, ErrOther)
	}
	if err := l.appendLoose(now, lacking, nil); err != nil {
		return fmt.Errorf("fill in round %d: %w", at, err)
	}
	return nil
}

// appendLoose writes records before the head and what is to follow them. It is
// called with mu held.
func (l *Ledger) appendLoose(now time.Time, links []round.Link, after []byte) error {
	type part struct {
		rec      *msg.Record
		from, to int
		cert     span
	}
	var b []byte
	var parts []part
	for _, k := range links {
		rec, err := k.Record.Encode()
		if err != nil {
			return err
		}
		if msg.RawCID(rec) != k.ID {
			return fmt.Errorf("record %s is %s: %w", k.ID, msg.RawCID(rec), ErrChain)
		}
		head := binary.LittleEndian.AppendUint64(nil, uint64(now.UnixMilli()))
		head = binary.LittleEndian.AppendUint32(head, 0)
		p := part{rec: k.Record, from: len(b) + frameHead, to: len(b) + frameHead + recordHead + len(rec)}
		b = appendFrame(b, kindLoose, append(head, rec...))
		if k.Certificate != nil {
			cert, err := k.Certificate.Encode()
			if err != nil {
				return err
			}
			p.cert = span{int64(len(b) + frameHead), len(cert)}
			b = appendFrame(b, kindCert, cert)
		}
		parts = append(parts, p)
	}
	start := l.chain.end
	if err := l.chain.append(append(b, after...)); err != nil {
		return err
	}
	for _, p := range parts {
		e := newEntry(p.rec, frame{kindLoose, start + int64(p.from), b[p.from:p.to]})
		l.takeLoose(e)
		if p.cert.n > 0 {
			l.certify(e.ID, span{start + p.cert.off, p.cert.n})
		}
	}
	return nil
}

// Gap returns the round from which on no record is missing up to the head, and
// the last round before it whose record is here; ok is false if all are here.
func (l *Ledger) Gap() (floor, below msg.Round, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.floor == 0 {
		return 0, 0, false
	}
	i := l.floor - 1
	for !l.entries[i].here() {
		i--
	}
	return msg.Round(l.floor), msg.Round(i), true
}

// Retreat drops all after the last record up to which none is missing from the
// genesis record on.
func (l *Ledger) Retreat() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := 0
	for i+1 < len(l.entries) && l.entries[i+1].here() && l.entries[i+1].parent == l.entries[i].ID {
		i++
	}
	base := l.entries[i].ID
	if err := l.chain.append(appendFrame(nil, kindJump, append(base.Bytes(), base.Bytes()...))); err != nil {
		return fmt.Errorf("retreat to %s: %w", base, err)
	}
	return l.jump(base, base)
}

// Before lists the records of the chain before the one with this CID, newest
// first and without the genesis record, as many as are here without a break and
// fit into maxItems and maxBytes; nothing if that one is not in the chain.
func (l *Ledger) Before(id cid.Cid, maxItems, maxBytes int) []round.Item {
	return l.items(l.before(id, maxItems, maxBytes))
}

func (l *Ledger) before(id cid.Cid, maxItems, maxBytes int) []itemAt {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.byID[id]
	if !ok {
		return nil
	}
	var out []itemAt
	for ; i > 1 && len(out) < maxItems; i-- {
		e := l.entries[i-1]
		at := itemAt{e.record, e.cert}
		if !e.here() || e.ID != l.entries[i].parent || !at.fits(&maxBytes) {
			break
		}
		out = append(out, at)
	}
	return out
}
