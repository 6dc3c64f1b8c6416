package msg

import (
	"errors"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

func seal(priv crypto.PrivKey, m Message) (Signed, error) { return Signed{}, errors.New("seal") }

func open(envelope []byte) (Signed, error) { return Signed{}, errors.New("open") }

func openAs[M Message](envelope []byte) (m M, s Signed, err error) { return m, s, errors.New("open") }

func (m *Commit) Validate() error      { return nil }
func (m *Have) Validate() error        { return nil }
func (m *JoinRequest) Validate() error { return nil }
func (m *Proposal) Validate() error    { return nil }
func (m *Vote) Validate() error        { return nil }
func (m *Status) Validate() error      { return nil }

func (m *Commit) Signer() peer.ID      { return m.Peer }
func (m *Have) Signer() peer.ID        { return m.Peer }
func (m *JoinRequest) Signer() peer.ID { return m.Peer }
func (m *Proposal) Signer() peer.ID    { return m.Peer }
func (m *Vote) Signer() peer.ID        { return m.Peer }
func (m *Status) Signer() peer.ID      { return m.Peer }

func (m *Commit) RunID() cid.Cid      { return m.Run }
func (m *Have) RunID() cid.Cid        { return m.Run }
func (m *JoinRequest) RunID() cid.Cid { return m.Run }
func (m *Proposal) RunID() cid.Cid    { return m.Run }
func (m *Vote) RunID() cid.Cid        { return m.Run }
func (m *Status) RunID() cid.Cid      { return m.Run }

func (m *Commit) kind() kind      { return kind{} }
func (m *Have) kind() kind        { return kind{} }
func (m *JoinRequest) kind() kind { return kind{} }
func (m *Proposal) kind() kind    { return kind{} }
func (m *Vote) kind() kind        { return kind{} }
func (m *Status) kind() kind      { return kind{} }
