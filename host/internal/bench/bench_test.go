//go:build unix

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

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

func TestTableHasAColumnForTheBuildBefore(t *testing.T) {
	t.Parallel()
	at := row{What: "p50", At: 500, Of: "events/s", Unit: "ms", Aim: "floor + 1"}
	r := &run{part: "events"}
	for subject, value := range map[string]float64{floorSubject: 2, beforeSubject: 123.4, hostSubject: 3} {
		r.note(at, subject, 0, value)
	}
	r.note(row{What: "of the host alone", Unit: "MiB"}, hostSubject, 0, 12.34)
	r.before = "old"
	want := [][]string{
		{"part", "measurement", "unit", "floor", "before", "deskhost", "ratio", "aim"},
		{"events", "p50, 500 events/s", "ms", "2.00", "123", "3.00", "1.50", "floor + 1"},
		{"events", "of the host alone", "MiB", "", "", "12.3", "", ""},
	}
	if got := r.table(); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q, want %q", got, want)
	}
	var text strings.Builder
	if err := r.printMarkdown(&text, r.table()); err != nil {
		t.Fatal(err)
	}
	if want := "|---|---|---|--:|--:|--:|--:|---|\n| events | p50, 500 events/s | ms | 2.00 | 123 | 3.00 | 1.50 | floor + 1 |\n"; !strings.Contains(text.String(), want) {
		t.Errorf("the table is\n%s", text.String())
	}
}

func TestGrowthIsHeldToItsLeastNumber(t *testing.T) {
	t.Parallel()
	r := &run{part: "growth"}
	m := &growth{chats: []int{1000, 10_000}, sessions: []int{10_000, 100_000}}
	chats := row{What: "hand-over", At: 1000, Of: "chats", Unit: "ms", Aim: linear}
	sessions := row{What: "host killed", At: 10_000, Of: "sessions", Unit: "ms", Aim: noSlower}
	for _, at := range []*row{&chats, &sessions} {
		for _, value := range []float64{5, 7, 6} {
			r.note(*at, beforeSubject, 0, 1)
			r.note(*at, hostSubject, 0, value)
		}
		at.At *= 10
		r.note(*at, hostSubject, 0, 50)
	}
	m.expect(r)
	chats.Part, sessions.Part = r.part, r.part
	for at, want := range map[row]float64{chats: 60, sessions: 6} {
		if got, _ := r.median(at, floorSubject); got != want {
			t.Errorf("%s: %v is expected, want %v", at.name(), got, want)
		}
	}
}

func TestProcessesAreLaunchedAndAbandoned(t *testing.T) {
	t.Parallel()
	r := &run{dir: filepath.Join(t.TempDir(), "run")}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := r.launch(hostSubject, r.dir, "sh", "-c", "echo no address; echo the reason >&2"); err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("a program that does not start: %v", err)
	}
	s, err := r.launch(hostSubject, r.dir, "sh", "-c", "echo widgets at http://127.0.0.1:1, operators at http://127.0.0.1:2; exec sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	if s.url != "http://127.0.0.1:1" || s.admin != "http://127.0.0.1:2" {
		t.Errorf("it is at %s and %s", s.url, s.admin)
	}
	r.abandon()
	if err := s.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process ends with %v", err)
	}
	if _, err := os.Stat(r.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its files are there: %v", err)
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
	if c.lines[1].color != c.lines[2].color || c.lines[1].dashes == c.lines[2].dashes || c.lines[0].dashes != c.lines[1].dashes {
		t.Errorf("p50 of the floor and of the host, and p99 of the host are drawn as %+v", c.lines)
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
