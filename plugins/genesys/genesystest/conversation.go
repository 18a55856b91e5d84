package genesystest

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/deskhost/deskhost/plugins/internal/console"
)

// conversation is what agents see of one chat. The server's lock guards it.
type conversation struct {
	id         string
	api        string // "Web Messaging" or "Web Chat"
	name       string // of the customer, if known
	attributes map[string]string
	guest      guest
	base       string // the simulator's URL, as the customer reaches it
	changed    time.Time
	typed      time.Time // when the customer last typed, without having written since
	// agent has joined and not left; next is who is to join by a transfer.
	agent, next string
	over        bool
	log         []console.Line
}

// guest is the customer's end of a conversation, by one of the two APIs. It is
// called with the server locked, and says to the customer what an agent does.
type guest interface {
	// ready tells why no agent can join yet.
	ready() error
	alerted(agent string)
	joined(agent string)
	left(agent string)
	typing(agent string, on bool)
	said(agent string, m *said)
	// ended is the agent's end of the conversation; the agent has been left out.
	ended()
	// spoil does what only this API can: expire and the like, see [Act].
	spoil(a *Act)
	connections() []*socket
}

// said is what an agent says, with what comes beside the text.
type said struct {
	text    string
	replies []string
	file    *file
	fileURL string
}

var (
	errOver      = errors.New("the conversation is over")
	errNoAgent   = errors.New("no agent has joined")
	errNotRouted = errors.New("routing has not begun: no event stream is attached")
)

// open makes a conversation.
func (s *Server) open(api, name, base string, attributes map[string]string, g guest) *conversation {
	c := &conversation{id: newID(), api: api, name: name, base: base, guest: g}
	s.all = append(s.all, c)
	s.byID[c.id] = c
	s.know(c, attributes)
	c.note("", "", "Conversation started")
	return c
}

// know adds what was learnt of the customer.
func (s *Server) know(c *conversation, attributes map[string]string) {
	for key, value := range attributes {
		if c.attributes == nil {
			c.attributes = map[string]string{}
		}
		c.attributes[key] = value
		switch key {
		case ChatIDAttribute:
			s.byChat[value] = c
		case nameAttribute:
			c.name = value
		}
	}
}

// find returns a conversation by the id of its chat, or its own.
func (s *Server) find(id string) (*conversation, error) {
	if c := s.byChat[id]; c != nil {
		return c, nil
	}
	if c := s.byID[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("no conversation has %q as its id or its %s", id, ChatIDAttribute)
}

func (c *conversation) note(from, who, text string) {
	c.changed = time.Now()
	c.log = append(c.log, console.Line{Time: c.changed, From: from, Who: who, Text: text})
}

// heard records what the customer says.
func (c *conversation) heard(text string) {
	c.typed = time.Time{}
	c.note("customer", "", text)
}

// join has an agent join, unless that one is there: by name, or else who a
// transfer named, or else the first.
func (s *Server) join(c *conversation, name string) error {
	if c.over {
		return errOver
	}
	name = cmp.Or(name, c.agent, c.next, s.options.Agents[0])
	if c.agent == name {
		return nil
	}
	if err := c.guest.ready(); err != nil {
		return err
	}
	if c.agent != "" {
		c.leave()
	}
	if c.next != name {
		c.guest.alerted(name)
	}
	c.agent, c.next = name, ""
	c.note("", "", name+" joined")
	c.guest.joined(name)
	return nil
}

// say has an agent say something, who joins for it if need be.
func (s *Server) say(c *conversation, name string, m *said) error {
	if err := s.join(c, name); err != nil {
		return err
	}
	var line []string
	if m.text != "" {
		line = append(line, m.text)
	}
	if m.file != nil {
		line = append(line, "["+m.file.name+"]")
	}
	for _, r := range m.replies {
		line = append(line, "["+r+"]")
	}
	c.note("agent", c.agent, strings.Join(line, " "))
	c.guest.said(c.agent, m)
	return nil
}

// leave has the agent leave a conversation that goes on.
func (c *conversation) leave() {
	agent := c.agent
	c.agent = ""
	c.note("", "", agent+" left")
	c.guest.left(agent)
}

// transfer takes the conversation from one agent to another, who joins later.
func (s *Server) transfer(c *conversation, to string) error {
	if c.over {
		return errOver
	}
	if c.agent == "" {
		return errNoAgent
	}
	for _, name := range s.options.Agents {
		if to == "" && name != c.agent {
			to = name
		}
	}
	if to == "" || to == c.agent {
		return errors.New("there is no other agent to transfer to")
	}
	c.leave()
	c.next = to
	c.note("", "", "Transferred to "+to)
	c.guest.alerted(to)
	return nil
}

// end is the agent's end of the conversation.
func (c *conversation) end() error {
	if c.over {
		return errOver
	}
	if c.agent != "" {
		c.leave()
	}
	c.finish("Ended by the agent")
	c.guest.ended()
	return nil
}

// finish closes the books on a conversation.
func (c *conversation) finish(how string) {
	c.over, c.typed, c.agent, c.next = true, time.Time{}, "", ""
	c.note("", "", how)
}
