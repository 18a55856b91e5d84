package adapter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// maxOwn bounds how many of the user's messages wait to be claimed.
	maxOwn = 32
	// typingEvery is how often the vendor wants to hear at most that the user types.
	typingEvery = 5 * time.Second
	// paceWindow is how long the vendor counts messages of a session, of which it
	// takes two; a little more, since it counts when they arrive.
	paceWindow = 1050 * time.Millisecond
	// arrives is how long a message that was written may take to show at the desk. A
	// history that was read sooner does not say that the desk lacks it.
	arrives = 2 * time.Second
)

// unsent is the message that is on its way to the desk. There is at most one.
type unsent struct {
	id, text string
	// written is when all was done to send it, zero before. A history that was read
	// before says nothing of what became of it.
	written time.Time
	done    chan delivery
}

// delivery is what became of it.
type delivery struct {
	sent sent
	err  error
}

// own is a message of the user at the desk. messageID is empty if it was found in
// the history, which does not have it.
type own struct {
	deskID    string
	at        time.Time
	messageID string
	text      string
}

// message is one that is to be at the desk once.
type message struct {
	id, text string
	// first says that no other try can have brought it there.
	first bool
	// opening is the first of all; whatever the desk has of the user is it.
	opening bool
}

// deliver brings a message to the desk and returns the vendor's id of it. It
// returns no error only when the state that the host has knows of it, so
// whoever resumes the chat can tell it from the next one.
func (c *chat) deliver(ctx context.Context, m message) (deskID string, err error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return "", sdk.Fail(sdk.Retry, "another message is on its way: %w", ctx.Err())
	}
	defer func() { <-c.turn }()
	if !m.first {
		c.mu.Lock()
		wait := time.Until(c.doubtful)
		c.mu.Unlock()
		pause(ctx, wait)
	}
	for {
		l, err := c.awaitLink(ctx)
		if err != nil {
			return "", err
		}
		if deskID, found := c.find(m); found {
			return deskID, c.keepSent(ctx)
		}
		pause(ctx, c.reserve())
		if ctx.Err() != nil {
			return "", sdk.Fail(sdk.Retry, "the vendor takes two messages a second: %w", ctx.Err())
		}
		deskID, err = c.try(ctx, l, m)
		if err == nil {
			return deskID, c.keepSent(ctx)
		}
		f := failure(err)
		deadline, bounded := ctx.Deadline()
		if f.Kind != sdk.Retry || f.RetryAfter == 0 || bounded && time.Until(deadline) < f.RetryAfter+time.Second {
			return "", f
		}
		pause(ctx, f.RetryAfter) // it has had no effect
	}
}

// keepSent has the host store that the desk has a message.
func (c *chat) keepSent(ctx context.Context) error {
	if err := c.keep(ctx); err != nil {
		// The next try finds it at the desk.
		return sdk.Fail(sdk.OutcomeUnknown, "the desk has the message, but the host did not store that: %w", err)
	}
	return nil
}

// find looks for a message among those that the desk has.
func (c *chat) find(m message) (deskID string, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.first {
		// All that is there is of earlier messages.
		if n := len(c.own); n > 0 {
			c.claim(sent{"", c.own[n-1].deskID, c.own[n-1].at})
		}
		return "", false
	}
	if m.opening && c.st.Sent.DeskID != "" {
		return c.st.Sent.DeskID, true
	}
	if c.st.Sent.MessageID == m.id {
		return c.st.Sent.DeskID, true
	}
	for _, o := range c.own {
		if o.messageID == m.id || m.opening || o.messageID == "" && sameText(o.text, m.text) {
			c.claim(sent{m.id, o.deskID, o.at})
			return o.deskID, true
		}
	}
	return "", false
}

// claim notes that the desk has a message, and with it those before it.
func (c *chat) claim(s sent) {
	c.st.Sent = s
	rest := c.own
	c.own = nil
	for i, o := range rest {
		if o.deskID == s.DeskID {
			c.own = rest[i+1:]
		}
	}
}

// reserve takes a place in the vendor's count of messages, and returns how long it
// is until then.
func (c *chat) reserve() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pace.reserve(time.Now())
}

// try sends a message once and waits until it is known what became of it.
func (c *chat) try(ctx context.Context, l link, m message) (deskID string, err error) {
	u := &unsent{id: m.id, text: m.text, done: make(chan delivery, 1)}
	c.mu.Lock()
	if c.link != l {
		c.mu.Unlock()
		return "", sdk.Fail(sdk.Retry, "the connection to the conversation was lost before the message was sent")
	}
	c.unsent = u
	c.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, c.desk.timeouts.answer)
	defer cancel()
	deskID, at, err := l.send(ctx, m.id, m.text)
	c.mu.Lock()
	u.written = time.Now()
	switch {
	case err == nil && deskID != "":
		c.settle(delivery{sent: sent{m.id, deskID, at}})
	case err != nil && failure(err).Kind != sdk.OutcomeUnknown:
		c.settle(delivery{err: err})
	case c.unsent == u && (err != nil || c.link != l):
		c.drop() // what became of it is found in the history
	}
	c.mu.Unlock()

	select {
	case d := <-u.done:
		return d.sent.DeskID, d.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case d := <-u.done:
		return d.sent.DeskID, d.err
	default:
	}
	c.unsent, c.doubtful = nil, time.Now().Add(arrives)
	// The next try is made behind a look into the history.
	c.drop()
	return "", &sdk.Failure{Kind: sdk.OutcomeUnknown, Err: errors.New("the desk has not confirmed the message in time")}
}

// settle tells whoever waits for it what became of the message on its way.
func (c *chat) settle(d delivery) {
	if c.unsent == nil {
		return
	}
	if d.err == nil {
		c.claim(d.sent)
	}
	c.unsent.done <- d
	c.unsent = nil
}

// echoed notes a message of the user that the desk shows.
func (c *chat) echoed(o *occurrence, w wrote) {
	if c.unsent != nil && w.messageID == c.unsent.id {
		c.settle(delivery{sent: sent{w.messageID, o.id, o.at}})
		return
	}
	c.noteOwn(own{o.id, o.at, w.messageID, w.text})
}

// noteOwn keeps a message of the user for who looks for it.
func (c *chat) noteOwn(o own) {
	switch {
	case o.deskID == c.st.Sent.DeskID:
		c.own = nil // what came before it is of earlier messages
		return
	case !o.at.IsZero() && o.at.Before(c.st.Sent.At):
		return
	case slices.ContainsFunc(c.own, func(had own) bool { return had.deskID == o.deskID }):
		return
	}
	c.own = append(c.own, o)
	if len(c.own) > maxOwn {
		c.own = c.own[1:]
	}
}

// lookUp settles the message on its way by what the history has. Unclear is the
// one that was written before the history was read.
func (c *chat) lookUp(unclear *unsent) {
	if c.unsent == nil {
		return
	}
	for _, o := range c.own {
		if o.messageID == c.unsent.id || o.messageID == "" && sameText(o.text, c.unsent.text) {
			c.settle(delivery{sent: sent{c.unsent.id, o.deskID, o.at}})
			return
		}
	}
	switch u := c.unsent; {
	case u == unclear && time.Since(u.written) < arrives:
		time.AfterFunc(arrives-time.Since(u.written), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.unsent == u {
				c.drop() // look again
			}
		})
	case u == unclear:
		c.settle(delivery{err: &cloud.Error{Err: errors.New("the connection was lost, and the desk does not have the message")}})
	case !u.written.IsZero():
		c.drop() // look again
	}
}

// sameText tells whether two texts are the same to who reads them.
func sameText(a, b string) bool {
	return strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ")
}

// userTypes passes on that the user types, unless that was done just now.
func (c *chat) userTypes(ctx context.Context) error {
	c.mu.Lock()
	l, now := c.link, time.Now()
	if l == nil || c.over || now.Sub(c.typed) < typingEvery || !c.pace.free(now) {
		c.mu.Unlock()
		return nil
	}
	c.typed = now
	c.pace.reserve(now)
	c.mu.Unlock()
	err := l.typing(ctx)
	c.broken(l, err)
	return err
}

// leave ends the conversation, which the vendor counts as a message.
func (c *chat) leave(ctx context.Context, l link) error {
	pause(ctx, c.reserve())
	err := l.end(ctx)
	c.broken(l, err)
	return err
}

// pace keeps a session to the vendor's two messages a second.
type pace struct{ last [2]time.Time }

func (p *pace) free(now time.Time) bool { return now.Sub(p.last[0]) >= paceWindow }

// reserve takes the next place and returns how long it is until then.
func (p *pace) reserve(now time.Time) time.Duration {
	at := now
	if next := p.last[0].Add(paceWindow); next.After(at) {
		at = next
	}
	p.last = [2]time.Time{p.last[1], at}
	return at.Sub(now)
}
