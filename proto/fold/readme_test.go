package fold

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestReadme: the examples of proto/README.md are true.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(b)), " ")
	l := newLayout(t, Tensor{"a", 1, 5})
	raw := rawDelta(l, 2, []scale{{1000, 0}}, []uint8{0})
	for i, level := range []int64{3, 1, -1, -3, 3} {
		raw[len(raw)-2+i/4] |= codeOf(2, level) << (2 * i % 8)
	}
	d := mustDecode(t, l, raw)
	next, _, err := Fold(NewState(l), []Input{{d, 100, One}}, outerStep)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		hex.EncodeToString(raw),
		fmt.Sprintf("norm %d and CID `%v`", d.Norm(), FileCID(raw)),
		"theta " + list(next.Theta) + ", momentum " + list(next.Momentum) + ",",
		hex.EncodeToString(next.Marshal()),
		fmt.Sprintf("with CID `%v`", next.CID()),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("proto/README.md does not have %q", want)
		}
	}
}

func list(values []int32) string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(values)), ", "), "[]")
}
