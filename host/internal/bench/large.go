//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// growth measures hand-overs and crashes with more and more chats, and with
// more and more sessions beside a thousand chats. There is no floor: in its
// column stands the least number's figure in proportion, or unchanged where the
// number must not matter. A ratio of 1 is what is aimed at.
type growth struct {
	chats, sessions []int
}

// linear is the aim that a cost grows with the number.
const linear = "linear"

func (m *growth) measure(r *run) error {
	if err := m.grow(r, "HandOver|PluginKilled|HostKilled", m.chats, "chats", linear); err != nil {
		return err
	}
	return m.grow(r, "HostWithSessionsKilled", m.sessions, "sessions", "no slower")
}

func (m *growth) grow(r *run, benchmarks string, sizes []int, of, aim string) error {
	names := make([]string, len(sizes))
	for i, n := range sizes {
		names[i] = strconv.Itoa(n)
	}
	found, err := goBench("^Benchmark("+benchmarks+")$/^("+strings.Join(names, "|")+")$", time.Hour)
	if err != nil {
		return err
	}
	if want := (1 + strings.Count(benchmarks, "|")) * len(sizes); len(found) != want {
		return fmt.Errorf("%d results came of the %d benchmarks of e2e named %s, with %s %s", len(found), want, benchmarks, strings.Join(names, ", "), of)
	}
	type point struct {
		value float64
		size  int
	}
	least := make(map[string]point)
	for _, b := range found {
		for _, v := range b.metrics {
			at := row{What: words(b.name) + ": " + v.what, At: b.size, Of: of, Unit: v.unit}
			first, ok := least[at.What]
			if !ok {
				first = point{v.value, b.size}
				least[at.What] = first
			}
			// A plugin is ready before it has chats, a host has read its own by then.
			if v.unit == "ms" && (strings.HasPrefix(b.name, "Host") || strings.Contains(v.what, "all")) {
				at.Aim = aim
				expected := first.value
				if aim == linear {
					expected *= float64(b.size) / float64(first.size)
				}
				r.note(at, floorSubject, 0, expected)
			}
			r.note(at, hostSubject, 0, v.value)
		}
	}
	return nil
}

// dayInSmall is e2e's day of a contact centre.
type dayInSmall struct {
	length, talk time.Duration
	agents       int
}

func (m *dayInSmall) measure(r *run) error {
	dir, err := r.folder()
	if err != nil {
		return err
	}
	series := filepath.Join(dir, "day.jsonl")
	found, err := goBench("^BenchmarkDay$", m.length+m.talk+10*time.Minute,
		"-day", m.length.String(), "-talk", m.talk.String(), "-agents", strconv.Itoa(m.agents), "-series", series)
	if err != nil {
		return err
	}
	for _, b := range found {
		for _, v := range b.metrics {
			r.note(row{What: v.what, Unit: v.unit}, hostSubject, 0, v.value)
		}
	}
	text, err := os.ReadFile(series)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.out, "day.jsonl"), text, 0o644); err != nil {
		return err
	}
	return r.drawDay(text)
}

// drawDay draws the day second by second.
func (r *run) drawDay(series []byte) error {
	charts := []struct{ member, unit string }{
		{"open_chats", "open chats"}, {"answers", "answers a second"}, {"p99_ms", "p99 of answers in ms"},
		{"cores", "cores of host and plugin"}, {"mib", "MiB of host and plugin"},
	}
	lines := make([][][2]float64, len(charts))
	for text := range bytes.Lines(series) {
		var second map[string]float64
		if err := json.Unmarshal(text, &second); err != nil {
			return err
		}
		for i, c := range charts {
			lines[i] = append(lines[i], [2]float64{second["second"], second[c.member]})
		}
	}
	for i, c := range charts {
		err := r.draw(chart{
			title: "day", up: c.unit, across: "seconds", even: true,
			lines: []line{{name: hostSubject + ": " + c.unit, color: colors[hostSubject], points: lines[i]}},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// result is what a Go benchmark has reported.
type result struct {
	name    string
	size    int // 0 unless it is named after one
	metrics []metric
}

// metric is a figure of a benchmark, such as 12 ms-to-ready.
type metric struct {
	value      float64
	unit, what string
}

var resultForm = regexp.MustCompile(`(?m)^Benchmark(\w+)(?:/(\d+))?(?:-\d+)?\s+1\t(.*)$`)

// goBench runs benchmarks of e2e once, which build the host themselves.
func goBench(pattern string, timeout time.Duration, args ...string) ([]result, error) {
	cmd := exec.Command("go", append([]string{
		"test", "-run", "^$", "-bench", pattern, "-benchtime", "1x", "-timeout", timeout.String(), "./host/internal/e2e", "-args",
	}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmarks %s: %w\n%s", pattern, err, out)
	}
	results, err := parseResults(string(out))
	if err == nil && len(results) == 0 {
		err = fmt.Errorf("no benchmark %s has reported:\n%s", pattern, out)
	}
	return results, err
}

// parseResults reads what go test prints of benchmarks that ran once.
func parseResults(out string) (results []result, err error) {
	for _, found := range resultForm.FindAllStringSubmatch(out, -1) {
		b := result{name: found[1]}
		b.size, _ = strconv.Atoi(found[2]) // "" is none
		for field := range strings.SplitSeq(found[3], "\t") {
			number, name, _ := strings.Cut(strings.TrimSpace(field), " ")
			value, err := strconv.ParseFloat(number, 64)
			if err != nil {
				return nil, fmt.Errorf("benchmark %s reports %q: %w", b.name, field, err)
			}
			if name == "ns/op" {
				continue
			}
			unit, what, _ := strings.Cut(name, "-")
			b.metrics = append(b.metrics, metric{value, unit, strings.ReplaceAll(what, "-", " ")})
		}
		results = append(results, b)
	}
	return results, nil
}

// words takes a benchmark's name apart.
func words(name string) string {
	var b strings.Builder
	for i, char := range name {
		if unicode.IsUpper(char) && i > 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(char))
	}
	return b.String()
}
