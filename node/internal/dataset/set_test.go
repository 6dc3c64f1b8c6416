package dataset

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/shard"
)

// All rows of a data set are looked at, and named by the file and the line in
// which they are.
func TestCheckSet(t *testing.T) {
	row := func(instruction, output string) shard.Row { return shard.Row{Instruction: instruction, Output: output} }
	long := strings.Repeat("x", 200)
	d := importRows(t, []shard.Row{
		row("a", "one"), row("b", "two"), row("a", "one"), row("c", long), row("d", "four"), row("e", "five"),
	}, []shard.Row{row("f", "six"), row("f", "six")}, 256)
	e := newEncoder(t, byteTokenizer(t, "", ""), None, 40)
	var told [][2]int64
	training, heldOut, err := CheckSet(t.Context(), d, e, CheckOptions{Samples: 2}, func(done, total int64) { told = append(told, [2]int64{done, total}) })
	if err != nil {
		t.Fatal(err)
	}
	if training.Rows != 6 || training.Dropped != 1 || training.Repeated != 1 || training.Leaks != 0 || len(training.Samples) != 2 || training.Counted == 0 {
		t.Errorf("training: %+v", training)
	}
	if heldOut.Rows != 2 || heldOut.Repeated != 1 || heldOut.Leaks != 0 {
		t.Errorf("held out: %+v", heldOut)
	}
	var places []string
	for _, p := range append(training.Problems, heldOut.Problems...) {
		places = append(places, p.Kind+" "+p.Place)
	}
	if diff := cmp.Diff([]string{"repeated train/00000.jsonl:3", "dropped train/00001.jsonl:1", "repeated eval/00000.jsonl:2"}, places); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if last := told[len(told)-1]; last != [2]int64{8, 8} {
		t.Errorf("told was %v", told)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := CheckSet(ctx, d, e, CheckOptions{}, func(int64, int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
