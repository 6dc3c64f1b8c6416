package app

import (
	"context"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/demo"
)

// DemoAssets implements api.Backend.
func (n *node) DemoAssets(_ context.Context, dir string) (api.DemoAssets, error) {
	return demo.Write(dir)
}
