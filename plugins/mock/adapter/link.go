package adapter

import (
	"context"
	crand "crypto/rand"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/client"
	"github.com/deskhost/deskhost/plugins/mock/deskapi"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// linkGrace is how long the link may be lost before anybody is told.
	linkGrace = 3 * time.Second
	// Back-off between tries to reach the desk, before jitter.
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
	// catchUpTimeout bounds one catch-up call.
	catchUpTimeout = 10 * time.Second
)

// link is the state of the feed, guarded by the Desk's mutex.
type link struct {
	// lostAt is zero while the feed is open.
	lostAt time.Time
	err    error
	// told says that the loss has lasted longer than linkGrace.
	told bool
}

// follow keeps the feed open and hands its events to the chats.
func (d *Desk) follow() {
	d.lost(errors.New("not connected yet"))
	var pause backoff
	for d.reading.Err() == nil {
		feed, err := d.client.Feed(d.reading)
		if err == nil {
			d.back()
			pause.reset()
			err = d.read(feed)
			feed.Close()
		}
		d.lost(err)
		pause.wait(d.reading, err)
	}
}

// read hands over events until the feed ends.
func (d *Desk) read(feed *client.Feed) error {
	for {
		e, err := feed.Next()
		if err != nil {
			return err
		}
		d.mu.Lock()
		if c := d.chats[e.Key]; c != nil {
			d.offer(c, e)
		}
		d.mu.Unlock()
	}
}

// lost notes that the feed is not open. The chats are told once that has lasted
// for linkGrace.
func (d *Desk) lost(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.link.err = err
	if !d.link.lostAt.IsZero() {
		return
	}
	at := time.Now()
	d.link.lostAt = at
	time.AfterFunc(linkGrace, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.link.lostAt != at || d.reading.Err() != nil {
			return
		}
		d.link.told = true
		d.log.Warn("no link to the desk; trying on", "for", linkGrace.String(), "error", d.link.err)
		for _, c := range d.chats {
			if !c.starting && !c.resuming && !c.quiesced && !c.away {
				d.tellLink(c, deskapi.LinkLost)
			}
		}
	})
}

// back notes that the feed is open. Every chat may have missed something.
func (d *Desk) back() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link.told {
		d.log.Info("the link to the desk is back", "after", time.Since(d.link.lostAt).Round(time.Millisecond).String())
	}
	d.link = link{}
	for _, c := range d.chats {
		d.fallBehind(c)
	}
}

// tellLink queues the news that the link is lost or back for a chat.
func (d *Desk) tellLink(c *chat, kind string) {
	c.away = kind == deskapi.LinkLost
	d.push(c, news{
		event: &deskapi.Event{
			Conversation: c.conversation,
			Time:         time.Now(),
			Type:         deskapi.InTrouble,
			Trouble:      &deskapi.Trouble{Kind: kind},
		},
		id:   "link-" + crand.Text()[:16],
		away: c.away,
	})
}

// catchUp fetches what chats have missed, many in one call.
func (d *Desk) catchUp() {
	var pause backoff
	for {
		select {
		case <-d.wake:
		case <-d.reading.Done():
			return
		}
		for d.reading.Err() == nil {
			chats, after := d.takeBehind()
			if len(chats) == 0 {
				break
			}
			ctx, cancel := context.WithTimeout(d.reading, catchUpTimeout)
			histories, err := d.client.CatchUp(ctx, after)
			cancel()
			if err != nil {
				d.missed(chats, err)
				pause.wait(d.reading, err)
				continue
			}
			pause.reset()
			d.caughtUp(chats, after, histories)
		}
	}
}

// takeBehind returns some of the chats that have missed something, and the
// cursors behind which to read.
func (d *Desk) takeBehind() ([]*chat, map[string]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var chats []*chat
	after := map[string]uint64{}
	for c := range d.behind {
		if len(chats) == deskapi.MaxCatchUp {
			break
		}
		delete(d.behind, c)
		chats = append(chats, c)
		after[c.id] = c.taken
	}
	return chats, after
}

// missed notes that a catch-up failed. Who resumes is told; who is open already
// has it tried again.
func (d *Desk) missed(chats []*chat, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range chats {
		d.settle(c, failure(err))
		if c.resuming {
			d.drop(c)
		} else {
			d.fallBehind(c)
		}
	}
}

// caughtUp gives chats what they have missed. A desk that has less than it was
// asked to go on from is not the one that the cursor is of.
func (d *Desk) caughtUp(chats []*chat, after map[string]uint64, histories map[string]deskapi.History) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range chats {
		h, known := histories[c.id]
		known = known && (c.conversation == "" || c.conversation == h.ID) && after[c.id] <= h.Seq
		switch {
		case c.dropped || c.quiesced:
			// Not to be read any more.
		case !known && c.resuming:
			d.settle(c, sdk.Fail(sdk.ChatUnknown, "the desk does not know the conversation"))
			d.drop(c)
		case !known:
			d.gone(c)
		default:
			c.conversation, c.resuming = h.ID, false
			if c.away && d.link.lostAt.IsZero() {
				d.tellLink(c, deskapi.LinkBack)
			}
			for i := range h.Events {
				d.offer(c, &h.Events[i])
			}
			if h.More && !c.overflowed {
				d.fallBehind(c)
			}
			d.settle(c, nil)
		}
	}
}

// gone ends a chat that the desk does not know any more, behind what it said
// before.
func (d *Desk) gone(c *chat) {
	if c.ending {
		d.drop(c)
		return
	}
	c.quiesced = true // there is nothing more to read
	d.push(c, news{
		event: &deskapi.Event{
			Conversation: c.conversation,
			Time:         time.Now(),
			Type:         deskapi.Ended,
			Reason:       "The desk has lost this conversation.",
		},
		id:   c.conversation + "-gone",
		away: c.away,
	})
}

// backoff spaces out tries, with jitter.
type backoff struct{ pause time.Duration }

func (b *backoff) reset() { b.pause = 0 }

// wait returns after a pause, longer each time, that respects what the desk has
// asked for in err; or when ctx ends.
func (b *backoff) wait(ctx context.Context, err error) {
	b.pause = min(max(2*b.pause, minPause), maxPause)
	pause := b.pause/2 + rand.N(b.pause)
	if e := (*client.Error)(nil); errors.As(err, &e) {
		pause = max(pause, e.RetryAfter)
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
