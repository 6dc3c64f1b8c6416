package dataset

import (
	"slices"
	"testing"
)

// TestDrawn: the rows are those that Batch draws, pass after pass.
func TestDrawn(t *testing.T) {
	d := importRows(t, numbered(60), nil, 500)
	var rows []int
	for _, s := range d.Index().Train.Shards {
		rows = append(rows, int(s.Rows))
	}
	if len(rows) < 4 {
		t.Fatalf("%d shards, the test wants several", len(rows))
	}
	for _, n := range []uint64{0, 1, 17, 60, 61, 150} {
		var want []string
		if n > 0 {
			want = batch(t, source(t, d), seed(9), 0, int(n))
		}
		var got []string
		Drawn(seed(9), n, rows, func(shard int, drawn []int) {
			all, err := d.ReadShard(t.Context(), shard)
			if err != nil {
				t.Fatal(err)
			}
			if drawn == nil {
				for i := range all {
					drawn = append(drawn, i)
				}
			}
			for _, i := range drawn {
				got = append(got, all[i].Instruction+all[i].Output)
			}
		})
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Errorf("%d rows:\n%q, want\n%q", n, got, want)
		}
	}
	Drawn(seed(1), 5, []int{0, 0}, func(int, []int) { t.Error("rows of empty shards were drawn") })
}
