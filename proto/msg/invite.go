package msg

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxInviteBytes = 512
	inviteDomain   = "moot invite 1"
	workDomain     = "moot join 1"
	ticketPrefix   = "moot1-"
)

// Invite is the launcher's word that whoever has the key may take part.
type Invite struct {
	Run   cid.Cid
	Peer  peer.ID // the launcher, who signs
	Key   []byte  // Ed25519, public
	Until Round   // last round that lets a peer in by it; 0: any
}

// Validate implements Message.
func (m *Invite) Validate() error {
	c := check("invite")
	c.rawCID("run", m.Run)
	c.peer("peer", m.Peer)
	c.that(len(m.Key) == ed25519.PublicKeySize, "key has %d bytes, must have %d", len(m.Key), ed25519.PublicKeySize)
	c.between("until", uint64(m.Until), 0, MaxRound)
	return c.result()
}

// Signer implements Message.
func (m *Invite) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *Invite) RunID() cid.Cid { return m.Run }

func (m *Invite) kind() kind { return kindInvite }

// Ticket is an invite with the key that it names. Whoever has it can let any
// peer in, so it is passed on in private; what a join request shows of it is of
// no use to others.
type Ticket struct {
	Invite []byte // envelope
	Key    ed25519.PrivateKey
}

// NewTicket makes a ticket for a run with the launcher's key. The seed of its
// own key must be secret.
func NewTicket(launcher crypto.PrivKey, run cid.Cid, until Round, seed [ed25519.SeedSize]byte) (Ticket, error) {
	id, err := peer.IDFromPrivateKey(launcher)
	if err != nil {
		return Ticket{}, fmt.Errorf("new ticket: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed[:])
	s, err := Seal(launcher, &Invite{Run: run, Peer: id, Key: key.Public().(ed25519.PublicKey), Until: until})
	if err != nil {
		return Ticket{}, fmt.Errorf("new ticket: %w", err)
	}
	return Ticket{s.Envelope, key}, nil
}

// String is what people pass on.
func (t Ticket) String() string {
	return ticketPrefix + base64.RawURLEncoding.EncodeToString(append(t.Key.Seed(), t.Invite...))
}

// ParseTicket is the inverse of String.
func ParseTicket(s string) (Ticket, error) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(s, ticketPrefix))
	if err != nil || !strings.HasPrefix(s, ticketPrefix) || len(b) <= ed25519.SeedSize || len(b) > ed25519.SeedSize+maxInviteBytes {
		return Ticket{}, fmt.Errorf("invitation is not one: it begins with %q and has no spaces", ticketPrefix)
	}
	t := Ticket{b[ed25519.SeedSize:], ed25519.NewKeyFromSeed(b[:ed25519.SeedSize])}
	m, _, err := OpenAs[*Invite](t.Invite)
	if err != nil {
		return Ticket{}, fmt.Errorf("invitation: %w", err)
	}
	if !t.Key.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(m.Key)) {
		return Ticket{}, errors.New("invitation: its key is not the one that the launcher signed")
	}
	return t, nil
}

// Prove signs that the peer came by this ticket.
func (t Ticket) Prove(run cid.Cid, id peer.ID) []byte {
	return ed25519.Sign(t.Key, inviteBytes(run, id))
}

func inviteBytes(run cid.Cid, id peer.ID) []byte {
	return append(append([]byte(inviteDomain), run.Bytes()...), id...)
}

// Invited reports whether the request shows an invite of the launcher for this
// run and round, with the proof that its peer has the invite's key.
func (m *JoinRequest) Invited(launcher peer.ID, round Round) bool {
	if len(m.Invite) == 0 {
		return false
	}
	v, s, err := OpenAs[*Invite](m.Invite)
	return err == nil && s.From == launcher && v.Run.Equals(m.Run) && (v.Until == 0 || round <= v.Until) &&
		ed25519.Verify(v.Key, inviteBytes(m.Run, m.Peer), m.Proof)
}

// Work is how many zero bits the hash of the request's nonce begins with.
func (m *JoinRequest) Work() int { return work(m.Run, m.Peer, m.Nonce) }

// FindNonce searches a nonce with so many bits of work, from 1 on. It takes
// 2^bits hashes; stop ends it without result.
func FindNonce(run cid.Cid, id peer.ID, workBits int, stop <-chan struct{}) (uint64, bool) {
	for nonce := uint64(1); ; nonce++ {
		if work(run, id, nonce) >= workBits {
			return nonce, true
		}
		if nonce%4096 == 0 {
			select {
			case <-stop:
				return 0, false
			default:
			}
		}
	}
}

func work(run cid.Cid, id peer.ID, nonce uint64) int {
	b := append(append([]byte(workDomain), run.Bytes()...), id...)
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(b, nonce))
	n := 0
	for _, x := range sum {
		if x != 0 {
			return n + bits.LeadingZeros8(x)
		}
		n += 8
	}
	return n
}
