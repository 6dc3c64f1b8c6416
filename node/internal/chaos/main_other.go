//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "chaos: skipped: network namespaces are there on Linux alone")
	os.Exit(77)
}
