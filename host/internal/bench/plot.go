//go:build unix

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// chart is a picture of lines over one horizontal axis.
type chart struct {
	title, across, up string
	// even has the horizontal axis in even steps; else each step is ten times the
	// one before.
	even  bool
	lines []line
	// quantities are what the lines show, of one subject or several.
	quantities []string
}

type line struct {
	name   string
	color  string
	dashes string       // "": none
	points [][2]float64 // by the first
}

// The picture's measures in pixels, and the room that axes and legend take. Many
// lines make it higher.
const (
	width, leastHeight           = 800, 400
	left, right, top, underneath = 72, 260, 40, 48
	legend                       = 34 // for each line
)

// dashes tell quantities apart, colours subjects.
var dashes = []string{"", "6 4", "2 3", "10 3 2 3", "14 5", "6 2 2 2 2 2"}

var colors = map[string]string{floorSubject: "#8a8a8a", beforeSubject: "#c77d0a", hostSubject: "#1261c4"}

// plot draws a chart for each unit of a part whose rows go over several points.
func (r *run) plot() error {
	var charts []chart
	byName := make(map[string]int)
	for _, at := range r.rows() {
		name := at.Part + ", " + at.Unit + ", over " + at.Of
		i, ok := byName[name]
		if !ok {
			i = len(charts)
			byName[name] = i
			charts = append(charts, chart{title: at.Part, across: at.Of, up: at.Unit})
		}
		for _, subject := range r.subjects() {
			if value, has := r.median(at, subject); has && at.At > 0 {
				charts[i].add(subject, at.What, float64(at.At), value)
			}
		}
	}
	for _, c := range charts {
		if slices.ContainsFunc(c.lines, func(l line) bool { return len(l.points) > 1 }) {
			if err := r.draw(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// add puts a point on the line of a subject's quantity.
func (c *chart) add(subject, what string, x, y float64) {
	name := subject + ": " + what
	i := slices.IndexFunc(c.lines, func(l line) bool { return l.name == name })
	if i < 0 {
		i = len(c.lines)
		if !slices.Contains(c.quantities, what) {
			c.quantities = append(c.quantities, what)
		}
		c.lines = append(c.lines, line{name: name, color: colors[subject], dashes: dashes[slices.Index(c.quantities, what)%len(dashes)]})
	}
	c.lines[i].points = append(c.lines[i].points, [2]float64{x, y})
	slices.SortFunc(c.lines[i].points, func(a, b [2]float64) int { return cmp.Compare(a[0], b[0]) })
}

// draw writes a chart into the run's folder.
func (r *run) draw(c chart) error {
	name := strings.Map(func(char rune) rune {
		if char >= 'a' && char <= 'z' || char >= 'A' && char <= 'Z' || char >= '0' && char <= '9' {
			return char
		}
		return '-'
	}, c.title+"-"+strings.Trim(c.up, "/")+"-"+c.across)
	return os.WriteFile(filepath.Join(r.out, name+".svg"), c.svg(r.machine.String()), 0o644)
}

// svg draws the chart, with a line of small text at the bottom.
func (c chart) svg(under string) []byte {
	minX, maxX, maxY := math.Inf(1), math.Inf(-1), 0.0
	for _, l := range c.lines {
		for _, p := range l.points {
			minX, maxX, maxY = min(minX, p[0]), max(maxX, p[0]), max(maxY, p[1])
		}
	}
	height := max(leastHeight, top+legend*len(c.lines)+underneath)
	scale := math.Log10
	if c.even {
		scale = func(x float64) float64 { return x }
	}
	step := niceStep(maxY)
	maxY = max(step, math.Ceil(maxY/step)*step)
	x := func(v float64) float64 {
		if maxX == minX {
			return left
		}
		return left + (scale(v)-scale(minX))/(scale(maxX)-scale(minX))*(width-left-right)
	}
	y := func(v float64) float64 { return float64(height-underneath) - v/maxY*float64(height-top-underneath) }

	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	text(left, top-18, "start", c.title+": "+c.up)
	for v := 0.0; v <= maxY+step/2; v += step {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/>`+"\n", left, y(v), width-right)
		text(left-6, y(v)+4, "end", tick(v))
	}
	for _, v := range c.marks(maxX) {
		text(x(v), float64(height-underneath+18), "middle", tick(v))
	}
	text(width-right+24, float64(height-underneath+18), "start", c.across)
	for i, l := range c.lines {
		dash := ""
		if l.dashes != "" {
			dash = ` stroke-dasharray="` + l.dashes + `"`
		}
		var points []string
		for _, p := range l.points {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(p[0]), y(p[1])))
			if !c.even {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(p[0]), y(p[1]), l.color)
			}
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"%s/>`+"\n", strings.Join(points, " "), l.color, dash)
		at := float64(top + legend*i)
		fmt.Fprintf(&b, `<path d="M%d %.0fh20" stroke="%s" stroke-width="2"%s/>`+"\n", width-right+8, at, l.color, dash)
		subject, what, _ := strings.Cut(l.name, ": ")
		text(width-right+34, at+4, "start", subject)
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" font-size="10">%s</text>`+"\n", width-right+34, at+16, html.EscapeString(what))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="10" fill="#666">%s</text>`+"\n</svg>\n", left, height-8, html.EscapeString(under))
	return b.Bytes()
}

// marks are the places of the horizontal axis that have a number.
func (c chart) marks(highest float64) (marks []float64) {
	if c.even {
		step := niceStep(highest)
		for v := 0.0; v <= highest; v += step {
			marks = append(marks, v)
		}
		return marks
	}
	for _, l := range c.lines {
		for _, p := range l.points {
			if !slices.Contains(marks, p[0]) {
				marks = append(marks, p[0])
			}
		}
	}
	return marks
}

// niceStep divides an axis into four to ten parts by round numbers.
func niceStep(highest float64) float64 {
	if highest <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(highest)))
	switch first := highest / power; {
	case first < 2:
		return power / 5
	case first < 5:
		return power / 2
	}
	return power
}

// tick is a number at an axis.
func tick(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%gk", math.Round(v/100)/10)
	}
	return fmt.Sprintf("%g", math.Round(v*1000)/1000)
}
