//go:build unix

// Bench is the project's dashboard of speed: each measurement is taken beside a
// floor in the same run, in turns, and printed as a ratio to it. The floor is
// the least that could do the same: the same plugin process, stream and sockets
// with no journal and no session logic, or bare go-plugin. docs/performance.md
// explains the rows.
//
// It owns the processes that it starts, and what it writes into its folder. It
// reaches the host as users and operators do, knows nothing of its insides, and
// borrows its packages desk, catalog and process for the floor only. "make bench"
// calls it, from the root of the repository after "make build":
//
//	go run ./host/internal/bench [-only events,messages] [-before OLD/deskhost]
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// measurement is one part of the dashboard.
type measurement interface {
	// measure notes samples of the floor and of each build of the host, in turns.
	measure(r *run) error
}

func main() {
	only := flag.String("only", "", "`parts` to measure, as in \"events,messages\" (default: all)")
	rounds := flag.Int("rounds", 3, "rounds; medians are printed")
	binary := flag.String("deskhost", filepath.Join("bin", "deskhost"), "the host's `file`")
	before := flag.String("before", "", "another build's `file`, measured in turns with the host")
	out := flag.String("out", filepath.Join("bin", "bench"), "`folder` for samples, table and plots")
	floor := flag.String("floor", "", "run as the floor's host, with this `folder` for its files")
	sockets := ints{1000, 9000}
	flag.Var(&sockets, "sockets", "events: how many `sockets`, one chat each")
	rates := ints{500, 5000, 20_000}
	flag.Var(&rates, "rates", "events: `events` a second at which latency is measured, over the first of the sockets")
	flood := flag.Int("flood", 100_000, "events: about how many `events` throughput is measured with")
	seconds := flag.Int("seconds", 3, "events, messages: how long each rate or number of callers is measured")
	callers := ints{1, 64, 1000}
	flag.Var(&callers, "callers", "messages: how many `callers` at a time")
	connected := flag.Int("connected", 9000, "memory: idle `sessions` with a socket")
	left := flag.Int("left", 20_000, "memory: idle `sessions` in the journal, without one")
	open := flag.Int("open", 1000, "adapters: open `chats` of each")
	starts := flag.Int("starts", 7, "start: `starts` of a plugin in a round")
	desks := flag.Int("desks", 5, "desks: `desks` beside the first")
	chats := ints{1000, 10_000}
	flag.Var(&chats, "chats", "growth: `chats` that are open")
	sessions := ints{10_000, 100_000}
	flag.Var(&sessions, "sessions", "growth: `sessions`, 1,000 of them with an open chat")
	users := flag.Int("users", 1000, "upgrade: `users` who talk meanwhile")
	day := flag.Duration("day", 2*time.Minute, "day: how long it is")
	talk := flag.Duration("talk", 10*time.Second, "day: how long a chat takes")
	agents := flag.Int("agents", 10_000, "day: `agents`, to each of whom a chat comes in ten minutes at its peak")
	flag.Parse()
	if *floor != "" {
		exit(runFloor(*floor))
	}
	parts := []struct {
		name string
		measurement
	}{
		{"events", &events{sockets, rates, *flood, *seconds}},
		{"messages", &messages{callers, time.Duration(*seconds) * time.Second}},
		{"memory", &memory{*connected, *left}},
		{"adapters", &adapters{*open}},
		{"start", &starting{*starts}},
		{"desks", &moreDesks{*desks}},
		{"growth", &growth{chats, sessions}},
		{"upgrade", &upgrade{*users}},
		{"day", &dayInSmall{*day, *talk, *agents}},
	}
	var wanted []string
	for _, p := range parts {
		wanted = append(wanted, p.name)
	}
	if *only != "" {
		all := wanted
		wanted = strings.Split(*only, ",")
		for _, name := range wanted {
			if !slices.Contains(all, name) {
				exit(fmt.Errorf("there is no part %q; there are %s", name, strings.Join(all, ", ")))
			}
		}
	}
	r, err := newRun(*binary, *before, *out, *rounds)
	if err != nil {
		exit(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the bench
		told := <-signals
		r.abandon()
		exit(fmt.Errorf("ended by %s before all was measured; samples so far are in %s", told, *out))
	}()
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format(time.TimeOnly), p.name)
		r.part = p.name
		if err := p.measure(r); err != nil {
			exit(errors.Join(fmt.Errorf("%s: %w", p.name, err), r.close()))
		}
	}
	exit(r.close())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// ints is a flag of whole numbers greater than 0, with commas between them.
type ints []int

func (l *ints) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(*l), " ", ","), "[]")
}

func (l *ints) Set(text string) error {
	*l = nil
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a number greater than 0", word)
		}
		*l = append(*l, n)
	}
	return nil
}
