package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

const (
	chainMagic = "mootchn1"
	ownMagic   = "mootown1"
	// recordHead is what a record frame has before the record.
	recordHead = 12
	cidBytes   = 36
	// keepLinks is how many decoded records stay in memory.
	keepLinks = 8
)

// ErrChain is wrapped by the error for a record that does not follow the
// chain.
var ErrChain = errors.New("does not follow the chain")

// Ledger is the chain of one run and what belongs to it. It is safe for
// concurrent use.
type Ledger struct {
	// constant after Open
	cut     int64 // bytes that a crash had left
	genesis round.Link

	mu       sync.Mutex
	chain    *frameLog
	own      *frameLog
	entries  []Entry         // guarded by mu; by round, the genesis first
	byID     map[cid.Cid]int // guarded by mu; index in entries
	floor    int             // guarded by mu; from here to the head no record is missing; 0: none is
	loose    looseEntries    // guarded by mu; read, and not of the chain yet
	left     leftEntries     // guarded by mu; what was in the chain and is not any more
	links    []round.Link    // guarded by mu; decoded ones, newest last
	said     []msg.Signed    // guarded by mu; what own.log holds
	spent    []cid.Cid       // guarded by mu; heads for which it does not hold all that was said, oldest first
	evidence []Evidence      // guarded by mu
	proven   provenSteps     // guarded by mu
}

// Entry is a record of the chain without what is in it. One that is not here
// has no ID.
type Entry struct {
	ID        cid.Cid
	Round     msg.Round
	State     cid.Cid
	Certified uint64 // records with a certificate up to here, of those that are here
	// Adopted is when this peer adopted the record, and Took the time since
	// the one before; zero for one that came with a jump, or later.
	Adopted time.Time
	Took    time.Duration
	// EvalLoss is what this peer measured on held-out samples, NaN if it did
	// not.
	EvalLoss float64

	parent cid.Cid
	record span // none for the genesis, which is not in the log
	cert   span // none: no certificate
}

func (e Entry) here() bool { return e.ID.Defined() }

// span is where bytes are in chain.log.
type span struct {
	off int64
	n   int
}

// Evidence is two messages that no honest peer signs both of.
type Evidence struct{ A, B msg.Signed }

// Open opens the ledger in a folder, which it makes if needed, of the run that
// begins with genesis.
func Open(dir string, genesis *msg.Record) (*Ledger, error) {
	id, err := genesis.CID()
	if err != nil {
		return nil, fmt.Errorf("genesis record: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{byID: map[cid.Cid]int{id: 0}}
	l.entries = []Entry{{ID: id, State: genesis.State, EvalLoss: math.NaN()}}
	l.genesis = round.Link{ID: id, Record: genesis}
	var chainCut, ownCut int64
	l.chain, chainCut, err = openLog(filepath.Join(dir, "chain.log"), chainMagic, l.replay, nil)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l.own, ownCut, err = openLog(filepath.Join(dir, "own.log"), ownMagic, func(f frame) error {
		if f.kind == kindSpent {
			return l.replaySpent(f.payload)
		}
		s, err := msg.Open(f.payload)
		if err != nil {
			return fmt.Errorf("own message: %w", err)
		}
		l.said = append(l.said, s)
		return nil
	}, func() []byte {
		l.addSpent(l.lastHeads())
		return appendFrame(nil, kindSpent, joinCIDs(l.lastHeads()))
	})
	if err != nil {
		l.chain.f.Close()
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l.cut = chainCut + ownCut
	if l.own.made && len(l.entries) > 1 { // somebody took it away
		if err := l.spend(l.lastHeads()); err != nil {
			return nil, errors.Join(fmt.Errorf("open ledger: %w", err), l.Close())
		}
	}
	if err := l.dropLoose(); err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", err), l.Close())
	}
	return l, nil
}

// Cut is how many bytes of an interrupted write were dropped by Open.
func (l *Ledger) Cut() int64 { return l.cut }

// Close closes the files.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.chain.f.Close(), l.own.f.Close())
}

// replay applies a frame of chain.log.
func (l *Ledger) replay(f frame) error {
	switch f.kind {
	case kindRecord:
		if len(f.payload) < recordHead {
			return errors.New("record frame is too short")
		}
		rec, err := msg.DecodeRecord(f.payload[recordHead:])
		if err != nil {
			return fmt.Errorf("record: %w", err)
		}
		return l.extend(rec, f)
	case kindCert:
		c, err := msg.DecodeCertificate(f.payload)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		l.certify(c.Record, span{f.offset, len(f.payload)})
	case kindEval:
		if len(f.payload) != cidBytes+8 {
			return errors.New("evaluation frame of a wrong size")
		}
		id, err := cid.Cast(f.payload[:cidBytes])
		if err != nil {
			return fmt.Errorf("evaluation: %w", err)
		}
		if i, ok := l.byID[id]; ok {
			l.entries[i].EvalLoss = math.Float64frombits(binary.LittleEndian.Uint64(f.payload[cidBytes:]))
		}
	case kindEvidence:
		return l.replayEvidence(f.payload)
	case kindLoose:
		return l.replayLoose(f)
	case kindJump:
		return l.replayJump(f.payload)
	default:
		return fmt.Errorf("frame of unknown kind %d: written by a newer version?", f.kind)
	}
	return nil
}

// extend is called with mu held, or by Open.
func (l *Ledger) extend(rec *msg.Record, f frame) error {
	e := newEntry(rec, f)
	i, ok := l.byID[rec.Parent]
	if !ok {
		return fmt.Errorf("record %s: parent %s: %w", e.ID, rec.Parent, ErrChain)
	}
	l.cutAfter(i)
	e.Certified = l.entries[i].Certified
	l.entries = append(l.entries, e)
	l.byID[e.ID] = i + 1
	return nil
}

// newEntry is that of a record frame.
func newEntry(rec *msg.Record, f frame) Entry {
	e := Entry{
		ID: msg.RawCID(f.payload[recordHead:]), Round: rec.Round, State: rec.State, EvalLoss: math.NaN(), parent: rec.Parent,
		Took:   time.Duration(binary.LittleEndian.Uint32(f.payload[8:])) * time.Millisecond,
		record: span{f.offset + recordHead, len(f.payload) - recordHead},
	}
	if f.kind != kindLoose { // when that was written says nothing of its round
		e.Adopted = time.UnixMilli(int64(binary.LittleEndian.Uint64(f.payload)))
	}
	return e
}

// cutAfter drops what follows the entry i. It is called with mu held, or by Open.
func (l *Ledger) cutAfter(i int) {
	for _, e := range l.entries[i+1:] {
		if e.here() {
			delete(l.byID, e.ID)
			l.left.add(e)
		}
	}
	l.entries = l.entries[:i+1]
	if i < l.floor {
		l.floor = l.lowest(i)
	}
}

// certify is called with mu held, or by Open.
func (l *Ledger) certify(id cid.Cid, at span) {
	i, ok := l.byID[id]
	if !ok {
		l.loose.certify(id, at)
		return
	}
	if l.entries[i].cert.n > 0 {
		return
	}
	l.entries[i].cert = at
	for ; i < len(l.entries); i++ {
		l.entries[i].Certified++
	}
}

// Adopt makes the last of links the head. The parent of the first is in the
// chain; what followed it is dropped.
func (l *Ledger) Adopt(now time.Time, links []round.Link) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(links) == 0 {
		return nil
	}
	at, ok := l.byID[links[0].Record.Parent]
	if !ok {
		return fmt.Errorf("adopt %s: %w", links[0].ID, ErrChain)
	}
	var b []byte
	type part struct {
		kind byte
		from int // in b, of the payload
		n    int
		rec  *msg.Record
		id   cid.Cid
	}
	var parts []part
	add := func(kind byte, payload []byte, rec *msg.Record, id cid.Cid) {
		parts = append(parts, part{kind, len(b) + frameHead, len(payload), rec, id})
		b = appendFrame(b, kind, payload)
	}
	before := l.entries[at].Adopted
	for i, k := range links {
		if i > 0 && k.Record.Parent != links[i-1].ID {
			return fmt.Errorf("adopt %s: %w", k.ID, ErrChain)
		}
		rec, err := k.Record.Encode()
		if err != nil {
			return fmt.Errorf("adopt %s: %w", k.ID, err)
		}
		if msg.RawCID(rec) != k.ID {
			return fmt.Errorf("adopt %s: it is %s: %w", k.ID, msg.RawCID(rec), ErrChain)
		}
		var took time.Duration
		if !before.IsZero() && i == 0 {
			took = max(0, now.Sub(before))
		}
		head := binary.LittleEndian.AppendUint64(nil, uint64(now.UnixMilli()))
		head = binary.LittleEndian.AppendUint32(head, uint32(min(took.Milliseconds(), math.MaxUint32)))
		add(kindRecord, append(head, rec...), k.Record, k.ID)
		if k.Certificate != nil {
			cert, err := k.Certificate.Encode()
			if err != nil {
				return fmt.Errorf("adopt %s: %w", k.ID, err)
			}
			add(kindCert, cert, nil, k.ID)
		}
	}
	start := l.chain.end
	if err := l.chain.append(b); err != nil {
		return fmt.Errorf("adopt %s: %w", links[len(links)-1].ID, err)
	}
	for _, p := range parts {
		off := start + int64(p.from)
		if p.kind == kindCert {
			l.certify(p.id, span{off, p.n})
			continue
		}
		if err := l.extend(p.rec, frame{p.kind, off, b[p.from : p.from+p.n]}); err != nil {
			return err // cannot be: checked above
		}
	}
	for _, k := range links {
		k.Certified = l.entries[l.byID[k.ID]].Certified
		l.remember(k)
	}
	return nil
}

// Certify keeps a certificate of a record in the chain.
func (l *Ledger) Certify(c *msg.Certificate) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.byID[c.Record]
	if !ok {
		return fmt.Errorf("certify %s: %w", c.Record, ErrChain)
	}
	if l.entries[i].cert.n > 0 {
		return nil
	}
	b, err := c.Encode()
	if err != nil {
		return fmt.Errorf("certify %s: %w", c.Record, err)
	}
	off := l.chain.end + frameHead
	if err := l.chain.append(appendFrame(nil, kindCert, b)); err != nil {
		return fmt.Errorf("certify %s: %w", c.Record, err)
	}
	l.certify(c.Record, span{off, len(b)})
	l.links = l.links[:0]
	return nil
}

// SetEval notes the loss measured after a record. A record that is not in the
// chain any more is no error.
func (l *Ledger) SetEval(id cid.Cid, loss float64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.byID[id]
	if !ok {
		return nil
	}
	b := binary.LittleEndian.AppendUint64(id.Bytes(), math.Float64bits(loss))
	if err := l.chain.append(appendFrame(nil, kindEval, b)); err != nil {
		return fmt.Errorf("note evaluation: %w", err)
	}
	l.entries[i].EvalLoss = loss
	return nil
}

// remember is called with mu held.
func (l *Ledger) remember(k round.Link) {
	l.links = append(l.links, k)
	if len(l.links) > keepLinks {
		l.links = append(l.links[:0], l.links[len(l.links)-keepLinks:]...)
	}
}

// Link implements round.Chain. A record that cannot be read any more counts as
// not there, and so does one between which and the head others are missing.
func (l *Ledger) Link(id cid.Cid) (round.Link, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.byID[id]
	if !ok || i < l.floor {
		return round.Link{}, false
	}
	return l.link(i)
}

// Head implements round.Chain.
func (l *Ledger) Head() round.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.entries) - 1; i > 0; i-- {
		if k, ok := l.link(i); ok {
			return k
		}
	}
	k, _ := l.link(0)
	return k
}

// At returns the record of a round, and what is known about it. It may be here
// though others before or after it are missing.
func (l *Ledger) At(n msg.Round) (round.Link, Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uint64(n) >= uint64(len(l.entries)) || !l.entries[n].here() {
		return round.Link{}, Entry{}, false
	}
	k, ok := l.link(int(n))
	return k, l.entries[n], ok
}

// Entry returns what is known about the record of a round.
func (l *Ledger) Entry(n msg.Round) (Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uint64(n) >= uint64(len(l.entries)) || !l.entries[n].here() {
		return Entry{}, false
	}
	return l.entries[n], true
}

// link is called with mu held.
func (l *Ledger) link(i int) (round.Link, bool) {
	if i == 0 {
		return l.genesis, true
	}
	e := l.entries[i]
	if !e.here() {
		return round.Link{}, false
	}
	for _, k := range l.links {
		if k.ID == e.ID && k.Certified == e.Certified {
			return k, true
		}
	}
	k := round.Link{ID: e.ID, Certified: e.Certified}
	b, err := l.chain.read(e.record.off, e.record.n)
	if err != nil || msg.RawCID(b) != e.ID {
		return round.Link{}, false
	}
	if k.Record, err = msg.DecodeRecord(b); err != nil {
		return round.Link{}, false
	}
	if e.cert.n > 0 {
		b, err := l.chain.read(e.cert.off, e.cert.n)
		if err != nil {
			return round.Link{}, false
		}
		if k.Certificate, err = msg.DecodeCertificate(b); err != nil {
			return round.Link{}, false
		}
	}
	l.remember(k)
	return k, true
}
