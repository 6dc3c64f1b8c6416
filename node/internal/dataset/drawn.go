package dataset

// Drawn calls visit with the rows that Batch draws from positions 0 to n-1 of
// the order that seed gives, if each of the rows fits, of which the shards have
// so many each. A nil list of rows is all of the shard.
func Drawn(seed [32]byte, n uint64, rows []int, visit func(shard int, rows []int)) {
	total := uint64(0)
	for _, r := range rows {
		total += uint64(r)
	}
	if total == 0 {
		return
	}
	for pass := uint64(0); n > 0; pass++ {
		for _, i := range shuffled(seed, pass, allShards, len(rows)) {
			count := uint64(rows[i])
			switch {
			case n == 0:
				return
			case count == 0:
			case n >= count:
				visit(i, nil)
				n -= count
			default:
				visit(i, shuffled(seed, pass, uint64(i), rows[i])[:n])
				return
			}
		}
	}
}
