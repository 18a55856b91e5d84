//go:build unix

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"slices"
	"testing"
)

func TestBenchmarksAreRead(t *testing.T) {
	t.Parallel()
	got, err := parseResults("goos: linux\n" +
		"BenchmarkHandOver/1000-2      \t       1\t         0 ns/op\t       278.2 ms-to-all-moved\t        77.65 ms-to-ready\n" +
		"BenchmarkDay \t       1\t      1456 answers-in-the-day\nPASS\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []result{
		{"HandOver", 1000, []metric{{278.2, "ms", "to all moved"}, {77.65, "ms", "to ready"}}},
		{"Day", 0, []metric{{1456, "answers", "in the day"}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := words("HostWithSessionsKilled"); got != "host with sessions killed" {
		t.Errorf("got %q", got)
	}
	if _, err := parseResults("BenchmarkDay \t       1\tmany answers\n"); err == nil {
		t.Error("a figure that is none was taken")
	}
}

func TestMediansAreOfOneRowAndSubject(t *testing.T) {
	t.Parallel()
	r, at := new(run), row{What: "p50", At: 500, Of: "events/s"}
	other := at
	other.At = 5000
	for _, v := range []float64{3, 1, 2, 10} {
		r.samples = append(r.samples, sample{at, hostSubject, 0, v}, sample{at, floorSubject, 0, 100 * v}, sample{other, hostSubject, 0, 1000 * v})
	}
	if got, has := r.median(at, hostSubject); !has || got != 2.5 {
		t.Errorf("got %v", got)
	}
	if _, has := r.median(at, beforeSubject); has {
		t.Error("there is a median of nothing")
	}
	if got := r.rows(); !slices.Equal(got, []row{at, other}) {
		t.Errorf("got %+v", got)
	}
}

// TestChartsAreWhole holds that each point and each line of a chart is drawn, in
// XML that browsers read.
func TestChartsAreWhole(t *testing.T) {
	t.Parallel()
	c := chart{title: "a <b> & c", up: "ms", across: "chats"}
	for i, x := range []float64{1000, 10, 100} {
		c.add(floorSubject, "p50", x, float64(i))
		c.add(hostSubject, "p50", x, 0)
		c.add(hostSubject, "p99", x, 7)
	}
	if got := c.lines[0].points; !slices.Equal(got, [][2]float64{{10, 1}, {100, 2}, {1000, 0}}) {
		t.Errorf("the points are %v", got)
	}
	if c.lines[1].color != c.lines[2].color || c.lines[1].dashes == c.lines[2].dashes {
		t.Errorf("the lines of one subject are %+v", c.lines[1:])
	}
	count := make(map[string]int)
	for d := xml.NewDecoder(bytes.NewReader(c.svg("under"))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			count[start.Name.Local]++
		}
	}
	if count["polyline"] != 3 || count["circle"] != 9 {
		t.Errorf("the chart has %v", count)
	}
}

func TestNumbersOfAFlag(t *testing.T) {
	t.Parallel()
	var l ints
	if err := l.Set("1,64,1000"); err != nil || !slices.Equal(l, ints{1, 64, 1000}) || l.String() != "1,64,1000" {
		t.Errorf("got %v, %v", &l, err)
	}
	for _, wrong := range []string{"", "0", "1,", "x", "-2"} {
		if l.Set(wrong) == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
}
