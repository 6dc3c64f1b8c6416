package tokenizer

// trie holds strings by their bytes. Its edges are in a hash table, which is
// fast to make and to walk. The zero value holds nothing.
type trie struct {
	keys  []uint64 // state<<8 | byte, +1; 0 where free
	next  []int32
	used  int
	value []int32 // by state, -1 where no string ends
}

// newTrie returns one for strings of about so many bytes together.
func newTrie(bytes int) *trie {
	size := 16
	for size < 2*bytes {
		size *= 2
	}
	return &trie{keys: make([]uint64, size), next: make([]int32, size), value: []int32{-1}}
}

func (t *trie) slot(key uint64) int {
	mask := len(t.keys) - 1
	at := int(key*0x9E3779B97F4A7C15>>20) & mask
	for t.keys[at] != 0 && t.keys[at] != key {
		at = (at + 1) & mask
	}
	return at
}

// step returns the state behind state and a byte, 0 if no string goes on so.
func (t *trie) step(state int32, c byte) int32 {
	key := uint64(state)<<8 + uint64(c) + 1
	mask := len(t.keys) - 1
	at := int(key*0x9E3779B97F4A7C15>>20) & mask
	for {
		switch t.keys[at] {
		case key:
			return t.next[at]
		case 0:
			return 0
		}
		at = (at + 1) & mask
	}
}

func (t *trie) add(s string, value int32) {
	state := int32(0)
	for i := range len(s) {
		to := t.step(state, s[i])
		if to == 0 {
			if 2*t.used >= len(t.keys) {
				t.grow()
			}
			to = int32(len(t.value))
			t.value = append(t.value, -1)
			at := t.slot(uint64(state)<<8 + uint64(s[i]) + 1)
			t.keys[at], t.next[at] = uint64(state)<<8+uint64(s[i])+1, to
			t.used++
		}
		state = to
	}
	t.value[state] = value
}

func (t *trie) grow() {
	keys, next := t.keys, t.next
	t.keys, t.next = make([]uint64, 2*len(keys)), make([]int32, 2*len(keys))
	for i, k := range keys {
		if k != 0 {
			at := t.slot(k)
			t.keys[at], t.next[at] = k, next[i]
		}
	}
}
