//go:build unix

package main

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// upgrade measures how long users wait for an answer while their plugin is
// replaced. The floor is what the same users have waited just before.
type upgrade struct{ users int }

// pace is the time between two messages of a user; calm and replaced are how
// many each sends before the plugin is replaced, and from then on.
const (
	pace     = 4 * time.Second
	calm     = 2
	replaced = 2
)

func (m *upgrade) measure(r *run) error {
	// The pages are this process.
	if err := allowFiles(uint64(3*m.users + 500)); err != nil {
		return err
	}
	for round := range r.rounds {
		for _, subject := range r.hosts() {
			if err := m.replace(r, subject, round); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *upgrade) replace(r *run, subject string, round int) (err error) {
	c, err := r.startCentre(subject, `{"join_delay_ms": 1, "typing_ms": 1}`)
	if err != nil {
		return err
	}
	defer c.stop()
	users := make([]*user, m.users)
	defer func() {
		for _, u := range users {
			if u != nil {
				_ = u.close() // its talk has told
			}
		}
	}()
	err = each(m.users, func(i int) (err error) {
		if users[i], err = visit(c.host.url); err != nil {
			return err
		}
		if err := users[i].start(); err != nil {
			return err
		}
		return users[i].talk()
	})
	if err != nil {
		return err
	}

	var mu sync.Mutex
	var before, during []time.Duration // that users waited
	var all errgroup.Group
	began := time.Now()
	for i, u := range users {
		all.Go(func() error {
			for n := range calm + replaced {
				time.Sleep(time.Until(began.Add(time.Duration(n)*pace + pace*time.Duration(i)/time.Duration(m.users))))
				sent := time.Now()
				if err := u.talk(); err != nil {
					return err
				}
				mu.Lock()
				if n < calm {
					before = append(before, time.Since(sent))
				} else {
					during = append(during, time.Since(sent))
				}
				mu.Unlock()
			}
			return nil
		})
	}
	all.Go(func() error {
		time.Sleep(time.Until(began.Add(calm * pace)))
		if err := c.host.reload(); err != nil {
			return err
		}
		_, err := c.host.awaitDesk(serves(m.users, 2))
		return err
	})
	if err := all.Wait(); err != nil {
		return err
	}
	note := func(subject string, took []time.Duration) {
		slices.Sort(took)
		at := row{What: "p99 of answers while the plugin is replaced", At: m.users, Of: "users", Unit: "ms", Aim: "100 ms"}
		r.note(at, subject, round, milliseconds(took[len(took)*99/100]))
		at.What = "longest wait for an answer while the plugin is replaced"
		r.note(at, subject, round, milliseconds(took[len(took)-1]))
	}
	if subject == hostSubject {
		note(floorSubject, before)
	}
	note(subject, during)
	return nil
}
