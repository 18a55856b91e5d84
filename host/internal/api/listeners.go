package api

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/deskhost/deskhost/host/internal/problem"
	"github.com/deskhost/deskhost/host/internal/session"
)

// listener is an open socket or stream.
type listener interface {
	// ping asks for a sign of life to be sent. It does not block.
	ping()
	// end asks the listener to say good-bye and go. It does not block.
	end()
	// cut ends its connection at once.
	cut()
}

// pingSlots spreads the pings over the ping interval.
const pingSlots = 16

// listeners owns the set of open sockets and streams, their counts, and the one
// goroutine that pings them.
type listeners struct {
	limits  Limits
	stop    chan struct{}
	stopped chan struct{}
	// open counts those between enter and leave.
	open sync.WaitGroup

	mu        sync.Mutex
	closing   bool
	next      int
	slots     [pingSlots]map[listener]struct{}
	bySession map[string]int
	byAddress map[netip.Prefix]int
}

func newListeners(limits Limits) *listeners {
	l := &listeners{
		limits:    limits,
		stop:      make(chan struct{}),
		stopped:   make(chan struct{}),
		bySession: map[string]int{},
		byAddress: map[netip.Prefix]int{},
	}
	for i := range l.slots {
		l.slots[i] = map[listener]struct{}{}
	}
	go l.pingAll()
	return l
}

// place is where a listener is counted.
type place struct {
	sessionID string
	address   netip.Prefix
	slot      int
}

// enter counts a listener in, or says why it may not come in. Each enter that
// succeeds is followed by one leave.
func (l *listeners) enter(sessionID string, from netip.Prefix) (place, *problem.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		p := problem.New(http.StatusServiceUnavailable, string(session.CodeStopping), "The host is stopping; come back in a moment.")
		p.RetryAfter = time.Second
		return place{}, p
	}
	if over(l.bySession[sessionID], l.limits.SocketsPerSession) || over(l.byAddress[from], l.limits.SocketsPerAddress) {
		p := problem.New(http.StatusTooManyRequests, codeTooManyRequests, "Too many event sockets are open; close one first.")
		p.RetryAfter = time.Second
		return place{}, p
	}
	l.bySession[sessionID]++
	l.byAddress[from]++
	l.next = (l.next + 1) % pingSlots
	l.open.Add(1)
	return place{sessionID, from, l.next}, nil
}

// over tells whether a count has reached its limit; 0 is no limit.
func over(count, limit int) bool { return limit > 0 && count >= limit }

// add makes a listener known to pings and close. It is ended at once if close
// has begun since enter.
func (l *listeners) add(at place, who listener) {
	l.mu.Lock()
	l.slots[at.slot][who] = struct{}{}
	closing := l.closing
	l.mu.Unlock()
	if closing {
		who.end()
	}
}

// leave counts a listener out; who is nil if it was never added.
func (l *listeners) leave(at place, who listener) {
	l.mu.Lock()
	delete(l.slots[at.slot], who)
	if l.bySession[at.sessionID]--; l.bySession[at.sessionID] == 0 {
		delete(l.bySession, at.sessionID)
	}
	if l.byAddress[at.address]--; l.byAddress[at.address] == 0 {
		delete(l.byAddress, at.address)
	}
	l.mu.Unlock()
	l.open.Done()
}

func (l *listeners) pingAll() {
	defer close(l.stopped)
	tick := time.NewTicker(l.limits.PingInterval / pingSlots)
	defer tick.Stop()
	for slot := 0; ; slot = (slot + 1) % pingSlots {
		select {
		case <-tick.C:
			for _, who := range l.list(slot, slot+1) {
				who.ping()
			}
		case <-l.stop:
			return
		}
	}
}

// list returns the listeners of the slots from to below to.
func (l *listeners) list(from, to int) []listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []listener
	for _, slot := range l.slots[from:to] {
		for who := range slot {
			all = append(all, who)
		}
	}
	return all
}

func (l *listeners) close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closing {
		l.closing = true
		close(l.stop)
	}
	l.mu.Unlock()
	<-l.stopped

	for _, who := range l.list(0, pingSlots) {
		who.end()
	}
	gone := make(chan struct{})
	go func() {
		l.open.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		for _, who := range l.list(0, pingSlots) {
			who.cut()
		}
		<-gone
		return ctx.Err()
	}
}
