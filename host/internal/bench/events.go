//go:build unix

package main

import (
	"fmt"
	"time"

	"github.com/deskhost/deskhost/host/internal/bench/usage"
)

// events measures the way of an event: desk, plugin, host, disk, WebSocket.
type events struct {
	sockets []int
	// rates are those at which latency is measured, in events a second.
	rates   []int
	flood   int
	seconds int
}

func (m *events) measure(r *run) error {
	for i, sockets := range m.sockets {
		var rates []int
		if i == 0 {
			rates = m.rates
		}
		if err := m.over(r, sockets, rates); err != nil {
			return fmt.Errorf("%d sockets: %w", sockets, err)
		}
	}
	return nil
}

// over measures over so many sockets, throughput first.
func (m *events) over(r *run, sockets int, rates []int) error {
	subjects, err := r.start(sockets)
	if err != nil {
		return err
	}
	defer stopAll(subjects)
	paths := make([]*path, len(subjects))
	for i, s := range subjects {
		if paths[i], err = s.open(sockets); err != nil {
			return err
		}
	}
	for round := range r.rounds {
		for i, s := range subjects {
			c := command{Events: max(1, m.flood/sockets)}
			took, _, cpu, err := paths[i].measureWithCPU(c, s)
			if err != nil {
				return err
			}
			all := float64(c.Events * sockets)
			r.note(row{What: "events a second, as fast as it goes", At: sockets, Of: "sockets", Unit: "/s", Aim: "0.7 x floor"},
				s.subject, round, all/took.Seconds())
			r.note(row{What: "processor time of 1,000 events", At: sockets, Of: "sockets", Unit: "CPU-ms"}, s.subject, round, 1000*milliseconds(cpu)/all)
		}
		for _, rate := range rates {
			for i, s := range subjects {
				c := command{Events: max(1, rate*m.seconds/sockets), Rate: rate}
				_, delays, cpu, err := paths[i].measureWithCPU(c, s)
				if err != nil {
					return err
				}
				at := row{What: "p50", At: rate, Of: "events/s", Unit: "ms"}
				if rate == 5000 {
					at.Aim = "floor + 0.6 ms"
				}
				r.note(at, s.subject, round, milliseconds(delays[len(delays)/2]))
				at.What = "p99"
				if rate == 5000 {
					at.Aim = "floor + 2 ms"
				}
				r.note(at, s.subject, round, milliseconds(delays[len(delays)*99/100]))
				r.note(row{What: "processor time of 1,000 events", At: rate, Of: "events/s", Unit: "CPU-ms"},
					s.subject, round, 1000*milliseconds(cpu)/float64(c.Events*sockets))
			}
		}
	}
	return nil
}

// measureWithCPU also tells what the server and its plugin took of the
// processors: a figure that a busy machine changes little.
func (p *path) measureWithCPU(c command, s *server) (took time.Duration, delays []time.Duration, cpu time.Duration, err error) {
	before := s.cpu()
	took, delays, err = p.measure(c)
	return took, delays, s.cpu() - before, err
}

// cpu is the processor time that a server and its plugins have used so far.
func (s *server) cpu() (d time.Duration) {
	for _, pid := range usage.Family(s.cmd.Process.Pid) {
		d += usage.CPU(pid)
	}
	return d
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
