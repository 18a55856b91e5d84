package adapter

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// linkGrace is how long the link may be lost before the user is told.
	linkGrace = 3 * time.Second
	// Back-off between tries to connect, before jitter.
	minPause = 100 * time.Millisecond
	maxPause = 10 * time.Second
	// crowdedPause is that after the vendor has closed a connection because there
	// are too many of the session.
	crowdedPause = 30 * time.Second
	// missedTime is how long it may take to read what was missed. Nobody reads the link
	// meanwhile, and one on which nothing is read for as long as silence is lost.
	missedTime = silence - 10*time.Second
	// maxDials is how many connections of all chats are made at a time.
	maxDials = 64
)

// errCrowded says that the vendor has closed a connection because the session has
// too many.
var errCrowded = errors.New("the vendor closed the connection: the session has too many")

// serve connects the chat to its conversation and keeps it connected, until the
// chat is closed or reading ends.
func (c *chat) serve() {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.serving = false
		if c.again {
			c.readAgain()
		}
		c.broadcast()
	}()
	c.mu.Lock()
	first := c.phase == opening
	c.mu.Unlock()
	err, connected := error(nil), time.Now()
	if first {
		l, failed := c.open()
		if failed != nil {
			c.close(failed)
			return
		}
		err = c.follow(l)
	}
	for c.reading.Err() == nil && !c.ends(err) {
		b := backoff{minPause / 2}
		if time.Since(connected) < maxPause {
			b.pause = 2 * minPause // a link that does not last is not hurried after
		}
		l := c.reconnect(b, err)
		if l == nil {
			return
		}
		connected = time.Now()
		err = c.follow(l)
	}
}

// ends tells whether an error means the end of the conversation, and if so queues it.
func (c *chat) ends(err error) bool {
	ended := (*endedError)(nil)
	if err = asEnded(err); !errors.As(err, &ended) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		c.shut(ended)
		return true
	}
	c.push(&occurrence{id: "ended", what: over{ended.reason}}, 0)
	return true
}

// open connects for the first time. What an earlier attempt has prepared may be gone
// since; it is then made anew, unless there is something to lose.
func (c *chat) open() (link, error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	l, err := c.connect()
	if ended := (*endedError)(nil); !errors.As(asEnded(err), &ended) {
		return l, err
	}
	c.mu.Lock()
	used := c.st.used()
	if !used {
		c.st = state{Mode: c.st.Mode}
	}
	c.mu.Unlock()
	if used {
		return nil, err
	}
	if err := c.prepare(); err != nil {
		return nil, err
	}
	return c.connect()
}

// prepare has the host store what the conversation is found again by.
func (c *chat) prepare() error {
	c.mu.Lock()
	st := c.st
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(c.reading, c.desk.timeouts.connect)
	defer cancel()
	changed, err := c.guest.prepare(ctx, &st)
	if err != nil || !changed {
		return err
	}
	c.mu.Lock()
	c.st = st
	c.mu.Unlock()
	// From here on another attempt finds the conversation. How long the host takes is
	// not the vendor's time.
	if err := c.keep(c.reading); err != nil {
		return sdk.Fail(sdk.Retry, "the host did not store how the conversation is found again: %w", err)
	}
	return nil
}

// connect makes a link and queues what was missed. The link is nil if there is
// nothing more to read.
func (c *chat) connect() (link, error) {
	select {
	case c.desk.dials <- struct{}{}:
	case <-c.reading.Done():
		return nil, &cloud.Error{Err: c.reading.Err()}
	}
	defer func() { <-c.desk.dials }()

	c.mu.Lock()
	st := c.st
	unclear := c.unsent
	if unclear != nil && unclear.written.IsZero() {
		unclear = nil
	}
	c.mu.Unlock()
	l, p, err := c.guest.connect(c.reading, &st)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linked, c.cut = context.WithCancel(c.reading)
	if c.phase == closed {
		return l, nil // follow closes it, as reading has ended
	}
	c.phase, c.link = opened, l
	c.caughtUp(p)
	c.lookUp(unclear)
	c.broadcast()
	return l, nil
}

// caughtUp queues what a connect has found.
func (c *chat) caughtUp(p *past) {
	for i := range p.happened {
		o := &p.happened[i]
		switch w := o.what.(type) {
		case wrote:
			c.noteOwn(own{o.id, o.at, w.messageID, w.text})
		default:
			if !c.st.past(o.at) {
				c.push(o, 0)
			}
		}
	}
	if c.away {
		c.away = false
		c.push(&occurrence{id: random("link"), what: linked{lost: false}}, 0)
	}
	if p.ended != nil {
		c.push(&occurrence{id: "ended", what: *p.ended}, 0)
		if c.ending {
			c.shut(&endedError{sdk.ChatOver, p.ended.reason})
		}
	}
}

// follow takes what the link reads, until it is lost.
func (c *chat) follow(l link) error {
	if l == nil {
		return nil
	}
	c.mu.Lock()
	linked, cut := c.linked, c.cut
	c.mu.Unlock()
	unregister := context.AfterFunc(linked, l.close)
	defer unregister()
	defer cut()
	for {
		happened, err := l.read(c.reading)
		for i := range happened {
			c.take(l, &happened[i])
		}
		if err != nil {
			l.close()
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.link == l {
				c.link = nil
			}
			return err
		}
	}
}

// reconnect makes a new link. It returns nil if there will be none.
func (c *chat) reconnect(b backoff, err error) (l link) {
	// unreached is for how long the vendor has not been. What the host takes is not
	// counted, nor is time in which the process stood still.
	unreached, most := time.Duration(0), c.desk.timeouts.reconnect
	for {
		c.desk.log.Debug("the link to a conversation is lost", "chat_id", c.id, "error", err)
		wait := min(b.next(err), most-unreached)
		unreached += wait
		if unreached > linkGrace {
			c.tellAway()
		}
		pause(c.reading, wait)
		if !c.roomLeft() {
			return nil
		}
		tried := time.Now()
		if l, err = c.connect(); err == nil {
			return l
		}
		unreached += min(time.Since(tried), c.desk.timeouts.connect)
		if c.reading.Err() != nil || c.ends(err) {
			return nil
		}
		if unreached >= most {
			c.desk.log.Warn("a conversation could not be reached and is given up", "chat_id", c.id, "for", unreached.Round(time.Second).String(), "error", err)
			c.ends(&endedError{sdk.ChatOver, "The connection to the contact centre was lost."})
			return nil
		}
	}
}

// roomLeft waits until the host has taken most of what is queued. It returns false
// if the chat ends first.
func (c *chat) roomLeft() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.await(c.reading, func() bool { return c.phase == closed || c.over || len(c.queue) <= maxQueued/2 })
	return err == nil && c.phase != closed && !c.over
}

// tellAway tells the user once that the link is lost.
func (c *chat) tellAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away || c.ending {
		return
	}
	c.away = true
	c.push(&occurrence{id: random("link"), what: linked{lost: true}}, 0)
}

// backoff spaces out tries, with jitter.
type backoff struct{ pause time.Duration }

// next returns the pause before the next try, longer each time, that respects what
// the vendor asked for in err.
func (b *backoff) next(err error) time.Duration {
	b.pause = min(2*b.pause, maxPause)
	wait := b.pause/2 + rand.N(b.pause)
	if e := (*cloud.Error)(nil); errors.As(err, &e) {
		wait = max(wait, e.RetryAfter)
	}
	if errors.Is(err, errCrowded) {
		wait = max(wait, crowdedPause+rand.N(crowdedPause))
	}
	return wait
}
