package adapter

import (
	"context"
	crand "crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// maxQueued is how many occurrences of a chat wait for the host before they are
	// left at the vendor, to be read from the history when the host has caught up.
	maxQueued = 64
	// holdBack is how long an occurrence waits for one that happened earlier and is
	// overtaken on its way: the vendor promises no order. What comes later than that
	// is told late. It is long for machines between which events are passed on, and
	// short for somebody who waits for a person to type.
	holdBack = 150 * time.Millisecond
	// endHolds is how many times as long a conversation's end waits, behind which
	// nothing can be told.
	endHolds = 4
	// endAwaited is how long a chat that the host has ended is kept for EndChat: as long
	// as the host tries that again.
	endAwaited = 10 * time.Minute
)

// guest is a chat's half of one of the vendor's two APIs. Its methods but update
// are for the one goroutine that serves the chat.
type guest interface {
	// prepare makes what the conversation is found again by, if the state lacks it.
	// The state is stored before connect is called.
	prepare(ctx context.Context, st *state) (changed bool, err error)
	// connect opens a link and reads what happened since the state, each in a time of
	// its own. An [endedError] says that the conversation is gone.
	connect(ctx context.Context, st *state) (link, *past, error)
	// update learns what is now known of the user. The link may be nil.
	update(ctx context.Context, l link, user *sdk.UserContext) error
}

// link is a connection to a conversation. One goroutine reads; the others are for
// any. Errors are of package cloud, an endedError, or an sdk.Failure.
type link interface {
	// read waits for what happens next.
	read(ctx context.Context) ([]occurrence, error)
	// send brings a message to the desk. It returns the vendor's id, or no error and
	// none if that comes back as an occurrence.
	send(ctx context.Context, messageID, text string) (deskID string, at time.Time, err error)
	typing(ctx context.Context) error
	// end ends the conversation.
	end(ctx context.Context) error
	ping(within time.Duration) error
	close()
}

// past is what a connect found.
type past struct {
	// happened is in order.
	happened []occurrence
	// ended is set if the conversation has, and says why.
	ended *over
}

type phase int

const (
	opening phase = iota // not connected yet
	opened
	closed
)

// chat is an open chat of this process. One goroutine, serve, reads its link;
// another tells the host, while there is something to tell.
type chat struct {
	desk  *Desk
	id    string
	guest guest
	// turn is held by who brings a message to the desk.
	turn chan struct{}

	// mu guards what follows. Nothing waits for anybody while it is held.
	mu sync.Mutex
	// changed is closed when something changes; nil if nobody waits for that.
	changed chan struct{}
	phase   phase
	// err says why the chat is closed.
	err error
	// reading ends when serve is to end.
	reading context.Context //nolint:containedctx // it is the chat's life
	stop    context.CancelFunc
	serving bool
	// again says that serve is to begin anew when it has ended.
	again bool
	// st is what the host has, besides Sent, which it is about to have.
	st state
	// link is nil while there is none. It is closed when linked ends, by cut.
	link   link
	linked context.Context //nolint:containedctx // it is the link's life
	cut    context.CancelFunc
	// away says that the last word about the link is that it is lost, over that the
	// end of the conversation is queued, ending that the host has ended the chat: it
	// is told nothing more.
	away, over, ending bool
	// letGo closes a chat that is ending, in time.
	letGo *time.Timer
	queue []queued
	// telling says that the queue is worked on, inHand that its first is.
	telling, inHand bool
	// waits is what the user was last told of how long it takes.
	waits waits
	// shows is set while the user sees the agent type; it ends that in time.
	shows *time.Timer

	pace   pace
	typed  time.Time
	unsent *unsent
	// doubtful is until when a message may still arrive that was given up.
	doubtful time.Time
	// own are the user's messages at the desk behind st.Sent.
	own []own
}

// queued is an occurrence on its way to the host, told at the time of due.
type queued struct {
	occurrence

	due time.Time
}

func newChat(d *Desk, id string, st state, g guest) *chat {
	return &chat{desk: d, id: id, guest: g, turn: make(chan struct{}, 1), st: st, away: st.Away, waits: waits{-1}}
}

// start has the chat served. The caller holds mu, or has just made the chat.
func (c *chat) start() {
	c.reading, c.stop = context.WithCancel(c.desk.reading)
	c.serving, c.again = true, false
	c.desk.readers.Go(c.serve)
}

// readAgain has a chat served of which serve has ended, or is about to. The caller
// holds mu.
func (c *chat) readAgain() {
	c.desk.mu.Lock()
	defer c.desk.mu.Unlock()
	switch {
	case c.phase == closed, c.desk.reading.Err() != nil:
	case c.serving:
		c.again = c.reading.Err() != nil
	default:
		c.start()
	}
}

// flush returns once the chat is not read any more and the host has all that was.
func (c *chat) flush(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.await(ctx, func() bool { return !c.serving && !c.telling })
}

// hush returns once nobody tells the host of the chat any more, which is soon after
// the desk's life has ended.
func (c *chat) hush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.await(context.Background(), func() bool { return !c.telling }) // there is no end to it but that
}

// quiesce stops reading, has the host take what was read, and lets the chat go. If
// the host does not take it in time the chat is read again.
func (c *chat) quiesce(ctx context.Context) (*sdk.ResumeState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.phase == opening:
		return nil, sdk.Fail(sdk.Retry, "the chat is still being opened")
	case c.st.SignedIn:
		return nil, sdk.Fail(sdk.Refused, "the user is signed in, and the sign-in token is not handed on; the chat stays here until it ends")
	}
	c.stop()
	c.again = false
	err := c.await(ctx, func() bool { return !c.serving && !c.telling })
	if c.phase == closed {
		return nil, failure(c.err)
	}
	if err != nil {
		err = sdk.Fail(sdk.Retry, "the host has not taken all events yet: %w", err)
		c.readAgain()
		return nil, err
	}
	st := c.st.resume()
	c.shut(sdk.Fail(sdk.Retry, "the chat has been handed on"))
	return st, nil
}

// abandon lets a chat go that could not be opened, unless it may be tried again.
func (c *chat) abandon(ctx context.Context, err error) {
	if f := failure(err); f.Kind == sdk.Retry || f.Kind == sdk.OutcomeUnknown {
		return
	}
	c.mu.Lock()
	c.ending = true
	l := c.link
	c.mu.Unlock()
	if l != nil {
		if err := c.leave(ctx, l); err != nil {
			c.desk.log.Debug("a conversation that could not be opened was not ended", "chat_id", c.id, "error", err)
		}
	}
	c.close(err)
}

// broadcast wakes who awaits. The caller holds mu, as for all that follows but says
// nothing of it and does not take it.
func (c *chat) broadcast() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// await returns once ok does, with mu held, as it is called. It lets go of mu
// meanwhile.
func (c *chat) await(ctx context.Context, ok func() bool) error {
	for !ok() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.mu.Lock()
	}
	return nil
}

// awaitOpen returns once the chat is connected for the first time, or why it is not.
func (c *chat) awaitOpen(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.await(ctx, func() bool { return c.phase != opening }); err != nil {
		return sdk.Fail(sdk.OutcomeUnknown, "there is no connection to the conversation yet: %w", err) // it goes on being made
	}
	if c.phase == closed {
		return failure(c.err)
	}
	return nil
}

// awaitLink returns a link to the conversation, or why there is none.
func (c *chat) awaitLink(ctx context.Context) (link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.await(ctx, func() bool { return c.phase == closed || c.over || c.link != nil }); err != nil {
		return nil, sdk.Fail(sdk.Retry, "there is no connection to the conversation: %w", err)
	}
	switch {
	case c.phase == closed:
		return nil, failure(c.err)
	case c.over:
		return nil, sdk.Fail(sdk.ChatOver, "the conversation has ended")
	}
	return c.link, nil
}

// shut lets the chat go. What is queued is not told any more.
func (c *chat) shut(err error) {
	if c.phase == closed {
		return
	}
	c.phase, c.err = closed, err
	c.stop() // closes the link, too
	c.link = nil
	for _, q := range c.queue {
		if k, ok := q.what.(kept); ok {
			k.done <- err
		}
	}
	c.queue = nil
	for _, t := range []*time.Timer{c.shows, c.letGo} {
		if t != nil {
			t.Stop()
		}
	}
	if c.unsent != nil {
		if ended := (*endedError)(nil); !errors.As(err, &ended) {
			err = &sdk.Failure{Kind: sdk.OutcomeUnknown, Err: err}
		}
		c.unsent.done <- delivery{err: err}
		c.unsent = nil
	}
	c.desk.forget(c)
	c.broadcast()
}

// close is shut for who does not hold mu.
func (c *chat) close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut(err)
}

// take deals with something that a link has read. What comes by a link that was
// given up is left to the history, which has what came before it, too.
func (c *chat) take(l link, o *occurrence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != l {
		return
	}
	switch w := o.what.(type) {
	case wrote:
		c.echoed(o, w)
	case declined:
		switch {
		case c.unsent == nil:
		case w.messageID == c.unsent.id, w.messageID == "" && time.Since(c.typed) > typingEvery:
			c.settle(delivery{err: w.err})
		case w.messageID == "":
			// It may be the typing that was declined. The history tells.
			c.drop()
		}
	default:
		if len(c.queue) >= maxQueued {
			// The host is slow. It is read from the history later.
			c.drop()
			return
		}
		c.push(o, c.desk.holdBack)
	}
}

// push queues an occurrence for the host, in the vendor's order.
func (c *chat) push(o *occurrence, hold time.Duration) {
	if c.phase == closed {
		return
	}
	_, keeps := o.what.(kept)
	if c.ending && !keeps {
		return
	}
	if o.listed && (c.st.known(o.id) || slices.ContainsFunc(c.queue, func(q queued) bool { return q.id == o.id })) {
		return
	}
	if _, ends := o.what.(over); ends {
		if c.over {
			return
		}
		hold = endHolds * c.desk.holdBack
	}
	at := len(c.queue)
	if c.over {
		at-- // nothing comes behind the end
	}
	first := 0
	if c.inHand {
		first = 1
	}
	if keeps {
		at = first // somebody waits for it
		c.broadcast()
	}
	q := queued{*o, time.Now().Add(hold)}
	switch _, ends := o.what.(over); {
	case ends:
		c.over = true
		c.broadcast()
	case q.at.IsZero():
		// It keeps its place behind what came before it.
		if at > 0 {
			q.at = c.queue[at-1].at
		}
	default:
		for at > first && c.queue[at-1].at.After(q.at) {
			at--
		}
	}
	c.queue = slices.Insert(c.queue, max(at, first), q)
	if !c.telling {
		c.telling = true
		go c.tell() // QuiesceChat and Drain wait for it
	}
}

// tell hands what is queued to the host, one after the other.
func (c *chat) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		if wait := time.Until(c.queue[0].due); wait > 0 && c.desk.life.Err() == nil {
			due, cancel := context.WithTimeout(c.desk.life, wait)
			_ = c.await(due, func() bool { return len(c.queue) == 0 || time.Until(c.queue[0].due) <= 0 })
			cancel()
			continue
		}
		c.tellNext()
	}
	c.telling = false
	c.broadcast()
}

// tellNext tells of the first in the queue.
func (c *chat) tellNext() {
	c.inHand = true
	q := c.queue[0]
	steps, after := c.st.steps(&q.occurrence)
	steps = c.typingSteps(&q, steps)
	var lost error
	for i := range steps {
		s := &steps[i]
		ev := &sdk.Event{ChatID: c.id, ID: s.id, Time: q.at, Payload: s.payload}
		switch s.payload.(type) {
		case sdk.AgentTyping, sdk.AvailabilityChanged:
		default:
			s.after.Sent = c.st.Sent
			ev.State = s.after.resume()
		}
		c.mu.Unlock()
		err := c.desk.host.Emit(c.desk.life, ev)
		c.mu.Lock()
		c.told(ev, err)
		if c.phase == closed {
			return
		}
		lost = err
	}
	c.inHand = false
	if k, ok := q.what.(kept); ok {
		k.done <- lost
	}
	after.Sent = c.st.Sent
	c.st, c.queue = after, slices.Delete(c.queue, 0, 1)
	if len(c.queue) == 0 {
		c.queue = nil
	}
	if w, ends := q.what.(over); ends {
		c.shut(&endedError{sdk.ChatOver, w.reason})
	}
	c.broadcast()
}

// typingSteps keeps what the user sees of the agent's typing right: it ends with
// a message, and in time.
func (c *chat) typingSteps(q *queued, steps []step) []step {
	switch w := q.what.(type) {
	case typing:
		if c.shows != nil {
			c.shows.Stop()
			c.shows = nil
		}
		if w.on {
			c.shows = time.AfterFunc(w.lasts, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.push(&occurrence{what: typing{}}, 0)
			})
		}
	case said:
		if c.shows != nil {
			c.shows.Stop()
			c.shows = nil
			ended, _ := c.st.steps(&occurrence{what: typing{}})
			return append(ended, steps...)
		}
	}
	return steps
}

// told looks at the host's answer to an event. Without an acknowledgement the
// chat is let go and its cursor stays where it is, so nothing is lost.
func (c *chat) told(ev *sdk.Event, err error) {
	refused := (*sdk.RefusedError)(nil)
	switch {
	case err == nil:
	case !errors.As(err, &refused):
		c.shut(err) // the process is about to end
	case refused.Code == sdk.RefusedInvalid, refused.Code == sdk.RefusedTooLarge:
		c.desk.log.Warn("the host refused an event; it is left out", "chat_id", c.id, "event_id", ev.ID, "error", err)
	case c.ending:
	case refused.Code == sdk.RefusedChatOver:
		c.desk.log.Debug("the host has ended the chat", "chat_id", c.id, "error", err)
		c.awaitEnd()
	default:
		c.desk.log.Debug("the host has no use for the chat any more", "chat_id", c.id, "error", err)
		c.shut(&endedError{sdk.ChatOver, "the host has no use for the chat any more"})
	}
}

// awaitEnd has nothing more told of a chat that the host has ended. The link stays
// for EndChat, and the sign-in token, without which there is no other.
func (c *chat) awaitEnd() {
	if c.ending {
		return
	}
	c.ending = true
	c.letGo = time.AfterFunc(endAwaited, func() {
		c.close(sdk.Fail(sdk.Retry, "the host has ended the chat, and not the conversation"))
	})
}

// keep returns once the host has the chat's state.
func (c *chat) keep(ctx context.Context) error {
	done := make(chan error, 1)
	c.mu.Lock()
	if c.phase == closed {
		defer c.mu.Unlock()
		return failure(c.err)
	}
	c.push(&occurrence{what: kept{done}}, 0)
	c.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// broken gives a link up on which a call has failed without an answer: its writer is
// of no use any more.
func (c *chat) broken(l link, err error) {
	if e := (*cloud.Error)(nil); !errors.As(err, &e) || e.Status != 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == l {
		c.drop()
	}
}

// drop gives the link up, if there is one; serve makes another, and reads the
// history.
func (c *chat) drop() {
	if c.link == nil {
		return
	}
	c.link = nil
	c.cut()
	c.broadcast()
}

// random is an id of an occurrence that only this process knows of.
func random(prefix string) string { return prefix + "-" + crand.Text()[:16] }

// pause waits, or until ctx ends.
func pause(ctx context.Context, wait time.Duration) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
