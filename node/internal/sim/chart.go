package sim

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Chart is a picture of a result: lines over one axis.
type Chart struct {
	Name        string // of the file
	Title, X, Y string
	LogX        bool
	Lines       []Line
}

// Line is one of a chart.
type Line struct {
	Name   string
	Points []Point
}

// Point is one of a line.
type Point struct{ X, Y float64 }

const (
	chartWidth, chartHeight  = 720, 420
	left, right, top, bottom = 70, 170, 40, 50
	plotWidth, plotHeight    = chartWidth - left - right, chartHeight - top - bottom
	ticks                    = 5
	emptyLow, emptyHigh      = 0.0, 1.0
	chartFont                = `font-family="sans-serif" font-size="12"`
)

// lineStyles tell lines apart also without colour.
var lineStyles = [...]string{
	`stroke="#1b6ca8"`, `stroke="#c0392b" stroke-dasharray="6 3"`, `stroke="#27824f" stroke-dasharray="2 3"`,
	`stroke="#8e44ad" stroke-dasharray="8 3 2 3"`, `stroke="#b9770e"`, `stroke="#333333" stroke-dasharray="6 3"`,
}

// SVG draws the chart.
func (c *Chart) SVG() string {
	x, y := newAxis(c.LogX), newAxis(false)
	for _, l := range c.Lines {
		for _, p := range l.Points {
			if finite(p.X) && finite(p.Y) {
				x.include(p.X)
				y.include(p.Y)
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" %s>`+"\n", chartWidth, chartHeight, chartFont)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", chartWidth, chartHeight)
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="15">%s</text>`+"\n", left, html.EscapeString(c.Title))
	for i := range ticks + 1 {
		part := float64(i) / ticks
		px, py := left+part*plotWidth, top+(1-part)*plotHeight
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#dddddd"/>`, px, top, px, top+plotHeight)
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#dddddd"/>`+"\n", left, py, left+plotWidth, py)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, px, top+plotHeight+18, number(x.value(part)))
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left-6, py+4, number(y.value(part)))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", left+plotWidth/2, chartHeight-12, html.EscapeString(c.X))
	fmt.Fprintf(&b, `<text x="14" y="%d" transform="rotate(-90 14 %d)" text-anchor="middle">%s</text>`+"\n",
		top+plotHeight/2, top+plotHeight/2, html.EscapeString(c.Y))
	for i, l := range c.Lines {
		style := lineStyles[i%len(lineStyles)]
		var points []string
		for _, p := range l.Points {
			if finite(p.X) && finite(p.Y) {
				points = append(points, fmt.Sprintf("%.1f,%.1f", left+x.part(p.X)*plotWidth, top+(1-y.part(p.Y))*plotHeight))
			}
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke-width="2" %s/>`+"\n", strings.Join(points, " "), style)
		ly := top + 10 + 20*i
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke-width="2" %s/>`, chartWidth-right+12, ly, chartWidth-right+40, ly, style)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`+"\n", chartWidth-right+46, ly+4, html.EscapeString(l.Name))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// axis maps values to parts of its length.
type axis struct {
	low, high float64
	log       bool
}

func newAxis(log bool) *axis { return &axis{math.Inf(1), math.Inf(-1), log} }

func (a *axis) include(v float64) { a.low, a.high = min(a.low, v), max(a.high, v) }

func (a *axis) ends() (low, high float64) {
	low, high = a.low, a.high
	if low > high {
		low, high = emptyLow, emptyHigh
	}
	if a.log {
		low, high = math.Log(max(low, 1e-9)), math.Log(max(high, 1e-9))
	}
	if low == high {
		high = low + 1
	}
	return low, high
}

func (a *axis) part(v float64) float64 {
	low, high := a.ends()
	if a.log {
		v = math.Log(max(v, 1e-9))
	}
	return (v - low) / (high - low)
}

func (a *axis) value(part float64) float64 {
	low, high := a.ends()
	v := low + part*(high-low)
	if a.log {
		return math.Exp(v)
	}
	return v
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func number(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
