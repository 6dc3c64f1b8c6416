// Command release makes what scripts/release.sh ships from binaries: man pages,
// archives and a Debian package. The same files give the same bytes, on any
// machine: names are sorted, and all times are that of the commit.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

const usage = `release man     -out DIR -time SECONDS -version V BINARY...
release archive -out FILE.tar.gz|FILE.zip -dir DIR -time SECONDS
release deb     -out FILE.deb -dir DIR -time SECONDS -version V -arch amd64|arm64
release copyright -out FILE BINARY...`

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage:\n%s", usage)
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	out := f.String("out", "", "what is written")
	dir := f.String("dir", "", "what goes into it")
	seconds := f.Int64("time", 0, "of all files, since 1970")
	version := f.String("version", "", "of the release")
	arch := f.String("arch", "", "of the package")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if *out == "" {
		return fmt.Errorf("-out is missing; usage:\n%s", usage)
	}
	at := time.Unix(*seconds, 0).UTC()
	switch args[0] {
	case "man":
		return writeMan(*out, at, *version, f.Args())
	case "archive":
		return writeArchive(*out, *dir, at)
	case "copyright":
		return writeCopyright(*out, f.Args())
	case "deb":
		return writeDeb(*out, *dir, at, *version, *arch)
	}
	return fmt.Errorf("unknown command %q; usage:\n%s", args[0], usage)
}
