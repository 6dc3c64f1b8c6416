package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/moot-net/moot/node/api"
)

// checkCode asks the daemon's program that was found at path what it was built
// from. Who measures with a daemon of other code than moot's, one that was left
// beside it, say, measures another thing than it believes. One that was named
// is used in any case, and so is one of which it cannot be told; that is said.
func (e *env) checkCode(ctx context.Context, path string, named bool) error {
	text, known := otherCode(ctx, path, api.ThisVersion())
	switch {
	case ctx.Err() != nil:
		return api.AsError(ctx.Err())
	case text == "":
		return nil
	case known && !named:
		return api.Errorf(api.CodeUsage, "%s", text).
			WithHint("build both with ./scripts/build.sh, or give --mootd %s to use it all the same", path)
	}
	e.board.close()
	fmt.Fprintf(e.err, "moot: note: %s\n", cleanText(text))
	return nil
}

// otherCode says how the code of a program differs from that of moot, "" if it
// does not; known is false if it cannot be told.
func otherCode(ctx context.Context, path string, own api.Version) (text string, known bool) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "version", "--json")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var its api.Version
	if err != nil || json.Unmarshal(stdout.Bytes(), &its) != nil || its.Version == "" {
		return fmt.Sprintf("%s does not say what it was built from: it is older than this moot, or no mootd", path), true
	}
	same, known := its.SameCode(own)
	switch {
	case same:
		return "", true
	case known:
		return fmt.Sprintf("%s is of other code than this moot: it is %s, moot is %s", path, versionText(its), versionText(own)), true
	}
	text = "it cannot be told whether " + path + " is of the same code as this moot"
	self, err := os.Executable()
	if err != nil {
		return text, false
	}
	if a, b := modified(path), modified(self); a != "" && b != "" {
		text += fmt.Sprintf(": it was built at %s, moot at %s", a, b)
	}
	return text, false
}

func modified(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return info.ModTime().Format(time.DateTime)
}
