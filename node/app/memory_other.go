//go:build !linux

package app

import "errors"

func freeMemory() (int64, error) { return 0, errors.ErrUnsupported }
