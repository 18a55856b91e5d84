package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/deskhost/deskhost/host/internal/client"
)

const (
	// typingEvery is how often the desk is told that the user still types.
	typingEvery = 3 * time.Second
	// typingIdle is how long after the last key the user counts as not typing.
	typingIdle = 5 * time.Second
	// typingShown is how long an agent is shown typing who is not heard of again.
	typingShown = 15 * time.Second
	// endWithin is how long the entry of an end may take behind the answer.
	endWithin = 5 * time.Second
)

// conversation is one run of chat. Its goroutine, run, owns all of it; calls and
// the feed run beside it and hand it what is to be done next.
type conversation struct {
	options chatOptions
	client  *client.Client
	store   chatStore
	screen  screen

	ctx   context.Context // ends with run
	work  sync.WaitGroup
	todo  chan func() error
	input <-chan input // nil once it has ended

	state *chatState // nil while no chat is open or asked for
	// started is set when the host has answered the request for the chat.
	started bool
	// ending is set when the host has taken the user's end of the chat, and ended
	// when its entry has come, which may be before the request is answered.
	ending bool
	ended  bool
	// over is set when there is nothing more to do.
	over bool
	// offline is set while the host cannot be reached.
	offline bool
	// offered is set while another chat is offered instead of a lost one.
	offered bool

	// outgoing holds what the user wants done, in order; the first is under way
	// if sending is set.
	outgoing []outgoing
	sending  bool
	// texts are the user's messages by id, as far as this run knows them, and
	// unsettled those that were typed in it and whose outcome is not known.
	texts     map[string]string
	unsettled map[string]bool

	agentTypes string      // who types, or empty
	typing     *time.Timer // ends it
	userTypes  bool
	idle       *time.Timer // ends it
	toldTyping bool        // what the desk was told last
	toldAt     time.Time   // and when
	unread     bool        // the desk was not told yet that the last message is read
	hinting    bool        // it is being told something of this
	readShown  bool        // it is shown that the agent has read everything
}

// outgoing is a message to the agent, or with no id the end of the chat.
type outgoing struct{ id, text string }

// run talks until the chat is over, or the user leaves it.
func (c *conversation) run(ctx context.Context) error {
	defer c.work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.ctx = ctx
	c.input = c.screen.inputs()
	c.texts, c.unsettled = map[string]string{}, map[string]bool{}
	c.typing, c.idle = stoppedTimer(), stoppedTimer()

	if c.state == nil {
		c.begin()
	} else {
		c.resume()
	}
	for !c.over {
		var err error
		select {
		case next := <-c.todo:
			err = next()
		case in := <-c.input:
			err = c.take(in)
		case <-c.typing.C:
			c.agentTypes = ""
		case <-c.idle.C:
			c.userTypes = false
		case <-ctx.Done():
			c.over = true
		}
		if err != nil {
			return err
		}
		c.send()
		c.hint()
		c.showStatus()
		if c.input == nil && c.started && !c.ending && len(c.outgoing) == 0 && len(c.unsettled) == 0 {
			c.over = true
		}
	}
	return nil
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// beside makes a call in a goroutine of its own. What that returns is then done
// by run, unless it has ended.
func (c *conversation) beside(call func() func() error) {
	c.work.Go(func() { c.post(call()) })
}

// post hands run something to do and tells whether it was taken.
func (c *conversation) post(next func() error) bool {
	if c.ctx.Err() != nil {
		return false // What failed has failed of that.
	}
	select {
	case c.todo <- next:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// farewell tells what the end of run leaves behind.
func (c *conversation) farewell() {
	if c.state == nil {
		return
	}
	c.dropOutgoing("you left")
	if c.toldTyping {
		ctx, cancel := context.WithTimeout(context.Background(), farewellTimeout)
		defer cancel()
		_ = c.client.Typing(ctx, c.state.Session, false) // The desk stops showing it by itself, later.
	}
	c.screen.note("The chat stays open for a while; run the same command to go on.")
}

// begin makes a session and asks for a chat in it.
func (c *conversation) begin() {
	c.screen.note("Connecting to " + c.options.url + " …")
	request := client.NewSession{Desk: c.options.desk, Locale: c.options.locale}
	if c.options.name != "" {
		request.User = &client.User{Name: c.options.name}
	}
	c.beside(func() func() error {
		session, err := c.client.Create(c.ctx, request)
		if err != nil {
			return func() error { return c.explain("No chat", err) }
		}
		// Nobody depends on the answer: the desk decides about the chat itself.
		there, err := c.client.Availability(c.ctx, session)
		return func() error {
			c.state = &chatState{URL: c.options.url, Desk: c.options.desk, Session: session, RequestID: client.NewID()}
			if err == nil {
				c.showAvailability(there)
			}
			if err := c.store.save(c.state); err != nil {
				c.state = nil // The chat is not asked for.
				return err
			}
			c.request()
			return nil
		}
	})
}

func (c *conversation) showAvailability(a client.Availability) {
	text := describeWait(a.WaitMinutes, a.Position, a.Message)
	switch {
	case text != "":
	case a.Online == nil:
		return
	case *a.Online:
		text = "An agent is there."
	default:
		text = "Nobody is there at the moment."
	}
	c.screen.note(text)
}

// request asks for the chat, or asks again what a run before did not hear the
// answer to.
func (c *conversation) request() {
	c.follow()
	session, id := c.state.Session, c.state.RequestID
	c.beside(func() func() error {
		chatID, err := c.client.Start(c.ctx, session, id, c.options.text)
		return func() error {
			switch {
			case !c.isIn(session):
				return nil // Lost meanwhile.
			case client.Lost(err):
				return c.lost(session)
			case err != nil:
				return c.notStarted(err)
			}
			c.started = true
			c.state.ChatID = chatID
			if c.ended {
				return c.finish()
			}
			return c.store.save(c.state)
		}
	})
}

// notStarted ends the run of a chat that the host refused. One whose outcome is
// not known is kept, to be asked for again.
func (c *conversation) notStarted(err error) error {
	if p := (*client.Problem)(nil); errors.As(err, &p) && p.Final() {
		c.state = nil
		if err := c.store.remove(); err != nil {
			return err
		}
	}
	return c.explain("No chat", err)
}

// explain is an error of a call as the user should read it.
func (c *conversation) explain(what string, err error) error {
	var p *client.Problem
	switch {
	case errors.As(err, &p) && p.UserMessage != "":
		return fmt.Errorf("%s: %s", what, cleanLine(p.UserMessage, 500))
	case errors.As(err, &p):
		// What answers at a wrong address may be anything.
		return errors.New(cleanLine(fmt.Sprintf("%s: %s: %v", what, c.options.url, p), 500))
	}
	return fmt.Errorf("%s: %s cannot be reached: %w; is a deskhost running there?", what, c.options.url, err)
}

// resume goes on with the chat of an earlier run.
func (c *conversation) resume() {
	if c.state.ChatID == "" {
		c.screen.note("Asking " + c.options.url + " again for your chat …")
		c.request()
		return
	}
	with := ""
	if c.state.People.Present != "" {
		with = " with " + c.state.People.name("")
	}
	c.screen.note("Going on with your chat" + with + " at " + c.options.url + " …")
	c.started = true
	c.follow()
}

// isIn tells whether the chat is still that of a session.
func (c *conversation) isIn(s client.Session) bool { return c.state != nil && c.state.Session == s }

// follow has the entries of the session shown as they come.
func (c *conversation) follow() {
	session, cursor := c.state.Session, c.state.Cursor
	// in has run do something if the session is still the present one, and waits.
	in := func(do func() error) error {
		done := make(chan error, 1)
		if !c.post(func() error {
			if !c.isIn(session) {
				done <- context.Canceled
				return nil
			}
			err := do()
			done <- err
			return err
		}) {
			return c.ctx.Err()
		}
		return <-done
	}
	c.beside(func() func() error {
		err := c.client.Follow(c.ctx, session, cursor, func(e client.Entry) error {
			return in(func() error { return c.show(e) })
		}, func(online bool) {
			_ = in(func() error { // Nothing of it fails; who has left needs no news.
				c.setOffline(!online)
				return nil
			})
		})
		return func() error {
			switch {
			case !c.isIn(session):
				return nil
			case client.Lost(err):
				return c.lost(session)
			}
			return err
		}
	})
}

func (c *conversation) setOffline(offline bool) {
	if c.offline == offline {
		return
	}
	c.offline = offline
	if offline {
		c.agentTypes = ""
		c.screen.note("The host cannot be reached; trying again …")
	} else {
		c.screen.note("The host is back.")
	}
}

// show shows an entry and moves the cursor behind it.
func (c *conversation) show(e client.Entry) error {
	text, quiet := describe(e, &c.state.People)
	switch e.Type {
	case "agent_typing":
		c.agentTypes = ""
		if e.Typing {
			c.agentTypes = c.state.People.name(e.AgentID)
			c.typing.Reset(typingShown)
		}
	case "agent_joined":
		if e.Agent != nil {
			c.state.People.join(e.Agent)
		}
	case "agent_left":
		c.agentTypes = ""
		c.state.People.leave(e.AgentID)
	case "desk_away", "transfer_started":
		c.agentTypes = ""
	case "message":
		c.readShown = false
		if e.From == "agent" {
			c.agentTypes, c.unread = "", true
			break
		}
		// Where the user has typed it, it stands there already.
		if _, mine := c.texts[e.ID]; mine && c.screen.interactive() {
			text = ""
		}
		c.texts[e.ID] = e.Text
	case "message_status":
		delete(c.unsettled, e.ID)
		if e.Status != "delivered" {
			text, quiet = describeOutcome(c.texts[e.ID], e.Status, e.Reason), true
		}
	case "agent_read":
		if !c.readShown && len(c.texts) > 0 {
			text, quiet = "Your message was read.", true
		}
		c.readShown = true
	}
	c.showStatus()
	switch {
	case text == "":
	case quiet:
		c.screen.note(text)
	default:
		c.screen.say(text)
	}
	if e.Type == "chat_ended" {
		c.ended = true
		if c.started {
			return c.finish()
		}
		return nil // The answer to the request finishes it.
	}
	if e.Seq == 0 {
		return nil
	}
	c.state.Cursor = e.Seq
	return c.store.save(c.state)
}

// finish forgets the chat, whose end has been shown.
func (c *conversation) finish() error {
	c.dropOutgoing("the chat is over")
	c.state, c.ended, c.over = nil, true, true
	return c.store.remove()
}

// lost gives up a chat of which the host knows nothing more, and offers another.
func (c *conversation) lost(session client.Session) error {
	if !c.isIn(session) {
		return nil // Known already.
	}
	c.dropOutgoing("the chat is lost")
	c.state, c.started, c.ending, c.ended, c.offline = nil, false, false, false, false
	c.agentTypes, c.unread, c.toldTyping = "", false, false
	if err := c.store.remove(); err != nil {
		return err
	}
	if !c.screen.interactive() {
		return errors.New("the host knows this chat no more: its data is gone; run the command again for a new chat")
	}
	c.screen.note("The host knows this chat no more: its data is gone.")
	c.screen.note("Press Enter for a new chat, Ctrl-D to leave.")
	c.offered = true
	return nil
}

// dropOutgoing gives up what the host has not taken.
func (c *conversation) dropOutgoing(reason string) {
	for i, o := range c.outgoing {
		if o.id == "" {
			continue
		}
		status := "failed"
		if i == 0 && c.sending {
			status = "unknown"
		}
		c.screen.note(describeOutcome(o.text, status, reason))
	}
	c.outgoing, c.sending = nil, false
	clear(c.unsettled)
}

// take does what the user wants.
func (c *conversation) take(in input) error {
	if in.kind == inputKey {
		c.userTypes = true
		c.idle.Reset(typingIdle)
		return nil
	}
	c.userTypes = false
	c.idle.Stop()
	line := strings.TrimSpace(in.line)
	switch {
	case in.err != nil:
		return fmt.Errorf("the input cannot be read: %w", in.err)
	case in.kind == inputEnd, line == "/quit":
		// A person leaves at once, a script once everything is said.
		c.input, c.over = nil, c.screen.interactive()
		return nil
	case c.offered:
		c.offered = false
		c.begin()
	}
	switch line {
	case "":
	case "/end":
		c.outgoing = append(c.outgoing, outgoing{})
	default:
		id := client.NewID()
		c.texts[id], c.unsettled[id] = line, true
		c.outgoing = append(c.outgoing, outgoing{id, line})
	}
	return nil
}

// send has the host take what the user wants done, one after the other.
func (c *conversation) send() {
	if !c.started || c.ended || c.sending || len(c.outgoing) == 0 {
		return
	}
	c.sending = true
	session, next := c.state.Session, c.outgoing[0]
	c.beside(func() func() error {
		var err error
		if next.id == "" {
			err = c.client.End(c.ctx, session)
		} else {
			err = c.client.Send(c.ctx, session, next.id, next.text)
		}
		return func() error {
			switch {
			case !c.isIn(session):
				return nil
			case client.Lost(err):
				return c.lost(session)
			}
			c.outgoing, c.sending = c.outgoing[1:], false
			switch {
			case next.id == "" && err == nil:
				c.ending = true
				c.awaitEnd(session)
			case next.id == "":
				return c.explain("The chat could not be ended", err)
			case err != nil:
				delete(c.unsettled, next.id)
				c.screen.note(describeRefusal(next.text, err))
			}
			return nil
		}
	})
}

// awaitEnd leaves the end, which the host has answered to, some time to arrive
// behind all that was said before it.
func (c *conversation) awaitEnd(session client.Session) {
	c.beside(func() func() error {
		timer := time.NewTimer(endWithin)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.ctx.Done():
		}
		return func() error {
			if !c.isIn(session) {
				return nil
			}
			c.screen.note("You ended the chat.")
			return c.finish()
		}
	})
}

// hint tells the desk, one call at a time, what nobody has to wait for: that the
// user types, and has read.
func (c *conversation) hint() {
	if !c.started || c.ended || c.hinting {
		return
	}
	session := c.state.Session
	var tell func() error
	switch {
	case c.userTypes != c.toldTyping, c.userTypes && time.Since(c.toldAt) > typingEvery:
		typing := c.userTypes
		c.toldTyping, c.toldAt = typing, time.Now()
		tell = func() error { return c.client.Typing(c.ctx, session, typing) }
	case c.unread:
		c.unread = false
		tell = func() error { return c.client.Read(c.ctx, session) }
	default:
		return
	}
	c.hinting = true
	c.beside(func() func() error {
		err := tell()
		return func() error {
			c.hinting = false
			if client.Lost(err) {
				return c.lost(session)
			}
			return nil // By another try it would be out of date.
		}
	})
}

func (c *conversation) showStatus() {
	switch {
	case c.offline:
		c.screen.status("(offline)")
	case c.agentTypes != "":
		c.screen.status(c.agentTypes + " is typing …")
	default:
		c.screen.status("")
	}
}
