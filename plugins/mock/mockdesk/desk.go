// Package mockdesk is a contact-centre desk that lives on its own, as real ones
// do: conversations with their histories, agents who follow a [Script], and a
// console on which a person plays the agent. Everything is in memory.
//
// It owns the desk's side of the conversations and serves them over HTTP, as
// package deskapi describes. It knows nothing of deskhost and its plugins: the
// plugin's "desk" command runs it as a server, its adapter runs one inside
// itself when it has no address, and tests import it.
package mockdesk

import (
	"crypto/rand"
	"net/http"
	"sync"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
)

const (
	// keepEnded is how many ended conversations are remembered.
	keepEnded = 20000
	// keepFeed is how many of the latest events a feed may lag behind. One that
	// lags further is cut, and its reader catches up by history.
	keepFeed = 16384
	// maxHistory bounds the events in one answer.
	maxHistory = 200
)

// Desk is a running desk. It is an http.Handler, see package deskapi.
type Desk struct {
	script *Script
	link   string
	routes *http.ServeMux
	done   chan struct{} // closed by Close

	// mu guards all that follows, and the conversations. It is held for steps
	// in memory only.
	mu            sync.Mutex
	closed        bool
	online        *bool
	conversations map[string]*conversation
	ended         []string // keys, oldest first
	faults        Faults
	calls         map[string]int // under these faults

	// feed holds the latest events of all conversations; feedBase is how many
	// there were before them.
	feed     []*deskapi.Event
	feedBase uint64
	// version counts changes that a console shows.
	version uint64
	// listeners are told, without waiting for them, that something happened.
	listeners map[chan struct{}]struct{}
}

// conversation is one chat at the desk, guarded by the Desk's mutex.
type conversation struct {
	key, id  string
	context  deskapi.Context
	start    *deskapi.StartRequest
	started  time.Time
	changed  time.Time
	over     bool
	events   []*deskapi.Event          // by seq: events[0] has seq 1
	messages map[string]*deskapi.Event // the user's, by id
	last     string                    // id of the user's last message
	// agent has joined and not left; next is announced by a transfer.
	agent, next *deskapi.Agent

	userTyping, agentTyping bool
	// userRead is the seq up to which the user has seen.
	userRead uint64
	// unread counts what the user wrote since the agent last read or wrote.
	unread int
	// preview is the last thing that either said.
	preview string

	// manual is set while a person at the console is the agent.
	manual bool
	// steps are what the script does next, once timer has fired.
	steps []Step
	timer *time.Timer
}

// New returns a desk that follows the script. In links of messages {desk}
// becomes publicURL, where the console is reached, with a slash at the end.
func New(script *Script, publicURL string) *Desk {
	if publicURL == "" {
		publicURL = "https://example.com/"
	}
	d := &Desk{
		script:        script,
		link:          publicURL,
		done:          make(chan struct{}),
		online:        script.Online,
		conversations: map[string]*conversation{},
		faults:        script.Faults,
		calls:         map[string]int{},
		listeners:     map[chan struct{}]struct{}{},
	}
	d.routes = d.handler()
	return d
}

// Close stops the agents. Feeds end, calls fail.
func (d *Desk) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	close(d.done)
	for _, c := range d.conversations {
		c.stop()
	}
	d.notify()
}

// open returns the conversation for a start, made if there is none yet.
func (d *Desk) open(key string, req *deskapi.StartRequest) (*conversation, error) {
	if c := d.conversations[key]; c != nil {
		if c.over {
			return nil, errOver
		}
		return c, nil
	}
	if d.online != nil && !*d.online {
		return nil, refused("Nobody is at the desk right now.")
	}
	c := &conversation{
		key:      key,
		id:       rand.Text()[:12],
		context:  req.Context,
		start:    req,
		started:  time.Now(),
		preview:  req.Text,
		messages: map[string]*deskapi.Event{},
	}
	d.conversations[key] = c
	d.add(c, &deskapi.Event{Type: deskapi.Started, Start: req})
	d.begin(c)
	return c, nil
}

// find returns a conversation that goes on.
func (d *Desk) find(key string) (*conversation, error) {
	c := d.conversations[key]
	if c == nil {
		return nil, errUnknown
	}
	if c.over {
		return nil, errOver
	}
	return c, nil
}

// take records a message of the user; once, if the desk can tell.
func (d *Desk) take(key string, m *deskapi.Message) (*deskapi.MessageTaken, error) {
	c := d.conversations[key]
	if c == nil {
		return nil, errUnknown
	}
	e := c.messages[m.ID]
	if e == nil || !d.script.Dedupe {
		if c.over {
			return nil, errOver
		}
		e = &deskapi.Event{Type: deskapi.UserMessage, MessageID: m.ID, Text: m.Text}
		d.add(c, e)
		c.messages[m.ID], c.last, c.userTyping = e, m.ID, false
		c.preview = m.Text
		c.unread++
		d.answer(c, m.Text)
	} else if e.Text != m.Text {
		return nil, errReused
	}
	return &deskapi.MessageTaken{ID: eventName(e)}, nil
}

// add appends an event to its conversation's history and to the feed.
func (d *Desk) add(c *conversation, e *deskapi.Event) {
	e.Seq = uint64(len(c.events)) + 1
	c.events = append(c.events, e)
	d.pass(c, e)
	if e.Last() {
		d.finish(c)
	}
}

// pass tells the feed only: passing news, and what add has appended.
func (d *Desk) pass(c *conversation, e *deskapi.Event) {
	e.Key, e.Conversation, e.Time = c.key, c.id, time.Now()
	c.changed = e.Time
	if len(d.feed) >= 2*keepFeed {
		d.feedBase += keepFeed
		d.feed = append([]*deskapi.Event(nil), d.feed[keepFeed:]...)
	}
	d.feed = append(d.feed, e)
	d.change()
}

// finish closes a conversation and forgets the oldest of those that are over.
func (d *Desk) finish(c *conversation) {
	c.stop()
	c.over, c.agent, c.next = true, nil, nil
	c.userTyping, c.agentTyping = false, false
	d.ended = append(d.ended, c.key)
	if len(d.ended) > keepEnded {
		delete(d.conversations, d.ended[0])
		d.ended = d.ended[1:]
	}
}

// history returns at most limit events behind a cursor. A cursor ahead of the
// conversation gets none.
func (c *conversation) history(after uint64, limit int) deskapi.History {
	h := deskapi.History{ID: c.id, Seq: uint64(len(c.events)), Events: []deskapi.Event{}}
	if after >= h.Seq {
		return h
	}
	from := c.events[after:]
	if len(from) > limit {
		from, h.More = from[:limit], true
	}
	for _, e := range from {
		h.Events = append(h.Events, *e)
	}
	return h
}

// change tells consoles and feeds that something is new.
func (d *Desk) change() {
	d.version++
	d.notify()
}

func (d *Desk) notify() {
	for l := range d.listeners {
		select {
		case l <- struct{}{}:
		default:
		}
	}
}

// listen returns a channel that gets a value after each change, or one for
// several, until the returned function is called.
func (d *Desk) listen() (changed <-chan struct{}, stop func()) {
	l := make(chan struct{}, 1)
	d.mu.Lock()
	d.listeners[l] = struct{}{}
	d.mu.Unlock()
	return l, func() {
		d.mu.Lock()
		delete(d.listeners, l)
		d.mu.Unlock()
	}
}
