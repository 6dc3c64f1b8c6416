package main

import (
	"context"
	"errors"
	"time"
)

// soakUntil is a scenario that disturbs one node until a time.
func soakUntil(end time.Time) func(context.Context, *swarm, *result) error {
	return func(context.Context, *swarm, *result) error { return errors.New("not there yet") }
}
