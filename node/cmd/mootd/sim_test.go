package main

import (
	"slices"
	"testing"
)

func TestSeeds(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []uint64 // nil: an error
	}{
		{"", []uint64{4}},
		{"3", []uint64{4, 5, 6}},
		{"1,5, 9", []uint64{1, 5, 9}},
		{"7,", nil},
		{"7,7", nil},
		{"0", nil},
		{"-1", nil},
		{"1000000", nil},
		{"many", nil},
	} {
		got, err := seedsOf(tt.text, 4)
		if (err != nil) != (tt.want == nil) || !slices.Equal(got, tt.want) {
			t.Errorf("seedsOf(%q) = %v, %v, want %v", tt.text, got, err, tt.want)
		}
	}
}
