//go:build unix

package main

import (
	"fmt"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/deskhost/deskhost/host/internal/bench/usage"
)

// memory measures what sessions cost a host that have nothing to say: those with
// a socket, beside a server that has nothing but their sockets; and those whose
// page has gone. Only the host's process counts: a plugin knows nothing of them.
type memory struct {
	connected, left int
}

func (m *memory) measure(r *run) error {
	if err := allowFiles(uint64(m.connected + 500)); err != nil {
		return err
	}
	for round := range r.rounds {
		for _, subject := range r.subjects() {
			if err := m.connect(r, subject, round); err != nil {
				return fmt.Errorf("%s, connected: %w", subject, err)
			}
			if subject == floorSubject {
				continue
			}
			if err := m.leave(r, subject, round); err != nil {
				return fmt.Errorf("%s, left: %w", subject, err)
			}
		}
	}
	return nil
}

func (m *memory) connect(r *run, subject string, round int) error {
	s, err := r.startOne(subject)
	if err != nil {
		return err
	}
	defer s.stop()
	conns := make([]*websocket.Conn, m.connected+100)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
	}()
	open := func(i int) (err error) {
		if subject == floorSubject {
			conns[i], err = dial("ws"+strings.TrimPrefix(s.url, "http")+"/idle", nil)
			return err
		}
		p, err := s.session()
		if err != nil {
			return err
		}
		conns[i], err = p.socket()
		return err
	}
	grown, err := grows(s.cmd.Process.Pid, 100, m.connected, open)
	if err != nil {
		return err
	}
	r.note(row{What: "memory of an idle session with a socket", At: m.connected, Of: "sessions", Unit: "KiB", Aim: "8 KiB"}, subject, round, grown/1024)
	return nil
}

// grows tells by how many bytes each of n doings makes a process grow, after
// some first ones, which are for what is needed once. A collector's slack is in
// it: nobody can have another process collect now, and one of Go lets its heap
// grow to twice of what lives. So n is large enough for many collections.
func grows(pid, first, n int, do func(i int) error) (float64, error) {
	if err := each(first, do); err != nil {
		return 0, err
	}
	before, err := usage.Memory(pid)
	if err != nil {
		return 0, err
	}
	if err := each(n, func(i int) error { return do(first + i) }); err != nil {
		return 0, err
	}
	after, err := usage.Memory(pid)
	return (after - before) / float64(n), err
}

// leave makes sessions that nobody follows, and starts the host again, which
// then has them in its journal only.
func (m *memory) leave(r *run, subject string, round int) error {
	s, err := r.startOne(subject)
	if err != nil {
		return err
	}
	defer func() { s.stop() }()
	s.stop()
	if s, err = s.again(); err != nil {
		return err
	}
	empty, err := usage.Memory(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	grown, err := grows(s.cmd.Process.Pid, 100, m.left, func(int) error {
		_, err := s.session()
		return err
	})
	if err != nil {
		return err
	}
	r.note(row{What: "memory of a session just made and left", At: m.left, Of: "sessions", Unit: "KiB"}, subject, round, grown/1024)
	s.stop()
	if s, err = s.again(); err != nil {
		return err
	}
	full, err := usage.Memory(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.note(row{What: "memory of a session in the journal, host started again", At: m.left, Of: "sessions", Unit: "KiB", Aim: "0"},
		subject, round, (full-empty)/1024/float64(m.left))
	return nil
}
