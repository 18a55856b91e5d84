package genesystest

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/deskhost/deskhost/plugins/internal/console"
)

// typingShows is how long a customer is shown to type who does not say.
const typingShows = 6 * time.Second

// desk is the simulator as the agents' page sees it.
type desk struct{ s *Server }

func (s *Server) consoleRoutes() {
	page := console.New(console.Options{
		Title:  "Genesys Cloud simulator",
		Agents: s.options.Agents,
		More: []console.Button{
			{Do: "quick_replies", Label: "Quick replies"},
			{Do: "attachment", Label: "File"},
			{Do: "notice", Label: "Say as bot"},
			{Do: "cut", Label: "Cut the line"},
			{Do: "lose_socket", Label: "Let the line go dead"},
			{Do: "expire", Label: "Expire the session"},
		},
	}, desk{s})
	s.routes.Handle("/console/", http.StripPrefix("/console", page))
	s.routes.Handle("GET /{$}", http.RedirectHandler("console/", http.StatusFound))
}

// Conversations returns all conversations, the latest first.
func (d desk) Conversations() []console.Conversation {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	shown := make([]console.Conversation, 0, len(d.s.all))
	for _, c := range slices.Backward(d.s.all) {
		shown = append(shown, c.shown())
	}
	return shown
}

func (c *conversation) shown() console.Conversation {
	state := console.Waiting
	switch {
	case c.over:
		state = console.Ended
	case c.agent != "":
		state = console.Connected
	}
	facts := []console.Fact{{Name: "API", Value: c.api}, {Name: "Conversation", Value: c.id}}
	for _, key := range slices.Sorted(maps.Keys(c.attributes)) {
		facts = append(facts, console.Fact{Name: key, Value: c.attributes[key]})
	}
	preview := ""
	for _, l := range slices.Backward(c.log) {
		if preview = l.Text; l.From != "" {
			break
		}
	}
	return console.Conversation{
		ID: c.id, Name: c.name, State: state, Agent: cmp.Or(c.agent, c.next), Typing: time.Since(c.typed) < typingShows, Preview: preview,
		Changed: c.changed, Facts: facts,
	}
}

// Transcript returns the lines of a conversation behind the first so many.
func (d desk) Transcript(id string, after int) []console.Line {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	c := d.s.byID[id]
	if c == nil {
		return nil
	}
	return slices.Clone(c.log[min(after, len(c.log)):])
}

// Do plays what a person at the page does, in the words of a script.
func (d desk) Do(a console.Action) error {
	act := Act{Do: a.Do, ChatID: a.Conversation, Agent: a.Agent, Text: a.Text}
	switch a.Do {
	case console.Join:
		act.Do = "agent_joins"
	case console.Say:
		act.Do = "agent_says"
	case console.Typing:
		act.Do = "agent_typing"
	case console.StopTyping:
		return nil // which Genesys Cloud does not tell: typing passes by itself
	case console.Transfer:
		act.Do, act.Agent = "transfer", a.Text
	case console.Leave:
		act.Do = "agent_leaves"
	case console.End:
		act.Do = "agent_ends"
	case "quick_replies":
		act.Text, act.Replies = cmp.Or(a.Text, "When suits you?"), []string{"Today", "Tomorrow", "Next week"}
	case "attachment":
		act.Name, act.Text = "note.txt", cmp.Or(a.Text, "A note.")
	case "notice":
		act.Text = cmp.Or(a.Text, "You are next in the queue.")
	}
	return d.s.Do(act)
}
