//go:build !linux && !darwin && !windows

package app

import "errors"

func freeBytes(string) (int64, error) { return 0, errors.ErrUnsupported }

func isDiskFull(error) bool { return false }
