//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/deskhost/deskhost/host/internal/bench/usage"
)

// growth measures hand-overs and crashes with more and more chats, and with
// more and more sessions beside a thousand chats. There is no floor: in its
// column stands the least number's figure in proportion, or unchanged where the
// number must not matter. A ratio of 1 is what is aimed at.
type growth struct {
	chats, sessions []int
}

// The aims of growth: a cost grows with the number, or the number does not matter.
const (
	linear   = "linear"
	noSlower = "no slower"
)

func (m *growth) measure(r *run) error {
	for round := range r.rounds {
		for _, chats := range m.chats {
			for _, subject := range r.hosts() {
				if err := m.troubles(r, subject, round, chats); err != nil {
					return fmt.Errorf("%s, %d chats: %w", subject, chats, err)
				}
			}
		}
		for _, sessions := range m.sessions {
			for _, subject := range r.hosts() {
				if err := m.amongSessions(r, subject, round, sessions); err != nil {
					return fmt.Errorf("%s, %d sessions: %w", subject, sessions, err)
				}
			}
		}
	}
	m.expect(r)
	return nil
}

// troubles hands open chats over, then kills their plugin, then their host.
func (m *growth) troubles(r *run, subject string, round, chats int) error {
	c, err := r.startCentre(subject, `{"join_delay_ms": 1}`)
	if err != nil {
		return err
	}
	defer c.stop()
	if err := c.openChats(chats); err != nil {
		return err
	}
	note := func(what, aim string, took time.Duration) {
		r.note(row{What: what, At: chats, Of: "chats", Unit: "ms", Aim: aim}, subject, round, milliseconds(took))
	}

	began := time.Now()
	if err := c.host.reload(); err != nil {
		return err
	}
	note("hand-over: to ready", "", time.Since(began))
	moved, err := c.host.awaitDesk(serves(chats, 2))
	if err != nil {
		return err
	}
	note("hand-over: to all moved", linear, moved.Sub(began))

	d, err := c.host.desk()
	if err != nil {
		return err
	}
	if err := syscall.Kill(d.PID, syscall.SIGKILL); err != nil {
		return err
	}
	// The pause before a plugin is started again is no cost of it.
	started, err := c.host.awaitDesk(func(d deskStatus) bool { return d.Generation == 3 })
	if err != nil {
		return err
	}
	resumed, err := c.host.awaitDesk(serves(chats, 3))
	if err != nil {
		return err
	}
	note("plugin killed: to all resumed, since its new start", linear, resumed.Sub(started))

	return c.killHost(r, row{What: "host killed", At: chats, Of: "chats", Aim: linear}, subject, round, chats)
}

// openAmong is how many chats are open among more and more sessions.
const openAmong = 1000

// amongSessions kills a host with some open chats among many sessions.
func (m *growth) amongSessions(r *run, subject string, round, sessions int) error {
	c, err := r.startCentre(subject, `{"join_delay_ms": 1}`)
	if err != nil {
		return err
	}
	defer c.stop()
	err = each(sessions-openAmong, func(int) error {
		_, err := c.host.session()
		return err
	})
	if err != nil {
		return err
	}
	if err := c.openChats(openAmong); err != nil {
		return err
	}
	return c.killHost(r, row{What: "host with 1,000 open chats killed", At: sessions, Of: "sessions", Aim: noSlower}, subject, round, openAmong)
}

// killHost kills the host and notes when the next is ready, when it serves all
// chats, and its memory then.
func (c *centre) killHost(r *run, at row, subject string, round, chats int) (err error) {
	c.host.kill()
	began := time.Now()
	if c.host, err = c.host.again(); err != nil {
		return err
	}
	ready := time.Now()
	resumed, err := c.host.awaitDesk(serves(chats, 1))
	if err != nil {
		return err
	}
	what := at.What
	at.What, at.Unit = what+": to ready", "ms"
	r.note(at, subject, round, milliseconds(ready.Sub(began)))
	at.What = what + ": to all resumed"
	r.note(at, subject, round, milliseconds(resumed.Sub(began)))
	if memory, err := usage.Memory(c.host.cmd.Process.Pid); err == nil { // there is none but on Linux
		at.What, at.Unit, at.Aim = what+": memory of the next", "MiB", ""
		r.note(at, subject, round, memory/(1<<20))
	}
	return nil
}

// expect puts what the least number's figure makes one expect of each number
// into the floor's column.
func (m *growth) expect(r *run) {
	for _, at := range r.rows() {
		if at.Part != r.part || at.Aim == "" {
			continue
		}
		least := at
		if at.Aim == linear {
			least.At = slices.Min(m.chats)
		} else {
			least.At = slices.Min(m.sessions)
		}
		expected, _ := r.median(least, hostSubject)
		if at.Aim == linear {
			expected *= float64(at.At) / float64(least.At)
		}
		r.note(at, floorSubject, 0, expected)
	}
}

// centre is a contact centre: a host, and the mock desk as a process of its own.
type centre struct{ host, desk *server }

// startCentre starts a build of the host, and a mock desk with a script.
func (r *run) startCentre(subject, script string) (*centre, error) {
	dir, err := r.folder()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "script.json")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		return nil, err
	}
	mock, err := r.startSimulator(mockDesk, "--script", file)
	if err != nil {
		return nil, err
	}
	s, err := r.startHost(subject, shippedPlugins, []deskConfig{{Name: "support", Plugin: "mock", Config: map[string]any{"url": mock.url}}})
	if err != nil {
		mock.stop()
		return nil, err
	}
	return &centre{s, mock}, nil
}

func (c *centre) stop() {
	c.host.stop()
	c.desk.stop()
}

// openChats opens chats that no page follows.
func (c *centre) openChats(n int) error {
	return each(n, func(int) error {
		_, _, err := c.host.chat()
		return err
	})
}
