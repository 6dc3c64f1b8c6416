package api

import "testing"

func TestSameCode(t *testing.T) {
	built := func(s string) Version { return Version{Version: "devel", Build: s} }
	tests := []struct {
		name        string
		v, w        Version
		same, known bool
	}{
		{"built together", built("1-2"), built("1-2"), true, true},
		{"built of other code", built("1-2"), built("3-2"), false, true},
		{"built together, of a release", Version{Version: "v1", Build: "1"}, Version{Version: "v2", Build: "1"}, true, true},
		{"one without a build", built("1-2"), Version{Version: "devel"}, false, false},
		{"both without anything", Version{Version: "devel"}, Version{Version: "devel"}, false, false},
		{"one without anything", Version{Version: "v1"}, Version{Version: "devel"}, false, false},
		{"releases", Version{Version: "v1", Commit: "a"}, Version{Version: "v1", Commit: "a"}, true, true},
		{"another release", Version{Version: "v1", Commit: "a"}, Version{Version: "v2", Commit: "b"}, false, true},
		{"another commit", Version{Version: "devel", Commit: "a"}, Version{Version: "devel", Commit: "b"}, false, true},
		{"one changed since", Version{Version: "v1", Commit: "a"}, Version{Version: "v1+dirty", Commit: "a-modified"}, false, true},
		{"both changed since", Version{Version: "v1+dirty", Commit: "a-modified"}, Version{Version: "v1+dirty", Commit: "a-modified"}, false, false},
		{"both released while changed", Version{Version: "v1-dirty"}, Version{Version: "v1-dirty"}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, pair := range [][2]Version{{tt.v, tt.w}, {tt.w, tt.v}} {
				if same, known := pair[0].SameCode(pair[1]); same != tt.same || known != tt.known {
					t.Errorf("SameCode of %+v and %+v = %v, %v, want %v, %v", pair[0], pair[1], same, known, tt.same, tt.known)
				}
			}
		})
	}
}
