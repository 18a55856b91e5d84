package twiliotest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/deskhost/deskhost/plugins/internal/console"
)

// page returns the page on which a person plays the agents.
func (s *Simulator) page() http.Handler {
	names := make([]string, len(agents))
	for i, a := range agents {
		names[i] = a.name
	}
	return console.New(console.Options{
		Title:  "Twilio Flex simulator",
		Agents: names,
		More: []console.Button{
			{Do: "agent_reads", Label: "Mark as read"},
			{Do: "park", Label: "Park"},
			{Do: "supervisor_joins", Label: "Supervisor looks in"},
			{Do: "bot_says", Label: "Say as bot"},
			{Do: "system_says", Label: "Say as system"},
			{Do: "last_words", Label: "Last words, overtaken by the end"},
			{Do: "remove", Label: "Remove the conversation"},
		},
	}, desk{s})
}

// desk is the simulator as the agents' page sees it.
type desk struct{ s *Simulator }

// Conversations returns all conversations, the latest first.
func (d desk) Conversations() []console.Conversation {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	shown := make([]console.Conversation, 0, len(d.s.all))
	for _, c := range slices.Backward(d.s.all) {
		shown = append(shown, d.s.onPage(c))
	}
	return shown
}

// onPage returns a conversation as the agents' page shows it.
func (s *Simulator) onPage(c *conversation) console.Conversation {
	shown := console.Conversation{
		ID: c.Sid, State: console.Waiting,
		Facts: []console.Fact{
			{Name: "Conversation", Value: c.Sid}, {Name: "Webhooks", Value: fmt.Sprint(len(c.hooks))},
		},
	}
	if c.customer != nil {
		shown.Name = s.nameOf(c.customer.Identity)
	}
	if p := c.agent(); p != nil {
		shown.State, shown.Agent = console.Connected, s.nameOf(p.Identity)
	}
	if c.State == stateClosed {
		shown.State = console.Ended
	}
	if t := c.openTask(); t != nil {
		shown.Facts = append(shown.Facts, console.Fact{Name: "Task", Value: t.AssignmentStatus + " " + t.Sid})
	}
	shown.Facts = append(shown.Facts, c.facts...)
	for _, l := range slices.Backward(c.log) {
		shown.Preview, shown.Changed = cmp.Or(shown.Preview, l.Text), c.log[len(c.log)-1].Time
		if l.From != "" {
			shown.Preview = l.Text
			break
		}
	}
	return shown
}

// factsOf returns what attributes tell of a customer, those of the form that he
// has filled in last.
func factsOf(attributes string) (facts []console.Fact) {
	var all map[string]any
	_ = json.Unmarshal([]byte(attributes), &all) // which are an object
	form, _ := all["pre_engagement_data"].(map[string]any)
	delete(all, "pre_engagement_data")
	for _, of := range []map[string]any{all, form} {
		for _, name := range slices.Sorted(maps.Keys(of)) {
			facts = append(facts, console.Fact{Name: name, Value: fmt.Sprint(of[name])})
		}
	}
	return facts
}

// Transcript returns what happened in a conversation, without the first so many
// lines.
func (d desk) Transcript(id string, after int) []console.Line {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	i := slices.IndexFunc(d.s.all, func(c *conversation) bool { return c.Sid == id })
	if i < 0 {
		return nil
	}
	log := d.s.all[i].log
	return slices.Clone(log[min(after, len(log)):])
}

// Do has the agent of an action do it; what only this desk can do goes by the
// words of its script.
func (d desk) Do(a console.Action) error {
	i := slices.IndexFunc(agents, func(other agent) bool { return other.name == a.Agent })
	if i < 0 {
		return fmt.Errorf("there is no agent %q", a.Agent)
	}
	me := agents[i]
	switch a.Do {
	case console.Typing, console.StopTyping:
		return nil // it has no webhook, so nobody would hear of it
	case console.Join:
		return d.s.within(a.Conversation, func(c *conversation) error {
			_, err := d.s.join(c, me)
			return err
		})
	case console.Say:
		return d.s.within(a.Conversation, func(c *conversation) error { return d.s.speak(c, me, a.Text) })
	case console.Leave:
		return d.s.within(a.Conversation, func(c *conversation) error { return d.s.depart(c, c.participant(me.identity)) })
	case console.End:
		return d.s.within(a.Conversation, func(c *conversation) error {
			d.s.end(c, actor{source: "API"})
			return nil
		})
	case console.Transfer:
		to := slices.IndexFunc(agents, func(other agent) bool { return other.name == a.Text })
		if to < 0 {
			return fmt.Errorf("there is no agent %q", a.Text)
		}
		return d.s.within(a.Conversation, func(c *conversation) error {
			return d.s.transfer(c, c.participant(me.identity), agents[to], false)
		})
	}
	return d.s.playOwn(&step{Do: a.Do, ChatID: a.Conversation, Text: cmp.Or(a.Text, "Hello.")})
}
