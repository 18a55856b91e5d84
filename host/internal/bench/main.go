// Bench measures the way of an event from a plugin to a page, and prints it
// beside a floor measured in the same run: the same plugin process, stream and
// sockets with no journal and no session logic between them.
//
// Usage, from the root of the repository after "make build":
//
//	go run ./host/internal/bench [-sockets 1000] [-rounds 3]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/deskhost/deskhost/host/internal/process"
)

func main() {
	process.Become()
	sockets := flag.Int("sockets", 1000, "sockets, one chat each")
	rounds := flag.Int("rounds", 3, "rounds; medians are printed")
	events := flag.Int("events", 100, "events a chat when measuring throughput")
	rate := flag.Int("rate", 5000, "events a second when measuring latency")
	seconds := flag.Int("seconds", 5, "how long latency is measured")
	binary := flag.String("deskhost", filepath.Join("bin", "deskhost"), "the host")
	floor := flag.String("floor", "", "run as the floor's host, with this folder for its files")
	flag.Parse()
	if *floor != "" {
		exit(runFloor(*floor))
	}
	b := bench{
		sockets: *sockets, rounds: *rounds, binary: *binary,
		flood:  command{Events: *events},
		steady: command{Events: *rate * *seconds / *sockets, Rate: *rate},
	}
	exit(b.run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// command is what the bench plugin takes as a user's message.
type command struct {
	Events int `json:"events"`
	Rate   int `json:"rate"`
}

func (c command) text() string {
	text, _ := json.Marshal(c) // two numbers always encode
	return string(text)
}

type bench struct {
	sockets, rounds int
	binary          string
	flood, steady   command
}

// figures are the results of one path, one of each a round.
type figures struct {
	perSecond []float64
	p50, p99  []time.Duration
}

func (b *bench) run() error {
	dir, err := os.MkdirTemp("", "deskhost-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	host, err := startHost(dir, b.binary)
	if err != nil {
		return err
	}
	defer host.stop()
	floor, err := startFloor(dir)
	if err != nil {
		return err
	}
	defer floor.stop()
	full, err := host.open(b.sockets)
	if err != nil {
		return err
	}
	bare, err := floor.open(b.sockets)
	if err != nil {
		return err
	}
	var results [2]figures
	for round := range b.rounds {
		for i, path := range []*path{bare, full} {
			f := &results[i]
			took, _, err := path.measure(b.flood)
			if err != nil {
				return err
			}
			f.perSecond = append(f.perSecond, float64(b.sockets*b.flood.Events)/took.Seconds())
			_, delays, err := path.measure(b.steady)
			if err != nil {
				return err
			}
			f.p50 = append(f.p50, delays[len(delays)/2])
			f.p99 = append(f.p99, delays[len(delays)*99/100])
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, b.rounds)
	}
	b.print(results[0], results[1])
	return nil
}

func median[T float64 | time.Duration](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

func (b *bench) print(floor, host figures) {
	fmt.Printf("desk event -> plugin -> host -> durable -> WebSocket; %d sockets, medians of %d rounds\n\n", b.sockets, b.rounds)
	fmt.Printf("%-34s %12s %12s %8s\n", "", "floor", "deskhost", "ratio")
	a, c := median(floor.perSecond), median(host.perSecond)
	fmt.Printf("%-34s %12.0f %12.0f %8.2f\n", "events a second, as fast as it goes", a, c, c/a)
	for _, row := range []struct {
		name        string
		floor, host []time.Duration
	}{{"p50", floor.p50, host.p50}, {"p99", floor.p99, host.p99}} {
		a, c := median(row.floor), median(row.host)
		fmt.Printf("%-34s %12s %12s %8.2f\n", fmt.Sprintf("%s at %d/s", row.name, b.steady.Rate),
			a.Round(10*time.Microsecond), c.Round(10*time.Microsecond), float64(c)/float64(a))
	}
}
