package run

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// A manifest of another version, or with a setting of a later one, is refused in a
// sentence that says what to do.
func TestOtherVersions(t *testing.T) {
	b, err := sample(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	later := protowire.AppendVarint(protowire.AppendTag(b[:len(b):len(b)], 9999, protowire.VarintType), 1)
	if _, err := Decode(later); err == nil || !strings.Contains(err.Error(), "settings that this program does not know; update it") {
		t.Errorf("with a field of a later version: %v", err)
	}
	// The last one of a field counts: version 2, and more that nobody knows.
	n := protowire.AppendVarint(protowire.AppendTag(later[:len(later):len(later)], 1, protowire.VarintType), 2)
	if _, err := Decode(n); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "it has version 2, this program knows version 1; the older of the two has to be updated") {
		t.Errorf("of version 2: %v", err)
	}
}
