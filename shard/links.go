package shard

import (
	blocks "github.com/ipfs/go-block-format"
)

// Links decodes a block and returns its links: none for a raw leaf. A block
// that is not canonical, or breaks a rule of FORMAT.md, gives an error that
// wraps [ErrInvalid] or [ErrTooLarge]. The block's hash is not computed.
func Links(b blocks.Block) ([]Link, error) {
	n, err := decodeNode(b.Cid(), b.RawData())
	if err != nil {
		return nil, err
	}
	return n.links, nil
}
