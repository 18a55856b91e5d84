package adapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
	"github.com/deskhost/deskhost/sdk"
)

// maxQueued is how many events of a chat wait for the host before they are left
// at the desk, to be fetched when the host has caught up.
const maxQueued = 64

// chat is an open chat of this process, guarded by the Desk's mutex.
type chat struct {
	id string
	// conversation is the desk's id of it; empty until known.
	conversation string
	// taken is the seq of the last event in queue or before it, cursor that of
	// the last event that the host has settled.
	taken, cursor uint64
	// queue waits for the host; emitting says that a goroutine works on it.
	queue    []news
	emitting bool
	// overflowed says that events were left at the desk because queue was full,
	// missed that there may be some because the chat was still starting.
	overflowed, missed bool
	// idle is closed when emitting ends; nil if nobody waits for it.
	idle chan struct{}
	// starting is set until the desk has taken the chat, resuming until it has
	// confirmed that it knows it. starts counts the calls that try to start it.
	starting, resuming bool
	starts             int
	// ending is set once the host has asked for the end, quiesced when another
	// process is about to have the chat, dropped when this one has let it go.
	ending, quiesced, dropped bool
	// waiting is told how the next catch-up of the chat went.
	waiting []chan<- error
	// away is set if the last that was queued about the link is its loss.
	away bool
}

// news is an event on its way to the host.
type news struct {
	event *deskapi.Event
	// id is the event's for the host; empty for passing news.
	id string
	// away is what the chat's state says of the link from here on.
	away bool
}

// stateFormat is the number of state's form.
const stateFormat = 1

// state is a chat's resume state.
type state struct {
	// Conversation is the desk's id; empty until the desk has said it.
	Conversation string `json:"conversation"`
	// Cursor is the seq of the last event that the host has.
	Cursor uint64 `json:"cursor"`
	// Away is set while the host believes that the link is lost.
	Away bool `json:"away,omitempty"`
}

func readState(s *sdk.ResumeState) (state, error) {
	var st state
	if s == nil {
		return st, nil
	}
	if s.Format != stateFormat {
		return st, fmt.Errorf("resume state of format %d, want %d", s.Format, stateFormat)
	}
	if err := json.Unmarshal(s.Data, &st); err != nil {
		return st, fmt.Errorf("resume state: %w", err)
	}
	return st, nil
}

func (st state) resume() *sdk.ResumeState {
	data, err := json.Marshal(st)
	if err != nil {
		panic(err) // a string, a number and a bool
	}
	return &sdk.ResumeState{Data: data, Format: stateFormat}
}

// take returns the chat for a start, made from what an earlier attempt saved if
// there is none yet.
func (d *Desk) take(id string, st state) *chat {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.chats[id]
	if c == nil {
		c = newChat(id, st)
		c.starting = true
		d.chats[id] = c
	}
	c.starts++
	return c
}

func newChat(id string, st state) *chat {
	return &chat{id: id, conversation: st.Conversation, taken: st.Cursor, cursor: st.Cursor, away: st.Away}
}

// started notes that the desk has taken the chat, and returns its state.
func (d *Desk) started(c *chat, conv *deskapi.Conversation) *sdk.ResumeState {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.conversation != conv.ID {
		// The desk forgot what an earlier attempt had begun.
		c.conversation, c.taken, c.cursor = conv.ID, 0, 0
	}
	c.starting = false
	c.starts--
	if c.missed || conv.Seq > c.taken {
		c.missed = false
		d.fallBehind(c)
	}
	return state{Conversation: c.conversation, Cursor: c.cursor, Away: c.away}.resume()
}

// notStarted ends an attempt to start a chat. One that the desk has declined is
// let go, unless it was or is about to be taken by another.
func (d *Desk) notStarted(c *chat, declined bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.starts--
	if declined && c.starting && c.starts == 0 {
		d.drop(c)
	}
}

// drop lets a chat go; nil is no chat. What is queued is not handed over any
// more.
func (d *Desk) drop(c *chat) {
	if c == nil || c.dropped {
		return
	}
	c.dropped, c.queue = true, nil
	delete(d.chats, c.id)
	delete(d.behind, c)
	d.settle(c, sdk.Fail(sdk.ChatOver, "the chat was let go"))
}

// settle tells who waits for a catch-up of the chat how it went.
func (d *Desk) settle(c *chat, err error) {
	for _, w := range c.waiting {
		w <- err
	}
	c.waiting = nil
}

// resume serves a chat from its state on, once the desk has confirmed that it
// knows it.
func (d *Desk) resume(ctx context.Context, id string, st state) error {
	done := make(chan error, 1)
	d.mu.Lock()
	c := d.chats[id]
	if c == nil {
		c = newChat(id, st)
		c.resuming = true
		d.chats[id] = c
	}
	c.quiesced = false
	c.waiting = append(c.waiting, done)
	d.fallBehind(c)
	d.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return sdk.Fail(sdk.Retry, "the desk did not answer in time: %w", ctx.Err())
	}
}

// quiesce stops taking events of a chat, waits until the host has those that
// were taken, and lets the chat go.
func (d *Desk) quiesce(ctx context.Context, id string) (*sdk.ResumeState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.chats[id]
	if c == nil {
		return nil, sdk.Fail(sdk.ChatUnknown, "this process does not serve the chat")
	}
	c.quiesced = true
	delete(d.behind, c)
	for c.emitting {
		if c.idle == nil {
			c.idle = make(chan struct{})
		}
		idle := c.idle
		d.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
		}
		d.mu.Lock()
		if ctx.Err() != nil && c.emitting {
			c.quiesced = false
			d.fallBehind(c)
			return nil, sdk.Fail(sdk.Retry, "the host has not taken all events yet: %w", ctx.Err())
		}
	}
	if c.dropped {
		return nil, sdk.Fail(sdk.ChatUnknown, "this process does not serve the chat any more")
	}
	d.drop(c)
	return state{Conversation: c.conversation, Cursor: c.cursor, Away: c.away}.resume(), nil
}

// fallBehind has the catch-up loop fetch what the chat has missed.
func (d *Desk) fallBehind(c *chat) {
	if c.dropped || c.quiesced {
		return
	}
	if c.starting {
		// The desk may not know it yet, which would read as if it had lost it.
		c.missed = true
		return
	}
	d.behind[c] = struct{}{}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// offer gives a chat an event from the feed or from its history. What the chat
// has already is ignored; what it cannot take now is left at the desk.
func (d *Desk) offer(c *chat, e *deskapi.Event) {
	if c.quiesced || c.conversation != "" && c.conversation != e.Conversation {
		return
	}
	id := ""
	if e.Seq != 0 {
		id = e.Conversation + "-" + strconv.FormatUint(e.Seq, 10)
	}
	switch {
	case e.Seq != 0 && e.Seq <= c.taken:
		return
	case len(c.queue) >= maxQueued:
		c.overflowed = true
		return
	case e.Seq > c.taken+1:
		d.fallBehind(c)
		return
	}
	c.taken = max(c.taken, e.Seq)
	d.push(c, news{event: e, id: id, away: c.away})
}

// push queues news for the host.
func (d *Desk) push(c *chat, n news) {
	if c.dropped {
		return
	}
	c.queue = append(c.queue, n)
	if !c.emitting {
		c.emitting = true
		d.emitters.Go(func() { d.emit(c) })
	}
}

// emit hands the news of a chat to the host, in order, until there are none.
func (d *Desk) emit(c *chat) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(c.queue) > 0 {
		n := c.queue[0]
		next := state{Conversation: n.event.Conversation, Cursor: max(c.cursor, n.event.Seq), Away: n.away}
		if payload := payloadOf(n.event); payload != nil && (!c.ending || n.event.Type != deskapi.Ended) {
			ev := &sdk.Event{ChatID: c.id, ID: n.id, Time: n.event.Time, Payload: payload}
			if n.id != "" {
				ev.State = next.resume()
			}
			d.mu.Unlock()
			err := d.host.Emit(d.life, ev)
			d.mu.Lock()
			d.told(c, ev, err)
		}
		if c.dropped {
			break
		}
		c.queue, c.cursor = c.queue[1:], next.Cursor
		if n.event.Last() {
			d.drop(c)
		}
	}
	c.emitting = false
	if c.overflowed {
		c.overflowed = false
		d.fallBehind(c)
	}
	if c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// told looks at the host's answer to an event. Without an acknowledgement the
// chat is let go and its cursor stays where it is, so nothing is lost.
func (d *Desk) told(c *chat, ev *sdk.Event, err error) {
	refused := (*sdk.RefusedError)(nil)
	switch {
	case err == nil:
	case !errors.As(err, &refused):
		d.drop(c) // the process is about to end
	case refused.Code == sdk.RefusedInvalid, refused.Code == sdk.RefusedTooLarge:
		d.log.Warn("the host refused an event; it is left out", "chat_id", c.id, "event_id", ev.ID, "error", err)
	default:
		d.log.Debug("the host has no use for the chat any more", "chat_id", c.id, "error", err)
		d.drop(c)
	}
}
