package adapter

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/client"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// quietPart and slowest say how polling slows down: a conversation in which
	// nothing has happened for some time is read again after that part of it,
	// but within slowest times the usual pause.
	quietPart = 20
	slowest   = 10
	// quickTries is how often a look that failed is tried again sooner than usual.
	quickTries = 5
	// maxHints is how many messages wait for a chat that is busy. What is beyond
	// is read instead.
	maxHints = 64
)

// chat is an open chat of this process, guarded by the Desk's mutex.
type chat struct {
	id string
	// start is how its start goes; nil for a chat that was resumed.
	start *start
	// conv is nil until the conversation is known and ready.
	conv *client.Conversation
	// state is what the host has. Only the goroutine that serves the chat sets it.
	state state

	// timer wakes the chat for the next look. serving says that a goroutine
	// works on it, idle is closed when that ends; nil if nobody waits for it.
	timer   *time.Timer
	serving bool
	idle    chan struct{}

	// woken says that there is something to do: to follow the hints, or, with
	// look, to read the conversation. waiting is told how that went.
	woken, look bool
	hints       []client.Message
	waiting     []chan<- error
	// stopLook ends the look that is under way, and does nothing after it.
	stopLook context.CancelFunc
	// nextLook is when the timer wakes the chat; after a look that failed nothing
	// else does so earlier.
	nextLook time.Time
	// failures counts the looks that failed in a row, since then; err is the last's.
	failures int
	failing  time.Time
	err      error
	// missing is since when looks do not find the conversation; zero if they do.
	missing time.Time
	// hookTries is how often the webhook could not be moved, hookAfter when it is
	// tried again.
	hookTries int
	hookAfter time.Time

	// active is when something happened last; alone since when no agent was
	// there, or nobody wrote.
	active, alone time.Time

	// doubtful is until when a message may still arrive of which a call could not
	// tell the outcome.
	doubtful time.Time
	// quiesced is set when another process is about to have the chat, dropped when
	// this one has let it go.
	quiesced, dropped bool
	// read is the index up to which Twilio knows the user to have read; -1 if none.
	read int
}

func newChat(id string, st state, conv *client.Conversation) *chat {
	return &chat{id: id, state: st, conv: conv, read: -1, stopLook: func() {}}
}

func (c *chat) started() bool { return c.conv != nil }

// stopTimer stops the timer, which a chat that is being started has not.
func (c *chat) stopTimer() {
	if c.timer != nil {
		c.timer.Stop()
	}
}

// backsOff tells whether the chat is to be left alone after a look that failed.
func (c *chat) backsOff() bool { return c.failures > 0 && time.Now().Before(c.nextLook) }

// take serves a chat whose conversation is known, beginning with a look at it.
func (d *Desk) take(c *chat) {
	d.chats[c.id] = c
	d.conversations[c.state.Conversation] = c
	c.active, c.alone = time.Now(), time.Now()
	c.timer = time.AfterFunc(time.Hour, func() { // set anew when the look is over
		d.mu.Lock()
		defer d.mu.Unlock()
		d.wakeNow(c)
	})
	d.wake(c, true)
}

// drop lets a chat go. What is not told yet is not told any more.
func (d *Desk) drop(c *chat) {
	if c.dropped {
		return
	}
	c.dropped = true
	c.stopTimer()
	if d.chats[c.id] == c {
		delete(d.chats, c.id)
	}
	if d.conversations[c.state.Conversation] == c {
		delete(d.conversations, c.state.Conversation)
	}
}

// open tells whether the chat is to be read.
func (d *Desk) open(c *chat) bool {
	return c.started() && !c.quiesced && !c.dropped && !d.draining
}

// wake has a chat served, at once or after what is being done for it now, or
// once it does not back off any more.
func (d *Desk) wake(c *chat, look bool) {
	if !d.open(c) {
		return
	}
	c.woken, c.look = true, c.look || look
	switch {
	case c.serving:
	case c.backsOff():
		c.timer.Reset(time.Until(c.nextLook))
	default:
		c.serving = true
		d.work.Go(func() { d.serve(c) })
	}
}

// wakeNow has the conversation read even if the chat backs off.
func (d *Desk) wakeNow(c *chat) {
	c.nextLook = time.Time{}
	d.wake(c, true)
}

// serve follows hints and looks at the conversation until there is nothing to do.
func (d *Desk) serve(c *chat) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c.woken && d.open(c) && !c.backsOff() {
		hints, look, waiting := c.hints, c.look, c.waiting
		c.woken, c.hints, c.look, c.waiting = false, nil, false, nil
		d.mu.Unlock()
		looked, err := d.pass(c, hints, look)
		d.mu.Lock()
		for _, w := range waiting {
			w <- err
		}
		c.err = err
		if !client.As(err).NotFound() {
			c.missing = time.Time{}
		}
		if err == nil {
			c.failures = 0
			// Hints alone do not put the next look off: they do not tell who has left.
			if next := time.Now().Add(d.pause(c)); looked || next.Before(c.nextLook) {
				c.nextLook = next
			}
			continue
		}
		// The hints are spent, so the next time it takes a look.
		if c.failures++; c.failures == 1 {
			c.failing = time.Now()
		}
		c.look = true
		c.nextLook = time.Now().Add(d.pause(c))
		if d.open(c) {
			d.log.Warn("a conversation was not read; it is tried again", "chat_id", c.id, "conversation", c.state.Conversation, "error", err)
		}
	}
	for _, w := range c.waiting {
		w <- cmp.Or(c.err, error(errNotServed))
	}
	c.serving, c.waiting = false, nil
	if c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
	if d.open(c) {
		c.timer.Reset(time.Until(c.nextLook))
	}
}

// pause is how long to leave a chat alone.
func (d *Desk) pause(c *chat) time.Duration {
	usual := d.config.reconcile()
	if d.webhookURL == "" || c.state.WebhookURL != d.webhookURL {
		usual = d.config.poll()
		usual = min(max(usual, time.Since(c.active)/quietPart), slowest*usual)
	}
	if c.failures > 0 {
		pause := client.Pause(c.failures-1, c.err)
		if c.failures > quickTries {
			pause = max(pause, usual)
		}
		return pause
	}
	// A tenth more or less, so that chats which began together drift apart.
	return usual - usual/10 + rand.N(usual/5+1)
}

// awaitIdle returns true once nothing is being done for the chat, false if ctx
// ends first. The mutex is released meanwhile.
func (d *Desk) awaitIdle(ctx context.Context, c *chat) bool {
	for c.serving {
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
		if ctx.Err() != nil && c.serving {
			return false
		}
	}
	return true
}

// errNotServed is for a webhook of a chat that another process is about to have.
var errNotServed = sdk.Fail(sdk.Retry, "the chat is on its way to another process")

// hint has a chat look for what a webhook tells of, and returns once the host
// has it. message is nil if the webhook is of something else.
func (d *Desk) hint(ctx context.Context, conversation string, message *client.Message) error {
	done := make(chan error, 1)
	d.mu.Lock()
	c := d.conversations[conversation]
	switch {
	case c == nil:
		d.mu.Unlock()
		return nil
	case !d.open(c):
		d.mu.Unlock()
		return errNotServed
	case c.backsOff():
		defer d.mu.Unlock()
		return c.err
	}
	c.waiting = append(c.waiting, done)
	if message != nil && len(c.hints) < maxHints {
		c.hints = append(c.hints, *message)
		d.wake(c, false)
	} else {
		d.wake(c, true)
	}
	d.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
