package judge

import (
	"bytes"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"strings"
	"unicode"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// canvas is what a chart is drawn on. Lengths are in pixels.
type canvas interface {
	rect(x, y, w, h float64, c color.RGBA)
	text(x, y, size float64, anchor anchor, c color.RGBA, s string) // y is the base line
}

// anchor is which end of a text is at its x.
type anchor int

const (
	start anchor = iota
	middle
	end
)

// The colours can be told apart by people who see no red or green (Okabe and
// Ito), and in grey.
var (
	paper     = color.RGBA{255, 255, 255, 255}
	ink       = color.RGBA{34, 34, 34, 255}
	faint     = color.RGBA{222, 222, 222, 255}
	bar       = color.RGBA{0, 114, 178, 255}
	reference = color.RGBA{150, 150, 150, 255}
)

const (
	chartHeight = 460
	left        = 64 // of the plot
	top         = 72
	plotHeight  = 300
	barWidth    = 72
	barPitch    = 128
)

func (r Result) width() int { return left + max(barPitch*(len(r.Candidates)+1), 480) + 24 }

// draw draws the relative scores as bars, the reference at 100 %, with their
// intervals.
func (r Result) draw(c canvas) {
	width := float64(r.width())
	c.rect(0, 0, width, chartHeight, paper)
	c.text(left, 28, 18, start, ink, fmt.Sprintf("Points relative to %s", name(r.Reference)))
	c.text(left, 50, 13, start, ink, fmt.Sprintf("%s · judge %s, both orders · 95 %% bootstrap interval", count(r.Questions, "question"), name(r.Judge)))

	highest := 1.0
	for _, s := range r.Candidates {
		if s.Relative != nil {
			highest = max(highest, s.Relative.Value, s.Relative.High)
		}
	}
	step := 0.2
	if highest > 2 {
		step = math.Ceil(highest) / 5
	}
	highest = math.Ceil(highest/step-1e-9) * step
	y := func(v float64) float64 { return top + plotHeight*(1-v/highest) }
	for v := 0.0; v <= highest+1e-9; v += step {
		c.rect(left, y(v), width-left-24, 1, faint)
		c.text(left-8, y(v)+4, 12, end, ink, fmt.Sprintf("%.0f %%", 100*v))
	}
	one := func(i int, label string, v *Interval, colour color.RGBA, under string) {
		x := left + float64(i)*barPitch + (barPitch-barWidth)/2
		c.text(x+barWidth/2, y(0)+20, 13, middle, ink, name(label))
		if v == nil {
			c.text(x+barWidth/2, y(0)-6, 14, middle, ink, "no points")
			return
		}
		c.rect(x, y(v.Value), barWidth, y(0)-y(v.Value), colour)
		above := y(v.Value)
		if v.High > v.Low {
			mid := x + barWidth/2
			c.rect(mid-1, y(v.High), 2, y(v.Low)-y(v.High), ink)
			c.rect(mid-8, y(v.High), 16, 2, ink)
			c.rect(mid-8, y(v.Low)-1, 16, 2, ink)
			above = y(v.High)
		}
		c.text(x+barWidth/2, above-6, 14, middle, ink, fmt.Sprintf("%.0f %%", 100*v.Value))
		c.text(x+barWidth/2, y(0)+38, 11, middle, ink, under)
	}
	for i, s := range r.Candidates {
		one(i, s.Name, s.Relative, bar, fmt.Sprintf("%d won, %d lost", s.Wins, s.Losses))
	}
	one(len(r.Candidates), r.Reference, &Interval{Value: 1}, reference, "reference")
	c.rect(left, y(0), width-left-24, 1, ink)
	c.text(left, chartHeight-14, 11, start, ink, "A language model's opinion. Judges favour long answers and their own kind.")
}

// name is a name as it fits under a bar, without what could turn the text
// around it.
func name(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || unicode.In(r, unicode.Cf) {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 18 {
		return string(r[:17]) + "…"
	}
	return s
}

func count(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}

// SVG returns the chart as a picture of lines and text.
func (r Result) SVG() []byte {
	var c svg
	fmt.Fprintf(&c, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" font-family="sans-serif">`+"\n",
		r.width(), chartHeight, r.width(), chartHeight)
	fmt.Fprintf(&c, "<title>%s</title>\n", html.EscapeString(r.alt()))
	r.draw(&c)
	c.WriteString("</svg>\n")
	return c.Bytes()
}

// alt says in words what the chart shows.
func (r Result) alt() string {
	var parts []string
	for _, s := range r.Candidates {
		if s.Relative == nil {
			parts = append(parts, name(s.Name)+" no points")
			continue
		}
		parts = append(parts, fmt.Sprintf("%s %.0f %% (%.0f to %.0f)", name(s.Name), 100*s.Relative.Value, 100*s.Relative.Low, 100*s.Relative.High))
	}
	return fmt.Sprintf("Points relative to %s: %s", name(r.Reference), strings.Join(parts, ", "))
}

type svg struct{ bytes.Buffer }

func web(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

func (s *svg) rect(x, y, w, h float64, c color.RGBA) {
	fmt.Fprintf(s, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, w, h, web(c))
}

func (s *svg) text(x, y, size float64, a anchor, c color.RGBA, text string) {
	fmt.Fprintf(s, `<text x="%.1f" y="%.1f" font-size="%.0f" text-anchor="%s" fill="%s">%s</text>`+"\n",
		x, y, size, [...]string{"start", "middle", "end"}[a], web(c), html.EscapeString(text))
}

// PNG returns the chart as pixels, twice as many each way as the SVG's.
func (r Result) PNG() ([]byte, error) {
	face, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return nil, err
	}
	c := &pixels{image.NewRGBA(image.Rect(0, 0, pixelScale*r.width(), pixelScale*chartHeight)), face, nil}
	r.draw(c)
	if c.err != nil {
		return nil, c.err
	}
	var b bytes.Buffer
	if err := png.Encode(&b, c.image); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

const pixelScale = 2

type pixels struct {
	image *image.RGBA
	font  *opentype.Font
	err   error
}

func (p *pixels) rect(x, y, w, h float64, c color.RGBA) {
	at := func(v float64) int { return int(math.Round(v * pixelScale)) }
	draw.Draw(p.image, image.Rect(at(x), at(y), at(x+w), at(y+h)), image.NewUniform(c), image.Point{}, draw.Src)
}

func (p *pixels) text(x, y, size float64, a anchor, c color.RGBA, s string) {
	face, err := opentype.NewFace(p.font, &opentype.FaceOptions{Size: size * pixelScale, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		p.err = err
		return
	}
	defer face.Close()
	d := font.Drawer{Dst: p.image, Src: image.NewUniform(c), Face: face}
	dot := fixed.Int26_6(x * pixelScale * 64)
	switch a {
	case middle:
		dot -= d.MeasureString(s) / 2
	case end:
		dot -= d.MeasureString(s)
	}
	d.Dot = fixed.Point26_6{X: dot, Y: fixed.Int26_6(y * pixelScale * 64)}
	d.DrawString(s)
}
