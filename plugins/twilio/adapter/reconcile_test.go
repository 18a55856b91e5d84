package adapter

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/deskhost/deskhost/plugins/twilio/client"
	"github.com/deskhost/deskhost/sdk"
)

// conversation is one as it goes on at Twilio, written down at random.
type conversation struct {
	people   []client.Participant
	messages []client.Message
	index    int
	came     int
}

func (c *conversation) step(t *rapid.T) {
	switch rapid.IntRange(0, 5).Draw(t, "step") {
	case 0:
		c.came++
		c.people = append(c.people, client.Participant{SID: fmt.Sprint("MB", c.came), Identity: fmt.Sprint("agent", c.came)})
	case 1:
		if len(c.people) > 0 {
			i := rapid.IntRange(0, len(c.people)-1).Draw(t, "who leaves")
			c.people = slices.Delete(slices.Clone(c.people), i, i+1)
		}
	case 2:
		c.index += rapid.IntRange(0, 3).Draw(t, "hole")
		c.say("customer", "")
	case 3:
		c.say("system", "")
	default:
		if len(c.people) > 0 {
			p := rapid.SampledFrom(c.people).Draw(t, "who writes")
			c.say(p.Identity, p.SID)
		}
	}
}

func (c *conversation) say(author, participant string) {
	c.messages = append(c.messages, client.Message{
		SID: fmt.Sprint("IM", c.index), Index: c.index, Author: author, ParticipantSID: participant, Body: "x",
	})
	c.index++
}

// view is what a look makes of it, from the state on.
func (c *conversation) view(st *state) *view {
	v := &view{people: slices.Clone(c.people)}
	for _, m := range c.messages {
		if m.Index > st.Last {
			v.messages = append(v.messages, m)
		}
	}
	for _, p := range v.people {
		if st.agent(p.SID, "") < 0 {
			v.agents = append(v.agents, newcomer{person: person{p.SID, p.Identity}, name: p.Identity})
		}
	}
	for _, m := range v.messages {
		known := func(sid string) bool { return sid == m.ParticipantSID }
		if m.ParticipantSID != "" && st.agent(m.ParticipantSID, "") < 0 &&
			!slices.ContainsFunc(v.agents, func(n newcomer) bool { return known(n.SID) }) {
			v.agents = append(v.agents, newcomer{person: person{m.ParticipantSID, m.Author}, name: m.Author})
		}
	}
	return v
}

// However looks, webhooks and restarts interleave with what happens, the host is
// told every message once and in order, and nobody writes or leaves without
// having joined.
func TestReconciler(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &conversation{}
		st := newState("CH1", "customer")
		var told []news
		take := func(more []news) {
			// The host may have been told of a part only when the process dies.
			if rapid.IntRange(0, 9).Draw(t, "crash") == 0 && len(more) > 0 {
				more = more[:rapid.IntRange(0, len(more)-1).Draw(t, "told")]
			}
			for _, n := range more {
				told = append(told, n)
				st = n.state.clone()
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			c.step(t)
			switch rapid.IntRange(0, 3).Draw(t, "news") {
			case 0:
				take(compare(st, c.view(&st), &config{}))
			case 1:
				// A webhook brings one of the messages, any of them.
				if len(c.messages) > 0 {
					if more, all := follow(st, []client.Message{rapid.SampledFrom(c.messages).Draw(t, "webhook")}); all {
						take(more)
					}
				}
			}
		}
		v := c.view(&st)
		v.ended = true
		told = append(told, compare(st, v, &config{})...)

		ids, present, last := map[string]bool{}, map[string]bool{}, -1
		written := 0
		for i, n := range told {
			if n.payload == nil {
				continue
			}
			if ids[n.id] {
				t.Fatalf("%s is told twice", n.id)
			}
			ids[n.id] = true
			switch p := n.payload.(type) {
			case sdk.AgentJoined:
				present[p.Agent.ID] = true
			case sdk.AgentLeft:
				if !present[p.AgentID] {
					t.Fatalf("%s leaves without having joined", p.AgentID)
				}
				delete(present, p.AgentID)
			case sdk.MessageToUser:
				written++
				if p.AgentID != "desk" && !present[p.AgentID] {
					t.Fatalf("%s writes and is not there", p.AgentID)
				}
				if n.state.Last <= last {
					t.Fatalf("message %d comes behind %d", n.state.Last, last)
				}
				last = n.state.Last
			case sdk.AgentEndedChat:
				if i != len(told)-1 || !n.last {
					t.Fatal("the end is not the last")
				}
			}
		}
		for _, m := range c.messages {
			if m.Author != "customer" && !ids[m.SID] {
				t.Fatalf("message %d is lost", m.Index)
			}
		}
		if !ids["CH1-conversation-closed"] {
			t.Fatal("the end is not told")
		}
	})
}
