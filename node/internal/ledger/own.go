package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// maxOwnBytes is when own.log is written anew.
const maxOwnBytes = 4 << 20

// maxEvidence bounds how much evidence is kept.
const maxEvidence = 256

// StoreOwn makes a message of this peer durable.
func (l *Ledger) StoreOwn(s msg.Signed) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(l.said, func(o msg.Signed) bool { return o.CID == s.CID }) {
		return nil
	}
	if l.own.end > maxOwnBytes {
		if err := l.compact(); err != nil {
			return fmt.Errorf("store own message: %w", err)
		}
	}
	if err := l.own.append(appendFrame(nil, kindOwn, s.Envelope)); err != nil {
		return fmt.Errorf("store own message: %w", err)
	}
	l.said = append(l.said, s)
	return nil
}

// Own returns the messages that were stored and still matter.
func (l *Ledger) Own() []msg.Signed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.matters()
}

// matters drops messages for heads that are behind by more than a few records,
// and all join requests and orders but the last. It is called with mu held.
func (l *Ledger) matters() []msg.Signed {
	heads := l.lastHeads()
	var out []msg.Signed
	var join, order *msg.Signed
	for _, s := range l.said {
		switch m := s.Message.(type) {
		case *msg.JoinRequest:
			if join == nil || m.Seq >= join.Message.(*msg.JoinRequest).Seq {
				join = &s
			}
		case *msg.Order:
			if order == nil || m.Seq >= order.Message.(*msg.Order).Seq {
				order = &s
			}
		default:
			// A head that is not in the chain may come back.
			if h := headOf(s.Message); slices.Contains(heads, h) || !l.passed(h) {
				out = append(out, s)
			}
		}
	}
	for _, s := range []*msg.Signed{join, order} {
		if s != nil {
			out = append(out, *s)
		}
	}
	return out
}

// lastHeads are those that rounds may be under way for.
func (l *Ledger) lastHeads() []cid.Cid {
	var heads []cid.Cid
	for i := max(0, len(l.entries)-4); i < len(l.entries); i++ {
		heads = append(heads, l.entries[i].ID)
	}
	return heads
}

// Spent lists heads for which this peer signed something that Own does not
// return, or may have done so: it must not sign anything for them again, also when
// the chain goes back to one of them.
func (l *Ledger) Spent() []cid.Cid {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(slices.Clone(l.spent), headsOf(l.said, l.matters())...)
}

// headsOf are the heads of those messages that are not kept.
func headsOf(list, kept []msg.Signed) []cid.Cid {
	var heads []cid.Cid
	for _, s := range list {
		h := headOf(s.Message)
		if h.Defined() && !slices.ContainsFunc(kept, func(k msg.Signed) bool { return k.CID == s.CID }) && !slices.Contains(heads, h) {
			heads = append(heads, h)
		}
	}
	return heads
}

// maxSpent is how many heads are remembered: as many as a round.Machine does, which counts
// a head and its cell.
const maxSpent = 4096

// spend notes heads durably.
func (l *Ledger) spend(heads []cid.Cid) error {
	if err := l.own.append(appendFrame(nil, kindSpent, joinCIDs(heads))); err != nil {
		return err
	}
	l.addSpent(heads)
	return nil
}

func (l *Ledger) addSpent(heads []cid.Cid) {
	for _, h := range heads {
		if !slices.Contains(l.spent, h) {
			l.spent = append(l.spent, h)
		}
	}
	l.spent = l.spent[max(0, len(l.spent)-maxSpent):]
}

func (l *Ledger) replaySpent(b []byte) error {
	if len(b)%cidBytes != 0 {
		return errors.New("frame of heads of a wrong size")
	}
	for ; len(b) > 0; b = b[cidBytes:] {
		h, err := cid.Cast(b[:cidBytes])
		if err != nil {
			return fmt.Errorf("head that was signed for: %w", err)
		}
		l.addSpent([]cid.Cid{h})
	}
	return nil
}

func joinCIDs(list []cid.Cid) []byte {
	var b []byte
	for _, c := range list {
		b = append(b, c.Bytes()...)
	}
	return b
}

// passed reports whether a record is in the chain and not one of its last.
func (l *Ledger) passed(id cid.Cid) bool {
	i, ok := l.byID[id]
	return ok && i < len(l.entries)-4
}

func headOf(m msg.Message) cid.Cid {
	switch m := m.(type) {
	case *msg.Commit:
		return m.Head
	case *msg.Have:
		return m.Head
	case *msg.Vote:
		return m.Head
	case *msg.Report:
		return m.Head
	case *msg.Proposal:
		if r, err := m.Decoded(); err == nil {
			return r.Parent
		}
	}
	return cid.Undef
}

// compact is called with mu held.
func (l *Ledger) compact() error {
	keep := l.matters()
	dropped := headsOf(l.said, keep)
	before := l.spent
	l.addSpent(dropped)
	b := appendFrame(nil, kindSpent, joinCIDs(l.spent))
	for _, s := range keep {
		b = appendFrame(b, kindOwn, s.Envelope)
	}
	if int64(len(b)) > maxOwnBytes/2 {
		l.spent = before
		return nil // it would be back at once
	}
	n, err := replaceLog(l.own, ownMagic, b)
	if err != nil {
		l.spent = before
		return err
	}
	l.own, l.said = n, keep
	return nil
}

// AddEvidence keeps two messages that contradict each other, a pair of each kind
// for each peer: more prove no more, and whoever likes could fill the disk. Of more
// than a few hundred pairs the rest is dropped.
func (l *Ledger) AddEvidence(a, b msg.Signed) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.evidence) >= maxEvidence || slices.ContainsFunc(l.evidence, func(e Evidence) bool {
		return e.A.From == a.From && reflect.TypeOf(e.A.Message) == reflect.TypeOf(a.Message)
	}) {
		return nil
	}
	var p []byte
	for _, s := range []msg.Signed{a, b} {
		p = append(binary.LittleEndian.AppendUint32(p, uint32(len(s.Envelope))), s.Envelope...)
	}
	if err := l.chain.append(appendFrame(nil, kindEvidence, p)); err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	l.evidence = append(l.evidence, Evidence{a, b})
	return nil
}

// Evidence lists what AddEvidence kept. The slice must not be changed.
func (l *Ledger) Evidence() []Evidence {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.evidence)
}

func (l *Ledger) replayEvidence(p []byte) error {
	var pair [2]msg.Signed
	for i := range pair {
		if len(p) < 4 {
			return errors.New("evidence frame is too short")
		}
		n := binary.LittleEndian.Uint32(p)
		if p = p[4:]; uint64(n) > uint64(len(p)) {
			return errors.New("evidence frame is too short")
		}
		var err error
		if pair[i], err = msg.Open(p[:n:n]); err != nil {
			return fmt.Errorf("evidence: %w", err)
		}
		p = p[n:]
	}
	l.evidence = append(l.evidence, Evidence{pair[0], pair[1]})
	return nil
}
