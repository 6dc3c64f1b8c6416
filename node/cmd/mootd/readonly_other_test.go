//go:build !linux

package main

import "errors"

func canMakeReadOnly() bool { return false }

func makeReadOnly(string) (func(), error) { return nil, errors.ErrUnsupported }
