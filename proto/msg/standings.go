package msg

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// With many seats their peer IDs would be most of their standings. So those of
// seats are on the wire as rows of numbers, in the order of the next seats.

// standingNumbers is how many numbers the standing of a seat has: all but Kept, for
// who has a seat has none that is kept.
const standingNumbers = 7

// StandingsKept is how many standings a record can have: of all peers, or with
// more than MaxSeats next seats of those without one.
func StandingsKept(seats int) int {
	if seats > MaxSeats {
		return MaxOthers
	}
	return MaxStandings
}

func (s *Standing) numbers() [standingNumbers]uint64 {
	return [...]uint64{uint64(s.Owed), uint64(s.StrikesQ8), uint64(s.Until), uint64(s.Reason), s.Pace, uint64(s.LackQ16), s.Work}
}

func findStanding(list []Standing, id peer.ID) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(e Standing, id peer.ID) int { return bytes.Compare([]byte(e.Peer), []byte(id)) })
}

// seatStandings divides sorted standings into the numbers of those of seats, nil
// if there are none, and the others.
func seatStandings(list []Standing, seats []Seat) (numbers []uint64, others []Standing) {
	numbers = make([]uint64, 0, standingNumbers*len(seats))
	some := false
	for _, s := range seats {
		var row [standingNumbers]uint64
		if i, ok := findStanding(list, s.Peer); ok {
			row, some = list[i].numbers(), true
		}
		numbers = append(numbers, row[:]...)
	}
	for _, e := range list {
		if _, seated := slices.BinarySearchFunc(seats, e.Peer, func(s Seat, id peer.ID) int {
			return bytes.Compare([]byte(s.Peer), []byte(id))
		}); !seated {
			others = append(others, e)
		}
	}
	if !some {
		numbers = nil
	}
	return numbers, others
}

// standingsFrom puts them together again. A row of zeros is no standing.
func standingsFrom(numbers []uint64, others []Standing, seats []Seat) ([]Standing, error) {
	if len(numbers) == 0 {
		return others, nil
	}
	if len(seats) <= MaxSeats || len(numbers) != standingNumbers*len(seats) {
		return nil, &InvalidError{"record", fmt.Sprintf("standings of seats have %d numbers, must have %d for each of more than %d seats", len(numbers), standingNumbers, MaxSeats)}
	}
	list := slices.Clone(others)
	for i, seat := range seats {
		row := numbers[standingNumbers*i : standingNumbers*(i+1)]
		if !slices.ContainsFunc(row, func(v uint64) bool { return v != 0 }) {
			continue
		}
		for _, k := range []int{0, 1, 3, 5} {
			if row[k] > 1<<32-1 {
				return nil, &InvalidError{"record", fmt.Sprintf("a standing has %d, must fit 32 bits", row[k])}
			}
		}
		list = append(list, Standing{
			Peer: seat.Peer, Owed: uint32(row[0]), StrikesQ8: uint32(row[1]), Until: Round(row[2]), Reason: Reason(row[3]),
			Pace: row[4], LackQ16: uint32(row[5]), Work: row[6],
		})
	}
	slices.SortStableFunc(list, func(a, b Standing) int { return bytes.Compare([]byte(a.Peer), []byte(b.Peer)) })
	return list, nil
}

// judgementNumbers is how many numbers a judgement has in a round with cells.
const judgementNumbers = 5

// microNano is how many 1e-9 nats are a unit of what cells measure.
const microNano = 1000

// rowsOf are the judgements of a round with cells as they are on the wire.
func rowsOf(list []Judgement) []int64 {
	var rows []int64
	for _, j := range list {
		rows = append(rows, int64(j.Seat), int64(j.Measured), j.GainNano/microNano, int64(j.WorthQ16), int64(j.Verdict))
	}
	return rows
}

func judgementsFrom(rows []int64) ([]Judgement, error) {
	if len(rows)%judgementNumbers != 0 {
		return nil, &InvalidError{"record", fmt.Sprintf("judgements have %d numbers, must have %d each", len(rows), judgementNumbers)}
	}
	var list []Judgement
	for row := range slices.Chunk(rows, judgementNumbers) {
		for i, v := range row {
			if i != 2 && (v < 0 || v > 1<<32-1) || v > MaxGainNano || v < -MaxGainNano {
				return nil, &InvalidError{"record", fmt.Sprintf("a judgement has %d, which is no value of it", v)}
			}
		}
		list = append(list, Judgement{
			Seat: uint32(row[0]), Measured: uint32(row[1]), GainNano: row[2] * microNano, WorthQ16: uint32(row[3]), Verdict: Verdict(row[4]),
		})
	}
	return list, nil
}
