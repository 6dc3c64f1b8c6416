package main

import (
	"bytes"
	"crypto/md5" //nolint:gosec // dpkg wants it
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

const control = `Package: moot
Version: %s
Architecture: %s
Maintainer: the authors of moot <moot@localhost>
Installed-Size: %d
Section: net
Priority: optional
Description: fine-tune language models together with other people's machines
 mootd is the daemon that trains, shares and serves; moot tells it what to do.
 "mootd service install" lets it start when you log in.
`

// debVersion is a version as dpkg compares it: it begins with a digit.
func debVersion(v string) (string, error) {
	v = strings.TrimPrefix(v, "v")
	if v == "" || v[0] < '0' || v[0] > '9' {
		v = "0~" + v
	}
	v = regexp.MustCompile(`-(alpha|beta|pre|rc)`).ReplaceAllString(v, "~$1") // before the release itself
	v = strings.ReplaceAll(v, "-", "+")                                       // after it
	if !regexp.MustCompile(`^[0-9][A-Za-z0-9.+~]*$`).MatchString(v) {
		return "", fmt.Errorf("version %q is none of a Debian package", v)
	}
	return v, nil
}

// writeDeb packs dir, whose folders are those of a system, such as usr/bin.
func writeDeb(out, dir string, at time.Time, version, arch string) error {
	version, err := debVersion(version)
	if err != nil {
		return err
	}
	if arch != "amd64" && arch != "arm64" {
		return fmt.Errorf("-arch is %q, must be amd64 or arm64", arch)
	}
	files, err := filesIn(dir, "./")
	if err != nil {
		return err
	}
	var sums strings.Builder
	size := 0
	for _, f := range files {
		fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.data), strings.TrimPrefix(f.name, "./")) //nolint:gosec // dpkg wants it
		size += len(f.data)
	}
	meta := []file{
		{name: "./control", data: fmt.Appendf(nil, control, version, arch, (size+1023)/1024)},
		{name: "./md5sums", data: []byte(sums.String())},
	}
	var c, d bytes.Buffer
	if err := tarGz(&c, meta, at); err != nil {
		return err
	}
	if err := tarGz(&d, files, at); err != nil {
		return err
	}
	b := bytes.NewBufferString("!<arch>\n")
	for _, m := range []file{{name: "debian-binary", data: []byte("2.0\n")}, {name: "control.tar.gz", data: c.Bytes()}, {name: "data.tar.gz", data: d.Bytes()}} {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, at.Unix(), 0, 0, "100644", len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}
