package mockdesk

import (
	"strings"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
)

// deskLink stands for the desk's own address in the links of messages.
const deskLink = "{desk}"

// begin has the script receive a new conversation.
func (d *Desk) begin(c *conversation) {
	if d.script.OnStart != nil {
		d.queue(c, "", d.script.OnStart...)
		d.play(c)
		return
	}
	if q := d.script.Queue; q != nil {
		step := q.Step
		if step == 0 {
			step = Millis(time.Second)
		}
		if q.Position == 0 {
			c.steps = append(c.steps, Step{Availability: queued(0, q.WaitMinutes, q.Message)}, Step{Wait: step})
		}
		for p := q.Position; p > 0; p-- {
			wait := (q.WaitMinutes*p + q.Position - 1) / q.Position
			c.steps = append(c.steps, Step{Availability: queued(p, wait, q.Message)}, Step{Wait: step})
		}
	}
	if !d.script.Console {
		first := ""
		c.steps = append(c.steps, Step{Wait: d.script.JoinDelay}, Step{Join: &first})
	}
	d.play(c)
}

func queued(position, wait int, message string) *deskapi.Availability {
	a := &deskapi.Availability{Message: message}
	if position > 0 {
		a.Position = &position
	}
	if wait > 0 {
		a.WaitMinutes = &wait
	}
	return a
}

// answer has the script answer a message of the user.
func (d *Desk) answer(c *conversation, text string) {
	if c.manual || d.script.Console {
		return
	}
	if r := d.script.rule(text); r != nil {
		d.queue(c, text, r.Do...)
	} else if d.script.Answer != "" {
		said := Step{Say: d.script.Answer}
		if d.script.Typing > 0 {
			d.queue(c, text, Step{TypingFor: d.script.Typing, answers: true})
		}
		said.answers = true
		d.queue(c, text, said)
	}
	if n := len(c.messages); n == d.script.LeaveAfter {
		c.steps = append(c.steps, Step{Leave: true})
	}
	if n := len(c.messages); n == d.script.EndAfter {
		c.steps = append(c.steps, Step{End: new(string)})
	}
	d.play(c)
}

// queue appends steps, filled in for the user's message they answer.
func (d *Desk) queue(c *conversation, text string, steps ...Step) {
	for _, st := range steps {
		st.Say = strings.ReplaceAll(st.Say, "{text}", text)
		if t := st.Trouble; t != nil && t.Kind == deskapi.MessageFailed {
			st.Trouble = &deskapi.Trouble{Kind: t.Kind, Message: t.Message, MessageID: c.last}
		}
		if ms := st.TypingFor; ms > 0 {
			on, off := true, false
			c.steps = append(c.steps, Step{Typing: &on, answers: st.answers}, Step{Wait: ms, answers: st.answers},
				Step{Typing: &off, answers: st.answers})
			continue
		}
		c.steps = append(c.steps, st)
	}
}

// play does the steps that are due, up to the next wait.
func (d *Desk) play(c *conversation) {
	for c.timer == nil && len(c.steps) > 0 && !d.closed {
		st := c.steps[0]
		c.steps = c.steps[1:]
		switch {
		case st.answers && c.agent == nil:
			// Nobody is there who could answer.
		case st.Wait > 0:
			var t *time.Timer
			t = time.AfterFunc(time.Duration(st.Wait), func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				if c.timer == t { // else the script was stopped meanwhile
					c.timer = nil
					d.play(c)
				}
			})
			c.timer = t
		default:
			d.do(c, &st)
		}
	}
}

// stop drops what the script had in mind.
func (c *conversation) stop() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.steps = nil
}

// do performs one step. Waits, and typing for a time, are play's.
func (d *Desk) do(c *conversation, st *Step) {
	switch {
	case st.Say != "":
		d.say(c, []deskapi.Part{{Type: "text", Text: st.Say}})
	case len(st.Message) > 0:
		d.say(c, st.Message)
	case st.Typing != nil:
		d.typing(c, *st.Typing)
	case st.Join != nil:
		d.join(c, *st.Join)
	case st.Transfer != nil:
		d.transfer(c, *st.Transfer)
	case st.Leave:
		if c.agent != nil {
			d.typing(c, false)
			d.add(c, &deskapi.Event{Type: deskapi.AgentLeft, AgentID: c.agent.ID})
			c.agent = nil
		}
	case st.End != nil:
		d.typing(c, false)
		d.add(c, &deskapi.Event{Type: deskapi.Ended, By: "agent", Reason: *st.End})
	case st.Read:
		c.unread = 0
		d.add(c, &deskapi.Event{Type: deskapi.AgentRead})
	case st.Availability != nil:
		d.pass(c, &deskapi.Event{Type: deskapi.InQueue, Availability: st.Availability})
	case st.Capabilities != nil:
		d.add(c, &deskapi.Event{Type: deskapi.Capable, Capabilities: st.Capabilities})
	case st.Trouble != nil:
		d.add(c, &deskapi.Event{Type: deskapi.InTrouble, Trouble: st.Trouble})
	}
}

func (d *Desk) say(c *conversation, parts []deskapi.Part) {
	shown := make([]deskapi.Part, len(parts))
	for i, p := range parts {
		p.URL = strings.ReplaceAll(p.URL, deskLink, d.link)
		shown[i] = p
	}
	d.typing(c, false)
	e := &deskapi.Event{Type: deskapi.AgentMessage, Parts: shown}
	if c.agent != nil {
		e.AgentID = c.agent.ID
	}
	c.unread = 0
	for _, p := range parts {
		c.preview = p.Text
		if p.Text == "" {
			c.preview = "[" + p.Type + "]"
		}
	}
	d.add(c, e)
}

func (d *Desk) typing(c *conversation, on bool) {
	if c.agentTyping == on {
		return
	}
	c.agentTyping = on
	e := &deskapi.Event{Type: deskapi.AgentTyping, Typing: on}
	if c.agent != nil {
		e.AgentID = c.agent.ID
	}
	d.pass(c, e)
}

func (d *Desk) join(c *conversation, id string) {
	a := d.script.agent(id)
	if a == nil {
		a = c.next
	}
	if a == nil {
		a = &d.script.Agents[0]
	}
	c.agent, c.next = a, nil
	d.add(c, &deskapi.Event{Type: deskapi.AgentJoined, Agent: a})
}

func (d *Desk) transfer(c *conversation, id string) {
	to := d.script.agent(id)
	if to == nil {
		to = d.script.agentAfter(c.agent)
	}
	d.typing(c, false)
	c.agent, c.next = nil, to
	d.add(c, &deskapi.Event{Type: deskapi.Transfer, Agent: to})
}

// perform does the steps of a person at the console, who takes the conversation
// over from the script.
func (d *Desk) perform(key, agentID string, steps []Step) error {
	if d.script.agent(agentID) == nil {
		return invalid("no such agent")
	}
	for i := range steps {
		st := &steps[i]
		if err := d.script.checkStep(st); err != nil {
			return invalid(err.Error())
		}
		if st.Wait > 0 || st.TypingFor > 0 {
			return invalid("a console does its own waiting")
		}
	}
	c, err := d.find(key)
	if err != nil {
		return err
	}
	if !c.manual {
		c.stop()
		d.typing(c, false)
		c.manual = true
	}
	for i := range steps {
		st := &steps[i]
		speaks := st.Say != "" || len(st.Message) > 0 || st.Typing != nil && *st.Typing
		if speaks && (c.agent == nil || c.agent.ID != agentID) {
			d.join(c, agentID)
		}
		if t := st.Trouble; t != nil && t.Kind == deskapi.MessageFailed {
			t.MessageID = c.last
		}
		d.do(c, st)
		if c.over {
			return nil
		}
		if st.Transfer != nil && !d.script.Console {
			// The colleague is played by the script.
			c.manual = false
			id := c.next.ID
			c.steps = append(c.steps, Step{Wait: d.script.JoinDelay}, Step{Join: &id})
			d.play(c)
		}
	}
	return nil
}
