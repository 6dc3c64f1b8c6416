package app

import (
	"context"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/shard"
)

// growModel makes the folder of a model in which it grows as its blocks come, so
// that it is never on the disk twice.
func (n *node) growModel(ctx context.Context, root cid.Cid, maxBytes int64) error {
	// Kept from now on, so that what a pull leaves behind that never ends is
	// listed, and can be pruned.
	err := n.store.Keep(root, modelKind, "", time.Now())
	if err == nil {
		err = n.store.Grow(ctx, root, n.modelPath(root), shard.FolderOptions{MaxBytes: maxBytes})
	}
	if err != nil {
		return fmt.Errorf("model %s: %w", root, err)
	}
	return nil
}
