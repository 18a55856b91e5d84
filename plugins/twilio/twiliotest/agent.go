package twiliotest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/deskhost/deskhost/sdk/desktest"
)

// studioFlow is the flow of the address, and the author of what it says.
const studioFlow = "FW00000000000000000000000000000001"

// agent is somebody at the desk.
type agent struct{ identity, name string }

// agents take conversations by turns. Their identities are escaped as Flex
// escapes those of its workers.
var (
	agents = []agent{
		{"ada_40example_2Ecom", "Ada"},
		{"grace_40example_2Ecom", "Grace"},
		{"barbara_40example_2Ecom", "Barbara"},
	}
	supervisor = agent{"edith_40example_2Ecom", "Edith"}
)

// bot is a participant that is no agent.
const bot = "helper-bot"

var _ desktest.Script = (*Simulator)(nil)

// errNoChat says that a script names a chat that is not there.
var errNoChat = errors.New("no conversation has this deskhost_chat_id in its attributes")

// heard has the flow of an address, or of a parked conversation, call an agent
// for what the customer has said.
func (s *Simulator) heard(c *conversation) {
	if c.openTask() != nil || c.interaction == nil && !c.webChat {
		return
	}
	if c.interaction == nil && s.opts.Greeting != "" {
		s.post(c, studioFlow, s.opts.Greeting, "{}", nil, actor{source: "API"})
	}
	var attributes map[string]any
	if c.interaction != nil {
		attributes = c.interaction.routing
	}
	s.call(c, attributes)
}

// end closes an interaction, as Flex does for the agent or a caller: with it go
// the task and the conversation.
func (s *Simulator) end(c *conversation, by actor) {
	s.finishTask(c)
	if c.interaction != nil {
		c.interaction.status = stateClosed
	}
	s.setState(c, stateClosed, by)
}

// Conversations returns the sids of the conversations that a chat has had.
func (s *Simulator) Conversations(chatID string) (sids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.chats[chatID] {
		sids = append(sids, c.Sid)
	}
	return sids
}

// with does something in the latest conversation of a chat that is open, or
// else the latest. A conversation goes by its sid too.
func (s *Simulator) with(chatID string, do func(c *conversation) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.conversations[chatID]; c != nil {
		return do(c)
	}
	all := s.chats[chatID]
	if len(all) == 0 {
		return errNoChat
	}
	c := all[len(all)-1]
	for _, other := range all {
		if other.State != stateClosed {
			c = other
		}
	}
	return do(c)
}

// within does something in a conversation that is open.
func (s *Simulator) within(chatID string, do func(c *conversation) error) error {
	return s.with(chatID, func(c *conversation) error {
		if c.State == stateClosed {
			return fmt.Errorf("conversation %s is closed", c.Sid)
		}
		return do(c)
	})
}

// agent returns who has the conversation, or nil.
func (c *conversation) agent() *participant {
	for _, p := range c.participants {
		if p.kind == typeAgent {
			return p
		}
	}
	return nil
}

// sdk is what somebody does with the vendor's own SDK, which fires webhooks.
func sdk(identity string) actor { return actor{source: "SDK", identity: identity} }

// join lets an agent take the open task.
func (s *Simulator) join(c *conversation, a agent) (*participant, error) {
	p, t := c.participant(a.identity), c.openTask()
	if p == nil && t == nil {
		return nil, fmt.Errorf("nobody was called to conversation %s: it has no interaction, and no message of its customer came with "+
			"X-Twilio-Webhook-Enabled: true", c.Sid)
	}
	if t != nil {
		t.AssignmentStatus, t.DateUpdated = "assigned", now()
	}
	if p != nil {
		return p, nil
	}
	c.latest = a.identity
	return s.add(c, a.identity, typeAgent, actor{source: "API"}), nil
}

// present returns the agent whose turn it is in the conversation: who has it,
// or the next.
func (c *conversation) present() agent {
	if p := c.agent(); p != nil {
		return agents[slices.IndexFunc(agents, func(a agent) bool { return a.identity == p.Identity })]
	}
	return c.next()
}

// next returns the agent who is to join: whoever comes after the last who did.
func (c *conversation) next() agent {
	return agents[(slices.IndexFunc(agents, func(a agent) bool { return a.identity == c.latest })+1)%len(agents)]
}

// speak has an agent write, who joins first if need be.
func (s *Simulator) speak(c *conversation, a agent, text string) error {
	p, err := s.join(c, a)
	if err != nil {
		return err
	}
	s.post(c, p.Identity, text, "{}", nil, sdk(p.Identity))
	return nil
}

// AgentJoins has an agent take the conversation. It fails if nobody was called.
func (s *Simulator) AgentJoins(_ context.Context, chatID string) error {
	return s.within(chatID, func(c *conversation) error {
		_, err := s.join(c, c.present())
		return err
	})
}

// AgentSays has an agent write, who joins first if none has.
func (s *Simulator) AgentSays(_ context.Context, chatID, text string) error {
	return s.within(chatID, func(c *conversation) error { return s.speak(c, c.present(), text) })
}

// AgentEnds has the agent close the conversation.
func (s *Simulator) AgentEnds(_ context.Context, chatID string) error {
	return s.within(chatID, func(c *conversation) error {
		s.end(c, actor{source: "API"})
		return nil
	})
}

// Heard returns what the customer wrote.
func (s *Simulator) Heard(_ context.Context, chatID string) (texts []string, err error) {
	err = s.with(chatID, func(c *conversation) error {
		all := []*conversation{c}
		if c.chatID != "" {
			all = s.chats[c.chatID] // a chat that has two is heard in both
		}
		for _, c := range all {
			for _, m := range c.messages {
				if c.customer != nil && m.Author == c.customer.Identity && m.Body != nil {
					texts = append(texts, *m.Body)
				}
			}
		}
		return nil
	})
	return texts, err
}

// FailNextCall has one call refused as too many.
func (s *Simulator) FailNextCall(_ context.Context, call desktest.Call) error {
	s.Fail(Fault{Call: call, Status: http.StatusTooManyRequests, Code: codeTooMany, RetryAfter: time.Second})
	return nil
}

// StallNextCall has one call answered late. It is carried out at once.
func (s *Simulator) StallNextCall(_ context.Context, call desktest.Call, late time.Duration) error {
	s.Fail(Fault{Call: call, Late: late})
	return nil
}

// AgentLeaves has the agent go with nobody to follow.
func (s *Simulator) AgentLeaves(chatID string) error {
	return s.within(chatID, func(c *conversation) error { return s.depart(c, c.agent()) })
}

// depart has an agent go, and the task end if nobody is left.
func (s *Simulator) depart(c *conversation, p *participant) error {
	if p == nil {
		return fmt.Errorf("the agent is not in conversation %s", c.Sid)
	}
	s.leave(c, p, sdk(p.Identity))
	if c.agent() == nil {
		s.finishTask(c)
	}
	return nil
}

// Park has the agent go until the customer writes again, which calls the next.
func (s *Simulator) Park(chatID string) error {
	return s.within(chatID, func(c *conversation) error {
		if err := s.depart(c, c.agent()); err != nil {
			return err
		}
		s.setState(c, stateInactive, actor{source: "API"})
		return nil
	})
}

// Transfer hands the conversation to the next agent, who joins before the one
// who has it leaves, or after.
func (s *Simulator) Transfer(chatID string, joinsFirst bool) error {
	return s.within(chatID, func(c *conversation) error { return s.transfer(c, c.agent(), c.next(), joinsFirst) })
}

func (s *Simulator) transfer(c *conversation, from *participant, to agent, joinsFirst bool) error {
	if from == nil || from.Identity == to.identity {
		return fmt.Errorf("the agent is not in conversation %s, or is to have it", c.Sid)
	}
	s.finishTask(c)
	s.call(c, c.interaction.routing)
	if !joinsFirst {
		s.leave(c, from, sdk(from.Identity))
	}
	_, err := s.join(c, to)
	if err == nil && joinsFirst {
		s.leave(c, from, sdk(from.Identity))
	}
	return err
}

// AgentReads has the agent read all that was said.
func (s *Simulator) AgentReads(chatID string) error {
	return s.within(chatID, func(c *conversation) error {
		p := c.agent()
		if p == nil || len(c.messages) == 0 {
			return fmt.Errorf("conversation %s has no agent, or nothing to read", c.Sid)
		}
		index := c.messages[len(c.messages)-1].Index
		s.update(c, p, &index, sdk(p.Identity))
		return nil
	})
}

// SupervisorJoins has a supervisor look in, who is no agent of the conversation.
func (s *Simulator) SupervisorJoins(chatID string) error {
	return s.within(chatID, func(c *conversation) error {
		if c.participant(supervisor.identity) != nil {
			return fmt.Errorf("the supervisor is in conversation %s", c.Sid)
		}
		s.add(c, supervisor.identity, typeSupervisor, actor{source: "API"})
		return nil
	})
}

// BotSays has a bot write, which joins first if it has not.
func (s *Simulator) BotSays(chatID, text string) error {
	return s.within(chatID, func(c *conversation) error {
		if c.participant(bot) == nil {
			s.add(c, bot, typeUnknown, actor{source: "API"})
		}
		s.post(c, bot, text, "{}", nil, actor{source: "API"})
		return nil
	})
}

// SystemSays has a message come from the account itself: of the author "system",
// who is no participant.
func (s *Simulator) SystemSays(chatID, text string) error {
	return s.within(chatID, func(c *conversation) error {
		s.post(c, "system", text, "{}", nil, actor{source: "API"})
		return nil
	})
}

// LastWords has the agent write and close the conversation, and the webhook of
// the end overtake that of the message.
func (s *Simulator) LastWords(chatID, text string) error {
	return s.within(chatID, func(c *conversation) error {
		if err := s.speak(c, c.present(), text); err != nil {
			return err
		}
		for _, d := range c.outbox.queue {
			if d.event == "onMessageAdded" {
				d.due = d.due.Add(shuffleTime)
			}
		}
		s.end(c, actor{source: "API"})
		return nil
	})
}

// Remove deletes the conversation: calls for it answer 404.
func (s *Simulator) Remove(chatID string) error {
	return s.within(chatID, func(c *conversation) error {
		s.remove(c, actor{source: "API"})
		return nil
	})
}

// SkipIndexes leaves a hole before the next message.
func (s *Simulator) SkipIndexes(chatID string, n int) error {
	return s.within(chatID, func(c *conversation) error {
		c.nextIndex += n
		return nil
	})
}

// SetForeignPages has next_page_url name another origin, such as
// https://elsewhere.example; empty is the simulator's own.
func (s *Simulator) SetForeignPages(origin string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.foreign = origin
}
