package top

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

// screen draws a snapshot as lines of text. It is pure: the same snapshot, size
// and time give the same lines.
type screen struct {
	width, height int
	now           time.Time
	unicode       bool // the terminal shows more than ASCII
	scroll        int  // peers that are above the table
	prompt        string
}

// labelWidth is how wide the names of the lines are.
const labelWidth = 9

// phases are those of a round, as they come.
var phases = []string{"train", "exchange", "vote"}

// line is one line of the screen. Those with the lowest rank stay when there is
// little room.
type line struct {
	rank int
	text string
	bold bool
}

// draw returns height lines of width cells.
func (c screen) draw(s *snapshot) []line {
	if c.width <= 0 || c.height <= 0 {
		return nil
	}
	lines := []line{{0, c.title(s), true}}
	lines = append(lines, c.head(s)...)
	lines = append(lines, c.runLines(s)...)
	lines = append(lines, c.machine(s)...)
	room := c.height - 1 // without the last line
	// The table takes what the rest leaves.
	if left := room - len(lines); left >= 3 {
		lines = append(lines, c.table(s, left)...)
	}
	for rank := 9; len(lines) > room && rank > 0; rank-- {
		for i := len(lines) - 1; i >= 0 && len(lines) > room; i-- {
			if lines[i].rank == rank {
				lines = slices.Delete(lines, i, i+1)
			}
		}
	}
	if len(lines) > room {
		lines = lines[:room]
	}
	for len(lines) < room {
		lines = append(lines, line{})
	}
	lines = append(lines, line{text: c.footer(s), bold: c.prompt != ""})
	for i := range lines {
		lines[i].text = fit(lines[i].text, c.width)
	}
	return lines
}

func (c screen) title(s *snapshot) string {
	state := string(s.status.State)
	switch {
	case s.down != "":
		state = "no daemon"
	case !s.loaded:
		state = "connecting"
	}
	left := "moot  " + clean(state)
	if !s.loaded {
		return left
	}
	right := fmt.Sprintf("%s  %s", api.ShortID(clean(s.status.Peer)), clean(s.status.Version))
	if s.down == "" {
		right += "  up " + ago(c.now.Sub(s.status.Started))
	}
	if gap := c.width - ansi.StringWidth(left) - ansi.StringWidth(right); gap >= 2 {
		return left + strings.Repeat(" ", gap) + right
	}
	return left
}

func labelled(rank int, label, text string) line {
	return line{rank: rank, text: fit(label, labelWidth) + text}
}

// head says what the node does as a whole, and why.
func (c screen) head(s *snapshot) (lines []line) {
	if s.down != "" {
		lines = append(lines, labelled(0, "why", clean(s.down)))
		if s.loaded {
			lines = append(lines, labelled(1, "", "what follows is as it was last; it is asked again every second"))
		}
		return lines
	}
	if !s.loaded {
		return nil
	}
	v := &s.status
	if v.Why != "" {
		why := v.Why
		if v.Reason != "" && v.Reason != string(v.State) {
			why += " (" + v.Reason + ")"
		}
		for i, part := range wrap(clean(why), c.width-labelWidth, 2) {
			lines = append(lines, labelled(i, [2]string{"why", ""}[i], part))
		}
	} else {
		lines = append(lines, labelled(1, "why", "nothing keeps it from working"))
	}
	if v.Until != nil {
		left := v.Until.Sub(c.now)
		lines = append(lines, labelled(2, "until", fmt.Sprintf("%s, in %s", v.Until.In(c.now.Location()).Format("Mon 15:04"), ago(left))))
	}
	if v.Do != "" {
		lines = append(lines, labelled(2, "do", clean(v.Do)))
	}
	if v.ClockError != "" {
		lines = append(lines, labelled(1, "clock", clean(v.ClockError)))
	}
	if v.ConfigError != "" {
		lines = append(lines, labelled(2, "config", "the file is wrong, it is as before: "+clean(v.ConfigError)))
	}
	return lines
}

// runLines tell about one run.
func (c screen) runLines(s *snapshot) (lines []line) {
	d := s.run
	if d == nil {
		if s.loaded {
			lines = append(lines, labelled(1, "run", `none; "moot join ID" joins one, "moot run list" lists them`))
		}
		return lines
	}
	which := ""
	if len(s.runs) > 1 {
		at := slices.IndexFunc(s.runs, func(r api.Run) bool { return r.ID == d.ID })
		which = fmt.Sprintf("  (%d of %d, tab: next)", at+1, len(s.runs))
	}
	name := ansi.Truncate(clean(d.Name), max(12, c.width-labelWidth-38), "~")
	lines = append(lines,
		labelled(1, "run", fmt.Sprintf("%s  %s  %s%s", name, api.ShortID(clean(d.ID)), clean(string(d.State)), which)))
	round := fmt.Sprintf("%s of %s decided, %s tokens", plain.Group(d.Round), plain.Group(d.MaxRounds), plain.Group(d.Tokens))
	seats := fmt.Sprintf("%d of %d seats", d.Seats, d.MaxSeats)
	lines = append(lines, labelled(2, "round", round+"; "+seats))
	if d.State != api.RunFinal && d.Joined {
		lines = append(lines, labelled(2, "phase", c.phase(d)))
		if who := awaited(s); who != "" {
			lines = append(lines, labelled(3, "awaited", who))
		}
		if d.Why != "" && d.Why != s.status.Why {
			lines = append(lines, labelled(5, "", clean(d.Why)))
		}
	}
	losses := fmt.Sprintf("train %s  held-out %s  ", lossText(d.TrainLoss), lossText(d.EvalLoss))
	lines = append(lines, labelled(3, "loss", losses+curve(s.history.losses(), c.width-labelWidth-len(losses), c.unicode)))
	total := d.TokensPerSecond
	for _, m := range d.Members {
		total += m.TokensPerSecond
	}
	lines = append(lines,
		labelled(3, "speed", fmt.Sprintf("%s tokens/s here, %s in the run", speed(d.TokensPerSecond), speed(total))),
		labelled(3, "credits", credits(s)))
	return lines
}

// phase shows where in a round this node is.
func (c screen) phase(d *api.RunDetail) string {
	at := slices.Index(phases, d.Phase)
	if at < 0 {
		return clean(d.Phase)
	}
	var parts []string
	for i, p := range phases {
		switch {
		case i == at:
			p = "[" + strings.ToUpper(p) + "]"
		case i < at:
			p += " ok"
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, " > ") + fmt.Sprintf("   round %s", plain.Group(d.Round+1))
}

// awaited names the seats whose work for the round is not there yet.
func awaited(s *snapshot) string {
	d := s.run
	if d.Phase != "train" && d.Phase != "exchange" && d.Phase != "vote" || len(d.NextSeats) == 0 {
		return ""
	}
	var missing []string
	for _, seat := range d.NextSeats {
		switch {
		case s.committed[seat.Peer]:
		case seat.Peer == s.status.Peer:
			missing = append(missing, "this node")
		default:
			missing = append(missing, api.ShortID(clean(seat.Peer)))
		}
	}
	if len(missing) == 0 {
		return fmt.Sprintf("nobody: %d of %d deltas are here", len(d.NextSeats), len(d.NextSeats))
	}
	here := fmt.Sprintf(" (%d of %d deltas are here)", len(d.NextSeats)-len(missing), len(d.NextSeats))
	if more := len(missing) - maxAwaited; more > 0 {
		return strings.Join(missing[:maxAwaited], ", ") + fmt.Sprintf(" and %d more", more) + here
	}
	return strings.Join(missing, ", ") + here
}

// maxAwaited is how many peers are awaited by name; all are in the table.
const maxAwaited = 2

// credits says what this node's work in a run came to: tokens of deltas that
// entered a round and counted.
func credits(s *snapshot) string {
	h := &s.history
	text := fmt.Sprintf("%s tokens in %s", plain.Group(h.tokens), plain.Plural(h.rounds, "round"))
	if h.refused > 0 {
		text += fmt.Sprintf("; %s did not count, last %s (round %s)", plain.Group(h.refused), clean(h.last), plain.Group(h.lastAt))
	}
	if v := h.standing; v != nil {
		switch {
		case v.BannedUntil > 0:
			text += fmt.Sprintf("; no seat before round %s: %s", plain.Group(v.BannedUntil), clean(v.Reason))
		case v.Strikes > 0:
			text += fmt.Sprintf("; %.1f of 3 strikes", v.Strikes)
		case v.Owed > 0:
			text += fmt.Sprintf("; on probation, %d useful to go", v.Owed)
		}
	}
	return text
}

// machine tells about devices and network.
func (c screen) machine(s *snapshot) (lines []line) {
	if !s.loaded {
		return nil
	}
	v := &s.status
	lines = append(lines, labelled(4, "device", clean(v.Device)))
	for _, d := range v.Devices[:min(len(v.Devices), 8)] {
		if text := gauges(d); text != "" {
			lines = append(lines, labelled(6, "", text))
		}
	}
	if len(v.Blind) > 0 {
		lines = append(lines, labelled(7, "blind", "no effect here: "+clean(strings.Join(slices.Sorted(maps.Keys(v.Blind)), ", "))))
	}
	reach := v.Reachability
	if reach == "" {
		reach = "unknown"
	}
	return append(lines, labelled(5, "network", fmt.Sprintf("%s, %s; %s in, %s out", plain.Plural(v.Peers, "peer"), clean(reach),
		bytesText(float64(v.Traffic.PulledBytes)), bytesText(float64(v.Traffic.SentBytes)))))
}

// gaugeWidth is how many cells a bar has between its ends.
const gaugeWidth = 10

func gauges(d api.Device) string {
	var parts []string
	if d.UtilPercent != nil {
		parts = append(parts, fmt.Sprintf("%s %3d %%", bar(float64(*d.UtilPercent)/100, gaugeWidth), *d.UtilPercent))
	}
	if d.UsedBytes != nil && d.TotalBytes != nil && *d.TotalBytes > 0 {
		parts = append(parts, fmt.Sprintf("%s %.1f of %.1f GB", bar(float64(*d.UsedBytes)/float64(*d.TotalBytes), gaugeWidth),
			float64(*d.UsedBytes)/1e9, float64(*d.TotalBytes)/1e9))
	}
	if d.OtherBytes != nil && *d.OtherBytes > 0 {
		parts = append(parts, bytesText(float64(*d.OtherBytes))+" of others")
	}
	if d.Celsius != nil {
		parts = append(parts, fmt.Sprintf("%d C", *d.Celsius))
	}
	if d.Watts != nil {
		parts = append(parts, fmt.Sprintf("%d W", *d.Watts))
	}
	if len(parts) == 0 {
		return ""
	}
	return ansi.Truncate(clean(d.Name), 24, "~") + "  " + strings.Join(parts, "  ")
}

// row is a peer: what it says of itself in the run, and the connection to it.
type row struct {
	id, phase, round, speed, rtt, where, device string
	seat, here                                  bool
}

// peerRows are the peers of the run, seats first, and then other connected ones.
func peerRows(s *snapshot) []row {
	byID := map[string]*row{}
	var order []*row
	get := func(id string) *row {
		r := byID[id]
		if r == nil {
			r = &row{id: id, phase: "-", round: "-", speed: "-", rtt: "-", where: "-"}
			byID[id] = r
			order = append(order, r)
		}
		return r
	}
	if d := s.run; d != nil {
		for _, seat := range d.NextSeats {
			r := get(seat.Peer)
			r.seat, r.here = true, s.committed[seat.Peer]
		}
		for _, m := range d.Members {
			r := get(m.Peer)
			r.phase, r.round, r.speed, r.device = m.Phase, plain.Group(m.Round), speed(m.TokensPerSecond), m.Device
		}
	}
	for _, p := range s.peers {
		r := get(p.ID)
		r.where = p.Where
		if p.RTTMillis > 0 {
			r.rtt = fmt.Sprintf("%.0f ms", p.RTTMillis)
		}
		if r.device == "" {
			r.device = p.Device
		}
		if r.device == "" {
			r.device = p.Agent
		}
	}
	rows := make([]row, 0, len(order))
	for _, r := range order {
		if r.id != s.status.Peer {
			rows = append(rows, *r)
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		if a.seat != b.seat {
			return cmp.Compare(b2i(b.seat), b2i(a.seat))
		}
		return cmp.Compare(a.id, b.id)
	})
	return rows
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// table lists peers on n lines, its head among them.
func (c screen) table(s *snapshot, n int) []line {
	rows := peerRows(s)
	columns := func(mark, id, phase, round, speed, rtt, where, device string) string {
		return mark + fit(id, 15) + fit(phase, 10) + fitRight(round, 6) + fitRight(speed, 9) + fitRight(rtt, 9) + "  " + fit(where, 9) + device
	}
	lines := []line{{7, columns("  ", "PEER", "PHASE", "ROUND", "TOKENS/S", "RTT", "WHERE", "DEVICE"), true}}
	if len(rows) == 0 {
		return append(lines, line{rank: 8, text: "  no peers yet"})
	}
	first := max(0, min(c.scroll, len(rows)-(n-1)))
	for _, r := range rows[first:min(len(rows), first+n-1)] {
		mark := "  "
		switch {
		case r.seat && r.here:
			mark = "+ "
		case r.seat:
			mark = "* "
		}
		lines = append(lines, line{rank: 8, text: columns(mark, api.ShortID(clean(r.id)), clean(r.phase), r.round, r.speed, r.rtt, clean(r.where), clean(r.device))})
	}
	return lines
}

// maxScroll is how far the table can be scrolled.
func (c screen) maxScroll(s *snapshot) int { return max(0, len(peerRows(s))-1) }

func (c screen) footer(s *snapshot) string {
	if c.prompt != "" {
		return clean(c.prompt)
	}
	if len(s.runs) > 1 {
		return "q quit  p pause  r resume  f finish  tab run  j/k scroll  ? help"
	}
	return "q quit  p pause  r resume  f finish  j/k scroll  ? help"
}

// help explains the screen.
func (c screen) help() []line {
	if c.width <= 0 || c.height <= 0 {
		return nil
	}
	text := []string{
		"q, ctrl+c     quit; the daemon goes on",
		"p             pause: nothing is computed until it is resumed",
		"h             pause for an hour",
		"r             resume, also after a finish",
		"f             finish this round's work, and take no more",
		"tab           the next run",
		"j, k, arrows  scroll the peers",
		"",
		"In the table * is a seat whose work of this round is not here yet, + one whose",
		"work is. What peers say of themselves (phase, speed, device) nobody vouches for.",
		"Credits are the tokens of this node's deltas that entered a round and counted.",
	}
	lines := []line{{text: "moot  help", bold: true}, {}}
	for _, t := range text {
		lines = append(lines, line{text: t})
	}
	for len(lines) < c.height-1 {
		lines = append(lines, line{})
	}
	lines = append(lines[:max(0, c.height-1)], line{text: "any key: back"})
	for i := range lines {
		lines[i].text = fit(lines[i].text, c.width)
	}
	return lines
}
