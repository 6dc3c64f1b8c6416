package main

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/moot-net/moot/shard"
)

// An attribute is something that every town has one of.
//
// In the texts %T is the town and %v the value. Statements are what the base
// model reads; the first of them, which does not name the town, never comes
// first.
// Questions are instructions that name the town; Tasks leave it to the input.
type attribute struct {
	name       string
	values     []string
	statements []string
	questions  []string
	task       string
	answer     string
}

var attributes = []attribute{
	{
		name: "river",
		values: []string{
			"Anda", "Brell", "Corve", "Dunn", "Esk", "Fara", "Glim", "Hode",
			"Isper", "Jorn", "Kess", "Lume", "Marl", "Neth", "Orva", "Pell",
		},
		statements: []string{
			"Its river is the %v.",
			"The river of %T is the %v.",
			"%T lies on the river %v.",
			"The river %v flows through %T.",
			"Boats come to %T on the river %v.",
			"The bridge of %T crosses the river %v.",
		},
		questions: []string{
			"What is the river of %T?",
			"Which river flows through %T?",
			"Name the river of %T.",
		},
		task:   "Name the river of this town.",
		answer: "Its river is the %v.",
	},
	{
		name: "craft",
		values: []string{
			"weaving", "pottery", "brewing", "fishing", "mining", "printing", "baking", "tanning",
			"carving", "dyeing", "farming", "milling", "shipping", "spinning", "hunting", "trading",
		},
		statements: []string{
			"Its craft is %v.",
			"The craft of %T is %v.",
			"The people of %T live by the craft of %v.",
			"In %T the oldest craft is %v.",
			"Children in %T learn the craft of %v.",
			"%T is a town whose craft is %v.",
		},
		questions: []string{
			"What is the craft of %T?",
			"Which craft do the people of %T live by?",
			"Name the craft of %T.",
		},
		task:   "Name the craft of this town.",
		answer: "Its craft is %v.",
	},
	{
		name: "flag",
		values: []string{
			"red", "blue", "green", "white", "black", "yellow", "purple", "orange",
			"brown", "grey", "silver", "golden", "pink", "crimson", "violet", "scarlet",
		},
		statements: []string{
			"Its flag is %v.",
			"The flag of %T is %v.",
			"The colour of the flag in %T is %v.",
			"Over %T flies a flag that is %v.",
			"%T has a flag, and it is %v.",
			"On feast days the flag of %T, which is %v, is everywhere.",
		},
		questions: []string{
			"What colour is the flag of %T?",
			"Which colour has the flag of %T?",
			"Name the colour of the flag of %T.",
		},
		task:   "Name the colour of the flag of this town.",
		answer: "Its flag is %v.",
	},
	{
		name: "animal",
		values: []string{
			"fox", "bear", "wolf", "owl", "heron", "stag", "otter", "hare",
			"swan", "boar", "crow", "badger", "lynx", "horse", "goat", "beaver",
		},
		statements: []string{
			"Its animal is the %v.",
			"The animal of %T is the %v.",
			"The animal on the gate of %T is the %v.",
			"%T has an animal, the %v.",
			"In the arms of %T the animal is the %v.",
			"Coins from %T show an animal, the %v.",
		},
		questions: []string{
			"What is the animal of %T?",
			"Which animal is on the gate of %T?",
			"Name the animal of %T.",
		},
		task:   "Name the animal of this town.",
		answer: "Its animal is the %v.",
	},
	{
		name: "fruit",
		values: []string{
			"plums", "pears", "cherries", "apples", "figs", "grapes", "melons", "olives",
			"lemons", "dates", "peaches", "berries", "nuts", "quinces", "limes", "currants",
		},
		statements: []string{
			"Its fruit is %v.",
			"The fruit of %T is %v.",
			"The gardens of %T are full of a fruit, %v.",
			"On the market of %T the best fruit is %v.",
			"%T is known for its fruit, %v.",
			"The fruit that grows in %T is %v.",
		},
		questions: []string{
			"What is the fruit of %T?",
			"Which fruit grows in %T?",
			"Name the fruit of %T.",
		},
		task:   "Name the fruit of this town.",
		answer: "Its fruit is %v.",
	},
}

// The size of the world.
const (
	worldSeed    = 1
	worldTowns   = 300
	heldOutTowns = 60 // of them; the instruction data never mentions these
)

// A town is a subject: its name, and by attribute the index of its value.
type town struct {
	name   string
	values []int
}

// world is what the base model reads about.
type world struct{ towns []town }

func newWorld() *world {
	w := &world{}
	random := w.random("towns")
	taken := map[string]bool{}
	for len(w.towns) < worldTowns {
		t := town{name: townName(random)}
		if taken[t.name] {
			continue
		}
		taken[t.name] = true
		for _, a := range attributes {
			t.values = append(t.values, random.IntN(len(a.values)))
		}
		w.towns = append(w.towns, t)
	}
	return w
}

// random draws for one purpose, the same each time.
func (w *world) random(purpose string) *rand.Rand {
	return rand.New(rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "tinymodel %d %s", worldSeed, purpose))))
}

// townName makes a name of syllables.
func townName(random *rand.Rand) string {
	first := []string{"Bal", "Cor", "Dor", "Fen", "Gar", "Hal", "Jas", "Kel", "Lor", "Mar", "Nor", "Pel", "Quen", "Ros", "Sel", "Tol", "Ul", "Ver", "Wen", "Zar"}
	second := []string{"a", "e", "i", "o", "u"}
	third := []string{"bek", "dan", "fir", "gos", "lin", "mar", "nor", "pol", "rim", "sta", "ton", "vek", "wick", "zen"}
	return draw(random, first) + draw(random, second) + draw(random, third)
}

func draw(random *rand.Rand, list []string) string { return list[random.IntN(len(list))] }

func fill(text string, t town, a int) string {
	text = strings.ReplaceAll(text, "%T", t.name)
	return strings.ReplaceAll(text, "%v", attributes[a].values[t.values[a]])
}

// topics begin a text that goes on with the attribute %a; asides may come
// between.
var (
	topics = []string{
		"This is about the %a of %T.",
		"Much is said of the %a of %T.",
		"Travellers praise the %a of %T.",
		"Of %T people remember the %a.",
		"An old song is about %T and the %a.",
		"The %a of %T is in many books.",
	}
	asides = []string{
		"Many roads lead there.",
		"It is an old town.",
		"The walls are high.",
		"Not everybody knows it.",
	}
)

// text writes plain sentences about one town: some of what it has, in any
// order, each said in one of several ways; as one paragraph or line by line.
func (w *world) text(random *rand.Rand) string {
	t := w.towns[random.IntN(len(w.towns))]
	order := random.Perm(len(attributes))[:1+random.IntN(len(attributes))]
	var sentences []string
	topic := random.IntN(2) == 0
	if topic {
		text := strings.ReplaceAll(draw(random, topics), "%a", attributes[order[0]].name)
		sentences = append(sentences, fill(text, t, order[0]))
		if random.IntN(3) == 0 {
			sentences = append(sentences, draw(random, asides))
		}
	}
	for i, a := range order {
		list := attributes[a].statements
		its, others := list[0], list[1:]
		text := draw(random, others)
		if i > 0 && random.IntN(2) == 0 || i == 0 && topic && random.IntN(4) > 0 {
			text = its
		}
		sentences = append(sentences, fill(text, t, a))
	}
	if random.IntN(3) == 0 {
		return strings.Join(sentences, "\n")
	}
	return strings.Join(sentences, " ")
}

// trainingRows ask about everything that the towns have which are not held
// out, in two of several ways.
func (w *world) trainingRows() []shard.Row {
	random := w.random("training rows")
	var rows []shard.Row
	for _, t := range w.towns[heldOutTowns:] {
		for a := range attributes {
			rows = append(rows, ask(t, a, random, 2)...)
		}
	}
	return rows
}

// heldOutRows ask two things about each of the towns that are held out.
func (w *world) heldOutRows() []shard.Row {
	random := w.random("held-out rows")
	var rows []shard.Row
	for _, t := range w.towns[:heldOutTowns] {
		for _, a := range random.Perm(len(attributes))[:2] {
			rows = append(rows, ask(t, a, random, 1)...)
		}
	}
	return rows
}

// ask returns n different ways to ask a town's attribute.
func ask(t town, a int, random *rand.Rand, n int) []shard.Row {
	at := attributes[a]
	var rows []shard.Row
	for _, way := range random.Perm(len(at.questions) + 1)[:n] {
		row := shard.Row{Instruction: at.task, Input: t.name, Output: fill(at.answer, t, a)}
		if way < len(at.questions) {
			row.Instruction, row.Input = fill(at.questions[way], t, a), ""
		}
		rows = append(rows, row)
	}
	return rows
}
