package desk

import (
	"fmt"
	"sync"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// acks keeps account of the events of one stream: which have arrived, which are
// settled, which are acknowledged. Events are settled in any order; what is
// acknowledged is the run of settled ones without a gap. It holds the plugin to
// its window. It is safe for concurrent use.
type acks struct {
	window, chatWindow uint64
	// due has room for one: something new can be acknowledged.
	due chan struct{}

	mu      sync.Mutex
	arrived uint64            // highest seq that has arrived
	settled uint64            // all up to here are settled
	acked   uint64            // all up to here are acknowledged
	ring    []pending         // of window places; the event seq is at seq % window
	perChat map[string]uint64 // events arrived and not acknowledged
}

// pending is an event that is not acknowledged.
type pending struct {
	chat    string
	settled bool
	refusal *Refusal
}

func newAcks(window, chatWindow uint32) *acks {
	return &acks{
		window: uint64(window), chatWindow: uint64(chatWindow),
		due:     make(chan struct{}, 1),
		ring:    make([]pending, window),
		perChat: make(map[string]uint64),
	}
}

// arrive takes account of an event. An error means that the plugin broke the
// rules of the stream, which cannot go on.
func (a *acks) arrive(seq uint64, chat string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case seq != a.arrived+1:
		return fmt.Errorf("event %d came after event %d; sequence numbers have to rise by one", seq, a.arrived)
	case a.arrived-a.acked == a.window:
		return fmt.Errorf("more than %d events wait for their acknowledgement; that is the window, which the plugin has to keep", a.window)
	case a.perChat[chat] == a.chatWindow:
		return fmt.Errorf("more than %d events of chat %q wait for their acknowledgement; that is the window of a chat, which the plugin has to keep", a.chatWindow, chat)
	}
	a.arrived = seq
	a.perChat[chat]++
	a.ring[seq%a.window] = pending{chat: chat}
	return nil
}

// settle records the outcome of an event. It reports false for an event that is
// not waiting for one.
func (a *acks) settle(seq uint64, refusal *Refusal) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if seq <= a.settled || seq > a.arrived || a.ring[seq%a.window].settled {
		return false
	}
	e := &a.ring[seq%a.window]
	e.settled, e.refusal = true, refusal
	if seq != a.settled+1 {
		return true
	}
	for a.settled < a.arrived && a.ring[(a.settled+1)%a.window].settled {
		a.settled++
	}
	select {
	case a.due <- struct{}{}:
	default: // the sender has not yet looked
	}
	return true
}

// next returns the acknowledgement that is due, or nil; more may follow. From here on the plugin
// may use the room.
func (a *acks) next() *deskv1.EventsAck {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.acked == a.settled {
		return nil
	}
	ack := &deskv1.EventsAck{}
	for a.acked < a.settled && len(ack.Refusals) < maxRefusals {
		a.acked++
		e := &a.ring[a.acked%a.window]
		if e.refusal != nil {
			ack.Refusals = append(ack.Refusals, &deskv1.Refusal{
				Seq: a.acked, Code: e.refusal.Code, Reason: truncate(e.refusal.Reason, maxReason),
			})
		}
		if a.perChat[e.chat]--; a.perChat[e.chat] == 0 {
			delete(a.perChat, e.chat)
		}
		*e = pending{}
	}
	ack.Seq = a.acked
	return ack
}

// maxReason bounds the reason of a refusal, and maxRefusals how many there are in one
// acknowledgement, so that it fits into one message however large the window is.
const maxReason, maxRefusals = 512, deskv1.DefaultWindow

// truncate cuts s to at most limit bytes, between two characters.
func truncate(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xC0 == 0x80 {
		limit--
	}
	return s[:limit]
}
