//go:build !windows && (!unix || solaris || illumos || aix)

package shard

import (
	"errors"
	"os"
)

func tryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }
