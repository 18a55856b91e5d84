//go:build unix

package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// messages measures the way of a user's message up to the answer that the
// plugin has taken it. The floor has the POST and the call of the plugin.
type messages struct {
	callers []int
	during  time.Duration
}

func (m *messages) measure(r *run) error {
	most := slices.Max(m.callers)
	subjects, err := r.start(most)
	if err != nil {
		return err
	}
	defer stopAll(subjects)
	senders := make([][]sender, len(subjects))
	for i, s := range subjects {
		if senders[i], err = s.chats(most); err != nil {
			return err
		}
	}
	for round := range r.rounds {
		for _, callers := range m.callers {
			for i, s := range subjects {
				before := s.cpu()
				took, delays, err := sendFrom(senders[i][:callers], m.during)
				if err != nil {
					return fmt.Errorf("%d callers: %w", callers, err)
				}
				cpu := s.cpu() - before
				at := row{What: "messages a second", At: callers, Of: "callers", Unit: "/s", Aim: "0.6 x floor"}
				r.note(at, s.subject, round, float64(len(delays))/took.Seconds())
				at = row{What: "p50", At: callers, Of: "callers", Unit: "ms"}
				r.note(at, s.subject, round, milliseconds(delays[len(delays)/2]))
				at.What = "p99"
				r.note(at, s.subject, round, milliseconds(delays[len(delays)*99/100]))
				at.What, at.Unit = "processor time of 1,000 messages", "CPU-ms"
				r.note(at, s.subject, round, 1000*milliseconds(cpu)/float64(len(delays)))
			}
		}
	}
	return nil
}

// sender sends the next message of a chat and awaits that it is delivered.
type sender func() error

// sendFrom has each sender send one message after the other, and returns how
// long all took, and how long each message took, sorted.
func sendFrom(senders []sender, during time.Duration) (took time.Duration, delays []time.Duration, err error) {
	var mu sync.Mutex
	var all errgroup.Group
	begin := time.Now()
	for _, send := range senders {
		all.Go(func() error {
			var own []time.Duration
			for own == nil || time.Since(begin) < during {
				sent := time.Now()
				if err := send(); err != nil {
					return err
				}
				own = append(own, time.Since(sent))
			}
			mu.Lock()
			defer mu.Unlock()
			delays = append(delays, own...)
			return nil
		})
	}
	err = all.Wait()
	took = time.Since(begin)
	slices.Sort(delays)
	return took, delays, err
}
